"""What a result is worth: mAP with its interval, F1, and how well single patches are read.

mAP and its intervals are in per cent, all else is a share from 0 to 1. Pairs (image, class) of only
"difficult" objects count as absent (the paper's protocol) or, with `ignore`, not (PASCAL's own).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score

from piaa_utils.selection import PatchBank


class MeanAP(NamedTuple):
    """In per cent."""

    map: float  # mean over the classes with a positive
    per_class: np.ndarray  # [C], NaN for the others
    left_out: list  # the names (or numbers) of the others


class F1(NamedTuple):
    """CP, CR, CF1 average over classes, OP, OR, OF1 pool all decisions; left_out as in MeanAP."""

    CP: float
    CR: float
    CF1: float
    OP: float
    OR: float
    OF1: float
    left_out: list


class Interval(NamedTuple):
    """A mAP, or one's lead over another, with the ends of its interval; in per cent (points)."""

    point: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether all of the interval is: the lead is more than chance."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.point:+.1f} [{self.low:+5.1f}, {self.high:+5.1f}]"


def mean_average_precision(
    y: ArrayLike,
    scores: ArrayLike,
    ignore: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
) -> MeanAP:
    """Mean over classes of the average precision, the figure of the paper's table, in per cent.

    y : [n, C] of 0 and 1.    scores : [n, C], finite; only their order counts.
    ignore : [n, C] bool, pairs left out of the ranking of their class.
    class_names : C names for ``left_out``, the classes without positives; None gives numbers.

    No class with positives, and shapes or values that do not fit, are a ValueError.

    >>> y = [[1, 0], [0, 0], [1, 0]]
    >>> scores = [[0.9, 0.1], [0.8, 0.3], [0.7, 0.2]]
    >>> result = mean_average_precision(y, scores, class_names=["cat", "dog"])
    >>> round(result.map, 1), result.left_out
    (83.3, ['dog'])
    """
    ap = np.full(np.shape(y)[-1], np.nan)
    for c, _, labels, values in _rankings(y, scores, ignore):
        ap[c] = 100 * average_precision_score(labels, values)
    return MeanAP(float(np.nanmean(ap)), ap, _names(np.isnan(ap), class_names))


def f1(
    y: ArrayLike,
    scores: ArrayLike,
    threshold: float = 0.5,
    k: int | None = None,
    ignore: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
) -> F1:
    """Precision, recall and F1 of decisions: by class (CP, CR, CF1) and overall (OP, OR, OF1).

    CF1 is, as usual in the field, the harmonic mean of CP and CR (not the mean of the classes' F1).
    A class without positives is left out of CP and CR, and named. A quotient 0/0 counts as 0.
    k : predict, instead of scores from `threshold` on, the k best classes of each image.

    >>> result = f1([[1, 1], [1, 0]], [[0.9, 0.2], [0.6, 0.7]])
    >>> result.CF1, round(result.OF1, 3)
    (0.5, 0.667)
    """
    y, scores, count = _check(y, scores, ignore)
    if np.isnan(threshold).any() or (k is not None and k < 1):
        raise ValueError(f"Nothing is decided by {threshold=}, {k=}: give a number, 1 or more.")
    predicted = count & (scores >= threshold if k is None else _best(scores, k))
    y &= count
    right, said, there = (y & predicted).sum(0), predicted.sum(0), y.sum(0)
    known = there > 0
    CP, CR = (float(_ratio(right, n)[known].sum() / max(known.sum(), 1)) for n in (said, there))
    OP, OR = (float(_ratio(right.sum(), n.sum())) for n in (said, there))
    CF1, OF1 = (float(_ratio(2 * p * r, p + r)) for p, r in ((CP, CR), (OP, OR)))
    return F1(CP, CR, CF1, OP, OR, OF1, _names(~known, class_names))


def interval(
    y: ArrayLike,
    a: ArrayLike,
    b: ArrayLike | None = None,
    ignore: ArrayLike | None = None,
    n: int = 1000,
    level: float = 95,
    seed: int = 0,
) -> Interval:
    """The mAP of scores `a`, or with `b` by how much it is ahead of that of `b`, in points.

    A percentile bootstrap over images, of n resamples, the same for both; level in per cent.

    >>> y = np.tile([[0, 1], [1, 0], [1, 1]], (20, 1))
    >>> print(interval(y, y, -y, n=200))
    +33.3 [+27.5, +39.2]
    """
    if n < 1 or not 0 < level < 100:
        raise ValueError(f"An interval takes n from 1 and level from 0 to 100: {n=}, {level=}.")
    maps = _maps(_rankings(y, a, ignore), len(np.asarray(y)), n, seed)
    if b is not None:
        maps -= _maps(_rankings(y, b, ignore), len(np.asarray(y)), n, seed)
    tail = (100 - level) / 2
    return Interval(float(maps[0]), *np.nanpercentile(maps[1:], [tail, 100 - tail]).tolist())


def patch_accuracy(scores: ArrayLike, truth: ArrayLike) -> float:
    """Share of the patches on objects whose best-scoring class is theirs.

    scores : [n, N, C] of the patches.    truth : [n, N], as ``worlds.patch_truth`` gives it: the
    class that each shows, or below 0 none (-1 background, -2 void, -3 mixed).

    >>> patch_accuracy([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]], [[0, 1, -1]])
    0.5
    """
    best, truth = np.asarray(scores).argmax(axis=-1), np.asarray(truth)
    return float((best == truth)[truth >= 0].mean())


def within_picture_auc(scores: ArrayLike, truth: ArrayLike) -> float:
    """Mean area under the ROC curve, over pictures and the classes they show; 0.5 is chance.

    A class's score on its patches, against the picture's others; void and mixed are left out.

    >>> within_picture_auc([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]], [[0, 1, -1]])
    0.75
    """
    known = ((s[t >= -1], is_class[t >= -1]) for s, t, is_class in _shown(scores, truth))
    return float(np.mean([roc_auc_score(is_it, s) for s, is_it in known if not is_it.all()]))


def peak_on_object(scores: ArrayLike, truth: ArrayLike) -> float:
    """Share of (picture, class it shows) whose highest-scoring patch is a patch of that class.

    >>> peak_on_object([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]], [[0, 1, -1]])
    0.5
    """
    return float(np.mean([is_class[s.argmax()] for s, _, is_class in _shown(scores, truth)]))


def named_beyond_largest(scores: ArrayLike, areas: ArrayLike) -> float:
    """Share of the classes beside a picture's largest that its scores [n, C] name.

    It names as many as it shows; areas : [n, C] that a class covers, 0 where it is not shown.

    >>> named_beyond_largest([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1]], [[5, 2, 0], [5, 0, 2]])
    0.5
    """
    areas = np.asarray(areas)
    beyond = areas > 0
    named = _best(np.asarray(scores, dtype=np.float64), beyond.sum(axis=1, keepdims=True))
    beyond[np.arange(len(areas)), areas.argmax(axis=1)] = False
    return float(named[beyond].mean())


def purity(bank: PatchBank, truth: ArrayLike) -> tuple[float, float]:
    """Share of a bank's patches that show their class, and what patches drawn at random would give.

    truth : [images, N], see :func:`patch_accuracy`; its rows are the bank's image ids.

    >>> from torch import eye
    >>> bank = PatchBank(n_classes=2)
    >>> bank.update(eye(2)[None], text=eye(2), image_ids=[0])
    >>> purity(bank, [[0, -1]])
    (0.5, 0.25)
    """
    truth, rows = np.asarray(truth), bank.state()
    labels, images, patches = (rows[x].numpy() for x in ("labels", "image_id", "patch_index"))
    share = np.array([(truth == c).mean() for c in range(bank.n_classes)])
    return float((truth[images, patches] == labels).mean()), float(share[labels].mean())


def _best(scores: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """[n, C] bool, the k best classes of each row; of equal scores the first class wins."""
    return (-scores).argsort(axis=1, kind="stable").argsort(axis=1) < k


def _shown(scores: ArrayLike, truth: ArrayLike) -> Iterator[tuple[np.ndarray, ...]]:
    """Of each picture and class it shows: [N] the class's scores, the truth, where it is shown."""
    for picture, shown in zip(np.asarray(scores), np.asarray(truth), strict=True):
        for c in np.unique(shown[shown >= 0]):
            yield picture[:, c].astype(np.float64), shown, shown == c


def _maps(rankings: list[tuple], images: int, n: int, seed: int) -> np.ndarray:
    """[1 + n] per cent: the mAP of the images as they are, then of each resample; NaN without."""
    rng, maps = np.random.default_rng(seed), []
    for start in range(0, n + 1, 100):  # so many at a time, for the memory
        draws = rng.integers(images, size=(min(100, n + 1 - start), images))
        draws[: start == 0] = range(images)
        drawn = np.stack([np.bincount(draw, minlength=images) for draw in draws], axis=1)
        ap = [_average_precisions(y, scores, drawn[rows]) for _, rows, y, scores in rankings]
        maps.append(_ratio(np.nansum(ap, axis=0), np.isfinite(ap).sum(axis=0), empty=np.nan))
    return 100 * np.concatenate(maps)


def _average_precisions(y: np.ndarray, scores: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """[R] average precision of one class where image i is drawn[i, r] times; NaN without positives.

    The sum of (recall gained) * (precision there) over the positives' scores: the ranking is cut
    behind each, and equal scores fall into one piece, as in scikit-learn.
    """
    cuts = np.unique(-scores[y])
    piece = np.searchsorted(cuts, -scores)  # of each image; behind the last cut nothing counts
    seen = piece.argsort()[: (piece < len(cuts)).sum()]
    gained, added = (
        np.add.reduceat(drawn[rows], piece[rows].searchsorted(range(len(cuts))))
        for rows in (seen[y[seen]], seen)
    )
    precision = _ratio(gained.cumsum(axis=0), added.cumsum(axis=0))
    return _ratio((gained * precision).sum(axis=0), gained.sum(axis=0), empty=np.nan)


def _rankings(y: ArrayLike, scores: ArrayLike, ignore: ArrayLike | None) -> list[tuple]:
    """Of each class with positives: its number, the images that count, their labels and scores."""
    y, scores, count = _check(y, scores, ignore)
    classes = np.flatnonzero((y & count).any(axis=0))
    if not classes.size:
        raise ValueError("No class has a positive image, so there is no mAP: check the labels.")
    return [(c, count[:, c], y[count[:, c], c], scores[count[:, c], c]) for c in classes]


def _check(y: ArrayLike, scores: ArrayLike, ignore: ArrayLike | None) -> tuple[np.ndarray, ...]:
    """y and the mask of pairs that count as bool, scores as float64, all [n, C]."""
    y, values = np.asarray(y), np.asarray(scores, dtype=np.float64)
    count = ~np.zeros(y.shape, dtype=bool) if ignore is None else ~np.asarray(ignore, dtype=bool)
    if y.ndim != 2 or y.size == 0 or not y.shape == values.shape == count.shape:
        shapes = f"{y.shape}, {values.shape} and {count.shape}"
        raise ValueError(f"Labels, scores and ignore must all be [images, classes]: got {shapes}.")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("Labels must be only 0 and 1: give unknown pairs as 0 and in `ignore`.")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ValueError(f"The scores of image {bad[0]} hold NaN or infinite values: leave it out.")
    return y.astype(bool), values, count


def _names(where: np.ndarray, class_names: Sequence[str] | None) -> list:
    names: Sequence = range(len(where)) if class_names is None else class_names
    return [names[int(c)] for c in np.flatnonzero(where)]


def _ratio(a: ArrayLike, b: ArrayLike, empty: float = 0.0) -> np.ndarray:
    """a / b, and `empty` where b is 0."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b)
    return np.divide(a, b, out=np.full(a.shape, empty), where=b != 0)
