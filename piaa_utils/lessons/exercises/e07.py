"""Notebook 07's checks: a checkpoint of other settings, AP, a stricter rule, a fitting run."""

from collections.abc import Callable
from typing import Any

import numpy as np

from piaa_utils.lessons.checks import CheckFailed, check_choice
from piaa_utils.lessons.exercises import check_table

NO, YES = np.zeros(3, dtype=bool), np.array([False, True, False])
AP_ROWS = (
    ((np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7]), NO), 5 / 6, "Hits at places 1 and 3."),
    ((np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7]), YES), 1.0, "The second picture is gone."),
    ((np.array([0, 0, 1]), np.array([0.1, 0.9, 0.5]), NO), 0.5, "Sort by score first."),
    ((np.array([1, 0, 0]), np.array([-0.9, -0.1, -0.5]), YES), 0.5, "Scores may be negative."),
)


def check_prediction(answer: Any, happened: str) -> None:
    """What a checkpoint does when the batch size is another."""
    right = "c" if "other settings" in happened else "a"
    wrong = {x: f"What happened: {happened}" for x in "abc" if x != right}
    why = "Another batch size may change the last bits, and a result is of one set of settings."
    check_choice(answer, right, wrong, "Exercise 1", why)


def check_ap(answer: Any) -> None:
    """AP of one class, difficult pictures left out."""
    check_table(answer, AP_ROWS, "Exercise 2")


def check_rule(answer: Any, by_protocol: Callable, scores: np.ndarray, sizes: np.ndarray) -> None:
    """A size that makes 20 labels or more difficult, and the protocols differ by under 3 points."""
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise CheckFailed(f"Exercise 3: one number of patches is wanted, not {answer!r}.")
    count = int(((sizes > 0) & (sizes < answer)).sum())
    if count < 20:
        raise CheckFailed(f"Exercise 3: only {count} labels are below {answer}: go up.")
    maps = by_protocol(scores, answer)
    gap = maps["ignored"] - maps["absent"]
    if gap >= 3:
        raise CheckFailed(f"Exercise 3: the protocols lie {gap:.1f} points apart: go down.")
    print(f"✓ Exercise 3 is right. {count} labels are difficult, the gap is {gap:.1f} points.")


def check_choice_of_run(answer: Any) -> None:
    """Which of four runs may stand in the paper's table."""
    wrong = {
        "a": "The first 500 pictures are another test set, and mAP moves with it.",
        "b": "Another CLIP is another method's number, however good it is.",
        "d": "PASCAL's protocol leaves those pairs out; the paper's counts them as absent.",
    }
    why = "Whole splits, the paper's CLIP and protocol; going on after a kill changes no bit."
    check_choice(answer, "c", wrong, "Exercise 4", why)
