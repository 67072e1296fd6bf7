"""MS COCO 2014: images, 80 classes and masks from the official instances files."""

import json
import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import compress
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from piaa_utils.files import printable
from piaa_utils.vocabulary import check_class_names
from piaa_utils.worlds.class_lists import COCO_CLASSES
from piaa_utils.worlds.masks import BACKGROUND, VOID
from piaa_utils.worlds.world import World, gone, wrong


class COCO(World):
    """COCO 2014 as a multi-label world.

    ::

        root/train2014/COCO_train2014_000000000009.jpg ...     or root/images/train2014/
        root/val2014/COCO_val2014_000000000042.jpg ...         or root/images/val2014/
        root/annotations/instances_train2014.json
        root/annotations/instances_val2014.json

    A class is present if the image has any annotation of it, also one of a crowd; two categories
    of one name are one class. Masks need pycocotools.

    root, split : the folder above; "train2014" or "val2014".
    keep_unlabelled : keep images without any of the classes, which the paper's protocol leaves out
        (82,081 of 82,783 and 40,137 of 40,504 images stay); ``unlabelled`` has their names.
    allow_missing : warn of missing images and go on without them.

    Missing files are a FileNotFoundError, other instances or an unknown class a ValueError.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        class_names: Sequence[str] = COCO_CLASSES,
        keep_unlabelled: bool = False,
        allow_missing: bool = False,
    ):
        root, class_names = Path(root), check_class_names(class_names)
        files = f"{split}/ with the images and annotations/instances_{split}.json"
        layout = f"COCO's layout is {files}, both in {printable(root)}."
        self.file = file = root / "annotations" / f"instances_{split}.json"
        if not file.is_file():
            raise gone(file, layout)
        folder = next((f for f in (root / split, root / "images" / split) if f.is_dir()), None)
        if folder is None:
            raise gone(root / split, layout, "folder")
        categories, self._images, self._objects = _read(file, file.stat().st_mtime_ns)
        known = check_class_names(sorted(set(categories.values())), printable(file))
        if unknown := [name for name in class_names if name not in known]:
            raise wrong(file, f"the class {unknown[0]!r} is none of the {len(known)} categories.")
        self._column = {i: class_names.index(c) for i, c in categories.items() if c in class_names}
        labels = np.zeros((len(self._images), len(class_names)), dtype=np.int8)
        for row, number in enumerate(self._images):
            labels[row, [column for _, column in self._wanted(number)]] = 1
        keep = np.logical_or(labels.any(axis=1), keep_unlabelled)
        self._number = {image["file_name"]: i for i, image in self._images.items()}
        names = list(compress(self._number, keep))
        self.unlabelled = [Path(name).stem for name in compress(self._number, ~keep)]
        if not names:
            raise wrong(file, "no image has a label of the classes asked for.")
        there, stems = {f.name for f in os.scandir(folder)}, [Path(name).stem for name in names]
        paths = [folder / name if name in there else None for name in names]
        ids = stems if len(set(stems)) == len(names) else names
        mend = f"Looked in {printable(folder)}. {layout}"
        super().__init__(root, class_names, ids, paths, labels[keep], mend, allow_missing)

    def _wanted(self, number: int) -> list[tuple[dict[str, Any], int]]:
        """(object, column) of an image's objects of the classes asked for."""
        objects = self._objects.get(number, [])
        columns = ((item, self._column.get(item["category_id"])) for item in objects)
        return [(item, column) for item, column in columns if column is not None]

    def mask(self, index: int) -> np.ndarray:
        """The class mask of a picture, see :class:`World`; of overlapping objects the smaller.

        An object that has only a box makes it ``VOID`` where nothing else is, with a warning.
        """
        number = self._number[self.paths[index].name]
        width, height = (self._images[number].get(side) for side in ("width", "height"))
        if not all(type(side) is int and side > 0 for side in (width, height)):
            width, height = self[index].size
        mask, shapes = np.full((height, width), BACKGROUND, dtype=np.int16), []
        for item, column in self._wanted(number):
            try:
                shape = _shape(item.get("segmentation"), height, width)
                if shape is not None:
                    shapes.append((shape, column))
                    continue
                x, y, w, h = item.get("bbox") or (0, 0, width, height)
                down, right = max(0, ceil(y + h)), max(0, ceil(x + w))
                mask[max(0, int(y)) : down, max(0, int(x)) : right] = VOID
            except ImportError:
                raise
            except Exception as error:  # pycocotools raises many kinds
                what = f"the outline of the annotation {item['id']} cannot be read ({error!r})"
                raise wrong(self.file, f"{what}; unpack the annotations again.") from None
            said = f"the annotation {item['id']} has no outline; its box counts as unknown."
            warnings.warn(str(wrong(self.file, said)), stacklevel=2)
        for where, column in sorted(shapes, key=lambda pair: -pair[0].sum()):
            mask[where] = column
        return mask

    masks = mask  # its former name


def _shape(outline: Any, height: int, width: int) -> np.ndarray | None:
    """bool [height, width] of polygons or of a run-length code; None where there is no outline."""
    try:
        from pycocotools import mask as rle
    except ImportError:
        raise ImportError("COCO's masks need pycocotools: pip install pycocotools.") from None
    if isinstance(outline, list):  # of three points or more
        polygons = [polygon for polygon in outline if len(polygon) >= 6]
        outline = polygons and rle.merge(rle.frPyObjects(polygons, height, width))
    if not outline:
        return None
    if isinstance(outline["counts"], list):
        outline = rle.frPyObjects(outline, height, width)
    if list(outline["size"]) != [height, width]:
        raise ValueError(f"its size is {outline['size']}, and the picture's {[height, width]}")
    return rle.decode(outline).astype(bool)


@lru_cache(maxsize=2)
def _read(file: Path, _changed: int) -> tuple[dict[int, str], dict[int, Any], dict[int, Any]]:
    """Of each id a category's name, an image's entry and its objects; kept, as it takes long."""
    try:
        content = json.loads(file.read_bytes())
        kinds = "images", "categories", "annotations"
        images, categories, _ = (_by_id(content[kind], kind) for kind in kinds)
        names = {number: str(category["name"]) for number, category in categories.items()}
        objects = defaultdict(list)
        for item in content["annotations"]:
            if item["category_id"] not in names or item["image_id"] not in images:
                raise ValueError(f"the annotation {item['id']} is of no image or category there")
            objects[item["image_id"]].append(item)
        files = [image["file_name"] + "" for image in images.values()]
        if not images or not names or len(set(files)) < len(files):
            raise ValueError("there are no images or categories, or two images of one file_name")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        mend = "take instances_train2014.json or instances_val2014.json, or unpack them again."
        raise wrong(file, f"cannot be read as COCO instances ({error!r}); {mend}") from None
    return names, images, objects


def _by_id(entries: list[dict[str, Any]], what: str) -> dict[int, dict[str, Any]]:
    """{id: entry} in the order of the ids, which are different whole numbers."""
    out = {entry["id"]: entry for entry in sorted(entries, key=lambda entry: entry["id"])}
    if len(out) < len(entries) or not all(type(i) is int for i in out):
        raise ValueError(f"the ids of the {what} are no different whole numbers")
    return out
