"""Files that appear whole or not at all, the data folder, and words that are safe to print."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = os.environ.get("PIAA_REPOSITORY", "https://github.com/OWNER/REPOSITORY")


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file beside its place, then move it there: what was there stays until then.

    Raises OSError, in one sentence, if it cannot be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> write_whole(path, b"whole")
    >>> path.read_bytes(), [p.name for p in path.parent.iterdir()]
    (b'whole', ['a.txt'])
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        what = "check that its folder exists, may be written to, and has room"
        raise OSError(f"{printable(path)} could not be saved ({error}): {what}.") from error
    finally:
        part.unlink(missing_ok=True)


def data_dir() -> Path:
    """The folder ``data/``: what PIAA_DATA names, the clone's, or the one that was fetched.

    Raises FileNotFoundError, in one sentence that says what to fetch, if there is none.

    >>> (data_dir() / "mini_clip").is_dir()
    True
    """
    chosen = os.environ.get("PIAA_DATA")
    if chosen:
        if not Path(chosen).is_dir():
            raise FileNotFoundError(f"The variable PIAA_DATA names {printable(chosen)}: no folder.")
        return Path(chosen)
    for path in (Path(__file__).resolve().parents[1] / "data", fetched_dir()):
        if (path / "mini_clip").is_dir():
            return path
    raise FileNotFoundError(
        f"The mini world and its CLIP are not in this installation: clone {REPOSITORY} and let "
        f"the environment variable PIAA_DATA name the clone's folder data/."
    )


def fetched_dir() -> Path:
    """Where a download puts the repository's ``data/`` for a package outside a clone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "piaa" / "data"


def some(values: Sequence[Any], limit: int = 5) -> str:
    """A list for a message: the first values, and how many more there are.

    >>> some(["cat", "dog"]), some(range(8))
    ('cat, dog', '0, 1, 2, 3, 4 and 3 more')
    """
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(map(printable, values[:limit])) + more


def printable(name: Any) -> str:
    r"""A name as a terminal may show it: what moves a cursor or is no character, escaped.

    >>> print(printable("dog.jpg"), printable("\x1b[2Jdog.jpg"), printable("d\udcfcg.jpg"))
    dog.jpg \x1b[2Jdog.jpg d\udcfcg.jpg
    """
    escape = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
    return "".join(escape)


def no_formula(cell: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula: an apostrophe before it.

    >>> no_formula("=HYPERLINK(1).jpg"), no_formula("a=b.jpg")
    ("'=HYPERLINK(1).jpg", 'a=b.jpg')
    """
    return f"'{cell}" if cell[:1] in tuple("=+-@\t\r") else cell
