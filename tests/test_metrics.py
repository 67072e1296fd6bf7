"""The metrics against scikit-learn, the bootstrap against explicit resamples, the rest by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from piaa_utils import metrics
from piaa_utils.metrics import Interval, f1, interval, mean_average_precision, within_picture_auc
from piaa_utils.selection import PatchBank


def world(n=60, n_classes=5, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    y = (rng.random((n, n_classes)) < 0.25).astype(np.int8)
    scores = y + rng.normal(size=y.shape)
    return y, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties):
    y, scores = world(ties=ties)
    expected = [100 * sk.average_precision_score(y[:, c], scores[:, c]) for c in range(5)]
    result = mean_average_precision(y, scores)
    np.testing.assert_array_equal(result.per_class, expected)
    assert result.map == pytest.approx(np.mean(expected))
    assert result.left_out == []
    ignore = np.random.default_rng(1).random(y.shape) < 0.3  # it leaves only its own class
    kept = [(y[~ignore[:, c], c], scores[~ignore[:, c], c]) for c in range(5)]
    expected = [100 * sk.average_precision_score(*pair) for pair in kept]
    np.testing.assert_array_equal(mean_average_precision(y, scores, ignore).per_class, expected)
    y[:, 1] = y[:, 3] = 0  # without positives, a class is left out and named
    result = mean_average_precision(y, scores, class_names=list("abcde"))
    assert result.left_out == ["b", "d"] and np.isnan(result.per_class[[1, 3]]).all()
    assert result.map == pytest.approx(result.per_class[[0, 2, 4]].mean())


@pytest.mark.parametrize("options", [{}, {"threshold": 0.2}, {"k": 1}, {"k": 3}, {"k": 5}])
def test_f1_is_scikit_learns(options):
    y, scores = world()
    best = (-scores).argsort(axis=1).argsort(axis=1) < options.get("k", 0)
    predicted = best if "k" in options else scores >= options.get("threshold", 0.5)
    result = f1(y, scores, **options)
    given = {"y_true": y, "y_pred": predicted, "zero_division": 0}
    assert pytest.approx(sk.precision_score(**given, average="macro")) == result.CP
    assert pytest.approx(sk.recall_score(**given, average="macro")) == result.CR
    assert pytest.approx(2 * result.CP * result.CR / (result.CP + result.CR)) == result.CF1
    assert pytest.approx(sk.precision_score(**given, average="micro")) == result.OP
    assert pytest.approx(sk.recall_score(**given, average="micro")) == result.OR
    assert pytest.approx(sk.f1_score(**given, average="micro")) == result.OF1


def test_f1_at_its_edges():
    y, scores = np.array([[1, 0, 0], [1, 0, 1]]), np.array([[0.5, 0.9, 0.1], [0.4, 0.8, 0.2]])
    result = f1(y, scores, class_names=["a", "b", "c"])
    assert result.left_out == ["b"]  # predicted twice, never there
    assert (result.CP, result.CR) == (0.5, 0.25)  # a: 1/1 and 1/2; c: never predicted, 0 and 0/1
    assert (result.OP, result.OR) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    ignore = np.array([[False, True, False], [False, True, False]])
    assert f1(y, scores, ignore=ignore).OP == 1.0
    assert f1(y, scores, ignore=[[False] * 3, [True, False, True]]).OR == 1.0  # neither was missed
    assert f1([[1, 0, 0]], [[0.5, 0.5, 0.5]], k=1).OF1 == 1.0, "a tie goes to the first class"
    nothing = f1(0 * y, scores, threshold=2.0)
    assert nothing[:6] == (0, 0, 0, 0, 0, 0)
    assert nothing.left_out == [0, 1, 2]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_weighted_average_precision_is_scikit_learns_on_the_resample(data):
    n = data.draw(st.integers(1, 12))
    y = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    y[data.draw(st.integers(0, n - 1))] = True
    scores = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    (ours,) = metrics._average_precisions(y, scores.astype(float), counts[:, None])
    drawn = np.repeat(np.arange(n), counts)
    if y[drawn].any():
        assert ours == pytest.approx(sk.average_precision_score(y[drawn], scores[drawn]), abs=1e-12)
    else:
        assert np.isnan(ours)


def explicit(y, all_scores, ignore, n, seed):
    """[number of score arrays, n] the mAP of each resample, picture by picture."""
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(y), size=len(y)) for _ in range(n + 1)][1:]
    return np.array(
        [[mean_average_precision(y[d], s[d], ignore[d]).map for d in draws] for s in all_scores]
    )


@pytest.mark.parametrize(("ties", "with_ignore"), [(False, False), (True, True)])
def test_the_interval_is_the_percentiles_of_explicit_resamples(ties, with_ignore):
    y, scores = world(n=40, ties=ties)
    y[:, 4] = 0
    y[3, 4] = 1  # a class that many resamples miss
    ignore = np.random.default_rng(2).random(y.shape) < 0.2 if with_ignore else np.zeros(y.shape)
    ignore = ignore.astype(bool) & ~y.astype(bool)
    (maps,) = explicit(y, [scores], ignore, 130, 7)
    value = interval(y, scores, ignore=ignore, n=130, level=90, seed=7)
    assert value.point == pytest.approx(mean_average_precision(y, scores, ignore).map)
    assert value[1:] == pytest.approx(np.quantile(maps, [0.05, 0.95]), abs=1e-9)


def test_the_interval_of_a_lead_is_of_the_same_pictures():
    y, a = world(n=60)
    b = a + 0.05 * np.random.default_rng(5).normal(size=a.shape)
    assert interval(y, a, a, n=50) == (0, 0, 0)
    value = interval(y, a, b, n=120, seed=3)
    both = mean_average_precision(y, a).map - mean_average_precision(y, b).map
    maps = explicit(y, [a, b], np.zeros(y.shape, dtype=bool), 120, 3)
    assert value.point == pytest.approx(both)
    assert value[1:] == pytest.approx(np.quantile(maps[0] - maps[1], [0.025, 0.975]), abs=1e-9)
    alone = interval(y, a, n=120, seed=3)
    assert value.high - value.low < 0.5 * (alone.high - alone.low), "the common noise is out"
    assert interval(y, y, -y, n=50).above_zero and not interval(y, -y, y, n=50).above_zero
    assert not Interval(1.0, 0.0, 2.0).above_zero
    assert str(Interval(2.34, -1.06, 3.4)) == "+2.3 [ -1.1,  +3.4]"
    assert interval(y, a, n=50, seed=1) == interval(y, a, n=50, seed=1)
    only = np.array([[1]] + 3 * [[0]])  # resamples without it are left out
    assert interval(only, 1.0 * only, n=50, seed=0) == (100, 100, 100)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32])
def test_scores_of_any_type_count_as_the_same_numbers(dtype):
    """Negated, unsigned numbers wrap around: 0 would be the best."""
    rng = np.random.default_rng(0)
    y, scores = rng.integers(0, 2, (200, 4)), rng.integers(0, 99, (200, 4)) + 0.0
    same, shown = scores.astype(dtype), np.where(y, y * [4, 3, 2, 1], 0)
    assert mean_average_precision(y, same)[0] == mean_average_precision(y, scores)[0]
    assert f1(y, same, k=2) == f1(y, scores, k=2)
    lead = interval(y, scores, 99 - scores, n=50)
    assert interval(y, same, (99 - scores).astype(dtype), n=50) == lead
    assert metrics.named_beyond_largest(same, shown) == metrics.named_beyond_largest(scores, shown)


# Two pictures of four patches, three classes. Truth: 2 classes and background; class 1 beside a
# void and a mixed patch.
TRUTH = np.array([[0, 0, 2, -1], [1, -1, -2, -3]])
SCORES = np.array(
    [
        [[0.9, 0.0, 0.1], [0.2, 0.8, 0.1], [0.1, 0.1, 0.3], [0.8, 0.1, 0.2]],
        [[0.6, 0.5, 0.0], [0.0, 0.4, 0.1], [0.0, 0.9, 0.0], [0.9, 0.7, 0.0]],
    ]
)


def test_measures_of_patches_by_hand():
    # Read right: patches 0 and 2 of the first picture; of the second, class 0 wins over 1.
    assert metrics.patch_accuracy(SCORES, TRUTH) == 2 / 4
    # Class 0: 0.9 beats both others, 0.2 beats one of two: 3/4. Class 2: 0.3 beats all three: 1.
    # Class 1: 0.5 beats the background's 0.4; the void 0.9 and the mixed 0.7 do not count: 1.
    assert within_picture_auc(SCORES, TRUTH) == pytest.approx((3 / 4 + 1 + 1) / 3)
    # Peaks: class 0 on its own, class 2 too, class 1 on the void patch.
    assert metrics.peak_on_object(SCORES, TRUTH) == pytest.approx(2 / 3)
    # Beside the largest. First picture: 3 classes, named 1, 2, 3: both. Second: 2 classes, named 3,
    # 0: none. Third: its only class is its largest, and nothing counts.
    areas = [[50, 20, 0, 5], [0, 7, 90, 0], [0, 100, 0, 0]]
    scores = [[0.1, 0.9, 0.8, 0.7], [0.8, 0.2, 0.1, 0.9], [0.9, 0.1, 0.1, 0.1]]
    assert metrics.named_beyond_largest(scores, areas) == pytest.approx(2 / 3)
    alone = [[0, 0, -3, -2], TRUTH[0]]  # a picture of one class alone has no curve
    assert within_picture_auc(SCORES[[0, 0]], np.array(alone)) == pytest.approx((3 / 4 + 1) / 2)


def test_the_curve_within_pictures_is_scikit_learns_and_ties_count_half():
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(-3, 4, (5, 30)), rng.integers(0, 5, (5, 30, 4))
    known = [(of[of > -2], s[of > -2]) for of, s in zip(truth, scores, strict=True)]
    pairs = [(of == c, s[:, c]) for of, s in known for c in range(4) if (of == c).any()]
    expected = np.mean([sk.roc_auc_score(*pair) for pair in pairs])
    assert within_picture_auc(scores, truth) == pytest.approx(expected)
    assert within_picture_auc(0 * scores, truth) == 0.5


def test_purity_by_hand():
    bank, text = PatchBank(2, k=3), torch.eye(2)
    images = torch.tensor([[[1.0, 0], [0.8, 0.6], [0, 1]], [[0.8, 0.6], [0.96, 0.28], [0, 1]]])
    bank.update(images, text, [1, 0])
    # Kept: of class 0 three of four (image 0: both; image 1: patch 0), of class 1 both.
    assert bank.counts.tolist() == [3, 2]
    truth = np.array([[0, 0, -1], [0, 1, 1]])  # wrong: patch 2 of image 0
    base_rate = (3 * 3 / 6 + 2 * 2 / 6) / 5
    assert metrics.purity(bank, truth) == (pytest.approx(4 / 5), pytest.approx(base_rate))


Y, S = world(n=6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_average_precision(Y, S[:, :2]), r"must all be .* \(6, 5\), \(6, 2\)"),
        (lambda: mean_average_precision(Y[0], S[0]), r"must all be \[images, classes\]"),
        (lambda: mean_average_precision(Y - 1, S), "only 0 and 1"),
        (lambda: f1(Y, np.where(np.arange(6)[:, None] == 4, np.nan, S)), "image 4 hold NaN"),
        (lambda: mean_average_precision(0 * Y, S), "No class has a positive"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
