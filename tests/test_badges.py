"""The repository's name: one everywhere, and `make badges` sets it everywhere."""

import importlib.util
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("badges", ROOT / "notebooks" / "badges.py")
badges = importlib.util.module_from_spec(spec)
spec.loader.exec_module(badges)
BUILDER = "notebooks/build.py"


@pytest.fixture
def root(tmp_path):
    """The files that may name the repository, copied."""
    for path in badges.files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def text(root):
    return {path: path.read_text("utf-8") for path in badges.files(root)}


def test_all_files_give_one_name():
    found = badges.named()
    expected = [ROOT / BUILDER, ROOT / "tests/setup_cell.txt"]
    for name in [path.stem for path in (ROOT / "notebooks/source").glob("*.py")]:
        places = (f"source/{name}.py", f"{name}.ipynb", f"student/{name}.ipynb")
        expected += [ROOT / "notebooks" / place for place in places]
    assert set(found) >= set(expected) and len(set().union(*found.values())) == 1


def test_stamping_changes_the_name_and_nothing_else(root):
    (old,) = badges.named(root)[root / BUILDER]
    ours, others = f"github.com/{old}.git (github.com/{old}).", f"github.com/{old}-two {old}"
    (root / "README.md").write_text(f"{ours} {others}\n")
    before = text(root)
    badges.stamp("a-b/c.d_e", root)
    assert badges.stamp("a-b/c.d_e", root) == [], "the same name again changes nothing"
    assert set().union(*badges.named(root).values()) == {"a-b/c.d_e"}
    after = text(root)
    assert after.pop(root / "README.md") == f"{ours.replace(old, 'a-b/c.d_e')} {others}\n"
    for path in set(after) - {root / BUILDER}:
        assert after[path] == before[path].replace(old, "a-b/c.d_e"), path


@pytest.mark.parametrize("name", ["", "piaa", "a/b/c", "https://github.com/a/b", "a/b.git", "a/.."])
def test_a_bad_name_gives_one_sentence_and_changes_nothing(root, name):
    before = text(root)
    with pytest.raises(ValueError, match=r"^.*names no repository: .* REPO=owner/name\.$"):
        badges.stamp(name, root)
    assert text(root) == before
