"""What messages to the user have in common."""

from __future__ import annotations

from collections.abc import Sequence


def some(values: Sequence[object], limit: int = 5) -> str:
    """A list for a message: the first values, and how many more there are.

    Parameters
    ----------
    values : anything that prints as one word or name.
    limit : how many to name, 1 or more.

    Examples
    --------
    >>> some(["cat", "dog"]), some(range(8))
    ('cat, dog', '0, 1, 2, 3, 4 and 3 more')
    """
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(map(str, values[:limit])) + more
