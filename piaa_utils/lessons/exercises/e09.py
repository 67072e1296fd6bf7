"""Notebook 09's checks: merging, a shard left out, the size of shards."""

from collections.abc import Callable
from typing import Any

from piaa_utils.lessons.checks import CheckFailed, check_choice

MERGE_ROWS: tuple[tuple[list, list, int, list, str], ...] = (  # a, b, k, right, hint
    ([(0.1, 0, 0)], [(0.2, 1, 0)], 1, [(0.1, 0, 0)], "At most k rows."),
    ([(0.3, 0, 0)], [(0.2, 1, 0)], 2, [(0.2, 1, 0), (0.3, 0, 0)], "The lowest entropy first."),
    ([(0.2, 4, 0)], [(0.2, 1, 9)], 1, [(0.2, 1, 9)], "A tie goes to the smaller image."),
    ([], [(0.2, 1, 1)], 2, [(0.2, 1, 1)], "A bank may be empty."),
)
MOST_HOURS = 0.3


def check_merge(answer: Callable) -> None:
    """Two sorted lists of (entropy, image, patch) to one of at most k."""
    for a, b, k, right, hint in MERGE_ROWS:
        given = answer(list(a), list(b), k) if callable(answer) else answer
        if given != right:
            raise CheckFailed(f"Exercise 1: {a} and {b}, k = {k}: {given!r}, not {right}. {hint}")
    print("✓ Exercise 1 is right.")


def check_share(answer: Any, share: float) -> None:
    """What is left of the whole bank without one shard of eight."""
    right = "a" if share > 0.97 else "b" if share >= 0.5 else "c"
    wrong = {x: f"{share:.2f} of the rows are still there." for x in "abc" if x != right}
    why = "A row of another shard is never lost; the rest is filled with the next best."
    check_choice(answer, right, wrong, "Exercise 2", why)


def check_shard(answer: Any, hours: Callable) -> None:
    """A size of shards that keeps a thousand workers busy to the end."""
    if not isinstance(answer, int) or answer < 64:
        raise CheckFailed(f"Exercise 3: a whole number from 64 on is wanted, not {answer!r}.")
    found = hours(1e7, 1000, 0.1, 0.1, answer)
    if found >= MOST_HOURS:
        raise CheckFailed(
            f"Exercise 3: shards of {answer} take {found:.3f} hours, not < {MOST_HOURS}."
        )
    print(f"✓ Exercise 3 is right. {found:.3f} hours: small shards leave no worker waiting.")
