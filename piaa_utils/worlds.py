"""The paper's four data sets: where they lie, how they are split, where to get them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from piaa_utils import coco, nus_wide
from piaa_utils.datasets import COCO_CLASSES, NUS_CLASSES, VOC_CLASSES, VOCLayout


@dataclass(frozen=True)
class World:
    """One of the paper's data sets.

    folder : where it lies under the data root.
    splits : what it calls the splits "learn" (to learn from, without labels), "val" (to choose
        settings on, with labels) and "test". "val" is half of VOC07's "learn", and all of it
        for the other three, which have no split to spare.
    marks : folders (or files) of which it has one; they tell it from any other folder. Folders
        say so for sure, files only where there is no `folder`.
    """

    folder: str
    splits: dict[str, str]
    class_names: tuple[str, ...]
    where: str
    marks: tuple[str, ...]
    load: Callable[..., Dataset]

    def root(self, data_root: str | os.PathLike) -> Path:
        """The data set's own folder: under `data_root`, or `data_root` itself."""
        data_root = Path(data_root)
        if any((data_root / mark).is_dir() for mark in self.marks):
            return data_root  # also if a copy was unpacked within it
        parts = Path(self.folder).parts
        for start in range(len(parts)):
            if (path := data_root.joinpath(*parts[start:])).is_dir():
                return path
        if any((data_root / mark).exists() for mark in self.marks):
            return data_root
        return data_root / self.folder


_VOC = (
    "Unpack {}, from http://host.robots.ox.ac.uk/pascal/VOC/ (or use `python -m piaa_utils "
    "download {}`), to get the folder {}."
)
_VOC07 = "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar", "voc07", "VOCdevkit/VOC2007"
_VOC12 = "VOCtrainval_11-May-2012.tar", "voc12", "VOCdevkit/VOC2012"
_VOC_MARKS = ("ImageSets", "JPEGImages")

WORLDS = {
    "voc07": World(
        "VOCdevkit/VOC2007",
        {"learn": "trainval", "val": "val", "test": "test"},
        VOC_CLASSES,
        _VOC.format(*_VOC07),
        _VOC_MARKS,
        VOCLayout,
    ),
    "voc12": World(
        "VOCdevkit/VOC2012",
        {"learn": "train", "val": "train", "test": "val"},
        VOC_CLASSES,
        _VOC.format(*_VOC12),
        _VOC_MARKS,
        VOCLayout,
    ),
    "coco": World(
        "coco",
        {"learn": "train2014", "val": "train2014", "test": "val2014"},
        COCO_CLASSES,
        coco.WHERE,
        ("annotations", "train2014", "val2014"),
        coco.COCO,
    ),
    "nus": World(
        "nus_wide",
        {"learn": "train", "val": "train", "test": "test"},
        NUS_CLASSES,
        nus_wide.WHERE,
        ("Groundtruth", *(n.format(s) for n in nus_wide.SINGLE_FILES for s in ("train", "test"))),
        nus_wide.NUSWide,
    ),
}


def load_world(name: str, data_root: str | os.PathLike, split: str, **options) -> Dataset:
    """A split of one of the paper's data sets.

    Parameters
    ----------
    name : a key of ``WORLDS``: "voc07", "voc12", "coco" or "nus".
    data_root : the folder that holds ``VOCdevkit/VOC2007``, ``VOCdevkit/VOC2012``, ``coco`` or
        ``nus_wide``; the data set's own folder, or VOCdevkit, will do too.
    split : "learn", "val" or "test".
    options : for the data set's class, as ``keep_unlabelled``.

    Returns
    -------
    A Dataset of RGB PIL images with ids, paths, class_names, ``labels`` int8 [n, C] and
    ``difficult`` bool [n, C]; see :class:`VOCLayout`, :class:`piaa_utils.coco.COCO` and
    :class:`piaa_utils.nus_wide.NUSWide`.

    Raises
    ------
    ValueError
        An unknown name or split, the folder of another world, or bad files.
    FileNotFoundError
        Files are missing; the message says which, where to get them and how to lay them out.
    """
    world = find_world(name)
    if split not in world.splits:
        raise ValueError(f"There is no split {split!r}; there are {', '.join(world.splits)}.")
    root = world.root(data_root)
    for other, entry in WORLDS.items():
        if other != name and root.resolve().name == Path(entry.folder).name:
            raise ValueError(
                f"{root} is the folder of {other}, not of {name}; give the one that holds "
                f"{world.folder}."
            )
    try:
        return world.load(root, world.splits[split], **options)
    except FileNotFoundError as error:
        where = "" if world.where in str(error) else f" {world.where}"
        raise FileNotFoundError(f"{error}{where}") from None


def find_world(name: str) -> World:
    """The entry of ``WORLDS``.

    Raises
    ------
    ValueError
        There is none of this name.

    Examples
    --------
    >>> find_world("coco").splits["test"]
    'val2014'
    """
    if name not in WORLDS:
        raise ValueError(f"There is no data set {name!r}; there are {', '.join(WORLDS)}.")
    return WORLDS[name]
