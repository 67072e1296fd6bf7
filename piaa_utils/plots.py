"""Figures with one look: readable at the back of a room, safe for colour-blind eyes, with alt text.

A notebook shows a :class:`Figure` that ends a cell. A heat map is the picture, grey and dimmed,
under colours that are the brighter and the denser the higher the score: lightness alone tells it.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import seaborn as sns
from cycler import cycler
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from PIL import Image, PngImagePlugin

from piaa_utils.images import open_image

PALETTE = tuple(sns.color_palette("colorblind").as_hex())
_SHARE = np.linspace(0, 1, 256)
# Teal to yellow, even steps of lightness; opacity is the share of the scale.
HEAT = ListedColormap(np.c_[mpl.colormaps["viridis"](0.4 + 0.6 * _SHARE)[:, :3], _SHARE], "heat")
DIMMED = (0.05, 0.35)  # black and white of the picture where the score is lowest,
SHADED = (0.7, 1.0)  # and the share of the colour that they leave where it is highest
STYLE: Any = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("talk"),
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "figure.titleweight": "bold",
    "image.cmap": "viridis",
    "figure.dpi": 100,
    "savefig.dpi": 100,
}
_PANEL = 3.2  # inches
TALLEST = 700  # pixels of a figure in a notebook: a screen of 1366 x 768 shows all of it
_FRAME: dict[str, Any] = {"extent": (0, 1, 1, 0), "aspect": "equal"}
Mask: TypeAlias = Any  # bool [H, W], array or tensor


class Figure(matplotlib.figure.Figure):
    """A figure with alt text that shows itself in a notebook, once, and unknown to pyplot."""

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
    **keywords: Any,
) -> tuple[Figure, Any]:
    """A new figure and its axes, like ``plt.subplots``, in this module's look; size in inches.

    >>> figure, axes = subplots(1, 2, alt_text="Two empty plots.")
    >>> axes.shape, figure.alt_text
    ((2,), 'Two empty plots.')
    """
    figure = Figure(figsize=size or (8 * columns, 5 * rows), layout="constrained")
    figure.alt_text = alt_text
    return figure, figure.subplots(rows, columns, **keywords)


def display_metadata(figure: matplotlib.figure.Figure) -> dict[str, dict[str, Any]]:
    """The metadata that carries a figure's alt text in a notebook's output; ValueError without."""
    alt_text = getattr(figure, "alt_text", "")
    if not alt_text:
        raise ValueError("The figure has no alt text; set figure.alt_text to what it shows.")
    width, height = figure.get_size_inches() * STYLE["savefig.dpi"]
    shrink = (
        {} if height <= TALLEST else {"width": round(width * TALLEST / height), "height": TALLEST}
    )
    return {"image/png": {"alt": alt_text, **shrink}}


@mpl.rc_context(STYLE)
def png_bytes(figure: matplotlib.figure.Figure) -> bytes:
    """A figure as a PNG file of 256 colours, much smaller than one of all; with its alt text."""
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    description = PngImagePlugin.PngInfo()
    description.add_itxt("Description", getattr(figure, "alt_text", ""))
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    picture = Image.open(drawn).convert("RGB").quantize(256, method, kmeans=2, dither=dither)
    picture.save(buffer, "png", optimize=True, pnginfo=description)
    return buffer.getvalue()


def square(picture: Any) -> Image.Image:
    """The square in the middle of a path's or PIL image, which the model sees."""
    image = open_image(picture)
    return image.crop(_middle(*image.size))


def _middle(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the square in the middle."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def heated(picture: Any, scores: Any, vmin: float, vmax: float) -> Image.Image:
    """The square of a picture under the colours of its patches' scores [g, g], rows first."""
    seen = square(picture)
    share = np.clip((np.asarray(scores, float) - vmin) / max(vmax - vmin, 1e-12), 0, 1)
    layer = Image.fromarray(HEAT(share, bytes=True)).resize(seen.size, Image.Resampling.NEAREST)
    colours, density = np.split(np.asarray(layer) / 255, [3], axis=2)
    grey = np.asarray(seen.convert("L"))[..., None] / 255
    under, over = (low + (high - low) * grey for low, high in (DIMMED, SHADED))
    mixed = (1 - density) * under + density * over * colours
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


@mpl.rc_context(STYLE)
def heat_map(
    ax: Axes,
    picture: Any,
    scores: Any,
    vmin: float | None = None,
    vmax: float | None = None,
    mask: Mask = None,
    title: str = "",
) -> ScalarMappable:
    """Draw patch scores [g, g] as colours over the middle square of a path's or PIL image.

    vmin, vmax : the scores at the ends of the colours; None takes the smallest and the largest.
    mask : bool [H, W] of the picture, True on the object, whose outline is drawn.

    Returns the scale, to make a colour bar from. Scores or a mask of another shape: a ValueError.
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores must be a square grid [g, g], but its shape is {scores.shape}.")
    low = scores.min() if vmin is None else vmin
    high = scores.max() if vmax is None else vmax
    ax.imshow(np.asarray(heated(picture, scores, low, high)), **_FRAME)
    if mask is not None:
        _outline(ax, np.asarray(mask, dtype=bool), open_image(picture).size)
    _bare(ax, title)
    return ScalarMappable(Normalize(low, high), HEAT)


@mpl.rc_context(STYLE)
def scenes_figure(rows: Sequence[tuple], title: str = "") -> Figure:
    """Pictures; beside each what [CLS] names and what PIAA names; and where one class is.

    Each row is a path or PIL image, the tags of [CLS], the tags of PIAA (bold where only one of the
    two gives them), the map [g, g] of a class, and that class's name.

    >>> row = Image.new("RGB", (9, 9)), ["dog"], ["dog", "cup"], np.eye(2), "cup"
    >>> print(scenes_figure([row]).alt_text)
    Picture 1: [CLS] names dog; PIAA names dog, cup; cup is highest at the top left.
    """
    size = (3 * _PANEL, (_PANEL + 0.4) * len(rows))
    figure, axes = subplots(len(rows), 3, size=size, squeeze=False)
    words = [f"{title}."] if title else []
    for n, (picture, by_cls, by_piaa, of_class, name) in enumerate(rows, start=1):
        seen, tags, where = axes[n - 1]
        seen.imshow(np.asarray(square(picture)), **_FRAME)
        _bare(seen, "")
        _tags(tags, by_cls, by_piaa)
        heat_map(where, picture, of_class, title=f"PIAA: {name}")
        cls, piaa = (", ".join(named) or "nothing" for named in (by_cls, by_piaa))
        said = f"Picture {n}: [CLS] names {cls}; PIAA names {piaa}"
        words.append(f"{said}; {name} is highest {where_highest(of_class)}.")
    figure.suptitle(title)
    figure.alt_text = " ".join(words)
    return figure


def _tags(ax: Axes, by_cls: Sequence[str], by_piaa: Sequence[str]) -> None:
    """Two lists of tags, one above the other."""
    y, step = 0.1, 0.1  # from the top
    cls, piaa = ("[CLS]", by_cls, by_piaa, "black"), ("PIAA", by_piaa, by_cls, PALETTE[0])
    for who, tags, others, colour in (cls, piaa):
        ax.text(0.05, y, who, color=colour, fontsize="medium", weight="bold", va="bottom")
        for tag in [*tags] or ["nothing"]:
            y += step
            weight = "normal" if tag in others else "bold"
            ax.text(0.12, y, tag, color=colour, fontsize="small", weight=weight, va="bottom")
        y += 1.8 * step
    _bare(ax, "")


@mpl.rc_context(STYLE)
def ablation_figure(
    rows: Sequence[Mapping[str, Any]], label: str = "mAP (%)", title: str = ""
) -> Figure:
    """Draw the rows of an ablation as points with intervals, one panel a data set.

    A row has ``name`` (of the method), ``set`` (of the data; it may lack some names), ``value``,
    ``low`` and ``high`` (its interval). A dashed line continues the first method's value.

    >>> rows = [
    ...     {"name": "[CLS]", "set": "test", "value": 70.0, "low": 68.0, "high": 72.0},
    ...     {"name": "PIAA", "set": "test", "value": 76.0, "low": 74.0, "high": 78.0},
    ... ]
    >>> print(ablation_figure(rows).alt_text)
    mAP (%) with intervals. test: [CLS] 70.0 (68.0 to 72.0), PIAA 76.0 (74.0 to 78.0).
    """
    if not rows:
        raise ValueError("The ablation has no rows to draw.")
    names, sets = (list(dict.fromkeys(row[key] for row in rows)) for key in ("name", "set"))
    size = (4.2 * len(sets) + 0.12 * max(map(len, names)) + 0.6, 0.55 * len(names) + 2.0)
    figure, axes = subplots(1, len(sets), size=size, sharey=True, squeeze=False)
    text = []
    beside: Any = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
    beside |= {"fontsize": "small", "path_effects": _stroke(4, "white")}
    for ax, of_set in zip(axes[0], sets, strict=True):
        said = []
        for row in (row for row in rows if row["set"] == of_set):
            name, value, low, high = (row[key] for key in ("name", "value", "low", "high"))
            y = names.index(name)
            color = PALETTE[0] if y else "black"
            if y == 0:
                ax.axvline(value, color="0.4", linestyle="--", linewidth=1.5, zorder=1)
            ax.plot([low, high], [y, y], color=color, linewidth=4, alpha=0.5)
            ax.plot(value, y, "o", color=color, markersize=10)
            ax.annotate(f"{value:.1f}", (high, y), **beside)
            said.append(f"{name} {value:.1f} ({low:.1f} to {high:.1f})")
        text.append(f"{of_set}: {', '.join(said)}")
        ax.margins(x=0.05)
        left, right = ax.get_xlim()
        ax.set(title=of_set, xlabel=label, xlim=(left, right + 0.22 * (right - left)))
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(title)
    figure.alt_text = f"{title + ': ' if title else ''}{label} with intervals. {'; '.join(text)}."
    return figure


def _stroke(width: float, colour: str) -> list[Any]:
    """A line around what is drawn, to set it off."""
    return [patheffects.withStroke(linewidth=width, foreground=colour)]


def _outline(ax: Axes, mask: np.ndarray, size: tuple[int, int]) -> None:
    """The object's outline in the square of a picture of this width and height."""
    if mask.shape != size[::-1]:
        raise ValueError(f"The mask's shape {mask.shape} must be the picture's, {size[::-1]}.")
    left, top, right, bottom = _middle(*size)
    mask = np.pad(mask[top:bottom, left:right], 1).astype(float)  # closes outlines at the border
    if not mask.any():
        return
    middle = (np.arange(len(mask)) - 0.5) / (len(mask) - 2)
    lines = ax.contour(middle, middle, mask, levels=[0.5], colors="white", linewidths=2.5)
    lines.set(path_effects=_stroke(5, "black"))


def _bare(ax: Axes, title: str) -> None:
    """No ticks and no frame; the unit square."""
    ax.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0))
    ax.set_title(title, fontsize="medium")
    ax.spines[:].set_visible(False)


def where_highest(scores: Any) -> str:
    """Where the highest score of a grid lies, in words.

    >>> where_highest([[0.1, 0.2], [0.9, 0.3]])
    'at the bottom left'
    """
    scores = np.asarray(scores)
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    vertical = ("top ", "", "bottom ")[int(3 * (row + 0.5) / len(scores))]
    horizontal = ("left", "", "right")[int(3 * (column + 0.5) / len(scores))]
    return f"at the {(vertical + horizontal).strip() or 'centre'}"
