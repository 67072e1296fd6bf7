"""Notebook 08's checks: a class's vector, a prediction, the rule of tags, a limit."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from piaa_utils.lessons.checks import CheckFailed, check_choice
from piaa_utils.lessons.exercises import check_table

VECTOR_ROWS = (
    ((torch.tensor([[0.0, 2.0]]),), [0.0, 1.0], "The result has length 1."),
    ((torch.tensor([[3.0, 0.0], [0.0, 1.0]]),), [0.5**0.5] * 2, "Normalise each sentence first."),
)
ONE, TWO = np.array([[0.6, 0.3, 0.1]]), np.array([[0.2, 0.5, 0.3], [0.05, 0.15, 0.8]])
RULE_ROWS = (
    ((ONE, 1, 0.0), [[True, False, False]], "At most one tag: the best."),
    ((ONE, 3, 0.3), [[True, True, False]], "A score of exactly the threshold is enough."),
    ((TWO, 2, 0.25), [[False, True, True], [False, False, True]], "Both must hold."),
)


def check_vector(answer: Any) -> None:
    """The unit text vector of a class."""
    check_table(answer, VECTOR_ROWS, "Exercise 1")


def check_prediction(answer: Any, there: float, absent: float) -> None:
    """What background words are worth that name nothing in the pictures."""
    right = "a" if absent >= there / 2 else "b" if absent > 0 else "c"
    wrong = {
        x: f"They gave {absent:+.1f} points, the others {there:+.1f}." for x in "abc" if x != right
    }
    why = f"{absent:+.1f} points, beside {there:+.1f}."
    check_choice(answer, right, wrong, "Exercise 2", why)


def check_rule(answer: Any) -> None:
    """The table of tags."""
    check_table(answer, RULE_ROWS, "Exercise 3")


def check_limit(answer: Any, limits: Sequence[float], quality: Callable) -> None:
    """The lowest limit whose tags are right in 70 of 100 cases."""
    if isinstance(answer, bool) or not isinstance(answer, int | float | np.floating):
        raise CheckFailed(f"Exercise 4: one of the limits is wanted, not {answer!r}.")
    best = next(t for t in limits if quality(t)[0] >= 0.7)
    precision, recall = quality(answer)
    if precision < 0.7:
        raise CheckFailed(f"Exercise 4: only {precision:.0%} of the tags are right: go up.")
    if recall < quality(best)[1] - 1e-9:
        raise CheckFailed(f"Exercise 4: {recall:.0%} recall; a lower limit finds more: go down.")
    print("✓ Exercise 4 is right.")
