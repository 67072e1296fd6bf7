"""Figures show what they are given, where it belongs, and say so in their alt text."""

import base64
import io

import matplotlib as mpl
import nbformat
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_hex
from nbclient import NotebookClient
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


# The look


def test_palette_is_the_colour_blind_safe_one():
    assert plots.PALETTE[:3] == ("#0173b2", "#de8f05", "#029e73")  # seaborn's "colorblind"


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_heat_is_told_by_lightness_alone_whatever_the_picture(grey):
    scores = np.linspace(0, 1, 49).reshape(7, 7)
    heat = plots.heated(Image.new("RGB", (70, 70), (grey,) * 3), scores, 0, 1)
    rgb = np.asarray(heat)[5::10, 5::10].reshape(49, 3) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ (0.2126, 0.7152, 0.0722)) - 16  # CIE L*
    assert (np.diff(lightness) > -0.5).all() and lightness[-1] - lightness[0] > 45


def test_style_sets_large_type_and_the_palette():
    with mpl.rc_context():
        mpl.rcdefaults()
        plots.style()
        assert mpl.rcParams["font.size"] >= 12 and mpl.rcParams["axes.titlesize"] >= 16
        figure = pyplot.figure()
        (line,) = figure.subplots().plot([0, 1])
        pyplot.close(figure)
    assert to_hex(line.get_color()) == plots.PALETTE[0]


def test_subplots_have_the_look_without_style_and_leave_the_defaults_alone():
    with mpl.rc_context():
        mpl.rcdefaults()
        before = dict(mpl.rcParams)
        _, axes = plots.subplots(2, 3, "six plots", size=(7, 5), sharex=True)
        assert dict(mpl.rcParams) == before
    assert axes.shape == (2, 3)
    assert axes[0, 0].figure.get_size_inches().tolist() == [7, 5]
    assert not axes[0, 0].spines["top"].get_visible()


# Alt text


def test_alt_text_becomes_display_metadata():
    figure, _ = plots.subplots(alt_text="A rising line.")
    assert plots.display_metadata(figure) == {"image/png": {"alt": "A rising line."}}


def test_figure_without_alt_text_is_refused():
    with pytest.raises(ValueError, match=r"figure\.alt_text"):
        plots.display_metadata(plots.subplots()[0])
    with pytest.raises(ValueError, match=r"figure\.alt_text"):
        plots.display_metadata(mpl.figure.Figure())


def test_png_holds_the_picture_and_the_alt_text():
    figure, _ = plots.subplots(alt_text="A rising line.", size=(4, 3))
    image = Image.open(io.BytesIO(plots.png_bytes(figure)))
    assert image.format == "PNG" and image.size == (400, 300)
    assert image.text["Description"] == "A rising line."
    assert plots.png_bytes(figure) == plots.png_bytes(figure)


def test_notebook_shows_a_figure_once_with_its_alt_text():
    source = (
        "from piaa_utils.plots import style, subplots\n"
        "style()\n"
        "figure, ax = subplots(alt_text='A rising line.', size=(4, 3))\n"
        "_ = ax.plot([0, 1])\n"
        "figure"
    )
    cells = [nbformat.v4.new_code_cell(text) for text in (source, "display(figure)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    for cell in notebook.cells:
        (output,) = cell.outputs
        assert output["metadata"]["image/png"]["alt"] == "A rising line."
        assert output["data"]["text/plain"] == "A rising line."
        picture = Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
        assert picture.size == (400, 300)


# Heat maps


def test_the_square_is_the_middle():
    columns = np.tile(np.arange(96, dtype=np.uint8), (64, 1))
    for values in (columns, columns.T):
        square = np.asarray(plots.square(Image.fromarray(values)))[..., 0]
        assert square.shape == (64, 64) and (square.min(), square.max()) == (16, 79)


def test_heat_map_colours_each_patch_in_its_place():
    figure, ax = plots.subplots(size=(4, 4))
    white = Image.new("RGB", (64, 64), "white")
    layer = plots.heat_map(ax, white, torch.tensor(hot_spot(1, 3)), title="dog")
    assert ax.get_title() == "dog"
    assert layer.get_clim() == (0, 1)
    ax.set_position([0, 0, 1, 1])
    figure.set_layout_engine("none")
    ax.set_title("")
    pixels = np.asarray(Image.open(io.BytesIO(plots.png_bytes(figure))).convert("RGB")).astype(int)
    for row in range(4):
        for column in range(4):
            got = pixels[50 + 100 * row, 50 + 100 * column]
            hot = (row, column) == (1, 3)
            assert (got[0] > 200) == hot, (row, column)
            assert hot or np.ptp(got) <= 2, "grey where there is no score"


def test_heat_map_shows_the_image_in_its_lightness():
    figure, ax = plots.subplots(size=(4, 4))
    half = Image.new("RGB", (64, 64), "white")
    half.paste("black", (0, 0, 32, 64))
    plots.heat_map(ax, half, np.zeros((4, 4)))
    pixels = np.asarray(Image.open(io.BytesIO(plots.png_bytes(figure))).convert("L")).astype(int)
    assert pixels[200, 100] < pixels[200, 300] - 50


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


def test_outline_is_closed_at_the_border_and_absent_without_an_object():
    _, (left, right) = plots.subplots(1, 2)
    full = np.ones((64, 96), dtype=bool)
    plots.heat_map(left, wide_image(), hot_spot(0, 0), mask=full)
    (contour,) = outlines(left)
    vertices = contour.get_paths()[0].vertices
    assert np.allclose(vertices[0], vertices[-1])
    plots.heat_map(right, wide_image(), hot_spot(0, 0), mask=~full)
    assert outlines(right) == []


@pytest.mark.parametrize("shape", [(16,), (4, 3), (2, 4, 4)])
def test_scores_that_are_no_square_grid_are_refused(shape):
    with pytest.raises(ValueError, match="square grid"):
        plots.heat_map(plots.subplots()[1], wide_image(), np.zeros(shape))


def test_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(96, 64\).*\(64, 96\)"):
        plots.heat_map(plots.subplots()[1], wide_image(), hot_spot(0, 0), mask=np.ones((96, 64)))


# Rows of maps, scenes


def test_maps_in_a_row_have_one_scale():
    mask = np.zeros((64, 96), dtype=bool)
    mask[:32, 20:40] = True
    maps = [torch.tensor(hot_spot(0, 0)), 0.5 * hot_spot(3, 3), 0.2 * hot_spot(1, 2)]
    titles = ["dog 0.90", "cat 0.25", "cow 0.10"]
    figure = plots.row_of_maps(wide_image(), maps, titles, [mask, None, ~mask & mask], "A scene")
    assert [ax.get_title() for ax in figure.axes[:4]] == ["picture", *titles]
    lightest = [int(ax.images[0].get_array().max()) for ax in figure.axes[1:4]]
    assert lightest == sorted(lightest, reverse=True) and lightest[0] > lightest[2] + 50
    assert [len(outlines(ax)) for ax in figure.axes[:4]] == [0, 1, 0, 0]
    assert figure.axes[-1].get_ylim() == (0, 1), "the colour bar's"
    assert figure.alt_text == (
        "A scene, beside it heat maps of its patches: dog 0.90, up to 1.00, highest at the top "
        "left; cat 0.25, up to 0.50, highest at the bottom right; cow 0.10, up to 0.20, highest "
        "at the centre."
    )
    assert plots.display_metadata(figure) and plots.png_bytes(figure)
    same = plots.row_of_maps(wide_image(), maps, titles, mask)
    assert [len(outlines(ax)) for ax in same.axes[:4]] == [0, 1, 1, 1], "one mask for all"


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 2)), (3, (1, 4)), (4, (2, 3)), (8, (3, 3))])
def test_many_maps_take_more_lines(n, shape):
    titles = [f"class {i}" for i in range(n)]
    figure = plots.row_of_maps(wide_image(), np.stack([hot_spot(1, 1)] * n), titles)
    panels = figure.axes[:-1]  # the last is the colour bar
    assert panels[0].get_gridspec().get_geometry() == shape
    assert [ax.get_title() for ax in panels[1 : n + 1]] == titles
    assert all(not ax.axison for ax in panels[n + 1 :])


def test_numbers_of_maps_titles_and_masks_that_differ_are_refused():
    maps = np.stack([hot_spot(0, 0)] * 2)
    for wrong in ((maps[:1], ["a", "b"]), (maps, ["a", "b"], [None]), (maps, [])):
        with pytest.raises(ValueError, match="titles, . maps and . masks"):
            plots.row_of_maps(wide_image(), *wrong)


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


# Ablations


def test_ablation_draws_values_intervals_and_the_reference():
    figure = plots.ablation_figure(ROWS, title="What each step adds")
    assert [ax.get_title() for ax in figure.axes] == ["test", "test_unseen"]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [
        "[CLS]",
        "text",
        "PIAA",
    ]
    for ax, shift in zip(figure.axes, (0, -20), strict=True):
        assert ax.get_xlabel() == "mAP (%)"
        drawn = [tuple(map(tuple, line.get_xydata())) for line in ax.lines]
        assert list(ax.lines[0].get_xdata()) == [70 + shift] * 2  # the first row, dashed
        assert ((74.25 + shift, 2), (79.25 + shift, 2)) in drawn  # PIAA's interval
        assert ((76.25 + shift, 2),) in drawn  # and its value
        assert [text.get_text() for text in ax.texts] == [
            f"{value + shift:.1f}" for value in (70, 60, 76.25)
        ]
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # first row at the top
    assert "What each step adds: mAP (%) with intervals. test: [CLS] 70.0 (68.0 to 73.0), text" in (
        figure.alt_text
    )
    assert "test_unseen: [CLS] 50.0" in figure.alt_text
    assert plots.png_bytes(figure)


def test_ablation_set_may_lack_a_row():
    figure = plots.ablation_figure([*ROWS[:3], ROWS[4]])
    left, right = figure.axes
    assert len(left.texts) == 3 and len(right.texts) == 1
    assert right.lines[-1].get_ydata()[0] == 1  # still in its own row
    assert all(line.get_linestyle() != "--" for line in right.lines)


def test_ablation_without_rows_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        plots.ablation_figure([])
