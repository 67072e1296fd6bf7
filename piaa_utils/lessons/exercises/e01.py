"""Notebook 01's checks: the gap's length, moved texts, a prediction, a class's head-room."""

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, tensor

from piaa_utils.lessons.checks import CheckFailed, check_number
from piaa_utils.lessons.exercises import check_table
from piaa_utils.lessons.lesson import Features

GAP_ROWS = (
    ((tensor([[1.0, 0.0]]), tensor([[0.0, 1.0]])), 2**0.5, "Take the length of a difference."),
    (
        (tensor([[1.0, 0], [0.8, 0.6]]), tensor([[0.0, 1], [0.6, 0.8]])),
        0.72**0.5,
        "The means are (0.9, 0.3) and (0.3, 0.9); the mean distance of pairs is another thing.",
    ),
    ((tensor([[1.0, 0], [0, 1]]), tensor([[0.5, 0.5]])), 0.0, "n and m may differ."),
)
MOVE_ROWS = (
    ((tensor([[0.0, 1.0]]), tensor([1.0, 0.0]), 1.0), [[0.5**0.5, 0.5**0.5]], "To unit length."),
    (
        (tensor([[1.0, 0], [0, 1]]), tensor([0.0, 3.0]), 0.5),
        [[0.5547, 0.83205], [0.0, 1.0]],
        "Each row by its own length: is it dim=-1?",
    ),
)


check_gap_length = partial(check_table, rows=GAP_ROWS, what="Exercise 1")
check_move = partial(check_table, rows=MOVE_ROWS, what="Exercise 2")


def check_prediction(answer: Any, seen: Features, text: Tensor) -> None:
    """The per cent of object patches whose name changes when all texts move by one vector."""
    x = seen.patches["vanilla"][seen.truth >= 0].double()
    t = text.double()
    changed = (x @ (t + x.mean(0) - t.mean(0)).T).argmax(-1) != (x @ t.T).argmax(-1)
    measured = 100 * float(changed.double().mean())
    hint = f"{measured:.1f} per cent change: what is added is the same for all classes of a patch."
    check_number(answer, measured, "Exercise 3", 2.0, hint)
    print(f"Measured: {measured:.1f} per cent of the patches name another class.")


def check_head_room(answer: Any, truth: Any, by_words: Any, by_oracle: Any) -> None:
    """The largest difference of a class's shares read right, in points."""
    right = [
        100 * float(np.mean(by_oracle[truth == c] == c) - np.mean(by_words[truth == c] == c))
        for c in np.unique(truth)
    ]
    if isinstance(answer, int | float) and abs(answer - max(right) / 100) < 1e-3:
        raise CheckFailed("Exercise 4: in points, please: times 100.")
    hint = "One class at a time, of its patches the oracle's share minus the words'; the largest."
    check_number(answer, max(right), "Exercise 4", 0.06, hint)
