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
    lightness = mpl.colormaps[plots.HEAT](np.linspace(0, 1, 20))[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) < 0).all()  # one can read it without seeing any hue


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


def test_figures_are_not_registered_with_pyplot():
    before = pyplot.get_fignums()
    plots.ablation_figure(ROWS)
    assert pyplot.get_fignums() == before


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


def test_display_publishes_picture_and_metadata(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *args, **more: shown.append((args, more)))
    figure, _ = plots.subplots(alt_text="A rising line.")
    figure._ipython_display_()
    ((((bundle,), more)),) = shown
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert more == {"metadata": {"image/png": {"alt": "A rising line."}}, "raw": True}


# Heat maps


def test_centre_square_is_the_middle_of_images_and_masks_alike():
    columns = np.tile(np.arange(96, dtype=np.uint8), (64, 1))
    for values in (columns, columns.T):
        square = plots.centre_square(values)
        assert square.shape == (64, 64) and (square.min(), square.max()) == (16, 79)
        assert np.array_equal(np.asarray(plots.centre_square(Image.fromarray(values))), square)


def test_heat_map_colours_each_patch_in_its_place():
    figure, ax = plots.subplots(size=(4, 4))
    white = Image.new("RGB", (64, 64), "white")
    layer = plots.heat_map(ax, white, torch.tensor(hot_spot(1, 3)), title="dog")
    assert ax.get_title() == "dog"
    assert layer.get_array().shape == (4, 4) and layer.get_clim() == (0, 1)
    ax.set_position([0, 0, 1, 1])
    figure.set_layout_engine("none")
    ax.set_title("")
    pixels = np.asarray(Image.open(io.BytesIO(plots.png_bytes(figure))).convert("RGB")).astype(int)
    hot, cold = (np.array(mpl.colormaps[plots.HEAT](value)[:3]) * 255 for value in (1.0, 0.0))
    for row in range(4):
        for column in range(4):
            expected = hot if (row, column) == (1, 3) else cold
            got = pixels[50 + 100 * row, 50 + 100 * column]
            assert np.abs(got - expected).max() <= 1, (row, column)


def test_heat_map_shows_the_image_in_its_lightness():
    figure, ax = plots.subplots(size=(4, 4))
    half = Image.new("RGB", (64, 64), "white")
    half.paste("black", (0, 0, 32, 64))
    plots.heat_map(ax, half, np.zeros((4, 4)))
    pixels = np.asarray(Image.open(io.BytesIO(plots.png_bytes(figure))).convert("L")).astype(int)
    assert pixels[200, 100] < pixels[200, 300] - 50


def test_heat_map_limits_make_panels_comparable():
    _, ax = plots.subplots()
    layer = plots.heat_map(ax, wide_image(), hot_spot(0, 0), limits=(-1.0, 4.0))
    assert layer.get_clim() == (-1.0, 4.0)


def test_mask_outline_lies_where_the_object_is():
    _, ax = plots.subplots()
    mask = np.zeros((64, 96), dtype=bool)
    mask[16:32, 48:64] = True  # in the middle square: rows 1/4 to 1/2, columns 1/2 to 3/4
    plots.heat_map(ax, wide_image(), hot_spot(0, 0), torch.tensor(mask))
    (contour,) = outlines(ax)
    corners = np.concatenate([path.vertices for path in contour.get_paths()])
    assert corners.min(0) == pytest.approx((0.5, 0.25), abs=0.01)
    assert corners.max(0) == pytest.approx((0.75, 0.5), abs=0.01)
    assert ax.get_xlim() == (0, 1) and ax.get_ylim() == (1, 0)


def test_outline_is_closed_at_the_border_and_absent_without_an_object():
    _, (left, right) = plots.subplots(1, 2)
    full = np.ones((64, 96), dtype=bool)
    plots.heat_map(left, wide_image(), hot_spot(0, 0), full)
    (contour,) = outlines(left)
    vertices = contour.get_paths()[0].vertices
    assert np.allclose(vertices[0], vertices[-1])
    plots.heat_map(right, wide_image(), hot_spot(0, 0), ~full)
    assert outlines(right) == []


@pytest.mark.parametrize("shape", [(16,), (4, 3), (2, 4, 4)])
def test_scores_that_are_no_square_grid_are_refused(shape):
    with pytest.raises(ValueError, match="square grid"):
        plots.heat_map(plots.subplots()[1], wide_image(), np.zeros(shape))


def test_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(96, 64\).*\(64, 96\)"):
        plots.heat_map(plots.subplots()[1], wide_image(), hot_spot(0, 0), np.ones((96, 64)))


# Scenes


def test_scene_has_a_panel_a_class_on_one_scale():
    mask = np.zeros((64, 96), dtype=bool)
    absent = mask.copy()
    mask[:32, 20:40] = True
    maps = torch.tensor(np.stack([hot_spot(0, 0), 0.5 * hot_spot(3, 3), 0.2 * hot_spot(1, 2)]))
    figure = plots.scene_figure(
        wide_image(), ["dog", "cat", "cow"], maps, [0.9, 0.25, 0.1], [mask, absent, None], "A scene"
    )
    titles = [ax.get_title() for ax in figure.axes[:4]]
    assert titles == ["image", "dog 0.90", "cat 0.25\n(absent)", "cow 0.10"]
    scales = {ax.images[0].get_clim() for ax in figure.axes[1:4]}
    assert scales == {(0.0, 1.0)}
    assert [len(outlines(ax)) for ax in figure.axes[:4]] == [0, 1, 0, 0]
    assert figure.alt_text == (
        "A scene, beside it heat maps of its patches: dog 0.90, highest at the top left; "
        "cat 0.25, not in the image, highest at the bottom right; cow 0.10, highest at the centre."
    )
    assert plots.display_metadata(figure)


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 2)), (3, (1, 4)), (4, (2, 3)), (8, (3, 3))])
def test_scene_grid_holds_all_panels(n, shape):
    names = [f"class {i}" for i in range(n)]
    figure = plots.scene_figure(wide_image(), names, np.stack([hot_spot(1, 1)] * n))
    panels = figure.axes[:-1]  # the last is the colour bar
    assert panels[0].get_gridspec().get_geometry() == shape
    assert [ax.get_title() for ax in panels[1 : n + 1]] == names
    assert all(not ax.axison for ax in panels[n + 1 :])
    assert figure.axes[-1].get_ylabel() == "patch score"
    assert plots.png_bytes(figure)


def test_scene_with_numbers_that_differ_is_refused():
    maps = np.stack([hot_spot(0, 0)] * 2)
    for wrong in ({"maps": maps[:1]}, {"maps": maps, "scores": [1.0]}, {"maps": maps, "masks": []}):
        with pytest.raises(ValueError, match="There are 2 class names, but"):
            plots.scene_figure(wide_image(), ["dog", "cat"], **wrong)
    with pytest.raises(ValueError, match="at least one class"):
        plots.scene_figure(wide_image(), [], np.zeros((0, 4, 4)))


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
