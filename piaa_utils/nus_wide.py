"""NUS-WIDE: 81 concepts, from the official ground truth or from the single files in use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from piaa_utils.datasets import NUS_CLASSES
from piaa_utils.folder import read_table
from piaa_utils.images import SUFFIXES
from piaa_utils.labelled import LabelledImages
from piaa_utils.messages import some

WHERE = (
    "NUS-WIDE cannot be downloaded by a program: ask for the images, and get Groundtruth.zip and "
    "ImageList.zip, at https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/"
    "NUS-WIDE.html."
)
SINGLE_FILES = ("nus_wide_{}.csv", "nus_wid_data.csv", "nus_wide_data.csv", "{}.csv", "{}.txt")


class NUSWide(LabelledImages):
    """NUS-WIDE as a multi-label data set.

    ::

        root/Groundtruth/TrainTestLabels/Labels_airport_Train.txt ...   one 0 or 1 a line
        root/ImageList/TrainImagelist.txt, TestImagelist.txt            one image a line
        root/Flickr/actor/0001_2124494179.jpg ...                       or any other folder in root

    or, in place of the first two, one of the files ``nus_wide_train.csv`` (``nus_wide_test.csv``),
    ``nus_wid_data.csv``, ``train.csv``, ``train.txt``. A CSV file has a column with the images and
    81 columns of 0 and 1, or a column ``label`` with names; a column ``split_name`` chooses the
    rows, "val" meaning "test" where there is no "test". A text file has, on each line, an image and
    the numbers of its concepts from 0 (or 81 times 0 or 1). The official files go first.

    An image is found by its file name, wherever in `images` it lies; a flat folder or one that
    names images by their Flickr number alone will do. Much of NUS-WIDE is gone from the web:
    missing images are left out, counted and named in a warning.

    Parameters
    ----------
    root : the folder above.
    split : "train" or "test".
    labels : the label file, if it is none of those above.
    images : the folder to search for images; by default `root`.
    keep_unlabelled : keep images without a concept, as the paper does in its test split.

    Attributes
    ----------
    missing : names of the images that are not there.
    unlabelled : names of the images left out for having no concept.
    ids, paths, labels, ... : see :class:`LabelledImages`; ids are the names in the files, with
        ``/``, in their order.

    Raises
    ------
    FileNotFoundError
        The label files are missing, or not one image is there.
    ValueError
        A label file does not fit the image list or cannot be understood, or two images in
        different folders may be meant by one name; the message names the file and line.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        labels: str | os.PathLike | None = None,
        images: str | os.PathLike | None = None,
        keep_unlabelled: bool = True,
    ):
        if split not in ("train", "test"):
            raise ValueError(f"NUS-WIDE has the splits train and test, not {split!r}.")
        root = Path(root)
        images = root if images is None else Path(images)
        names, matrix, files = _read(root, split, None if labels is None else Path(labels))
        names = [name.replace("\\", "/").removeprefix("./") for name in names]
        keep = matrix.any(axis=1) | keep_unlabelled
        self.split = split
        self.unlabelled = [names[row] for row in np.flatnonzero(~keep)]
        names = [names[row] for row in np.flatnonzero(keep)]
        index = _index(images)
        paths = [_find(index, name) for name in names]
        super().__init__(root, NUS_CLASSES, names, paths, matrix[keep], files)
        self.report_missing(f"Looked in {images} and its sub-folders. {WHERE}")


def _read(root: Path, split: str, file: Path | None) -> tuple[list[str], np.ndarray, list[Path]]:
    """Names of the images, int8 [n, 81], and the files they were read from."""
    if file is None and (root / "Groundtruth" / "TrainTestLabels").is_dir():
        return _read_official(root, split)
    if file is None:
        names = [name.format(split) for name in SINGLE_FILES]
        file = next((root / name for name in names if (root / name).is_file()), None)
        if file is None:
            raise FileNotFoundError(
                f"There are no labels of NUS-WIDE in {root}: looked for "
                f"Groundtruth/TrainTestLabels/ with ImageList/, and for {', '.join(names)}. {WHERE}"
            )
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}. {WHERE}")
    if file.suffix.lower() == ".csv":
        return (*_read_csv(file, split), [file])
    return (*_read_text(file), [file])


def _read_official(root: Path, split: str) -> tuple[list[str], np.ndarray, list[Path]]:
    image_list = root / "ImageList" / f"{split.title()}Imagelist.txt"
    folder = root / "Groundtruth" / "TrainTestLabels"
    files = [folder / f"Labels_{concept}_{split.title()}.txt" for concept in NUS_CLASSES]
    if gone := [file for file in (image_list, *files) if not file.is_file()]:
        raise FileNotFoundError(
            f"{len(gone)} label files of NUS-WIDE are not there: {some(gone, 2)}. {WHERE}"
        )
    names = [line.strip() for line in image_list.read_text("utf-8-sig").splitlines()]
    names = [name for name in names if name]
    labels = np.zeros((len(names), len(files)), dtype=np.int8)
    for column, file in enumerate(files):
        values = file.read_text("utf-8-sig").split()
        if set(values) - {"0", "1"} or len(values) != len(names):
            raise ValueError(
                f"{file} should hold {len(names)} lines of 0 or 1, as many as {image_list} has "
                f"images; it holds {len(values)}: unpack both again."
            )
        labels[:, column] = [value == "1" for value in values]
    return names, labels, [image_list, *files]


def _read_csv(file: Path, split: str) -> tuple[list[str], np.ndarray]:
    table = read_table(file, NUS_CLASSES)
    splits = set(table.splits)
    if splits == {""}:
        return table.files, table.labels
    wanted = "val" if split == "test" and "test" not in splits else split
    rows = [row for row, name in enumerate(table.splits) if name == wanted]
    if not rows:
        raise ValueError(f"{file} has no rows of the split {split!r}: {some(sorted(splits))}.")
    return [table.files[row] for row in rows], table.labels[rows]


def _read_text(file: Path) -> tuple[list[str], np.ndarray]:
    names, rows = [], []
    n_classes = len(NUS_CLASSES)
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        name, *values = line.split()
        row = np.zeros(n_classes, dtype=np.int8)
        if len(values) == n_classes and set(values) <= {"0", "1"}:
            row[:] = [value == "1" for value in values]
        elif all(value.isdecimal() and int(value) < n_classes for value in values):
            row[[int(value) for value in values]] = 1
        else:
            raise ValueError(
                f"{file}, line {number}: after the image there should be numbers of concepts from "
                f"0 to {n_classes - 1}, or {n_classes} times 0 or 1."
            )
        names.append(name)
        rows.append(row)
    if not rows:
        raise ValueError(f"{file} is empty; each line should name an image and its concepts.")
    return names, np.stack(rows)


def _index(folder: Path) -> dict[str, list[str]]:
    """{file name: paths} of all images in a folder and below."""
    index: dict[str, list[str]] = {}
    for path, _, files in os.walk(folder):
        for name in files:
            if name.lower().endswith(SUFFIXES):
                index.setdefault(name, []).append(f"{path}/{name}")
    return index


def _find(index: dict[str, list[str]], name: str) -> Path | None:
    """The image that a name in the lists means, None if it is not there."""
    base = name.rpartition("/")[2]
    paths: Sequence[str] = index.get(base) or index.get(base.rpartition("_")[2], ())
    if len(paths) > 1:
        paths = [path for path in paths if path.endswith(f"/{name}")] or paths
    if len(paths) > 1:
        raise ValueError(f"Several images may be meant by {name}: {some(paths)}; keep one.")
    return Path(paths[0]) if paths else None
