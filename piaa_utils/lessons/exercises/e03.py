"""Notebook 03's checks: entropy, the sieve, a prediction, a word left out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from piaa_utils.lessons.checks import CheckFailed, check_choice, check_number
from piaa_utils.lessons.exercises import check_table
from piaa_utils.selection import PatchBank

_X = torch.tensor([[1.0, 0.0], [0.5**0.5, 0.5**0.5], [0.7, 0.714143]])
SURENESS_ROWS = (
    (
        (_X[:1], torch.tensor([[1.0, 0], [-1, 0]])),
        ([0.0], [0]),
        "0 log 0 is 0: torch's entr knows.",
    ),
    ((_X[2:], torch.eye(2)), ([0.61055], [1]), "Multiply the cosines by 60 before the softmax."),
    ((_X[1:2], torch.eye(2)[[0, 0]]), ([0.6931], [0]), "Nats: the natural logarithm."),
)
_H, _SAYS = torch.tensor([0.9, 0.1, 0.5, 0.2]), torch.tensor([0, 0, 1, 0])
SUREST_ROWS = (
    ((_H, _SAYS, 0, 2), [1, 3], "Positions in the whole list, the lowest entropy first."),
    ((_H, _SAYS, 1, 2), [2], "Only one patch names class 1."),
    ((_H, _SAYS, 0, 9), [1, 3, 0], "Fewer than k: all that name the class."),
)


def check_sureness(answer: Any) -> None:
    """Entropy and class of patches."""
    check_table(answer, SURENESS_ROWS, "Exercise 1", 1e-3)


def check_surest(answer: Any) -> None:
    """The k surest of one class."""
    check_table(answer, SUREST_ROWS, "Exercise 2")


def check_prediction(answer: Any, bank: PatchBank, truth: Tensor) -> None:
    """a: purity falls from K = 512 to 16, b: rises by less than 5 points, c: by more."""
    if not isinstance(answer, str):
        raise CheckFailed("Exercise 3: put a letter, a, b or c, in prediction.")
    pure = truth[bank.image_id, bank.patch_index] == bank.labels
    rank = torch.cat([torch.arange(k) for k in bank.counts.tolist()])
    few, all_of_them = (100 * float(pure[rank < k].float().mean()) for k in (16, bank.k))
    right = "a" if few < all_of_them else "b" if few < all_of_them + 5 else "c"
    said = f"Purity: {few:.0f} per cent at K = 16, {all_of_them:.0f} at K = {bank.k}."
    check_choice(answer, right, {x: said for x in "abc" if x != right}, "Exercise 3", said)


def check_left_out(
    answer: Any, patches: Tensor, text: Tensor, truth: Tensor, gone: int, names: Sequence[str]
) -> None:
    """How many rows of a bank without the class `gone` show it."""
    rest = [c for c in range(len(text)) if c != gone]
    bank = PatchBank(len(rest))
    bank.update(patches, text[rest], range(len(patches)))
    shown = truth[bank.image_id, bank.patch_index] == gone
    hint = f"Of {len(bank)} rows, count those whose patch shows {names[gone]}."
    check_number(answer, int(shown.sum()), "Exercise 4", 0.5, hint)
    under = Counter(names[rest[c]] for c in bank.labels[shown].tolist()).most_common(3)
    print(f"{names[gone]} is kept as {', '.join(f'{name} ({k} rows)' for name, k in under)}.")
