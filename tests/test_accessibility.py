"""For readers who see colours otherwise, or do not see: palettes, headings, alt text, tables."""

import re
from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
import pytest

from piaa_utils.plots import DIMMED, HEAT, PALETTE

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
STUDENTS = sorted((ROOT / "notebooks" / "student").glob("[0-9]*.ipynb"))
DRAWING = [
    ROOT / "piaa_utils" / "plots.py",
    *sorted((ROOT / "piaa_utils" / "lessons").glob("*.py")),
    *sorted((ROOT / "notebooks" / "source").glob("[0-9]*.py")),
]
each_executed = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.MULTILINE | re.DOTALL)


# Colours. Linear RGB as eyes see it that lack one kind of cone (Machado, Oliveira and Fernandes
# 2009, the matrices of full severity); distances in CIE Lab (1976, D65).

EYES = {
    "common": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
APART = 10  # in Lab, of colours used together; a difference of 2.3 is just seen
STEP = 4  # in Lab, of neighbours among nine steps of a colour map
each_eye = pytest.mark.parametrize("eye", EYES)
XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]
WHITE = [0.95047, 1.0, 1.08883]


def lab(colours, eye="common"):
    """Lab values [n, 3] of matplotlib colours, as the eye sees them."""
    rgb = np.array([mpl.colors.to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(EYES[eye]), 0, 1)
    t = seen @ np.transpose(XYZ) / WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def too_close(colours, eye, least=APART):
    """The pairs that the eye hardly tells apart, with their distance."""
    seen = dict(zip(colours, lab(colours, eye), strict=True))
    pairs = [(a, b, np.linalg.norm(seen[a] - seen[b])) for a, b in combinations(seen, 2)]
    return [(a, b, round(float(d), 1)) for a, b, d in pairs if d < least]


def colour_maps(path):
    """The colour maps that a file names."""
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?:cmap=|color_palette\()[\"'](\w+)[\"']", text)
    return [name for name in named if name in mpl.colormaps]


def test_lab_of_known_colours():
    """Values of the sRGB primaries that any table of Lab has."""
    known = {
        "#ffffff": (100, 0, 0),
        "#ff0000": (53.24, 80.09, 67.20),
        "#0000ff": (32.30, 79.19, -107.86),
    }
    assert np.allclose(lab(known), list(known.values()), atol=0.02)


def test_the_simulation_does_what_each_deficiency_does():
    for eye in EYES:
        assert np.allclose(lab(["0", "0.5", "1"], eye)[:, 1:], 0, atol=0.1), "greys stay grey"
    red_green = ("#c85a00", "#6e8000")  # one for eyes without the middle cones
    assert not too_close(red_green, "common", 40)
    assert too_close(red_green, "deuteranopia", 20)
    blue_green = (PALETTE[0], PALETTE[2])
    assert not too_close(blue_green, "common", 60) and too_close(blue_green, "tritanopia", 20)


@each_eye
def test_the_colours_of_the_palette_are_told_apart(eye):
    assert not too_close(PALETTE, eye)
    assert not too_close(PALETTE[:4:2], eye, 15), "the first three, which most figures use"


@each_eye
@pytest.mark.parametrize("cmap", [HEAT, *sorted({n for p in DRAWING for n in colour_maps(p)})])
def test_a_colour_map_goes_one_way_from_light_to_dark(cmap, eye):
    cmap = mpl.colormaps[cmap] if isinstance(cmap, str) else cmap

    def shown(n):
        """n colours of the map; one that lets the picture through, over a dimmed picture."""
        colours = cmap(np.linspace(0, 1, n))
        return colours[:, :3] * colours[:, 3:] + np.mean(DIMMED) * (1 - colours[:, 3:])

    lightness = lab(shown(64), eye)[:, 0]
    steps = np.diff(lightness)
    assert (steps > 0).all() or (steps < 0).all(), "two scores would look equally light"
    assert abs(lightness[-1] - lightness[0]) > 50
    assert np.linalg.norm(np.diff(lab(shown(9), eye), axis=0), axis=1).min() > STEP


# Words


@cache
def cells(path):
    return nbformat.read(path, 4).cells


def markdown(path):
    return [cell.source for cell in cells(path) if cell.cell_type == "markdown"]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *STUDENTS], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_headings_are_in_order(path):
    text = FENCED.sub("", "\n\n".join(markdown(path)))
    found = re.findall(r"^(#+) *(.*?)\s*$", text, re.MULTILINE)
    assert len(found) > 3
    levels = [len(marks) for marks, _ in found]
    assert all(words for _, words in found) and levels[0] == 1 and 1 not in levels[1:]
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), found


@each_executed
def test_pictures_in_the_text_have_alt_text(path):
    assert not re.search(r"!\[\s*\]\(", "\n".join(markdown(path)))
    html = re.findall(r"<img[^>]*>", "\n".join(markdown(path)))
    assert all(re.search(r"""\balt=["'][^"']""", image) for image in html)


def outputs(path, kind):
    code = [cell for cell in cells(path) if cell.cell_type == "code"]
    return [o for cell in code for o in cell.outputs if kind in o.get("data", {})]


@each_executed
def test_each_figure_says_what_it_alone_shows(path):
    alts = [o.metadata.get("image/png", {}).get("alt", "") for o in outputs(path, "image/png")]
    assert len(set(alts)) == len(alts), "two figures have the same alt text"
    for alt in alts:
        assert len(alt.split()) >= 5, f"no sentence: {alt!r}"
        assert not re.match(r"(image|picture|figure|plot|graph) of ", alt, re.IGNORECASE), alt
        assert not re.search(r"\bnan\b|None|<[A-Za-z]+ object", alt), alt


@each_executed
def test_tables_have_headers(path):
    tables = [o.data["text/html"] for o in outputs(path, "text/html")]
    assert all("<th" in "".join(t) for t in tables if "<table" in "".join(t)), "no <th>"
    written = [o.data["text/markdown"] for o in outputs(path, "text/markdown")] + markdown(path)
    for text in written:
        for head in re.findall(r"^(\|.*)\n\|[\s:|-]+\|?$", FENCED.sub("", text), re.MULTILINE):
            assert re.search(r"\w", head), f"a table without words in its header: {head}"
