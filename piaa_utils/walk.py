"""Pictures in, features out: the one loop that encodes, and a cache of what it gave.

a.jpg -> images -> walk -> Encoded(ids, cls, patches)
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from piaa_utils.backbone import Backbone
from piaa_utils.encoders import encode
from piaa_utils.files import write_whole
from piaa_utils.images import UnreadableImage, batches, list_images
from piaa_utils.settings import Calibration

CODE = ("backbone", "encoders", "images", "walk")  # features depend on these files


class Encoded(NamedTuple):
    """Features of n pictures: their places in the list, unit [CLS] and unit patches."""

    ids: list[int]  # n
    cls: Tensor  # [n, D]
    patches: dict[str, Tensor]  # encoder: [n, N, D], rows of the grid first


def walk(
    backbone: Backbone,
    images: Any,
    encoders: Sequence[str],
    batch_size: int = 32,
    start: int = 0,
    desc: str = "",
    progress: bool = True,
    skipped: list[tuple[int, str, str]] | None = None,
    calibration: Calibration | None = None,
) -> Iterator[Encoded]:
    """Encode pictures, a batch at a time, in their order.

    images : whatever :func:`piaa_utils.images.list_images` takes, a world too.
    encoders : patch encoders, see :data:`piaa_utils.encoders.ENCODERS`; none gives [CLS] alone.
    start : the first picture to encode; a multiple of `batch_size` gives a walk from 0's bits.
    skipped : a list that takes (index, name, reason) of each unreadable picture as it is met.
    calibration : SC-CLIP's sizes; None is the backbone's own.

    Unreadable pictures are named in a warning after the last one; if all are: an UnreadableImage.
    No pictures, and features that are not finite, are a ValueError.

    >>> from piaa_utils import load_backbone, mini_scenes
    >>> first = next(walk(load_backbone(), mini_scenes("val"), ["sclip"], batch_size=4))
    >>> first.ids, len(first.cls), first.patches["sclip"].shape[:2]
    ([0, 1, 2, 3], 4, torch.Size([4, 196]))
    """
    stream = batches(images, backbone.preprocess, batch_size, desc, progress, start)
    skipped = [] if skipped is None else skipped
    known = len(skipped)
    try:
        for ids, pixels in stream:
            skipped[known:] = stream.skipped
            features = encode(backbone, pixels, encoders, calibration=calibration)
            finite = torch.stack([x.flatten(1).isfinite().all(1) for x in features.values()]).all(0)
            if not finite.all():
                bad = stream.name(ids[int(finite.int().argmin())])
                raise ValueError(f"The features of {bad} are not finite: leave the picture out.")
            yield Encoded(ids, features["cls"], {name: features[name] for name in encoders})
    except UnreadableImage:
        if not start:  # pictures before `start` were read
            raise
    finally:
        skipped[known:] = stream.skipped


def encoded(
    backbone: Backbone,
    images: Any,
    encoders: Sequence[str],
    cache: Path | None = None,
    batch_size: int = 32,
    desc: str = "",
    progress: bool = True,
    calibration: Calibration | None = None,
) -> Encoded:
    """Features of all pictures, on the CPU; from the disk if they were computed before.

    cache : a folder for a file of each encoder and set of pictures; one damaged is made again.

    One picture that cannot be read is an UnreadableImage: a world is measured on all or on none.
    """
    key = _key(backbone, images, calibration) if cache else None
    name = re.sub(r"[^\w-]+", "-", str(getattr(images, "name", "pictures")))
    kinds, made = ("cls", *encoders), dict[str, Tensor]()
    files = {e: Path(cache or "", f"{name}-{e}-{key}.safetensors") for e in kinds if key}
    found = {e: x for e, file in files.items() if (x := _read(file)) is not None}
    if missing := [e for e in kinds if e not in found]:
        n, wanted = len(list_images(images)), [e for e in missing if e != "cls"]
        skipped: list[tuple[int, str, str]] = []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ images cannot be read")
            for ids, cls, patches in walk(
                backbone, images, wanted, batch_size, 0, desc, progress, skipped, calibration
            ):
                for e, x in {"cls": cls, **patches}.items():  # filled in place: once in memory
                    made.setdefault(e, torch.empty(n, *x.shape[1:]))[ids] = x.cpu()
        if skipped:
            raise UnreadableImage(f"{len(skipped)} of {n} pictures cannot be read. {skipped[0][2]}")
        for e in missing if files else ():
            _keep(files[e], made[e])
    found |= made
    return Encoded(list(range(len(found["cls"]))), found["cls"], {e: found[e] for e in encoders})


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of tensors on the CPU: names, kinds, shapes and every number."""
    sha = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        sha.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        sha.update(x.flatten().view(torch.uint8).numpy().data)  # NumPy has no bfloat16
    return sha.hexdigest()


def _key(backbone: Backbone, images: Any, calibration: Calibration | None) -> str | None:
    """16 hex digits for all that the features depend on; None where pictures are no files."""
    about = [backbone.identity(), backbone.precision, calibration or backbone.calibration]
    pictures = list_images(images)
    if not isinstance(pictures, list) or not all(isinstance(p, str | Path) for p in pictures):
        return None
    files = [Path(p).resolve() for p in pictures]
    about += [(str(file), file.stat().st_size if file.is_file() else None) for file in files]
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for module in CODE:
        sha.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return sha.hexdigest()[:16]


def _read(path: Path) -> Tensor | None:
    """Features that were kept; None where there are none, or they are not what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            about, x = file.metadata() or {}, file.get_tensor("features")
    except (SafetensorError, OSError):
        return None
    return x if about.get("digest") == digest({"features": x}) else None


def _keep(path: Path, x: Tensor) -> None:
    """Write features; a folder that cannot be written to costs time, not the result."""
    data = safetensors.torch.save({"features": x}, {"digest": digest({"features": x})})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        warnings.warn(f"Features are not kept for the next time. {error}", stacklevel=3)
