"""The checks of the exercises, one file a notebook: tables of input, what is right, and a hint."""

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from typing import Any

from piaa_utils.lessons.checks import CheckFailed, check_function


def check_table(
    function: Callable, rows: Iterable[tuple[tuple, Any, str]], what: str, tolerance: float = 1e-4
) -> None:
    """Compare a function with rows of (arguments, what is right, a hint if it is not)."""
    for arguments, right, hint in rows:
        try:
            with redirect_stdout(io.StringIO()):  # one ✓, not one a row
                check_function(
                    function, lambda *_, right=right: right, [arguments], what, tolerance
                )
        except CheckFailed as error:
            raise CheckFailed(f"{error} {hint}".strip()) from error.__cause__
    print(f"✓ {what} is right.")
