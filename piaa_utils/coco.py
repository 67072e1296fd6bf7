"""MS COCO 2014: images, 80 classes and masks from the official instances files."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from piaa_utils.datasets import BACKGROUND, COCO_CLASSES, check_class_names
from piaa_utils.labelled import LabelledImages

WHERE = (
    "COCO 2014 is train2014.zip, val2014.zip and annotations_trainval2014.zip from "
    "https://cocodataset.org/#download (or `python -m piaa_utils download coco`)."
)


class COCO(LabelledImages):
    """COCO 2014 as a multi-label data set.

    ::

        root/train2014/COCO_train2014_000000000009.jpg ...     or root/images/train2014/
        root/val2014/COCO_val2014_000000000042.jpg ...         or root/images/val2014/
        root/annotations/instances_train2014.json
        root/annotations/instances_val2014.json

    A class is present if the image has any annotation of it, also one of a crowd.

    Parameters
    ----------
    root : the folder above.
    split : "train2014" or "val2014".
    class_names : the columns of ``labels``; the other categories are ignored.
    keep_unlabelled : keep images without any of the classes. The paper's protocol leaves them
        out: 82,081 of 82,783 and 40,137 of 40,504 images stay.
    allow_missing : warn of missing images and go on without them.

    Attributes
    ----------
    unlabelled : names of the images left out for having no label.
    ids, paths, labels, missing, ... : see :class:`LabelledImages`; ids are file names without
        their suffix.

    Raises
    ------
    FileNotFoundError
        The instances file or images are missing.
    ValueError
        The instances file is damaged or of another kind, or does not know a class.
    ImportError
        pycocotools is not installed.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        class_names: Sequence[str] = COCO_CLASSES,
        keep_unlabelled: bool = False,
        allow_missing: bool = False,
    ):
        root = Path(root)
        class_names = check_class_names(class_names)
        file = root / "annotations" / f"instances_{split}.json"
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {file}. {_layout(root, split)}")
        self._instances = instances = _read(file, file.stat().st_mtime_ns)
        self._column = _columns(instances, class_names, file)

        images = sorted(instances.dataset["images"], key=lambda image: image["id"])
        labels = np.zeros((len(images), len(class_names)), dtype=np.int8)
        for row, image in enumerate(images):
            for item in instances.imgToAnns.get(image["id"], ()):
                if (column := self._column.get(item["category_id"])) is not None:
                    labels[row, column] = 1
        keep = labels.any(axis=1) | keep_unlabelled
        self.unlabelled = [
            Path(images[row]["file_name"]).stem for row in np.flatnonzero(~keep).tolist()
        ]
        images = [image for image, kept in zip(images, keep, strict=True) if kept]
        if not images:
            raise ValueError(f"{file} has no image with a label of the classes asked for.")

        folder = root / split
        if not folder.is_dir() and (root / "images" / split).is_dir():
            folder = root / "images" / split
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}. {_layout(root, split)}")
        there = {entry.name for entry in os.scandir(folder)}
        names = [image["file_name"] for image in images]
        super().__init__(
            root,
            class_names,
            [Path(name).stem for name in names],
            [folder / name if name in there else None for name in names],
            labels[keep],
            [file],
        )
        self.split = split
        self._image_id = {Path(image["file_name"]).stem: image["id"] for image in images}
        self.report_missing(f"Looked in {folder}. {_layout(root, split)}", allow_missing)

    def masks(self, index: int) -> np.ndarray:
        """The class mask of image ``index``: int16 [H, W].

        Values are indices into ``class_names``, BACKGROUND (-1) is everything else. Where objects
        overlap the smaller one is on top.
        """
        image_id = self._image_id[self.ids[index]]
        image = self._instances.imgs[image_id]
        mask = np.full((image["height"], image["width"]), BACKGROUND, dtype=np.int16)
        objects = [
            (self._instances.annToMask(item).astype(bool), self._column[item["category_id"]])
            for item in self._instances.imgToAnns.get(image_id, ())
            if item["category_id"] in self._column
        ]
        for where, column in sorted(objects, key=lambda pair: -pair[0].sum()):
            mask[where] = column
        return mask


@lru_cache(maxsize=2)
def _read(file: Path, _changed: int):
    """The instances file as pycocotools reads it; some 20 seconds for COCO, so it is kept."""
    try:
        from pycocotools.coco import COCO as Instances
    except ImportError:
        raise ImportError(
            "COCO's annotations are read with pycocotools: pip install pycocotools."
        ) from None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            instances = Instances(str(file))
        known = set(instances.cats)
        complete = bool(known and instances.imgs) and all(
            item["category_id"] in known and item["image_id"] in instances.imgs
            for item in instances.anns.values()
        )
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{file} cannot be read as COCO instances ({error}); unpack the annotations again."
        ) from None
    if not complete:
        raise ValueError(
            f"{file} is no complete instances file (images, categories and annotations that fit); "
            "take instances_train2014.json or instances_val2014.json."
        )
    return instances


def _columns(instances, class_names: Sequence[str], file: Path) -> dict[int, int]:
    """{category id: column} of the classes asked for."""
    column = {name: c for c, name in enumerate(class_names)}
    names = {category["name"]: number for number, category in sorted(instances.cats.items())}
    if unknown := [name for name in class_names if name not in names]:
        raise ValueError(
            f"The class {unknown[0]!r} is none of the {len(names)} categories of {file}."
        )
    return {number: column[name] for name, number in names.items() if name in column}


def _layout(root: Path, split: str) -> str:
    return (
        f"COCO's layout is {split}/ with the images and annotations/instances_{split}.json, both "
        f"in {root}. {WHERE}"
    )
