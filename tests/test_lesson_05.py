"""Notebook 05: its explorer, its figures and the checks of its exercises."""

import numpy as np
import pytest
import torch

from piaa_utils import plots
from piaa_utils.aggregation import pool
from piaa_utils.lessons import CheckFailed, nb05, object_shares
from piaa_utils.metrics import average_precision, f1

N, C, GRID = 24, 4, 3
NAMES = ("cat", "dog", "cow", "bus")


class Pictures:
    """A data set of small pictures with masks, but for the last picture, which has none."""

    class_names = NAMES

    def __init__(self):
        rng = np.random.default_rng(0)
        self.labels = (rng.random((N, C)) < 0.5).astype(np.int8)
        self.labels[:3] = 1
        self.labels[3] = [1, 1, 0, 0]

    def __len__(self):
        return N

    def __getitem__(self, i):
        from PIL import Image

        return Image.fromarray(np.full((12, 12, 3), 10 * i, dtype=np.uint8))

    def masks(self, i):
        if i == N - 1:
            raise FileNotFoundError("no mask")
        mask = np.full((12, 12), -1)
        for c in np.flatnonzero(self.labels[i]):
            mask[3 * c : 3 * c + 3, : 1 + (i + c) % 11] = c
        return mask


@pytest.fixture
def pictures():
    return Pictures()


@pytest.fixture
def scored(pictures):
    generator = torch.Generator().manual_seed(1)
    evidence = 0.05 + 0.01 * torch.rand(N, C, generator=generator, dtype=torch.float64)
    cls = torch.softmax(torch.randn(N, C, generator=generator, dtype=torch.float64), dim=1)
    chosen = nb05.telling_pictures(pictures.labels, evidence.numpy(), cls.numpy())
    return nb05.Scored(evidence, cls, pictures, chosen)


# Sizes


def test_shares_are_counted_in_the_square_that_the_model_sees(pictures):
    shares = object_shares(pictures)
    assert shares.shape == (N, C) and np.isnan(shares[-1]).all()
    assert shares[0, 0] == pytest.approx(3 * 1 / 144)
    assert (shares[:-1][pictures.labels[:-1] == 0] == 0).all()


def test_size_groups_are_thirds_of_each_class(pictures):
    shares = object_shares(pictures)
    groups = nb05.size_groups(pictures.labels, shares)
    assert (groups[pictures.labels == 0] == -1).all() and (groups[-1] == -1).all()
    for c in range(C):
        counts = np.bincount(groups[groups[:, c] >= 0, c], minlength=3)
        assert counts.max() - counts.min() <= 1
        assert shares[groups[:, c] == 0, c].max() <= shares[groups[:, c] == 2, c].min()


def test_by_size_ranks_the_objects_of_one_size_against_the_negatives(pictures):
    groups = nb05.size_groups(pictures.labels, object_shares(pictures))
    scores = np.random.default_rng(2).random((N, C))
    rows = nb05.by_size(pictures.labels, groups, {"random": scores}, n=20)
    assert [row["size"] for row in rows] == list(nb05.SIZES)
    kept = (pictures.labels[:, 0] == 0) | (groups[:, 0] == 2)
    one = average_precision(pictures.labels[kept, :1], scores[kept, :1])[0]
    ignore = nb05.other_sizes(pictures.labels, groups, 2)
    assert average_precision(pictures.labels, scores, ignore)[0] == pytest.approx(one)
    assert all(row["low"] < row["high"] for row in rows)
    assert "random" in nb05.sizes_figure(rows).alt_text


def test_sizes_are_measured_apart():
    """Large objects are ranked first and small ones last, so each size has an AP of its own."""
    labels = np.zeros((40, 1), int)
    labels[:20] = 1
    groups = np.full((40, 1), -1)
    groups[:10], groups[10:20] = 2, 0
    groups[9], groups[10] = 1, 1
    scores = np.concatenate([np.full(10, 0.9), np.full(10, 0.1), np.full(20, 0.5)])[:, None]
    found = {r["size"]: r["value"] for r in nb05.by_size(labels, groups, {"s": scores}, n=20)}
    assert found[nb05.SIZES[2]] == pytest.approx(100) and found[nb05.SIZES[0]] < 40
    lines = nb05.compare(labels, groups, scores, -scores, n=50)
    assert lines[2].endswith("ahead") and lines[0].endswith("behind")


def test_shares_leave_out_what_the_model_does_not_see():
    class Wide:
        class_names = ("cat", "dog")

        def __len__(self):
            return 1

        def masks(self, _):
            mask = np.full((100, 300), 1)
            mask[:, :100] = 0  # left of the square in the middle
            return mask

    assert object_shares(Wide()).tolist() == [[0, 1]]


def test_compare_says_ahead_behind_or_not_shown(pictures):
    groups = nb05.size_groups(pictures.labels, object_shares(pictures))
    noise = np.random.default_rng(3).random((N, C))
    good = pictures.labels + 0.1 * noise
    for a, b, verdict in (
        (good, noise, "ahead"),
        (noise, good, "behind"),
        (noise, noise, "not shown"),
    ):
        lines = nb05.compare(pictures.labels, groups, a, b, n=50)
        assert len(lines) == 3 and all(line.endswith(verdict) for line in lines)


# Rankings, thresholds, figures


def test_detection_finds_small_objects_by_the_maximum_and_large_ones_by_the_mean():
    curves = nb05.detection([1, 196], {how: lambda x, h=how: pool(x, h) for how in ("mean", "max")})
    assert curves["max"][0] > curves["mean"][0] and curves["mean"][1] > curves["max"][1]
    assert "1 patch: max; for 196 patches: mean" in nb05.detection_figure([1, 196], curves).alt_text


def test_a_softmax_swaps_pictures_and_equal_scores_swap_nothing():
    e = torch.tensor([[0.60, 0.20, 0.20], [0.65, 0.60, 0.10]])
    soft = torch.softmax(10 * e, dim=1)
    assert nb05.swapped(e[:, :1], soft[:, :1]) == 1 and nb05.swapped(e, e) == 0
    assert "0.60, 0.65" in nb05.swap_figure(e, NAMES[:3], 10.0).alt_text


def test_reliability_lies_on_the_diagonal_for_calibrated_scores():
    rng = np.random.default_rng(4)
    scores = rng.random((5000, 2))
    bins = nb05.reliability(rng.random(scores.shape) < scores, scores)
    assert bins.shape == (10, 3) and bins[:, 2].sum() == scores.size
    np.testing.assert_allclose(bins[:, 0], bins[:, 1], atol=0.06)
    assert "random: the top bin" in nb05.reliability_figure({"random": bins}).alt_text


def test_own_thresholds_are_the_best_of_each_class(pictures):
    scores = np.random.default_rng(5).random((N, C))
    own = nb05.own_thresholds(pictures.labels, scores)
    for c in range(C):
        y, s = pictures.labels[:, [c]], scores[:, [c]]
        best = max(f1(y, s, threshold=t).OF1 for t in s.ravel())
        assert f1(y, s, threshold=own[c]).OF1 == pytest.approx(best)


def test_a_gain_in_f1_is_taken_on_the_same_pictures(pictures):
    y, scores = np.asarray(pictures.labels), np.random.default_rng(6).random((N, C))
    own = nb05.own_thresholds(y, scores)
    gain, low, high = nb05.f1_gain(y, scores, own, 0.9)
    by_hand = f1(y, scores - own, threshold=0).CF1 - f1(y, scores, threshold=0.9).CF1
    assert gain == pytest.approx(100 * by_hand) and 0 < gain and low < gain < high
    back = nb05.f1_gain(y, scores, 0.9, own)  # the same draws: the interval is turned round
    np.testing.assert_allclose(back, (-gain, -high, -low))


def test_each_figure_says_what_it_shows(pictures, scored):
    groups = nb05.size_groups(pictures.labels, object_shares(pictures))
    maps = torch.rand(N, GRID**2, C, generator=torch.Generator().manual_seed(0))
    x = np.array([1.0, 10.0])
    figures = {
        "average precision": nb05.evidence_figure(
            pictures.labels[:, 0],
            {"one": scored.evidence[:, 0], "two": scored.cls[:, 0]},
            "cat",
            ["a", "b"],
        ),
        "best 60.0 at 10": nb05.scales_figure(
            {"m": (x, [50, 60]), "s": (x, [70, 60])}, {"m": {"here": 2.0}, "s": {"here": 3.0}}
        ),
        "best at s = 5, m = 200": nb05.map_of_scales(
            np.array([[50.0, 60.0], [70.0, 55.0]]), [5, 80], [400, 200], {"here": (5, 200)}
        ),
        "Best on val: 0.5": nb05.weights_figure(
            [0, 0.5, 1], {"val": [(50, 45, 55), (60, 55, 65), (55, 50, 60)]}, 0.5
        ),
        "where patches gain most": nb05.gallery(
            pictures, maps, scored.evidence, scored.cls, groups
        ),
        "Chosen on val: 0.500": nb05.thresholds_figure(x, {"F1": [0.5, 0.6]}, 0.5),
    }
    for words, figure in figures.items():
        assert isinstance(figure, plots.Figure) and words in figure.alt_text


# The explorer


def test_the_explorer_shows_the_picture_and_the_map_that_belong_to_its_settings(scored):
    texts = set()
    for weight in (0.0, 0.1, 1.0):
        for picture in ("most classes", "patches better"):
            figure = nb05.explore(weight, 100.0, picture, scored)
            assert isinstance(figure, plots.Figure) and picture in figure.alt_text
            texts.add(figure.alt_text)
    assert len(texts) == 6
    alone = nb05.explore(1.0, 100.0, "most classes", scored)
    value = 100 * np.nanmean(average_precision(scored.dataset.labels, scored.cls.numpy()))
    assert f"mAP of all pictures {value:.1f} %" in alone.alt_text
    static = nb05.explore_static([(0.0, 10.0), (0.1, 10.0), (1.0, 10.0)], "most classes", scored)
    assert "weight 1, m = 10" in static.alt_text
    assert [ax.axison for ax in static.axes] == [True, True, True, False]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((1.5, 10.0, "most classes"), "weight must be from 0 to 1"),
        ((0.5, 0.0, "most classes"), "patch_scale must be above 0"),
        ((0.5, float("nan"), "most classes"), "patch_scale must be above 0"),
        ((0.5, 10.0, "no such"), "picture must be one of most classes"),
    ],
)
def test_the_explorer_refuses_bad_values_in_a_sentence(scored, settings, words):
    with pytest.raises(ValueError, match=words):
        nb05.explore(*settings, scored)


def test_true_classes_always_have_a_bar(scored):
    figure, ax = plots.subplots(alt_text="bars")
    i = scored.pictures["most classes"]
    nb05._bars(ax, 0.1, 100.0, i, scored, top=1)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert set(names) == {NAMES[c] for c in np.flatnonzero(scored.dataset.labels[i])}


# Exercises


def test_exercise_1_accepts_loops_and_numpy_and_names_what_is_wrong(capsys):
    def loop(scores, k):
        columns = np.asarray(scores, dtype=float).T
        return [sum(sorted(column)[-k:]) / min(k, len(column)) for column in columns]

    for right in (lambda s, k: s.topk(min(k, len(s)), dim=0).values.mean(dim=0), loop):
        nb05.exercise_1(right)
        assert "Exercise 1 is right" in capsys.readouterr().out
    wrong = {
        "expected": lambda s, k: s[:k].mean(dim=0),
        "shape": lambda s, k: s.sort(dim=0, descending=True).values[:k],
        "None": lambda s, k: None,
    }
    for words, function in wrong.items():
        with pytest.raises(CheckFailed, match=words):
            nb05.exercise_1(function)


def test_exercise_2(capsys):
    nb05.exercise_2("B ")
    assert "share the 1" in capsys.readouterr().out
    for letter, words in (("a", "sum to 1"), ("c", "flat"), ("d", "tell"), ("x", "letters")):
        with pytest.raises(CheckFailed, match=words):
            nb05.exercise_2(letter)


def test_exercise_3_accepts_any_form_and_names_what_is_wrong():
    def by_numpy(e, cosines, m, s, w):
        a, b = (np.exp(x) for x in (m * np.asarray(e), s * np.asarray(cosines)))
        return (1 - w) * a / a.sum(1, keepdims=True) + w * b / b.sum(1, keepdims=True)

    soft = torch.softmax
    nb05.exercise_3(lambda e, c, m, s, w: (1 - w) * soft(m * e, 1) + w * soft(s * c, 1))
    nb05.exercise_3(by_numpy)
    for wrong in (
        lambda e, c, m, s, w: w * soft(m * e, 1) + (1 - w) * soft(s * c, 1),
        lambda e, c, m, s, w: (1 - w) * soft(m * e, 0) + w * soft(s * c, 0),
        lambda e, c, m, s, w: (1 - w) * e + w * c,
    ):
        with pytest.raises(CheckFailed, match="Exercise 3, for the input"):
            nb05.exercise_3(wrong)


def test_exercise_4_is_the_weight_of_equal_movement(scored):
    patch, cls = scored.evidence, scored.cls
    nb05.exercise_4(patch.std() / (patch.std() + cls.std()), patch, cls)
    nb05.exercise_4(np.std(patch.numpy()) / (np.std(patch.numpy()) + cls.numpy().std()), patch, cls)
    with pytest.raises(CheckFailed, match="too large"):
        nb05.exercise_4(0.5, patch, cls)
    with pytest.raises(CheckFailed, match="one number"):
        nb05.exercise_4("half", patch, cls)


def test_exercise_5_accepts_any_best_threshold_and_names_what_is_wrong(capsys):
    def between(y, scores):  # half-way to the next lower score is as good
        ranked = sorted(scores)
        best = max(ranked, key=lambda t: f1(y[:, None], scores[:, None], threshold=t).OF1)
        lower = [t for t in ranked if t < best]
        return torch.tensor((best + lower[-1]) / 2 if lower else best)

    nb05.exercise_5(between)
    nb05.exercise_5(lambda y, s: max(s, key=lambda t: f1(y[:, None], s[:, None], threshold=t).OF1))
    assert capsys.readouterr().out.count("✓") == 2
    wrong = {
        "gives F1 0.000": lambda y, s: 0.99,
        "can be had": lambda y, s: s.min(),
        "one number": lambda y, s: s >= 0.5,
        "gives F1 0.500, and 0.667": lambda y, s: max(
            np.unique(s), key=lambda t: (y == (s >= t)).mean()
        ),
    }
    for words, function in wrong.items():
        with pytest.raises(CheckFailed, match=words):
            nb05.exercise_5(function)
    with pytest.raises(CheckFailed, match="function"):
        nb05.exercise_5(0.5)
