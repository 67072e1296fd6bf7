"""nbgrader's settings for the series; notebooks/build.py makes the students' notebooks with them.

Used in this folder: `nbgrader autograde 03`. What it does for a class: notebooks/TEACHING.md.
"""

import os
import re
from pathlib import Path

from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
    NbGraderPreprocessor,
    OverwriteCells,
    OverwriteKernelspec,
    SaveCells,
)

c = get_config()  # noqa: F821  (nbgrader gives it)
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
c.CourseDirectory.course_id = "piaa"


class Blank(ClearSolutions):
    """In a function an error stands in a solution's place, else the lines go.

    build.py has put `answer = ...` before those.
    """

    def preprocess_cell(self, cell, resources, cell_index):
        at_top = re.search("^# solution$", cell.source, re.MULTILINE)
        stub = 'raise NotImplementedError("Your answer goes here; then run this cell again.")'
        self.code_stub = {"python": "" if at_top else stub}
        cell, resources = super().preprocess_cell(cell, resources, cell_index)
        cell.source = cell.source.rstrip("\n")
        return cell, resources


class OneOfEach(NbGraderPreprocessor):
    """Keep the last of cells with one grade_id, and drop what nbgrader says of unknown cells.

    A student who copies a cell copies its id, and that would make the notebook ungradable.
    """

    def preprocess(self, nb, resources):
        seen = {None}
        for cell in reversed(nb.cells):
            grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
            if grade_id in seen:
                cell.metadata.pop("nbgrader", None)
            seen.add(grade_id)
        return nb, resources


c.ClearSolutions.begin_solution_delimeter = "# solution"
c.ClearSolutions.end_solution_delimeter = "# end solution"
c.LockCells.lock_readonly_cells = False  # students may change setup and configuration
c.GenerateAssignment.preprocessors = [
    LockCells,
    Blank,
    ClearOutput,
    CheckCellMetadata,
    ComputeChecksums,
    SaveCells,
]

c.Autograde.sanitize_preprocessors = [
    ClearOutput,
    OneOfEach,
    OverwriteKernelspec,
    OverwriteCells,
    OneOfEach,  # what OverwriteCells did not know
    CheckCellMetadata,
]
c.OverwriteCells.add_missing_cells = True
c.Execute.timeout = 300  # seconds a cell
# A warning is no error: nbgrader gives 0 for any word on stderr in a check, so all are taken away.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"\s|\S"

if os.environ.get("PIAA_FENCE"):  # Linux: no network, the disk read-only (kernels/graded)
    c.Execute.kernel_name = "graded"
    c.KernelManager.transport = "ipc"
