"""The folder for a class: complete, renewed without losing anybody's work."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from piaa_utils.__main__ import main
from piaa_utils.classroom import handout

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
NAME = "notebooks/student/00_start_here.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("class") / "kit"
    written, kept = handout.hand_out(out)
    assert written > 1000 and kept == []
    return out


@pytest.fixture
def small(tmp_path):
    """A repository with one notebook, and the folder made of it."""
    root = tmp_path / "repository"
    for name in handout.CONTENTS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            (root / name).mkdir()
            (root / name / "file.txt").write_text(name)
        else:
            shutil.copy(ROOT / name, root / name)
    shutil.copy(ROOT / NAME, root / NAME)
    (root / "piaa_utils" / "__pycache__").mkdir()
    (root / "piaa_utils" / "__pycache__" / "a.pyc").write_text("")
    handout.hand_out(tmp_path / "out", root)
    return root, tmp_path / "out"


def test_links_lead_somewhere_and_no_solution_is_inside(folder):
    for path in [folder / "README.md", *(folder / "notebooks").rglob("*.ipynb")]:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = nbformat.reads(text, 4).cells
            assert not any("# solution" in cell.source for cell in cells)
            text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        links = [x for x in LINK.findall(text) if not x.startswith(("http", "mailto"))]
        assert not [link for link in links if not (path.parent / link).exists()], path
    names = {p.name for p in (ROOT / "notebooks" / "student").glob("*.ipynb")}
    assert {p.name for p in folder.rglob("*.ipynb")} == names
    assert all(name in (folder / "README.md").read_text(encoding="utf-8") for name in names)


def test_the_setup_cell_finds_the_package_in_the_folder(folder):
    """As in a room without a network: what the first cells do, with nothing but the folder."""
    cells = nbformat.read(folder / NAME, 4).cells
    (setup,) = [c.source for c in cells if "setup" in c.metadata.get("tags", [])]
    then = (
        "import piaa_utils.datasets as d; print(Path(d.__file__).resolve().parents[1]); "
        "print(d.data_dir()); print(len(d.mini_scenes('test')))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{setup}\n{then}"],
        cwd=(folder / NAME).parent,
        env={"PATH": "", "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == [str(folder), str(folder / "data"), "600"]


def test_work_is_kept_and_the_rest_renewed(small):
    root, out = small
    assert not list(out.rglob("__pycache__"))
    (out / NAME).write_text("my answers")
    (out / "notes.txt").write_text("mine")
    (out / "data" / "licences" / "file.txt").unlink()
    (root / "piaa_utils" / "file.txt").write_text("newer")
    assert handout.hand_out(out, root) == (2, [NAME])
    assert (out / NAME).read_text() == "my answers"
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "piaa_utils" / "file.txt").read_text() == "newer"
    assert handout.hand_out(out, root) == (0, [NAME]), "it is kept again"


def test_a_folder_without_a_record_keeps_what_differs(small):
    root, out = small
    (out / handout.RECORD).unlink()
    (out / "LICENSE").write_text("another")
    assert handout.hand_out(out, root) == (0, ["LICENSE"])
    assert "LICENSE" not in json.loads((out / handout.RECORD).read_text())


def test_not_into_the_repository_itself(small):
    root, _ = small
    for out in (root, root / "piaa_utils", root / "notebooks" / "student" / "class"):
        with pytest.raises(ValueError, match="name another folder"):
            handout.hand_out(out, root)


def test_a_missing_file_is_named(small, tmp_path):
    root, _ = small
    (root / "LICENSE").unlink()
    with pytest.raises(FileNotFoundError, match="LICENSE"):
        handout.hand_out(tmp_path / "new", root)


def test_the_command_says_what_was_kept(small, capsys, monkeypatch):
    root, out = small
    (out / NAME).write_text("my answers")
    hand_out = handout.hand_out
    monkeypatch.setattr(handout, "hand_out", lambda path: hand_out(path, root))
    main(["handout", str(out)])
    assert f"Kept, since it was changed there: {NAME}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["handout", str(root)])
    assert stopped.value.code == 2 and "name another folder" in capsys.readouterr().err


def test_make_student_asks_for_a_folder():
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    command = ["make", "-n", "student"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "make student OUT=folder" in done.stderr
    done = subprocess.run([*command, "OUT=a b"], cwd=ROOT, capture_output=True, text=True)
    assert '-m piaa_utils handout "a b"' in done.stdout
