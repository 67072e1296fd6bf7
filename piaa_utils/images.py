"""Images in: any file, PIL image or Dataset becomes upright RGB; what cannot be read is listed."""

import os
import stat
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from piaa_utils.files import printable, some

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# What a file may hold, whatever it is called: reading EPS, say, would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM")
LONGEST = 200  # an image longer than this many times its short side would fill memory when resized
LARGEST = 50_000_000  # pixels; 4 bytes each in memory, times some copies, times THREADS
THREADS = min(4, os.cpu_count() or 1)
ORIENTATION, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 274, 258, 262, 339  # tags of EXIF and TIFF
UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientation: Image.Transpose
_BAR_DELAY = 2.0  # seconds: shorter work shows no progress bar


class UnreadableImage(OSError):
    """An image that cannot be read; the message names the file, the reason and the mend."""


def open_image(source: str | os.PathLike[str] | Image.Image) -> Image.Image:
    """An image, a PIL image or a path to a file in one of ``FORMATS``, as upright 8-bit RGB.

    Transparency is laid on white, 12- and 16-bit grey is scaled to 0..255, and a JPEG beyond 50
    million pixels is decoded at half its size, with a warning. What cannot be read so is an
    UnreadableImage; what is no path or PIL image, a TypeError.

    >>> open_image(Image.new("CMYK", (3, 2), (0, 255, 255, 0))).getpixel((0, 0))
    (255, 0, 0)
    """
    if isinstance(source, Image.Image | str | os.PathLike):
        return decode(source, _to_rgb)
    raise TypeError(f"{type(source).__name__} is no path or PIL image: use PIL.Image.fromarray.")


def decode(source: Any, convert: Callable[[Image.Image], Any]) -> Any:
    """What `convert` makes of a path or PIL image; an UnreadableImage says why it cannot."""
    try:
        if isinstance(source, Image.Image):
            return convert(source)
        if not stat.S_ISREG(mode := os.stat(source).st_mode):  # a pipe might never end
            raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")
        with Image.open(source, formats=FORMATS) as image:
            if (width := image.width) * image.height > LARGEST:
                image.draft(None, (image.width // 2, image.height // 2))
                if image.width < width:  # JPEG alone can do this
                    said = f"{printable(source)} is very large, so every second pixel is read."
                    warnings.warn(said, stacklevel=4)
            return convert(image)
    except FileNotFoundError:
        reason = "there is no such file; check the path"
    except PermissionError:
        reason = "may not be read; check its permissions"
    except Image.UnidentifiedImageError:
        kinds = ", ".join(FORMATS)
        reason = f"not an image ({kinds}), or its beginning is damaged; replace or remove it"
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ...
        reason = f"cannot be decoded ({error}); replace the file or remove it"
    raise UnreadableImage(f"{printable(image_name(source))}: {reason}.")


def image_name(source: Any, index: int | None = None) -> str:
    """How messages name an image: its path where it has one, else its place in the list."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    filename = getattr(source, "filename", "")
    return str(filename) if filename else "the image" if index is None else f"image {index}"


def list_images(source: Any) -> Sequence[Any]:
    """Images as a sequence, without reading them: of a folder (see :func:`image_files`), a path, a
    PIL image, an iterable of these two, or a Dataset whose items are images or ``(image, ...)``
    tuples, or which names its ``paths``, such as a world. No such file is a FileNotFoundError, no
    image a ValueError, anything else a TypeError.

    >>> len(list_images([Image.new("RGB", (4, 4)), "cat.jpg"]))
    2
    """
    if isinstance(source, Image.Image):
        return [source]
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise ValueError("The path of the images is empty; for the working folder give '.'.")
        if not os.path.exists(source):
            raise FileNotFoundError(f"There is no file or folder {printable(source)}.")
        if files := image_files(source) if os.path.isdir(source) else [Path(source)]:
            return files
        where = f"the folder {printable(source)} and its sub-folders"
        raise ValueError(f"There are no images in {where}: no file ends in {', '.join(SUFFIXES)}.")
    images: Sequence[Any]
    if hasattr(source, "__getitem__") and not isinstance(source, list | tuple | np.ndarray):
        images = list(source.paths) if hasattr(source, "paths") else _DatasetImages(source)
    elif isinstance(source, Iterable):
        images = list(source)
    else:
        kinds = "a folder, a list of paths or PIL images, or a Dataset"
        raise TypeError(f"Images must be {kinds}, but got {type(source).__name__}.")
    if not len(images):
        raise ValueError("There are no images: the list or Dataset is empty.")
    return images


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Files with an image's suffix in a folder and its sub-folders, sorted; none hidden.

    Links are followed; no folder is entered twice, nor one that `folder` itself lies in.
    """

    def left_out(error: OSError) -> None:
        warnings.warn(f"A folder is left out: {printable(error)}.", stacklevel=5)

    found: list[Path] = []
    seen, trees = set(map(str, Path(folder).resolve().parents)), deque([os.fspath(folder)])
    while trees:  # first what lies here, then what is linked in
        for here, folders, files in os.walk(trees.popleft(), onerror=left_out):
            if (real := os.path.realpath(here)) in seen:
                folders.clear()
                continue
            seen.add(real)
            below = (os.path.join(here, name) for name in sorted(folders))
            trees.extend(path for path in below if os.path.islink(path))
            shown = (name for name in files if not name.startswith("."))
            found += [Path(here, name) for name in shown if name.lower().endswith(SUFFIXES)]
    return sorted(found)


class ImageBatches:
    """Iterate over images in batches of tensors; unreadable ones are left out, in a warning.

    Yields ``(indices, tensor)``: places of the images in the list, and [B, 3, S, S]. A few threads
    read one batch ahead. If no image could be read, the end is an UnreadableImage.

    images : whatever :func:`list_images` takes; start : the place of the first to read.
    preprocess : turns an RGB PIL image into a float tensor [3, S, S].

    Attribute skipped : (index, name, reason) of each unreadable image met in this iteration.

    >>> def preprocess(image):
    ...     return torch.full((3, 2, 2), float(image.getpixel((0, 0))[0]))
    >>> images = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (10, 20, 30)]
    >>> for indices, tensor in batches(images, preprocess, batch_size=2):
    ...     print(indices, tensor[:, 0, 0, 0].tolist())
    [0, 1] [10.0, 20.0]
    [2] [30.0]
    """

    def __init__(
        self,
        images: Any,
        preprocess: Callable[[Image.Image], torch.Tensor],
        batch_size: int = 64,
        desc: str | None = None,
        progress: bool = True,
        start: int = 0,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, but is {batch_size}.")
        self.images, self.preprocess, self.batch_size = list_images(images), preprocess, batch_size
        self.places, self.desc, self.hidden = range(start, len(self.images)), desc, not progress
        self.skipped: list[tuple[int, str, str]] = []

    def __len__(self) -> int:
        return -(-len(self.places) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[list[int], torch.Tensor]]:
        self.skipped = []
        n, size = len(self.places), self.batch_size
        bar = tqdm(total=n, desc=self.desc, unit="image", delay=_BAR_DELAY, disable=self.hidden)
        with bar, ThreadPoolExecutor(THREADS) as pool:
            groups = (self.places[first : first + size] for first in range(0, n, size))
            work = ((group, pool.map(self._load, group)) for group in groups)
            ahead = deque(islice(work, 2))
            while ahead:
                found = dict(zip(*ahead.popleft(), strict=True))
                good = {i: x for i, x in found.items() if isinstance(x, torch.Tensor)}
                bad = found.keys() - good.keys()
                self.skipped += [(i, self.name(i), str(found[i])) for i in sorted(bad)]
                if good:
                    yield list(good), torch.stack(list(good.values()))
                bar.update(len(found))
                ahead.extend(islice(work, 1))
        report_skipped(self.skipped, n)

    def name(self, index: int) -> str:
        """How messages name an image; one of a Dataset is not fetched again for it."""
        return image_name(self.images[index] if isinstance(self.images, list) else None, index)

    def _load(self, index: int) -> torch.Tensor | OSError:
        try:
            return self.preprocess(open_image(self.images[index]))
        except OSError as error:
            return error


batches = ImageBatches  # to be read in a `for` line


def report_skipped(
    skipped: Sequence[tuple[int, str, str]], total: int, stacklevel: int = 3
) -> None:
    """Name those left out, (index, name, reason), in a warning; an error if all `total` are."""
    if skipped and len(skipped) == total:
        raise UnreadableImage(f"None of the {total} images can be read. {skipped[0][2]}")
    if skipped:
        said = f"images cannot be read and were left out: {some([name for _, name, _ in skipped])}"
        said = f"{len(skipped)} of {total} {said}. The first: {skipped[0][2]}"
        warnings.warn(said, stacklevel=stacklevel)


class _DatasetImages(Sequence[Any]):
    """The images of a Dataset, fetched one at a time (a Dataset need not be thread-safe)."""

    def __init__(self, dataset: Any):
        self.dataset, self.lock = dataset, Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        with self.lock:
            item = self.dataset[index]
        return item[0] if isinstance(item, tuple) else item


def _to_rgb(image: Image.Image) -> Image.Image:
    width, height = image.size
    if min(width, height) == 0:
        raise ValueError("it has no pixels")
    if max(width, height) > LONGEST * min(width, height):
        raise ValueError(f"at {width} x {height} pixels it is too narrow, crop it")
    if width * height > LARGEST:
        raise ValueError(f"at {width} x {height} pixels it is too large, make it smaller")
    image.load()  # a TIFF is turned here, and its orientation taken away
    try:  # Pillow's own turning writes all the other tags again, and fails where it cannot
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever is wrong with the EXIF, the picture can be seen
        orientation = 1
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    if orientation in UPRIGHT:
        image = image.transpose(Image.Transpose(UPRIGHT[orientation]))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale a grey image of a higher range to 0..255 (Pillow itself would clip it)."""
    values = np.asarray(image, dtype=np.float32)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise ValueError("its values lie outside 0..65535, scale them to 0..255")
    tags = getattr(image, "tag_v2", {})  # of TIFF
    bits, kind = tags.get(BITS, (32,))[0], tags.get(SAMPLE_FORMAT, (1,))[0]
    if 8 < bits <= 16 and kind in (1, 2):  # 2: signed, half of the range lies below 0
        white = 2 ** (bits - (kind == 2)) - 1
    elif image.mode.startswith("I;16") or getattr(image, "format", None) in ("PNG", "PPM"):
        white = 65535
    else:  # the file says nothing: the next usual one
        usual = (255, 65535) if image.mode == "I" else (1, 255, 65535)
        white = next(white for white in usual if values.max() <= white)
    if tags.get(PHOTOMETRIC) == 0:  # white is 0
        values = white - values
    return Image.fromarray(np.round(values * (255 / white)).astype(np.uint8))
