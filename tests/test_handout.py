"""The folder for a class, as `make student` writes it: complete, and without solutions."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
pytestmark = pytest.mark.skipif(
    not (shutil.which("git") and shutil.which("make") and (ROOT / ".git").exists()),
    reason="the hand-out is made by make, of what git has",
)


def make_student(out):
    command = ["make", "-s", "student", f"OUT={out}"]
    alone = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("class") / "a class"
    done = make_student(out)
    assert done.returncode == 0, done.stderr
    return out


def test_it_holds_every_notebook_no_solution_and_no_dead_link(folder):
    names = {path.stem for path in (ROOT / "notebooks" / "source").glob("*.py")}
    assert {path.stem for path in folder.rglob("*.ipynb")} == names
    for path in folder.rglob("*.ipynb"):
        cells = nbformat.read(path, 4).cells
        assert not any("# solution" in cell.source for cell in cells)
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        links = [link for link in LINK.findall(text) if not link.startswith("http")]
        assert not [link for link in links if not (path.parent / link).exists()], path.name


def test_the_setup_cell_works_there_without_a_network(folder):
    setup = (ROOT / "tests" / "setup_cell.txt").read_text(encoding="utf-8")
    then = "import piaa_utils; print(Path(piaa_utils.__file__).resolve().parents[1])"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{setup}\n{then}"],
        cwd=folder / "notebooks" / "student",
        env={"PATH": "", "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(folder)
    assert (folder / "data" / "mini_scenes").is_dir() and (folder / "data" / "mini_clip").is_dir()


def test_without_a_folder_it_asks_for_one():
    done = make_student("")
    assert done.returncode == 2 and "make student OUT=folder" in done.stderr
