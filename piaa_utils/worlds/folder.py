"""Your own images: a folder, and a CSV file that says what is in them."""

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
from piaa_utils.worlds.world import World, gone, read_text, refuse_twice, wrong

# What columns of a CSV file may be called, in small letters.
FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "path", "image", "image_path", "name")
LABEL_COLUMNS = ("label", "labels", "class", "classes", "tag", "tags", "concepts")
SPLIT_COLUMNS = ("split", "split_name", "set", "subset")
# What a split may be called in such a column; the first that occurs there is taken.
LEARN = ("learn", "train", "trainval")
SPLITS = {"learn": LEARN, "train": LEARN, "val": ("val", "valid"), "test": ("test", "val")}
FLAGS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0}
NOTHING = ("nan", "none", "null", "na", "n/a", "<na>")  # as pandas and others print it


class Table(NamedTuple):
    """What a CSV file says of n images."""

    path: Path
    files: list[str]  # with ``/``
    splits: list[str]  # "" where there is no such column
    class_names: tuple[str, ...]
    labels: np.ndarray  # int8 [n, C]

    def of(self, split: str | None) -> tuple[list[str], np.ndarray]:
        """The files and labels of a split: all for None, or where no column tells."""
        known = set(self.splits)
        if split is None or known == {""}:
            return self.files, self.labels
        name = next((name for name in SPLITS.get(split, [split]) if name in known), None)
        if name is None:
            raise wrong(self.path, f"no row has the split {split!r}, only {some(sorted(known))}.")
        rows = [row for row, its in enumerate(self.splits) if its == name]
        return [self.files[row] for row in rows], self.labels[rows]


class LabelledFolder(World):
    """A folder of images with a CSV file of labels.

    The CSV file, UTF-8, has one of two forms::

        file,labels              file,cat,dog
        a.jpg,cat;dog            a.jpg,1,1
        sub/b.jpg,               sub/b.jpg,0,0

    The files are named relative to the folder, each once. A column ``split`` may say "train" or
    "test"; without one, every split has all images.

    root : the folder; images without a row are left out, named in a warning and in ``unlisted``.
    labels : the CSV file; by default ``labels.csv`` in the folder.
    class_names : by default those in the CSV file, sorted (or, in the second form, as they stand).
    split : "learn", "val" or "test"; None takes all rows.

    Missing files are a FileNotFoundError, another form or an unknown class a ValueError.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        labels: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
        split: str | None = None,
    ):
        if not os.fspath(root) or not os.path.isdir(root):
            raise gone(Path(root), "Check the path.", "folder")
        root = Path(root)
        table = read_table(root / "labels.csv" if labels is None else labels, class_names)
        ids, matrix = table.of(split)
        paths = [root / name if (root / name).is_file() else None for name in ids]
        where = f"{printable(root)}; correct the rows of {printable(table.path)}"
        mend = f"Looked in {where} (names relative to the folder, with their suffix)."
        super().__init__(root, table.class_names, ids, paths, matrix, mend)
        there = {path.relative_to(root).as_posix() for path in image_files(root)}
        self.unlisted = sorted(there - set(table.files))
        if self.unlisted:
            where = f"{printable(root)} have no row in {printable(table.path)} and are left out"
            mend = "Add rows for them: a row without a label says that there is none."
            said = f"{len(self.unlisted)} images in {where}: {some(self.unlisted)}. {mend}"
            warnings.warn(said, stacklevel=2)


def read_table(file: str | os.PathLike[str], class_names: Sequence[str] | None = None) -> Table:
    """Files and labels from a CSV file, in the forms of :class:`LabelledFolder`.

    A cell of names may also be a list as Python or NumPy prints it, and 1 and 0 may be True and
    False or 1.0 and 0.0. Columns are separated by commas, tabs or semicolons.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = file.write_text("file,labels\\na.jpg,cat;dog\\nb.jpg,cow\\n")
    >>> table = read_table(file)
    >>> table.files, table.class_names, table.labels.tolist()
    (['a.jpg', 'b.jpg'], ('cat', 'cow', 'dog'), [[1, 0, 1], [0, 1, 0]])
    """
    path = Path(file)
    known = None if class_names is None else check_class_names(class_names)
    header, rows = _read_rows(path)
    names = [name.lower() for name in header]

    def find(words: Sequence[str]) -> int | None:
        return next((names.index(w) for w in words if w in names and w not in (known or ())), None)

    at_file, at_label, at_split = find(FILE_COLUMNS) or 0, find(LABEL_COLUMNS), find(SPLIT_COLUMNS)
    rest = [c for c in range(len(names)) if c not in (at_file, at_split)]
    if at_label is None and len(rest) == 1:  # one class, or names under a heading of their own
        words = any(row[rest[0]].strip().lower() not in FLAGS for _, row in rows)
        at_label = rest[0] if words else None
    flags = {} if at_label is not None else _flags(path, {c: header[c] for c in rest}, known)
    splits = ["" if at_split is None else row[at_split].strip().lower() for _, row in rows]
    there: list[list[str]] = []
    for line, row in rows:
        try:
            if not row[at_file].strip():
                raise ValueError("there is no file name.")
            if at_label is None:
                there.append([name for c, name in flags.items() if _flag(row[c])])
            else:
                there.append(_names(row[at_label], known))
        except ValueError as error:
            raise wrong(path, error, line) from None
    files = refuse_twice([(line, one_spelling(row[at_file])) for line, row in rows], path)
    every = list(flags.values()) or sorted(set(sum(there, [])))
    if known is None and not every:
        raise wrong(path, "no row has a label; give class_names.")
    known = known or check_class_names(every, printable(path))
    labels = np.array([[name in names for name in known] for names in there], dtype=np.int8)
    return Table(path, files, splits, known, labels)


def one_spelling(name: str) -> str:
    """A relative path in one way, however it is spelt: sub/a.jpg for ./sub//a.jpg too."""
    return posixpath.normpath(name.strip().replace("\\", "/"))


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and (line, fields) of the rows."""
    text = read_text(path, "a CSV file with the columns file,labels")
    delimiter = next((d for d in ",\t;" if d in text.lstrip().partition("\n")[0]), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows += ((reader.line_num, row) for row in reader if any(field.strip() for field in row))
    except csv.Error as error:
        line = rows[-1][0] + 1 if rows else 1
        raise wrong(path, f"cannot be read ({error}); close its double quotes.", line) from None
    if len(rows) < 2 or rows[0][1][0].strip().lower().endswith(SUFFIXES):
        wanted = "a line such as file,labels, and below it a row an image"
        raise wrong(path, f"there should be {wanted}.")
    header = [field.strip() for field in rows.pop(0)[1]]
    for line, row in rows:
        if len(row) != len(header):
            mend = f"expected; put fields that hold {delimiter!r} in double quotes."
            raise wrong(path, f"{len(row)} columns where {len(header)} were {mend}", line)
    return header, rows


def _flags(path: Path, columns: dict[int, str], known: tuple[str, ...] | None) -> dict[int, str]:
    """{column: class}, with the class names' own upper and lower case."""
    if not columns:
        raise wrong(path, "there is no column of labels; see LabelledFolder's forms.")
    there = check_class_names(list(columns.values()), f"The header of {printable(path)}")
    spelt = {name.lower(): name for name in known or ()}
    if unknown := set(spelt) - {name.lower() for name in there}:
        raise wrong(path, f"there is no column for the class {min(unknown)!r}: {some(there)}.")
    return {c: spelt.get(name.lower(), name) for c, name in columns.items()}


def _flag(cell: str) -> int:
    if (flag := FLAGS.get(cell.strip().lower())) is None:
        mend = "give 0 or 1 in the column of each class, or one column 'labels' with names."
        raise ValueError(f"{cell!r} is neither 0 nor 1; {mend}")
    return flag


def _names(cell: str, class_names: tuple[str, ...] | None) -> list[str]:
    """The names in a cell: ``cat;dog``, ``['cat', 'dog']`` or ``['cat' 'dog']``."""
    names = cell.split(";")
    if cell.strip()[:1] in ("[", "(", "{"):
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(cell.strip()).readline))
            names = [ast.literal_eval(t.string) for t in tokens if t.type == tokenize.STRING]
        except (SyntaxError, ValueError, tokenize.TokenError):
            tokens = []
        rest = {t.string.strip() for t in tokens if t.type != tokenize.STRING}
        if not tokens or rest - {*"[](){},", ""} or not all(isinstance(n, str) for n in names):
            raise ValueError(f"{cell!r} is no list of names; write cat;dog.")
    names = [name.strip() for name in names if name.strip()]
    for name in names:
        if class_names is None:
            _refuse_two_readings(name)
        elif name not in class_names:
            mend = "classes; correct it or add it to class_names."
            raise ValueError(f"{name!r} is none of the {len(class_names)} {mend}")
    return names


def _refuse_two_readings(name: str) -> None:
    """Refuse what may be a class's name, but hardly is one."""
    if "," in name:
        meant = "several names (separate them by ';')"
    elif name.lower() in NOTHING:
        meant = "no label (leave the cell empty)"
    elif name.lower() in FLAGS or name.lstrip("+-").replace(".", "", 1).isdecimal():
        meant = "yes or no (write 1 or 0 in a column of each class), or a class's number"
    else:
        return
    raise ValueError(f"{name!r} may mean {meant}; give class_names if a class is called so.")
