"""The worlds by name: where they lie, how they are split, the paper's numbers for them."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from piaa_utils.files import data_dir, printable
from piaa_utils.settings import PAPER, Scales
from piaa_utils.worlds.class_lists import COCO_CLASSES, NUS_CLASSES, VOC_CLASSES
from piaa_utils.worlds.coco import COCO
from piaa_utils.worlds.folder import LabelledFolder
from piaa_utils.worlds.nus_wide import NUSWide
from piaa_utils.worlds.voc import VOCLayout
from piaa_utils.worlds.world import World


class Entry(NamedTuple):
    """One world, and the paper's numbers for it."""

    load: Callable[[Path, str, Sequence[str]], World]  # of folder, split and class names
    folder: str  # under the data root
    files: str  # what the folder must look like, and where to get it, in a sentence
    class_names: tuple[str, ...]
    splits: Mapping[str, str]  # what it calls "learn", "val" (to choose settings on) and "test"
    scales: Scales | None = None  # the paper's; None takes the backbone's own
    pictures: tuple[int, int] | None = None  # that the paper learns from and tests on
    reported: Mapping[str, float] = {}  # its mAP in per cent

    def root(self, data_root: str | os.PathLike[str]) -> Path:
        """The world's own folder: under `data_root`, or `data_root` itself."""
        parts = Path(self.folder).parts
        under = (Path(data_root, *parts[start:]) for start in range(len(parts)))
        return next((path for path in under if path.is_dir()), Path(data_root))


_VOC = (
    "VOC{0} lies in the folder VOCdevkit/VOC20{0}, with JPEGImages/, Annotations/ and ImageSets/; "
    "it is {1}, from http://host.robots.ox.ac.uk/pascal/VOC/ (`piaa download voc{0}` fetches it)."
)
_FILES = {
    "mini": "The mini world lies in the folder mini_scenes of data/, in VOC's layout.",
    "voc07": _VOC.format("07", "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar"),
    "voc12": _VOC.format("12", "VOCtrainval_11-May-2012.tar"),
    "coco": "COCO lies in the folder coco, with annotations/, train2014/ and val2014/; it is "
    "train2014.zip, val2014.zip and annotations_trainval2014.zip, from "
    "https://cocodataset.org/#download (`piaa download coco` fetches it).",
    "nus": "NUS-WIDE lies in the folder nus_wide, with Groundtruth/, ImageList/ and the images; no "
    "program can fetch it: ask for the images, and get Groundtruth.zip and ImageList.zip, at "
    "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html.",
}
_SPLITS = {"learn": "learn", "val": "val", "test": "test"}
_STYLES = _SPLITS | {f"{split}_unseen": f"{split}_unseen" for split in _SPLITS}
_VOC07 = _SPLITS | {"learn": "trainval"}
_VOC12 = {"learn": "train", "val": "train", "test": "val"}
_COCO = {"learn": "train2014", "val": "train2014", "test": "val2014"}
_NUS = {"learn": "train", "val": "train", "test": "test"}
_PICTURES = {
    "voc07": (5011, 4952),
    "voc12": (5717, 5823),
    "coco": (82081, 40137),
    "nus": (150000, 60260),
}
_REPORTED = {  # for SC-CLIP, ITACLIP and SCLIP
    "voc07": (92.5, 92.3, 91.7),
    "voc12": (92.2, 92.2, 91.4),
    "coco": (73.2, 74.6, 73.0),
    "nus": (50.6, 49.1, 49.2),
}


def _entry(name: str, load: Any, folder: str, class_names: tuple[str, ...], splits: Any) -> Entry:
    reported = dict(zip(("scclip", "itaclip", "sclip"), _REPORTED.get(name, ()), strict=False))
    numbers = PAPER.get(name), _PICTURES.get(name), reported
    return Entry(load, folder, _FILES[name], class_names, splits, *numbers)


WORLDS = {
    "mini": _entry("mini", VOCLayout, "mini_scenes", VOC_CLASSES, _STYLES),
    "voc07": _entry("voc07", VOCLayout, "VOCdevkit/VOC2007", VOC_CLASSES, _VOC07),
    "voc12": _entry("voc12", VOCLayout, "VOCdevkit/VOC2012", VOC_CLASSES, _VOC12),
    "coco": _entry("coco", COCO, "coco", COCO_CLASSES, _COCO),
    "nus": _entry("nus", NUSWide, "nus_wide", NUS_CLASSES, _NUS),
}


def load_world(
    name: str,
    split: str,
    data_root: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> World:
    """A split of a world, see :class:`World` for what it has.

    name : a key of ``WORLDS``, or a folder of your own, see :class:`LabelledFolder`.
    split : "learn", "val" or "test"; "_unseen" behind it gives the mini world's in another style.
    data_root : the folder that holds the world's, or that itself. The mini world needs none.

    Missing files are a FileNotFoundError, which says where to get them and how to lay them out; bad
    files, an unknown name or split, no data_root and another world's folder are a ValueError.

    >>> world = load_world("mini", "val")
    >>> world.name, len(world), world.labels.shape
    ('mini', 150, (150, 20))
    """
    plain = split.removesuffix("_unseen")
    if name and name not in WORLDS and (own := Path(data_root or "", name)).is_dir():
        return LabelledFolder(own, class_names=class_names, split=plain)
    if (entry := WORLDS.get(name)) is None:
        known = ", ".join(WORLDS)
        raise ValueError(f"There is no world {name!r}; there are {known}, and folders of your own.")
    if plain not in entry.splits:
        raise ValueError(f"There is no split {split!r}; there are {', '.join(entry.splits)}.")
    home = data_root or (data_dir() if name == "mini" else None)
    if not home:
        raise ValueError(f"The world {name!r} needs data_root, the folder it is in. {entry.files}")
    root = entry.root(home)
    for other in WORLDS.values():
        if root.resolve().name == Path(other.folder).name != Path(entry.folder).name:
            raise ValueError(f"{printable(root)} is the folder of another world. {entry.files}")
    names = class_names or entry.class_names
    try:
        world = entry.load(root, entry.splits.get(split, entry.splits[plain]), names)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {entry.files}") from None
    world.name = name
    return world
