"""Notebook 05, adaptive aggregation: object sizes, figures, its explorer and its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from piaa_utils.aggregation import patch_scores
from piaa_utils.constants import CLS_WEIGHT
from piaa_utils.datasets import VOCLayout
from piaa_utils.lessons.checks import CheckFailed, check_choice, check_function, check_number
from piaa_utils.metrics import (
    average_precision,
    bootstrap_map,
    f1,
    mean_average_precision,
    paired_bootstrap,
)
from piaa_utils.plots import PALETTE, Figure, centre_square, heat_map, subplots

SIZES = ("small", "medium", "large")
N_PATCHES = 14 * 14  # of a simulated picture
PRESENT, ABSENT = PALETTE[0], "0.72"


# Objects and their sizes


def size_groups(labels: ArrayLike, shares: ArrayLike) -> np.ndarray:
    """The third of its class that each object belongs to: 0 small, 1 medium, 2 large.

    Parameters
    ----------
    labels : [n, C] of 0 and 1.
    shares : [n, C], see :func:`piaa_utils.lessons.object_shares`.

    Returns
    -------
    int [n, C]; -1 where the class is absent or its size is not known.

    Examples
    --------
    >>> labels, shares = [[1], [0], [1], [1]], [[0.3], [0.0], [0.1], [0.2]]
    >>> size_groups(labels, shares).T.tolist()
    [[2, -1, 0, 1]]
    """
    labels, shares = np.asarray(labels), np.asarray(shares, dtype=float)
    groups = np.full(labels.shape, -1)
    for c in range(labels.shape[1]):
        there = np.flatnonzero((labels[:, c] == 1) & np.isfinite(shares[:, c]))
        order = there[np.argsort(shares[there, c], kind="stable")]
        for group, rows in enumerate(np.array_split(order, len(SIZES))):
            groups[rows, c] = group
    return groups


def other_sizes(labels: ArrayLike, groups: ArrayLike, group: int) -> np.ndarray:
    """The pairs to leave out so that the positives are those of one size group only.

    Examples
    --------
    >>> other_sizes([[1], [0], [1]], [[0], [-1], [2]], group=0).T.tolist()
    [[False, False, True]]
    """
    return (np.asarray(labels) == 1) & (np.asarray(groups) != group)


def by_size(
    labels: ArrayLike, groups: ArrayLike, scores: Mapping[str, ArrayLike], n: int = 300
) -> list[dict]:
    """mAP and its interval for each kind of score and each size group, in percent.

    Returns
    -------
    Mappings with ``name``, ``size``, ``value``, ``low`` and ``high``.
    """
    rows = []
    for name, of_one in scores.items():
        of_one = np.asarray(of_one)
        for group, size in enumerate(SIZES):
            ignore = other_sizes(labels, groups, group)
            value = mean_average_precision(labels, of_one, ignore).map
            low, high = bootstrap_map(labels, of_one, n=n, ignore=ignore)
            values = {"value": 100 * value, "low": 100 * low, "high": 100 * high}
            rows.append({"name": name, "size": size, **values})
    return rows


def compare(
    labels: ArrayLike, groups: ArrayLike, a: ArrayLike, b: ArrayLike, n: int = 300
) -> list[str]:
    """By how many points of mAP `a` is ahead of `b`, size by size, with a verdict.

    Returns
    -------
    One line for each size: difference, 95 % interval, and whether the interval excludes zero.
    """
    lines = []
    for group, size in enumerate(SIZES):
        ignore = other_sizes(labels, groups, group)
        values = paired_bootstrap(labels, np.asarray(a), np.asarray(b), n=n, ignore=ignore)
        difference, low, high = (100 * v for v in values)
        verdict = "ahead" if low > 0 else "behind" if high < 0 else "not shown"
        lines.append(f"{size:6}  {difference:+5.1f}  [{low:+5.1f}, {high:+5.1f}]  {verdict}")
    return lines


# Pooling


def detection(
    covered: Sequence[int],
    poolings: Mapping[str, Callable[[Tensor], Tensor]],
    n_patches: int = N_PATCHES,
    noise: float = 0.3,
    trials: int = 400,
    seed: int = 0,
) -> dict[str, list[float]]:
    """How clearly a pooled score tells a picture with an object from an empty one: a simulation.

    A patch on the object has evidence 1, any other 0, and each has noise of its own.

    Parameters
    ----------
    covered : how many patches the object covers, one entry for each point of the curve.
    poolings : name -> function from [trials, n_patches, 1] to [trials, 1].
    n_patches, noise, trials, seed : of the simulation.

    Returns
    -------
    Name -> for each entry of `covered` by how much the object raises the pooled score, in standard
    deviations of the pooled score of empty pictures.

    Examples
    --------
    >>> detection([0], {"max": lambda x: x.amax(dim=-2)})
    {'max': [0.0]}
    """
    generator = torch.Generator().manual_seed(seed)
    empty = noise * torch.randn(trials, n_patches, 1, generator=generator, dtype=torch.float64)
    out: dict[str, list[float]] = {name: [] for name in poolings}
    for k in covered:
        there = empty.clone()
        there[:, :k] += 1
        for name, pooling in poolings.items():
            without = pooling(empty)
            raised = (pooling(there) - without).mean() / without.std()
            out[name].append(float(raised))
    return out


def detection_figure(covered: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """The curves of :func:`detection`, both axes logarithmic."""
    figure, ax = subplots(size=(11, 5.6))
    for j, (name, values) in enumerate(curves.items()):
        ax.plot(covered, values, "osD^v"[j % 5] + "-", color=PALETTE[j], label=name, linewidth=3)
    ax.set(xscale="log", yscale="log", xlabel=f"patches that the object covers, of {N_PATCHES}")
    ax.set_ylabel("rise of the pooled score\n(standard deviations)")
    ax.grid(color="0.9")
    ax.legend()
    best = [max(curves, key=lambda name, i=i: curves[name][i]) for i in range(len(covered))]
    figure.alt_text = (
        f"How far an object lifts the pooled score above noise, by its size. Clearest for "
        f"{covered[0]} patch: {best[0]}; for {covered[-1]} patches: {best[-1]}."
    )
    return figure


# Rankings


def swapped(a: ArrayLike, b: ArrayLike, pairs: int = 20_000, seed: int = 0) -> float:
    """The share of pairs of pictures that two scores of the same class put in another order.

    Parameters
    ----------
    a, b : [n, C] scores of the same pictures and classes.
    pairs : how many random pairs (of pictures, for a random class) are looked at.
    seed : of the pairs.

    Examples
    --------
    >>> a = np.arange(8.0)[:, None]
    >>> swapped(a, 2 * a), swapped(a, -a)
    (0.0, 1.0)
    """
    a, b = np.asarray(a), np.asarray(b)
    rng = np.random.default_rng(seed)
    first, shift = rng.integers(len(a), size=pairs), rng.integers(1, len(a), size=pairs)
    second, c = (first + shift) % len(a), rng.integers(a.shape[1], size=pairs)
    before, after = a[first, c] - a[second, c], b[first, c] - b[second, c]
    return float(np.mean(np.sign(before) * np.sign(after) < 0))


def ranks(scores: ArrayLike) -> np.ndarray:
    """The place of each picture in the ranking of each class, 1 the best: [n, C].

    Examples
    --------
    >>> ranks([[0.1], [0.9], [0.5]]).T.tolist()
    [[3, 1, 2]]
    """
    order = np.argsort(-np.asarray(scores), axis=0, kind="stable")
    return np.argsort(order, axis=0, kind="stable") + 1


def reliability(labels: ArrayLike, scores: ArrayLike, bins: int = 10) -> np.ndarray:
    """Mean score and share of present classes, in bins that hold as many pairs each.

    Parameters
    ----------
    labels : [n, C] of 0 and 1.
    scores : [n, C].
    bins : how many.

    Returns
    -------
    [bins, 3]: mean score, share of the pairs in which the class is present, number of pairs.

    Examples
    --------
    >>> reliability([[0, 1], [0, 1]], [[0.1, 0.8], [0.3, 0.6]], bins=2).round(3).tolist()
    [[0.2, 0.0, 2.0], [0.7, 1.0, 2.0]]
    """
    y, s = np.asarray(labels).ravel(), np.asarray(scores).ravel()
    parts = np.array_split(np.argsort(s, kind="stable"), bins)
    return np.array([[s[i].mean(), y[i].mean(), len(i)] for i in parts if len(i)])


def own_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """For each class the threshold with the highest F1: [C].

    Parameters
    ----------
    labels : [n, C] of 0 and 1.
    scores : [n, C]; the thresholds tried are the scores themselves.

    Examples
    --------
    >>> own_thresholds(np.array([[0, 1], [1, 1]]), np.array([[0.1, 0.3], [0.2, 0.2]])).tolist()
    [0.2, 0.2]
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    return np.array(
        [
            max(np.unique(s), key=lambda t, y=y, s=s: _f1(y, s >= t))
            for y, s in zip(labels.T, scores.T, strict=True)
        ]
    )


def f1_gain(
    labels: np.ndarray,
    scores: np.ndarray,
    ours: ArrayLike,
    other: ArrayLike,
    n: int = 500,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Points of CF1 that thresholds `ours` gain over `other`, and the ends of its 95 % interval.

    Parameters
    ----------
    labels : [n, C] of 0 and 1.
    scores : [n, C].
    ours, other : a threshold, or one for each class.
    n, seed : pictures are drawn so often with replacement, the same for both.

    Examples
    --------
    >>> y, scores = np.eye(2, dtype=int), np.array([[0.9, 0.6], [0.1, 0.8]])
    >>> f1_gain(y, scores, 0.7, 0.7, n=10)
    (0.0, 0.0, 0.0)
    """
    labels, rng = np.asarray(labels), np.random.default_rng(seed)

    def gain(rows: np.ndarray) -> float:
        a, b = (f1(labels[rows], (scores - t)[rows], threshold=0).CF1 for t in (ours, other))
        return 100 * (a - b)

    draws = [gain(rng.integers(len(labels), size=len(labels))) for _ in range(n)]
    return gain(np.arange(len(labels))), *np.quantile(draws, [0.025, 0.975]).tolist()


# Figures


def evidence_figure(
    labels: np.ndarray, panels: Mapping[str, ArrayLike], name: str, units: Sequence[str]
) -> Figure:
    """How well a score of one class parts the pictures with the class from those without.

    Parameters
    ----------
    labels : [n] of 0 and 1.
    panels : title -> [n] scores of the pictures.
    name : of the class.
    units : the label of each panel's horizontal axis.
    """
    import seaborn as sns

    figure, axes = subplots(1, len(panels), size=(6.5 * len(panels), 5))
    words = []
    for ax, (title, scores), unit in zip(axes, panels.items(), units, strict=True):
        scores = np.asarray(scores, dtype=float)
        for value, color, what in ((0, "0.55", "absent"), (1, PALETTE[1], "present")):
            rows = scores[labels == value]
            options = {"bins": np.linspace(scores.min(), scores.max(), 26), "stat": "percent"}
            sns.histplot(x=rows, color=color, alpha=0.6, label=f"{name} {what}", ax=ax, **options)
        ap = average_precision(labels[:, None], scores[:, None])[0]
        ax.set(xlabel=unit, ylabel="pictures (%)")
        ax.set_title(f"{title}: AP {100 * ap:.0f} %")
        words.append(f"by {title}, average precision {100 * ap:.0f} %")
    axes[0].legend()
    figure.alt_text = (
        f"Histograms of two scores of pictures with and without a {name}: {'; '.join(words)}. "
        f"The higher the average precision, the less the two histograms overlap."
    )
    return figure


def sizes_figure(rows: Sequence[Mapping[str, object]], title: str = "") -> Figure:
    """mAP by size of the object, one line of points for each kind of score, with intervals."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure, ax = subplots(size=(12, 6))
    words = []
    for j, name in enumerate(names):
        of_one = [row for row in rows if row["name"] == name]
        x = np.arange(len(SIZES)) + 0.13 * (j - (len(names) - 1) / 2)
        y = np.array([row["value"] for row in of_one])
        low, high = (np.array([row[key] for row in of_one]) for key in ("low", "high"))
        errors = np.abs(np.stack([y - low, high - y]))
        style = {"marker": "osD^vP"[j % 6], "markersize": 10, "linewidth": 3, "capsize": 0}
        ax.errorbar(x, y, yerr=errors, color=PALETTE[j], label=name, linestyle="none", **style)
        values = ", ".join(f"{v:.0f} on {s}" for v, s in zip(y, SIZES, strict=True))
        words.append(f"{name} {values}")
    ax.set_xticks(range(len(SIZES)), SIZES)
    ax.set(xlabel="size of the object (third of its class)", ylabel="mAP (%)", title=title)
    ax.grid(axis="y", color="0.9")
    ax.legend(loc="upper left")
    figure.alt_text = f"mAP in percent by size of the object. {'; '.join(words)}."
    return figure


def swap_figure(evidence: ArrayLike, names: Sequence[str], scale: float) -> Figure:
    """Evidence and softmax scores of a few pictures side by side, one bar for each class."""
    evidence = torch.as_tensor(evidence, dtype=torch.float64)
    columns = {"evidence e": evidence, f"softmax({scale:g} e)": patch_scores(evidence, scale)}
    figure, axes = subplots(1, 2, size=(13, 4.6))
    width = 0.8 / len(evidence)
    for ax, (title, values) in zip(axes, columns.items(), strict=True):
        for i, row in enumerate(values):
            x = np.arange(len(names)) + width * (i - (len(evidence) - 1) / 2)
            picture = f"picture {chr(ord('A') + i)}"
            bars = ax.bar(x, row.numpy(), width, color=PALETTE[i], label=picture)
            ax.bar_label(bars, fmt="%.2f", fontsize="small")
        ax.set_xticks(range(len(names)), names)
        ax.set(ylim=(0, 1.12), ylabel="score", title=title)
    axes[0].legend()
    first = [columns[t][:, 0].tolist() for t in columns]
    figure.alt_text = (
        f"Bars for {len(evidence)} pictures and the classes {', '.join(names)}. For {names[0]} "
        f"the evidence is {', '.join(f'{v:.2f}' for v in first[0])} in pictures A, B, and the "
        f"softmax score {', '.join(f'{v:.2f}' for v in first[1])}."
    )
    return figure


def scales_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    marks: Mapping[str, Mapping[str, float]],
) -> Figure:
    """mAP against a scale, one panel for each softmax, with named settings marked.

    Parameters
    ----------
    curves : panel -> (scales, mAP in percent).
    marks : panel -> {name of the setting: its scale}.
    """
    figure, axes = subplots(1, len(curves), size=(6.5 * len(curves), 5.4), sharey=True)
    words = []
    for ax, (title, (x, y)) in zip(axes, curves.items(), strict=True):
        ax.plot(x, y, "o-", color=PALETTE[0], linewidth=3)
        for j, (name, value) in enumerate(marks[title].items()):
            style = {"linestyle": ("--", ":", "-.")[j % 3], "linewidth": 3}
            ax.axvline(value, color=PALETTE[1 + j], label=f"{name}: {value:g}", **style)
        ax.set_xscale("log")
        ax.set(xlabel=f"{title} (log scale)", ylabel="mAP (%)")
        ax.grid(axis="y", color="0.9")
        ax.legend(fontsize="small", loc="lower left")
        best = int(np.argmax(y))
        words.append(
            f"{title}: {y[0]:.1f} at {x[0]:g}, best {y[best]:.1f} at {x[best]:g}, "
            f"{y[-1]:.1f} at {x[-1]:g}"
        )
    figure.alt_text = f"mAP in percent against the scale. {'; '.join(words)}."
    return figure


def map_of_scales(
    values: np.ndarray,
    cls_scales: Sequence[float],
    patch_scales: Sequence[float],
    marks: Mapping[str, tuple[float, float]],
) -> Figure:
    """Heat map of the mAP over s (columns) and m (rows), with named settings written in.

    Parameters
    ----------
    values : [len(patch_scales), len(cls_scales)] mAP in percent.
    cls_scales, patch_scales : s and m.
    marks : name -> (s, m), each on the grid.
    """
    import seaborn as sns

    figure, ax = subplots(size=(13, 8))
    sns.heatmap(
        values,
        annot=True,
        fmt=".1f",
        cmap="cividis",
        ax=ax,
        annot_kws={"fontsize": 13},
        xticklabels=[f"{s:g}" for s in cls_scales],
        yticklabels=[f"{m:g}" for m in patch_scales],
        cbar_kws={"label": "mAP on val (%)"},
    )
    where: dict[tuple[int, int], list[str]] = {}
    for name, (s, m) in marks.items():
        where.setdefault((list(cls_scales).index(s), list(patch_scales).index(m)), []).append(name)
    for (x, y), names in where.items():
        ax.add_patch(_frame(x, y))
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        ax.text(x + 0.5, y + 0.8, ", ".join(names), ha="center", va="center", fontsize=11, bbox=box)
    ax.set(xlabel="s, scale of the [CLS] softmax", ylabel="m, scale of the patch softmax")
    ax.tick_params(axis="y", rotation=0)
    row, column = np.unravel_index(values.argmax(), values.shape)
    settings = "; ".join(f"{n}: {values[y, x]:.1f}" for (x, y), ns in where.items() for n in ns)
    figure.alt_text = (
        f"Heat map of the mAP on val over s and m: {values.min():.1f} to {values.max():.1f} %, "
        f"best at s = {cls_scales[column]:g}, m = {patch_scales[row]:g}. {settings}."
    )
    return figure


def _frame(x: int, y: int):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, fill=False, edgecolor="white", linewidth=4)


def weights_figure(
    weights: Sequence[float],
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    best: float,
) -> Figure:
    """mAP against the weight of [CLS], with intervals.

    Parameters
    ----------
    weights : 0 to 1.
    curves : name -> (value, low, high) for each weight, in percent.
    best : the weight that was chosen.
    """
    figure, ax = subplots(size=(12, 6.2))
    words = []
    for j, (name, points) in enumerate(curves.items()):
        value, low, high = np.array(points).T
        ax.plot(weights, value, "os^Dv"[j % 5] + "-", color=PALETTE[j], label=name, linewidth=3)
        ax.fill_between(weights, low, high, color=PALETTE[j], alpha=0.15)
        words.append(
            f"{name}: {value[0]:.1f} at 0, {value.max():.1f} at its best, {value[-1]:.1f} at 1"
        )
    ax.axvline(CLS_WEIGHT, color="black", linestyle=":", linewidth=3, label="paper")
    ax.axvline(best, color="0.5", linestyle="--", linewidth=3, label="best on val")
    ax.set(xlabel="weight of [CLS] (0: patches alone, 1: [CLS] alone)", ylabel="mAP (%)")
    ax.grid(axis="y", color="0.9")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.alt_text = (
        f"mAP in percent against the weight of [CLS], with intervals. {'; '.join(words)}. "
        f"Best on val: {best:g}."
    )
    return figure


def gallery(
    dataset: VOCLayout, maps: Tensor, patch: ArrayLike, cls: ArrayLike, groups: np.ndarray
) -> Figure:
    """Where patches and [CLS] disagree most: one column for each size, heat map and mask.

    Top: the objects whose picture has a better place by the patches than by [CLS], in the ranking
    of its class, by the largest factor. Bottom: those for which it is the other way round.

    Parameters
    ----------
    dataset : the pictures, with masks.
    maps : [n, N, C] patch scores.
    patch, cls : [n, C] scores of the two branches.
    groups : [n, C], see :func:`size_groups`.
    """
    by_patch, by_cls = ranks(patch), ranks(cls)
    figure, axes = subplots(2, len(SIZES), size=(13, 8.8))
    words = []
    for row, gain in zip(axes, (by_cls / by_patch, by_patch / by_cls), strict=True):
        for group, ax in enumerate(row):
            if not (groups == group).any():
                ax.set_axis_off()
                words.append(f"no {SIZES[group]} object")
                continue
            i, c = _largest(gain, groups == group)
            name = dataset.class_names[c]
            side = int(maps.shape[1] ** 0.5)
            scores = maps[i, :, c].reshape(side, side)
            text = f"{SIZES[group]} {name}\npatches: place {by_patch[i, c]}, [CLS]: {by_cls[i, c]}"
            limits = float(scores.median()), float(scores.max())
            heat_map(ax, dataset[i], scores, dataset.masks(i) == c, text, limits)
            words.append(text.replace("\n", ", "))
    figure.alt_text = (
        f"Heat maps over pictures, the object outlined; places among {len(by_cls)} pictures. "
        f"Above, where patches gain most: {'; '.join(words[:3])}. "
        f"Below, where [CLS] gains most: {'; '.join(words[3:])}."
    )
    return figure


def _largest(values: np.ndarray, where: np.ndarray) -> tuple[int, int]:
    at = np.where(where, values, -np.inf).argmax()
    i, c = np.unravel_index(at, values.shape)
    return int(i), int(c)


def thresholds_figure(
    thresholds: np.ndarray, curves: Mapping[str, Sequence[float]], chosen: float
) -> Figure:
    """Curves from 0 to 100 % against the threshold, with the chosen one marked."""
    figure, ax = subplots(size=(12, 5.8))
    styles = ("-", "--", "-.", ":")
    words = []
    for j, (name, values) in enumerate(curves.items()):
        values = 100 * np.asarray(values)
        ax.plot(thresholds, values, styles[j % 4], color=PALETTE[j], label=name, linewidth=3.5)
        best = int(values.argmax())
        words.append(f"{name} at most {values[best]:.0f} %, at {thresholds[best]:.3f}")
    ax.axvline(chosen, color="0.5", linewidth=2.5, label="chosen on val")
    ax.set(xlabel="threshold", ylabel="per cent", ylim=(0, 100))
    ax.grid(axis="y", color="0.9")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.alt_text = f"Against the threshold: {'; '.join(words)}. Chosen on val: {chosen:.3f}."
    return figure


def reliability_figure(panels: Mapping[str, np.ndarray]) -> Figure:
    """Reliability diagrams side by side: share of present classes against the mean score.

    Parameters
    ----------
    panels : title -> what :func:`reliability` returns.
    """
    figure, axes = subplots(1, len(panels), size=(6.5 * len(panels), 6))
    words = []
    for ax, (title, bins) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        score, share = bins[:, 0], bins[:, 1]
        top = 1.08 * max(score.max(), share.max())
        ax.plot([0, top], [0, top], "--", color="0.4", linewidth=2.5, label="calibrated")
        ax.plot(score, share, "o-", color=PALETTE[0], linewidth=3, markersize=10, label="measured")
        ax.set(xlabel="mean score of the bin", ylabel="share of the bin that is present")
        ax.set(xlim=(0, top), ylim=(0, top), title=title)
        ax.set_aspect("equal")
        ax.legend(fontsize="small", loc="lower right")
        words.append(
            f"{title}: the top bin's mean score is {score[-1]:.2f}, "
            f"and {100 * share[-1]:.0f} % of it is present"
        )
    figure.alt_text = f"Reliability diagrams, dashed the diagonal. {'; '.join(words)}."
    return figure


# The explorer


class Scored(NamedTuple):
    """All that the explorer needs of a split, computed beforehand.

    evidence : [n, C], e of every picture.
    cls : [n, C], s_cls of every picture.
    dataset : the pictures and their labels.
    pictures : name in the menu -> number of the picture.
    """

    evidence: Tensor
    cls: Tensor
    dataset: VOCLayout
    pictures: dict[str, int]


def telling_pictures(labels: np.ndarray, patch: ArrayLike, cls: ArrayLike) -> dict[str, int]:
    """Pictures worth a look, chosen by rule from the average precision within each picture.

    Parameters
    ----------
    labels : [n, C] of 0 and 1.
    patch, cls : [n, C] scores of the two branches.

    Returns
    -------
    Name -> number: the picture with most classes; those, of pictures with two classes or more, in
    which the patches order the classes better than [CLS] by most, and the other way round; and the
    one in which both together do worst.

    Examples
    --------
    >>> labels = np.array([[1, 1, 0], [1, 1, 1]])
    >>> patch, cls = np.array([[3.0, 2, 1]] * 2), np.array([[1.0, 2, 3]] * 2)
    >>> telling_pictures(labels, patch, cls)["most classes"]
    1
    """
    labels, patch, cls = (np.asarray(x) for x in (labels, patch, cls))
    several = labels.sum(axis=1) >= 2
    a, b = (np.nan_to_num(average_precision(labels.T, x.T)) for x in (patch, cls))
    return {
        "most classes": int(labels.sum(axis=1).argmax()),
        "patches better": int(np.where(several, a - b, -np.inf).argmax()),
        "[CLS] better": int(np.where(several, b - a, -np.inf).argmax()),
        "hard for both": int(np.where(several, a + b, np.inf).argmin()),
    }


def explore(weight: float, patch_scale: float, picture: str, scored: Scored) -> Figure:
    """The scores of one picture under a weight of [CLS] and a scale m, and the mAP of all.

    Parameters
    ----------
    weight : of [CLS], 0 to 1.
    patch_scale : m, above 0.
    picture : a name out of ``scored.pictures``.
    scored : what was computed beforehand.

    Raises
    ------
    ValueError
        A weight or scale out of range, or an unknown picture.
    """
    figure, axes = subplots(1, 2, size=(13, 7), width_ratios=(1, 1.15))
    if picture not in scored.pictures:
        raise ValueError(f"picture must be one of {', '.join(scored.pictures)}: got {picture!r}.")
    i = scored.pictures[picture]
    axes[0].imshow(np.asarray(centre_square(scored.dataset[i])))
    axes[0].set(xticks=[], yticks=[])
    axes[0].spines[:].set_visible(False)
    axes[0].set_title(f"test picture {i}: {picture}")
    words, value = _bars(axes[1], weight, patch_scale, i, scored)
    figure.suptitle(f"weight {weight:g}, m = {patch_scale:g}: mAP of all pictures {value:.1f} %")
    figure.alt_text = (
        f"Picture {i} ({picture}) and its scores with weight {weight:g} of [CLS] and m = "
        f"{patch_scale:g}: {words}. mAP of all pictures {value:.1f} %."
    )
    return figure


def explore_static(settings: Sequence[tuple[float, float]], picture: str, scored: Scored) -> Figure:
    """The explorer's bars for several (weight, m), two in a row."""
    rows = -(-len(settings) // 2)
    figure, axes = subplots(rows, 2, size=(13, 4.4 * rows), squeeze=False)
    axes = axes.ravel()
    for ax in axes[len(settings) :]:
        ax.axis("off")
    i = scored.pictures[picture]
    texts = []
    for k, (ax, (weight, patch_scale)) in enumerate(zip(axes, settings, strict=False)):
        words, value = _bars(ax, weight, patch_scale, i, scored)
        title = f"weight {weight:g}, m = {patch_scale:g}: mAP {value:.1f} %"
        ax.set_title(title, fontsize="medium", loc="right")
        if k + 2 < len(settings):  # the panel below says it
            ax.set_xlabel("")
        texts.append(f"weight {weight:g}, m = {patch_scale:g}: {words}, mAP {value:.1f} %")
    figure.alt_text = f"Scores of picture {i} ({picture}). {'; '.join(texts)}."
    return figure


def _bars(
    ax, weight: float, patch_scale: float, i: int, scored: Scored, top: int = 10
) -> tuple[str, float]:
    """Bars of the best classes of picture i, and in words how the true ones fare; mAP in %."""
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be from 0 to 1: got {weight}.")
    if not patch_scale > 0:
        raise ValueError(f"patch_scale must be above 0: got {patch_scale}.")
    patch = patch_scores(scored.evidence, patch_scale)
    scores = ((1 - weight) * patch + weight * scored.cls).numpy()
    labels = scored.dataset.labels
    truth = labels[i] == 1
    order = np.argsort(-scores[i], kind="stable")
    picked = np.argsort(~truth[order], kind="stable")[: max(top, truth.sum())]
    shown = order[np.sort(picked)]  # every true class, and the best of the others
    names = [scored.dataset.class_names[c] for c in shown]
    even = 1 / scores.shape[1]
    colors = [PRESENT if truth[c] else ABSENT for c in shown]
    ax.barh(range(len(shown)), scores[i, shown] - even, left=even, color=colors)
    ax.axvline(even, color="black", linewidth=1.5)
    ax.set_yticks(range(len(shown)), names)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlabel("score; line: even share 1/C\nblue: in the picture, grey: not")
    ax.locator_params(axis="x", nbins=4)
    for label, c in zip(ax.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if truth[c] else "normal")
    places = {int(c): 1 + int(np.flatnonzero(order == c)[0]) for c in np.flatnonzero(truth)}
    words = ", ".join(f"{scored.dataset.class_names[c]} in place {p}" for c, p in places.items())
    return words or "no class is present", 100 * mean_average_precision(labels, scores).map


# Exercises


def exercise_1(top_k: Callable) -> None:
    """Check `top_k(scores, k)`: the mean of the k best patches of each class, [N, C] to [C]."""

    def reference(scores: Tensor, k: int) -> Tensor:
        return scores.sort(dim=0, descending=True).values[:k].mean(dim=0)

    scores = torch.tensor([[1.0, 3.0], [2.0, 0.0], [6.0, 0.0]])  # the best patches differ
    random = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    cases = [(scores, 1), (scores, 2), (scores, 3), (scores, 10), (random, 4)]
    check_function(top_k, reference, cases, "Exercise 1")


def exercise_2(answer: str) -> None:
    """Check the choice: two equally clear objects under a very sharp softmax."""
    wrong = {
        "a": "The scores of a picture sum to 1, so two of them cannot both be near 1.",
        "c": "1/C is what a very flat softmax (m near 0) gives to every class.",
        "d": "Equal evidence gives equal scores: a softmax has no way to tell the two apart.",
    }
    why = "The two share the 1. A picture with one of them alone gives it nearly all of it."
    check_choice(answer, "b", wrong, "Exercise 2", why)


def exercise_3(score: Callable) -> None:
    """Check `score(e, cosines, m, s, w)`: PAA from the evidence and the cosines, [B, C]."""

    def reference(e: Tensor, cosines: Tensor, m: float, s: float, w: float) -> Tensor:
        return (1 - w) * torch.softmax(m * e, dim=-1) + w * torch.softmax(s * cosines, dim=-1)

    e, cosines = torch.tensor([[0.6, 0.4]]), torch.tensor([[0.1, 0.3]])
    generator = torch.Generator().manual_seed(0)
    more = torch.rand(3, 4, generator=generator), torch.rand(3, 4, generator=generator)
    cases = [
        (e, cosines, 10.0, 5.0, 0.0),
        (e, cosines, 10.0, 5.0, 1.0),
        (e, cosines, 10.0, 5.0, 0.1),
        (*more, 20.0, 8.0, 0.3),
    ]
    check_function(score, reference, cases, "Exercise 3")


def exercise_4(answer: float, s_patch: ArrayLike, s_cls: ArrayLike) -> None:
    """Check the weight at which both branches move the score as much."""
    patch, cls = (np.asarray(x, dtype=float).std() for x in (s_patch, s_cls))
    hint = (
        "Both branches move the score as much where (1 - w) times the deviation of s_patch equals "
        "w times the deviation of s_cls."
    )
    check_number(answer, patch / (patch + cls), "Exercise 4", tolerance=2e-3, hint=hint)


def exercise_5(best_threshold: Callable) -> None:
    """Check `best_threshold(y, scores)`: a threshold with the highest F1 on these pairs.

    Several thresholds may be equally good, so what counts is the F1 that the answer reaches.
    """
    if not callable(best_threshold):
        raise CheckFailed("Exercise 5: a function is wanted.")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 40)
    cases = [
        (np.array([0, 1]), np.array([0.2, 0.7])),
        (np.array([1, 0, 1, 0]), np.array([0.9, 0.6, 0.5, 0.1])),
        (np.array([1, 1, 0]), np.array([0.04, 0.05, 0.01])),
        # the share of right answers is highest at 0.06, F1 at 0.01
        (np.array([1, 0, 0, 1, 0, 1]), np.array([0.06, 0.05, 0.04, 0.03, 0.02, 0.01])),
        (y, 0.05 * (y + rng.normal(size=40))),
    ]
    for y, scores in cases:
        given = f"y = {y.tolist()}, scores = {scores.tolist()}" if len(y) < 9 else f"{len(y)} pairs"
        threshold = best_threshold(y.copy(), scores.copy())
        try:
            threshold = float(threshold)
        except (TypeError, ValueError):
            raise CheckFailed(
                f"Exercise 5: one number is wanted, but for {given} came {threshold!r}."
            ) from None
        reached = _f1(y, scores >= threshold)
        best = max(_f1(y, scores >= t) for t in scores)
        if not reached >= best - 1e-9:
            raise CheckFailed(
                f"Exercise 5: for {given} the threshold {threshold:.4g} gives F1 {reached:.3f}, "
                f"and {best:.3f} can be had."
            )
    print("✓ Exercise 5 is right.")


def _f1(y: np.ndarray, predicted: np.ndarray) -> float:
    """F1 = 2 right / (said + there)."""
    total = predicted.sum() + y.sum()
    return float(2 * (predicted & (y == 1)).sum() / total) if total else 0.0
