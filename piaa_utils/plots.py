"""Figures with one look: readable at the back of a room, safe for colour-blind eyes, with alt text.

Functions here return a :class:`Figure` and never show it. In a notebook, a figure on the last line
of a cell (or given to ``display``) shows itself, its alt text in the output's metadata.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import seaborn as sns
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from PIL import Image, PngImagePlugin

from piaa_utils.images import open_image

PALETTE = tuple(sns.color_palette("colorblind").as_hex())
HEAT = "OrRd"  # light to dark: few see colours alike, all see lightness
STYLE = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("talk"),
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "figure.titleweight": "bold",
    "image.cmap": HEAT,
    "figure.dpi": 100,
    "savefig.dpi": 100,
}
_PANEL = 3.2  # inches
SHADE = 0.5  # of the image on the colours of a heat map


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that carries its alt text and shows itself in a notebook.

    It is not registered with pyplot: it is shown once, and freed when it is no longer used.
    """

    alt_text: str = ""

    def _ipython_display_(self) -> None:
        from IPython.display import display

        picture = base64.b64encode(png_bytes(self)).decode("ascii")
        bundle = {"image/png": picture, "text/plain": self.alt_text}
        display(bundle, metadata=display_metadata(self), raw=True)


def style() -> None:
    """Make the look of this module's figures the default of all figures drawn from now on."""
    mpl.rcParams.update(STYLE)


@mpl.rc_context(STYLE)
def subplots(
    rows: int = 1,
    columns: int = 1,
    alt_text: str = "",
    size: tuple[float, float] | None = None,
    **keywords: object,
) -> tuple[Figure, Axes | np.ndarray]:
    """A new figure and its axes, like ``plt.subplots``, in this module's look.

    Parameters
    ----------
    rows, columns : of the grid of axes.
    alt_text : what the figure shows, for readers who cannot see it.
    size : width and height in inches.
    keywords : for ``matplotlib.figure.Figure.subplots`` (``sharex``, ``width_ratios`` ...).

    Returns
    -------
    The :class:`Figure`, and its axes: one, or an array of them.

    Examples
    --------
    >>> figure, axes = subplots(1, 2, alt_text="Two empty plots.")
    >>> axes.shape, figure.alt_text
    ((2,), 'Two empty plots.')
    """
    figure = Figure(figsize=size or (8 * columns, 5 * rows), layout="constrained")
    figure.alt_text = alt_text
    return figure, figure.subplots(rows, columns, **keywords)


def display_metadata(figure: matplotlib.figure.Figure) -> dict[str, dict[str, str]]:
    """The metadata that carries a figure's alt text in a notebook's output.

    Raises
    ------
    ValueError
        The figure has no alt text.

    Examples
    --------
    >>> display_metadata(subplots(alt_text="A line that rises.")[0])
    {'image/png': {'alt': 'A line that rises.'}}
    """
    alt_text = getattr(figure, "alt_text", "")
    if not alt_text:
        raise ValueError("The figure has no alt text; set figure.alt_text to what it shows.")
    return {"image/png": {"alt": alt_text}}


@mpl.rc_context(STYLE)
def png_bytes(figure: matplotlib.figure.Figure) -> bytes:
    """A figure as a PNG file of 256 colours, much smaller than one of all colours.

    Its alt text is stored as the PNG's description.
    """
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    description = PngImagePlugin.PngInfo()
    description.add_itxt("Description", getattr(figure, "alt_text", ""))
    picture = (
        Image.open(drawn)
        .convert("RGB")
        .quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    )
    picture.save(buffer, "png", optimize=True, pnginfo=description)
    return buffer.getvalue()


def centre_square(image: Image.Image | np.ndarray) -> Image.Image | np.ndarray:
    """The square in the middle: the part of an image or mask that the model sees.

    Examples
    --------
    >>> centre_square(np.arange(5)[None]).tolist()
    [[2]]
    """
    is_array = isinstance(image, np.ndarray)
    height, width = image.shape[:2] if is_array else image.size[::-1]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    if is_array:
        return image[top : top + side, left : left + side]
    return image.crop((left, top, left + side, top + side))


@mpl.rc_context(STYLE)
def heat_map(
    ax: Axes,
    image: object,
    scores: object,
    mask: object = None,
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> AxesImage:
    """Draw patch scores as colours shaded by the image, with the outline of the object's mask.

    Parameters
    ----------
    ax : the axes to draw in.
    image : a path or PIL image. The square in its middle is shown, as the model sees it.
    scores : array or tensor [g, g], one score a patch, row by row.
    mask : bool [H, W] of the whole image, True on the object; None draws no outline.
    title : above the panel.
    limits : the scores at the two ends of the colour scale; None takes the smallest and the
        largest score.

    Returns
    -------
    The coloured layer, to make a colour bar from.

    Raises
    ------
    ValueError
        ``scores`` is not a square grid, or the mask's shape is not the image's.
    """
    picture = open_image(image)
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores must be a square grid [g, g], but its shape is {scores.shape}.")
    low, high = limits or (scores.min(), scores.max())
    frame = {"extent": (0, 1, 1, 0), "aspect": "equal"}
    layer = ax.imshow(scores, cmap=HEAT, vmin=low, vmax=high, interpolation="nearest", **frame)
    lightness = np.asarray(centre_square(picture).convert("L")) / 255
    shade = np.zeros((*lightness.shape, 4))  # black, the more opaque the darker the image
    shade[..., 3] = SHADE * (1 - lightness)
    ax.imshow(shade, **frame)
    if mask is not None:
        _outline(ax, np.asarray(mask, dtype=bool), picture)
    _bare(ax, title)
    return layer


@mpl.rc_context(STYLE)
def scene_figure(
    image: object,
    class_names: Sequence[str],
    maps: object,
    scores: Sequence[float] | None = None,
    masks: Sequence[object] | None = None,
    title: str = "",
    label: str = "patch score",
) -> Figure:
    """Draw an image and, on one colour scale, the heat map of each class.

    Parameters
    ----------
    image : a path or PIL image.
    class_names : n names, one a panel.
    maps : array or tensor [n, g, g], the patch scores of these classes.
    scores : n scores of the whole image, written beside the names.
    masks : n bool arrays [H, W] (or None), the pixels of the class; an empty one means that
        the class is not in the image, and the panel says so.
    title : above the figure.
    label : what the colours show.

    Raises
    ------
    ValueError
        The numbers of names, maps, scores and masks differ.
    """
    maps = np.asarray(maps, dtype=float)
    n = len(class_names)
    for what, values in (("maps", maps), ("scores", scores), ("masks", masks)):
        if values is not None and len(values) != n:
            raise ValueError(f"There are {n} class names, but {len(values)} {what}.")
    if n == 0:
        raise ValueError("class_names is empty; give at least one class to draw.")
    masks = [None] * n if masks is None else masks
    scores = [None] * n if scores is None else scores
    rows = -(-(n + 1) // 4)
    columns = -(-(n + 1) // rows)
    size = (_PANEL * columns + 1.3, (_PANEL + 0.5) * rows + (0.6 if title else 0.0))
    figure, axes = subplots(rows, columns, size=size, squeeze=False)
    axes = axes.ravel()
    for ax in axes[n + 1 :]:
        ax.axis("off")
    axes[0].imshow(np.asarray(centre_square(open_image(image))), extent=(0, 1, 1, 0))
    _bare(axes[0], "image")
    limits = (float(maps.min()), float(maps.max()))
    words = []
    for ax, name, scores_of_class, mask, score in zip(
        axes[1:], class_names, maps, masks, scores, strict=False
    ):
        heading = name if score is None else f"{name} {float(score):.2f}"
        absent = mask is not None and not np.asarray(mask).any()
        layer = heat_map(ax, image, scores_of_class, mask, heading + "\n(absent)" * absent, limits)
        place = where_highest(scores_of_class)
        words.append(f"{heading}{', not in the image' * absent}, highest {place}")
    figure.colorbar(layer, ax=list(axes), label=label, shrink=0.8, aspect=25)
    figure.suptitle(title)
    figure.alt_text = (
        f"{title or 'An image'}, beside it heat maps of its patches: {'; '.join(words)}."
    )
    return figure


@mpl.rc_context(STYLE)
def ablation_figure(
    rows: Sequence[Mapping[str, object]], label: str = "mAP (%)", title: str = ""
) -> Figure:
    """Draw the rows of an ablation as points with intervals, one panel a data set.

    A dashed line continues the first row's value: the one that the others should exceed.

    Parameters
    ----------
    rows : mappings with ``name`` (of the method), ``set`` (of the data), ``value``, ``low``
        and ``high`` (the ends of its interval), all in the unit of ``label``. Names and sets
        keep the order in which they first occur; a set may lack a name.
    label : of the horizontal axis.
    title : above the figure.

    Examples
    --------
    >>> rows = [
    ...     {"name": "[CLS]", "set": "test", "value": 70.0, "low": 68.0, "high": 72.0},
    ...     {"name": "PIAA", "set": "test", "value": 76.0, "low": 74.0, "high": 78.0},
    ... ]
    >>> print(ablation_figure(rows).alt_text)
    mAP (%) with intervals. test: [CLS] 70.0 (68.0 to 72.0), PIAA 76.0 (74.0 to 78.0).
    """
    if not rows:
        raise ValueError("The ablation has no rows to draw.")
    names = list(dict.fromkeys(row["name"] for row in rows))
    sets = list(dict.fromkeys(row["set"] for row in rows))
    size = (4.2 * len(sets) + 0.12 * max(map(len, names)) + 0.6, 0.55 * len(names) + 2.0)
    figure, axes = subplots(1, len(sets), size=size, sharey=True, squeeze=False)
    for ax, name_of_set in zip(axes[0], sets, strict=True):
        _intervals(ax, [row for row in rows if row["set"] == name_of_set], names)
        ax.set_title(name_of_set)
        ax.set_xlabel(label)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(title)
    text = [
        f"{name_of_set}: "
        + ", ".join(
            f"{row['name']} {row['value']:.1f} ({row['low']:.1f} to {row['high']:.1f})"
            for row in rows
            if row["set"] == name_of_set
        )
        for name_of_set in sets
    ]
    figure.alt_text = f"{title + ': ' if title else ''}{label} with intervals. {'; '.join(text)}."
    return figure


def _intervals(ax: Axes, rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> None:
    reference = next((row["value"] for row in rows if row["name"] == names[0]), None)
    if reference is not None:
        ax.axvline(reference, color="0.4", linestyle="--", linewidth=1.5, zorder=1)
    for row in rows:
        color = "black" if row["name"] == names[0] else PALETTE[0]
        y = names.index(row["name"])
        ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=4, alpha=0.5)
        ax.plot(row["value"], y, "o", color=color, markersize=10)
        ax.annotate(
            f"{row['value']:.1f}",
            (row["high"], y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            path_effects=[patheffects.withStroke(linewidth=4, foreground="white")],
        )
    ax.margins(x=0.05)
    low, high = ax.get_xlim()
    ax.set_xlim(low, high + 0.22 * (high - low))  # room for the numbers
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)


def _outline(ax: Axes, mask: np.ndarray, picture: Image.Image) -> None:
    if mask.shape != picture.size[::-1]:
        raise ValueError(
            f"The mask's shape {mask.shape} must be the image's, {picture.size[::-1]}."
        )
    mask = np.pad(centre_square(mask), 1).astype(float)  # closes outlines at the border
    if not mask.any():
        return
    middle = (np.arange(len(mask)) - 0.5) / (len(mask) - 2)
    lines = ax.contour(middle, middle, mask, levels=[0.5], colors="white", linewidths=2.5)
    lines.set(path_effects=[patheffects.withStroke(linewidth=5, foreground="black")])


def _bare(ax: Axes, title: str) -> None:
    ax.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0))
    ax.set_title(title, fontsize="medium")
    ax.spines[:].set_visible(False)


def where_highest(scores: np.ndarray) -> str:
    """Say in words where the highest score of a grid lies.

    Examples
    --------
    >>> where_highest(np.array([[0.1, 0.2], [0.9, 0.3]]))
    'at the bottom left'
    """
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    vertical = ("top ", "", "bottom ")[int(3 * (row + 0.5) / len(scores))]
    horizontal = ("left", "", "right")[int(3 * (column + 0.5) / len(scores))]
    return f"at the {(vertical + horizontal).strip() or 'centre'}"
