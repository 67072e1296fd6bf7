"""NUS-WIDE: 81 concepts, from the official ground truth or from the single files in use."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from piaa_utils.files import printable, some
from piaa_utils.images import SUFFIXES, image_files
from piaa_utils.vocabulary import check_class_names
from piaa_utils.worlds.class_lists import NUS_CLASSES
from piaa_utils.worlds.folder import one_spelling, read_table
from piaa_utils.worlds.world import World, gone, read_lines, refuse_twice, wrong

SINGLE_FILES = ("nus_wide_{}.csv", "nus_wid_data.csv", "nus_wide_data.csv", "{}.csv", "{}.txt")


class NUSWide(World):
    """NUS-WIDE as a multi-label world.

    ::

        root/Groundtruth/TrainTestLabels/Labels_airport_Train.txt ...   one 0 or 1 a line
        root/ImageList/TrainImagelist.txt, TestImagelist.txt            one image a line
        root/Flickr/actor/0001_2124494179.jpg ...                       or any other folder in root

    or, in place of the first two, one of the files ``nus_wide_train.csv`` (``nus_wide_test.csv``),
    ``nus_wid_data.csv``, ``train.csv``, ``train.txt``. A CSV file has a column with the images and
    81 columns of 0 and 1, or a column ``label`` with names; a column ``split_name`` chooses the
    rows, "val" meaning "test" where there is no "test". A text file has, on each line, an image and
    the numbers of its concepts from 0 (or 81 times 0 or 1).

    An image is found by its file name or its Flickr number, wherever in `images` (by default
    `root`) it lies. Missing ones are left out, counted and named in a warning.

    root, split : the folder above; "train" or "test".
    labels : the label file, if it is none of those above.

    Missing files are a FileNotFoundError; what cannot be read, or in two ways, is a ValueError.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        class_names: Sequence[str] = NUS_CLASSES,
        labels: str | os.PathLike[str] | None = None,
        images: str | os.PathLike[str] | None = None,
    ):
        if split not in ("train", "test"):
            raise ValueError(f"NUS-WIDE has the splits train and test, not {split!r}.")
        if unknown := [c for c in check_class_names(class_names) if c not in NUS_CLASSES]:
            raise ValueError(f"The class {unknown[0]!r} is none of the 81 concepts of NUS-WIDE.")
        root, images = Path(root), Path(root if images is None else images)
        names, matrix = _read(root, split, None if labels is None else Path(labels))
        matrix = matrix[:, [NUS_CLASSES.index(name) for name in class_names]]
        index = defaultdict(list)
        for path in image_files(images):
            index[path.name].append(path.as_posix())
        paths = [_find(index, name) for name in names]
        mend = f"Looked in {printable(images)} and its sub-folders."
        super().__init__(root, class_names, names, paths, matrix, mend)


def _read(root: Path, split: str, file: Path | None) -> tuple[list[str], np.ndarray]:
    """Names of the images, with ``/``, and int8 [n, 81]."""
    if file is None and (root / "Groundtruth" / "TrainTestLabels").is_dir():
        return _read_official(root, split)
    names = [name.format(split) for name in SINGLE_FILES]
    file = file or next((root / name for name in names if (root / name).is_file()), None)
    if file is None:
        looked = f"Groundtruth/TrainTestLabels/ with ImageList/, and for {', '.join(names)}"
        raise gone(root, f"Looked for {looked}.", "labels of NUS-WIDE in")
    if file.suffix.lower() == ".csv":
        return read_table(file, NUS_CLASSES).of(split)
    return _read_text(file)


def _read_official(root: Path, split: str) -> tuple[list[str], np.ndarray]:
    image_list = root / "ImageList" / f"{split.title()}Imagelist.txt"
    lines = read_lines(image_list, "a list of images")
    names = refuse_twice([(line, one_spelling(name)) for line, name in lines], image_list)
    columns = []
    for concept in NUS_CLASSES:
        file = root / f"Groundtruth/TrainTestLabels/Labels_{concept}_{split.title()}.txt"
        values = [value for _, value in read_lines(file, "a concept's flags")]
        if set(values) - {"0", "1"} or len(values) != len(names):
            wanted = f"{len(names)} lines of 0 or 1, as many as {printable(image_list)} has images"
            raise wrong(file, f"there should be {wanted}, not {len(values)}: unpack both again.")
        columns.append([value == "1" for value in values])
    return names, np.array(columns, dtype=np.int8).T


def _read_text(file: Path) -> tuple[list[str], np.ndarray]:
    wanted = "after the image there should be different numbers of concepts, 0 to 80, or 81 flags"
    lines = read_lines(file, "a list of images and their concepts")
    names, seen, labels = [], set[int](), np.zeros((len(lines), len(NUS_CLASSES)), dtype=np.int8)
    for row, (number, line) in zip(labels, lines, strict=True):
        name, tail, _ = re.split(r"((?:\s+\d+)*)$", line, maxsplit=1)
        values = [int(value) for value in tail.split()]
        names.append((number, one_spelling(name)))
        are_flags = len(values) == len(row) and set(values) <= {0, 1}
        are_numbers = max(values, default=0) < len(row) and len(set(values)) == len(values)
        if not name.lower().endswith(SUFFIXES) or not (are_flags or are_numbers):
            raise wrong(file, f"{wanted}.", number)
        if are_flags:
            row[:] = values
        else:
            row[values] = 1
            seen.update(values)
    if seen and seen <= {0, 1}:
        raise wrong(file, f"{wanted}; 0 and 1 alone may be either.", 1)
    return refuse_twice(names, file), labels


def _find(index: dict[str, list[str]], name: str) -> Path | None:
    """The image that a name in the lists means, None if it is not there."""
    base = name.rpartition("/")[2]
    paths = index.get(base) or index.get(base.rpartition("_")[2], [])
    if len(paths) > 1:
        paths = [path for path in paths if path.endswith(f"/{name}")] or paths
    if len(paths) > 1:
        raise ValueError(f"Several images may be meant by {name}: {some(paths)}; keep one.")
    return Path(paths[0]) if paths else None
