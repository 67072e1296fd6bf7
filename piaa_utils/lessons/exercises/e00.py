"""Notebook 00's checks: names of a picture, average precision, a prediction, fewer classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from piaa_utils.lessons.checks import CheckFailed, check_choice
from piaa_utils.lessons.exercises import check_table
from piaa_utils.lessons.lesson import Config, Scene

NAME_ROWS = (
    (
        (np.array([0.1, 0.7, 0.2]), ["cat", "dog", "bus"], 2),
        ["dog", "bus"],
        "The best comes first.",
    ),
    ((np.array([0.3, 0.1]), ["cat", "dog"], 1), ["cat"], "Return a list of k names."),
)
AP_ROWS = (
    ((np.array([1, 0, 1]), np.array([0.9, 0.8, 0.1])), 5 / 6, "Hits at places 1 and 3: 1/1, 2/3."),
    ((np.array([0, 1, 1]), np.array([0.1, 0.9, 0.5])), 1.0, "Sort by score first."),
    ((np.array([1, 0, 0]), np.array([0.1, 0.9, 0.5])), 1 / 3, "The only cat stands last: 1/3."),
)


def check_names(answer: Any) -> None:
    """The k names with the highest scores."""
    for given, right, hint in NAME_ROWS:
        if not callable(answer) or list(answer(*given) or []) != right:
            raise CheckFailed(f"Exercise 1: for {given}, {right} is expected. {hint}")
    print("✓ Exercise 1 is right.")


def check_ap(answer: Any) -> None:
    """AP of one class."""
    check_table(answer, AP_ROWS, "Exercise 2")


def check_prediction(answer: Any, fall: float) -> None:
    """What renaming one class of twenty did to the mAP of [CLS]."""
    right = "c" if fall > 30 else "b" if fall > 0 else "a"
    wrong = {x: f"The mAP fell by {fall:.1f} points." for x in "abc" if x != right}
    check_choice(answer, right, wrong, "Exercise 3", f"One class of twenty: {fall:.1f} points.")


def ranked(config: Config, cls: Tensor, few: Sequence[str]) -> list[str]:
    """[CLS]'s ranking of a few classes for one picture."""
    if not isinstance(few, list | tuple):
        return []
    text = config.backbone_.encode_text(few).cpu()
    return [few[i] for i in (cls @ text.T).argsort(descending=True).tolist()]


def check_few(answer: Any, ranking: list[str], config: Config, scene: Scene) -> None:
    """Three to six of the names, the smallest object among the first two."""
    name = config.class_names[scene.smallest]
    if not ranking or not 3 <= len(answer) <= 6 or not set(answer) <= set(config.class_names):
        raise CheckFailed("Exercise 4: a list of 3 to 6 names out of config.class_names is wanted.")
    if name not in ranking[:2]:
        raise CheckFailed(f"Exercise 4: {name} is not among the first two of {ranking}.")
    print("✓ Exercise 4 is right. Fewer rivals, and [CLS] seems to see more: mind the class list.")
