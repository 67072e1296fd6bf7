"""For readers who see colours otherwise, or do not see: palettes, headings, alt text, tables."""

import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from piaa_utils.plots import PALETTE

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
DRAWING = [ROOT / "piaa_utils" / "plots.py", *(ROOT / "piaa_utils" / "lessons").glob("*.py")]
DRAWING += (ROOT / "notebooks" / "source").glob("[0-9]*.py")
each_executed = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.MULTILINE | re.DOTALL)


def test_colours_are_told_apart_by_colour_blind_eyes():
    """And heat by lightness alone: see test_plots.py."""
    assert PALETTE[:3] == ("#0173b2", "#de8f05", "#029e73")  # seaborn's "colorblind"
    text = "".join(path.read_text(encoding="utf-8") for path in DRAWING)
    maps = re.findall(r"(?:cmap=|color_palette\()[\"'](\w+)[\"']", text)
    assert set(maps) <= {"viridis", "cividis", "colorblind"}


@cache
def cells(path):
    return nbformat.read(path, 4).cells


def markdown(path):
    return [cell.source for cell in cells(path) if cell.cell_type == "markdown"]


@each_executed
def test_headings_are_in_order_and_pictures_in_the_text_have_alt_text(path):
    text = "\n\n".join(markdown(path))
    found = re.findall(r"^(#+) *(.*?)\s*$", FENCED.sub("", text), re.MULTILINE)
    levels = [len(marks) for marks, _ in found]
    assert all(words for _, words in found) and levels[0] == 1 and 1 not in levels[1:]
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), found
    assert not re.search(r"!\[\s*\]\(", text)
    images = re.findall(r"<img[^>]*>", text)
    assert all(re.search(r"""\balt=["'][^"']""", image) for image in images)


def outputs(path, kind):
    code = [cell for cell in cells(path) if cell.cell_type == "code"]
    return [o for cell in code for o in cell.outputs if kind in o.get("data", {})]


@each_executed
def test_figures_say_what_they_alone_show_and_tables_have_headers(path):
    alts = [o.metadata.get("image/png", {}).get("alt", "") for o in outputs(path, "image/png")]
    assert len(set(alts)) == len(alts), "two figures have the same alt text"
    for alt in alts:
        assert not re.search(r"\bnan\b|None|<[A-Za-z]+ object", alt), alt
    tables = [o.data["text/html"] for o in outputs(path, "text/html")]
    assert all("<th" in "".join(t) for t in tables if "<table" in "".join(t)), "no <th>"
    written = [o.data["text/markdown"] for o in outputs(path, "text/markdown")] + markdown(path)
    for text in written:
        for head in re.findall(r"^(\|.*)\n\|[\s:|-]+\|?$", FENCED.sub("", text), re.MULTILINE):
            assert re.search(r"\w", head), f"a table without words in its header: {head}"
