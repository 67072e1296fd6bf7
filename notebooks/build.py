"""Make the notebooks from their sources: executed ones, and the students'.

    python notebooks/build.py [--all] [NAME ...]        (make notebooks)

``source/NN_name.py`` is a jupytext percent script. From it come ``NN_name.ipynb``, executed, with
its outputs, and ``student/NN_name.ipynb``, without outputs and with the exercises blanked. Only
notebooks that are out of step with their source are made; ``--all`` makes all of them.

In a cell tagged ``exercise``, what stands between the lines ``# solution`` and ``# end solution``
is the solution. The student finds in its place an error that says so or, at the top of a cell, the
name to fill in.
"""

import argparse
import copy
import re
import time
from datetime import datetime
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
SOLUTION = re.compile(r"^( *)# solution\n.*?^ *# end solution$", re.MULTILINE | re.DOTALL)
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


def sources() -> list[Path]:
    """The sources in order."""
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
    read = jupytext.read(path, fmt="py:percent")
    notebook = nbformat.v4.new_notebook(metadata=METADATA)
    for number, cell in enumerate(read.cells):
        tags = cell.metadata.get("tags")
        new = nbformat.v4.new_markdown_cell if cell.cell_type == "markdown" else None
        new = new or nbformat.v4.new_code_cell
        source = cell.source.replace("OWNER/REPOSITORY", REPOSITORY)
        source = source.replace(BADGES, badges(f"{path.stem}.ipynb"))
        made = new(source, metadata={"tags": tags} if tags else {})
        made["id"] = f"cell-{number}"
        notebook.cells.append(made)
    return notebook


def blank(solution: re.Match) -> str:
    """What the student finds in a solution's place.

    Within a function an error that says so; at the top of a cell the name to fill in.
    """
    indent, names = solution[1], re.findall(r"^(\w+) = ", solution[0], re.MULTILINE)
    if names and not indent:
        return f"{names[-1]} = ...  # your answer"
    return f'{indent}raise NotImplementedError("Your answer goes here; then run this cell again.")'


def student_version(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same notebook without outputs and solutions; its links lead one folder up."""
    student = copy.deepcopy(notebook)
    for cell in student.cells:
        if cell.cell_type == "markdown":
            cell["source"] = cell.source.replace(
                "/blob/main/notebooks/", "/blob/main/notebooks/student/"
            )
            cell["source"] = cell.source.replace(
                "lab/tree/notebooks/", "lab/tree/notebooks/student/"
            )
            cell["source"] = LOCAL_LINK.sub(r"](../\1)", cell.source)
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            cell["outputs"], cell["execution_count"] = [], None
        if "exercise" in tags and cell.cell_type == "code":
            cell["source"], count = SOLUTION.subn(blank, cell.source)
            if count == 0:
                raise ValueError(f"The exercise in {cell.id} has no '# solution' lines: add them.")
        elif "# solution" in cell.source:
            raise ValueError(f"The solution in {cell.id} would be shown: tag the cell 'exercise'.")
    return student


def execute(notebook: nbformat.NotebookNode, **options) -> nbformat.NotebookNode:
    """Run all cells in the folder of the notebooks."""
    resources = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT, resources=resources, **options)
    client.execute()
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what changes from run to run without meaning: times of execution, progress bars.

    Other words on stderr stay, for a test to find.
    """
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell["outputs"] = [o for o in cell.outputs if not PROGRESS_BAR.search(_text(o))]
            for output in cell.outputs:
                data = output.get("data", {})
                if "application/vnd.jupyter.widget-view+json" in data:
                    data.pop("application/vnd.jupyter.widget-view+json")
                    what = "explorer" if data["text/plain"].startswith("VBox(") else "button"
                    data["text/plain"] = f"The {what} needs a running kernel: run the notebook."
    return notebook


def _text(output: nbformat.NotebookNode) -> str:
    return output.get("text", "") or output.get("data", {}).get("text/plain", "")


def seconds_of_cells(notebook: nbformat.NotebookNode) -> list[float]:
    """How long each code cell ran."""
    out = []
    for cell in notebook.cells:
        times = cell.metadata.get("execution", {})
        if "iopub.execute_input" in times and "shell.execute_reply" in times:
            begin, end = (
                datetime.fromisoformat(times[k].replace("Z", "+00:00"))
                for k in ("iopub.execute_input", "shell.execute_reply")
            )
            out.append((end - begin).total_seconds())
    return out


def same_cells(one: nbformat.NotebookNode, other: nbformat.NotebookNode) -> bool:
    """Whether two notebooks have the same cells, outputs aside."""

    def strip(nb):
        return [(c.cell_type, c.source, c.metadata.get("tags", []), c.id) for c in nb.cells]

    return strip(one) == strip(other)


def make(path: Path, everything: bool) -> None:
    """Write the two notebooks of a source, where they are out of step with it."""
    notebook = read_source(path)
    student = FOLDER / "student" / f"{path.stem}.ipynb"
    student.parent.mkdir(exist_ok=True)
    nbformat.write(student_version(notebook), student)
    full = FOLDER / f"{path.stem}.ipynb"
    if not everything and full.exists() and same_cells(nbformat.read(full, 4), notebook):
        print(f"{full.name} is in step")
        return
    start = time.time()
    execute(notebook)
    cells = seconds_of_cells(notebook)
    nbformat.write(tidy(notebook), full)
    print(
        f"{full.name}: {time.time() - start:.0f} s, slowest cell {max(cells):.1f} s, "
        f"{full.stat().st_size / 1e6:.1f} MB",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 03_entropy_selection; none means all")
    parser.add_argument("--all", action="store_true", help="also those that are in step")
    options = parser.parse_args()
    there = [path.stem for path in sources()]
    for name in options.names:
        if name not in there:
            parser.error(f"there is no notebook {name}; there are {', '.join(there)}")
    for path in sources():
        if not options.names or path.stem in options.names:
            make(path, options.all or bool(options.names))
