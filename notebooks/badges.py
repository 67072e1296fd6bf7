"""Set where the badges lead and what the setup cell clones, everywhere at once.

    python notebooks/badges.py OWNER/NAME        (make badges REPO=OWNER/NAME)

The name is replaced in the sources, the executed and the students' notebooks, in the builder and
in what else names the repository; nothing is executed. It may be done again with another name.
"""

import argparse
import re
import sys
from pathlib import Path

from piaa_utils.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "*.md",
    "CITATION.cff",
    ".github/**/*",
    "piaa_utils/*.py",
    "data/**/*.md",
    "pyproject.toml",
    ".binder/*",
    "notebooks/*.md",
    "notebooks/book/*",
    "notebooks/build.py",
    "notebooks/source/*.py",
    "notebooks/*.ipynb",
    "notebooks/student/*.ipynb",
    "tests/setup_cell.txt",
)
OWNER, NAME = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?", r"[\w.-]{1,100}"
# What stands before the name of this repository, and of no other: the badges' addresses, the
# setup cell and the builder. In a notebook's file, quotation marks have a backslash.
BEFORE = (
    r"colab\.research\.google\.com/github/",
    r"mybinder\.org/v2/gh/",
    r'get\(\\?"PIAA_REPOSITORY\\?", \\?"https://github\.com/',
    r'^REPOSITORY = "',
)
NAMED = re.compile(rf"({'|'.join(BEFORE)})({OWNER}/{NAME})(?=[/\"\\])", re.MULTILINE)


def named(root: Path = ROOT) -> dict[Path, set[str]]:
    """For each file that names the repository, the names that it gives."""
    found = {}
    for path in files(root):
        names = {match[2] for match in NAMED.finditer(path.read_text(encoding="utf-8"))}
        if names:
            found[path] = names
    return found


def files(root: Path = ROOT) -> list[Path]:
    """The files that may name the repository."""
    return [path for pattern in FILES for path in sorted(root.glob(pattern)) if path.is_file()]


def stamp(name: str, root: Path = ROOT) -> list[Path]:
    """Write `name` wherever the repository is named; returns the files that changed.

    Plain links to the name that the builder had before are changed too.

    Raises
    ------
    ValueError
        The name is not of the form owner/name.
    OSError
        A file cannot be read or written.
    """
    if not re.fullmatch(f"{OWNER}/{NAME}", name) or name.endswith((".git", "/.", "/..")):
        raise ValueError(
            f"{name!r} names no repository: give its owner and its name, as in "
            "make badges REPO=owner/name."
        )
    (old,) = named(root)[root / "notebooks" / "build.py"]
    links = re.compile(rf"(github\.com/){re.escape(old)}(?![\w-]|\.(?!git\b)\w)")
    changed = {}
    for path in files(root):
        before = path.read_bytes().decode("utf-8")
        after = links.sub(rf"\g<1>{name}", NAMED.sub(rf"\g<1>{name}", before))
        if after != before:
            changed[path] = after.encode("utf-8")
    # The builder last, since it tells the old name: a stamping that was stopped can be repeated.
    for path in sorted(changed, key=lambda path: path.name == "build.py"):
        write_whole(path, changed[path])
    return list(changed)


def main() -> None:
    """Stamp the name given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="the repository's owner and name, as in owner/name")
    try:
        changed = stamp(parser.parse_args().name)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{len(changed)} files changed.")


if __name__ == "__main__":
    main()
