"""Notebook 04's checks: W and b, a cleaned bank, a prediction, Stage II for one class."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from piaa_utils.classifier import fit_gda
from piaa_utils.lessons.checks import CheckFailed, check_choice, check_number
from piaa_utils.lessons.exercises import check_table
from piaa_utils.selection import PatchBank

_MU, _OMEGA = torch.tensor([[1.0, 2.0], [-1.0, 2.0]]), torch.diag(torch.tensor([1.0, 0.25]))
_TALL = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])  # three classes: log 3 = 1.0986
LINEAR_ROWS = (
    ((_MU, _OMEGA), ([[1, -1], [0.5, 0.5]], [-1.6931, -1.6931]), "W is Omega times mu transposed."),
    (
        (_TALL, torch.eye(2)),
        ([[2, 0, 0], [0, 1, 0]], [-3.0986, -1.5986, -1.0986]),
        "b is the log of 1/C, less half of each mean's own square.",
    ),
)
KEEP_ROWS = (
    ((torch.tensor([0.5, 0.6, 0.6, 0.7, 0.9]),), [0, 0, 0, 0, 1], "The bar: mean plus deviation."),
    ((torch.ones(5),), [1, 1, 1, 1, 1], "A row at the bar stays: >=, not >."),
    ((torch.tensor([1.0, 1.0, 1.0, 1.0, 0.9]),), [0, 0, 0, 0, 0], "No q reaches that bar."),
    ((torch.tensor([0.0, 0.1, 0.9, 1.0]),), [0, 0, 0, 0], "Use the unbiased deviation."),
    ((torch.tensor([0.9]),), [0], "A lone row has no deviation, and goes."),
)


def check_linear(answer: Any) -> None:
    """W = Omega mu^T and b for equal priors."""
    check_table(answer, LINEAR_ROWS, "Exercise 1")


def check_cleaned(
    answer: Any, bank: PatchBank, truth: np.ndarray, text: Tensor, read: Callable[..., float]
) -> None:
    """The mAP after the bank's rows that do not show their class are removed."""
    p = bank.probs.gather(1, bank.labels[:, None]).squeeze(1)
    pure = torch.from_numpy(truth)[bank.image_id, bank.patch_index] == bank.labels
    gdas = [fit_gda(bank.features[k], bank.labels[k], p[k], text) for k in (pure, pure | True)]
    right, before = (read(gda.coef_.T, gda.intercept_) for gda in gdas)
    hint = f"Before the cleaning it was {before:.1f}; {pure.sum()} of {len(pure)} rows stay."
    check_number(answer, right, "Exercise 2", 0.05, hint)
    print(
        f"{pure.sum()} of {len(pure)} rows stay; wrong labels had cost {right - before:.1f} points."
    )


def check_prediction(answer: Any, point: Mapping[str, float]) -> None:
    """a: more than 2 points won, b: from 2 won to 8 lost, c: more than 8 lost."""
    if not isinstance(answer, str):
        raise CheckFailed("Exercise 3: put a letter, a, b or c, in prediction.")
    gain = point["gain"]
    right = "a" if gain > 2 else "b" if gain >= -8 else "c"
    said = f"The classifier changed {gain:+.1f} points; the head-room is {point['head-room']:+.1f}."
    check_choice(answer, right, {x: said for x in "abc" if x != right}, "Exercise 3", said)


def check_keep(answer: Any) -> None:
    """q >= mean + unbiased standard deviation; never a lone row."""
    check_table(answer, KEEP_ROWS, "Exercise 4")
