"""Notebook 02's checks: S(a), SC-CLIP's threshold, a beta for the scene, a prediction."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from piaa_utils.encoders import thresholded_affinity
from piaa_utils.lessons.checks import CheckFailed, check_choice, check_number
from piaa_utils.lessons.exercises import check_table
from piaa_utils.settings import Calibration

_A = torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 0]])  # d = 4: logits 4 / 2 and 0
_S = torch.tensor([[0.8808, 0.1192], [0.5, 0.5]])
S_ROWS = (
    ((_A,), _S, "Divide by √d before the softmax, and take it over the last dimension."),
    ((torch.stack([_A, 0 * _A]),), torch.stack([_S, torch.full((2, 2), 0.5)]), "Heads: use a.mT."),
)
SHARE_ROWS = (
    ((torch.tensor([[1.0, 0.6, 0.3]]), 0.4), [[0.625, 0.375, 0.0]], "Cut first, then divide."),
    ((torch.tensor([[1.0, 0.5], [0.3, 1.0]]), 0.5), [[2 / 3, 1 / 3], [0, 1]], "0.5 >= 0.5 stays."),
)
SHARE = 0.8  # of M_beta that stays at home
check_s = partial(check_table, rows=S_ROWS, what="Exercise 1")
check_share = partial(check_table, rows=SHARE_ROWS, what="Exercise 2")


def at_home(M: Tensor, truth: Tensor, beta: float) -> float:
    """How much of M_beta object patches give to their own class."""
    same = (truth[:, None] == truth) & (truth >= 0)
    weights = thresholded_affinity(M.cpu()[None], beta)[0]
    return float((weights * same).sum(-1)[truth >= 0].mean())


def check_beta(answer: Any, M: Tensor, truth: Tensor) -> None:
    """The smallest beta, in hundredths, that keeps SHARE at home."""
    right = next(b / 100 for b in range(100) if at_home(M, truth, b / 100) >= SHARE)
    number = answer if isinstance(answer, int | float) else float("nan")
    hint = f"There {at_home(M, truth, number):.2f} stays at home; {SHARE} is wanted, and no more."
    check_number(answer, right, "Exercise 3", 0.005, hint)
    print(f"{(M >= right).sum(-1).float().mean():.0f} of {len(M)} patches are a patch's friends.")


def check_prediction(
    answer: Any, accuracy_with: Callable[[Calibration], float], own: Calibration
) -> None:
    """a: within 5 points, b: the paper's constants are lower, c: they are higher."""
    if not isinstance(answer, str):
        raise CheckFailed("Exercise 4: put a letter, a, b or c, in prediction.")
    mine, papers = 100 * accuracy_with(own), 100 * accuracy_with(Calibration())
    right = "a" if abs(papers - mine) <= 5 else "b" if papers < mine else "c"
    said = f"Read right: {mine:.0f} per cent with its own constants, {papers:.0f} with the paper's."
    check_choice(answer, right, {x: said for x in "abc" if x != right}, "Exercise 4", said)
