"""The metrics of multi-label recognition: AP and mAP, CF1 and OF1, bootstrap intervals.

VOC's two protocols differ in the pairs (image, class) of which every object is marked "difficult".
Without `ignore` such a pair counts as absent (the one usual in papers on multi-label recognition);
with `ignore` it is left out of the ranking of its class (PASCAL's own).

All figures are from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score


class MeanAP(NamedTuple):
    """map: mean over the classes with a positive; per_class: [C], NaN for the others;
    left_out: the names (or numbers) of the others."""

    map: float
    per_class: np.ndarray
    left_out: list


class F1(NamedTuple):
    """CP, CR, CF1 average over classes, OP, OR, OF1 pool all decisions; left_out as in MeanAP."""

    CP: float
    CR: float
    CF1: float
    OP: float
    OR: float
    OF1: float
    left_out: list


def average_precision(
    y_true: ArrayLike, scores: ArrayLike, ignore: ArrayLike | None = None
) -> np.ndarray:
    """Average precision of each class, as scikit-learn's ``average_precision_score``.

    Parameters
    ----------
    y_true : [n, C] of 0 and 1.
    scores : [n, C] finite scores; only their order counts.
    ignore : [n, C] bool, pairs left out of the ranking of their class; None ignores nothing.

    Returns
    -------
    [C] from 0 to 1; NaN for a class without positives.

    Raises
    ------
    ValueError
        On shapes that do not fit, labels other than 0 and 1, or NaN or infinite scores.

    Examples
    --------
    >>> y = [[1, 0], [0, 0], [1, 0]]
    >>> average_precision(y, [[0.9, 0.1], [0.8, 0.3], [0.7, 0.2]]).round(3)
    array([0.833,   nan])
    """
    y, scores, count = _check(y_true, scores, ignore)
    ap = np.full(y.shape[1], np.nan)
    for c in np.flatnonzero((y & count).any(axis=0)):
        rows = count[:, c]
        ap[c] = average_precision_score(y[rows, c], scores[rows, c])
    return ap


def mean_average_precision(
    y_true: ArrayLike,
    scores: ArrayLike,
    ignore: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
) -> MeanAP:
    """Mean over classes of the average precision, the figure of the paper's table.

    A class without positives has no average precision: it is left out of the mean and named.

    Parameters
    ----------
    y_true, scores, ignore : as in :func:`average_precision`.
    class_names : C names for ``left_out``; None gives numbers.

    Raises
    ------
    ValueError
        As :func:`average_precision`, and if no class has a positive.

    Examples
    --------
    >>> y = [[1, 0], [0, 0], [1, 0]]
    >>> scores = [[0.9, 0.1], [0.8, 0.3], [0.7, 0.2]]
    >>> result = mean_average_precision(y, scores, class_names=["cat", "dog"])
    >>> round(result.map, 3), result.left_out
    (0.833, ['dog'])
    """
    ap = average_precision(y_true, scores, ignore)
    if np.isnan(ap).all():
        raise ValueError("No class has a positive image, so there is no mAP: check the labels.")
    return MeanAP(float(np.nanmean(ap)), ap, _names(np.isnan(ap), class_names))


def f1(
    y_true: ArrayLike,
    scores: ArrayLike,
    threshold: float = 0.5,
    k: int | None = None,
    ignore: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
) -> F1:
    """Precision, recall and F1 of decisions: by class (CP, CR, CF1) and overall (OP, OR, OF1).

    CF1 is, as usual in the field, the harmonic mean of CP and CR, which are means over classes (and
    not the mean of the classes' F1). A class never predicted has precision 0. A class without
    positives is left out of CP and CR, and named. A quotient 0/0 counts as 0.

    Parameters
    ----------
    y_true : [n, C] of 0 and 1.
    scores : [n, C] finite scores.
    threshold : a class is predicted where its score is at least this; unused with k.
    k : predict instead the k best classes of each image; of equal scores the first class wins.
    ignore : [n, C] bool, pairs that count neither as right nor as wrong.
    class_names : C names for ``left_out``; None gives numbers.

    Raises
    ------
    ValueError
        As :func:`average_precision`, and if k is not from 1 to C.

    Examples
    --------
    >>> result = f1([[1, 1], [1, 0]], [[0.9, 0.2], [0.6, 0.7]])
    >>> float(result.CF1), round(result.OF1, 3)
    (0.5, 0.667)
    >>> round(f1([[1, 1], [1, 0]], [[0.9, 0.2], [0.6, 0.7]], k=1).OP, 3)
    0.5
    """
    y, scores, count = _check(y_true, scores, ignore)
    if k is None:
        predicted = scores >= threshold
    elif 1 <= k <= y.shape[1]:
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        predicted = np.zeros_like(y)
        np.put_along_axis(predicted, best, True, axis=1)
    else:
        raise ValueError(f"k must be from 1 to the number of classes, {y.shape[1]}: got {k}.")
    y, predicted = y & count, predicted & count

    right, said, there = (y & predicted).sum(0), predicted.sum(0), y.sum(0)
    with_positives = there > 0
    CP = float(_ratio(right, said)[with_positives].mean()) if with_positives.any() else 0.0
    CR = float(_ratio(right, there)[with_positives].mean()) if with_positives.any() else 0.0
    OP, OR = float(_ratio(right.sum(), said.sum())), float(_ratio(right.sum(), there.sum()))
    return F1(
        CP, CR, _harmonic(CP, CR), OP, OR, _harmonic(OP, OR), _names(~with_positives, class_names)
    )


def bootstrap_map(
    y_true: ArrayLike,
    scores: ArrayLike,
    n: int = 1000,
    seed: int = 0,
    ignore: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bootstrap interval of the mAP: (low, high), from n resamples of the images.

    The "basic" interval: mAP minus what the resamples' mAP is above it, quantile by quantile. A
    resample repeats images, which raises its AP a little, and the plain percentile interval is too
    high by twice that: in a simulation (1,000 images, 20 classes, mAP 0.33) its 95 % held the truth
    in 72 % of the trials, the basic interval in 93 %.

    Within a resample, as in :func:`mean_average_precision`, a class without positives is left out.

    Parameters
    ----------
    y_true, scores, ignore : as in :func:`average_precision`.
    n : resamples, each of as many images as there are, drawn with replacement.
    seed : of the resamples; the same seed and number of images give the same resamples.
    level : coverage, between 0 and 1.

    Raises
    ------
    ValueError
        As :func:`mean_average_precision`, and on n below 1 or a level out of range.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, (100, 3))
    >>> low, high = bootstrap_map(y, y + rng.normal(size=y.shape), n=200, seed=0)
    >>> bool(0.5 < low < high < 1)
    True
    """
    maps = _bootstrap(y_true, [scores], n, seed, ignore)[0]
    low, high = _basic_interval(mean_average_precision(y_true, scores, ignore).map, maps, level)
    return max(low, 0.0), min(high, 1.0)


def paired_bootstrap(
    y_true: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    n: int = 1000,
    seed: int = 0,
    ignore: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """By how much mAP `scores_a` is ahead of `scores_b`: (difference, low, high).

    The difference is mAP(a) - mAP(b) on the images as they are; the interval is the basic one, of
    the same difference over n resamples, in each of which both see the same images. Parameters and
    errors as in :func:`bootstrap_map`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, (100, 3))
    >>> good, poor = y + rng.normal(size=y.shape), rng.normal(size=y.shape)
    >>> difference, low, high = paired_bootstrap(y, good, poor, n=200, seed=0)
    >>> bool(0 < low < difference < high)
    True
    """
    maps_a, maps_b = _bootstrap(y_true, [scores_a, scores_b], n, seed, ignore)
    difference = (
        mean_average_precision(y_true, scores_a, ignore).map
        - mean_average_precision(y_true, scores_b, ignore).map
    )
    return (difference, *_basic_interval(difference, maps_a - maps_b, level))


def _bootstrap(
    y_true: ArrayLike,
    all_scores: Sequence[ArrayLike],
    n: int,
    seed: int,
    ignore: ArrayLike | None,
) -> np.ndarray:
    """[number of score arrays, n] the mAP of each in each resample."""
    if n < 1:
        raise ValueError(f"n must be 1 or more resamples: got {n}.")
    rankings = []
    for scores in all_scores:
        y, scores, count = _check(y_true, scores, ignore)
        classes = np.flatnonzero((y & count).any(axis=0))
        if len(classes) == 0:
            raise ValueError("No class has a positive image, so there is no mAP: check the labels.")
        rankings.append([_Ranking(y[:, c], scores[:, c], count[:, c]) for c in classes])
    maps = [
        [_nanmean(np.stack([ranking.ap(counts) for ranking in of_one])) for of_one in rankings]
        for counts in _resamples(len(y), n, seed)
    ]
    return np.concatenate(maps, axis=1)


def _resamples(n_images: int, n: int, seed: int, size: int = 100) -> Iterator[np.ndarray]:
    """How often each image is drawn in each resample, [n_images, up to `size`] at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, n, size):
        draws = rng.integers(n_images, size=(min(size, n - start), n_images))
        counts = [np.bincount(draw, minlength=n_images) for draw in draws]
        yield np.stack(counts, axis=1).astype(np.float64)


class _Ranking:
    """One class's images, sorted once, to take the average precision of any resample from.

    AP = sum over the thresholds of (recall gained) * (precision there). Recall is gained only at
    scores that a positive has, so the ranking is cut behind each of those: equal scores fall into
    one piece, as in scikit-learn.
    """

    def __init__(self, y: np.ndarray, scores: np.ndarray, count: np.ndarray) -> None:
        rows = np.flatnonzero(count)
        self.order = rows[np.argsort(-scores[rows], kind="stable")]
        y, scores = y[self.order], scores[self.order]
        _, first, group = np.unique(-scores, return_index=True, return_inverse=True)
        ends = np.append(first[1:], len(scores))[np.unique(group[y])]
        self.starts = np.concatenate([[0], ends[:-1]])
        self.positives = self.order[: ends[-1]][y[: ends[-1]]]
        self.positive_starts = np.searchsorted(np.flatnonzero(y), self.starts)
        self.order = self.order[: ends[-1]]

    def ap(self, counts: np.ndarray) -> np.ndarray:
        """[R] average precision under counts [n_images, R]; NaN where no positive was drawn."""
        gained = np.add.reduceat(counts[self.positives], self.positive_starts, axis=0)
        seen = np.add.reduceat(counts[self.order], self.starts, axis=0).cumsum(axis=0)
        found = gained.cumsum(axis=0)
        return _ratio((gained * _ratio(found, seen)).sum(axis=0), found[-1], empty=np.nan)


def _check(
    y_true: ArrayLike, scores: ArrayLike, ignore: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y and the mask of pairs that count as bool, scores as float, all [n, C]."""
    y, scores = np.asarray(y_true), np.asarray(scores)
    if y.ndim != 2 or y.size == 0 or scores.shape != y.shape:
        raise ValueError(
            f"y_true and scores must both be [images, classes], with at least one of each: "
            f"got {y.shape} and {scores.shape}."
        )
    if not np.isin(y, (0, 1)).all():
        raise ValueError("y_true must hold only 0 and 1: give unknown pairs as 0 and in `ignore`.")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise ValueError(f"The scores of image {row} hold NaN or infinite values: leave it out.")
    count = np.ones(y.shape, dtype=bool) if ignore is None else ~np.asarray(ignore, dtype=bool)
    if count.shape != y.shape:
        raise ValueError(f"ignore must be {y.shape} as y_true is: got {count.shape}.")
    return y.astype(bool), scores, count


def _names(where: np.ndarray, class_names: Sequence[str] | None) -> list:
    if class_names is not None and len(class_names) != len(where):
        raise ValueError(f"class_names must be {len(where)} names: got {len(class_names)}.")
    return [int(c) if class_names is None else class_names[c] for c in np.flatnonzero(where)]


def _ratio(a: ArrayLike, b: ArrayLike, empty: float = 0.0) -> np.ndarray:
    """a / b, and `empty` where b is 0."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b)
    return np.divide(a, b, out=np.full(a.shape, empty), where=b != 0)


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def _nanmean(ap: np.ndarray) -> np.ndarray:
    """[C, R] to [R]: mean over the classes that are not NaN, NaN where all are."""
    there = ~np.isnan(ap)
    return _ratio(np.where(there, ap, 0.0).sum(axis=0), there.sum(axis=0), empty=np.nan)


def _basic_interval(point: float, resampled: np.ndarray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1: got {level}.")
    resampled = resampled[~np.isnan(resampled)]
    if len(resampled) == 0:
        raise ValueError("No resample drew a positive image: take more resamples or images.")
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(2 * point - high), float(2 * point - low)
