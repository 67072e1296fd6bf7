"""What the data sets with labels in one file have in common."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from piaa_utils.datasets import check_class_names
from piaa_utils.images import open_image
from piaa_utils.messages import some


class LabelledImages(Dataset):
    """Images with labels: n rows, of which those without an image file are left out and named.

    ``len(dataset)`` is n and ``dataset[i]`` the RGB PIL image i.

    Attributes
    ----------
    root : the data set's folder.
    class_names : the columns of the label arrays, in order.
    ids, paths : lists of the n names and image files.
    labels : int8 [n, C], 1 where the class is in the image.
    difficult : bool [n, C], all False: only PASCAL VOC marks objects so.
    missing : the names of the rows left out because they have no image file.
    label_files : the files that the labels and masks were read from.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        class_names: Sequence[str],
        ids: Sequence[str],
        paths: Sequence[Path | None],
        labels: np.ndarray,
        label_files: Sequence[Path] = (),
    ):
        there = [path is not None for path in paths]
        self.root = Path(root)
        self.class_names = check_class_names(class_names)
        self.ids = [name for name, ok in zip(ids, there, strict=True) if ok]
        self.missing = [name for name, ok in zip(ids, there, strict=True) if not ok]
        self.paths = [path for path in paths if path is not None]
        self.labels = np.asarray(labels, dtype=np.int8)[np.array(there, dtype=bool)]
        self.label_files = list(label_files)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Image.Image:
        return open_image(self.paths[index])

    @property
    def difficult(self) -> np.ndarray:
        return np.zeros(self.labels.shape, dtype=bool)

    def report_missing(self, mend: str, allowed: bool = True) -> None:
        """Say which images are missing: a warning, or the error if that is not allowed.

        Raises
        ------
        FileNotFoundError
            Images are missing and `allowed` is False, or all of them are.
        """
        if not self.missing:
            return
        message = (
            f"{len(self.missing)} of {len(self.missing) + len(self)} images are not there: "
            f"{some(self.missing)}. {mend}"
        )
        if not allowed or not self.ids:
            raise FileNotFoundError(message)
        warnings.warn(f"{message} They are left out; `missing` lists them.", stacklevel=3)


def cut_to(data: Dataset, n: int) -> Dataset:
    """The data set cut to its first n images, in place.

    Parameters
    ----------
    data : a :class:`LabelledImages`, or a ``VOCLayout`` whose labels were not read yet.
    """
    data.ids, data.paths = data.ids[:n], data.paths[:n]
    if isinstance(data, LabelledImages):
        data.labels = data.labels[:n]
    return data
