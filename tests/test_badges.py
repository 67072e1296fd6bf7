"""The repository's name: one everywhere, and `make badges` sets it everywhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
import badges  # noqa: E402

sys.path.remove(str(ROOT / "notebooks"))
PLACE_HOLDER = "OWNER/REPOSITORY"
NAMES = [path.stem for path in sorted((ROOT / "notebooks/source").glob("*.py"))]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The files that may name the repository, copied."""
    folder = tmp_path_factory.mktemp("original")
    for path in badges.files():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return folder


@pytest.fixture
def copy(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "copy"))


def expected():
    """The files that must name it, each from its own reason."""
    yield from ("notebooks/build.py", "tests/setup_cell.txt")
    for name in NAMES:
        yield from (
            f"notebooks/source/{name}.py",
            f"notebooks/{name}.ipynb",
            f"notebooks/student/{name}.ipynb",
        )


def relative(paths, root):
    return {path.relative_to(root).as_posix() for path in paths}


# This checkout


def test_all_files_give_one_name():
    found = badges.named()
    assert relative(found, ROOT) >= set(expected()), "a file does not name the repository"
    assert len(set().union(*found.values())) == 1, found


def test_the_place_holder_is_nowhere_once_there_is_a_name():
    (name,) = badges.named()[ROOT / "notebooks/build.py"]
    if name == PLACE_HOLDER:
        pytest.skip("no name was given yet: make badges REPO=owner/name")
    left = [p for p in badges.files() if PLACE_HOLDER in p.read_text(encoding="utf-8")]
    assert relative(left, ROOT) <= {"notebooks/build.py"}  # which replaces it in new sources


# Stamping


def all_text(root):
    return {path: path.read_text(encoding="utf-8") for path in badges.files(root)}


@pytest.mark.parametrize("names", [["someone/piaa"], ["a-b/c.d_e", "x/y"], ["one/two", "one/two"]])
def test_stamping_changes_the_name_and_nothing_else(copy, names):
    before = all_text(copy)
    (old,) = badges.named(copy)[copy / "notebooks/build.py"]
    for name in names:
        changed = badges.stamp(name, copy)
    assert relative(badges.named(copy), copy) >= set(expected())
    assert set().union(*badges.named(copy).values()) == {names[-1]}
    for path, text in all_text(copy).items():
        if path.name != "build.py":
            assert text == before[path].replace(old, names[-1]), path
    again = names[-1:] == names[-2:-1]
    assert (changed == []) == again, "the same name again changes nothing"


def test_a_stamped_notebook_keeps_its_outputs_and_leads_to_the_new_place(copy):
    badges.stamp("someone/piaa", copy)
    for name in NAMES:
        for place in (f"{name}.ipynb", f"student/{name}.ipynb"):
            was = nbformat.read(ROOT / "notebooks" / place, 4)
            now = nbformat.read(copy / "notebooks" / place, 4)
            nbformat.validate(now)
            assert [c.get("outputs") for c in now.cells] == [c.get("outputs") for c in was.cells]
            opening, setup = now.cells[0].source, now.cells[1].source
            assert f"/github/someone/piaa/blob/main/notebooks/{place})" in opening
            assert f"/gh/someone/piaa/main?urlpath=lab/tree/notebooks/{place})" in opening
            assert '"https://github.com/someone/piaa")' in setup


def in_step(root):
    """What the builder in `root` says of the first notebooks: executed and students' in step?"""
    code = (
        "import sys; sys.path.insert(0, 'notebooks'); import build, nbformat\n"
        "for path in build.sources()[:3]:\n"
        "    made = build.read_source(path)\n"
        "    full = nbformat.read(build.FOLDER / f'{path.stem}.ipynb', 4)\n"
        "    student = nbformat.read(build.FOLDER / 'student' / f'{path.stem}.ipynb', 4)\n"
        "    print(build.same_cells(full, made),\n"
        "          build.same_cells(student, build.student_version(made)))\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_stamping_leaves_notebooks_in_step_with_their_sources(copy):
    """So that `make notebooks` executes none of them again."""
    before = in_step(copy)
    badges.stamp("someone/piaa", copy)
    assert in_step(copy) == before and "True" in before


def test_plain_links_follow_and_links_to_others_stay(copy):
    (old,) = badges.named(copy)[copy / "notebooks/build.py"]
    others = f"github.com/openai/CLIP github.com/{old}-two github.com/{old}2 data/{old}"
    readme = copy / "README.md"
    readme.write_text(f"git clone https://github.com/{old}.git (github.com/{old}). {others}\n")
    badges.stamp("someone/piaa", copy)
    ours = "git clone https://github.com/someone/piaa.git (github.com/someone/piaa)."
    assert readme.read_text() == f"{ours} {others}\n"


def test_disagreement_is_seen(copy):
    path = copy / "notebooks" / f"{NAMES[0]}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps(notebook)
    (old,) = badges.named(copy)[copy / "notebooks/build.py"]
    path.write_text(text.replace(f"mybinder.org/v2/gh/{old}", "mybinder.org/v2/gh/else/where"))
    assert badges.named(copy)[path] == {old, "else/where"}


@pytest.mark.parametrize(
    "name",
    ["", "piaa", "a/b/c", "https://github.com/a/b", "a b/c", "-a/b", "a/b.git", "a/..", "a/b\n"],
)
def test_a_bad_name_gives_one_sentence_and_changes_nothing(copy, name):
    before = all_text(copy)
    with pytest.raises(ValueError, match=r"^.*names no repository: .* REPO=owner/name\.$"):
        badges.stamp(name, copy)
    assert all_text(copy) == before


def test_the_command_says_it_in_one_line():
    """On the real files: a bad name is refused before any is touched."""
    command = [sys.executable, str(ROOT / "notebooks/badges.py"), "no name"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"'no name' names no repository: [^\n]+\n", done.stderr)


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_badges_passes_the_name_on(tmp_path):
    for name in ("Makefile", "pyproject.toml", "environment.yml"):
        shutil.copy(ROOT / name, tmp_path)
    command = ["make", "-n", "badges", "REPO=a/b"]
    alone = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert '.venv/bin/python notebooks/badges.py "a/b"' in done.stdout
