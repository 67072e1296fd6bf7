"""The repository's name: one everywhere, and `make badges` sets it everywhere."""

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
badges = SimpleNamespace(**runpy.run_path(str(ROOT / "notebooks" / "badges.py")))
BUILDER = "notebooks/build.py"


def test_all_files_give_one_name():
    found = badges.named()
    names = [path.stem for path in (ROOT / "notebooks/source").glob("*.py")]
    places = [f"{place}.ipynb" for name in names for place in (name, f"student/{name}")]
    expected = ["build.py", "../tests/setup_cell.txt", *places]
    assert set(found) >= {(ROOT / "notebooks" / place).resolve() for place in expected}
    assert len(set().union(*found.values())) == 1


def test_stamping_changes_the_name_and_nothing_else(tmp_path):
    root = tmp_path
    for path in badges.files():
        (copy := root / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    (old,) = badges.named(root)[root / BUILDER]
    ours, others = f"github.com/{old}.git (github.com/{old}).", f"github.com/{old}-two {old}"
    (root / "README.md").write_text(f"{ours} {others}\n")
    before = {path: path.read_text("utf-8") for path in badges.files(root)}
    for name in ("", "a/b/c", "https://github.com/a/b", "a/.."):
        with pytest.raises(ValueError, match=r"^.*names no repository: .* REPO=owner/name\.$"):
            badges.stamp(name, root)
    assert {path: path.read_text("utf-8") for path in badges.files(root)} == before
    badges.stamp("a-b/c.d_e", root)
    assert badges.stamp("a-b/c.d_e", root) == [], "the same name again changes nothing"
    assert set().union(*badges.named(root).values()) == {"a-b/c.d_e"}
    after = {path: path.read_text("utf-8") for path in badges.files(root)}
    assert after.pop(root / "README.md") == f"{ours.replace(old, 'a-b/c.d_e')} {others}\n"
    for path in set(after) - {root / BUILDER}:
        assert after[path] == before[path].replace(old, "a-b/c.d_e"), path
