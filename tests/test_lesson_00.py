"""Notebook 00: figures, the explorer's callback, the checks of the exercises."""

import numpy as np
import pytest

from piaa_utils.datasets import mini_scenes
from piaa_utils.lessons import CheckFailed, nb00

DATA = mini_scenes("val")
SCORES = np.random.default_rng(0).random((len(DATA), 20))


def test_class_pixels_are_zero_without_a_mask(monkeypatch):
    def masks(_index):
        raise FileNotFoundError

    data = mini_scenes("val")
    assert nb00.class_pixels(data).sum() > 0
    monkeypatch.setattr(data, "masks", masks)
    assert nb00.class_pixels(data).sum() == 0


def test_named_counts_as_many_guesses_as_there_are_classes():
    scores = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])
    labels = np.array([[0, 1, 1, 0], [0, 0, 0, 1]])
    assert nb00.named(scores, labels).tolist() == [
        [False, True, False, False],
        [False, False, False, True],
    ]


@pytest.mark.parametrize(("picture", "show"), [(0, 8), (3, 5), (149, 20)])
def test_explorer_says_what_each_method_names(picture, show):
    figure = nb00.explore(picture, show, DATA, {"[CLS]": SCORES, "PIAA": 1 - SCORES})
    best, worst = SCORES[picture].argmax(), SCORES[picture].argmin()
    ranked = figure.alt_text.split("ranks highest ")
    assert ranked[1].startswith(DATA.class_names[best])
    assert ranked[2].startswith(DATA.class_names[worst])
    assert figure.get_figwidth() <= 13  # inches: two methods fit a projected page
    bars = figure.axes[1].patches
    assert len(bars) == show and bars[0].get_width() == SCORES[picture].max()


def test_explorer_refuses_what_is_not_there():
    with pytest.raises(ValueError, match="no picture 150"):
        nb00.explore(150, 8, DATA, {"[CLS]": SCORES})
    with pytest.raises(ValueError, match="show must be from 1 to the 20 classes: got 0"):
        nb00.explore(0, 0, DATA, {"[CLS]": SCORES})


def test_exercise_1():
    nb00.exercise_1(lambda s, names, k: [names[i] for i in np.argsort(-s)[:k]])
    nb00.exercise_1(lambda s, names, k: tuple(n for _, n in sorted(zip(-s, names))[:k]))  # noqa: B905
    with pytest.raises(CheckFailed, match=r"k = 1 it gave \['cat'\], expected \['dog'\]"):
        nb00.exercise_1(lambda s, names, k: [names[i] for i in np.argsort(s)[:k]])
    with pytest.raises(CheckFailed, match="it gave dog, expected"):
        nb00.exercise_1(lambda s, names, k: names[s.argmax()])
    with pytest.raises(CheckFailed, match="returned None"):
        nb00.exercise_1(lambda s, names, k: None)


def test_exercise_2():
    def loop(y, scores):
        found, total = 0, 0.0
        for place, i in enumerate(sorted(range(len(y)), key=lambda i: -scores[i]), start=1):
            found += y[i]
            total += y[i] * found / place
        return total / sum(y)

    nb00.exercise_2(loop)
    with pytest.raises(CheckFailed, match="Exercise 2, for the input"):
        nb00.exercise_2(lambda y, scores: y[np.argsort(scores)].mean())


def test_exercise_3():
    nb00.exercise_3("b")
    with pytest.raises(CheckFailed, match="not d. A larger scale"):
        nb00.exercise_3("d")


def test_exercise_4():
    scores, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[1, 0], [1, 0]])
    nb00.exercise_4(0.5, scores, labels)
    with pytest.raises(CheckFailed, match="1 is too large. Take argmax over classes"):
        nb00.exercise_4(1.0, scores, labels)
