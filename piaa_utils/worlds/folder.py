"""Your own images: a folder, and a CSV file that says what is in them."""

from __future__ import annotations

import ast
import csv
import io
import os
import posixpath
import tokenize
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from piaa_utils.files import printable, some
from piaa_utils.images import SUFFIXES, image_files
from piaa_utils.vocabulary import check_class_names
from piaa_utils.worlds.world import Pictures, refuse_twice

# What columns of a CSV file may be called, in small letters.
FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "path", "image", "image_path", "name")
LABEL_COLUMNS = ("label", "labels", "class", "classes", "tag", "tags", "concepts")
SPLIT_COLUMNS = ("split", "split_name", "set", "subset")
# What each split may be called in such a column; the first that occurs there is taken.
LEARN = ("learn", "train", "trainval")
SPLITS = {"learn": LEARN, "train": LEARN, "val": ("val", "valid", "validation"),
          "test": ("test", "val")}  # fmt: skip
FLAGS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0}
NOTHING = ("nan", "none", "null", "na", "n/a", "<na>", "nat")  # as pandas and others print it


class Table(NamedTuple):
    """files: n names, with ``/``; splits: n words ("" where there is no such column);
    class_names: C names; labels: int8 [n, C]."""

    files: list[str]
    splits: list[str]
    class_names: tuple[str, ...]
    labels: np.ndarray

    def rows(self, split: str | None) -> list[int]:
        """The rows of a split: all of them for None, or where no column tells."""
        known = set(self.splits)
        if split is None or known == {""}:
            return list(range(len(self.files)))
        wanted = next((name for name in SPLITS.get(split, (split,)) if name in known), split)
        if wanted not in known:
            raise ValueError(f"no rows of the split {split!r}, only of {some(sorted(known))}.")
        return [row for row, name in enumerate(self.splits) if name == wanted]


class LabelledFolder(Pictures):
    """A folder of images with a CSV file of labels.

    The CSV file, UTF-8, has one of three forms::

        file,labels              file,label              file,cat,dog
        a.jpg,cat;dog            a.jpg,cat               a.jpg,1,1
        sub/b.jpg,               a.jpg,dog               sub/b.jpg,0,0

    Several names in a cell are separated by ``;``; one row a label means several rows a file; in
    the third form the columns are the classes. The files are named relative to the folder. A column
    ``split`` may say "train" or "test"; without one, every split has all images.

    Parameters
    ----------
    root : the folder; images may lie in its sub-folders.
    labels : the CSV file; by default ``labels.csv`` in the folder.
    class_names : the classes, in order; by default those in the CSV file, sorted (or, in the third
        form, in the order of its columns).
    split : "learn", "val" or "test"; None takes all rows.

    Attributes
    ----------
    ids : the files as the CSV names them, with ``/``, in its order.
    missing : rows without an image file; left out, and named in a warning.
    unlisted : images in the folder without a row; left out, and named in a warning.
    paths, labels, ... : see :class:`World`.

    Raises
    ------
    FileNotFoundError
        The folder or the CSV file is missing, or not one of its rows has an image.
    ValueError
        The CSV file is in none of the three forms, has an unknown class, or a cell that can be
        read in two ways; with the line.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        labels: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
        split: str | None = None,
    ):
        if not os.fspath(root) or not Path(root).is_dir():
            raise FileNotFoundError(f"There is no folder {printable(root)!r}; check the path.")
        root = Path(root)
        file = root / "labels.csv" if labels is None else Path(labels)
        table = read_table(file, class_names)
        try:
            rows = table.rows(split)
        except ValueError as error:
            raise ValueError(f"{printable(file)} has {error}") from None
        ids = [table.files[row] for row in rows]
        paths = [root / name if (root / name).is_file() else None for name in ids]
        mend = (
            f"Looked in {printable(root)}; correct the rows of {printable(file)} (names relative "
            "to the folder, with their suffix)."
        )
        super().__init__(root, table.class_names, ids, paths, table.labels[rows], mend)
        there = {path.relative_to(root).as_posix() for path in image_files(root)}
        self.unlisted = sorted(there - set(table.files))
        if self.unlisted:
            warnings.warn(
                f"{len(self.unlisted)} images in {printable(root)} have no row in "
                f"{printable(file)} and are left out: {some(self.unlisted)}. Add rows for them: a "
                "row without a label says that there is none.",
                stacklevel=2,
            )


def read_table(file: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> Table:
    """Files and labels from a CSV file, in the forms of :class:`LabelledFolder`.

    A cell of names may also be a list as Python or NumPy prints it, ``['cat', 'dog']`` or
    ``['cat' 'dog']``, and 1 and 0 may be True and False or 1.0 and 0.0. Columns are separated by
    commas, tabs or semicolons. The header may be left out where the first field of the file ends
    like an image; 0/1 columns then need `class_names`.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; as :class:`LabelledFolder`.

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
            raise ValueError(f"{printable(file)}, line {line}: there is no file name.")
    if at.label is None:
        return _from_flags(file, header, rows, at, class_names)
    return _from_names(file, rows, at, class_names)


def one_spelling(name: str) -> str:
    r"""A relative path in one way, however it is spelt.

    >>> one_spelling("./sub//a.jpg"), one_spelling("sub\\a.jpg")
    ('sub/a.jpg', 'sub/a.jpg')
    """
    return posixpath.normpath(name.strip().replace("\\", "/"))


Rows = list[tuple[int, list[str]]]  # (line, fields)


class _At(NamedTuple):
    """The columns of the file name, the label names, the split, and the 0/1 of each class."""

    file: int
    label: int | None
    split: int | None
    flags: list[int]


def _read_rows(file: Path) -> tuple[list[str] | None, Rows]:
    """The header, None if there is none, and the rows."""
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no file {printable(file)}; it should be a CSV file with the columns "
            "file,labels."
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(
            f"{printable(file)} is not in UTF-8; save it again as 'CSV UTF-8'."
        ) from None
    top = text.lstrip().partition("\n")[0]
    delimiter = next((d for d in (",", "\t", ";") if d in top), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows: Rows = []
    try:
        for row in reader:
            if any(field.strip() for field in row):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        line = rows[-1][0] + 1 if rows else 1
        raise ValueError(
            f"{printable(file)}, line {line}: the row cannot be read ({error}); close its double "
            "quotes."
        ) from None
    header = None
    if rows and not rows[0][1][0].strip().lower().endswith(SUFFIXES):
        header = [field.strip() for field in rows.pop(0)[1]]
    if not rows:
        raise ValueError(
            f"{printable(file)} has no rows; each should name an image file and its labels."
        )
    width = len(rows[0][1] if header is None else header)
    for line, row in rows:
        if len(row) != width:
            raise ValueError(
                f"{printable(file)}, line {line}: {len(row)} columns where {width} were expected; "
                f"put fields that hold {delimiter!r} in double quotes."
            )
    return header, rows


def _columns(
    file: Path, header: list[str] | None, rows: Rows, class_names: Sequence[str] | None
) -> _At:
    names = [""] * len(rows[0][1]) if header is None else [name.lower() for name in header]
    classes = {name.lower() for name in class_names or ()}

    def find(known: Sequence[str]) -> int | None:
        return next((names.index(n) for n in known if n in names and n not in classes), None)

    at_file = find(FILE_COLUMNS) or 0
    at_label, at_split = find(LABEL_COLUMNS), find(SPLIT_COLUMNS)
    rest = [c for c in range(len(names)) if c not in (at_file, at_split)]
    if at_label is not None and len(rest) > 1 and _no_flag(rows, [at_label]) is None:
        at_label = None  # a class that is called so
    elif at_label is None and len(rest) == 1 and _no_flag(rows, rest) is not None:
        at_label = rest[0]
    if at_label is not None:
        return _At(at_file, at_label, at_split, [])
    if not rest or (bad := _no_flag(rows, rest)) is not None:
        where = "" if not rest else f", line {bad}"
        raise ValueError(
            f"{printable(file)}{where}: there is neither a column called 'labels' with names nor "
            f"only 0 and 1 in the columns{'' if header is None else f' ({some(header)})'}; see "
            "LabelledFolder's forms."
        )
    return _At(at_file, None, at_split, rest)


def _no_flag(rows: Rows, columns: Sequence[int]) -> int | None:
    """The first line with anything but 0 and 1 in these columns."""
    bad = (line for line, row in rows for c in columns if row[c].strip().lower() not in FLAGS)
    return next(bad, None)


def _from_flags(
    file: Path,
    header: list[str] | None,
    rows: Rows,
    at: _At,
    class_names: tuple[str, ...] | None,
) -> Table:
    if header is not None:
        there = [header[c] for c in at.flags]
    elif class_names is not None and len(class_names) == len(at.flags):
        there = list(class_names)
    else:
        raise ValueError(
            f"{printable(file)} has {len(at.flags)} columns of 0 and 1 but no header; add one, or "
            f"give as many class_names."
        )
    check_class_names(there, f"The header of {printable(file)}")
    class_names = class_names or tuple(there)
    columns = {name.lower(): c for name, c in zip(there, at.flags, strict=True)}
    if unknown := [name for name in class_names if name.lower() not in columns]:
        raise ValueError(
            f"{printable(file)} has no column for the class {unknown[0]!r}: {some(there)}."
        )
    wanted = [columns[name.lower()] for name in class_names]
    files = [(line, one_spelling(row[at.file])) for line, row in rows]
    refuse_twice(files, file)
    flags = [[FLAGS[row[c].strip().lower()] for c in wanted] for _, row in rows]
    splits = [_split(row, at) for _, row in rows]
    return Table([name for _, name in files], splits, class_names, np.array(flags, dtype=np.int8))


def _from_names(file: Path, rows: Rows, at: _At, class_names: tuple[str, ...] | None) -> Table:
    assert at.label is not None
    found: dict[str, set[str]] = {}  # file: names
    splits: dict[str, str] = {}
    for line, row in rows:
        where = f"{printable(file)}, line {line}"
        name, names = one_spelling(row[at.file]), _names(where, row[at.label])
        for label in names:
            if class_names is None:
                _one_reading(where, label)
            elif label not in class_names:
                raise ValueError(
                    f"{where}: {label!r} is none of the {len(class_names)} classes; correct it or "
                    "add it to class_names."
                )
        found.setdefault(name, set()).update(names)
        if splits.setdefault(name, _split(row, at)) != _split(row, at):
            raise ValueError(f"{where}: {name!r} is in two splits; leave it in one.")
    if class_names is None:
        names = sorted(set().union(*found.values()))
        if not names:
            raise ValueError(f"{printable(file)} has no label in any row; give class_names.")
        class_names = check_class_names(names, printable(file))
    labels = np.array([[name in there for name in class_names] for there in found.values()])
    return Table(list(found), list(splits.values()), class_names, labels.astype(np.int8))


def _one_reading(where: str, label: str) -> None:
    """Refuse what may be a class name, but hardly is one."""
    if "," in label:
        meant = "several names (separate them by ';')"
    elif label.lower() in NOTHING:
        meant = "no label (leave the cell empty)"
    elif label.lower() in FLAGS or label.lstrip("+-").replace(".", "", 1).isdecimal():
        meant = "yes or no (write 1 or 0 in a column of each class), or a class's number"
    else:
        return
    raise ValueError(
        f"{where}: {label!r} may mean {meant}, or be one class's name; in that case give "
        "class_names."
    )


def _names(where: str, cell: str) -> list[str]:
    """The names in a cell: ``cat;dog``, ``['cat', 'dog']`` or ``['cat' 'dog']``."""
    names = cell.split(";")
    if cell.strip()[:1] in ("[", "(", "{"):
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(cell.strip()).readline))
            names = [ast.literal_eval(t.string) for t in tokens if t.type == tokenize.STRING]
            rest = {t.string.strip() for t in tokens if t.type != tokenize.STRING}
        except (ValueError, SyntaxError, tokenize.TokenError):
            rest = {cell}
        if not rest <= set("[](){},") | {""} or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where}: {cell!r} is no list of names; write cat;dog.")
    return [name.strip() for name in names if name.strip()]


def _split(row: Sequence[str], at: _At) -> str:
    return "" if at.split is None else row[at.split].strip().lower()
