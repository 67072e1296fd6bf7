"""Notebook 00: its checks pass what is right and say what is wrong; its explorer answers."""

import numpy as np
import pytest
import torch
from lesson_cells import cell_function, check_says

from piaa_utils.lessons import CheckFailed, Config, Scene
from piaa_utils.lessons.exercises import e00
from piaa_utils.plots import subplots


def ap(y, scores):
    y = y[np.argsort(-scores)]
    return (np.cumsum(y) / np.arange(1, len(y) + 1))[y == 1].mean()


def test_checks():
    def best(s, n, k):
        return [n[i] for i in np.argsort(-s)[:k]]

    lowest, all_of_them = lambda s, n, k: best(-s, n, k), lambda s, n, k: best(s, n, 9)
    wrong = {"The best comes first": lowest, "is expected": all_of_them}
    check_says(e00.check_names, best, wrong)

    def unsorted(y, s):
        return (np.cumsum(y) / np.arange(1, len(y) + 1))[y == 1].mean()

    check_says(e00.check_ap, ap, {"Sort by score": unsorted, "Hits at": lambda y, s: y.mean()})
    wrong = {"fell by 2.0 points": "c", "answer with one of": "?"}
    check_says(e00.check_prediction, "b", wrong, 2.0)


def test_fewer_names():
    config, scene = Config(device="cpu"), Scene("val", 0, [0, 1, 2], 2)
    few = ["bird", "boat", "bus"]
    e00.check_few(few, ["boat", "bird", "bus"], config, scene)
    assert e00.ranked(config, torch.randn(128), ...) == []
    for words, answer in (("3 to 6 names", few[:1]), ("not among the first two", few)):
        with pytest.raises(CheckFailed, match=words):
            e00.check_few(answer, ["boat", "bus", "bird"], config, scene)


def test_the_explorer_draws_any_picture():
    config, scores = Config(device="cpu"), {"[CLS]": torch.rand(3, 20), "PIAA": torch.rand(3, 20)}
    draw = cell_function(
        "00_start_here",
        "who_names_what",
        config=config,
        scores=scores,
        size=np.eye(3, 20),
        subplots=subplots,
    )
    for index in range(3):
        assert f"picture {index}" in draw(index, 5).alt_text
