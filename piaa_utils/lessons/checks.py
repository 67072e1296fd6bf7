"""Instant checks of exercises: they say what is wrong, and pass for any right answer."""

import copy
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


class CheckFailed(AssertionError):
    """An answer is not right yet; the message says why.

    Jupyter shows the message, and where in the student's own code it came from; the lines of the
    check, which may hold the solution, are left out.
    """

    def _render_traceback_(self) -> list[str]:
        lines = []
        if self.__cause__ is not None:
            frames = traceback.extract_tb(self.__cause__.__traceback__)
            own = [f for f in frames if Path(f.filename).resolve().parent != Path(__file__).parent]
            lines = [line.rstrip() for line in traceback.format_list(own)]
        return [*lines, f"{type(self).__name__}: {self}"]


def check_function(
    function: Callable,
    reference: Callable,
    cases: Sequence[tuple],
    what: str,
    tolerance: float = 1e-4,
) -> None:
    """Compare a function with the right one on small inputs; show the first that differs.

    function : the student's.
    reference : the right one.
    cases : argument tuples, simplest first; each is copied, so that nothing can be changed.
    what : the exercise, for the messages, such as "Exercise 1".
    tolerance : how far values may differ, absolutely or relative to the right ones.

    Raises CheckFailed: with the input, the answer and what was expected, or what the student's
        function raised.

    >>> check_function(lambda x: x + x, lambda x: 2 * x, [(torch.ones(2),)], "Exercise 1")
    ✓ Exercise 1 is right.
    """
    if not callable(function):
        raise CheckFailed(f"{what}: a function is wanted, but this is {_show(function)}.")
    for case in cases:
        expected = reference(*copy.deepcopy(case))
        given = ", ".join(map(_show, case))
        try:
            answer = function(*copy.deepcopy(case))
        except Exception as error:
            raise CheckFailed(
                f"{what}: for the input {given}, your function raised {type(error).__name__}: "
                f"{error}"
            ) from error
        if answer is None and expected is not None:
            raise CheckFailed(f"{what}: the function returned None; is there a return?")
        _compare(answer, expected, f"{what}, for the input {given}", tolerance)
    print(f"✓ {what} is right.")


def check_array(answer: object, expected: object, what: str, tolerance: float = 1e-4) -> None:
    """Compare an array or tensor with the right one: kind, shape, finiteness, values.

    Raises CheckFailed: with the first entry that differs.

    >>> check_array(torch.tensor([0.5, 0.5]), [0.5, 0.5], "Exercise 2")
    ✓ Exercise 2 is right.
    >>> check_array([0.5, 0.4], [0.5, 0.5], "Exercise 2")
    Traceback (most recent call last):
        ...
    piaa_utils.lessons.checks.CheckFailed: Exercise 2: entry 1 is 0.4, expected 0.5.
    """
    _compare(answer, expected, what, tolerance)
    print(f"✓ {what} is right.")


def check_number(
    answer: Any, expected: float, what: str, tolerance: float = 1e-3, hint: str = ""
) -> None:
    """Compare one number with the right one, within `tolerance` (absolute).

    Raises CheckFailed: says whether it is too large or too small, and adds the hint.

    >>> check_number(0.75, 0.75, "Exercise 3")
    ✓ Exercise 3 is right.
    """
    if isinstance(answer, torch.Tensor):
        answer = answer.detach()
    try:
        number = float(answer)
    except (TypeError, ValueError):
        raise CheckFailed(f"{what}: one number is wanted, but this is {_show(answer)}.") from None
    if not abs(number - float(expected)) <= tolerance:
        way = "not a number" if number != number else "small" if number < expected else "large"
        way = way if way == "not a number" else f"too {way}"
        raise CheckFailed(f"{what}: {number:.4g} is {way}. {hint}".rstrip())
    print(f"✓ {what} is right.")


def check_choice(answer: object, right: str, wrong: Mapping[str, str], what: str, why: str) -> None:
    """Check the letter of a choice; for a wrong one say why it is wrong.

    answer : a letter, such as "b".
    right : the right letter.
    wrong : for each other letter, why it is wrong.
    what : the exercise, for the messages.
    why : why the right one is right, printed when it was chosen.

    Raises CheckFailed: for a wrong letter, or none of the letters.

    >>> wrong = {"a": "Max ignores all but one patch."}
    >>> check_choice("B", "b", wrong, "Exercise 4", "One is enough.")
    ✓ Exercise 4 is right. One is enough.
    """
    letter = str(answer).strip(" ():.*").lower()
    if letter in wrong:
        raise CheckFailed(f"{what}: not {letter}. {wrong[letter]}")
    if letter != right:
        letters = ", ".join(sorted([right, *wrong]))
        raise CheckFailed(f"{what}: answer with one of the letters {letters}, not {answer!r}.")
    print(f"✓ {what} is right. {why}")


def _compare(answer: object, expected: object, what: str, tolerance: float) -> None:
    """Raise CheckFailed unless the answer has the expected shape and values."""
    if isinstance(expected, tuple):
        if not isinstance(answer, tuple | list) or len(answer) != len(expected):
            raise CheckFailed(f"{what}: {len(expected)} values are wanted, not {_show(answer)}.")
        for i, (a, e) in enumerate(zip(answer, expected, strict=True)):
            _compare(a, e, f"{what}, value {i} of the result", tolerance)
        return
    wanted = _array(expected)
    try:
        found = _array(answer)
    except (TypeError, ValueError):
        raise CheckFailed(f"{what}: numbers are wanted, but this is {_show(answer)}.") from None
    if found.shape != wanted.shape:
        raise CheckFailed(
            f"{what}: the shape is {list(found.shape)}, expected {list(wanted.shape)}."
        )
    if not np.isfinite(found[np.isfinite(wanted)]).all():
        raise CheckFailed(f"{what}: the answer holds NaN or infinite values.")
    close = np.isclose(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not close.all():
        at = tuple(int(i) for i in np.argwhere(~close)[0])
        where = f"entry {at[0] if len(at) == 1 else at}" if at else "the result"
        raise CheckFailed(f"{what}: {where} is {found[at]:.4g}, expected {wanted[at]:.4g}.")


def _array(value: object) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"no numbers: {array.dtype}")
    return array.astype(np.float64)


def _show(value: object, limit: int = 160) -> str:
    """A value on one line, short: small arrays as lists, large ones by their shape."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    if isinstance(value, np.ndarray):
        if value.size > 12:
            return f"an array of shape {list(value.shape)}"
        value = (value.round(4) if value.dtype.kind in "iuf" else value).tolist()
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
