"""nbgrader's settings for the series; notebooks/build.py makes the students' notebooks with them.

Used in this folder: `nbgrader autograde 03`. What it does for a class: notebooks/TEACHING.md.
"""

import os
import re
from pathlib import Path

import nbformat
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
ROOT = Path(__file__).resolve().parent
c.CourseDirectory.root = str(ROOT)
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
    """Make the cells that nbgrader knows those of the hand-out: each there, and once.

    A student who copies a cell copies its id, which makes a notebook ungradable: the last keeps
    it. So does a deleted exercise, or one of an older hand-out: missing cells come back as blanks.
    """

    def preprocess(self, nb, resources):
        about = resources["nbgrader"]
        path = ROOT / "release" / about["assignment"] / f"{about['notebook']}.ipynb"
        release = nbformat.read(path, 4)
        wanted = {name_of(cell): cell for cell in release.cells if name_of(cell)}
        missing = set(wanted)
        for cell in reversed(nb.cells):
            if name_of(cell) not in missing:
                cell.metadata.pop("nbgrader", None)
            missing.discard(name_of(cell))
        place = 0
        for name, cell in wanted.items():
            if name in missing:
                nb.cells.insert(place, cell)
            place = [name_of(c) for c in nb.cells].index(name) + 1
        return nb, resources


def name_of(cell):
    """nbgrader's name of a cell, or None."""
    return cell.metadata.get("nbgrader", {}).get("grade_id")


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
    CheckCellMetadata,
]
c.Execute.timeout = 300  # seconds a cell
# A warning is no error: nbgrader gives 0 for any word on stderr in a check, so all are taken away.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"\s|\S"

if os.environ.get("PIAA_FENCE"):  # kernels/graded/graded.sh, for Linux
    c.Execute.kernel_name = "graded"
    c.KernelManager.transport = "ipc"  # files, since the kernel has no network
    c.KernelManager.ip = f"{ROOT}/sockets/kernel"
