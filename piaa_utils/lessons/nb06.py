"""Notebook 06, the whole of PIAA: checks of its exercises, its explorer, its longer figures."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from piaa_utils.aggregation import paa
from piaa_utils.datasets import VOID, VOCLayout, mini_long_classes, mini_scenes
from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.lessons.checks import CheckFailed, check_choice, check_function, check_number
from piaa_utils.lessons.config import Config
from piaa_utils.lessons.features import mask_or_none
from piaa_utils.metrics import bootstrap_map, mean_average_precision, paired_bootstrap
from piaa_utils.pipeline import PIAA
from piaa_utils.plots import PALETTE, Figure, centre_square, heat_map, open_image, subplots
from piaa_utils.purification import learn_classifier
from piaa_utils.selection import PatchBank

TINY = 0.02  # of the picture's pixels: about four of 14 x 14 patches
COMPANY = 2.0  # times as often together as chance would have it
REASONS = {  # column of the table of pairs -> what the notebook calls it
    "tiny": f"tiny\n(below {100 * TINY:.0f} % of the picture)",
    "look_alike": "look-alike\n(rival's best patch on it)",
    "company": f"company\n(rival goes with the picture, {COMPANY:.0f} x chance)",
}


class Scenes(NamedTuple):
    """What the explorer shows.

    data : the pictures. maps : [n, C, g, g] patch scores. scores : {method: [n, C]}.
    """

    data: VOCLayout
    maps: np.ndarray
    scores: Mapping[str, np.ndarray]


def classes_figure(
    image: object,
    class_names: Sequence[str],
    maps: object,
    scores: Sequence[float],
    masks: Sequence[np.ndarray],
) -> Figure:
    """A picture, and the heat map of each class in it, each on its own colour scale.

    Parameters
    ----------
    image : a path or PIL image.
    class_names : n names, one a panel.
    maps : array or tensor [n, g, g], the patch scores of these classes.
    scores : n scores of the whole picture, written beside the names.
    masks : n bool arrays [H, W], the pixels of each class.
    """
    maps, n = np.asarray(maps, dtype=float), len(class_names)
    rows = -(-(n + 1) // 4)
    columns = -(-(n + 1) // rows)
    figure, axes = subplots(rows, columns, size=(3.25 * columns, 3.7 * rows), squeeze=False)
    axes, said = axes.ravel(), []
    for ax in axes[n + 1 :]:
        ax.axis("off")
    axes[0].imshow(np.asarray(centre_square(open_image(image))), extent=(0, 1, 1, 0))
    axes[0].set(xticks=[], yticks=[], title="image")
    axes[0].spines[:].set_visible(False)
    panels = zip(axes[1:], class_names, maps, scores, masks, strict=False)
    for ax, name, heat, score, mask in panels:
        heat_map(ax, image, heat, mask, f"{name} {float(score):.3f}")
        seen, g = centre_square(np.asarray(mask)), len(heat)
        y, x = ((np.array(divmod(heat.argmax(), g)) + 0.5) * len(seen) / g).astype(int)
        where = "on" if seen[y, x] else "off"
        said.append(f"{name}, score {float(score):.3f}, highest patch {where} its object")
    figure.alt_text = (
        f"An image, beside it heat maps of its patches, each on its own colours: {'; '.join(said)}."
    )
    return figure


def score_split(piaa: PIAA, cls: Tensor, patches: Tensor, batch_size: int = 256) -> np.ndarray:
    """PIAA's scores of a whole split from its features, [n, C], some pictures at a time.

    Parameters
    ----------
    piaa : fitted.
    cls, patches : [n, D] and [n, N, D] unit features, on any device.
    batch_size : pictures at a time; changes memory, never a result.
    """
    device = piaa.text_.device
    pairs = zip(patches.split(batch_size), cls.split(batch_size), strict=True)
    scores = [piaa.score_features(x.to(device), c.to(device)).cpu() for x, c in pairs]
    return torch.cat(scores).numpy()


def intervals(ladder: Mapping[str, Tensor], labels: np.ndarray, name: str, n: int) -> list[dict]:
    """A row for ``plots.ablation_figure`` for each method: its mAP in per cent, with interval.

    Parameters
    ----------
    ladder : {method: [pictures, C] scores}.
    labels : [pictures, C] of 0 and 1.
    name : of the data set.
    n : bootstrap resamples.
    """
    rows = []
    for method, scores in ladder.items():
        value = mean_average_precision(labels, scores).map
        ends = zip(("low", "high"), bootstrap_map(labels, scores, n=n), strict=True)
        row = {"name": method, "set": name, "value": 100 * value}
        rows.append(row | {end: 100 * x for end, x in ends})
    return rows


def class_gains(labels: np.ndarray, a: np.ndarray, b: np.ndarray, n: int = 300) -> np.ndarray:
    """[C, 3] gain of AP of scores `a` over `b` in points, and the ends of its paired interval.

    NaN for a class that is in no picture. Parameters as ``metrics.paired_bootstrap``.
    """
    out = np.full((labels.shape[1], 3), np.nan)
    for c in np.flatnonzero(labels.any(axis=0)):
        one = slice(c, c + 1)
        out[c] = paired_bootstrap(labels[:, one], a[:, one], b[:, one], n=n)
    return 100 * out


def gain_figure(gains: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Each class's gain with its interval, largest first.

    Parameters
    ----------
    gains : [C, 3] from :func:`class_gains`.
    class_names : C names.
    """
    order = [c for c in np.argsort(-gains[:, 0]) if np.isfinite(gains[c, 0])]
    figure, ax = subplots(size=(12, 0.32 * len(order) + 1.6))
    for y, c in enumerate(order):
        gain, low, high = gains[c]
        color = PALETTE[0] if low > 0 else PALETTE[1] if high < 0 else "0.6"
        ax.plot([low, high], [y, y], color=color, linewidth=4, alpha=0.5)
        ax.plot(gain, y, "o", color=color, markersize=10)
    ax.axvline(0, color="0.2", linestyle="--", linewidth=2, zorder=1)
    ax.set_yticks(range(len(order)), [class_names[c] for c in order], fontsize=14)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlabel("AP of PIAA - AP of [CLS] (points)")
    ax.grid(axis="x", color="0.9")
    up, down = (gains[:, 1] > 0).sum(), (gains[:, 2] < 0).sum()
    figure.alt_text = (
        f"Gain of PIAA over [CLS] for each class, with intervals: most for "
        f"{class_names[order[0]]} ({gains[order[0], 0]:+.1f} points), least for "
        f"{class_names[order[-1]]} ({gains[order[-1], 0]:+.1f}). {up} intervals lie above zero, "
        f"{down} below, the other {len(order) - up - down} hold it."
    )
    return figure


def wrong_ahead(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many absent classes stand before each class that is there: [n, C], NaN for the absent.

    Examples
    --------
    >>> wrong_ahead([[0.1, 0.4, 0.2, 0.3]], [[1, 0, 1, 0]])
    array([[ 2., nan,  2., nan]])
    """
    scores, there = np.asarray(scores, dtype=float), np.asarray(labels) == 1
    absent = np.where(there, -np.inf, scores)
    ahead = (absent[:, None, :] > scores[:, :, None]).sum(axis=2)
    return np.where(there, ahead, np.nan)


def pair_table(
    labels: np.ndarray,
    piaa: np.ndarray,
    cls: np.ndarray,
    shares: np.ndarray,
    truth: np.ndarray,
    peak: np.ndarray,
    lift: np.ndarray,
) -> pd.DataFrame:
    """One row for each picture and class in it: how it ranks, and what may be the reason.

    Parameters
    ----------
    labels : [n, C] of 0 and 1.
    piaa, cls : [n, C] scores of PIAA and of [CLS].
    shares : [n, C] from ``object_shares``; pictures without a mask are left out.
    truth : [n, N] what each patch shows.
    peak : [n, C] number of the patch with the highest score of each class.
    lift : [C, C] how much more often than by chance two classes are together.

    Returns
    -------
    Columns ``picture``, ``label``, ``rival`` (the absent class that PIAA scores highest),
    ``ahead`` and ``ahead_cls`` (absent classes that PIAA and [CLS] score higher), ``gain`` (the
    second less the first), ``share``, ``partner`` (the class in the picture with which the rival
    goes most) and the reasons, bool: ``tiny``, ``look_alike``, ``company``.
    """
    labels = np.asarray(labels)
    masked = np.isfinite(shares).all(axis=1) & ~(truth == VOID).all(axis=1)
    picture, label = np.nonzero((labels == 1) & masked[:, None])
    rival = np.where(labels == 1, -np.inf, piaa).argmax(axis=1)[picture]
    together = np.where(labels[picture] == 1, lift[:, rival].T, -np.inf)
    ahead, ahead_cls = (wrong_ahead(s, labels)[picture, label].astype(int) for s in (piaa, cls))
    share = shares[picture, label]
    return pd.DataFrame(
        {
            "picture": picture,
            "label": label,
            "rival": rival,
            "ahead": ahead,
            "ahead_cls": ahead_cls,
            "gain": ahead_cls - ahead,
            "share": share,
            "partner": together.argmax(axis=1),
            "tiny": share < TINY,
            "look_alike": truth[picture, peak[picture, rival]] == label,
            "company": together.max(axis=1) > COMPANY,
        }
    )


def at_like_size(pairs: pd.DataFrame, reason: str, weights: np.ndarray, groups: int = 5) -> float:
    """How much more often a reason holds for the missed than for the found of like size, points.

    Parameters
    ----------
    pairs : from :func:`pair_table`; missed are those with a wrong class ahead.
    reason : one of ``REASONS``.
    weights : of the pairs.
    groups : so many groups of like ``share``; one without missed or without found is left out.

    Examples
    --------
    >>> pairs = pd.DataFrame({"share": [0.1, 0.1], "ahead": [1, 0], "company": [True, False]})
    >>> at_like_size(pairs, "company", np.ones(2), groups=1)
    100.0
    """
    holds, missed = pairs[reason].to_numpy(), pairs.ahead.to_numpy() > 0
    cuts = np.quantile(pairs.share, np.linspace(0, 1, groups + 1)[1:-1])
    group = np.searchsorted(cuts, pairs.share, side="right")
    steps, sizes = [], []
    for of in (group == k for k in range(groups)):
        a, b = of & missed, of & ~missed
        if weights[a].sum() and weights[b].sum():
            steps.append(np.average(holds[a], weights=weights[a]))
            steps[-1] -= np.average(holds[b], weights=weights[b])
            sizes.append(weights[of].sum())
    return float(100 * np.average(steps, weights=sizes)) if sizes else float("nan")


def interval(
    pairs: pd.DataFrame, statistic: Callable[[np.ndarray], float], n: int = 500, seed: int = 0
) -> tuple[float, float, float]:
    """A statistic of pairs and its 95 % interval, whole pictures being drawn with replacement.

    Parameters
    ----------
    pairs : from :func:`pair_table`.
    statistic : takes the weights of the pairs, how often the picture of each was drawn.
    n : how many times all pictures are drawn.

    Examples
    --------
    >>> pairs = pd.DataFrame({"picture": [0, 0, 1], "gain": [2, 2, 2]})
    >>> interval(pairs, lambda w: float(np.average(pairs.gain, weights=w)), n=10)
    (2.0, 2.0, 2.0)
    """
    pictures, of = np.unique(pairs.picture, return_inverse=True)
    rng, chance = np.random.default_rng(seed), np.full(len(pictures), 1 / len(pictures))
    draws = [statistic(rng.multinomial(len(pictures), chance)[of]) for _ in range(n)]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return statistic(np.ones(len(pairs))), float(low), float(high)


def say_reason(pair: object, class_names: Sequence[str]) -> str:
    """In words, why a class fell behind: the reasons that hold, or that none does.

    Parameters
    ----------
    pair : a row of :func:`pair_table`.
    class_names : C names.
    """
    rival, partner = class_names[pair.rival], class_names[pair.partner]
    words = []
    if pair.tiny:
        words.append(f"tiny: {100 * pair.share:.1f} % of the picture")
    if pair.look_alike:
        words.append(f"look-alike: the best patch for {rival} lies on it")
    if pair.company:
        words.append(f"company: {rival} often goes with {partner}")
    return "; ".join(words) or f"none of the three; rival: {rival}"


def say_gain(pair: object, shares: np.ndarray, class_names: Sequence[str]) -> str:
    """In words, how large a class that moved up is beside the largest of its picture.

    Parameters
    ----------
    pair : a row of :func:`pair_table`.
    shares : [n, C] from :func:`piaa_utils.lessons.object_shares`.
    class_names : C names.
    """
    largest = int(shares[pair.picture].argmax())
    if largest == pair.label:
        return f"it is the largest: {100 * pair.share:.1f} % of the picture"
    return (
        f"{100 * pair.share:.1f} % of the picture; the largest, {class_names[largest]}, "
        f"{100 * shares[pair.picture, largest]:.1f} %"
    )


def gallery_figure(
    pairs: pd.DataFrame, words: Sequence[str], scenes: Scenes, title: str = ""
) -> Figure:
    """Pictures above, the heat maps of one class of each below, and words under them.

    Parameters
    ----------
    pairs : rows of :func:`pair_table`, one a column.
    words : what to write under each.
    scenes : pictures and heat maps.
    title : above the figure.
    """
    n, names = len(pairs), scenes.data.class_names
    figure, axes = subplots(2, n, size=(4.3 * n, 8.8), squeeze=False)
    said = []
    for (top, bottom), pair, text in zip(axes.T, pairs.itertuples(), words, strict=True):
        heading = f"{names[pair.label]}\nwrong ahead: {pair.ahead_cls} → {pair.ahead}"
        top.imshow(np.asarray(centre_square(scenes.data[pair.picture])), extent=(0, 1, 1, 0))
        top.set(xticks=[], yticks=[])
        top.spines[:].set_visible(False)
        top.set_title(heading, fontsize=17)
        mask = scenes.data.masks(pair.picture) == pair.label
        layer = scenes.maps[pair.picture, pair.label]
        heat_map(bottom, scenes.data.paths[pair.picture], layer, mask)
        bottom.set_xlabel("\n".join(textwrap.wrap(text, 34)), fontsize=15)
        said.append(f"{names[pair.label]}, wrong classes ahead {pair.ahead_cls} to {pair.ahead}")
        said[-1] += f" ({text})"
    figure.suptitle(title)
    figure.alt_text = (
        f"{title}. {n} pictures, below each the heat map of one class in it: {'. '.join(said)}."
    )
    return figure


def reason_figure(pairs: pd.DataFrame) -> Figure:
    """How often each reason holds, where a class was found and where it was missed.

    Parameters
    ----------
    pairs : from :func:`pair_table`.
    """
    found = np.where(pairs["ahead"] == 0, "found: no wrong class ahead", "missed")
    means = 100 * pairs[list(REASONS)].astype(float).groupby(found).mean()
    long = means.rename(columns=REASONS).stack().rename("share").reset_index()
    long.columns = ["case", "reason", "share"]
    figure, ax = subplots(size=(13, 6))
    colors = dict(zip(("found: no wrong class ahead", "missed"), PALETTE, strict=False))
    sns.barplot(long, x="reason", y="share", hue="case", palette=colors, hue_order=colors, ax=ax)
    for bars in ax.containers:
        ax.bar_label(bars, fmt="%.0f", fontsize=15)
    ax.set(xlabel="", ylabel="share of the pairs (%)")
    ax.tick_params(axis="x", labelsize=14)
    ax.legend(title="", frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.02))
    said = [f"{r.case}, {r.reason.splitlines()[0]}: {r.share:.0f} %" for r in long.itertuples()]
    figure.alt_text = f"Bars, how often each reason holds. {'; '.join(said)}."
    return figure


def new_classes(config: Config, n: int = 5) -> tuple[tuple[str, ...], np.ndarray]:
    """Names that the configuration's classes lack, and their labels on `test`, [pictures, n].

    In the mini world the `n` classes of the long list that most pictures of `test` show. For
    photographs some words, which nobody has labelled: their labels are all 0.
    """
    if config.world != "mini":
        names = ("tree", "house", "flower", "road", "cup", "window", "bag", "hat")[:n]
        return names, np.zeros((len(config.dataset("test")), n), dtype=np.int8)
    names = mini_long_classes()
    labels = mini_scenes("test", names).labels[: len(config.dataset("test"))]
    known = len(config.class_names)
    most = known + np.argsort(-labels[:, known:].sum(axis=0), kind="stable")[:n]
    return tuple(names[c] for c in most), labels[:, most]


def new_class_figure(ap: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """AP of new classes, one row a class, one mark a way of adding it.

    Parameters
    ----------
    ap : {way: [n] average precision from 0 to 1, NaN where nobody labelled the class}.
    class_names : n names.
    """
    figure, ax = subplots(size=(12, 0.7 * len(class_names) + 2.4))
    rows, middle = np.arange(len(class_names)), (len(ap) - 1) / 2
    for k, (way, values) in enumerate(ap.items()):  # one above the other, so that none is hidden
        height = rows + 0.15 * (k - middle)
        ax.plot(100 * values, height, "osD^"[k], color=PALETTE[k], markersize=13, label=way)
    ax.set_yticks(range(len(class_names)), class_names)
    ax.set_ylim(len(class_names) - 0.4, -0.6)
    ax.set_xlabel("AP on test (%)")
    ax.grid(color="0.9")
    ax.legend(frameon=False, ncols=len(ap), loc="lower center", bbox_to_anchor=(0.4, 1.0))
    said = [
        f"{name}: " + ", ".join(f"{way} {100 * values[i]:.1f}" for way, values in ap.items())
        for i, name in enumerate(class_names)
    ]
    figure.alt_text = f"Average precision of the new classes, in per cent. {'; '.join(said)}."
    return figure


def least_seconds(ways: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """The shortest time of each function, in seconds; they take turns, so noise hits all alike.

    Parameters
    ----------
    ways : {name: function without arguments}.
    rounds : how often each runs.
    """
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, function in ways.items():
            start = time.perf_counter()
            function()
            spent[name].append(time.perf_counter() - start)
    return {name: min(times) for name, times in spent.items()}


def operations(function: Callable[[], object]) -> int:
    """Multiplications and additions in the matrix products of a function, as PyTorch counts them.

    Unlike a time, the same on every machine. Fused kernels, which hide their products, are off
    while it counts.

    Examples
    --------
    >>> operations(lambda: torch.ones(2, 3) @ torch.ones(3, 4))  # 2 x 3 x 4, twice
    48
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as count:
            function()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return count.get_total_flops()


def explore(picture: int, class_name: str, scenes: Scenes) -> Figure:
    """The explorer: where a class is seen in a picture, beside the scores of all classes.

    Parameters
    ----------
    picture : its number in the split.
    class_name : whose heat map to draw.
    scenes : what to show it from.

    Raises
    ------
    ValueError
        No such picture or class.
    """
    names = list(scenes.data.class_names)
    if class_name not in names:
        raise ValueError(f"There is no class {class_name!r}: choose one of {', '.join(names)}.")
    if not 0 <= picture < len(scenes.maps):
        raise ValueError(f"There is no picture {picture}: choose from 0 to {len(scenes.maps) - 1}.")
    c, there = names.index(class_name), scenes.data.labels[picture] == 1
    mask = mask_or_none(scenes.data, picture)
    mask = None if mask is None else mask == c
    n = len(scenes.scores)
    figure, axes = subplots(1, 1 + n, size=(5.2 + 3.9 * n, 7.4), width_ratios=[1.35, *[1] * n])
    heading = f"{class_name} ({'there' if there[c] else 'absent'})"
    heat = scenes.maps[picture, c]
    layer = heat_map(axes[0], scenes.data.paths[picture], heat, mask, heading)
    bar = figure.colorbar(layer, ax=axes[0], shrink=0.8, location="bottom", pad=0.02)
    bar.set_ticks([heat.min(), heat.max()], labels=[f"{x:.5f}" for x in (heat.min(), heat.max())])
    bar.set_label("patch score g", labelpad=-12)
    said = []
    for ax, (method, scores) in zip(axes[1:], scenes.scores.items(), strict=True):
        order = np.argsort(-scores[picture], kind="stable")
        colors = [PALETTE[1] if there[k] else "0.75" for k in order]
        ax.barh(range(len(order)), scores[picture, order], color=colors)
        ax.set_yticks(range(len(order)), [names[k] for k in order], fontsize=13)
        for tick, k in zip(ax.get_yticklabels(), order, strict=True):
            tick.set_fontweight("bold" if k == c else "normal")
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.set(title=method, xlabel="score (sum 1)")
        ax.locator_params(axis="x", nbins=3)
        rank = int(np.flatnonzero(order == c)[0]) + 1
        said.append(f"{method} ranks it {rank} of {len(order)}, first {names[order[0]]}")
    seen = ", ".join(names[k] for k in np.flatnonzero(there)) or "no listed class"
    figure.alt_text = (
        f"Picture {picture} (it shows {seen}): the heat map of {class_name}, beside it the scores "
        f"of all classes, those in the picture orange. {'; '.join(said)}."
    )
    return figure


# Exercises


def exercise_1(answer: object, gains: np.ndarray, class_names: Sequence[str]) -> None:
    """Check the name of the class with the largest gain.

    Raises
    ------
    CheckFailed
        Another class, with its gain, a position, or no class.
    """
    names, gain = list(class_names), np.asarray(gains)[:, 0]
    if isinstance(answer, int | np.integer) and not isinstance(answer, bool):
        raise CheckFailed("Exercise 1: this is the position; `names[...]` gives the name.")
    if answer not in names:
        raise CheckFailed(f"Exercise 1: the name of a class is wanted, not {answer!r}.")
    best = int(np.nanargmax(gain))
    if answer != names[best]:
        raise CheckFailed(
            f"Exercise 1: {answer} gains {gain[names.index(answer)]:+.1f} points, and another "
            f"class gains more."
        )
    print(f"✓ Exercise 1 is right: {answer} gains {gain[best]:+.1f} points.")


def exercise_2(answer: object) -> None:
    """Check the choice: a rival that goes with the picture, its best patch on the road."""
    wrong = {
        "a": "Tiny is a matter of the object's own size, and this bus fills a fifth of it all.",
        "b": "In a look-alike the rival's best patch lies on the object; here it is on the road.",
        "d": "[CLS] has a tenth of the score, and it may know the bus well: nothing here says "
        "what it does.",
    }
    why = "What stands around a thing can raise the score of what usually stands there too."
    check_choice(answer, "c", wrong, "Exercise 2", why)


def exercise_3(answer: object, pairs: pd.DataFrame) -> None:
    """Check the net number of pairs that PIAA ranks before all absent classes and [CLS] does not.

    Raises
    ------
    CheckFailed
        Too large, too small, or no number.
    """
    now, before = pairs["ahead"] == 0, pairs["ahead_cls"] == 0
    won, lost = int((now & ~before).sum()), int((before & ~now).sum())
    hint = (
        "A pair is won where `ahead` is 0 and `ahead_cls` is not, and lost the other way round; "
        "the answer is the won less the lost, below zero if more are lost."
    )
    check_number(answer, won - lost, "Exercise 3", 0.5, hint)
    print(f"Won {won}, lost {lost}, of {len(pairs)} pairs.")


def exercise_4(answer: Callable) -> None:
    """Check a function that adds a class to a linear classifier by its text vector.

    ``answer(W, b, omega, t)`` returns W [D, C + 1] and b [C + 1]; b counts up to a constant.

    Raises
    ------
    CheckFailed
        With the smallest input that differs.
    """

    def levelled(function: Callable) -> Callable:
        def run(W, b, omega, t):
            result = function(W, b, omega, t)
            if not isinstance(result, tuple) or len(result) != 2:
                return result
            level = torch.as_tensor(result[1]).double()
            return result[0], level - level[0] if level.ndim == 1 and len(level) else level

        return run

    def add(W, b, omega, t):
        column = omega @ t
        new = torch.tensor(1 / W.shape[1]).log() - 0.5 * t @ column
        return torch.cat([W, column[:, None]], 1), torch.cat([b, new[None]])

    check = answer if not callable(answer) else levelled(answer)
    check_function(check, levelled(add), [_classifier(1, 2), _classifier(2, 3)], "Exercise 4")


def exercise_5(answer: Callable) -> None:
    """Check the ten-line PIAA: ``answer(learn, patches, cls, text, s, m)`` returns scores [B, C].

    Raises
    ------
    CheckFailed
        With the first score that differs.
    """

    def whole(learn, patches, cls, text, s, m):
        bank = PatchBank(len(text), per_image=1)
        bank.update(learn, text, range(len(learn)))
        W, b, _ = learn_classifier(bank, text, "spread")
        return paa(patches @ W + b, cls, text, s, m)

    cases = [(*_pictures(seed), *scales) for seed, scales in ((0, (5.0, 50.0)), (1, (80.0, 200.0)))]
    check_function(answer, whole, cases, "Exercise 5")


def _classifier(width: int, n_classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W, b and the precision of a small GDA, and the unit text vector of a class to add."""
    generator = torch.Generator().manual_seed(width)
    means = torch.randn(n_classes, width, generator=generator)
    y = torch.arange(n_classes).repeat(6)
    X = means[y] + 0.3 * torch.randn(len(y), width, generator=generator)
    gda = GaussianDiscriminantAnalysis().fit(X.numpy(), y.numpy())
    t = torch.nn.functional.normalize(torch.ones(width), dim=0)
    arrays = gda.coef_.T, gda.intercept_, gda.precision_
    return *(torch.tensor(a, dtype=torch.float32) for a in arrays), t


def _pictures(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Patches to learn from, patches and [CLS] to score, and text, of a world of 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.eye(3, 6)

    def near(labels: Tensor) -> Tensor:
        x = text[labels] + 0.3 * torch.randn(*labels.shape, 6, generator=generator)
        return torch.nn.functional.normalize(x, dim=-1)

    kinds = torch.arange(9) % 3  # every picture to learn from shows all classes
    return near(kinds.repeat(5, 1)), near(kinds.repeat(2, 1)), near(torch.tensor([0, 2])), text
