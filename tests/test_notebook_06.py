"""Notebook 06: its checks pass what is right and say what is wrong."""

import torch
from lesson_cells import cell_function, check_says

from piaa_utils.aggregation import paa
from piaa_utils.classifier import Recipe
from piaa_utils.lessons import Config
from piaa_utils.lessons.exercises import e06
from piaa_utils.lessons.lesson import Features
from piaa_utils.settings import Scales


def whole(learn, patches, cls, text, s, m, T):
    bank = Recipe().bank(len(text))
    bank.update(learn, text, range(len(learn)))
    W, b, _ = Recipe().learn(bank, text)
    return paa(patches @ W + b, cls, text, Scales(s, m, T))


def test_checks():
    def swapped(learn, patches, *rest):
        return whole(patches, patches, *rest)

    wrong = {"entry": swapped, "a function is wanted": ...}
    check_says(e06.check_whole, whole, wrong, Config(device="cpu"))
    wrong = {"moved by -2.0": "a", "answer with one of": "?"}
    check_says(e06.check_prediction, "b", wrong, -2.0)


def test_the_words_alone():
    x, cls, text = torch.randn(4, 9, 8), torch.randn(4, 8), torch.randn(5, 8)
    test, scales = Features(cls, {"scclip": x}, None, None), Scales(10.0, 20.0, 20.0)
    right = paa(20 * x @ text.T, cls, text, scales._replace(T=1.0)).numpy()
    divided = paa(20 * x @ text.T, cls, text, scales).numpy()
    check_says(e06.check_words, right, {"entry": divided, "shape": right[:1]}, test, text, scales)


def test_the_three_functions_are_in_the_notebook():
    for name in ("select", "gda", "aggregate"):
        assert callable(cell_function("06_whole_piaa", name))
