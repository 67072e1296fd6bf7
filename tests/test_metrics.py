"""The metrics against scikit-learn, and the bootstrap against explicit resamples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from piaa_utils.metrics import (
    _bootstrap,
    _Ranking,
    _resamples,
    average_precision,
    bootstrap_map,
    f1,
    mean_average_precision,
    paired_bootstrap,
)


def world(n=60, n_classes=5, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    y = (rng.random((n, n_classes)) < 0.25).astype(np.int8)
    scores = y + rng.normal(size=y.shape)
    return y, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties):
    y, scores = world(ties=ties)
    expected = [average_precision_score(y[:, c], scores[:, c]) for c in range(5)]
    np.testing.assert_array_equal(average_precision(y, scores), expected)
    result = mean_average_precision(y, scores)
    assert result.map == pytest.approx(np.mean(expected))
    assert result.left_out == []


def test_average_precision_by_hand():
    # Ranking of the only class: present, absent, present: (1/1 + 2/3) / 2.
    assert average_precision([[1], [0], [1]], [[3], [2], [1]])[0] == pytest.approx(5 / 6)


def test_a_class_without_positives_is_left_out_and_named():
    y, scores = world()
    y[:, 1] = y[:, 3] = 0
    result = mean_average_precision(y, scores, class_names=list("abcde"))
    assert result.left_out == ["b", "d"]
    assert np.isnan(result.per_class[[1, 3]]).all()
    assert result.map == pytest.approx(result.per_class[[0, 2, 4]].mean())
    assert mean_average_precision(y, scores).left_out == [1, 3]


def test_both_voc_protocols():
    # Ranking: a difficult pair, a positive, a negative.
    y, scores = np.array([[0], [1], [0]]), np.array([[3.0], [2.0], [1.0]])
    difficult = np.array([[True], [False], [False]])
    assert mean_average_precision(y, scores).map == pytest.approx(0.5)  # counts as absent
    assert mean_average_precision(y, scores, ignore=difficult).map == 1.0  # PASCAL's own


def test_ignored_pairs_leave_only_their_own_class():
    y, scores = world()
    ignore = np.random.default_rng(1).random(y.shape) < 0.3
    expected = [
        average_precision_score(y[~ignore[:, c], c], scores[~ignore[:, c], c]) for c in range(5)
    ]
    np.testing.assert_array_equal(average_precision(y, scores, ignore), expected)
    ignore[:, 2] = y[:, 2] == 1  # no positive of class 2 is left
    assert mean_average_precision(y, scores, ignore).left_out == [2]


@pytest.mark.parametrize("options", [{}, {"threshold": 0.2}, {"k": 1}, {"k": 3}, {"k": 5}])
def test_f1_is_scikit_learns(options):
    y, scores = world()
    if "k" in options:
        rank = (-scores).argsort(axis=1).argsort(axis=1)
        predicted = rank < options["k"]
    else:
        predicted = scores >= options.get("threshold", 0.5)
    result = f1(y, scores, **options)
    sklearn = {"y_true": y, "y_pred": predicted, "zero_division": 0}
    assert pytest.approx(precision_score(**sklearn, average="macro")) == result.CP
    assert pytest.approx(recall_score(**sklearn, average="macro")) == result.CR
    assert pytest.approx(2 * result.CP * result.CR / (result.CP + result.CR)) == result.CF1
    assert pytest.approx(precision_score(**sklearn, average="micro")) == result.OP
    assert pytest.approx(recall_score(**sklearn, average="micro")) == result.OR
    assert pytest.approx(f1_score(**sklearn, average="micro")) == result.OF1


def test_f1_at_its_edges():
    y, scores = np.array([[1, 0, 0], [1, 0, 1]]), np.array([[0.5, 0.9, 0.1], [0.4, 0.8, 0.2]])
    result = f1(y, scores, class_names=["a", "b", "c"])
    assert result.left_out == ["b"]  # predicted twice, never there
    assert (result.CP, result.CR) == (0.5, 0.25)  # a: 1/1 and 1/2; c: never predicted, 0 and 0/1
    assert (result.OP, result.OR) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    ignore = np.array([[False, True, False], [False, True, False]])
    assert f1(y, scores, ignore=ignore).OP == 1.0
    nothing = f1(0 * y, scores, threshold=2.0)
    assert nothing[:6] == (0, 0, 0, 0, 0, 0)
    assert nothing.left_out == [0, 1, 2]


def test_top_k_breaks_ties_by_class():
    assert f1([[1, 0, 0]], [[0.5, 0.5, 0.5]], k=1).OF1 == 1.0
    assert f1([[0, 0, 1]], [[0.5, 0.5, 0.5]], k=2).OF1 == 0.0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_weighted_average_precision_is_scikit_learns_on_the_resample(data):
    n = data.draw(st.integers(1, 12))
    y = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    y[data.draw(st.integers(0, n - 1))] = True
    scores = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    (ours,) = _Ranking(y, scores, np.ones(n, dtype=bool)).ap(counts[:, None].astype(float))
    drawn = np.repeat(np.arange(n), counts)
    if y[drawn].any():
        assert ours == pytest.approx(average_precision_score(y[drawn], scores[drawn]), abs=1e-12)
    else:
        assert np.isnan(ours)


@pytest.mark.parametrize(("ties", "with_ignore"), [(False, False), (True, True)])
def test_the_bootstrap_is_the_map_of_explicit_resamples(ties, with_ignore):
    y, scores = world(n=40, ties=ties)
    y[:, 4] = 0
    y[3, 4] = 1  # a class that many resamples miss
    ignore = np.random.default_rng(2).random(y.shape) < 0.2 if with_ignore else np.zeros(y.shape)
    ignore = ignore.astype(bool) & ~y.astype(bool)
    maps = _bootstrap(y, [scores], 130, 7, ignore)[0]
    counts = np.concatenate(list(_resamples(40, 130, 7)), axis=1).astype(int)
    assert (counts.sum(axis=0) == 40).all()
    missed = 0
    for resample in range(0, 130, 4):
        drawn = np.repeat(np.arange(40), counts[:, resample])
        expected = mean_average_precision(y[drawn], scores[drawn], ignore[drawn])
        assert maps[resample] == pytest.approx(expected.map, abs=1e-12)
        missed += 4 in expected.left_out
    assert missed > 3
    low, high = bootstrap_map(y, scores, n=130, seed=7, ignore=ignore, level=0.9)
    point = mean_average_precision(y, scores, ignore).map
    assert low == pytest.approx(max(0, 2 * point - np.quantile(maps, 0.95)))
    assert high == pytest.approx(min(1, 2 * point - np.quantile(maps, 0.05)))


def test_the_seed_decides_the_interval():
    y, scores = world()
    assert bootstrap_map(y, scores, n=50, seed=1) == bootstrap_map(y, scores, n=50, seed=1)
    assert bootstrap_map(y, scores, n=50, seed=1) != bootstrap_map(y, scores, n=50, seed=2)


def test_the_paired_bootstrap_sees_the_same_images_twice():
    y, a = world(n=200)
    b = a + 0.05 * np.random.default_rng(5).normal(size=a.shape)
    assert paired_bootstrap(y, a, a, n=50) == (0.0, 0.0, 0.0)
    difference, low, high = paired_bootstrap(y, a, b, n=200, seed=3)
    both = mean_average_precision(y, a).map - mean_average_precision(y, b).map
    assert difference == pytest.approx(both)
    maps = _bootstrap(y, [a, b], 200, 3, None)
    quantiles = np.quantile(maps[0] - maps[1], [0.975, 0.025])
    assert (low, high) == pytest.approx(tuple(2 * both - quantiles))
    one = bootstrap_map(y, a, n=200, seed=3)
    assert high - low < 0.5 * (one[1] - one[0]), "pairing takes the common noise out"
    assert paired_bootstrap(y, y, -y, n=50)[1] > 0 > paired_bootstrap(y, -y, y, n=50)[2]


Y, S = world(n=6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_precision(Y, S[:, :2]), "must both be"),
        (lambda: average_precision(Y[:0], S[:0]), "at least one of each"),
        (lambda: average_precision(Y - 1, S), "only 0 and 1"),
        (lambda: average_precision(Y, np.where(np.arange(6)[:, None] == 4, np.nan, S)), "image 4"),
        (lambda: average_precision(Y, S, ignore=Y[:2]), "ignore must be"),
        (lambda: mean_average_precision(0 * Y, S), "No class has a positive"),
        (lambda: mean_average_precision(Y, S, class_names=["cat"]), "class_names must be 5"),
        (lambda: f1(Y, S, k=6), "k must be from 1 to the number of classes, 5"),
        (lambda: f1(Y, S, k=0), "k must be from 1"),
        (lambda: bootstrap_map(0 * Y, S), "No class has a positive"),
        (lambda: bootstrap_map(Y, S, n=0), "n must be 1 or more"),
        (lambda: bootstrap_map(Y, S, level=1.0), "level must be between 0 and 1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_resamples_without_any_positive_are_left_out():
    y, scores = np.array([[1]] + 3 * [[0]]), np.array([[3.0], [2.0], [1.0], [0.0]])
    assert bootstrap_map(y, scores, n=50, seed=0) == (1.0, 1.0)
    seed = next(s for s in range(99) if next(_resamples(4, 1, s))[0, 0] == 0)
    with pytest.raises(ValueError, match="No resample drew a positive image"):
        bootstrap_map(y, scores, n=1, seed=seed)
