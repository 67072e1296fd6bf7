"""Images in: any file, PIL image or Dataset becomes upright RGB; what cannot be read is listed.

The paper's protocol starts from RGB images. Real folders hold other things too, so this module
brings every image to upright 8-bit RGB, reads and prepares batches in a few threads, and keeps a
list of the images that could not be read, so that none is dropped silently.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from piaa_utils.messages import some

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
LONGEST = 200  # an image longer than this many times its short side would fill memory when resized
THREADS = min(4, os.cpu_count() or 1)
_BAR_DELAY = 2.0  # seconds: shorter work shows no progress bar


class UnreadableImage(OSError):
    """An image that cannot be read; the message names the file, the reason and the mend."""


def open_image(source: str | os.PathLike | Image.Image) -> Image.Image:
    """An image as upright 8-bit RGB, whatever it was stored as.

    EXIF rotation is applied, transparency is laid on white, 16-bit and other high ranges are
    scaled to 0..255, palettes and CMYK are converted, an animation gives its first frame.

    Parameters
    ----------
    source : a path, or a PIL image (which is left as it is).

    Returns
    -------
    A PIL image of mode "RGB".

    Raises
    ------
    UnreadableImage
        The file is missing, corrupt, cut short or no image, or the image has no
        pixels, an unknown range, or is longer than 200 times its short side.
    TypeError
        ``source`` is neither a path nor a PIL image.

    Examples
    --------
    >>> open_image(Image.new("CMYK", (3, 2), (0, 255, 255, 0))).getpixel((0, 0))
    (255, 0, 0)
    """
    if not isinstance(source, str | os.PathLike | Image.Image):
        raise TypeError(
            f"An image must be a path or a PIL image, but got {type(source).__name__}; "
            "turn arrays into images with PIL.Image.fromarray."
        )
    name = image_name(source)
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source)
        with Image.open(source) as image:
            return _to_rgb(image)
    except FileNotFoundError:
        raise UnreadableImage(f"{name}: there is no such file; check the path.") from None
    except IsADirectoryError:
        raise UnreadableImage(f"{name}: this is a folder, not an image.") from None
    except PermissionError:
        raise UnreadableImage(f"{name}: may not be read; check its permissions.") from None
    except Image.UnidentifiedImageError:
        raise UnreadableImage(
            f"{name}: not an image that Pillow knows, or its beginning is damaged; "
            "replace the file or remove it."
        ) from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ...
        raise UnreadableImage(
            f"{name}: cannot be decoded ({error}); replace the file or remove it."
        ) from error


def image_name(source: object, index: int | None = None) -> str:
    """How messages name an image: its path where it has one, else its place in the list.

    Examples
    --------
    >>> image_name("pets/cat.jpg"), image_name(Image.new("L", (1, 1)), index=4)
    ('pets/cat.jpg', 'image 4')
    """
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    filename = getattr(source, "filename", "")
    if filename:
        return str(filename)
    return "the image" if index is None else f"image {index}"


def list_images(source: object) -> Sequence:
    """The images of a folder, a list or a Dataset as a sequence, without reading them.

    Parameters
    ----------
    source : a folder (searched with its sub-folders; hidden files and files without an image
        suffix are passed over; sorted by path), one path, one PIL image, an iterable of paths
        and PIL images, or a Dataset (``__getitem__`` and ``__len__``) whose items are images
        or ``(image, ...)`` tuples. A Dataset with an attribute ``paths`` gives those.

    Returns
    -------
    A sequence of paths and PIL images; for a Dataset without ``paths``, a view that fetches
    each image when it is asked for.

    Raises
    ------
    FileNotFoundError
        The folder or file does not exist.
    ValueError
        There is no image in it.
    TypeError
        ``source`` is none of these.

    Examples
    --------
    >>> len(list_images([Image.new("RGB", (4, 4)), "cat.jpg"]))
    2
    """
    if isinstance(source, Image.Image):
        return [source]
    if isinstance(source, str | os.PathLike):
        return _list_path(Path(source))
    if hasattr(source, "paths"):
        images = list(source.paths)
    elif hasattr(source, "__getitem__") and hasattr(source, "__len__") and not _is_plain(source):
        images = _DatasetImages(source)
    elif isinstance(source, Iterable):
        images = list(source)
    else:
        raise TypeError(
            "Images must be a folder, a list of paths or PIL images, or a Dataset, "
            f"but got {type(source).__name__}."
        )
    if len(images) == 0:
        raise ValueError("There are no images: the list or Dataset is empty.")
    return images


class ImageBatches:
    """Iterate over images in batches of tensors; unreadable ones are left out and listed.

    A few threads read and prepare the images one batch ahead. After the last batch a warning
    names what was left out. A progress bar appears only if the work takes longer than about two
    seconds.

    Parameters
    ----------
    images : whatever :func:`list_images` takes.
    preprocess : turns an RGB PIL image into a float tensor [3, S, S].
    batch_size : images a batch, 1 or more. The last batch may be smaller, and so is any batch
        with unreadable images.
    progress : whether long work shows a progress bar.
    desc : the words before the bar.

    Attributes
    ----------
    images : the sequence that :func:`list_images` returned.
    skipped : list of (index, name, reason) of the unreadable images met so far; it starts
        anew with each iteration.

    Yields
    ------
    ``(indices, tensor)``: the places of the images in ``images``, and [B, 3, S, S].

    Raises
    ------
    ValueError
        ``batch_size`` is below 1.
    UnreadableImage
        After the last image, if not one of them could be read.

    Examples
    --------
    >>> def preprocess(image):
    ...     return torch.full((3, 2, 2), float(image.getpixel((0, 0))[0]))
    >>> images = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (10, 20, 30)]
    >>> for indices, tensor in ImageBatches(images, preprocess, batch_size=2):
    ...     print(indices, tensor[:, 0, 0, 0].tolist())
    [0, 1] [10.0, 20.0]
    [2] [30.0]
    """

    def __init__(
        self,
        images: object,
        preprocess: Callable[[Image.Image], torch.Tensor],
        batch_size: int = 64,
        progress: bool = True,
        desc: str | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, but is {batch_size}.")
        self.images = list_images(images)
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.progress = progress
        self.desc = desc
        self.skipped: list[tuple[int, str, str]] = []

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[list[int], torch.Tensor]]:
        self.skipped = []
        starts = iter(range(0, len(self.images), self.batch_size))
        bar = tqdm(
            total=len(self.images),
            desc=self.desc,
            unit="image",
            delay=_BAR_DELAY,
            disable=not self.progress,
        )
        with bar, ThreadPoolExecutor(THREADS) as pool:
            ahead = deque(self._submit(pool, start) for start in islice(starts, 2))
            while ahead:
                futures = ahead.popleft()
                indices, tensors = self._collect(futures)
                if indices:
                    yield indices, torch.stack(tensors)
                bar.update(len(futures))
                ahead.extend(self._submit(pool, start) for start in islice(starts, 1))
        self._report()

    def _submit(self, pool: ThreadPoolExecutor, start: int) -> list[tuple[int, Future]]:
        stop = min(start + self.batch_size, len(self.images))
        return [(index, pool.submit(self._load, index)) for index in range(start, stop)]

    def _load(self, index: int) -> torch.Tensor:
        return self.preprocess(open_image(self.images[index]))

    def _collect(self, futures: list[tuple[int, Future]]) -> tuple[list[int], list[torch.Tensor]]:
        indices, tensors = [], []
        for index, future in futures:
            try:
                tensors.append(future.result())
                indices.append(index)
            except OSError as error:
                self.skipped.append((index, self._name(index), str(error)))
        return indices, tensors

    def _name(self, index: int) -> str:
        if isinstance(self.images, _DatasetImages):  # fetching it again would fail again
            return f"image {index}"
        return image_name(self.images[index], index)

    def _report(self) -> None:
        report_skipped(self.skipped, len(self.images), stacklevel=4)


def report_skipped(
    skipped: Sequence[tuple[int, str, str]], total: int, stacklevel: int = 3
) -> None:
    """Name the images that could not be read in one warning; fail if not one of them could be.

    Parameters
    ----------
    skipped : (index, name, reason) of each.
    total : of how many images.
    stacklevel : as for ``warnings.warn``, counted from here.

    Raises
    ------
    UnreadableImage
        If all are skipped.
    """
    if not skipped:
        return
    first = skipped[0][2]
    if len(skipped) == total:
        raise UnreadableImage(f"None of the {total} images can be read. {first}")
    names = [name for _, name, _ in skipped]
    warnings.warn(
        f"{len(skipped)} of {total} images cannot be read and were left out: "
        f"{some(names)}. The first: {first}",
        stacklevel=stacklevel,
    )


def batches(
    images: object,
    preprocess: Callable[[Image.Image], torch.Tensor],
    batch_size: int = 64,
    progress: bool = True,
    desc: str | None = None,
) -> ImageBatches:
    """An :class:`ImageBatches` of these arguments; a function, to be read in a ``for`` line.

    Examples
    --------
    >>> len(batches([Image.new("RGB", (4, 4))] * 5, preprocess=None, batch_size=2))
    3
    """
    return ImageBatches(images, preprocess, batch_size, progress, desc)


def _list_path(path: Path) -> list:
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}; check the path.")
    if not path.is_dir():
        return [path]
    images = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not images:
        raise ValueError(
            f"There are no images in the folder {path}: looked there and in its sub-folders for "
            f"files ending in {', '.join(SUFFIXES)}."
        )
    return images


def _is_plain(source: object) -> bool:
    return isinstance(source, list | tuple | np.ndarray)


class _DatasetImages(Sequence):
    """The images of a Dataset, fetched one at a time (a Dataset need not be thread-safe)."""

    def __init__(self, dataset: object):
        self.dataset = dataset
        self.lock = Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> object:
        with self.lock:
            item = self.dataset[index]
        return item[0] if isinstance(item, tuple) else item


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    width, height = image.size
    if min(width, height) == 0:
        raise ValueError("it has no pixels")
    if max(width, height) > LONGEST * min(width, height):
        raise ValueError(f"at {width} x {height} pixels it is too narrow, crop it")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale a grey image of a higher range to 0..255 (Pillow itself would clip it)."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise ValueError("its values lie outside 0..65535, scale them to 0..255")
    if image.mode.startswith("I;16"):
        top = 65535
    else:
        top = next(top for top in (1, 255, 65535) if values.max() <= top)
        top = 255 if image.mode == "I" and top == 1 else top
    return Image.fromarray(np.round(values * (255 / top)).astype(np.uint8))
