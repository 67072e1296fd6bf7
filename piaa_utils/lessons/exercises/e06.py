"""Notebook 06's checks: the whole method, another style to learn from, the words alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from piaa_utils.aggregation import paa
from piaa_utils.classifier import Recipe
from piaa_utils.lessons.checks import CheckFailed, check_array, check_choice
from piaa_utils.lessons.lesson import Config, Features, features
from piaa_utils.settings import Scales


def check_whole(answer: Callable, config: Config) -> None:
    """From features to scores, on forty pictures."""
    if not callable(answer):
        raise CheckFailed(f"Exercise 1: a function is wanted, but this is {answer!r}.")
    x, text = features(config, "val_unseen"), config.text
    patches, (s, m, T, _) = x.patches["scclip"], config.scales
    bank = Recipe().bank(len(text))
    bank.update(patches[:40], text, range(40))
    W, b, _ = Recipe().learn(bank, text)
    right = paa(patches[40:44] @ W + b, x.cls[40:44], text, config.scales)
    given = answer(patches[:40], patches[40:44], x.cls[40:44], text, s, m, T)
    check_array(given, right, "Exercise 1", tolerance=2e-3)


def check_prediction(answer: Any, moved: float) -> None:
    """How far learning from the other styles moves mAP."""
    right = "a" if moved > 1 else "b" if moved >= -5 else "c"
    wrong = {x: f"It moved by {moved:+.1f} points." for x in "abc" if x != right}
    check_choice(answer, right, wrong, "Exercise 2", f"It moved by {moved:+.1f} points.")


def check_words(answer: Any, test: Features, text: Tensor, scales: Scales) -> None:
    """PAA with the words in the classifier's place."""
    cosines = 20 * test.patches["scclip"] @ text.T
    right = paa(cosines, test.cls, text, scales._replace(T=1.0))
    check_array(np.asarray(answer), right, "Exercise 3", tolerance=2e-3)
