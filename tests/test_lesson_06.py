"""Notebook 06: the explorer, the figures and the checks of the exercises."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from piaa_utils import ablation
from piaa_utils.aggregation import paa
from piaa_utils.constants import CONSTANTS
from piaa_utils.datasets import mini_long_classes
from piaa_utils.encoders import ENCODERS
from piaa_utils.lessons import CheckFailed, nb06, object_shares
from piaa_utils.metrics import average_precision, mean_average_precision
from piaa_utils.pipeline import PIAA
from piaa_utils.plots import Figure
from piaa_utils.purification import learn_classifier
from piaa_utils.selection import PatchBank

NAMES = ("cat", "dog", "bus")
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=np.int8)


class Pictures:
    """Four pictures of 32 x 32 pixels; the last has no mask."""

    def __init__(self):
        self.class_names, self.labels = NAMES, LABELS
        self.paths = [Image.new("RGB", (32, 32), (60 * i, 90, 120)) for i in range(4)]

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.paths[index]

    def masks(self, index):
        if index == 3:
            raise FileNotFoundError("no mask")
        mask = np.full((32, 32), -1, dtype=np.int16)
        for c in np.flatnonzero(LABELS[index]):
            mask[4 + 8 * c : 8 + 8 * c, 4:20] = c
        return mask


@pytest.fixture
def scenes():
    rng = np.random.default_rng(0)
    scores = {name: rng.dirichlet(np.ones(3), 4) for name in ("[CLS]", "PIAA")}
    return nb06.Scenes(Pictures(), rng.random((4, 3, 4, 4)), scores)


@pytest.fixture
def pairs(scenes):
    return table(scenes)


def table(scenes, lift=None):
    rng = np.random.default_rng(1)
    truth = rng.integers(-1, 3, (4, 16))
    truth[3] = -2
    shares = object_shares(scenes.data)
    piaa, cls = scenes.scores["PIAA"], scenes.scores["[CLS]"]
    peak = rng.integers(0, 16, (4, 3))
    lift = np.ones((3, 3)) if lift is None else lift
    return nb06.pair_table(LABELS, piaa, cls, shares, truth, peak, lift)


def test_the_explorer_shows_what_was_chosen(scenes):
    figures = [nb06.explore(i, name, scenes) for i, name in ((0, "cat"), (0, "bus"), (3, "bus"))]
    assert all(isinstance(f, Figure) for f in figures)
    assert len({f.alt_text for f in figures}) == 3
    assert "heat map of bus" in figures[1].alt_text and "(it shows cat)" in figures[1].alt_text
    assert figures[0].axes[0].get_title() == "cat (there)"
    assert figures[1].axes[0].get_title() == "bus (absent)"
    bars = [bar.get_width() for bar in figures[0].axes[2].patches]
    assert bars == sorted(bars, reverse=True)
    assert sum(bars) == pytest.approx(1)


def test_the_explorer_refuses_what_is_not_there(scenes):
    with pytest.raises(ValueError, match="There is no class 'cow': choose one of cat, dog, bus."):
        nb06.explore(0, "cow", scenes)
    with pytest.raises(ValueError, match="There is no picture 4: choose from 0 to 3."):
        nb06.explore(4, "cat", scenes)


def test_wrong_ahead_counts_absent_classes_only(scenes):
    scores = scenes.scores["PIAA"]
    ahead = nb06.wrong_ahead(scores, LABELS)
    for i, c in np.argwhere(LABELS):
        absent = [scores[i, k] > scores[i, c] for k in range(3) if not LABELS[i, k]]
        assert ahead[i, c] == sum(absent)
    assert np.isnan(ahead[LABELS == 0]).all()


def test_shares_of_objects_are_those_of_the_masks():
    shares = object_shares(Pictures())
    np.testing.assert_allclose(shares[1], [64 / 1024, 64 / 1024, 0])
    assert np.isnan(shares[3]).all()


def test_the_table_has_a_row_for_each_pair_with_a_mask(pairs, scenes):
    assert list(zip(pairs.picture, pairs.label, strict=True)) == [
        (0, 0), (1, 0), (1, 1), (2, 1), (2, 2)
    ]  # fmt: skip
    assert (pairs.gain == pairs.ahead_cls - pairs.ahead).all()
    assert all(LABELS[p, r] == 0 for p, r in zip(pairs.picture, pairs.rival, strict=True))
    assert not pairs.tiny.any() and not pairs.company.any()
    lift = np.full((3, 3), 3.0)
    assert table(scenes, lift).company.all()


def test_a_look_alike_has_its_best_patch_on_the_object():
    truth, peak = (
        np.array([[0, 1]]),
        np.array([[0, 1, 0]]),
    )  # the rival's best patch lies on class 0
    scores, shares = np.array([[0.2, 0.3, 0.5]]), np.array([[0.01, 0.5, 0.0]])
    labels = np.array([[1, 1, 0]])
    pairs = nb06.pair_table(labels, scores, scores, shares, truth, peak, np.eye(3))
    assert pairs.look_alike.tolist() == [True, False] and pairs.tiny.tolist() == [True, False]
    assert pairs.ahead.tolist() == [1, 1] and pairs.rival.tolist() == [2, 2]


def test_like_is_compared_with_like():
    """Small pairs are missed more and have company more; within a size company makes nothing."""
    half = [True] * 3 + [False] * 3 + [True, False]  # of the missed, and of the found
    small = {"share": 0.01, "ahead": [1] * 6 + [0] * 2, "company": half}
    large = {"share": 0.2, "ahead": [1] * 2 + [0] * 6, "company": [False] * 8}
    pairs = pd.concat([pd.DataFrame(small), pd.DataFrame(large)])
    missed, equal = pairs.ahead > 0, np.ones(len(pairs))
    assert pairs.company[missed].mean() > pairs.company[~missed].mean() + 0.2
    assert nb06.at_like_size(pairs, "company", equal, groups=2) == 0
    pairs.company = missed
    assert nb06.at_like_size(pairs, "company", equal, groups=2) == 100
    never_found = equal * missed.to_numpy()
    assert np.isnan(nb06.at_like_size(pairs, "company", never_found, groups=2))


def test_intervals_draw_whole_pictures():
    pairs = pd.DataFrame({"picture": [0] * 50 + [1] * 50, "gain": [0.0] * 50 + [1.0] * 50})
    value, low, high = nb06.interval(pairs, lambda w: np.average(pairs.gain, weights=w))
    assert (value, low, high) == (0.5, 0, 1)  # two pictures, not a hundred pairs


def test_reasons_in_words():
    pair = SimpleNamespace(
        picture=0,
        label=0,
        rival=2,
        partner=1,
        share=0.012,
        tiny=True,
        look_alike=True,
        company=True,
    )
    said = nb06.say_reason(pair, NAMES)
    assert said == (
        "tiny: 1.2 % of the picture; look-alike: the best patch for bus lies on it; "
        "company: bus often goes with dog"
    )
    pair.tiny = pair.look_alike = pair.company = False
    assert nb06.say_reason(pair, NAMES) == "none of the three; rival: bus"
    shares = np.array([[0.012, 0.3, 0.0]])
    assert nb06.say_gain(pair, shares, NAMES) == "1.2 % of the picture; the largest, dog, 30.0 %"
    assert nb06.say_gain(pair, shares[:, ::-1] * 0 + [[0.012, 0, 0]], NAMES).startswith("it is the")


def test_figures_say_what_they_show(pairs, scenes):
    gallery = nb06.gallery_figure(pairs[:2], ["one", "two"], scenes, "Best")
    assert gallery.alt_text.startswith("Best. 2 pictures") and "(two)" in gallery.alt_text
    both = pairs.assign(ahead=[0, 1, 0, 1, 2], tiny=[False, True, False, True, True])
    assert "missed, tiny: 100 %" in nb06.reason_figure(both).alt_text
    gains = np.array([[1.0, 0.5, 1.5], [np.nan] * 3, [-2.0, -3.0, -1.0]])
    text = nb06.gain_figure(gains, NAMES).alt_text
    assert "most for cat (+1.0 points), least for bus (-2.0)" in text and "1 below" in text
    ap = {"[CLS]": np.array([0.5, 0.25]), "its word": np.array([0.6, np.nan])}
    text = nb06.new_class_figure(ap, ("kite", "tree")).alt_text
    assert "kite: [CLS] 50.0, its word 60.0" in text


def test_marks_of_new_classes_do_not_hide_each_other():
    ap = {way: np.array([0.5, 0.25]) for way in ("[CLS]", "its word", "its patches")}
    heights = [line.get_ydata() for line in nb06.new_class_figure(ap, NAMES[:2]).axes[0].lines]
    np.testing.assert_allclose(heights, [[-0.15, 0.85], [0, 1], [0.15, 1.15]])


def test_classes_of_a_picture_have_their_own_colours():
    data, maps = Pictures(), np.zeros((2, 4, 4))
    maps[0, 0, 3], maps[1, 1, 1] = 1e-3, 1  # the first off its object, the second on it
    masks = [data.masks(1) == 0, data.masks(1) == 1]
    figure = nb06.classes_figure(data.paths[1], NAMES[:2], maps, (0.25, 0.1234), masks)
    assert "cat, score 0.250, highest patch off its object" in figure.alt_text
    assert "dog, score 0.123, highest patch on its object" in figure.alt_text
    assert [ax.get_title() for ax in figure.axes] == ["image", "cat 0.250", "dog 0.123"]
    five = nb06.classes_figure(data.paths[1], NAMES[:1] * 4, maps[[0] * 4], [0] * 4, masks[:1] * 4)
    assert not five.axes[5].axison


def test_gains_of_classes_are_differences_of_their_ap():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 3))
    labels[:, 2] = 0
    a, b = rng.random((2, 40, 3))
    gains = nb06.class_gains(labels, a, b, n=20)
    expected = 100 * (average_precision(labels, a) - average_precision(labels, b))
    np.testing.assert_allclose(gains[:, 0], expected)
    assert np.isnan(gains[2]).all() and (gains[:2, 1] <= gains[:2, 2]).all()


def test_intervals_hold_the_map():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, (60, 3)), torch.from_numpy(rng.random((60, 3)))
    (row,) = nb06.intervals({"[CLS]": scores}, labels, "test", n=50)
    assert row["value"] == pytest.approx(100 * mean_average_precision(labels, scores).map)
    assert row["low"] < row["value"] < row["high"] and row["set"] == "test"


def test_new_classes_are_new_and_labelled():
    config = SimpleNamespace(world="mini", class_names=mini_long_classes()[:20])
    config.dataset = lambda split: range(600)
    names, labels = nb06.new_classes(config, 3)
    assert not set(names) & set(config.class_names) and labels.shape == (600, 3)
    assert (np.diff(labels.sum(axis=0)) <= 0).all() and labels.any(axis=0).all()
    config.world = "voc07"
    names, labels = nb06.new_classes(config, 2)
    assert names == ("tree", "house") and not labels.any()


def test_the_shortest_time_is_taken():
    calls = []
    seconds = nb06.least_seconds(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2
    )
    assert calls == ["a", "b", "a", "b"] and min(seconds.values()) >= 0


def test_a_split_is_scored_in_parts():
    piaa = PIAA(NAMES)
    piaa.text_, piaa.coef_, piaa.intercept_ = torch.eye(3), torch.eye(3), torch.zeros(3)
    piaa.classes_, piaa.encoder_ = NAMES, "scclip"
    x = F.normalize(torch.randn(5, 4, 3), dim=-1)
    parts = nb06.score_split(piaa, x[:, 0], x, batch_size=2)
    np.testing.assert_allclose(parts, piaa.score_features(x, x[:, 0]), atol=1e-6)


def test_the_rows_of_the_notebook_are_those_of_the_ablation():
    text = torch.eye(4, 8)
    x = {name: F.normalize(torch.randn(3, 9, 8), dim=-1) for name in ("cls", *ENCODERS)}
    x["cls"] = x["cls"][:, 0]
    classifier = {"W": torch.randn(8, 4), "b": torch.randn(4)}
    rows = ablation.batch_scores(x, text, dict.fromkeys(ablation.PVCL, classifier))
    c = CONSTANTS["mini"]
    evidence = torch.softmax((x["scclip"] @ classifier["W"] + classifier["b"]) / 500, -1).amax(1)
    cls = torch.softmax(c["cls_scale"] * x["cls"] @ text.T, -1)
    whole = 0.9 * torch.softmax(c["patch_scale"] * evidence, -1) + 0.1 * cls
    torch.testing.assert_close(rows["+ PVCL, spread"], evidence)
    torch.testing.assert_close(rows["+ PVCL, spread + PAA = PIAA"], whole)


# Exercises

GAINS = np.array([[1.0, 0, 2], [np.nan] * 3, [3.0, 1, 5]])


@pytest.mark.parametrize("answer", ["bus", np.str_("bus")])
def test_exercise_1_accepts(answer, capsys):
    nb06.exercise_1(answer, GAINS, NAMES)
    assert "bus gains +3.0 points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("cat", r"cat gains \+1.0 points, and another"),
        (3.0, "name of a class"),
        ("x", "not 'x'"),
        (2, "the position"),
        (np.argmax([1, 0, 3]), "`names"),
        (True, "not True"),
    ],
)
def test_exercise_1_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        nb06.exercise_1(answer, GAINS, NAMES)


def test_exercise_2():
    nb06.exercise_2("C")
    for letter, message in (("a", "a fifth"), ("b", "on the road"), ("d", "a tenth")):
        with pytest.raises(CheckFailed, match=message):
            nb06.exercise_2(letter)


def test_exercise_3(capsys):
    pairs = pd.DataFrame({"ahead": [0, 2, 3, 0], "ahead_cls": [1, 0, 0, 0]})
    nb06.exercise_3(np.int64(-1), pairs)
    assert "Won 1, lost 2, of 4 pairs." in capsys.readouterr().out
    for answer, message in ((1, "too large"), (-3, "too small"), ("two", "one number")):
        with pytest.raises(CheckFailed, match=message):
            nb06.exercise_3(answer, pairs)


def by_word(W, b, omega, t, prior=None, half=0.5):
    new = -torch.log(torch.tensor(float(prior or len(b)))) - half * t @ omega @ t
    return torch.cat([W, (omega @ t)[:, None]], dim=1), torch.cat([b, new.reshape(1)])


def other_words(W, b, omega, t):
    """The same in NumPy's float64, with the prior of the longer list in all entries."""
    W, b, omega, t = (np.asarray(x, dtype=float) for x in (W, b, omega, t))
    shift = np.log(len(b)) - np.log(len(b) + 1)
    new = -np.log(len(b) + 1) - 0.5 * t @ omega @ t
    return np.column_stack([W, omega @ t]), np.append(b + shift, new)


@pytest.mark.parametrize("answer", [by_word, other_words])
def test_exercise_4_accepts(answer):
    nb06.exercise_4(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (partial(by_word, half=1.0), "value 1 of the result: entry 2"),
        (lambda W, b, omega, t: by_word(W, b, torch.eye(len(t)), t), "value 0 of the result"),
        (lambda *a: by_word(*a)[0], "2 values are wanted"),
        (lambda *a: None, "returned None"),
        ("W", "a function is wanted"),
        (lambda W, b, omega, t: (W, b), "value 0 of the result: the shape"),
    ],
)
def test_exercise_4_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        nb06.exercise_4(answer)


def ten_lines(learn, patches, cls, text, s, m, per_image=1, share=0.1):
    bank = PatchBank(len(text), per_image=per_image)
    bank.update(learn, text, range(len(learn)))
    W, b, _ = learn_classifier(bank, text, "spread" if per_image == 1 else None)
    return paa(patches @ W + b, cls, text, s, m, cls_weight=share)


def in_double(learn, patches, cls, text, s, m):
    return ten_lines(learn, patches, cls, text, s, m).double().numpy()


@pytest.mark.parametrize("answer", [ten_lines, in_double])
def test_exercise_5_accepts(answer):
    nb06.exercise_5(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (partial(ten_lines, per_image=None), "expected"),
        (partial(ten_lines, share=0.0), "expected"),
        (lambda *a: ten_lines(*a)[0], "shape"),
        (lambda *a: None, "returned None"),
    ],
)
def test_exercise_5_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        nb06.exercise_5(answer)
