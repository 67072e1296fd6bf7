"""Figures that more than one notebook shows."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import display
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

import piaa_utils
from piaa_utils.plots import PALETTE, TALLEST, Figure, heat_map, square, subplots, where_highest
from piaa_utils.worlds import World

CLASS_COLOURS = tuple(PALETTE[i] for i in (1, 0, 2, 4, 8, 9))  # of a scene's classes, in order
HALO = [patheffects.withStroke(linewidth=4, foreground="black")]
FIGURES = Path(piaa_utils.__file__).resolve().parents[1] / "notebooks" / "figures"


def diagram(name: str) -> None:
    """Show ``notebooks/figures/NAME.svg``; its <desc> is the alt text."""
    svg = (FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    found = re.search(r"<desc[^>]*>(.*?)</desc>", svg, re.DOTALL)
    alt = " ".join(found[1].split()) if found else name
    data = {"image/svg+xml": svg, "text/plain": alt}
    display(data, raw=True, metadata={"image/svg+xml": {"alt": alt}})


def animation(name: str, alt: str) -> None:
    """Show ``notebooks/figures/NAME.gif``, and below it NAME.png, the strip of its frames."""
    for kind in ("gif", "png"):
        data = (FIGURES / f"{name}.{kind}").read_bytes()
        words = alt if kind == "gif" else f"Frames of the animation, left to right. {alt}"
        width, height = Image.open(io.BytesIO(data)).size
        shrink = min(1, TALLEST / height)
        size = {"width": round(width * shrink), "height": round(height * shrink)}
        metadata = {f"image/{kind}": {"alt": words, **size}}
        display({f"image/{kind}": data, "text/plain": words}, raw=True, metadata=metadata)


def scene_panel(ax: Axes, data: World, index: int, there: Sequence[int], title: str = "") -> None:
    """A picture in its colours, its objects outlined and named; `there` are its classes."""
    mask, picture = data.mask(index), data[index]
    heat_map(ax, picture, np.zeros((1, 1)), 0, 1, title=title)
    ax.images[0].set_data(np.asarray(square(picture)))
    _name_objects(ax, mask, there, data.class_names)


def named_panel(
    ax: Axes, data: World, index: int, best: Any, there: Sequence[int], title: str = ""
) -> None:
    """Which of the picture's classes each patch names: best [N]; another class stays grey."""
    best = np.asarray(best)
    grid, mask = round(len(best) ** 0.5), data.mask(index)
    heat_map(ax, data[index], np.zeros((grid, grid)), 0, 1, title=title)
    layer = np.zeros((grid, grid, 4))
    for c, colour in zip(there, CLASS_COLOURS, strict=False):
        layer[(best == c).reshape(grid, grid)] = *to_rgb(colour), 0.85
    if mask is not None:  # where nothing of the list is, a patch can name nothing right: paler
        at = ((np.arange(grid) + 0.5) * min(mask.shape) / grid).astype(int)
        layer[..., 3] *= np.where(_middle(mask)[np.ix_(at, at)] < 0, 0.35, 1)
    ax.imshow(layer, extent=(0, 1, 1, 0), interpolation="nearest")
    _name_objects(ax, mask, there, data.class_names)


def named_scenes(
    rows: Sequence[tuple[World, int, Sequence[int], Sequence[Any]]], titles: Sequence[str]
) -> Figure:
    """Pictures, and beside each what its patches name: rows of (world, index, classes, [best]).

    There is one `best` [N], the class that each patch names, for each of the titles.
    """
    size = (4.3 * (len(titles) + 1), 4.6 * len(rows))
    figure, axes = subplots(len(rows), len(titles) + 1, size=size, squeeze=False)
    words = []
    for at, (line, (data, index, there, bests)) in enumerate(zip(axes, rows, strict=True)):
        names = [data.class_names[c] for c in there]
        scene_panel(line[0], data, index, there, "" if at else "picture")
        said = []
        for ax, best, title in zip(line[1:], bests, titles, strict=True):
            named_panel(ax, data, index, best, there, "" if at else title)
            counts = ((np.asarray(best) == c).sum() for c in there)
            said.append(
                f"{title}: {', '.join(f'{n} {k}' for n, k in zip(names, counts, strict=True))}"
            )
        words.append(f"A picture of {', '.join(names)}; patches that name each: {'; '.join(said)}")
    figure.alt_text = f"{'. '.join(words)}."
    return figure


def maps_row(
    picture: Any,
    maps: Sequence[Any],
    titles: Sequence[str],
    mask: Any = None,
    label: str = "",
    limits: tuple[float, float] | None = None,
    ring: int | None = None,
) -> Figure:
    """Maps [g, g] over a picture, on one scale; `mask` is outlined, a ring is round one patch."""
    arrays = [np.asarray(each, dtype=float) for each in maps]
    low, high = limits or (min(a.min() for a in arrays), max(a.max() for a in arrays))
    figure, axes = subplots(1, len(maps), size=(4.4 * len(maps) + 1.2, 4.7), squeeze=False)
    for ax, scores, title in zip(axes[0], arrays, titles, strict=True):
        layer = heat_map(ax, picture, scores, low, high, mask, title)
        if ring is not None:
            row, column = divmod(ring, len(scores))
            at = (column + 0.5) / len(scores), (row + 0.5) / len(scores)
            ax.plot(*at, "o", markersize=17, mfc="none", mec="black", mew=5)
            ax.plot(*at, "o", markersize=17, mfc="none", mec="white", mew=2.5)
    figure.colorbar(layer, ax=list(axes[0]), label=label, shrink=0.8)
    said = (f"{t}: highest {where_highest(a)}" for t, a in zip(titles, arrays, strict=True))
    what = f"Heat maps of {label}" if label else "Heat maps"
    figure.alt_text = f"{what} over a picture. {'; '.join(said)}."
    return figure


def _name_objects(ax: Axes, mask: Any, there: Sequence[int], names: Sequence[str]) -> None:
    """Outline each class's object, and write its name over it in the class's colour."""
    if mask is None:
        return
    seen = _middle(mask)
    for c, colour in zip(there, CLASS_COLOURS, strict=False):
        rows, columns = np.nonzero(seen == c)
        if len(rows):
            ax.contour(seen == c, [0.5], colors="white", linewidths=2.5, extent=(0, 1, 0, 1))
            far = abs(rows - np.median(rows)) + abs(columns - np.median(columns))
            x, y = columns[far.argmin()] / len(seen), rows[far.argmin()] / len(seen)
            text = ax.text(x, y, names[c], color=colour, ha="center", va="center", weight="bold")
            text.set(path_effects=HALO, fontsize="medium")


def _middle(mask: np.ndarray) -> np.ndarray:
    """The square in the middle of a mask, as the model sees it."""
    side = min(mask.shape)
    top, left = ((length - side) // 2 for length in mask.shape)
    return mask[top : top + side, left : left + side]
