"""Your own images: a folder, and a CSV file that says what is in them."""

from __future__ import annotations

import ast
import csv
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from piaa_utils.datasets import check_class_names
from piaa_utils.images import SUFFIXES, list_images
from piaa_utils.labelled import LabelledImages
from piaa_utils.messages import some

# What columns of a CSV file may be called, in small letters.
FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "path", "image", "image_path", "name")
LABEL_COLUMNS = ("label", "labels", "class", "classes", "tag", "tags", "concepts")
SPLIT_COLUMNS = ("split", "split_name", "set", "subset")


class Table(NamedTuple):
    """files, splits: n strings as written (split "" where there is no such column);
    class_names: C names; labels: int8 [n, C]."""

    files: list[str]
    splits: list[str]
    class_names: tuple[str, ...]
    labels: np.ndarray


class LabelledFolder(LabelledImages):
    """A folder of images with a CSV file of labels.

    The CSV file, UTF-8, has one of three forms::

        file,labels              file,label              file,cat,dog
        a.jpg,cat;dog            a.jpg,cat               a.jpg,1,1
        sub/b.jpg,               a.jpg,dog               sub/b.jpg,0,0

    Several names in a cell are separated by ``;``; one row a label means several rows a file; in
    the third form the columns are the classes. The files are named relative to the folder.

    Parameters
    ----------
    root : the folder; images may lie in its sub-folders.
    labels : the CSV file; by default ``labels.csv`` in the folder.
    class_names : the classes, in order; by default those in the CSV file, sorted (or, in the third
        form, in the order of its columns).

    Attributes
    ----------
    ids : the files as the CSV names them, with ``/``, in its order.
    missing : rows without an image file; left out, and named in a warning.
    unlisted : images in the folder without a row; left out, and named in a warning.
    paths, labels, ... : see :class:`LabelledImages`.

    Raises
    ------
    FileNotFoundError
        The folder or the CSV file is missing, or not one of its rows has an image.
    ValueError
        The CSV file is in none of the three forms, or has an unknown class; with the line.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        labels: str | os.PathLike | None = None,
        class_names: Sequence[str] | None = None,
    ):
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"There is no folder {root}; give the one with the images.")
        file = root / "labels.csv" if labels is None else Path(labels)
        table = read_table(file, class_names)
        ids = [name.replace("\\", "/").removeprefix("./") for name in table.files]
        paths = [root / name if (root / name).is_file() else None for name in ids]
        super().__init__(root, table.class_names, ids, paths, table.labels, [file])
        self.report_missing(
            f"Looked in {root} for the files that {file} names; its first column must hold paths "
            "relative to that folder, with their suffix."
        )
        listed = set(self.paths)
        self.unlisted = [
            path.relative_to(root).as_posix() for path in list_images(root) if path not in listed
        ]
        if self.unlisted:
            warnings.warn(
                f"{len(self.unlisted)} images in {root} have no row in {file} and are left out: "
                f"{some(self.unlisted)}. Add rows for them; a row without a label says that there "
                "is none.",
                stacklevel=2,
            )


def read_table(file: str | os.PathLike, class_names: Sequence[str] | None = None) -> Table:
    """Files and labels from a CSV file, in the forms of :class:`LabelledFolder`.

    A cell of names may also be a list as Python prints it, ``['cat', 'dog']``. Columns are
    separated by commas, tabs or semicolons. The header may be left out where the first field of
    the file ends like an image; 0/1 columns then need `class_names`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        As :class:`LabelledFolder`.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = file.write_text("file,labels\\na.jpg,cat;dog\\nb.jpg,cow\\n")
    >>> table = read_table(file)
    >>> table.files, table.class_names, table.labels.tolist()
    (['a.jpg', 'b.jpg'], ('cat', 'cow', 'dog'), [[1, 0, 1], [0, 1, 0]])
    """
    file = Path(file)
    header, rows = _read_rows(file)
    if class_names is not None:
        class_names = check_class_names(class_names)
    at = _columns(file, header, rows, class_names)
    for line, row in rows:
        if not row[at.file].strip():
            raise ValueError(f"{file}, line {line}: there is no file name.")
    if at.label is None:
        return _from_flags(file, header, rows, at, class_names)
    return _from_names(file, rows, at, class_names)


class _At(NamedTuple):
    """The columns of the file name, the label names, the split, and the 0/1 of each class."""

    file: int
    label: int | None
    split: int | None
    flags: list[int]


def _read_rows(file: Path) -> tuple[list[str] | None, list[tuple[int, list[str]]]]:
    """The header, None if there is none, and (line, fields) of the rows."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no file {file}; it should be a CSV file with the columns file,labels."
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not in UTF-8; save it again as 'CSV UTF-8'.") from None
    top = text.lstrip().partition("\n")[0]
    delimiter = next((d for d in (",", "\t", ";") if d in top), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            if any(field.strip() for field in row):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        line = rows[-1][0] + 1 if rows else 1
        raise ValueError(
            f"{file}, line {line}: the row cannot be read ({error}); close its double quotes."
        ) from None
    header = None
    if rows and not rows[0][1][0].strip().lower().endswith(SUFFIXES):
        header = [field.strip() for field in rows.pop(0)[1]]
    if not rows:
        raise ValueError(f"{file} has no rows; each should name an image file and its labels.")
    width = len(rows[0][1] if header is None else header)
    for line, row in rows:
        if len(row) != width:
            raise ValueError(
                f"{file}, line {line}: {len(row)} columns where {width} were expected; put fields "
                f"that hold {delimiter!r} in double quotes."
            )
    return header, rows


def _columns(file: Path, header, rows, class_names) -> _At:
    names = [""] * len(rows[0][1]) if header is None else [name.lower() for name in header]
    classes = {name.lower() for name in class_names or ()}

    def find(known: Sequence[str]) -> int | None:
        return next((names.index(n) for n in known if n in names and n not in classes), None)

    at_file = find(FILE_COLUMNS) or 0
    at_label, at_split = find(LABEL_COLUMNS), find(SPLIT_COLUMNS)
    rest = [c for c in range(len(names)) if c not in (at_file, at_split)]
    if at_label is None and len(rest) == 1 and not _all_flags(rows, rest):
        at_label = rest[0]
    if at_label is not None:
        if len(rest) > 1 and _all_flags(rows, [at_label]):
            at_label = None  # a class that is called so
        else:
            return _At(at_file, at_label, at_split, [])
    if not rest or not _all_flags(rows, rest):
        raise ValueError(
            f"{file} has neither a column called 'labels' with names nor only 0 and 1 in its "
            f"columns{'' if header is None else f' ({some(header)})'}; see LabelledFolder's forms."
        )
    return _At(at_file, None, at_split, rest)


def _all_flags(rows, columns: Sequence[int]) -> bool:
    return all(row[c].strip() in ("0", "1") for _, row in rows for c in columns)


def _from_flags(file: Path, header, rows, at: _At, class_names) -> Table:
    if header is not None:
        there = [header[c] for c in at.flags]
    elif class_names is not None and len(class_names) == len(at.flags):
        there = list(class_names)
    else:
        raise ValueError(
            f"{file} has {len(at.flags)} columns of 0 and 1 but no header; add one, or give "
            f"as many class_names."
        )
    class_names = check_class_names(there) if class_names is None else class_names
    columns = {name.lower(): c for name, c in zip(there, at.flags, strict=True)}
    if unknown := [name for name in class_names if name.lower() not in columns]:
        raise ValueError(f"{file} has no column for the class {unknown[0]!r}: {some(there)}.")
    wanted = [columns[name.lower()] for name in class_names]
    files = [row[at.file].strip() for _, row in rows]
    if len(set(files)) < len(files):
        repeated = next(name for name in files if files.count(name) > 1)
        raise ValueError(f"{file} lists {repeated!r} twice; remove one.")
    labels = np.array([[int(row[c]) for c in wanted] for _, row in rows], dtype=np.int8)
    return Table(files, [_split(row, at) for _, row in rows], class_names, labels)


def _from_names(file: Path, rows, at: _At, class_names) -> Table:
    derived = class_names is None
    found: dict[tuple[str, str], set[str]] = {}  # (file, split): names
    for line, row in rows:
        names = _names(file, line, row[at.label])
        for name in names:
            if derived and "," in name:
                raise ValueError(
                    f"{file}, line {line}: {name!r} holds a comma; separate the names by ';', or "
                    "give class_names if that is one name."
                )
            if not derived and name not in class_names:
                raise ValueError(
                    f"{file}, line {line}: {name!r} is none of the {len(class_names)} classes; "
                    "correct it or add it to class_names."
                )
        found.setdefault((row[at.file].strip(), _split(row, at)), set()).update(names)
    if derived:
        class_names = tuple(sorted(set().union(*found.values())))
        if not class_names:
            raise ValueError(f"{file} has no label in any row; give class_names.")
    column = {name: c for c, name in enumerate(class_names)}
    labels = np.zeros((len(found), len(class_names)), dtype=np.int8)
    for row, names in enumerate(found.values()):
        labels[row, [column[name] for name in names]] = 1
    return Table([name for name, _ in found], [s for _, s in found], class_names, labels)


def _names(file: Path, line: int, cell: str) -> list[str]:
    """The names in a cell: ``cat;dog`` or ``['cat', 'dog']``."""
    names = cell.split(";")
    if cell.strip().startswith("["):
        try:
            names = [str(name) for name in ast.literal_eval(cell.strip())]
        except (ValueError, SyntaxError, TypeError):
            raise ValueError(f"{file}, line {line}: {cell!r} is no list of names.") from None
    return [name.strip() for name in names if name.strip()]


def _split(row: Sequence[str], at: _At) -> str:
    return "" if at.split is None else row[at.split].strip().lower()
