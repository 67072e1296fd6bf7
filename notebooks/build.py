"""Make the notebooks from their sources: executed ones, students' ones, and the course.

    python notebooks/build.py [--all | --blank] [NAME ...]        (make notebooks)

``source/NN_name.py`` is a jupytext percent script. From it come

- ``NN_name.ipynb``, executed: if out of step with its source, or ``--all``; not with ``--blank``;
- ``student/NN_name.ipynb``, without outputs and solutions, with nbgrader's metadata;
- ``course/source/NN/NN_name.ipynb`` for nbgrader, with solutions, ignored by git.

How to write a source
---------------------
Tags say what a cell is: ``setup`` (the text of tests/setup_cell.txt), ``config`` (both are put
back when a notebook is graded), ``exercise``, ``check``, ``nbval-check-output`` (a test compares
its text with that of a new run), ``versions``. An exercise is two cells, and one point:

    # %% tags=["exercise"]
    def best(scores, k):
        \"\"\"What it takes, and what it returns.\"\"\"
        # solution
        return np.argsort(-scores)[:k]
        # end solution

    # %% tags=["check"]
    lesson.check_best(best)

- Text may stand between the two, code not. What comes before and after the marks stays.
- A solution in a function becomes an error that says so. At the top of a cell (``answer = "b"``
  between the marks) it goes, and each name that it gives and that the check, or the rest of the
  cell, reads becomes ``answer = ...``: so a blank can't pass with the answer of an exercise before.
- The check is one call. It returns None (a number would be read as the points), raises what is
  wrong, and must not pass for ``...``.
"""

import argparse
import ast
import copy
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from traitlets.config import PyFileConfigLoader

FOLDER = Path(__file__).resolve().parent
COURSE = FOLDER.parent / "course"
SOLUTION = re.compile(r"^( *)# solution\n(.*?)^ *# end solution$", re.MULTILINE | re.DOTALL)
CELL_TIMEOUT = 300  # seconds
# Where the badges lead and what the setup cell clones; `make badges REPO=owner/name` sets it.
REPOSITORY = "OWNER/REPOSITORY"
BADGES = "<!-- badges -->"
PROGRESS_BAR = re.compile(r"\d+%\|")
LOCAL_LINK = re.compile(r"\]\((\.\./[^)]*)\)")  # notebooks link each other by name alone
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
NO_NBGRADER = "nbgrader, which makes the students' notebooks, is missing: pip install -e '.[teach]'"


def sources() -> list[Path]:
    """In order."""
    return sorted((FOLDER / "source").glob("[0-9][0-9]_*.py"))


def badges(place: str) -> str:
    """Links that open the notebook `place` (below notebooks/) elsewhere."""
    colab = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{place}"
    binder = f"https://mybinder.org/v2/gh/{REPOSITORY}/main?urlpath=lab/tree/notebooks/{place}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def read_source(path: Path) -> nbformat.NotebookNode:
    """A source as a notebook without outputs; its cells are numbered, so their ids stay."""
    notebook = nbformat.v4.new_notebook(metadata=METADATA)
    new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    for number, cell in enumerate(jupytext.read(path, fmt="py:percent").cells):
        tags = cell.metadata.get("tags")
        source = cell.source.replace("OWNER/REPOSITORY", REPOSITORY)
        source = source.replace(BADGES, badges(f"{path.stem}.ipynb"))
        made = new[cell.cell_type](source, metadata={"tags": tags} if tags else {})
        made["id"] = f"cell-{number}"
        notebook.cells.append(made)
    return notebook


def tagged(cell: nbformat.NotebookNode, tag: str) -> bool:
    """Whether a code cell has the tag."""
    return cell.cell_type == "code" and tag in cell.metadata.get("tags", [])


def course_version(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as nbgrader's source: solutions, points, `answer = ...`; links a folder up."""
    course = copy.deepcopy(notebook)
    number, code = 0, [cell for cell in course.cells if cell.cell_type == "code"]
    for cell, following in zip(code, [*code[1:], None], strict=True):
        if tagged(cell, "exercise"):
            if following is None or not tagged(following, "check"):
                raise ValueError(f"The exercise in {cell.id} has no check: the next code cell.")
            number += 1
            cell.source = placed(cell, following.source)
            cell.metadata["nbgrader"] = graded(f"exercise-{number}", solution=True)
            following.metadata["nbgrader"] = graded(f"check-{number}", points=1)
        elif SOLUTION.search(cell.source):
            raise ValueError(f"The solution in {cell.id} would be shown: tag the cell 'exercise'.")
    for cell in course.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub("(/blob/main|lab/tree)/notebooks/", r"\g<0>student/", cell.source)
            cell.source = LOCAL_LINK.sub(r"](../\1)", cell.source)
        for tag in [tag for tag in ("setup", "config") if tagged(cell, tag)]:
            cell.metadata["nbgrader"] = graded(tag)
    return course


def graded(grade_id: str, solution: bool = False, points: int = 0) -> dict[str, Any]:
    """nbgrader's metadata of a solution, a check (points) or a cell that is put back (neither)."""
    kind = {"solution": solution, "grade": points > 0, "locked": not solution, "task": False}
    about = {"grade_id": grade_id, "schema_version": 3, **kind}
    return {**about, "points": points} if points else about


def placed(cell: nbformat.NotebookNode, check: str) -> str:
    """The exercise with `name = ...` before a solution at the top of the cell."""
    match = SOLUTION.search(cell.source)
    if match is None:
        raise ValueError(f"The exercise in {cell.id} has no '# solution' lines: add them.")
    if match[1]:
        return cell.source
    rest = ast.parse(f"{SOLUTION.sub('', cell.source)}\n{check}")
    asked = [name for name in given(match[2]) if name in names_in(rest, ast.Load)]
    if not asked:
        raise ValueError(f"The check of {cell.id} reads nothing that the solution gives.")
    return SOLUTION.sub(lambda m: f"{' = '.join(asked)} = ...  # your answer\n{m[0]}", cell.source)


def given(code: str) -> list[str]:
    """The names that lines at the top of a cell give a value, in order.

    >>> given("def f(x):\\n    y = x\\na, b = f(1)\\na = 2")
    ['f', 'a', 'b']
    """
    names: list[str] = []
    for line in ast.parse(code).body:
        name = getattr(line, "name", None)  # of a function or a class
        names += [name] if name else names_in(line, ast.Store)
    return list(dict.fromkeys(names))


def names_in(code: ast.AST, use: type[ast.expr_context]) -> list[str]:
    """The names that are read (`ast.Load`) or given a value (`ast.Store`)."""
    found = [node for node in ast.walk(code) if isinstance(node, ast.Name)]
    return [node.id for node in found if isinstance(node.ctx, use)]


def student_version(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The course's version after nbgrader's own preprocessors: no outputs, no solutions."""
    try:
        config = PyFileConfigLoader("nbgrader_config.py", path=str(COURSE)).load_config()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(NO_NBGRADER) from error
    student = course_version(notebook)
    for preprocessor in config.GenerateAssignment.preprocessors:
        if preprocessor.__name__ != "SaveCells":  # it needs a database
            student, _ = preprocessor(config=config).preprocess(student, {})
    return student


def execute(notebook: nbformat.NotebookNode, **options: Any) -> nbformat.NotebookNode:
    """Run all cells in the folder of the notebooks."""
    resources = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT, resources=resources, **options)
    client.execute()
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what changes from run to run: times, progress bars. Other words on stderr stay."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
            pairs = zip(cell.outputs, texts, strict=True)
            cell["outputs"] = [o for o, text in pairs if not PROGRESS_BAR.search(text)]
            for output in cell.outputs:
                data = output.get("data", {})
                if data.pop("application/vnd.jupyter.widget-view+json", None):
                    what = "explorer" if data["text/plain"].startswith("VBox(") else "button"
                    data["text/plain"] = f"The {what} needs a running kernel: run the notebook."
    return notebook


def slowest_cell(notebook: nbformat.NotebookNode) -> float:
    """Seconds of the slowest code cell."""
    out = [0.0]
    for cell in notebook.cells:
        times = cell.metadata.get("execution", {})
        keys = ("iopub.execute_input", "shell.execute_reply")
        if all(key in times for key in keys):
            begin, end = (datetime.fromisoformat(times[k].replace("Z", "+00:00")) for k in keys)
            out.append((end - begin).total_seconds())
    return max(out)


def same_cells(one: nbformat.NotebookNode, other: nbformat.NotebookNode) -> bool:
    """Whether two notebooks have the same cells, outputs aside."""

    def strip(nb):
        about = ("tags", "nbgrader")
        return [(c.cell_type, c.source, c.id, *map(c.metadata.get, about)) for c in nb.cells]

    return strip(one) == strip(other)


def make(path: Path, everything: bool = False, blank_only: bool = False) -> None:
    """Write the notebooks of a source; the executed one where it is out of step with it."""
    notebook = read_source(path)
    course = COURSE / "source" / path.stem[:2] / f"{path.stem}.ipynb"
    student = FOLDER / "student" / course.name
    for file, version in ((student, student_version), (course, course_version)):
        made = version(notebook)
        file.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(made, file)
    full = FOLDER / course.name
    if blank_only:
        return
    if not everything and full.exists() and same_cells(nbformat.read(full, 4), notebook):
        print(f"{full.name} is in step")
        return
    start = time.time()
    slowest = slowest_cell(execute(notebook))
    nbformat.write(tidy(notebook), full)
    took = f"{time.time() - start:.0f} s, slowest cell {slowest:.1f} s"
    print(f"{full.name}: {took}, {full.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 03_entropy_selection; none means all")
    parser.add_argument("--all", action="store_true", help="execute also those that are in step")
    parser.add_argument("--blank", action="store_true", help="execute none: students' and course")
    options = parser.parse_args()
    there = [path.stem for path in sources()]
    for name in options.names:
        if name not in there:
            parser.error(f"there is no notebook {name}; there are {', '.join(there)}")
    for path in sources():
        if not options.names or path.stem in options.names:
            try:
                make(path, options.all or bool(options.names), options.blank)
            except (ModuleNotFoundError, ValueError) as error:
                sys.exit(f"{path.name}: {error}")
