"""Features of whole splits, computed once, kept on disk and shared between notebooks."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

import piaa_utils
from piaa_utils.datasets import VOID, data_dir
from piaa_utils.encoders import ENCODERS, encode
from piaa_utils.images import UnreadableImage, batches
from piaa_utils.lessons.config import Config
from piaa_utils.patch_labels import patch_labels
from piaa_utils.pipeline import identity
from piaa_utils.plots import centre_square
from piaa_utils.selection import PatchBank

DEFAULT = "scclip"
# In the mini world, encoders kept together on disk, so that notebooks which ask for some of them
# share one file. Photographs are many: there only what is asked for is kept.
TWO = ("vanilla", DEFAULT)
STORED = {"test": ENCODERS, "test_unseen": TWO, "learn": TWO, "learn_unseen": TWO}


class Features(NamedTuple):
    """What a split looks like to CLIP, and what is really in it.

    cls : [n, D] unit [CLS] features.
    patches : {encoder: [n, N, D]} unit patch features.
    labels : int [n, C], 1 where the class is in the picture.
    truth : int [n, N], the class that covers most of each patch; below 0 none. See
        :func:`piaa_utils.patch_labels.patch_labels`.
    """

    cls: Tensor
    patches: dict[str, Tensor]
    labels: np.ndarray
    truth: np.ndarray


def features(config: Config, split: str, encoders: Sequence[str] = (DEFAULT,)) -> Features:
    """Features of a split, from the cache on disk if it was computed before.

    Parameters
    ----------
    config : the notebook's.
    split : "learn", "val", "test", or one of these with "_unseen".
    encoders : names out of ``piaa_utils.encoders.ENCODERS``; the trunk runs once for all.

    Raises
    ------
    ValueError
        An unknown encoder.
    UnreadableImage
        An image cannot be read: a notebook measures on all of them or on none.
    """
    if isinstance(encoders, str):
        encoders = (encoders,)
    data = config.dataset(split)
    if config.world != "mini":
        split = split.removesuffix("_unseen")  # photographs have no other style
    shared = STORED.get(split, ()) if config.world == "mini" else ()
    stored = tuple(name for name in ENCODERS if name in {*shared, *encoders})
    if unknown := set(encoders) - set(stored):
        raise ValueError(f"There is no encoder {unknown.pop()!r}; there are {', '.join(ENCODERS)}.")
    cached = memory().cache(_encode_split, ignore=["config"])
    cls, patches, truth = cached(config, _key(config, data), split, stored)
    tensors = {name: torch.from_numpy(patches[name]) for name in encoders}
    return Features(torch.from_numpy(cls), tensors, data.labels, truth)


def bank(
    config: Config,
    split: str = "learn",
    per_image: int | None = 1,
    encoder: str = DEFAULT,
    selector: str | None = None,
) -> PatchBank:
    """Stage I's bank of a split, from its cached features.

    ``per_image=None`` is the paper's; 1 is what ``purify="spread"`` learns from. `encoder` and
    `selector` are those of :class:`piaa_utils.pipeline.PIAA`.
    """
    read = selector or encoder
    patches = features(config, split, (read, encoder)).patches
    out = PatchBank(len(config.class_names), per_image=per_image)
    text = config.text.cpu()
    for start in range(0, len(patches[read]), 64):
        rows = slice(start, start + 64)
        ids = range(len(patches[read]))[rows]
        out.update(patches[read][rows], text, ids, patches[encoder][rows])
    return out


def mask_or_none(data, index: int) -> np.ndarray | None:
    """The class mask of a picture, see ``VOCLayout.masks``; None where it has none."""
    if not hasattr(data, "masks"):
        return None
    try:
        return data.masks(index)
    except FileNotFoundError:
        return None


def object_shares(dataset) -> np.ndarray:
    """The share of each picture that each class covers, from the masks.

    Parameters
    ----------
    dataset : pictures with masks; a picture without one has NaN in its row.

    Returns
    -------
    [n, C] from 0 to 1, of the square in the middle, which is what the model sees.
    """
    shares = np.full((len(dataset), len(dataset.class_names)), np.nan)
    for i in range(len(dataset)):
        mask = mask_or_none(dataset, i)
        if mask is None:
            continue
        mask = centre_square(mask)
        owners = mask[mask >= 0].astype(np.int64)
        shares[i] = np.bincount(owners, minlength=shares.shape[1]) / mask.size
    return shares


def patch_truth(data, index: int, backbone) -> np.ndarray:
    """What each patch of a picture shows, [N]; ``VOID`` everywhere where there is no mask."""
    mask = mask_or_none(data, index)
    if mask is None:
        return np.full(backbone.grid**2, VOID)
    mask = centre_square(mask)
    side = backbone.image_size
    if mask.shape != (side, side):
        mask = np.array(Image.fromarray(mask.astype(np.int32)).resize((side, side), 0))
    return patch_labels(mask, backbone.grid)


def memory() -> joblib.Memory:
    """The cache on disk, ``cache/notebooks`` in the repository; delete it whenever you like.

    The variable PIAA_CACHE names another folder than ``cache``.
    """
    folder = Path(os.environ.get("PIAA_CACHE") or data_dir().parent / "cache")
    return joblib.Memory(folder / "notebooks", verbose=0)


def _encode_split(config: Config, key: str, split: str, encoders: tuple[str, ...]):
    """[n, D], {encoder: [n, N, D]} and [n, N] as NumPy arrays; `key` names all they depend on."""
    data, backbone = config.dataset(split), config.backbone_
    stream = batches(data, backbone.preprocess, 32, desc=f"encoding {split}")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("cls", *encoders)}
    for _, pixels in stream:
        for name, x in encode(backbone, pixels, encoders).items():
            parts[name].append(x.cpu().numpy())
    if stream.skipped:
        _, name, reason = stream.skipped[0]
        raise UnreadableImage(
            f"{len(stream.skipped)} pictures of {split} cannot be read, first {name} ({reason}): "
            f"take them out of the split's list in ImageSets/Main."
        )
    joined = {name: np.concatenate(x) for name, x in parts.items()}
    truth = np.stack([patch_truth(data, i, backbone) for i in range(len(data))])
    return joined.pop("cls"), joined, truth


def _key(config: Config, data) -> str:
    """A hash of all that features and truth depend on: backbone, code, pictures and masks."""
    digest = hashlib.sha256(json.dumps(identity(config.backbone_), sort_keys=True).encode())
    for name in ("backbone", "encoders", "images", "datasets", "patch_labels"):
        digest.update((Path(piaa_utils.__file__).parent / f"{name}.py").read_bytes())
    if hasattr(data, "label_files"):  # masks, if any, are in these
        digest.update(Path(inspect.getfile(type(data))).read_bytes())
        for file in data.label_files:
            digest.update(f"{file} {file.stat().st_size}\n".encode())
    for path in data.paths:
        mask = data.root / "SegmentationClass" / f"{path.stem}.png"
        for file in (path, mask):
            size = file.stat().st_size if file.exists() else None
            digest.update(f"{file} {size}\n".encode())
    return digest.hexdigest()
