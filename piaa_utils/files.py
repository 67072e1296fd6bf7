"""Files that appear whole or not at all, the data folder, and words that are safe to print."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = os.environ.get("PIAA_REPOSITORY", "https://github.com/OWNER/REPOSITORY")


def write_all(files: Mapping[Path, Callable[[Path], Any]]) -> None:
    """Write files (path: what writes it to a path), all or none; if one cannot be: an OSError."""
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    try:
        for path, write in files.items():
            write(parts[path])
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as error:
        what = "check that the folder exists, may be written to, and has room"
        raise OSError(f"{some([*files])} could not be saved ({error}): {what}.") from error
    finally:
        with contextlib.suppress(OSError):  # of the same kind, and it would hide that one
            for part in parts.values():
                part.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all, as :func:`write_all` does."""
    write_all({Path(path): lambda part: part.write_bytes(data)})


def make_folder(path: Path) -> None:
    """Make a folder for what a command writes, before its work; OSError says why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"There is no folder {printable(path)} ({error}): name another.") from error


def data_dir() -> Path:
    """The folder ``data/``: what PIAA_DATA names, the clone's, or the one that was fetched."""
    if chosen := os.environ.get("PIAA_DATA"):
        if not Path(chosen).is_dir():
            raise FileNotFoundError(f"The variable PIAA_DATA names {printable(chosen)}: no folder.")
        return Path(chosen)
    for path in (Path(__file__).resolve().parents[1] / "data", fetched_dir()):
        if (path / "mini_clip").is_dir():
            return path
    raise FileNotFoundError(
        f"The mini world and its CLIP are not in this installation: fetch them with piaa download "
        f"mini, or clone {REPOSITORY} and let the variable PIAA_DATA name the clone's folder data/."
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
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
    return "".join(shown)
