"""Notebook 01, the modality gap: what it draws, its explorer, and the checks of its exercises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import open_clip
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from torch import Tensor

from piaa_utils.backbone import Backbone
from piaa_utils.datasets import mini_long_classes
from piaa_utils.lessons.checks import check_choice, check_function, check_number
from piaa_utils.lessons.config import Config
from piaa_utils.lessons.features import DEFAULT, Features
from piaa_utils.metrics import mean_average_precision
from piaa_utils.plots import PALETTE, STYLE, Figure, heat_map, subplots

TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "a drawing of a {}",
    "a {} in the background",
    "a large {}",
    "a small {}",
)
KINDS = ("[CLS]", "patches")
SHIFTS = (-4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
PICTURES, TEXTS = PALETTE[0], PALETTE[1]  # one colour for each kind of embedding, everywhere


# What the sections compute


def text_list(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and templates that make many texts: the mini world's long list, or VOC's in templates.

    Examples
    --------
    >>> names, templates = text_list(Config(device="cpu"))
    >>> len(names), templates
    (71, ('a photo of a {}',))
    """
    if config.world == "mini":
        return tuple(mini_long_classes()), TEMPLATES[:1]
    return config.class_names, TEMPLATES


def spread_out(n: int, wanted: int) -> np.ndarray:
    """`wanted` of the numbers 0 to n-1, evenly spaced; all of them where there are no more.

    Examples
    --------
    >>> spread_out(9, 3).tolist()
    [0, 4, 8]
    """
    return np.linspace(0, n - 1, min(n, wanted)).round().astype(int)


def fresh_clip(backbone: Backbone, seed: int) -> Backbone:
    """A CLIP of the same shape that has learned nothing: open_clip's initial weights.

    Parameters
    ----------
    backbone : whose shape, vocabulary and preprocessing are taken over.
    seed : of the initial weights; the global random state stays as it is.
    """
    old = backbone.model
    attention = backbone.blocks[0].attn
    text_blocks = old.transformer.resblocks
    image_tower = {
        "image_size": backbone.image_size,
        "patch_size": backbone.image_size // backbone.grid,
        "layers": backbone.depth,
        "width": backbone.width,
        "head_width": backbone.width // attention.num_heads,
    }
    text_tower = {
        "context_length": old.context_length,
        "vocab_size": old.vocab_size,
        "width": old.token_embedding.weight.shape[1],
        "heads": text_blocks[0].attn.num_heads,
        "layers": len(text_blocks),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            backbone.dim, image_tower, text_tower, quick_gelu=backbone.quick_gelu
        )
    fresh = Backbone(model, f"fresh, seed {seed}", backbone.tokenizer, backbone.device)
    fresh.preprocess = backbone.preprocess
    return fresh


def contrastive_loss(x: Tensor, t: Tensor, scale: Tensor | float) -> Tensor:
    """CLIP's loss of n pairs (x_i, t_i) of unit vectors: [..., n, D] each to [...].

    The cross entropy of finding each text among all texts and each picture among all pictures,
    from cosines times `scale`, which is one over the temperature.

    Examples
    --------
    >>> contrastive_loss(torch.eye(2), torch.eye(2), 1.0).round(decimals=4)
    tensor(0.3133)
    """
    logits = scale * (x @ t.mT)
    pairs = logits.diagonal(dim1=-2, dim2=-1)
    return (logits.logsumexp(-1) + logits.logsumexp(-2) - 2 * pairs).mean(-1) / 2


def train_free_pairs(
    scales: Sequence[float],
    two_cones: bool = True,
    seeds: int = 2,
    pairs: int = 48,
    dim: int = 32,
    steps: int = 240,
    rate: float = 0.02,
) -> pd.DataFrame:
    """The toy: move free unit vectors down the contrastive loss, once for each scale and seed.

    There are no towers: each picture and each text is a vector that may go anywhere on the sphere.

    Parameters
    ----------
    scales : fixed scales, 1 / temperature.
    two_cones : start in two cones about two random directions, or all over the sphere.
    seeds : runs for each scale; run k starts from the same vectors at every scale.
    pairs, dim : number of pairs, and of dimensions.
    steps, rate : of Adam.

    Returns
    -------
    Columns scale, seed, step, gap (the distance of the two means), loss and found (share of the
    pictures whose own text is the closest of all).
    """
    random = torch.Generator().manual_seed(0)
    start = 0.3 * torch.randn(2, seeds, pairs, dim, generator=random)
    if two_cones:
        start += F.normalize(torch.randn(2, seeds, 1, dim, generator=random), dim=-1)
    start = F.normalize(start, dim=-1)
    both = start[:, None].repeat(1, len(scales), 1, 1, 1).requires_grad_()
    scale = torch.tensor(scales, dtype=torch.float32)[:, None, None, None]
    optimizer = torch.optim.Adam([both], rate)
    kept, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)  # these tensors are small: more threads only wait for each other
    try:
        for step in range(steps + 1):
            x, t = F.normalize(both, dim=-1)
            loss = contrastive_loss(x, t, scale)
            if step % 20 == 0 or step == steps:
                found = (x @ t.mT).argmax(-1) == torch.arange(pairs)
                gap = (x.mean(-2) - t.mean(-2)).norm(dim=-1)
                kept[step] = (gap.detach(), loss.detach(), found.float().mean(-1))
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
    finally:  # also where the cell is interrupted
        torch.set_num_threads(threads)
    rows = [
        (float(s), k, step, *(float(value[i, k]) for value in values))
        for step, values in kept.items()
        for i, s in enumerate(scales)
        for k in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["scale", "seed", "step", "gap", "loss", "found"])


@dataclass(frozen=True)
class Moves:
    """What moving the texts along the gap does, at each shift: made by :func:`move_text`.

    curves : {kind: {score: [S]}}, mAP or share of the patches read right, in per cent.
    points : {kind: [n, 2]} some embeddings: along the gap, and across it.
    texts : {kind: [S, C, 2]} the moved class texts in the same plane.
    """

    shifts: np.ndarray
    curves: dict[str, dict[str, np.ndarray]]
    points: dict[str, np.ndarray]
    texts: dict[str, np.ndarray]


def move_text(
    x: Features,
    text: Tensor,
    texts: Tensor,
    scale: float,
    shifts: Sequence[float] = SHIFTS,
    encoder: str = DEFAULT,
) -> Moves:
    """Move class texts t_c along the gap, t_c + shift * (mean of x - mean text), and measure.

    Parameters
    ----------
    x : features of a split; its labels and its masks' truth are for measuring only.
    text : [C, D] unit text features of the classes.
    texts : [m, D] unit features of the texts whose mean is the near end of the gap.
    scale : s of s_cls = softmax_c(s cos(CLS, t)).
    shifts : how far; 0 is where the text is, 1 moves it by the whole gap.
    encoder : of the patches.
    """
    patches = x.patches[encoder]
    on_object = torch.as_tensor(x.truth) >= 0
    objects, truth = patches[on_object], torch.as_tensor(x.truth)[on_object]
    flat = patches.flatten(0, -2)
    clouds = {KINDS[0]: x.cls, KINDS[1]: flat}
    gaps = {kind: cloud.mean(0) - texts.mean(0) for kind, cloud in clouds.items()}
    curves: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}

    def note(kind: str, score: str, value: float) -> None:
        curves[kind].setdefault(score, []).append(100 * value)

    def rank(scores: Tensor) -> float:
        return mean_average_precision(x.labels, scores.numpy()).map

    def read(prototypes: Tensor) -> float:
        return float(((objects @ prototypes.T).argmax(-1) == truth).float().mean())

    for shift in shifts:
        plain = text + shift * gaps["[CLS]"]
        unit = F.normalize(plain, dim=-1)
        note("[CLS]", "cosine", rank(x.cls @ unit.T))
        note("[CLS]", "softmax", rank(torch.softmax(scale * x.cls @ unit.T, -1)))
        note("[CLS]", "softmax, not renormalised", rank(torch.softmax(scale * x.cls @ plain.T, -1)))
        plain = text + shift * gaps["patches"]
        note("patches", "argmax", read(F.normalize(plain, dim=-1)))
        note("patches", "argmax, not renormalised", read(plain))

    points, moved = {}, {}
    for kind, cloud in clouds.items():
        some = cloud[torch.from_numpy(spread_out(len(cloud), 300))]
        plane = gap_plane(some, gaps[kind])
        points[kind] = (some @ plane).numpy()
        steps = torch.tensor(shifts)[:, None, None] * gaps[kind]
        moved[kind] = (F.normalize(text + steps, dim=-1) @ plane).numpy()
    arrays = {k: {s: np.array(v) for s, v in c.items()} for k, c in curves.items()}
    return Moves(np.array(shifts), arrays, points, moved)


def gap_plane(x: Tensor, gap: Tensor) -> Tensor:
    """[D, 2]: the unit vector along the gap, and the direction across it where x spreads most."""
    along = F.normalize(gap, dim=0)
    centred = x - x.mean(0)
    across = torch.linalg.svd(centred - (centred @ along)[:, None] * along, full_matrices=False)[2]
    return torch.stack([along, across[0]], dim=1)


def world_pairs(config: Config) -> list[tuple[str, str]]:
    """(split to learn class means on, split to measure on): one pair, three in the mini world."""
    pairs = [("learn", "test")]
    if config.world == "mini":
        pairs += [("learn", "test_unseen"), ("learn_unseen", "test_unseen")]
    return pairs


def object_patches(x: Features, encoder: str = DEFAULT) -> tuple[np.ndarray, np.ndarray]:
    """The patches that lie on an object of a known class, [n, D] float64, and their class [n]."""
    on_object = x.truth >= 0
    rows = x.patches[encoder][torch.from_numpy(on_object)]
    return rows.double().numpy(), x.truth[on_object]


def nearest(x: np.ndarray, prototypes: np.ndarray, precision: np.ndarray | None = None):
    """The closest prototype of each row, by (x - m)^T precision (x - m); None is the identity.

    Examples
    --------
    >>> nearest(np.array([[0.9, 0.0], [0.1, 0.8]]), np.eye(2)).tolist()
    [0, 1]
    """
    weights = prototypes.T if precision is None else precision @ prototypes.T
    return (x @ weights - 0.5 * (prototypes * weights.T).sum(1)).argmax(1)


# Figures


@mpl.rc_context(STYLE)
def cosine_figure(x: Tensor, w: Tensor, shows: Tensor, text: Tensor) -> Figure:
    """How alike two pictures, two texts, and a picture and a text are.

    Parameters
    ----------
    x, w : [n, D] and [m, D] unit features of pictures and of texts.
    shows : [n, C] whether a picture shows a class; text: [C, D] the classes' texts.
    """
    rows, columns = torch.triu_indices(len(x), len(x), 1)
    words = torch.triu_indices(len(w), len(w), 1)
    cosine = x @ text.T
    kinds = {
        "two pictures": ((x @ x.T)[rows, columns], PICTURES, "-"),
        "two texts": ((w @ w.T)[words[0], words[1]], TEXTS, "-"),
        "a picture and a text\nit does not show": (cosine[~shows], "0.35", "--"),
        "a picture and a text\nit shows": (cosine[shows], PALETTE[2], "-."),
    }
    figure, ax = subplots(size=(12, 5.5))
    for name, (values, color, line) in kinds.items():
        values = values[spread_out(len(values), 5000)].numpy()
        sns.kdeplot(x=values, ax=ax, color=color, linestyle=line, linewidth=3.5, label=name)
    ax.set(xlabel="cosine", ylabel="density", title="Four kinds of pairs")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    means = [f"{' '.join(name.split())} {v.mean():.2f}" for name, (v, _, _) in kinds.items()]
    figure.alt_text = f"Densities of cosines. Means: {', '.join(means)}."
    return figure


@mpl.rc_context(STYLE)
def clouds_figure(pca: np.ndarray, is_text: np.ndarray, gap: np.ndarray, shares) -> Figure:
    """Pictures and texts in the plane of PCA, and in the plane of the gap.

    Parameters
    ----------
    pca, gap : [n, 2] coordinates of the same embeddings in the two planes.
    is_text : [n] which of them are texts.
    shares : of the variance, two numbers, of the two principal components.
    """
    figure, axes = subplots(1, 2, size=(12.5, 6))
    for ax, points in zip(axes, (pca, gap), strict=True):
        for who, color, mark, name in (
            (~is_text, PICTURES, "o", "pictures"),
            (is_text, TEXTS, "X", "texts"),
        ):
            ax.scatter(*points[who].T, color=color, marker=mark, s=70, alpha=0.65, label=name)
        start, end = points[is_text].mean(0), points[~is_text].mean(0)
        arrow = {"arrowstyle": "-|>", "linewidth": 4, "color": "black", "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", end, start, arrowprops=arrow)
    percent = [f"{100 * share:.0f} % of the variance" for share in shares]
    axes[0].set(title="PCA", xlabel=f"component 1 ({percent[0]})")
    axes[0].set_ylabel(f"component 2 ({percent[1]})")
    axes[1].set(title="The gap's own plane", xlabel="along the gap", ylabel="across it")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=2)
    overlap = [_overlap(points[~is_text, 0], points[is_text, 0]) for points in (pca, gap)]
    figure.alt_text = (
        "Two scatter plots of pictures and texts; an arrow leads from the mean text to the mean "
        f"picture. Along the first principal component {overlap[0]:.0%} of the points lie on the "
        f"other kind's side of the middle; along the gap {overlap[1]:.0%}."
    )
    return figure


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The share of points on the wrong side of the middle between the means, both kinds alike."""
    middle = (a.mean() + b.mean()) / 2
    wrong = (
        np.mean((a > middle) != (a.mean() > middle)),
        np.mean((b > middle) != (b.mean() > middle)),
    )
    return float(np.mean(wrong))


@mpl.rc_context(STYLE)
def line_figure(decision: np.ndarray, is_text: np.ndarray) -> Figure:
    """Histogram of held-out decision values of a linear classifier of pictures against texts."""
    figure, ax = subplots(size=(11, 5))
    bins = np.linspace(decision.min(), decision.max(), 41)
    for who, color, name in ((~is_text, PICTURES, "pictures"), (is_text, TEXTS, "texts")):
        weights = np.full(who.sum(), 100 / who.sum())
        ax.hist(
            decision[who], bins, weights=weights, color=color, alpha=0.65, label=name, ec="white"
        )
    ax.axvline(0, color="black", linestyle="--", linewidth=2.5)
    ax.set(xlabel="$x \\cdot a + d$, held out", ylabel="share of the kind (%)")
    ax.set_title("One plane between pictures and texts")
    ax.legend(frameon=False)
    wrong = np.mean([np.mean(decision[~is_text] > 0), np.mean(decision[is_text] < 0)])
    figure.alt_text = (
        f"Two histograms, pictures left of the dashed line at zero and texts right of it; "
        f"{wrong:.1%} lie on the wrong side."
    )
    return figure


@mpl.rc_context(STYLE)
def cones_figure(table: pd.DataFrame) -> Figure:
    """Mean cosines of two pictures, two texts, and a picture and a text, before and after training.

    `table` has the columns model, pairs and cosine; several rows of a model draw a range.
    """
    figure, ax = subplots(size=(12, 5.5))
    sns.barplot(
        table, x="pairs", y="cosine", hue="model", errorbar=("pi", 100), ax=ax,
        palette=["0.75", PALETTE[2]], err_kws={"color": "black"},
    )  # fmt: skip
    ax.axhline(0, color="black", linewidth=1.5)
    ax.set(xlabel="", ylabel="mean cosine", title="Two narrow cones before any training")
    ax.legend(frameon=False, title="")
    means = table.groupby(["model", "pairs"], sort=False).cosine.mean()
    words = ", ".join(f"{model}, {pairs} {value:.2f}" for (model, pairs), value in means.items())
    figure.alt_text = f"Bars of the mean cosine: {words}."
    return figure


@mpl.rc_context(STYLE)
def toy_figure(from_cones: pd.DataFrame, from_everywhere: pd.DataFrame) -> Figure:
    """The gap of the toy while it trains, one line for each scale, and what is left at the end.

    Dotted lines on the right: the gap at the start, which is the same at every scale.
    """
    figure, axes = subplots(1, 2, size=(12.5, 5.6), width_ratios=(3, 2))
    scales = sorted(from_cones.scale.unique())
    colors = sns.color_palette("viridis_r", len(scales) + 1)[1:]
    for scale, color, mark in zip(scales, colors, "osD^vPX*", strict=False):
        mean = from_cones[from_cones.scale == scale].groupby("step").gap.mean()
        axes[0].plot(
            mean.index, mean, color=color, marker=mark, markevery=3, markersize=9,
            label=f"{scale:g}", linewidth=3,
        )  # fmt: skip
    axes[0].set(xlabel="training step", ylabel="gap", title="Starting in two cones")
    axes[0].legend(frameon=False, title="scale", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[0].set_ylim(bottom=-0.02)
    words = []
    for table, name, color, mark in (
        (from_cones, "two cones", PALETTE[3], "o"),
        (from_everywhere, "no cones", PALETTE[0], "s"),
    ):
        last = table[table.step == table.step.max()].groupby("scale").gap.mean()
        first = float(table[table.step == 0].gap.mean())
        axes[1].plot(last.index, last, color=color, marker=mark, markersize=11, label=name)
        axes[1].axhline(first, color=color, linestyle=":", linewidth=3)
        axes[1].text(last.index[0], first + 0.01, "at the start", color=color, va="bottom")
        ends = ", ".join(f"{s:g} {g:.2f}" for s, g in last.items())
        words.append(f"{name}: {ends}, {first:.2f} at the start")
    axes[1].set(xscale="log", xlabel="scale (1 / temperature)", ylabel="gap")
    axes[1].set_title("At the end")
    axes[1].legend(frameon=False, title="start", loc="upper left", bbox_to_anchor=(0.0, 0.9))
    axes[1].sharey(axes[0])
    axes[0].set_ylim(top=1.1 * axes[0].get_ylim()[1])
    figure.alt_text = f"The toy's gap. Left, over the steps. Right, at the end. {'; '.join(words)}."
    return figure


@mpl.rc_context(STYLE)
def moves_figure(moves: Moves) -> Figure:
    """Both kinds' curves over the shift, side by side: the explorer's static figure."""
    figure, axes = subplots(1, 2, size=(12.5, 6))
    words = []
    for ax, kind in zip(axes, KINDS, strict=True):
        words.append(_draw_curves(ax, moves, kind))
        ax.set_title(kind)
    figure.alt_text = f"Measures against the shift. {' '.join(words)}"
    return figure


@mpl.rc_context(STYLE)
def explore_moves(kind: str, shift: float, moves: Moves) -> Figure:
    """The explorer: texts moved along the gap, and what that does. Bind `moves` with partial.

    Raises
    ------
    ValueError
        A kind or a shift that `moves` does not hold.
    """
    if kind not in moves.curves:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}.")
    at = np.flatnonzero(np.isclose(moves.shifts, shift))
    if len(at) == 0:
        known = ", ".join(f"{s:g}" for s in moves.shifts)
        raise ValueError(f"The shifts that were computed are {known}; {shift!r} is none of them.")
    index = int(at[0])
    figure, axes = subplots(1, 2, size=(12.5, 6))
    name = "pictures" if kind == KINDS[0] else "patches"
    start = moves.texts[kind][int(np.abs(moves.shifts).argmin())]
    for points, color, mark, label in (
        (moves.points[kind], PICTURES, "o", name),
        (start, "0.6", "X", "texts, not moved"),
        (moves.texts[kind][index], TEXTS, "X", "texts, moved"),
    ):
        axes[0].scatter(*points.T, color=color, marker=mark, s=80, alpha=0.6, label=label)
    axes[0].set(xlabel="along the gap", ylabel="across it", title="Where the texts are")
    axes[0].set(xlim=(-0.65, 1.05), ylim=(-0.85, 0.8), xticks=(-0.5, 0.0, 0.5, 1.0))
    axes[0].legend(frameon=False, fontsize="small", loc="lower left")
    words = _draw_curves(axes[1], moves, kind, index)
    axes[1].set_title(f"What it does: {kind}")
    figure.alt_text = (
        f"Left, {name} and class texts, moved by {shift:g} of the gap. Right, measures against "
        f"the shift. {words}"
    )
    return figure


def _draw_curves(ax, moves: Moves, kind: str, index: int | None = None) -> str:
    """Draw the curves of a kind, mark one shift, and say in words what is to be seen."""
    words = []
    zero = int(np.abs(moves.shifts).argmin())
    looks = iter(((PALETTE[3], "o"), (PALETTE[4], "s")))
    for score, values in moves.curves[kind].items():
        if score.endswith("not renormalised"):
            ax.plot(moves.shifts, values, "--", color="0.35", label=score, linewidth=3)
        else:
            color, mark = next(looks)
            ax.plot(moves.shifts, values, marker=mark, color=color, label=score, linewidth=3)
            if index is not None:
                at = moves.shifts[index], values[index]
                ax.plot(*at, marker=mark, color=color, markersize=16, markeredgecolor="black")
        here = f", here {values[index]:.1f}" if index is not None else ""
        words.append(f"{score}: {values[zero]:.1f} unmoved{here}, best {values.max():.1f}")
    if index is not None:
        ax.axvline(moves.shifts[index], color="0.7", zorder=0)
    ax.set_xlabel("shift $\\lambda$ (in gaps)")
    ax.set_ylabel("mAP (%)" if kind == KINDS[0] else "patches read right (%)")
    low = min(values.min() for values in moves.curves[kind].values())
    high = max(values.max() for values in moves.curves[kind].values())
    room = max(high - low, 12.0)  # so that small changes look small
    pad = (room - (high - low)) / 2
    ax.set_ylim(low - pad - 0.5 * room, high + pad + 0.05 * room)  # room for the legend
    ax.legend(framealpha=1, edgecolor="white", fontsize="small", loc="lower center")
    return f"{kind} (%): {'; '.join(words)}."


@mpl.rc_context(STYLE)
def readers_figure(table: pd.DataFrame) -> Figure:
    """Share of patches read right: bars of each reader (columns sets, reader, right) by sets."""
    figure, ax = subplots(size=(12, 6))
    colors = [TEXTS, PALETTE[0], PALETTE[2]]
    sns.barplot(
        table,
        x="sets",
        y="right",
        hue="reader",
        palette=colors[: table.reader.nunique()],
        ax=ax,
        width=0.75,
        errorbar=None,
    )
    for bars in ax.containers:
        ax.bar_label(bars, fmt="%.1f", padding=2)
    ax.set(xlabel="", ylabel="patches read right (%)", title="Who reads patches, and how well")
    ax.set_ylim(0, 1.15 * table.right.max())
    ax.get_legend().remove()
    readers, place = list(table.reader.unique()), "outside lower center"
    figure.legend(ax.containers, readers, frameon=False, loc=place, ncols=len(readers))
    words = "; ".join(
        f"{' '.join(sets.split())}: "
        + ", ".join(f"{r.reader} {r.right:.1f}" for r in rows.itertuples())
        for sets, rows in table.groupby("sets", sort=False)
    )
    figure.alt_text = f"Per cent of the patches on objects that are read right. {words}."
    return figure


@mpl.rc_context(STYLE)
def recipe_figure(table: pd.DataFrame, title: str) -> Figure:
    """A grid of shares read right: prototypes (rows) by the distance they are used with."""
    figure, ax = subplots(size=(11, 5.2))
    sns.heatmap(
        table, annot=True, fmt=".1f", cmap="Blues", vmin=0, vmax=1.4 * table.to_numpy().max(),
        ax=ax, cbar=False, linewidths=3, annot_kws={"size": 24, "color": "black"},
    )  # fmt: skip
    ax.set(title=title, xlabel="", ylabel="")
    ax.tick_params(length=0)
    ax.set_yticklabels(ax.get_yticklabels(), rotation=0)
    words = "; ".join(
        f"{row} with {' '.join(column.split())} {table.loc[row, column]:.1f}"
        for row in table.index
        for column in table.columns
    )
    figure.alt_text = f"Per cent of the patches read right: {words}."
    return figure


@mpl.rc_context(STYLE)
def maps_figure(
    image: object,
    names: Sequence[str],
    maps: Mapping[str, object],
    masks: Sequence[np.ndarray],
) -> Figure:
    """One row for each class: heat maps of its probability over the image, by each reader.

    Parameters
    ----------
    image : a path or PIL image.
    names : of k classes.
    maps : {reader: [k, g, g]} probabilities, arrays or tensors.
    masks : k bool arrays [H, W], whose outlines are drawn.
    """
    maps = {reader: np.asarray(grids, dtype=float) for reader, grids in maps.items()}
    size = (4.2 * len(maps) + 1.8, 4.6 * len(names))
    figure, axes = subplots(len(names), len(maps), size=size, squeeze=False)
    words = []
    for k, (name, mask) in enumerate(zip(names, masks, strict=True)):
        for ax, (reader, grids) in zip(axes[k], maps.items(), strict=True):
            layer = heat_map(ax, image, grids[k], mask, f"{name}, by {reader}", limits=(0.0, 1.0))
            share = _patch_share(mask, grids.shape[-1])
            mean = float((grids[k] * share).sum() / max(share.sum(), 1e-9))
            words.append(f"{name}, by {reader}: {mean:.2f}")
    figure.colorbar(layer, ax=list(axes.ravel()), label="probability of the class", shrink=0.8)
    figure.alt_text = (
        "Heat maps over one picture with the objects' outlines. Mean probability of the class "
        f"inside its outline: {'; '.join(words)}."
    )
    return figure


def _patch_share(mask: np.ndarray, side: int) -> np.ndarray:
    """[side, side]: how much of each cell of a grid over the middle square the mask covers."""
    size = min(mask.shape)
    top, left = (mask.shape[0] - size) // 2, (mask.shape[1] - size) // 2
    square = torch.from_numpy(mask[top : top + size, left : left + size].astype(np.float32))
    return F.adaptive_avg_pool2d(square[None, None], side)[0, 0].numpy()


# Exercises


def exercise_1(answer: object) -> None:
    """Check ``gap_length(a, b)``, the distance of the means of two sets of vectors."""

    def right(a, b):
        return (a.mean(0) - b.mean(0)).norm()

    random = torch.Generator().manual_seed(1)
    unit = F.normalize(torch.randn(9, 4, generator=random), dim=-1)
    cases = [
        (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])),
        (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]])),
        (unit[:6], unit[6:]),
    ]
    check_function(answer, right, cases, "Exercise 1")


def exercise_2(answer: object) -> None:
    """Check the choice: why a high scale leaves the gap open."""
    wrong = {
        "a": "All start from the same vectors, at every scale, with the same gap.",
        "c": "The runs without cones end with a loss as small, and without a gap beyond chance: a "
        "gap is not needed for it.",
        "d": "In the first steps the gap falls at every scale. It stops later, when the loss is "
        "used up.",
    }
    why = "Once the pairs are found, a sharp softmax leaves hardly any loss to pull with."
    check_choice(answer, "b", wrong, "Exercise 2", why)


def exercise_3(answer: object) -> None:
    """Check ``move(text, gap, shift)``, texts moved along the gap and brought to unit length."""

    def right(text, gap, shift):
        return F.normalize(text + shift * gap, dim=-1)

    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    random = torch.Generator().manual_seed(3)
    many = F.normalize(torch.randn(5, 3, generator=random), dim=-1)
    cases = [
        (text, torch.tensor([1.0, 0.0]), 1.0),
        (text, torch.tensor([0.3, 0.4]), -2.0),
        (many, torch.tensor([0.1, -0.2, 0.3]), 0.5),
    ]
    check_function(answer, right, cases, "Exercise 3")


def exercise_4(answer: object) -> None:
    """Check the choice: what moving all texts by one vector cannot change."""
    wrong = {
        "a": "The cosine of picture i gets shift * x_i.gap more, and that differs from picture to "
        "picture: the order of the pictures changes.",
        "b": "Dividing by the lengths is just what lets the classes move against each other.",
        "d": "c cannot change: look at what the softmax over classes does with a number that is "
        "added to all classes alike.",
    }
    why = "The same number is added to all classes of a patch, so their order stays."
    check_choice(answer, "c", wrong, "Exercise 4", why)


def exercise_5(
    answer: object, truth: np.ndarray, by_text: np.ndarray, by_oracle: np.ndarray
) -> None:
    """Check the largest head-room of a class, in points of its patches read right.

    Parameters
    ----------
    truth, by_text, by_oracle : [n] the class of each patch, and what two readers say.
    """
    gains = [
        100 * float(np.mean(by_oracle[truth == c] == c) - np.mean(by_text[truth == c] == c))
        for c in np.unique(truth)
    ]
    hint = (
        "Take the patches of one class at a time, the share of them that each reader gets right, "
        "the oracle's minus the text's, times 100; then the largest over the classes."
    )
    check_number(answer, max(gains), "Exercise 5", tolerance=0.06, hint=hint)
