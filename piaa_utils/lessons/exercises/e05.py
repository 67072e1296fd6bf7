"""Notebook 05's checks: PAA, a shift of the logits, other scales, the best k."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from piaa_utils.lessons.checks import CheckFailed, check_choice, check_number
from piaa_utils.lessons.exercises import check_table
from piaa_utils.metrics import mean_average_precision

_ONE = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
PAA_ROWS = (  # T = 1, m = 1: e = (.8808, .7311); s = 0: [CLS] says a half
    (
        (_ONE, torch.zeros(2), 1.0, 1.0, 1.0),
        [0.5336, 0.4664],
        "Softmax over classes for each patch, then the maximum over patches, then softmax.",
    ),
    ((_ONE, torch.tensor([1.0, 0.0]), 10.0, 0.0, 1.0), [0.55, 0.45], "[CLS] counts a tenth."),
    ((_ONE, torch.zeros(2), 1.0, 1.0, 2.0), [0.5244, 0.4756], "Divide the logits by T."),
)


def check_paa(answer: Any) -> None:
    """PAA of one picture."""
    check_table(answer, PAA_ROWS, "Exercise 1", tolerance=2e-3)


def check_shift(answer: Any, moved_paa: float, moved_max: float) -> None:
    """What a constant for each patch does."""
    right = "c" if moved_paa > 1e-3 else "b" if abs(moved_max) > 0.1 else "a"
    wrong = {x: f"The scores moved by {moved_paa:.1g}." for x in "abc" if x != right}
    why = "A softmax over classes takes out what all classes of a patch share."
    check_choice(answer, right, wrong, "Exercise 2", why)


def check_scales(m_bank: Any, m_width: Any, m: float) -> None:
    """m D / (T n) stays."""
    check_number(m_bank, 4 * m, "Exercise 3, the bank", 1e-3, "Logits shrink with n: m makes up.")
    check_number(m_width, m / 4, "Exercise 3, the width", 1e-3, "Logits grow with D.")


def check_k(answer: Any, g: Tensor, y: np.ndarray) -> None:
    """The k whose mean of the best patches ranks pictures best."""
    if answer not in (1, 2, 4, 8, 16, 32, 64):
        raise CheckFailed(f"Exercise 4: one of 1, 2, 4, 8, 16, 32, 64 is wanted, not {answer!r}.")
    of_k = {
        k: mean_average_precision(y, g.topk(k, dim=1).values.mean(1).numpy()).map
        for k in (1, 2, 4, 8, 16, 32, 64)
    }
    best = max(of_k.values())
    hint = f"k = {answer} gives {of_k[answer]:.1f} mAP, and there is a k that gives {best:.1f}."
    check_number(of_k[answer], best, "Exercise 4", 0.05, hint)
