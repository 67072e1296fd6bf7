"""Data sets: class lists of the paper's protocol, VOC's layout on disk, the embedded mini world.

Class names and their order are those of the paper's experiments: the columns of every label array
and the prompts "a photo of a {class}" follow them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from piaa_utils.images import UnreadableImage, open_image
from piaa_utils.messages import some

VOC_CLASSES = tuple(
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse, "
    "motorbike, person, potted plant, sheep, sofa, train, tv monitor".split(", ")
)

COCO_CLASSES = tuple(
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, "
    "fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, "
    "bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, "
    "sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, "
    "bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, "
    "carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, "
    "tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
    "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush".split(", ")
)

NUS_CLASSES = tuple(
    "airport, animal, beach, bear, birds, boats, book, bridge, buildings, cars, castle, cat, "
    "cityscape, clouds, computer, coral, cow, dancing, dog, earthquake, elk, fire, fish, flags, "
    "flowers, food, fox, frost, garden, glacier, grass, harbor, horses, house, lake, leaf, map, "
    "military, moon, mountain, nighttime, ocean, person, plane, plants, police, protest, "
    "railroad, rainbow, reflection, road, rocks, running, sand, sign, sky, snow, soccer, sports, "
    "statue, street, sun, sunset, surf, swimmers, tattoo, temple, tiger, tower, town, toy, train, "
    "tree, valley, vehicle, water, waterfall, wedding, whales, window, zebra".split(", ")
)

MINI_CLASSES = VOC_CLASSES

VOC_ALIASES = {
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "tv monitor",
}

# Values of a mask that are no class index:
BACKGROUND = -1  # no object of the class list
VOID = -2  # PASCAL's unlabelled border (palette index 255), to be left out of measurements


def mini_long_classes() -> tuple[str, ...]:
    """The mini world's second, COCO-like class list: VOC's 20 and 51 more.

    Examples
    --------
    >>> names = mini_long_classes()
    >>> len(names), names[:20] == VOC_CLASSES, names[20:23]
    (71, True, ('truck', 'traffic light', 'taxi'))
    """
    names = _read_names(data_dir() / "mini_scenes" / "labels.txt", "the mini world's classes")
    return tuple(name for name in names if name != "other")  # objects of no listed class


def data_dir() -> Path:
    """The folder ``data/`` of the repository, or what the variable PIAA_DATA names.

    Raises
    ------
    FileNotFoundError
        Neither exists.

    Examples
    --------
    >>> data_dir().is_dir()
    True
    """
    chosen = os.environ.get("PIAA_DATA")
    if chosen:
        path = Path(chosen)
        if not path.is_dir():
            raise FileNotFoundError(f"The environment variable PIAA_DATA names {path}: no folder.")
        return path
    path = Path(__file__).resolve().parents[1] / "data"
    if not path.is_dir():
        raise FileNotFoundError(
            f"There is no folder {path}; work in a clone of the repository (pip install -e .), "
            "or let the environment variable PIAA_DATA name its folder data/."
        )
    return path


def mini_scenes(split: str, class_names: Sequence[str] = MINI_CLASSES) -> VOCLayout:
    """A split of the embedded mini world, whose masks know every pixel's owner.

    Parameters
    ----------
    split : "learn" (to learn from, without labels), "val" (to choose settings on) or "test"; each
        also with "_unseen" behind it, drawn in an art style that the mini-CLIP never saw.
    class_names : ``MINI_CLASSES`` (the 20 of VOC) or ``mini_long_classes()`` (71).

    Returns
    -------
    A :class:`VOCLayout`: labels, pixel masks and pictures.

    Raises
    ------
    FileNotFoundError, ValueError
        As :class:`VOCLayout`.

    Examples
    --------
    >>> dataset = mini_scenes("val")
    >>> dataset[0].size, dataset.labels.shape[1], dataset.masks(0).shape
    ((224, 224), 20, (224, 224))
    """
    return VOCLayout(data_dir() / "mini_scenes", split, class_names)


class VOCLayout(Dataset):
    """A data set in PASCAL VOC's layout: the real VOC, the mini world, or your own.

    ::

        root/JPEGImages/<id>.jpg
        root/Annotations/<id>.xml            objects with <name> and <difficult>
        root/ImageSets/Main/<split>.txt      one <id> a line
        root/SegmentationClass/<id>.png      optional class masks, palette images
        root/labels.txt                      optional: all class names of the data set, one a line;
                                             palette index = 1 + line number (from 0), 0 background

    ``len(dataset)`` is n and ``dataset[i]`` the RGB PIL image i. Annotations and masks are read
    when they are asked for, so a split to learn from needs none. Without ``labels.txt`` the names
    and the palette are VOC's. Objects whose name the data set knows but ``class_names`` leaves out
    are ignored.

    Parameters
    ----------
    root : the folder above; for the real VOC it is ``VOCdevkit/VOC2007`` (or VOC2012).
    split : a name in ImageSets/Main: "trainval", "test", ...
    class_names : the columns of the label arrays, in order.
    aliases : names in the files -> names in ``class_names``.

    Attributes
    ----------
    ids : list of n image ids, in the order of the split file.
    paths : list of their image files.
    all_names : every class name of the data set, in the order of the masks' palette.
    labels : int8 [n, C], 1 where the image has an object of the class that is not marked
        "difficult" (the paper's protocol: difficult ones count as absent).
    difficult : bool [n, C], True where every object of the class in the image is marked
        "difficult" (PASCAL's own protocol leaves these pairs out of average precision).

    Raises
    ------
    FileNotFoundError
        A folder or file of the layout is missing; the message shows the layout.
    ValueError
        An empty split, an id listed twice, bad class names, an object of unknown name, broken XML
        or a mask with unknown indices; the message names the file.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        class_names: Sequence[str] = VOC_CLASSES,
        aliases: Mapping[str, str] = VOC_ALIASES,
    ):
        self.root = Path(root)
        self.split = split
        self.class_names = check_class_names(class_names)
        self.aliases = dict(aliases)
        self.ids = self._read_split()
        self.paths = self._find_images()
        self.all_names = self._all_names()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Image.Image:
        return open_image(self.paths[index])

    @property
    def labels(self) -> np.ndarray:
        return self._annotations[0]

    @property
    def difficult(self) -> np.ndarray:
        return self._annotations[1]

    @cached_property
    def _annotations(self) -> tuple[np.ndarray, np.ndarray]:
        shape = len(self.ids), len(self.class_names)
        easy, hard = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        column = {name: c for c, name in enumerate(self.class_names)}
        for row, image_id in enumerate(self.ids):
            for name, difficult in self.objects(image_id):
                if name in column:
                    (hard if difficult else easy)[row, column[name]] = True
        return easy.astype(np.int8), hard & ~easy

    def objects(self, image_id: str) -> list[tuple[str, bool]]:
        """(class name, marked difficult) of every object in an image's annotation."""
        path = self.root / "Annotations" / f"{image_id}.xml"
        try:
            tree = ElementTree.parse(path)
        except FileNotFoundError:
            raise FileNotFoundError(f"There is no annotation {path}. {self._layout()}") from None
        except ElementTree.ParseError as error:
            raise ValueError(
                f"{path} is no well-formed XML ({error}); unpack the data set again."
            ) from None
        objects = []
        for item in tree.getroot().findall("object"):
            name = (item.findtext("name") or "").strip()
            name = self.aliases.get(name, name)
            if name not in self.all_names and name not in self.class_names:
                raise ValueError(
                    f"{path} has an object named {name!r}, which is no class of this data set; "
                    "add the name to class_names, to aliases or to labels.txt."
                )
            objects.append((name, (item.findtext("difficult") or "0").strip() == "1"))
        return objects

    def masks(self, index: int) -> np.ndarray:
        """The class mask of image ``index``: int16 [H, W].

        Values are indices into ``class_names``; BACKGROUND (-1) is everything else, VOID (-2) is
        PASCAL's unlabelled border.

        Raises
        ------
        FileNotFoundError
            There is no mask of this image.
        UnreadableImage
            The file is damaged.
        ValueError
            It is no palette image, or holds an index beyond the data set's classes.
        """
        path = self.root / "SegmentationClass" / f"{self.ids[index]}.png"
        try:
            with Image.open(path) as image:
                mode, palette_index = image.mode, np.array(image)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"There is no mask {path}; the real VOC has masks only for the images listed in "
                "ImageSets/Segmentation."
            ) from None
        except (OSError, SyntaxError) as error:
            raise UnreadableImage(f"{path}: the mask cannot be read ({error}).") from None
        if mode not in ("P", "L"):
            raise ValueError(f"{path} must be a palette image of class indices, but is {mode}.")
        unknown = palette_index[(palette_index > len(self.all_names)) & (palette_index < 255)]
        if unknown.size:
            raise ValueError(
                f"{path} holds palette index {unknown[0]}, but the data set has only "
                f"{len(self.all_names)} classes; check {self.root / 'labels.txt'}."
            )
        return self._palette[palette_index]

    @cached_property
    def _palette(self) -> np.ndarray:
        """Class index of every palette index."""
        palette = np.full(256, BACKGROUND, dtype=np.int16)
        for position, name in enumerate(self.all_names, start=1):
            if name in self.class_names:
                palette[position] = self.class_names.index(name)
        palette[255] = VOID
        return palette

    def _read_split(self) -> list[str]:
        path = self.root / "ImageSets" / "Main" / f"{self.split}.txt"
        if not path.is_file():
            there = sorted(file.stem for file in path.parent.glob("*.txt"))
            splits = f" Splits there: {', '.join(there[:20])}." if there else ""
            raise FileNotFoundError(f"There is no image set {path}.{splits} {self._layout()}")
        ids = _read_names(path, "image ids")
        return [line.split()[0] for line in ids]

    def _find_images(self) -> list[Path]:
        folder = self.root / "JPEGImages"
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}. {self._layout()}")
        there = {entry.name for entry in os.scandir(folder)}
        names = [f"{image_id}.jpg" for image_id in self.ids]
        missing = [name for name in names if name not in there]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(self.ids)} images of the split {self.split!r} are not in "
                f"{folder}: {some(missing)}. {self._layout()}"
            )
        return [folder / name for name in names]

    def _all_names(self) -> tuple[str, ...]:
        path = self.root / "labels.txt"
        if not path.exists():
            return VOC_CLASSES
        names = _read_names(path, "class names")
        if len(names) > 254:
            raise ValueError(f"{path} lists {len(names)} classes; a mask's palette holds 254.")
        unknown = [name for name in self.class_names if name not in names]
        if unknown:
            raise ValueError(
                f"The class {unknown[0]!r} does not occur in this data set; "
                f"its {len(names)} classes are listed in {path}."
            )
        return names

    def _layout(self) -> str:
        return (
            f"VOC's layout is JPEGImages/, Annotations/ and ImageSets/Main/{self.split}.txt in "
            f"one folder, here {self.root}; for the real VOC give the folder VOCdevkit/VOC2007 "
            "(or VOC2012)."
        )


def check_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple; refuse what is no list of different, non-empty names.

    Raises
    ------
    ValueError
        One string in place of a list, no names, an empty one, or one given twice.

    Examples
    --------
    >>> check_class_names(["cat", "dog"])
    ('cat', 'dog')
    """
    if isinstance(class_names, str):
        raise ValueError(f"class_names must be a list of names, but is one string {class_names!r}.")
    names = tuple(class_names)
    if not names:
        raise ValueError("class_names is empty; give at least one class name.")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"class_names holds {name!r}; every name must be a non-empty string.")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"class_names holds {repeated!r} twice; remove one.")
    return names


def _read_names(path: Path, what: str) -> tuple[str, ...]:
    """Read one name a line, whatever the line ends; refuse a missing or empty file, duplicates."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}, which lists {what}.") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ValueError(f"{path} should list {what}, one a line, but it is empty.")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} lists {repeated!r} twice; remove one.")
    return names
