"""Notebook 03, Entropy selection: figures, the explorer's callback and the checks of exercises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from piaa_utils.constants import SELECTION_TEMPERATURE
from piaa_utils.datasets import BACKGROUND, VOID, VOCLayout
from piaa_utils.images import open_image
from piaa_utils.lessons.checks import CheckFailed, check_choice, check_function, check_number
from piaa_utils.lessons.features import mask_or_none
from piaa_utils.patch_labels import MIXED
from piaa_utils.plots import PALETTE, Figure, centre_square, heat_map, subplots
from piaa_utils.selection import PatchBank

COLUMNS = ("features", "probs", "labels", "entropy", "image_id", "patch_index")
SHOWS = ("the class it names", "another class", "no class of the list", "a mixture")
SHOWS_COLOURS = (PALETTE[0], PALETTE[1], "0.75", "0.4")
SHOWS_HATCHES = ("", "//", "", "xx")
SHEET = 7  # pictures of a bank in the explorer
_TILE = 160  # pixels of a picture in the explorer
_GAP = 20


# Measures ---------------------------------------------------------------------------------------


def what_it_shows(named: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """What a patch that was named a class really shows.

    Parameters
    ----------
    named : int [...], the class that each patch was given.
    truth : int [...], what the masks say, as :class:`piaa_utils.lessons.Features` has it.

    Returns
    -------
    int [...], positions in ``SHOWS``; -1 where no mask knows.

    Examples
    --------
    >>> what_it_shows([4, 4, 4, 4, 4], [4, 7, -1, -3, -2]).tolist()
    [0, 1, 2, 3, -1]
    """
    named, truth = np.asarray(named), np.asarray(truth)
    out = np.where(truth == named, 0, 1)
    out[truth == BACKGROUND] = 2
    out[truth == MIXED] = 3
    out[truth == VOID] = -1
    return out


def rank_in_class(bank: PatchBank) -> Tensor:
    """The place of each row among the rows of its class, from 0: the surest.

    Examples
    --------
    >>> bank = PatchBank(n_classes=2, k=2)
    >>> bank.update(torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]]), torch.eye(2), [0])
    >>> rank_in_class(bank).tolist()
    [0, 1, 0]
    """
    first = bank.counts.cumsum(0) - bank.counts
    return torch.arange(len(bank)) - first[bank.labels]


def pictures_of_classes(bank: PatchBank, k: int | None = None) -> np.ndarray:
    """From how many pictures the first k rows (None: all) of each class come: int [C]."""
    kept = rank_in_class(bank) < (bank.k if k is None else k)
    pairs = torch.unique(torch.stack([bank.labels[kept], bank.image_id[kept]]), dim=1)
    return torch.bincount(pairs[0], minlength=bank.n_classes).numpy()


def purity_of_classes(bank: PatchBank, truth: ArrayLike, k: int | None = None) -> np.ndarray:
    """The share of the first k rows (None: all) of each class that show the class: [C].

    Parameters
    ----------
    bank : of pictures whose numbers are the rows of `truth`.
    truth : int [n, N], what each patch shows; patches that no mask knows are left out.
    k : rows of a class, the surest first.

    Returns
    -------
    [C] shares from 0 to 1; NaN for a class without a row that a mask knows.
    """
    shows = what_it_shows(bank.labels, np.asarray(truth)[bank.image_id, bank.patch_index])
    kept = (rank_in_class(bank) < (bank.k if k is None else k)).numpy() & (shows >= 0)
    rows = np.bincount(bank.labels.numpy()[kept], minlength=bank.n_classes)
    right = np.bincount(bank.labels.numpy()[kept & (shows == 0)], minlength=bank.n_classes)
    return np.where(rows > 0, right / np.maximum(rows, 1), np.nan)


def mean_cosine(x: Tensor) -> float:
    """Mean cosine between two different rows of unit vectors.

    Examples
    --------
    >>> mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))  # 0, 0 and 1
    0.333...
    """
    n, x = len(x), x.double()
    return float(((x.sum(0) ** 2).sum() - (x**2).sum()) / (n * (n - 1))) if n > 1 else float("nan")


def bank_bytes(bank: PatchBank) -> int:
    """Bytes of a bank: its columns, and 8 a row for their order."""
    return sum(getattr(bank, name).nbytes for name in COLUMNS) + 8 * len(bank)


def same_bank(one: PatchBank, other: PatchBank) -> bool:
    """Whether two banks hold the same rows in the same order, to the last bit."""
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in COLUMNS)


# Figures ----------------------------------------------------------------------------------------


def entropy_figure(
    data: VOCLayout,
    pictures: Mapping[str, int],
    named: Tensor,
    entropies: Tensor,
) -> Figure:
    """For each picture: itself, the classes its patches are given, and their entropy.

    The scale of all entropies is 0 to log C; the range of each picture stands in its title.

    Parameters
    ----------
    data : the pictures.
    pictures : {what to call it: its number}.
    named : int [n, N], the class that each patch was given.
    entropies : [n, N], nats.
    """
    grid, high = round(named.shape[1] ** 0.5), float(np.log(len(data.class_names)))
    figure, axes = subplots(len(pictures), 3, size=(12.5, 4.2 * len(pictures)), squeeze=False)
    words = []
    for row, (what, i) in zip(axes, pictures.items(), strict=True):
        mask = _mask(data, i)
        there = [data.class_names[c] for c in np.flatnonzero(data.labels[i])]
        row[0].imshow(np.asarray(centre_square(open_image(data.paths[i]))), extent=(0, 1, 1, 0))
        row[0].set(xticks=[], yticks=[], xlabel=_wrapped(there))
        row[0].spines[:].set_visible(False)
        row[0].set_title(what)
        order = _named_panel(row[1], data, i, named[i].reshape(grid, grid), mask)
        h = entropies[i].reshape(grid, grid)
        title = f"entropy, {h.min():.2f} to {h.max():.2f}"
        layer = heat_map(row[2], _pale(data.paths[i]), h, mask, title, (0.0, high))
        figure.colorbar(layer, ax=row[2], label="nats", shrink=0.8)
        words.append(
            f"{what}: the picture shows {', '.join(there) or 'no class of the list'}; its patches "
            f"are named {', '.join(order)}; the entropy is {h.mean():.2f} nats on average, "
            f"from {h.min():.2f} to {h.max():.2f}"
        )
    figure.alt_text = f"Entropy maps, log C is {high:.2f} nats. {'. '.join(words)}."
    return figure


def deciles_figure(
    middle: ArrayLike, curves: Mapping[str, ArrayLike], overall: Mapping[str, float]
) -> Figure:
    """Shares of right patches against the decile of entropy; dotted: over all patches.

    Parameters
    ----------
    middle : [10] median entropy of each decile, nats, for the labels.
    curves : {what is counted: [10] shares}.
    overall : {what is counted: its share of all patches}.
    """
    figure, ax = subplots(size=(12, 6.5))
    x = np.arange(1, len(np.asarray(middle)) + 1)
    for (name, y), colour, marker in zip(curves.items(), PALETTE, "osD", strict=False):
        sns.lineplot(x=x, y=np.asarray(y), ax=ax, color=colour, marker=marker, ms=11, label=name)
        ax.axhline(overall[name], color=colour, linestyle=":", linewidth=2)
    ax.set_xticks(x, [f"{i}\n{h:.2g}" for i, h in zip(x, np.asarray(middle), strict=True)])
    ax.set(xlabel="decile of entropy, surest first; below: its median in nats", ylim=(0, 1.02))
    _percent(ax, "share of patches")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.3), fontsize="small", frameon=False)
    figure.alt_text = "Shares against the decile of entropy, surest first. " + "; ".join(
        f"{name}: from {y[0]:.0%} in the first decile to {y[-1]:.0%} in the last, "
        f"{overall[name]:.0%} of all patches"
        for name, y in curves.items()
    )
    figure.alt_text += "."
    return figure


def composition_figure(shares: ArrayLike, labels: Sequence[str], xlabel: str) -> Figure:
    """Stacked bars: what patches show.

    Parameters
    ----------
    shares : [len(labels), 4], one row a bar, in the order of ``SHOWS``.
    labels : below the bars.
    xlabel : what the bars are.
    """
    shares = np.asarray(shares, dtype=float)
    figure, ax = subplots(size=(12, 6))
    below = np.zeros(len(shares))
    for kind, (name, colour, hatch) in enumerate(
        zip(SHOWS, SHOWS_COLOURS, SHOWS_HATCHES, strict=True)
    ):
        ax.bar(labels, shares[:, kind], 0.8, below, color=colour, hatch=hatch, label=name, ec="w")
        below += shares[:, kind]
    ax.set(xlabel=xlabel, ylim=(0, 1))
    _percent(ax, "share of patches")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2, frameon=False)
    told = list(zip(labels, shares, strict=True))
    told = told if len(told) <= 4 else [told[0], told[-1]]
    figure.alt_text = f"Stacked bars, what patches show, by {xlabel}. " + "; ".join(
        f"{label.replace(chr(10), ', ')}: "
        + ", ".join(f"{s:.0%} {name}" for s, name in zip(row, SHOWS, strict=True))
        for label, row in told
    )
    figure.alt_text += "."
    return figure


def purity_figure(
    ks: Sequence[int], purity: Mapping[str, ArrayLike], pictures: Mapping[str, ArrayLike]
) -> Figure:
    """Purity, and number of pictures, against K, a line for each bank."""
    figure, axes = subplots(1, 2, size=(12.5, 6))
    words = []
    for (name, y), colour, marker in zip(purity.items(), PALETTE, "os", strict=False):
        n = np.asarray(pictures[name])
        style = {"color": colour, "marker": marker, "ms": 11, "label": name}
        sns.lineplot(x=ks, y=np.asarray(y), ax=axes[0], **style)
        sns.lineplot(x=ks, y=n, ax=axes[1], **style)
        words.append(
            f"{name}: purity from {y[0]:.0%} at K = {ks[0]} to {y[-1]:.0%} at K = {ks[-1]}, "
            f"pictures a class from {n[0]:.1f} to {n[-1]:.1f}"
        )
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set(xlabel="K, patches kept for a class")
        _plain(ax.xaxis, ks)
        ax.grid(axis="y", color="0.9")
        ax.legend(title="bank", fontsize="small", frameon=False)
    axes[0].set(ylim=(0, None), title="Is it pure?")
    _percent(axes[0], "purity, mean of classes")
    axes[1].set_yscale("log")
    axes[1].set(ylabel="pictures, mean of classes", title="Is it varied?")
    axes[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.alt_text = f"Two panels of lines over K. {'; '.join(words)}."
    return figure


def classes_figure(
    class_names: Sequence[str],
    shown: ArrayLike,
    rows: ArrayLike,
    purity: Mapping[str, ArrayLike],
) -> Figure:
    """For each class: pictures that show it, rows that it gets, and the purity of its rows.

    Parameters
    ----------
    class_names : C names.
    shown : [C] pictures that show the class.
    rows : [C] rows of the bank that takes one patch of a picture.
    purity : {bank: [C] shares}.
    """
    shown, rows = np.asarray(shown), np.asarray(rows)
    order = np.argsort(rows, kind="stable")
    y = np.arange(len(order))
    figure, axes = subplots(1, 2, size=(12.5, 1.9 + 0.33 * len(order)), sharey=True)
    axes[0].barh(y, rows[order], color=PALETTE[1], label="rows in the bank (one a picture)")
    axes[0].plot(shown[order], y, "|", color="black", ms=18, mew=3, label="pictures that show it")
    axes[0].set_yticks(y, [class_names[c] for c in order])
    axes[0].set(xlabel="number of pictures or rows", ylim=(-0.7, len(order) - 0.3))
    for (name, p), colour, marker in zip(purity.items(), PALETTE, "os", strict=False):
        p = np.asarray(p)[order]
        axes[1].plot(p, y, marker, color=colour, ms=11, label=name)
    axes[1].set(xlim=(-0.03, 1.03), xlabel="purity")
    axes[1].xaxis.set_major_formatter(PercentFormatter(1.0))
    axes[1].grid(axis="y", color="0.9")
    for ax in axes:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize="small", frameon=False)
    few, most = order[0], order[-1]
    ends = [
        f"{name} from {class_names[int(np.nanargmin(p))]} ({np.nanmin(p):.0%}) to "
        f"{class_names[int(np.nanargmax(p))]} ({np.nanmax(p):.0%})"
        for name, p in purity.items()
        if not np.isnan(p).all()
    ]
    figure.alt_text = (
        f"Classes by their rows in the bank that takes one patch of a picture: fewest "
        f"{class_names[few]} ({rows[few]}; {shown[few]} pictures show it), most "
        f"{class_names[most]} ({rows[most]}; {shown[most]} pictures show it). "
        f"Purity, {'; '.join(ends) or 'not known'}."
    )
    return figure


def temperature_figure(
    temperatures: Sequence[float],
    purity: ArrayLike,
    median: ArrayLike,
    agreement: Mapping[str, ArrayLike],
) -> Figure:
    """What the temperature does: entropy, its order, and the purity of the surest tenth.

    Parameters
    ----------
    temperatures : T, ascending.
    purity : share of right patches in the surest tenth, one for each T.
    median : median entropy in nats, one for each T.
    agreement : {quantity: rank correlations of sureness with it, one for each T}.
    """
    figure, axes = subplots(1, 3, size=(13, 5.6))
    style = {"ms": 11, "marker": "o"}
    near = [max(T / SELECTION_TEMPERATURE, SELECTION_TEMPERATURE / T) for T in temperatures]
    labelled = [T for T, ratio in zip(temperatures, near, strict=True) if not 1 < ratio < 2.5]
    sns.lineplot(x=temperatures, y=np.asarray(median), ax=axes[0], color=PALETTE[0], **style)
    axes[0].set(ylabel="median entropy (nats)", title="Entropy", ylim=(0, None))
    for (name, y), colour, marker in zip(agreement.items(), PALETTE[1:], "sD", strict=False):
        kind = style | {"marker": marker}
        sns.lineplot(x=temperatures, y=np.asarray(y), ax=axes[1], color=colour, label=name, **kind)
    axes[1].set(ylabel="rank correlation with sureness", title="Order", ylim=(0, 1.04))
    axes[1].legend(fontsize="small", framealpha=1, edgecolor="white", loc="lower center")
    sns.lineplot(x=temperatures, y=np.asarray(purity), ax=axes[2], color=PALETTE[0], **style)
    axes[2].set(title="Purity", ylim=(0, max(1.3 * float(np.nanmax(purity)), 0.1)))
    _percent(axes[2], "right, in the surest tenth")
    for ax in axes:
        ax.set_xscale("log")
        ax.set(xlabel="temperature T")
        _plain(ax.xaxis, labelled)
        ax.axvline(SELECTION_TEMPERATURE, color="0.4", linestyle="--", linewidth=1.5)
    ends = "; ".join(
        f"rank correlation with {name} from {y[0]:.2f} to {y[-1]:.2f}"
        for name, y in agreement.items()
    )
    figure.alt_text = (
        f"Three panels over the temperature, from {temperatures[0]:g} to {temperatures[-1]:g}, "
        f"{SELECTION_TEMPERATURE:g} dashed. Median entropy from {median[0]:.2f} to "
        f"{median[-1]:.2f} nats; {ends}; purity of the surest tenth from {purity[0]:.0%} to "
        f"{purity[-1]:.0%}."
    )
    return figure


def memory_figure(seen: Sequence[int], held: Sequence[int], everything: Sequence[int]) -> Figure:
    """Megabytes of the bank, and of all patches, against the number of pictures seen."""
    figure, ax = subplots(size=(12, 6))
    curves = {"all patches (a full sort)": everything, "the bank (one pass)": held}
    for (name, y), colour, dash in zip(curves.items(), PALETTE[1::-1], ("--", "-"), strict=True):
        megabytes = np.asarray(y) / 1e6
        sns.lineplot(x=seen, y=megabytes, ax=ax, color=colour, ls=dash, lw=4)
        style = {"va": "bottom", "ha": "right", "color": colour, "fontweight": "bold"}
        ax.annotate(f"{name}: {megabytes[-1]:.0f} MB", (seen[-1], megabytes[-1]), **style)
    ax.set(xlabel="pictures seen", ylabel="memory (MB)", ylim=(0, None))
    ax.set_ylim(0, 1.12 * max(everything) / 1e6)
    figure.alt_text = (
        f"Memory against pictures seen. All patches rise in a straight line to "
        f"{everything[-1] / 1e6:.0f} MB; the bank stays at {max(held) / 1e6:.0f} MB or less."
    )
    return figure


def explore(
    class_name: str,
    K: int,
    data: VOCLayout,
    banks: Mapping[str, PatchBank],
    truth: np.ndarray,
) -> Figure:
    """The explorer: seven of the first K patches of a class, for each bank, in their pictures.

    A patch that shows the class has a solid blue frame, any other a dashed orange one.

    Parameters
    ----------
    class_name : one of ``data.class_names``.
    K : from how many of the surest rows the seven are taken, evenly spread.
    data : the pictures that the banks were filled with.
    banks : {what to call it: bank}.
    truth : int [n, N], what each patch shows.

    Raises
    ------
    ValueError
        Unknown class, or K below 1.
    """
    names = list(data.class_names)
    if class_name not in names:
        raise ValueError(f"There is no class {class_name!r}; there are {', '.join(names)}.")
    if K < 1:
        raise ValueError(f"K must be at least 1: got {K}.")
    c = names.index(class_name)
    figure, axes = subplots(len(banks), 1, size=(13, 3.1 * len(banks)), squeeze=False)
    words = []
    for ax, (what, bank) in zip(axes[:, 0], banks.items(), strict=True):
        n = min(K, int(bank.counts[c]))
        share = purity_of_classes(bank, truth, K)[c]
        found = "purity unknown" if np.isnan(share) else f"{share:.0%} show {class_name}"
        heading = f"{what}: {n} patches of {pictures_of_classes(bank, K)[c]} pictures, {found}"
        ax.set_title(heading, loc="left", fontsize="medium")
        _sheet(ax, bank, (bank.labels == c).nonzero().squeeze(1)[:n], data, truth)
        words.append(heading)
    figure.alt_text = (
        f"Patches kept for {class_name}, up to {SHEET} for each bank, framed in their pictures: "
        f"solid blue where the patch shows the class, dashed orange where not. {'; '.join(words)}."
    )
    return figure


def _sheet(ax: Axes, bank: PatchBank, rows: Tensor, data: VOCLayout, truth: np.ndarray) -> None:
    """Up to SHEET rows of a bank side by side, drawn as one image: quick."""
    picks = np.unique(np.linspace(0, len(rows) - 1, SHEET).round().astype(int)) if len(rows) else []
    step, grid = _TILE + _GAP, round(truth.shape[1] ** 0.5)
    canvas = np.full((_TILE, step * SHEET, 3), 255, dtype=np.uint8)
    for place, pick in enumerate(picks):
        row, left = int(rows[pick]), place * step
        i, patch = int(bank.image_id[row]), int(bank.patch_index[row])
        picture = centre_square(open_image(data.paths[i])).resize((_TILE, _TILE))
        canvas[:, left : left + _TILE] = np.asarray(picture)
        shows = int(truth[i, patch])
        right = shows == int(bank.labels[row])
        side = _TILE / grid
        at = (left + side * (patch % grid) - 3, side * (patch // grid) - 3)
        for colour, width in (("white", 7), (PALETTE[0] if right else PALETTE[1], 4)):
            line = "-" if right or colour == "white" else (0, (1.2, 0.6))
            box = Rectangle(at, side + 6, side + 6, fill=False, ec=colour, lw=width, ls=line)
            ax.add_patch(box).set_clip_on(False)
        ax.text(left + _TILE / 2, _TILE + 13, _caption(pick, shows, data), ha="center", va="top")
    ax.imshow(canvas, interpolation="nearest")
    ax.set(xticks=[], yticks=[], ylim=(_TILE + 74, -6), xlim=(-6, canvas.shape[1]))
    ax.spines[:].set_visible(False)


def _caption(pick: int, shows: int, data: VOCLayout) -> str:
    beside = {BACKGROUND: "unlisted", MIXED: "mixture", VOID: "unknown"}
    name = beside[shows] if shows in beside else data.class_names[shows]
    return f"{pick + 1}.\n{name}"


def _named_panel(ax: Axes, data: VOCLayout, i: int, named: Tensor, mask: object) -> list[str]:
    """The classes that patches are given, as colours over the picture; the commonest have names."""
    counts = torch.bincount(named.flatten(), minlength=len(data.class_names))
    order = [int(c) for c in counts.argsort(descending=True, stable=True) if counts[c] > 0]
    heat_map(ax, data.paths[i], np.zeros(named.shape), mask, "class named")
    colours = np.full((*named.shape, 4), 0.85)
    handles = []
    for c, colour in zip(order[:5], PALETTE, strict=False):
        rgb = [int(colour[j : j + 2], 16) / 255 for j in (1, 3, 5)]
        colours[named.numpy() == c] = (*rgb, 0.6)
        handles.append(Patch(color=colour, label=data.class_names[c]))
    ax.imshow(colours, extent=(0, 1, 1, 0), interpolation="nearest")
    style = {"ncol": 2, "fontsize": "x-small", "frameon": False}
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), **style)
    return [data.class_names[c] for c in order[:5]]


def _pale(path: object) -> Image.Image:
    """A picture so pale that it hardly shades the colours over it."""
    picture = open_image(path).convert("RGB")
    return Image.blend(Image.new("RGB", picture.size, "white"), picture, 0.25)


def _mask(data: VOCLayout, i: int) -> np.ndarray | None:
    """Where any class of the list is, [H, W]; None without a mask."""
    mask = mask_or_none(data, i)
    return None if mask is None else mask >= 0


def _wrapped(names: Sequence[str], per_line: int = 3) -> str:
    lines = [", ".join(names[j : j + per_line]) for j in range(0, len(names), per_line)]
    return "shows " + ",\n".join(lines) if names else "shows no class of the list"


def _percent(ax: Axes, label: str) -> None:
    ax.set_ylabel(label)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _plain(axis: object, ticks: Sequence[float]) -> None:
    """Ticks with plain numbers on a logarithmic axis."""
    axis.set_ticks(list(ticks), [f"{t:g}" for t in ticks])
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


# Exercises --------------------------------------------------------------------------------------


def effective_classes(p: ArrayLike) -> np.ndarray:
    """Exercise 1: e to the power of the entropy, [...] from [..., C].

    Examples
    --------
    >>> effective_classes([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    array([2., 1.])
    """
    p = np.asarray(p, dtype=float)
    log = np.log(np.where(p > 0, p, 1.0))
    return np.exp(-(p * log).sum(axis=-1))


def purity_curve(entropies: ArrayLike, right: ArrayLike) -> np.ndarray:
    """Exercise 2: the share of right ones among the 1, 2, ..., n patches of lowest entropy.

    Examples
    --------
    >>> purity_curve([0.9, 0.1, 0.5, 0.3], [False, True, True, False]).round(2)
    array([1.  , 0.5 , 0.67, 0.5 ])
    """
    order = np.argsort(np.asarray(entropies), kind="stable")
    hits = np.asarray(right, dtype=float)[order]
    return hits.cumsum() / np.arange(1, len(hits) + 1)


def first_of_each_picture(entropies: ArrayLike, image_ids: ArrayLike, m: int) -> np.ndarray:
    """Exercise 3: positions of the m lowest entropies of each picture, lowest entropy first.

    Examples
    --------
    >>> first_of_each_picture([0.2, 0.1, 0.3, 0.4], [5, 5, 5, 8], m=1)
    array([1, 3])
    """
    taken: dict[int, int] = {}
    keep = []
    for i in np.argsort(np.asarray(entropies), kind="stable"):
        picture = int(np.asarray(image_ids)[i])
        taken[picture] = taken.get(picture, 0) + 1
        if taken[picture] <= m:
            keep.append(i)
    return np.array(keep, dtype=int)


def smallest_limit(named: Tensor, n_classes: int, k: int) -> int:
    """Exercise 4: the smallest m with which every class gets as many rows as without a limit.

    Parameters
    ----------
    named : int [n, N], the class that each patch was given.
    n_classes : C.
    k : places of a class.

    Examples
    --------
    >>> smallest_limit(torch.tensor([[0, 0, 1], [0, 1, 1]]), n_classes=2, k=3)
    2
    """
    counts = torch.stack([torch.bincount(row, minlength=n_classes) for row in named])
    wanted = counts.sum(0).clamp(max=k)
    m = 1
    while (counts.clamp(max=m).sum(0) < wanted).any():
        m += 1
    return m


def exercise_1(answer: Callable) -> None:
    """Check a function of p, [..., C], that gives e to the power of the entropy, [...]."""
    cases = [
        (torch.tensor([[0.25, 0.25, 0.25, 0.25]]),),
        (torch.tensor([[1.0, 0.0, 0.0]]),),
        (torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]),),
        (torch.full((2, 3, 4), 0.25),),
        (torch.tensor([0.5, 0.5]),),
    ]
    check_function(answer, effective_classes, cases, "Exercise 1")


def exercise_2(answer: Callable) -> None:
    """Check a function of entropies and right or wrong, [n] each, that gives purity at 1 to n."""
    generator = torch.Generator().manual_seed(0)
    h = torch.rand(40, generator=generator)
    cases = [
        (torch.tensor([0.1, 0.2]), torch.tensor([True, False])),
        (torch.tensor([0.9, 0.1, 0.5]), torch.tensor([False, True, True])),
        (h, torch.rand(40, generator=generator) > h),
    ]
    check_function(answer, purity_curve, cases, "Exercise 2")


def exercise_3(answer: Callable) -> None:
    """Check a function of entropies, image ids and m that gives the positions kept, in order."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (torch.tensor([0.2, 0.1, 0.4]), torch.tensor([7, 7, 3]), 1),
        (torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([3, 7, 7, 7]), 2),
        (torch.rand(60, generator=generator), torch.randint(9, (60,), generator=generator), 3),
    ]
    check_function(answer, first_of_each_picture, cases, "Exercise 3")


def exercise_4(answer: object, named: Tensor, n_classes: int, k: int) -> None:
    """Check the smallest limit m with which no class starves."""
    hint = "Class c gets min(K, sum over pictures of min(m, its patches named c)) rows."
    if isinstance(answer, str | bool) or not np.isscalar(answer) and np.ndim(answer) > 0:
        raise CheckFailed(f"Exercise 4: one whole number is wanted, but this is {answer!r}.")
    expected = smallest_limit(torch.as_tensor(named), n_classes, k)
    check_number(answer, expected, "Exercise 4", tolerance=0.01, hint=hint)


def exercise_5(answer: object) -> None:
    """Check the letter: what a higher temperature leaves as it is."""
    wrong = {
        "a": "The order by entropy is by spread at a low T and by margin at a high one.",
        "c": "A higher T sharpens the softmax: every entropy above zero falls.",
        "d": "The share p of the named class grows with T: the softmax gets sharper.",
    }
    why = "T multiplies all cosines of a patch alike: the largest stays the largest."
    check_choice(answer, "b", wrong, "Exercise 5", why)
