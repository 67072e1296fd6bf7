"""Put a student's answers into the pristine notebook, which ``grade`` then runs."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat  # comes with JupyterLab

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 100 << 20  # bytes of a notebook, and of all files beside it
PRELUDE = (
    "import os, subprocess, sys\nfrom pathlib import Path\nhere = Path.cwd()\nroot = Path({!r})"
)
SETTLED = ("setup", "config", "check", "versions")  # tags of cells that are never a student's


@dataclass(frozen=True)
class Pristine:
    """A notebook as it was handed out. ``exercises`` is {number: (id of its cell, names asked)}."""

    name: str
    path: Path
    cells: list
    exercises: dict[int, tuple[str, list[str]]]


def read_pristine(path: Path) -> Pristine:
    """Read a student notebook as handed out.

    Raises
    ------
    ValueError
        It has no exercise, or one without a check ``exercise_N(...)`` after it.
    """
    cells = nbformat.read(path, 4).cells
    exercises, waiting = {}, None
    for cell in cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        if "exercise" in tags:
            waiting = cell
        number = re.search(r"exercise_(\d+)\(", cell.source) if "check" in tags else None
        if number and waiting is not None:
            exercises[int(number[1])] = (waiting.id, _assigned(waiting.source))
            waiting = None
    if not exercises or waiting is not None:
        raise ValueError(
            f"{path} has no exercise, or one without its check: each cell tagged 'exercise' needs "
            "a cell tagged 'check' after it that calls exercise_N(...)."
        )
    return Pristine(path.stem, path, cells, exercises)


def _assigned(source: str) -> list[str]:
    """The names that a cell defines at its top level.

    >>> _assigned("def f(x):\\n    y = 1\\nanswer = ...")
    ['f', 'answer']
    """
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return names


def read_notebook(path: Path) -> list:
    """The cells of a student's file.

    Raises
    ------
    ValueError
        It is too large, or no notebook.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(
            f"the file has {size / 1e6:.0f} MB: ask the student to clear its outputs and save it"
        )
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), 4)
        for cell in notebook.cells:
            cell.source.strip(), cell.cell_type, cell.metadata.get("tags", [])
        return notebook.cells
    except Exception as error:  # whatever a file may hold
        kind = type(error).__name__
        raise ValueError(
            f"the file is no notebook ({kind}): ask the student to save it again"
        ) from error


@dataclass
class Merged:
    """What of a student's file goes into the pristine notebook.

    answers : {exercise: sources}. added : {id of the pristine cell before: sources}.
    edited : what of the lesson was changed or is missing, in words.
    """

    answers: dict[int, list[str]]
    added: dict[str, list[str]]
    edited: list[str]


def merge(pristine: Pristine, cells: list) -> Merged:
    """Find a student's answers and own cells.

    A cell is known by its id; where ids were lost, an exercise by its tag and the heading
    "Exercise N" above it, a cell of the lesson by its text.
    """
    code = {c.id: c for c in pristine.cells if c.cell_type == "code"}
    by_source = {c.source.strip(): c.id for c in code.values()}
    number_of = {identity: n for n, (identity, _) in pristine.exercises.items()}
    out = Merged({n: [] for n in pristine.exercises}, {}, [])
    anchor, heading, met, changed = pristine.cells[0].id, None, set(), 0
    for cell in cells:
        if cell.cell_type != "code":
            found = re.findall(r"^#+ Exercise (\d+)\b", cell.source, re.M)
            heading = int(found[-1]) if found else heading
            if cell.get("id") in {c.id for c in pristine.cells}:
                anchor = cell.id
            continue
        tags = cell.metadata.get("tags", [])
        identity = cell.get("id") if cell.get("id") in code else None
        identity = identity or by_source.get(cell.source.strip())
        number = number_of.get(identity)
        if number is None and identity is None and "exercise" in tags and heading in out.answers:
            number, identity = heading, pristine.exercises[heading][0]
        if number is not None:
            out.answers[number].append(cell.source)
        elif identity is not None:
            changed += code[identity].source.strip() != cell.source.strip()
        elif not set(tags) & set(SETTLED):
            out.added.setdefault(anchor, []).append(cell.source)
            continue
        if identity is not None:
            anchor = identity
            met.add(identity)
    missing = len(set(code) - met - set(number_of))
    if changed:
        out.edited.append(f"{changed} cells of the lesson or checks were edited and put back")
    if missing:
        out.edited.append(f"{missing} cells of the lesson or checks were missing and put back")
    return out


def plan_of(pristine: Pristine, merged: Merged) -> list[dict[str, Any]]:
    """The steps for :func:`piaa_utils.classroom.worker.run`, up to the last check that is needed.

    An exercise that is as it was handed out, with no cell of the student's beside it, is not
    checked.
    """
    number_of = {identity: n for n, (identity, _) in pristine.exercises.items()}
    steps: list[dict[str, Any]] = []
    last, waiting, theirs = 0, None, False
    for cell in pristine.cells:
        tags = cell.metadata.get("tags", [])
        number = number_of.get(cell.id)
        if cell.cell_type == "code" and number is not None:
            answers = merged.answers[number]
            touched = any(a.strip() != cell.source.strip() for a in answers)
            if touched or theirs:
                steps += [{"kind": "answer", "number": number, "source": a} for a in answers]
            waiting, theirs = number, theirs or touched
        elif cell.cell_type == "code" and "check" in tags:
            if theirs and waiting is not None:
                names = pristine.exercises[waiting][1]
                check = {"kind": "check", "number": waiting, "answers": names}
                steps.append({**check, "source": cell.source})
                last = len(steps)
            waiting = None
        elif cell.cell_type == "code":
            source = PRELUDE.format(str(ROOT)) if "setup" in tags else cell.source
            steps.append({"kind": "lesson", "source": source})
            theirs = False
        for source in merged.added.get(cell.id, []):
            steps.append({"kind": "answer", "number": None, "source": source})
            theirs = True
        if cell.cell_type == "code" and "check" in tags:
            theirs = False
    return steps[:last]
