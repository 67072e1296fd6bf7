"""The folder for a class is complete and without solutions."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {path.stem for path in (ROOT / "notebooks" / "source").glob("*.py")}
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `make student` writes."""
    if not (ROOT / ".git").exists():
        pytest.skip("the hand-out is made of what git has")
    out = tmp_path_factory.mktemp("class") / "a class"
    alone = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(["make", "-s", "student", f"OUT={out}"], cwd=ROOT, env=alone, check=True)
    return out


def test_a_class_gets_every_notebook_no_solution_and_no_dead_link(folder):
    assert {path.stem for path in folder.rglob("*.ipynb")} == NOTEBOOKS
    for path in folder.rglob("*.ipynb"):
        cells = nbformat.read(path, 4).cells
        assert not any("# solution" in cell.source for cell in cells)
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        links = [link for link in LINK.findall(text) if not link.startswith("http")]
        assert not [link for link in links if not (path.parent / link).exists()], path.name


def test_the_setup_cell_works_there_without_a_network(folder):
    setup = (ROOT / "tests" / "setup_cell.txt").read_text(encoding="utf-8")
    then = "import piaa_utils; print(Path(piaa_utils.__file__).resolve().parents[1])"
    command = [sys.executable, "-I", "-c", f"{setup}\n{then}"]
    where, env = folder / "notebooks" / "student", {"PATH": "", "PIP_NO_INDEX": "1"}
    done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [str(folder)], done.stderr
    assert (folder / "data" / "mini_scenes").is_dir() and (folder / "data" / "mini_clip").is_dir()
