"""Make the folder that a class gets: ``make student OUT=folder``.

It holds the student notebooks, the package, the embedded world and the setup, laid out as in the
repository, so that links and the setup cell work, and beside the installed libraries neither a
network nor git is needed. Solutions stay out; but the reference answers that the checks compare
with are code in ``piaa_utils/lessons``, and who looks for them finds them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat  # comes with JupyterLab

from piaa_utils.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
CONTENTS = (
    "LICENSE",
    "environment.yml",
    "pyproject.toml",
    "data/README.md",
    "data/licences",
    "data/mini_clip",
    "data/mini_scenes",
    "notebooks/install_missing.py",
    "notebooks/student",
    "piaa_utils",
)
LEFT_OUT = ("__pycache__", ".ipynb_checkpoints")
RECORD = ".handed_out.json"  # what each file was when it was handed out
README = """# PIAA, step by step: for students

Notebooks to work through, with blank exercises. All they need is in this folder.

| notebook | time |
| --- | --- |
{table}

## Start

Once, with a network (some minutes, about 6 GB), in this folder, with Python 3.10 or newer:

    python3 -m venv .venv
    .venv/bin/python -m pip install -e ".[lab]"

On Windows it is `.venv\\Scripts\\python` in place of `.venv/bin/python`. With conda instead:
`conda env create -f environment.yml`. In a room where this is done already, skip it. Then, each
time:

    .venv/bin/python -m jupyterlab notebooks/student

From then on nothing needs a network. Run the cells from the top. The first notebook that you run
computes features of all pictures, which takes about a minute; they are kept in `cache/`.

## Work

- Write your answer into the cell under the exercise, run it, then run the check below it. It says
  at once what is wrong. You may add cells of your own.
- Leave the checks and the lesson's cells as they are: they are put back before anything is graded.
- An answer writes no files outside its folder and needs no network.
- Something broke? *Kernel*, *Restart Kernel and Run All Cells*. An exercise without an answer stops
  there with an error: that is meant, and with *Run Selected Cell and All Below* you go on after it.

## Hand in

Save the notebook, and hand in the files `notebooks/student/*.ipynb` that you worked on, under their
own names.
"""


def contents(root: Path = ROOT) -> Iterator[tuple[str, bytes]]:
    """The files of the folder: (path in it, bytes).

    Raises
    ------
    FileNotFoundError
        The repository lacks one of them.
    """
    yield "README.md", readme(root).encode()
    for name in CONTENTS:
        source = root / name
        files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        for file in files:
            if not set(file.parts) & set(LEFT_OUT):
                yield file.relative_to(root).as_posix(), file.read_bytes()


def readme(root: Path = ROOT) -> str:
    """The students' README, with the notebooks' own titles and times."""
    lines = []
    for path in sorted((root / "notebooks" / "student").glob("*.ipynb")):
        opening = nbformat.read(path, 4).cells[0].source
        title = re.search(r"^# (.*)", opening, re.M)[1]
        time = re.search(r"^\*\*Time\*\*: (.*?)\.?$", opening, re.M)
        link = f"[{title}](notebooks/student/{path.name})"
        lines.append(f"| {link} | {time[1] if time else ''} |")
    return README.format(table="\n".join(lines))


def hand_out(out: str | os.PathLike, root: Path = ROOT) -> tuple[int, list[str]]:
    """Make or renew the folder for a class.

    A file that is not as it was handed out is somebody's work and stays; one that is gets the
    newest version. Files that are not from here are left alone.

    Parameters
    ----------
    out : the folder; made if it is not there.
    root : the repository.

    Returns
    -------
    (files written, the paths in `out` that were kept)

    Raises
    ------
    ValueError
        `out` is the repository, or a folder that would be copied into itself.
    OSError
        Something cannot be read or written.
    """
    out = Path(out).resolve()
    inside = [root / name for name in CONTENTS]
    if out == root or any(out == p or p in out.parents for p in inside):
        raise ValueError(f"{out} is part of the repository itself: name another folder.")
    record_path = out / RECORD
    record = json.loads(record_path.read_text(encoding="utf-8")) if record_path.exists() else {}
    written, kept = 0, []
    for name, data in contents(root):
        target, new = out / name, hashlib.sha256(data).hexdigest()
        if target.exists():
            old = hashlib.sha256(target.read_bytes()).hexdigest()
            if old != new and old != record.get(name):
                kept.append(name)
                continue
            record[name] = new
            if old == new:
                continue
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, data)
        record[name] = new
        written += 1
    write_whole(record_path, json.dumps(record, indent=0).encode())
    return written, kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m piaa_utils handout``."""
    parser.add_argument("out", type=Path, help="the folder for the class")


def run_command(options: argparse.Namespace) -> None:
    """``python -m piaa_utils handout``: :func:`hand_out`, and what was kept."""
    written, kept = hand_out(options.out)
    print(f"{options.out}: {written} files written")
    for name in kept:
        print(f"Kept, since it was changed there: {name}")
