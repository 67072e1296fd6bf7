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
from piaa_utils.worlds.nus_wide import NUSWide
from piaa_utils.worlds.voc import VOCLayout
from piaa_utils.worlds.world import World


class Entry(NamedTuple):
    """One world.

    load : of its folder, one of its splits and class names. folder : under the data root.
    files : what its folder must look like, and where to get it, in a sentence.
    splits : what it calls "learn" (to learn from, without labels), "val" (to choose settings on,
    with labels) and "test". "val" is half of VOC07's "learn", and all of it for the other three of
    the paper, which have no split to spare.
    scales : the paper's; None takes the backbone's own. pictures : how many the paper learns from
    and tests on. reported : its mAP with SC-CLIP, ITACLIP and SCLIP, in per cent.
    backbone : model and weights for such pictures. home : the data root where none is given.
    """

    load: Callable[[Path, str, Sequence[str]], World]
    folder: str
    files: str
    class_names: tuple[str, ...]
    splits: Mapping[str, str]
    scales: Scales | None = None
    pictures: tuple[int, int] | None = None
    reported: Mapping[str, float] = {}
    backbone: tuple[str, str | None] = ("ViT-B-16-quickgelu", "openai")
    home: Callable[[], Path] | None = None

    def root(self, data_root: str | os.PathLike[str]) -> Path:
        """The world's own folder: under `data_root`, or `data_root` itself."""
        parts = Path(self.folder).parts
        under = (Path(data_root, *parts[start:]) for start in range(len(parts)))
        return next((path for path in under if path.is_dir()), Path(data_root))


_STYLES = {s + style: s + style for s in ("learn", "val", "test") for style in ("", "_unseen")}
_VOC = (
    "{} lies in the folder {}, with JPEGImages/, Annotations/ and ImageSets/; it is {}, from "
    "http://host.robots.ox.ac.uk/pascal/VOC/ (`piaa download {}` fetches it)."
)
_VOC07 = "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar"
_VOC12 = "VOCtrainval_11-May-2012.tar"
_ENCODERS = ("scclip", "itaclip", "sclip")

WORLDS = {
    "mini": Entry(
        VOCLayout,
        "mini_scenes",
        "The mini world lies in the folder mini_scenes of data/, in VOC's layout.",
        VOC_CLASSES,
        _STYLES,
        backbone=("mini", None),
        home=data_dir,
    ),
    "voc07": Entry(
        VOCLayout,
        "VOCdevkit/VOC2007",
        _VOC.format("VOC07", "VOCdevkit/VOC2007", _VOC07, "voc07"),
        VOC_CLASSES,
        {"learn": "trainval", "val": "val", "test": "test"},
        PAPER["voc07"],
        (5011, 4952),
        dict(zip(_ENCODERS, (92.5, 92.3, 91.7), strict=True)),
    ),
    "voc12": Entry(
        VOCLayout,
        "VOCdevkit/VOC2012",
        _VOC.format("VOC12", "VOCdevkit/VOC2012", _VOC12, "voc12"),
        VOC_CLASSES,
        {"learn": "train", "val": "train", "test": "val"},
        PAPER["voc12"],
        (5717, 5823),
        dict(zip(_ENCODERS, (92.2, 92.2, 91.4), strict=True)),
    ),
    "coco": Entry(
        COCO,
        "coco",
        "COCO lies in the folder coco, with annotations/, train2014/ and val2014/; it is "
        "train2014.zip, val2014.zip and annotations_trainval2014.zip, from "
        "https://cocodataset.org/#download (`piaa download coco` fetches it).",
        COCO_CLASSES,
        {"learn": "train2014", "val": "train2014", "test": "val2014"},
        PAPER["coco"],
        (82081, 40137),
        dict(zip(_ENCODERS, (73.2, 74.6, 73.0), strict=True)),
    ),
    "nus": Entry(
        NUSWide,
        "nus_wide",
        "NUS-WIDE lies in the folder nus_wide, with Groundtruth/, ImageList/ and the images; no "
        "program can fetch it: ask for the images, and get Groundtruth.zip and ImageList.zip, at "
        "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html.",
        NUS_CLASSES,
        {"learn": "train", "val": "train", "test": "test"},
        PAPER["nus"],
        (150000, 60260),
        dict(zip(_ENCODERS, (50.6, 49.1, 49.2), strict=True)),
    ),
}


def load_world(
    name: str,
    split: str,
    data_root: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> World:
    """A split of a world, see :class:`World` for what it has.

    name : a key of ``WORLDS``, or a folder of your own, see :class:`LabelledFolder`.
    split : "learn", "val" or "test". The mini world also has each with "_unseen" behind it, drawn
        in another style; of a world without one it is the plain split.
    data_root : the folder that holds the world's, or that itself. The mini world needs none.
    class_names : the columns of the labels; None takes the world's.

    Raises ValueError: an unknown name or split, no data_root, the folder of another world, or bad
        files.
    Raises FileNotFoundError: files are missing; the message says which, where to get them and how
        to lay them out.

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
