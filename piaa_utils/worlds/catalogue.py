"""The worlds by name: where they lie, how they are split, the paper's numbers for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from piaa_utils.files import data_dir, printable
from piaa_utils.settings import PAPER, Scales
from piaa_utils.worlds.class_lists import COCO_CLASSES, NUS_CLASSES, VOC_CLASSES
from piaa_utils.worlds.coco import COCO
from piaa_utils.worlds.folder import LabelledFolder
from piaa_utils.worlds.nus_wide import SINGLE_FILES, NUSWide
from piaa_utils.worlds.voc import VOCLayout
from piaa_utils.worlds.world import Pictures


class Entry(NamedTuple):
    """One world.

    load : of its folder, one of its splits and class names. folder : under the data root.
    splits : what it calls "learn" (to learn from, without labels), "val" (to choose settings on,
    with labels) and "test". "val" is half of VOC07's "learn", and all of it for the other three of
    the paper, which have no split to spare.
    marks : folders (or files) of which it has one; they tell it from any other folder. Folders
    say so for sure, files only where there is no `folder`.
    files : what its folder must look like, and where to get it, in a sentence.
    scales : the paper's; None takes the backbone's own.
    backbone : model and weights for its kind of pictures. home : its data root if none is given.
    reported : the paper's mAP with each encoder, in per cent.
    pictures : how many the paper learns from and tests on.
    """

    load: Callable[[Path, str, Sequence[str]], Pictures]
    folder: str
    splits: Mapping[str, str]
    class_names: tuple[str, ...]
    marks: Sequence[str]
    files: str
    scales: Scales | None = None
    backbone: tuple[str, str | None] = ("ViT-B-16-quickgelu", "openai")
    home: Callable[[], Path] | None = None
    reported: Mapping[str, float] = {}
    pictures: tuple[int, int] | None = None

    def root(self, data_root: str | os.PathLike[str]) -> Path:
        """The world's own folder: under `data_root`, or `data_root` itself."""
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


_STYLES = {f"{split}{style}": f"{split}{style}" for style in ("", "_unseen")
           for split in ("learn", "val", "test")}  # fmt: skip
_VOC = (
    "{0} lies in the folder {1}, with JPEGImages/, Annotations/ and ImageSets/; it is {2}, from "
    "http://host.robots.ox.ac.uk/pascal/VOC/ (`piaa download {3}` fetches it)."
)

WORLDS = {
    "mini": Entry(
        VOCLayout,
        "mini_scenes",
        _STYLES,
        VOC_CLASSES,
        ("ImageSets", "JPEGImages"),
        "The mini world lies in the folder mini_scenes of data/, in VOC's layout.",
        backbone=("mini", None),
        home=data_dir,
    ),
    "voc07": Entry(
        VOCLayout,
        "VOCdevkit/VOC2007",
        {"learn": "trainval", "val": "val", "test": "test"},
        VOC_CLASSES,
        ("ImageSets", "JPEGImages"),
        _VOC.format(
            "VOC07",
            "VOCdevkit/VOC2007",
            "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
            "voc07",
        ),
        PAPER["voc07"],
        reported={"scclip": 92.5, "itaclip": 92.3, "sclip": 91.7},
        pictures=(5011, 4952),
    ),
    "voc12": Entry(
        VOCLayout,
        "VOCdevkit/VOC2012",
        {"learn": "train", "val": "train", "test": "val"},
        VOC_CLASSES,
        ("ImageSets", "JPEGImages"),
        _VOC.format("VOC12", "VOCdevkit/VOC2012", "VOCtrainval_11-May-2012.tar", "voc12"),
        PAPER["voc12"],
        reported={"scclip": 92.2, "itaclip": 92.2, "sclip": 91.4},
        pictures=(5717, 5823),
    ),
    "coco": Entry(
        COCO,
        "coco",
        {"learn": "train2014", "val": "train2014", "test": "val2014"},
        COCO_CLASSES,
        ("annotations", "train2014", "val2014"),
        "COCO lies in the folder coco, with annotations/, train2014/ and val2014/; it is "
        "train2014.zip, val2014.zip and annotations_trainval2014.zip, from "
        "https://cocodataset.org/#download (`piaa download coco` fetches it).",
        PAPER["coco"],
        reported={"scclip": 73.2, "itaclip": 74.6, "sclip": 73.0},
        pictures=(82081, 40137),
    ),
    "nus": Entry(
        NUSWide,
        "nus_wide",
        {"learn": "train", "val": "train", "test": "test"},
        NUS_CLASSES,
        ("Groundtruth", *(n.format(s) for n in SINGLE_FILES for s in ("train", "test"))),
        "NUS-WIDE lies in the folder nus_wide, with Groundtruth/, ImageList/ and the images; no "
        "program can fetch it: ask for the images, and get Groundtruth.zip and ImageList.zip, at "
        "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html.",
        PAPER["nus"],
        reported={"scclip": 50.6, "itaclip": 49.1, "sclip": 49.2},
        pictures=(150000, 60260),
    ),
}


def load_world(
    name: str,
    split: str,
    data_root: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> Pictures:
    """A split of a world, see :class:`World` for what it has.

    Parameters
    ----------
    name : a key of ``WORLDS``, or a folder of your own, see :class:`LabelledFolder`.
    split : "learn", "val" or "test". The mini world also has each with "_unseen" behind it, drawn
        in another style; of a world without one it is the plain split.
    data_root : the folder that holds the world's, or that itself. The mini world needs none.
    class_names : the columns of the labels; None takes the world's.

    Raises
    ------
    ValueError
        An unknown name or split, no data_root, the folder of another world, or bad files.
    FileNotFoundError
        Files are missing; the message says which, where to get them and how to lay them out.

    Examples
    --------
    >>> world = load_world("mini", "val")
    >>> world.name, len(world), world.labels.shape
    ('mini', 150, (150, 20))
    """
    plain = split.removesuffix("_unseen")
    if name and name not in WORLDS and (own := Path(data_root or "", name)).is_dir():
        return LabelledFolder(own, class_names=class_names, split=plain)
    if name not in WORLDS:
        known = ", ".join(WORLDS)
        raise ValueError(f"There is no world {name!r}; there are {known}, and folders of your own.")
    entry = WORLDS[name]
    if plain not in entry.splits:
        raise ValueError(f"There is no split {split!r}; there are {', '.join(entry.splits)}.")
    home = data_root or (entry.home and entry.home())
    if not home:
        raise ValueError(f"The world {name!r} needs data_root, the folder it is in. {entry.files}")
    root = entry.root(home)
    for other in WORLDS.values():
        if root.resolve().name == Path(other.folder).name != Path(entry.folder).name:
            raise ValueError(f"{printable(root)} is the folder of another world. {entry.files}")
    try:
        world = entry.load(
            root, entry.splits.get(split, entry.splits[plain]), class_names or entry.class_names
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {entry.files}") from None
    world.name = name
    return world
