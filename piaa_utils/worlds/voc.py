"""PASCAL VOC's layout on disk: the real VOC, the embedded mini world, or a data set of your own."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from piaa_utils.files import data_dir, printable
from piaa_utils.images import decode
from piaa_utils.vocabulary import check_class_names
from piaa_utils.worlds.class_lists import VOC_CLASSES
from piaa_utils.worlds.masks import BACKGROUND, VOID
from piaa_utils.worlds.world import World, gone, read_lines, refuse_twice, wrong

VOC_ALIASES = {name.replace(" ", ""): name for name in VOC_CLASSES if " " in name}


class VOCLayout(World):
    """A world in PASCAL VOC's layout.

    ::

        root/JPEGImages/<id>.jpg
        root/Annotations/<id>.xml            objects with <name> and <difficult>
        root/ImageSets/Main/<split>.txt      one <id> a line; what may stand behind it is -1, 0 or 1
        root/SegmentationClass/<id>.png      optional class masks, palette images
        root/labels.txt                      optional: all class names of the data set, one a line;
                                             palette index = 1 + line number (from 0), 0 background

    Annotations and masks are read when they are asked for, so a split to learn from needs none.
    Without ``labels.txt`` the names and the palette are VOC's. An object marked "difficult" counts
    as absent (the paper's protocol); ``difficult`` is for PASCAL's own, which leaves it out.

    root, split : the folder above; a name in ImageSets/Main: "trainval", "test", ...
    class_names : the columns of the labels; ``all_names`` has those that the palette knows.
    aliases : names in the files -> names in ``class_names``.

    What is missing is a FileNotFoundError that shows the layout; what is wrong a ValueError.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        class_names: Sequence[str] = VOC_CLASSES,
        aliases: Mapping[str, str] = VOC_ALIASES,
    ):
        root, self.aliases = Path(root), dict(aliases)
        self._layout = (
            f"VOC's layout is JPEGImages/, Annotations/ and ImageSets/Main/{split}.txt in one "
            f"folder, here {printable(root)}; for the real VOC, VOCdevkit/VOC2007 (or VOC2012)."
        )
        folder, file = root / "JPEGImages", root / "ImageSets" / "Main" / f"{split}.txt"
        if not file.is_file():
            there = ", ".join(sorted(other.stem for other in file.parent.glob("*.txt"))[:20])
            raise gone(file, f"Splits there: {printable(there)}. {self._layout}", "image set")
        if not folder.is_dir():
            raise gone(folder, self._layout, "folder")
        files = {entry.name for entry in os.scandir(folder)}
        ids = _ids(file, files)
        paths = [folder / f"{i}.jpg" if f"{i}.jpg" in files else None for i in ids]
        mend = f"They belong to the split {split!r}. {self._layout}"
        super().__init__(root, class_names, ids, paths, None, mend, allow_missing=False)
        self.all_names = self._all_names()

    @cached_property
    def annotations(self) -> tuple[np.ndarray, np.ndarray]:
        easy, hard = np.zeros((2, len(self.ids), len(self.class_names)), dtype=bool)
        for row, image_id in enumerate(self.ids):
            for name, difficult in self.objects(image_id):
                if name in self.class_names:
                    (hard if difficult else easy)[row, self.class_names.index(name)] = True
        return easy.astype(np.int8), hard & ~easy

    def objects(self, image_id: str) -> list[tuple[str, bool]]:
        """(class name, marked difficult) of every object in an image's annotation."""
        path, objects = self.root / "Annotations" / f"{image_id}.xml", []
        if not path.is_file():
            raise gone(path, self._layout, "annotation")
        for item in _parse(path).findall("object"):
            name = (item.findtext("name") or "").strip()
            name = self.aliases.get(name, name)
            if name not in self.all_names and name not in self.class_names:
                mend = "add the name to class_names, to aliases or to labels.txt."
                raise wrong(path, f"an object is {name!r}, no class of this data set; {mend}")
            objects.append((name, (item.findtext("difficult") or "0").strip() == "1"))
        return objects

    def mask(self, index: int) -> np.ndarray | None:
        """The class mask of a picture, see :class:`World`; ``VOID`` is PASCAL's unlabelled border.

        A damaged file is an UnreadableImage, one of no or unknown palette indices a ValueError.
        """
        path = self.root / "SegmentationClass" / f"{self.ids[index]}.png"
        if not path.exists():
            return None
        mode, indices = decode(path, lambda image: (image.mode, np.array(image)))
        if mode not in ("P", "L"):
            raise wrong(path, f"a mask must be a palette image of class indices, but is {mode}.")
        known = len(self.all_names)
        if len(unknown := indices[(indices > known) & (indices < 255)]):
            mend = f"the data set has only {known} classes; check its labels.txt."
            raise wrong(path, f"there is the palette index {unknown[0]}, but {mend}")
        class_of = np.full(256, BACKGROUND, dtype=np.int16)
        for position, name in enumerate(self.all_names, start=1):
            if name in self.class_names:
                class_of[position] = self.class_names.index(name)
        class_of[255] = VOID
        return class_of[indices]

    def _all_names(self) -> tuple[str, ...]:
        path = self.root / "labels.txt"
        if not path.exists():
            return VOC_CLASSES
        names = read_names(path)
        if len(names) > 254:
            raise wrong(path, f"{len(names)} classes are listed; a mask's palette holds 254.")
        if unknown := [name for name in self.class_names if name not in names]:
            raise wrong(path, f"the class {unknown[0]!r} is none of the {len(names)} listed here.")
        return names


def mini_scenes(split: str, class_names: Sequence[str] = VOC_CLASSES) -> VOCLayout:
    """A split of the embedded mini world, whose masks know every pixel's owner.

    split : "learn", "val" or "test"; with "_unseen" behind it, in a style that the mini-CLIP never
        saw. class_names : ``VOC_CLASSES`` (20) or ``mini_long_classes()`` (71).

    >>> world = mini_scenes("val")
    >>> world[0].size, world.labels.shape[1], world.mask(0).shape
    ((224, 224), 20, (224, 224))
    """
    world = VOCLayout(data_dir() / "mini_scenes", split, class_names)
    world.name = "mini"
    return world


def mini_long_classes() -> tuple[str, ...]:
    """The mini world's second, COCO-like class list: VOC's 20 and 51 more.

    >>> names = mini_long_classes()
    >>> len(names), names[:20] == VOC_CLASSES, names[20:23]
    (71, True, ('truck', 'traffic light', 'taxi'))
    """
    names = read_names(data_dir() / "mini_scenes" / "labels.txt")
    return tuple(name for name in names if name != "other")  # objects of no listed class


def read_names(path: Path) -> tuple[str, ...]:
    """The class names in a file, one a line."""
    names = [name for _, name in read_lines(path, "class names, one a line")]
    return check_class_names(names, printable(path))


def _ids(path: Path, files: set[str]) -> list[str]:
    """The ids of a split, without the -1, 0 or 1 that VOC's lists of one class have behind them."""
    ids = []
    for number, line in read_lines(path, "image ids, one a line"):
        bare = re.sub(r"\s+(-1|0|1)$", "", line)
        if bare != line and {f"{line}.jpg", f"{bare}.jpg"} <= files:
            raise wrong(path, f"{bare}.jpg or {line}.jpg? Both are there; rename one.", number)
        ids.append((number, line if f"{line}.jpg" in files else bare))
    return refuse_twice(ids, path)


def _parse(path: Path) -> ElementTree.Element:
    """The root of an XML file, in any encoding that Python knows."""
    data = path.read_bytes()
    try:
        try:
            return ElementTree.fromstring(data)
        except (ValueError, LookupError):  # the parser knows but a few encodings
            declared = re.match(rb"<\?xml[^>]*encoding=['\"]([\w.:-]+)", data)
            return ElementTree.fromstring(data.decode(declared[1].decode() if declared else ""))
    except (ValueError, LookupError, ElementTree.ParseError) as error:
        mend = "unpack the data set again, or save the file in UTF-8, and say so in its first line."
        raise wrong(path, f"this is no well-formed XML ({error}); {mend}") from None
