"""What every world is: pictures with names, files, labels and, where there are any, masks."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from piaa_utils.files import printable, some
from piaa_utils.images import open_image
from piaa_utils.vocabulary import check_class_names


class World(Protocol):
    """n pictures and what is in them; a Dataset of RGB PIL images.

    name : of the world. ids, paths : n names and image files, in one order.
    labels : int8 [n, C], 1 where the picture has an object of the class.
    difficult : bool [n, C], where all of them are marked "difficult" (PASCAL VOC alone does so).
    mask(i) : int16 [H, W], indices into ``class_names``, ``BACKGROUND`` or ``VOID``; None where
    the picture has no mask.
    """

    name: str
    class_names: tuple[str, ...]
    ids: list[str]
    paths: list[Path]

    @property
    def labels(self) -> np.ndarray: ...
    @property
    def difficult(self) -> np.ndarray: ...
    def mask(self, index: int) -> np.ndarray | None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Image.Image: ...


class Pictures:
    """A :class:`World` from lists; pictures that have no file are left out and named.

    Parameters
    ----------
    root : the world's folder, whose name is the world's until the catalogue gives another.
    class_names, ids, paths : see :class:`World`; a path is None where there is no file.
    labels : int8 [n, C]; None if the class reads ``annotations`` when they are asked for.
    mend : what the message says about missing files.
    allow_missing : warn of missing files and go on without them, unless all are missing.

    Attributes
    ----------
    missing : the ids that were left out.

    Raises
    ------
    FileNotFoundError
        Image files are missing.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        class_names: Sequence[str],
        ids: Sequence[str],
        paths: Sequence[Path | None],
        labels: np.ndarray | None,
        mend: str,
        allow_missing: bool = True,
    ):
        self.root, self.name = Path(root), Path(root).name
        self.class_names = check_class_names(class_names)
        there = [path is not None for path in paths]
        self.ids = [name for name, ok in zip(ids, there, strict=True) if ok]
        self.missing = [name for name, ok in zip(ids, there, strict=True) if not ok]
        self.paths = [path for path in paths if path is not None]
        if labels is not None:
            labels = labels[np.array(there, dtype=bool)].astype(np.int8)
            self.annotations = labels, np.zeros(labels.shape, dtype=bool)
        if self.missing:
            message = (
                f"{len(self.missing)} of {len(ids)} images are not there: "
                f"{some(self.missing)}. {mend}"
            )
            if not allow_missing or not self.ids:
                raise FileNotFoundError(message)
            warnings.warn(f"{message} They are left out; `missing` lists them.", stacklevel=3)

    @cached_property
    def annotations(self) -> tuple[np.ndarray, np.ndarray]:
        """``labels`` and ``difficult``."""
        raise NotImplementedError

    @property
    def labels(self) -> np.ndarray:
        return self.annotations[0]

    @property
    def difficult(self) -> np.ndarray:
        return self.annotations[1]

    def mask(self, index: int) -> np.ndarray | None:
        """None: such a world has no masks."""
        return None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Image.Image:
        return open_image(self.paths[index])


W = TypeVar("W", bound=Pictures)


def first(world: W, n: int) -> W:
    """A world cut to its first n pictures."""
    cut = copy.copy(world)
    cut.ids, cut.paths = world.ids[:n], world.paths[:n]
    if "annotations" in vars(world):  # VOC's are read when they are asked for
        cut.annotations = world.labels[:n], world.difficult[:n]
    return cut


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are not blank, whatever the line ends.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such file; it is no UTF-8, or empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {printable(path)}, which lists {what}.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{printable(path)} is not in UTF-8; save it again in UTF-8.") from None
    out = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not out:
        raise ValueError(f"{printable(path)} should list {what}, one a line, but it is empty.")
    return out


def refuse_twice(lines: Sequence[tuple[int, str]], path: Path) -> None:
    """Refuse names, given with their lines, that a file lists more than once."""
    seen: dict[str, int] = {}
    for number, name in lines:
        if name in seen:
            raise ValueError(
                f"{printable(path)}, line {number}: {name!r} is listed twice, first in line "
                f"{seen[name]}; remove one."
            )
        seen[name] = number
