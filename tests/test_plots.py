"""Figures show what they are given, where it belongs, and say so in their alt text."""

import base64
import io

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from PIL import Image

from piaa_utils import plots

ROWS = [
    {"name": name, "set": where, "value": value, "low": value - 2, "high": value + 3}
    for where, shift in (("test", 0), ("test_unseen", -20))
    for name, value in (("[CLS]", 70 + shift), ("text", 60 + shift), ("PIAA", 76.25 + shift))
]


def wide_image():
    """64 high, 96 wide; the middle square is the columns 16 to 79."""
    return Image.new("RGB", (96, 64), (200, 200, 200))


def hot_spot(row, column, g=4):
    scores = np.zeros((g, g))
    scores[row, column] = 1.0
    return scores


def outlines(ax):
    return [c for c in ax.collections if isinstance(c, mpl.contour.ContourSet)]


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_heat_is_told_by_lightness_alone_whatever_the_picture(grey):
    scores = np.linspace(0, 1, 49).reshape(7, 7)
    heat = plots.heated(Image.new("RGB", (70, 70), (grey,) * 3), scores, 0, 1)
    rgb = np.asarray(heat)[5::10, 5::10].reshape(49, 3) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ (0.2126, 0.7152, 0.0722)) - 16  # CIE L*
    assert (np.diff(lightness) > -0.5).all() and lightness[-1] - lightness[0] > 45


def test_a_notebook_shows_a_figure_once_with_its_alt_text(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **more: shown.append((*a, more)))
    figure, ax = plots.subplots(alt_text="A rising line.", size=(4, 3))
    ax.plot([0, 1])
    figure._ipython_display_()
    ((bundle, more),) = shown
    assert more == {"metadata": {"image/png": {"alt": "A rising line."}}, "raw": True}
    assert bundle["text/plain"] == "A rising line."
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert image.format == "PNG" and image.size == (400, 300)
    assert image.text["Description"] == "A rising line."
    assert plots.png_bytes(figure) == plots.png_bytes(figure), "the same bytes each time"
    assert pyplot.get_fignums() == [], "or Jupyter would show it again"


def test_heat_map_colours_each_patch_in_its_place():
    figure, ax = plots.subplots(size=(4, 4))
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("black", (0, 0, 16, 64))
    plots.heat_map(ax, picture, torch.tensor(hot_spot(1, 3)))
    ax.set_position([0, 0, 1, 1])
    figure.set_layout_engine("none")
    pixels = np.asarray(Image.open(io.BytesIO(plots.png_bytes(figure))).convert("RGB")).astype(int)
    patches = pixels[50::100, 50::100]
    hot = hot_spot(1, 3) == 1
    assert ((patches[..., 0] > 200) == hot).all()
    assert (np.ptp(patches, axis=-1)[~hot] <= 2).all(), "grey where there is no score"
    assert patches[0, 0, 0] < patches[0, 1, 0] - 50, "the picture is seen in its lightness"


def test_mask_outline_lies_where_the_object_is():
    _, ax = plots.subplots()
    mask = np.zeros((64, 96), dtype=bool)
    mask[16:32, 48:64] = True  # in the middle square: rows 1/4 to 1/2, columns 1/2 to 3/4
    plots.heat_map(ax, wide_image(), hot_spot(0, 0), mask=torch.tensor(mask))
    (contour,) = outlines(ax)
    corners = np.concatenate([path.vertices for path in contour.get_paths()])
    assert corners.min(0) == pytest.approx((0.5, 0.25), abs=0.01)
    assert corners.max(0) == pytest.approx((0.75, 0.5), abs=0.01)
    assert ax.get_xlim() == (0, 1) and ax.get_ylim() == (1, 0)
    plots.heat_map(ax, wide_image(), hot_spot(0, 0), mask=np.ones((64, 96), dtype=bool))
    vertices = outlines(ax)[1].get_paths()[0].vertices
    assert np.allclose(vertices[0], vertices[-1]), "it is closed at the border"


def test_scenes_show_the_tags_of_both_and_a_map():
    rows = [
        (wide_image(), ["dog"], ["dog", "cup"], hot_spot(0, 3), "cup"),
        (wide_image(), [], ["cat"], torch.tensor(hot_spot(3, 0)), "cat"),
    ]
    figure = plots.scenes_figure(rows, "Three scenes")
    assert len(figure.axes) == 6 and figure.axes[2].get_title() == "PIAA: cup"
    words = {text.get_text(): text.get_weight() for text in figure.axes[1].texts}
    assert words == {"[CLS]": "bold", "PIAA": "bold", "dog": "normal", "cup": "bold"}
    assert figure.alt_text == (
        "Three scenes. Picture 1: [CLS] names dog; PIAA names dog, cup; cup is highest at the top "
        "right. Picture 2: [CLS] names nothing; PIAA names cat; cat is highest at the bottom left."
    )
    assert plots.png_bytes(figure)


def test_ablation_draws_values_intervals_and_the_reference():
    figure = plots.ablation_figure(ROWS, title="What each step adds")
    assert [ax.get_title() for ax in figure.axes] == ["test", "test_unseen"]
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["[CLS]", "text", "PIAA"]
    for ax, shift in zip(figure.axes, (0, -20), strict=True):
        assert ax.get_xlabel() == "mAP (%)"
        drawn = [tuple(map(tuple, line.get_xydata())) for line in ax.lines]
        assert list(ax.lines[0].get_xdata()) == [70 + shift] * 2  # the first row, dashed
        assert ((74.25 + shift, 2), (79.25 + shift, 2)) in drawn  # PIAA's interval
        assert ((76.25 + shift, 2),) in drawn  # and its value
        values = [f"{value + shift:.1f}" for value in (70, 60, 76.25)]
        assert [text.get_text() for text in ax.texts] == values
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # first row at the top
    right = plots.ablation_figure([*ROWS[:3], ROWS[4]]).axes[1]  # a set may lack a row
    assert len(right.texts) == 1 and right.lines[-1].get_ydata()[0] == 1
    for told in ("mAP (%) with intervals. test: [CLS] 70.0 (68.0 to 73.0)", "unseen: [CLS] 50.0"):
        assert told in figure.alt_text


def on_new_axes(scores, mask=None):
    plots.heat_map(plots.subplots()[1], wide_image(), scores, mask=mask)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.display_metadata(plots.subplots()[0]), r"figure\.alt_text"),
        (lambda: on_new_axes(np.zeros((4, 3))), "square grid"),
        (lambda: on_new_axes(np.zeros((2, 4, 4))), "square grid"),
        (lambda: on_new_axes(hot_spot(0, 0), np.ones((96, 64))), r"\(96, 64\).*\(64, 96\)"),
        (lambda: plots.ablation_figure([]), "no rows"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
