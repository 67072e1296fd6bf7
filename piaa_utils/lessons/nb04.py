"""Notebook 04, Gaussian discriminant analysis: measures, figures, explorer, exercise checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import seaborn as sns
import torch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor

from piaa_utils.aggregation import spatial_evidence, spatial_softmax
from piaa_utils.constants import EVIDENCE_TEMPERATURE
from piaa_utils.datasets import VOID
from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.lessons.checks import CheckFailed, check_array, check_choice, check_function
from piaa_utils.lessons.features import Features
from piaa_utils.metrics import mean_average_precision
from piaa_utils.patch_labels import MIXED
from piaa_utils.plots import PALETTE, Figure, heat_map, subplots
from piaa_utils.purification import Purified
from piaa_utils.selection import PatchBank

SHRINKAGES = (0.0, 0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
ROWS_PER_CLASS = ("all", 32, 8, 2)
TOY_MEANS = np.array([[0.0, 0.0], [2.0, 0.0], [1.2, 2.2]])
TOY_COVARIANCE = np.array([[1.7, 1.45], [1.45, 1.5]])
TOY_PRIORS = (0.7, 0.2, 0.1)  # of exercise 1
WHERE = ("the patch shows the class", "only its picture does", "nor does its picture")


class Rows(NamedTuple):
    """A bank as NumPy arrays, ready for scikit-learn.

    X : [n, D] float64 unit patch features.
    y : [n] the class that the text says, the pseudo-label.
    p : [n] the text's probability of that class.
    image, patch : [n] where the row came from.
    """

    X: np.ndarray
    y: np.ndarray
    p: np.ndarray
    image: np.ndarray
    patch: np.ndarray


class Reading(NamedTuple):
    """How well a classifier reads the patches of a split, both from 0 to 1.

    accuracy : share of the object patches whose class is right.
    map : mean average precision of the pictures, from the best patch of each class.
    """

    accuracy: float
    map: float


class Sweep(NamedTuple):
    """GDA for several numbers of rows (k) and several shrinkages (m).

    rows : k numbers of rows a class, or "all".
    shrinkages : m numbers from 0 to 1.
    accuracy : [k, m] share of patches read right; NaN where the covariance has no inverse.
    condition : [k, m] largest over smallest eigenvalue of the covariance; infinite there.
    kubokawa : [k, 3] for the paper's estimate the s it amounts to, accuracy and condition.
    spectra : k arrays [D] of eigenvalues of the covariance without shrinkage, largest first.
    """

    rows: tuple
    shrinkages: tuple
    accuracy: np.ndarray
    condition: np.ndarray
    kubokawa: np.ndarray
    spectra: list


def clouds(n: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three Gaussian clouds of one shape in the plane.

    Parameters
    ----------
    n : points of each cloud.
    seed : of the random numbers.

    Returns
    -------
    X [3n, 2] and y [3n].

    Examples
    --------
    >>> X, y = clouds(4)
    >>> X.shape, y.tolist()
    ((12, 2), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    """
    noise = np.random.default_rng(seed).multivariate_normal([0, 0], TOY_COVARIANCE, 3 * n)
    y = np.repeat([0, 1, 2], n)
    return TOY_MEANS[y] + noise, y


def clouds_figure(X: np.ndarray, y: np.ndarray, classifiers: Mapping[str, object]) -> Figure:
    """The clouds, one panel a classifier; the colours behind are what it answers.

    Parameters
    ----------
    X, y : of :func:`clouds`.
    classifiers : {name: fitted scikit-learn classifier}.
    """
    right = {name: (c.predict(X) == y).mean() for name, c in classifiers.items()}
    words = ", ".join(f"{name} puts {share:.0%} right" for name, share in right.items())
    figure, axes = subplots(
        1,
        len(classifiers),
        alt_text=f"Three long, slanting clouds of one shape and straight boundaries: {words}.",
        size=(6.4 * len(classifiers), 5.6),
        sharey=True,
        squeeze=False,
    )
    low, high = X.min(axis=0) - 0.5, X.max(axis=0) + 0.5
    across, up = np.meshgrid(np.linspace(low[0], high[0], 240), np.linspace(low[1], high[1], 240))
    points = np.column_stack([across.ravel(), up.ravel()])
    for ax, (name, classifier) in zip(axes[0], classifiers.items(), strict=True):
        answer = classifier.predict(points).reshape(across.shape)
        levels = np.arange(-0.5, 3)
        ax.contourf(across, up, answer, levels=levels, colors=list(PALETTE[:3]), alpha=0.22)
        for c, marker in enumerate("osD"):
            color = PALETTE[c]
            ax.scatter(*X[y == c].T, s=16, color=color, marker=marker, label=f"class {c}")
            ax.plot(*X[y == c].mean(axis=0), marker="X", ms=15, mfc=color, mec="black", mew=2)
        ax.set(title=f"{name}: {right[name]:.0%} right", xlabel="feature 1")
    axes[0, 0].set_ylabel("feature 2")
    axes[0, 0].legend(loc="upper left", markerscale=2, fontsize="x-small")
    return figure


def bank_rows(bank: PatchBank) -> Rows:
    """The rows of a bank; in each class the surest first.

    Examples
    --------
    >>> bank = PatchBank(n_classes=2, k=1)
    >>> bank.update(torch.eye(2)[None], torch.eye(2), [3])
    >>> bank_rows(bank).y.tolist(), bank_rows(bank).image.tolist()
    ([0, 1], [3, 3])
    """
    p = bank.probs.gather(1, bank.labels[:, None]).squeeze(1)
    columns = (bank.features.double(), bank.labels, p.double(), bank.image_id, bank.patch_index)
    return Rows(*(column.cpu().numpy() for column in columns))


def composition(rows: Rows, split: Features) -> np.ndarray:
    """What the rows of each class are in truth: int [C, 3], the columns are ``WHERE``."""
    on_patch = split.truth[rows.image, rows.patch] == rows.y
    in_picture = split.labels[rows.image, rows.y] == 1
    kind = np.where(on_patch, 0, np.where(in_picture, 1, 2))
    out = np.zeros((split.labels.shape[1], 3), dtype=int)
    np.add.at(out, (rows.y, kind), 1)
    return out


def composition_figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """:func:`composition` as bars, one a class."""
    share = counts.sum(axis=0) / counts.sum()
    words = ", ".join(f"{w} {s:.0%}" for w, s in zip(WHERE, share, strict=True))
    figure, ax = subplots(
        alt_text=f"Rows of the bank for each class, stacked by what they are in truth: {words}.",
        size=(12, 0.32 * len(names) + 1.6),
    )
    left = np.zeros(len(names))
    for word, column, color in zip(WHERE, counts.T, (PALETTE[0], PALETTE[9], "0.75"), strict=True):
        ax.barh(range(len(names)), column, left=left, color=color, label=word)
        left += column
    ax.set_yticks(range(len(names)), names, fontsize="small")
    ax.set(ylim=(len(names) - 0.5, -0.5), xlabel="rows in the bank")
    ax.legend(fontsize="x-small", frameon=True)
    return figure


def linear(classifier: object, n_classes: int) -> tuple[Tensor, Tensor]:
    """W [D, C] and b [C] of a fitted linear scikit-learn classifier of three classes or more.

    A class that it never saw gets b of minus infinity: it is never the answer.
    """
    W = torch.zeros(classifier.coef_.shape[1], n_classes)
    b = torch.full((n_classes,), -torch.inf)
    seen = torch.as_tensor(np.asarray(classifier.classes_, dtype=np.int64))
    W[:, seen] = torch.as_tensor(classifier.coef_.T.copy(), dtype=torch.float32)
    b[seen] = torch.as_tensor(np.array(classifier.intercept_), dtype=torch.float32)
    return W, b


def joined(means: np.ndarray, precision: np.ndarray) -> tuple[Tensor, Tensor]:
    """W and b made of any class means and any precision, with equal priors.

    Parameters
    ----------
    means : [C, D].
    precision : [D, D].

    Examples
    --------
    >>> W, b = joined(np.array([[1.0, 0.0], [0.0, 2.0]]), np.eye(2))
    >>> W.tolist(), b.tolist()
    ([[1.0, 0.0], [0.0, 2.0]], [-0.5, -2.0])
    """
    coef = means @ precision
    b = -0.5 * (coef * means).sum(axis=1)
    return torch.as_tensor(coef.T.copy()).float(), torch.as_tensor(b).float()


def read(logits: Tensor, split: Features, scale: float = 1 / EVIDENCE_TEMPERATURE) -> Reading:
    """Measure the scores [n, N, C] of a split's patches.

    Parameters
    ----------
    logits : scores of the patches, of any kind.
    split : what is really there. Patches without a class, or without a mask, are left out of the
        accuracy.
    scale : of the softmax over classes that makes a picture's scores comparable with another's:
        1/500 for x.W + b, as in the paper; the text's cosines take 10.
    """
    truth = torch.from_numpy(split.truth)
    on_object = truth >= 0
    right = (logits.argmax(dim=-1) == truth)[on_object].double()
    evidence = spatial_evidence(spatial_softmax(logits, 1 / scale))
    return Reading(float(right.mean()), mean_average_precision(split.labels, evidence.numpy()).map)


def first_rows(rows: Rows, n: int | str) -> Rows:
    """The first n rows of each class, or "all"."""
    if n == "all":
        return rows
    keep = np.concatenate([np.flatnonzero(rows.y == c)[:n] for c in np.unique(rows.y)])
    return Rows(*(column[keep] for column in rows))


def sweep(
    rows: Rows,
    text: np.ndarray,
    split: Features,
    encoder: str = "scclip",
    counts: Sequence = ROWS_PER_CLASS,
    shrinkages: Sequence[float] = SHRINKAGES,
) -> Sweep:
    """GDA as in Stage I for all numbers of rows and all shrinkages.

    One eigendecomposition serves all shrinkages: those of (1 - s) Sigma + s tr(Sigma)/D I are
    (1 - s) lambda + s mean(lambda), with the same eigenvectors.

    Parameters
    ----------
    rows : the bank's.
    text : [C, D], means of classes without rows.
    split, encoder : what the accuracy is measured on.
    counts : numbers of rows a class, or "all".
    shrinkages : numbers from 0 to 1.
    """
    truth = split.truth[split.truth >= 0]
    x = split.patches[encoder][torch.from_numpy(split.truth >= 0)]
    accuracy = np.full((len(counts), len(shrinkages)), np.nan)
    condition = np.full(accuracy.shape, np.inf)
    kubokawa, spectra = [], []
    for i, count in enumerate(counts):
        some = first_rows(rows, count)
        n, width = some.X.shape
        gda = GaussianDiscriminantAnalysis(prototypes=text, weigh_covariance=False)
        means = gda.fit(some.X, some.y, some.p).means_
        centred = some.X - means[some.y]
        values, vectors = np.linalg.eigh(np.cov(centred.T, bias=True))
        values = values.clip(0)
        spectra.append(values[::-1])

        def measure(s, values=values, vectors=vectors, means=means):
            shrunk = (1 - s) * values + s * values.mean()
            if shrunk.min() <= len(shrunk) * np.finfo(float).eps * shrunk.max():
                return np.nan, np.inf
            W, b = joined(means, (vectors / shrunk) @ vectors.T)
            right = (x @ W + b).argmax(dim=1).numpy() == truth
            return right.mean(), shrunk.max() / shrunk.min()

        for j, s in enumerate(shrinkages):
            accuracy[i, j], condition[i, j] = measure(s)
        s = width / (n - 1 + width)
        kubokawa.append([s, *measure(s)])
    return Sweep(tuple(counts), tuple(shrinkages), accuracy, condition, np.array(kubokawa), spectra)


def shrinkage_figure(table: Sweep) -> Figure:
    """Accuracy and condition number against the shrinkage; a star marks the paper's estimate."""
    words = "; ".join(
        f"{_rows(n)}: accuracy {np.nanmin(a):.0%} to {np.nanmax(a):.0%}, "
        f"the paper's s is {k[0]:.2f} and reads {k[1]:.0%}"
        for n, a, k in zip(table.rows, table.accuracy, table.kubokawa, strict=True)
    )
    figure, axes = subplots(
        1, 2, alt_text=f"Accuracy and condition number against shrinkage. {words}.", size=(13, 5.6)
    )
    for i, n in enumerate(table.rows):
        _curve(axes[0], table, table.accuracy[i], table.kubokawa[i, [0, 1]], PALETTE[i], 100, n)
        _curve(axes[1], table, table.condition[i], table.kubokawa[i, [0, 2]], PALETTE[i], 1, n)
    for ax in axes:
        _mark_missing(ax, table)
    axes[0].set(ylabel="patches read right (%)", title="accuracy")
    axes[1].set(ylabel="largest / smallest eigenvalue", title="condition number", yscale="log")
    axes[1].legend(fontsize="x-small", title="stars: the paper's s", title_fontsize="x-small")
    return figure


def explore_shrinkage(shrinkage: float, rows_per_class: int | str, table: Sweep) -> Figure:
    """The explorer: the eigenvalues that are inverted, and what the classifier then reads.

    Parameters
    ----------
    shrinkage : one of ``table.shrinkages``.
    rows_per_class : one of ``table.rows``.
    table : of :func:`sweep`.

    Raises
    ------
    ValueError
        For a value that the table lacks.
    """
    for what, value, known in (
        ("shrinkage", shrinkage, table.shrinkages),
        ("rows_per_class", rows_per_class, table.rows),
    ):
        if value not in known:
            raise ValueError(f"{what} must be one of {list(known)}: got {value!r}.")
    i, j = table.rows.index(rows_per_class), table.shrinkages.index(shrinkage)
    share, condition, k = table.accuracy[i, j], table.condition[i, j], table.kubokawa[i]
    if np.isnan(share):
        result = "the covariance has no inverse"
    else:
        result = f"{share:.1%} read right, condition number {condition:.2g}"
    figure, axes = subplots(1, 2, size=(13, 5.8))
    plain = table.spectra[i]
    shrunk = (1 - shrinkage) * plain + shrinkage * plain.mean()
    places = np.arange(1, len(plain) + 1)
    floor = plain.max() * 1e-9
    axes[0].plot(places, plain.clip(floor), color="0.6", linewidth=3, label="no shrinkage")
    axes[0].plot(places, shrunk.clip(floor), color=PALETTE[0], linewidth=4, label="shrunk")
    axes[0].set(yscale="log", ylim=(floor, plain.max() * 3))
    axes[0].set(xlabel="direction, by its variance", ylabel="variance", title="what is inverted")
    axes[0].legend(fontsize="small", loc="lower left")
    for row, n in enumerate(table.rows):
        chosen = row == i
        color = PALETTE[0] if chosen else "0.8"
        star = table.kubokawa[row, [0, 1]] if chosen else None
        _curve(axes[1], table, table.accuracy[row], star, color, 100, n)
        _name_curve(axes[1], 100 * table.accuracy[row, -1], _rows(n), chosen)
    if not np.isnan(share):
        axes[1].plot(j, 100 * share, "o", ms=18, mfc="none", mec="black", mew=3, zorder=6)
    axes[1].set(ylabel="patches read right (%)", title=f"star: the paper's s = {k[0]:.2f}")
    _mark_missing(axes[1], table)
    axes[1].set_xlim(right=len(table.shrinkages) + 1.3)
    figure.suptitle(f"{_rows(rows_per_class)}, s = {shrinkage:g}: {result}")
    figure.alt_text = (
        f"Eigenvalues before and after shrinkage, and accuracy against shrinkage. "
        f"{_rows(rows_per_class)}, s = {shrinkage:g}: {result}; "
        f"the paper's s = {k[0]:.2f} reads {k[1]:.1%}."
    )
    return figure


def results_figure(results: Mapping[str, Mapping[str, Reading]]) -> Figure:
    """Points for each classifier, one colour a set of pictures.

    Parameters
    ----------
    results : {set: {classifier: Reading}}, the same classifiers in each set.
    """
    names = list(next(iter(results.values())))
    words = "; ".join(
        f"{title}: " + ", ".join(f"{n} {100 * r.accuracy:.1f} and {100 * r.map:.1f}" for n, r in s)
        for title, s in ((t, r.items()) for t, r in results.items())
    )
    figure, axes = subplots(
        1,
        2,
        alt_text=f"Patches read right and mAP, in per cent, of each classifier. {words}.",
        size=(13, 0.55 * len(names) + 1.8),
        sharey=True,
    )
    for ax, field, label in zip(
        axes, Reading._fields, ("patches read right (%)", "mAP of the best patch (%)"), strict=True
    ):
        for k, (title, readings) in enumerate(results.items()):
            values = [100 * getattr(readings[n], field) for n in names]
            y = np.arange(len(names)) + 0.14 * (2 * k - 1)
            ax.plot(values, y, "os"[k % 2], color=PALETTE[k], ms=11, label=title)
            for value, at in zip(values, y, strict=True):
                ax.annotate(
                    f"{value:.1f}",
                    (value, at),
                    xytext=(9, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize="x-small",
                )
        ax.margins(x=0.12)
        ax.set_xlabel(label)
        ax.grid(axis="both", color="0.9")
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def separation(scores: ArrayLike, split: Features, least: int = 8) -> np.ndarray:
    """How well a class's scores tell its patches from the others of the same picture.

    Parameters
    ----------
    scores : [n, N, C].
    split : with the truth. Mixed patches, and those without a mask, are left out.
    least : patches of the class, and others, that a picture must have.

    Returns
    -------
    [n, C] area under the ROC curve: the share of pairs (patch of the class, other patch) in which
    the first scores higher, 0.5 is chance; NaN where there are not enough patches.
    """
    scores = np.asarray(scores)
    out = np.full(split.labels.shape, np.nan)
    for i, c in zip(*np.nonzero(split.labels == 1), strict=True):
        truth = split.truth[i]
        valid = (truth != MIXED) & (truth != VOID)
        own = truth[valid] == c
        inside, outside = own.sum(), (~own).sum()
        if min(inside, outside) >= least:
            ranks = rankdata(scores[i, valid, c])[own].sum()
            out[i, c] = (ranks - inside * (inside + 1) / 2) / (inside * outside)
    return out


def maps_figure(
    data, pairs: Sequence[tuple[str, int, int]], maps: Mapping[str, Tensor], grid: int
) -> Figure:
    """Heat maps of a class by several readers, one row a picture.

    Parameters
    ----------
    data : the pictures and masks.
    pairs : (what is special about it, picture, class).
    maps : {reader: [n, N, C] scores}; each panel has its own colour scale.
    grid : g.
    """
    names = list(maps)
    figure, axes = subplots(
        len(pairs), len(names), size=(5.4 * len(names), 3.65 * len(pairs)), squeeze=False
    )
    words = []
    for row, (special, i, c) in zip(axes, pairs, strict=True):
        mask = data.masks(i) == c
        for ax, name in zip(row, names, strict=True):
            scores = np.asarray(maps[name][i, :, c]).reshape(grid, grid)
            title = f"{special}: {data.class_names[c]}\n{name}"
            layer = heat_map(ax, data.paths[i], scores, mask, title)
            bar = figure.colorbar(layer, ax=ax, label="score of the class", shrink=0.85)
            bar.locator = MaxNLocator(4)
            bar.formatter = StrMethodFormatter("{x:.3f}")
        words.append(f"{special}: {data.class_names[c]}")
    figure.alt_text = (
        f"Heat maps by {' and '.join(names)}, the object outlined. {'; '.join(words)}."
    )
    return figure


def kept_figure(
    kept: Mapping[float, ArrayLike], before: Mapping[float, ArrayLike], names: Sequence[str]
) -> Figure:
    """What Stage II keeps of each class, one panel a temperature T.

    Parameters
    ----------
    kept : {T: [C] rows kept}.
    before : {T: [C] rows predicted as the class}.
    names : C names.
    """
    figure, axes = subplots(
        1, len(kept), size=(4.3 * len(kept), 0.33 * len(names) + 2.2), sharey=True, squeeze=False
    )
    words = []
    for ax, (T, counts) in zip(axes[0], kept.items(), strict=True):
        counts, total = np.asarray(counts), np.asarray(before[T])
        every, nothing = ((counts == total) & (total > 0)).sum(), (counts == 0).sum()
        ax.barh(range(len(names)), total, color="0.88", label="before")
        ax.barh(range(len(names)), counts, color=PALETTE[0], label="kept")
        ax.set(title=f"T = {T:g}\nall: {every}, none: {nothing}", xlabel="rows of the class")
        ax.tick_params(axis="y", length=0)
        words.append(f"T = {T:g}: {every} classes keep all their rows and {nothing} none")
    axes[0, 0].set_yticks(range(len(names)), names, fontsize="small")
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize="small")
    figure.alt_text = f"Rows that Stage II keeps of each class. {'; '.join(words)}."
    return figure


def likeness(rows: Rows) -> tuple[float, float]:
    """Mean cosine of two rows of a class: of one picture, and of different pictures.

    Returns
    -------
    The two means; NaN where no class has such a pair.
    """
    same, different = [], []
    for c in np.unique(rows.y):
        X, image = rows.X[rows.y == c], rows.image[rows.y == c]
        cosine, one = X @ X.T, image[:, None] == image
        different.append(cosine[~one])
        np.fill_diagonal(one, False)
        same.append(cosine[one])
    values = (np.concatenate(x) for x in (same, different))
    return tuple(float(v.mean()) if len(v) else float("nan") for v in values)


def stage_three(
    rows: Rows, purified: Purified, text: Tensor, otherwise: GaussianDiscriminantAnalysis
) -> GaussianDiscriminantAnalysis:
    """GDA on the rows that Stage II kept, each weighed by its q; `otherwise` if it kept none."""
    if len(purified.rows) == 0:
        return otherwise
    kept, labels, q = (v.numpy() for v in (purified.rows, purified.labels, purified.weights))
    gda = GaussianDiscriminantAnalysis(prototypes=text.numpy(), weigh_covariance=False)
    return gda.fit(rows.X[kept], labels, q)


def grid_figure(readings: Mapping[tuple[str, str], Reading]) -> Figure:
    """Accuracy and mAP for each pair (means, covariance), as two coloured tables."""
    means = list(dict.fromkeys(m for m, _ in readings))
    shapes = list(dict.fromkeys(s for _, s in readings))
    words = ", ".join(
        f"{m} with {s} {100 * r.accuracy:.1f} and {100 * r.map:.1f}"
        for (m, s), r in readings.items()
    )
    figure, axes = subplots(
        1,
        2,
        alt_text=f"Patches read right and mAP in per cent, means with covariance: {words}.",
        size=(13, 1.05 * len(means) + 2.2),
        sharey=True,
    )
    titles = ("patches read right (%)", "mAP of the best patch (%)")
    for ax, field, title in zip(axes, Reading._fields, titles, strict=True):
        table = np.array([[100 * getattr(readings[m, s], field) for s in shapes] for m in means])
        sns.heatmap(
            table,
            annot=True,
            fmt=".1f",
            cmap="Blues",
            cbar=False,
            linewidths=2,
            xticklabels=shapes,
            yticklabels=means,
            ax=ax,
        )
        ax.set(title=title, xlabel="covariance from")
        ax.tick_params(axis="both", length=0, rotation=0)
    axes[0].set_ylabel("means from")
    return figure


def exercise_1(answer: object) -> None:
    """b_c of the three clouds with the priors ``TOY_PRIORS``."""
    gda = GaussianDiscriminantAnalysis(priors=TOY_PRIORS, shrinkage=None).fit(*clouds())
    expected, what = gda.intercept_, "Exercise 1"
    if _close(answer, expected + np.log(1 / 3), 1e-3):
        raise CheckFailed(f"{what}: log 1/3 is still in it: replace it, do not add to it.")
    try:
        check_array(answer, expected, what, tolerance=1e-3)
    except CheckFailed as error:
        formula = "b_c = log pi_c - 1/2 mu_c . Omega mu_c, with `priors` for pi"
        raise CheckFailed(f"{error} The formula: {formula}.") from None


def exercise_2(answer: object) -> None:
    """A function from the q of one class's rows to what Stage II keeps of them."""

    def reference(q):
        q = np.asarray(q, dtype=np.float64)
        if len(q) < 2:
            return np.zeros(len(q), dtype=bool)
        return q >= q.mean() + q.std(ddof=1)

    cases = [[0.5, 0.625, 1.0], [0.5, 0.75, 0.75, 1.0], [0.25, 0.75, 1.0], [1.0, 1.0, 1.0, 1.0]]
    cases += [[1.0, 1.0, 1.0, 0.75], [0.25, 0.25, 0.25, 0.25, 1.0], [0.875]]
    check_function(answer, reference, [(torch.tensor(q),) for q in cases], "Exercise 2")


def exercise_3(answer: object) -> None:
    """60 rows at exactly 1, 40 rows at 0.9: how many are kept?"""
    wrong = {
        "a": "They are the surest, but the threshold is not 1: mean + std is 0.96 + 0.049.",
        "b": "All are kept only if all q are equal: then std is 0 and each q is the mean.",
        "d": "A sixth lies above mean + std in a bell curve. Saturated q is no bell curve: it ends "
        "at 1, where most rows are.",
    }
    why = "The threshold 0.96 + 0.049 is above 1, and no probability is."
    check_choice(answer, "c", wrong, "Exercise 3", why)


def exercise_4(
    answer: object,
    learned: GaussianDiscriminantAnalysis,
    oracle: GaussianDiscriminantAnalysis,
    split: Features,
    encoder: str = "scclip",
) -> None:
    """Accuracy with the oracle's means, then with the oracle's precision, the rest learned.

    For the right answer it prints what either half, and the whole, wins or loses against the
    learned classifier.
    """
    what, tolerance = "Exercise 4", 5e-3
    truth = torch.from_numpy(split.truth)
    x, truth = split.patches[encoder][truth >= 0], truth[truth >= 0]
    shares = []
    pairs = ((oracle, learned), (learned, oracle), (learned, learned), (oracle, oracle))
    for means, shape in pairs:
        W, b = joined(means.means_, shape.precision_)
        shares.append(float(((x @ W + b).argmax(dim=-1) == truth).double().mean()))
    *expected, plain, whole = shares
    if _close(answer, expected[::-1], tolerance) and not _close(answer, expected, tolerance):
        raise CheckFailed(f"{what}: these are the two shares, in the other order.")
    check_array(answer, expected, what, tolerance)
    print(halves_sentence(*(100 * (share - plain) for share in expected)))
    print(f"The whole oracle: {100 * (whole - plain):+.1f} points.")


def halves_sentence(means: float, precision: float) -> str:
    """What the oracle's means alone, and its precision alone, win or lose, in points.

    Examples
    --------
    >>> halves_sentence(2.0, 1.5)
    "The oracle's means alone win 2.0 points; its precision alone wins 1.5."
    """
    parts = []
    for verb, points in (("win", means), ("wins", precision)):
        lose = verb.replace("win", "lose")
        parts.append(f"{verb if points >= 0 else lose} {abs(points):.1f}")
    sentence = f"The oracle's means alone {parts[0]} points; its precision alone {parts[1]}"
    if min(means, precision) < 0:
        sentence += ":\nmeans and covariance belong together (notebook 01)"
    return f"{sentence}."


def _close(answer: object, wanted: ArrayLike, tolerance: float) -> bool:
    """Whether the answer is an array like the wanted one, of its shape."""
    try:
        found = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        return False
    wanted = np.asarray(wanted)
    return found.shape == wanted.shape and np.allclose(found, wanted, tolerance, tolerance)


def _rows(n: int | str) -> str:
    return "all rows" if n == "all" else f"{n} rows a class"


def _curve(
    ax, table: Sweep, values: np.ndarray, star: np.ndarray | None, color: str, factor: float, n
) -> None:
    """One line over evenly spaced shrinkages; the star lies where its s falls between them."""
    places = np.arange(len(table.shrinkages))
    shown = np.where(np.isfinite(values), factor * values, np.nan)
    ax.plot(places, shown, "o-", color=color, label=_rows(n), linewidth=3, ms=7)
    if star is not None:
        at = np.interp(np.sqrt(star[0]), np.sqrt(table.shrinkages), places)
        ax.plot(at, factor * star[1], "*", color=color, mec="black", ms=20, zorder=5)
    labels = [f"{s:g}" for s in table.shrinkages]
    ax.set_xticks(places, labels, fontsize="x-small", rotation=30)
    ax.set(xlabel="shrinkage s", xlim=(-0.4, len(places) - 0.6))


def _name_curve(ax, end: float, name: str, chosen: bool) -> None:
    """The name of a curve, beside its last point; nothing if that is not finite."""
    if np.isfinite(end):
        last = len(ax.get_xticks()) - 1
        color, weight = (PALETTE[0], "bold") if chosen else ("0.4", "normal")
        ax.text(last + 0.3, end, name, color=color, weight=weight, va="center", fontsize="small")


def _mark_missing(ax, table: Sweep) -> None:
    """Say where no number of rows gives an inverse."""
    for j in np.flatnonzero(np.isnan(table.accuracy).all(axis=0)):
        at = ax.get_xaxis_transform()
        ax.text(j, 0.5, "no inverse", rotation=90, ha="center", va="center", transform=at)
