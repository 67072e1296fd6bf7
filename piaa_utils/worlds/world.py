"""What every world is: pictures with names, files, labels and, where there are any, masks."""

import copy
import warnings
from collections.abc import Sequence
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from piaa_utils.files import printable, some
from piaa_utils.images import open_image
from piaa_utils.vocabulary import check_class_names


class World:
    """n pictures and what is in them: a Dataset of RGB PIL images.

    root : the world's folder; its name is the world's ``name`` until the catalogue gives another.
    class_names : C names, the columns of the labels.
    ids, paths : n names and image files; where a path is None, the id goes to ``missing`` instead.
    labels : int8 [n, C], 1 where the picture has an object of the class; None if the class reads
        ``annotations`` when they are asked for. ``difficult`` : bool [n, C], where all such objects
        are marked "difficult" (in PASCAL VOC alone).
    mend, allow_missing : what to say of missing files, in a FileNotFoundError or (some) a warning.
    """

    def __init__(
        self,
        root: Path,
        class_names: Sequence[str],
        ids: Sequence[str],
        paths: Sequence[Path | None],
        labels: np.ndarray | None,
        mend: str,
        allow_missing: bool = True,
    ):
        self.root, self.name, self.class_names = root, root.name, check_class_names(class_names)
        there = np.array([path is not None for path in paths], dtype=bool)
        self.ids, self.missing = list(compress(ids, there)), list(compress(ids, ~there))
        self.paths = [path for path in paths if path is not None]
        if labels is not None:
            labels = labels[there].astype(np.int8)
            self.annotations = labels, np.zeros(labels.shape, dtype=bool)
        if self.missing:
            gone = f"{len(self.missing)} of {len(ids)} images are not there: {some(self.missing)}."
            if not allow_missing or not self.ids:
                raise FileNotFoundError(f"{gone} {mend}")
            warnings.warn(f"{gone} {mend} They are left out, see `missing`.", stacklevel=3)

    @cached_property
    def annotations(self) -> tuple[np.ndarray, np.ndarray]:
        """``labels`` and ``difficult``."""
        raise NotImplementedError

    labels = property(lambda self: self.annotations[0])
    difficult = property(lambda self: self.annotations[1])

    def mask(self, index: int) -> np.ndarray | None:
        """int16 [H, W], indices into ``class_names``, ``BACKGROUND`` or ``VOID``; None: no mask."""
        return None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Image.Image:
        return open_image(self.paths[index])


W = TypeVar("W", bound=World)


def first(world: W, n: int) -> W:
    """A world cut to its first n pictures."""
    cut = copy.copy(world)
    cut.ids, cut.paths = world.ids[:n], world.paths[:n]
    if "annotations" in vars(world):  # VOC's are read when they are asked for
        cut.annotations = world.labels[:n], world.difficult[:n]
    return cut


def wrong(path: Path, what: Any, line: int | None = None) -> ValueError:
    """The error that says where something is wrong."""
    return ValueError(f"{printable(path)}{f', line {line}' if line else ''}: {what}")


def gone(path: Path, what: str, kind: str = "file") -> FileNotFoundError:
    """The error that says what is missing."""
    return FileNotFoundError(f"There is no {kind} {printable(path)}. {what}")


def read_text(path: Path, what: str) -> str:
    """A text file, which should be `what`; an error if it is missing or no UTF-8."""
    if not path.is_file():
        raise gone(path, f"It should be {what}.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise wrong(path, "this is not in UTF-8; save it again in UTF-8.") from None


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are not blank; an error if there are none."""
    lines = enumerate(map(str.strip, read_text(path, what).splitlines()), start=1)
    out = [(number, line) for number, line in lines if line]
    if not out:
        raise wrong(path, f"this should be {what}, but it is empty.")
    return out


def refuse_twice(lines: Sequence[tuple[int, str]], path: Path) -> list[str]:
    """The names of (line, name), as a file lists them; an error if it lists one twice."""
    seen: dict[str, int] = {}
    for number, name in lines:
        if seen.setdefault(name, number) != number:
            raise wrong(path, f"{name!r} is listed twice, also in line {seen[name]}.", number)
    return list(seen)
