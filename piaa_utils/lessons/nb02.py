"""Notebook 02, Patch entanglement: measures, the release's couplings, figures, exercise checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from PIL import Image
from torch import Tensor

from piaa_utils.backbone import Backbone
from piaa_utils.encoders import (
    BETA,
    CLS_SHARE,
    SCCLIP_MID,
    SCCLIP_MULTI,
    SCCLIP_POST,
    Trunk,
    attend,
    concat_heads,
    cosine_similarity,
    fill,
    heads,
    last,
    lof_outliers,
    project,
    similarity_attention,
    tap,
    thresholded_affinity,
)
from piaa_utils.lessons.checks import check_array, check_choice, check_function, check_number
from piaa_utils.lessons.config import Config
from piaa_utils.lessons.features import Features, mask_or_none
from piaa_utils.plots import PALETTE, Figure, heat_map, subplots

COUPLINGS = ("outliers", "mean", "tiling")
OTHER = "#d9d9d9"  # the colour of classes that are not in the picture
HALO = [patheffects.withStroke(linewidth=5, foreground="white")]  # numbers that lines run behind
LEAST_TURN = 1e-7  # degrees; less is drawn here, as a logarithmic scale has no 0


# Pictures


def crowded(truth: np.ndarray, count: int, least: int = 6) -> list[int]:
    """The pictures with most classes, those first whose smallest counted class is largest.

    Parameters
    ----------
    truth : int [n, N], the class of each patch, below 0 none.
    count : how many pictures.
    least : a class counts if it has at least so many patches.

    Examples
    --------
    >>> crowded(np.array([[0, 0, 0, 0], [0, 0, 1, 1], [1, 2, 2, 0]]), 2, least=1)
    [2, 1]
    """
    keys = []
    for index, row in enumerate(truth):
        sizes = np.unique(row[row >= 0], return_counts=True)[1]
        sizes = sizes[sizes >= least]
        keys.append((-len(sizes), -min(sizes, default=0), index))
    return [index for _, _, index in sorted(keys)[:count]]


def object_sizes(truth: np.ndarray) -> dict[int, int]:
    """The classes of a picture and how many patches each has, largest first.

    Examples
    --------
    >>> object_sizes(np.array([-1, 4, 4, 2]))
    {4: 2, 2: 1}
    """
    classes, sizes = np.unique(truth[truth >= 0], return_counts=True)
    return {int(classes[i]): int(sizes[i]) for i in np.argsort(-sizes, kind="stable")}


def middle_patch(truth: np.ndarray, of_class: int) -> int:
    """The patch of a class that lies nearest to the middle of all its patches.

    Examples
    --------
    >>> middle_patch(np.array([7, 7, 7, 0, 0, 0, 0, 0, 0]), 7)
    1
    """
    side = round(len(truth) ** 0.5)
    index = np.flatnonzero(truth == of_class)
    places = np.stack([index // side, index % side], 1)
    return int(index[((places - places.mean(0)) ** 2).sum(1).argmin()])


def class_mask(data, index: int, of_class: int | None = None) -> np.ndarray | None:
    """Where a class is in a picture, bool [H, W]; None takes all classes. No mask file: None."""
    mask = mask_or_none(data, index)
    if mask is None:
        return None
    return mask >= 0 if of_class is None else mask == of_class


# Measures


def at_home(attention: Tensor, truth: Tensor) -> Tensor:
    """Share of each object patch's attention that goes to patches of its own class.

    Parameters
    ----------
    attention : [B, N, N], rows are queries; columns may sum to less than 1 (the rest is [CLS]'s).
    truth : int [B, N], the class of each patch, below 0 none.

    Returns
    -------
    [number of object patches], picture by picture.

    Examples
    --------
    >>> at_home(torch.tensor([[[0.7, 0.3], [0.4, 0.6]]]), torch.tensor([[5, -1]]))
    tensor([0.7000])
    """
    same = truth[:, :, None] == truth[:, None]
    return (attention * same).sum(-1)[truth >= 0]


def area(truth: Tensor) -> Tensor:
    """What :func:`at_home` gives for attention spread evenly over all patches.

    Examples
    --------
    >>> area(torch.tensor([[5, 5, -1, 6]]))
    tensor([0.5000, 0.5000, 0.2500])
    """
    count = truth.shape[1]
    even = torch.full((len(truth), count, count), 1 / count, device=truth.device)
    return at_home(even, truth)


def entanglement(patches: Tensor, truth: Tensor) -> tuple[float, float, float]:
    """Mean cosine of patch pairs of one picture: same class, different classes, and the ratio.

    Never forms a pair: with s_c the sum of class c's unit patches, all pairs of c and c' together
    have s_c . s_c' as their sum of cosines.

    Parameters
    ----------
    patches : [B, N, D], of any length.
    truth : int [B, N], the class of each patch, below 0 none (left out).

    Returns
    -------
    (same, different, different / same).

    Raises
    ------
    ValueError
        There is no pair of the one or of the other kind.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]]])
    >>> [round(value, 4) for value in entanglement(x, torch.tensor([[3, 3, 8]]))]
    [1.0, 0.6, 0.6]
    """
    truth = truth.to(patches.device)
    known = truth.clamp_min(-1) + 1  # 0 where there is no class
    member = F.one_hot(known, int(known.max()) + 1)[..., 1:].to(patches.dtype)  # [B, N, C]
    sums = member.transpose(1, 2) @ F.normalize(patches, dim=-1)  # [B, C, D]
    counts = member.sum(1)
    total, n_total = sums.sum(1).square().sum().item(), counts.sum(1).square().sum().item()
    own, n_own = sums.square().sum().item(), counts.square().sum().item()
    n = counts.sum().item()  # each patch with itself: no pair
    if n_own == n or n_total == n_own:
        raise ValueError(
            "Entanglement needs pictures with two patches of one class, and with two classes."
        )
    same, different = (own - n) / (n_own - n), (total - own) / (n_total - n_own)
    return same, different, different / same


def mean_iou(predicted: Tensor, truth: Tensor, n_classes: int) -> float:
    """Mean over classes of intersection over union, on object patches, all pictures together.

    A class that is neither predicted nor there is left out of the mean.

    Examples
    --------
    >>> round(mean_iou(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, -1]), 3), 4)
    0.5
    """
    keep = truth >= 0
    cells = torch.bincount(truth[keep] * n_classes + predicted[keep], minlength=n_classes**2)
    cells = cells.reshape(n_classes, n_classes).double()
    union = cells.sum(0) + cells.sum(1) - cells.diagonal()
    return (cells.diagonal()[union > 0] / union[union > 0]).mean().item()


def reading(predicted: Tensor, truth: Tensor, n_classes: int) -> dict[str, float]:
    """How well predicted classes of patches fit the masks.

    Parameters
    ----------
    predicted, truth : int [n, N]; truth below 0 is left out.

    Returns
    -------
    {"accuracy": share of object patches read right, "beyond the largest": the same on patches of
    all but the picture's largest class, "mIoU", "classes a picture": how many are read in it}.
    """
    objects = truth >= 0
    counts = F.one_hot(truth.clamp_min(0), n_classes) * objects[..., None]
    largest = counts.sum(1).argmax(-1)
    right = (predicted == truth).float()
    named = F.one_hot(predicted, n_classes).mul(objects[..., None]).amax(1).sum(-1)
    return {
        "accuracy": right[objects].mean().item(),
        "beyond the largest": right[objects & (truth != largest[:, None])].mean().item(),
        "mIoU": mean_iou(predicted, truth, n_classes),
        "classes a picture": named[objects.any(1)].float().mean().item(),
    }


# The release's three couplings between the images of a batch


def first_image_outliers(outliers: Tensor) -> Tensor:
    """The first image's outliers, taken for all images: bool [B, N].

    Examples
    --------
    >>> first_image_outliers(torch.tensor([[True, False], [False, True]])).tolist()
    [[True, False], [True, False]]
    """
    return outliers[:1].expand_as(outliers)


def batch_mean_attention(similarity: Tensor) -> Tensor:
    """softmax(G) with the mean of M taken over the whole batch: [B, N, N].

    Examples
    --------
    >>> similarity = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.9], [0.9, 1.0]]])
    >>> batch_mean_attention(similarity)[1].round(decimals=3)  # the mean of both is 0.725
    tensor([[0.5740, 0.4260],
            [0.4260, 0.5740]])
    """
    g = 3 * (similarity - similarity.mean())
    apart = g < 0
    apart.diagonal(dim1=1, dim2=2).fill_(False)
    return g.masked_fill(apart, -torch.inf).softmax(-1)


def head_major(n_images: int, n_heads: int) -> Tensor:
    """Whose G each (image, head) gets when head-major tiles meet image-major q, k, v: [B, H].

    q, k, v are flattened image by image: row i is image i // H, head i % H. The tiles of G are
    laid head by head, G_0 G_1 .. G_0 G_1 ..: row i is image i % B.

    Examples
    --------
    >>> head_major(3, 2).tolist()
    [[0, 1], [2, 0], [1, 2]]
    """
    return (torch.arange(n_images * n_heads) % n_images).reshape(n_images, n_heads)


def released_scclip(
    backbone: Backbone, trunk: Trunk, couplings: Sequence[str] = COUPLINGS
) -> Tensor:
    """SC-CLIP with the release's couplings between images: [B, N, D], before unit length.

    Written from their description, not copied. Without couplings, or with one image in the batch,
    it is :func:`piaa_utils.encoders.scclip`.

    Parameters
    ----------
    backbone, trunk : as for the encoders of the package.
    couplings : names out of ``COUPLINGS``.

    Raises
    ------
    ValueError
        An unknown coupling.
    """
    for name in couplings:
        if name not in COUPLINGS:
            raise ValueError(f"There is no coupling {name!r}; there are {', '.join(COUPLINGS)}.")
    hidden = {layer: trunk.hidden[tap(layer, backbone.depth)] for layer in SCCLIP_MULTI}
    block, cls, patches = last(backbone, trunk)
    outliers = lof_outliers(patches)
    if "outliers" in couplings:
        outliers = first_image_outliers(outliers)
    similarity = cosine_similarity(fill(hidden[SCCLIP_MID][:, 1:], outliers))
    x = thresholded_affinity(similarity, BETA) @ fill(patches, outliers)
    weights = similarity_attention(similarity)
    if "mean" in couplings:
        weights = batch_mean_attention(similarity)
    owners = torch.arange(len(x))[:, None].expand(-1, block.attn.num_heads)
    if "tiling" in couplings:
        owners = head_major(*owners.shape)
    weights = weights[owners]  # [B, H, N, N]

    def attention(z: Tensor) -> Tensor:
        k, v = heads(block, z, "kv")
        return block.attn.out_proj((concat_heads(weights @ v) + attend(k, k, v)) / 2)

    affinity = thresholded_affinity(cosine_similarity(hidden[SCCLIP_POST][:, 1:]), BETA)
    z = sum(hidden.values())
    y = attention(x) + CLS_SHARE * cls + attention(z[:, 1:]) + CLS_SHARE * z[:, :1]
    return project(backbone, affinity @ y)


def angles(one: Tensor, other: Tensor) -> Tensor:
    """Mean angle in degrees between the features of each image's patches: [B].

    Examples
    --------
    >>> angles(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]]))
    tensor([90.])
    """
    one, other = (F.normalize(x.cpu().double(), dim=-1) for x in (one, other))
    # atan2 of half-chords: exact near 0, where the arc cosine is not.
    angle = 2 * torch.atan2((one - other).norm(dim=-1), (one + other).norm(dim=-1))
    return angle.rad2deg().mean(-1).float()


# Figures


def mark(ax: Axes, patch: int, grid: int) -> None:
    """A ring around a patch."""
    x, y = (patch % grid + 0.5) / grid, (patch // grid + 0.5) / grid
    ax.plot(x, y, "o", markersize=17, mfc="none", mec="black", mew=5)
    ax.plot(x, y, "o", markersize=17, mfc="none", mec="white", mew=2.5)


def attention_figure(
    data, index: int, rows: Tensor, queries: Sequence[int | None], titles: Sequence[str]
) -> Figure:
    """Where queries attend, over the image.

    Parameters
    ----------
    data, index : the data set and the picture in it.
    rows : [n, N], the attention of n queries to the N patches, a mean over heads.
    queries : the patch of each query, or None for [CLS].
    titles : one above each panel.
    """
    grid = round(rows.shape[1] ** 0.5)
    size = (min(3.3 * len(rows) + 1.3, 13), 3.9)
    figure, axes = subplots(1, len(rows), size=size, squeeze=False)
    words = []
    for ax, row, query, title in zip(axes[0], rows, queries, titles, strict=True):
        row = row.cpu().numpy() / row.max().item()
        layer = heat_map(ax, data[index], row.reshape(grid, grid), class_mask(data, index), title)
        if query is not None:
            mark(ax, query, grid)
        top = int(row.argmax())
        words.append(f"{title} most to row {top // grid}, column {top % grid}")
    label = "weight,\nshare of the largest"
    figure.colorbar(layer, ax=list(axes[0]), label=label, shrink=0.8)
    figure.alt_text = (
        f"Heat maps over one image of the weight that a query gives each patch: {'; '.join(words)}."
    )
    return figure


def bars(values: dict[str, float], label: str, reference: tuple[str, float] | None = None):
    """Horizontal bars with their values beside them, and a dashed line to compare with.

    A value stands inside its bar where the line would run through it.

    Parameters
    ----------
    values : {name: value}, from top to bottom.
    label : of the horizontal axis.
    reference : name and value of the line.
    """
    names = list(values)
    figure, ax = subplots(size=(10.5, 0.62 * len(names) + 1.8))
    ax.barh(names, list(values.values()), color=PALETTE[0])
    largest = max(values.values())
    for place, value in enumerate(values.values()):
        near = reference is not None and value <= reference[1] < value + 0.15 * largest
        if near and value > 0.15 * largest:
            ax.text(value, place, f"{value:.2f} ", va="center", ha="right", color="white")
        else:
            ax.text(value, place, f" {value:.2f}", va="center", path_effects=HALO)
    text = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
    if reference:
        ax.axvline(reference[1], color="black", linestyle="--", label=reference[0])
        figure.legend(loc="outside upper center", frameon=False)
        text += f"; dashed line, {reference[0]}, {reference[1]:.2f}"
    ax.set_xlabel(label)
    ax.margins(x=0.12)
    ax.invert_yaxis()
    figure.alt_text = f"Bars of {label}: {text}."
    return figure


def depth_figure(scores: Sequence[tuple[float, float, float]]) -> Figure:
    """Entanglement of the tokens after each block: one (same, different, ratio) for h_0, h_1 .."""
    same, different, ratio = zip(*scores, strict=True)
    blocks = range(len(scores))
    figure, axes = subplots(1, 2, size=(12.5, 5))
    for values, name, dash, color in (
        (same, "same class", "o-", PALETTE[2]),
        (different, "different classes", "s--", PALETTE[1]),
    ):
        axes[0].plot(blocks, values, dash, color=color, label=name, linewidth=3, markersize=8)
    axes[1].plot(blocks, ratio, "o-", color=PALETTE[0], linewidth=3, markersize=8)
    axes[0].set(xlabel="after block l", ylabel="mean cosine of pairs")
    axes[0].legend(frameon=False)
    axes[1].set(xlabel="after block l", ylabel="entanglement", ylim=(0, None))
    figure.alt_text = (
        f"Two plots over blocks 0 to {len(scores) - 1}. Left, mean cosine of patch pairs: same "
        f"class {same[0]:.2f} to {same[-1]:.2f}, different classes {different[0]:.2f} to "
        f"{different[-1]:.2f}. Right, their ratio, {ratio[0]:.2f} at the start, at most "
        f"{max(ratio):.2f} after block {int(np.argmax(ratio))}, {ratio[-1]:.2f} at the end."
    )
    return figure


def encoders_figure(table: dict[str, dict[str, float]], columns: Sequence[str]) -> Figure:
    """One panel for each column of a table of encoders, one bar for each row.

    Rows whose value is NaN have no bar.
    """
    names = list(table)
    figure, axes = subplots(1, len(columns), size=(3.5 * len(columns) + 2.5, 5.2), sharey=True)
    texts = []
    for ax, column in zip(axes, columns, strict=True):
        values = [table[name][column] for name in names]
        colours = [PALETTE[0] if name in ("vanilla", "scclip") else "0.7" for name in names]
        ax.barh(names, np.nan_to_num(values), color=colours)
        for place, value in enumerate(values):
            ax.text(np.nan_to_num(value), place, f" {value:.2f}" * (value == value), va="center")
        ax.margins(x=0.22)
        ax.set_xlabel(column)
        texts.append(
            f"{column}: " + ", ".join(f"{n} {v:.2f}" for n, v in zip(names, values, strict=True))
        )
    axes[0].invert_yaxis()
    figure.alt_text = f"Bars of the encoders. {'. '.join(texts).replace('nan', 'not defined')}."
    return figure


def outlier_figure(
    data, index: int, before: Tensor, after: Tensor, outliers: Tensor, norms: Tensor
) -> Figure:
    """The local outlier factor before and after the repair, and the length of the patches.

    Parameters
    ----------
    data, index : the data set and the picture in it.
    before, after : [N] factors.
    outliers : bool [N], ringed in all panels.
    norms : [N] length of each patch's token before the repair.
    """
    before, after, norms = (x.cpu().numpy() for x in (before, after, norms))
    grid = round(len(before) ** 0.5)
    figure, axes = subplots(1, 3, size=(13, 4.2))
    limits = (float(before.min()), float(before.max()))
    panels = (
        (before, "outlier factor", limits),
        (after, "after the repair", limits),
        (norms, "length of the token", None),
    )
    mask = class_mask(data, index)
    for ax, (values, title, ends) in zip(axes, panels, strict=True):
        layer = heat_map(ax, data[index], values.reshape(grid, grid), mask, title, ends)
        for patch in np.flatnonzero(outliers.cpu().numpy()):
            x, y = (patch % grid + 0.5) / grid, (patch // grid + 0.5) / grid
            ax.plot(x, y, "x", color="black", markersize=10, mew=3.5)
        figure.colorbar(layer, ax=ax, shrink=0.8)
    figure.alt_text = (
        f"Three heat maps over an image, {int(outliers.sum())} outliers crossed: outlier factor "
        f"from {before.min():.2f} to {before.max():.2f}; after the repair to {after.max():.2f}; "
        f"length of the tokens from {norms.min():.1f} to {norms.max():.1f}."
    )
    return figure


def coupling_figure(changes: dict[str, Tensor]) -> Figure:
    """How far each image's features turn when neighbours join it: one point an image.

    Parameters
    ----------
    changes : {name: [B] mean angles in degrees}, from top to bottom.
    """
    names = list(changes)
    figure, ax = subplots(size=(11, 0.75 * len(names) + 2))
    for place, name in enumerate(names):
        values = changes[name].cpu().numpy()
        color = PALETTE[2] if name == "package" else PALETTE[1]
        ax.plot(
            np.clip(values, LEAST_TURN, None), [place] * len(values), "o", color=color, alpha=0.5
        )
        ax.plot(np.median(values).clip(LEAST_TURN), place, "|", color="black", markersize=26, mew=4)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.set_xlabel(
        f"mean turn of an image's patch features (degrees; 0 is drawn at {LEAST_TURN:.0e})"
    )
    ax.grid(axis="x", color="0.9")
    text = ", ".join(f"{name} {changes[name].median():.2g}" for name in names)
    figure.alt_text = f"Points on a logarithmic scale of degrees, one an image; medians: {text}."
    return figure


# The explorer


class Shelf(NamedTuple):
    """Some pictures with all that :func:`explore` needs, computed beforehand."""

    images: dict[int, Image.Image]
    masks: dict[int, np.ndarray | None]  # classes of pixels [H, W]
    truth: dict[int, np.ndarray]  # [N]
    patches: dict[str, dict[int, Tensor]]  # encoder -> picture -> [N, D] unit
    predicted: dict[str, dict[int, np.ndarray]]  # encoder -> picture -> [N]
    class_names: tuple[str, ...]

    def titles(self) -> dict[str, int]:
        """What stands in a menu for each picture: its number and the classes on it."""
        out = {}
        for i, truth in self.truth.items():
            names = [self.class_names[c] for c in object_sizes(truth)]
            out[f"{i}: {', '.join(names) or 'nothing of the list'}"] = i
        return out


def shelf(config: Config, found: Features, pictures: Sequence[int], split: str = "test") -> Shelf:
    """Put pictures of a split, with their features and what the text reads, on a shelf."""
    data, text = config.dataset(split), config.text.cpu()
    masks = {i: mask_or_none(data, i) for i in pictures}
    patches = {name: {i: x[i] for i in pictures} for name, x in found.patches.items()}
    predicted = {
        name: {i: (x @ text.T).argmax(-1).numpy() for i, x in of.items()}
        for name, of in patches.items()
    }
    return Shelf(
        {i: data[i] for i in pictures},
        masks,
        {i: found.truth[i] for i in pictures},
        patches,
        predicted,
        tuple(config.class_names),
    )


def explore(picture: int, encoder: str, patch: int, shelf: Shelf) -> Figure:
    """The similarity of one patch to all others, and what the text reads in every patch.

    Parameters
    ----------
    picture : index of a picture on the shelf.
    encoder : name of an encoder on the shelf.
    patch : index of the query patch, row by row.
    shelf : from :func:`shelf`.

    Raises
    ------
    ValueError
        A picture or encoder that is not on the shelf, or a patch beyond the grid.
    """
    if encoder not in shelf.patches:
        raise ValueError(f"There is no encoder {encoder!r} here; there are {list(shelf.patches)}.")
    if picture not in shelf.images:
        raise ValueError(f"Picture {picture} is not on the shelf; there are {list(shelf.images)}.")
    x, truth = shelf.patches[encoder][picture], shelf.truth[picture]
    if not 0 <= patch < len(x):
        raise ValueError(f"There is no patch {patch}; there are 0 to {len(x) - 1}.")
    grid, image, mask = round(len(x) ** 0.5), shelf.images[picture], shelf.masks[picture]
    predicted, own = shelf.predicted[encoder][picture], int(truth[patch])
    names = shelf.class_names
    here = names[own] if own >= 0 else "no class"
    outline = None if mask is None else (mask == own if own >= 0 else mask >= 0)

    figure, axes = subplots(1, 3, size=(13, 5.3))
    similarity = (x @ x[patch]).numpy()
    layer = heat_map(axes[0], image, similarity.reshape(grid, grid), outline, "similar to the ring")
    mark(axes[0], patch, grid)
    figure.colorbar(layer, ax=axes[0], label="cosine", shrink=0.75)
    present = [c for c in object_sizes(truth) if c >= 0]
    colours = {c: PALETTE[n % len(PALETTE)] for n, c in enumerate(present)}
    everything = None if mask is None else mask >= 0
    for ax, classes, title in ((axes[1], predicted, "the text reads"), (axes[2], truth, "masks")):
        layer = heat_map(ax, image, np.zeros((grid, grid)), everything, title)
        layer.set_data(_coloured(classes, colours).reshape(grid, grid, 3))
    handles = [Patch(color=colours[c], label=names[c]) for c in present]
    figure.legend(
        handles=[*handles, Patch(color=OTHER, label="another class, or none")],
        loc="outside lower center",
        ncols=min(len(handles) + 1, 4),
        frameon=False,
    )
    objects = truth >= 0
    right = (predicted == truth)[objects].mean() if objects.any() else float("nan")
    figure.alt_text = (
        f"Picture {picture}, {encoder}: cosine of patch {patch} (row {patch // grid}, column "
        f"{patch % grid}, {here}) to all others, from {similarity.min():.2f} to "
        f"{similarity.max():.2f}; beside it the class that the text reads in each patch, and the "
        f"class of the masks. {100 * right:.0f} % of the object patches are read right; text "
        f"reads {names[predicted[patch]]} in the query patch."
    )
    return figure


def _coloured(classes: np.ndarray, colours: dict[int, str]) -> np.ndarray:
    """The colour of each patch's class, [N, 3] from 0 to 1."""
    codes = [colours.get(int(c), OTHER) for c in classes]
    return np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in codes])


# The checks of the exercises


def exercise_1(answer: object) -> None:
    """MaskCLIP's attention map of five patches."""
    check_array(answer, np.eye(5), "Exercise 1")


def exercise_2(answer: object) -> None:
    """Intersection over union of one class, on patches that have a class."""

    def reference(predicted, truth, of_class):
        keep = truth >= 0
        hit, there = (predicted == of_class) & keep, truth == of_class
        return (hit & there).sum() / (hit | there).sum()

    predicted, truth = torch.tensor([1, 1, 0, 1]), torch.tensor([1, 1, 1, 0])
    generator = torch.Generator().manual_seed(2)
    many = torch.randint(0, 3, (2, 40), generator=generator)
    cases = [
        (predicted[:2], truth[:2], 1),
        (predicted, truth, 1),
        (torch.tensor([2, 2, 0]), torch.tensor([2, -1, 2]), 2),  # background is left out
        (many[0], many[1] - 1, 1),
    ]
    check_function(answer, reference, cases, "Exercise 2")


def exercise_3(answer: object) -> None:
    """Another order of the test images, another score: why."""
    check_choice(
        answer,
        "c",
        {
            "a": "Rounding moves the last digits; the figure above shows far larger turns.",
            "b": "Weights and images are the same, and a frozen model has nothing that is random.",
            "d": "Average precision ranks all images by score; it knows no order of reading.",
        },
        "Exercise 3",
        "Another order gives every image other neighbours, and the features follow them.",
    )


def exercise_4(answer: object) -> None:
    """The share of (image, head) pairs that get their own G in batches of 128, 12 heads."""
    owners = head_major(128, 12)
    expected = (owners == torch.arange(128)[:, None]).double().mean().item()
    check_number(
        answer,
        expected,
        "Exercise 4",
        tolerance=5e-4,
        hint="Row i holds q, k, v of image i // 12 and G of image i % 128; a share, not a count.",
    )
    print("With B images in a batch it is exactly 1/B; more only where B is a multiple of 11.")
