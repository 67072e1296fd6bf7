"""Files that appear whole or not at all, and cells that no spreadsheet computes."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Write a file beside its place, then move it there: what was there stays until then.

    Raises
    ------
    OSError
        If it cannot be written (no folder, no permission, no room), in one sentence.

    Examples
    --------
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
        raise OSError(
            f"{path} could not be saved ({error}): check that its folder exists, may be written "
            f"to, and has room."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def no_formula(cell: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula: an apostrophe before it.

    Examples
    --------
    >>> no_formula("=HYPERLINK(1).jpg"), no_formula("a=b.jpg")
    ("'=HYPERLINK(1).jpg", 'a=b.jpg')
    """
    return f"'{cell}" if cell[:1] in tuple("=+-@\t\r") else cell
