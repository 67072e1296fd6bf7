"""What every notebook stands on: its configuration, features, claims, and the scene it follows."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from piaa_utils import plots
from piaa_utils.aggregation import cls_scores, posterior
from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.classifier import Learned, Recipe
from piaa_utils.files import data_dir
from piaa_utils.pipeline import PIAA
from piaa_utils.selection import PatchBank
from piaa_utils.settings import Scales
from piaa_utils.walk import encoded
from piaa_utils.worlds import WORLDS, World, first, load_world, patch_truth

FAST = {"learn": 300, "val": 100, "test": 150}  # pictures used where fast is True
PATCHES_MOST = 12  # the followed scene's smallest object covers fewer patches than this
PACKAGES = ("torch", "torchvision", "open_clip_torch", "scikit-learn", "numpy", "seaborn")


@dataclass(frozen=True)
class Config:
    """What a notebook runs on. The default, the embedded mini world, needs no network.

    Parameters
    ----------
    world : "mini", or another of :data:`piaa_utils.worlds.WORLDS`: "voc07", "voc12", "coco", "nus".
        Notebooks hold a split's patches in memory: take ``fast=True`` for the large ones.
    data_root : where the world's folder is; not for "mini".
    backbone, pretrained : as for :func:`piaa_utils.backbone.load_backbone`. None takes the
        mini-CLIP in the mini world, and OpenAI's ViT-B/16 for photographs.
    device : None takes a GPU where there is one.
    seed : of NumPy, PyTorch and random.
    fast : measure on fewer pictures: quicker, and the numbers are rougher.

    >>> config = Config(device="cpu")
    >>> config.backbone_.grid, len(config.split("test")), len(config.class_names)
    (14, 600, 20)
    >>> config.claim(1 + 1 == 2, f"one and one make {1 + 1}")
    ✓ one and one make 2
    """

    world: str = "mini"
    data_root: str | None = None
    backbone: str | None = None
    pretrained: str | None = None
    device: str | None = None
    seed: int = 0
    fast: bool = False

    def __post_init__(self) -> None:
        if self.world not in WORLDS:
            raise ValueError(f"There is no world {self.world!r}; there are {', '.join(WORLDS)}.")
        plots.style()
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)

    @cached_property
    def backbone_(self) -> Backbone:
        """The frozen CLIP, loaded once."""
        photographs = ("ViT-B-16-quickgelu", self.pretrained or "openai")
        own = (self.backbone or "mini", self.pretrained)
        name, weights = own if self.backbone or self.world == "mini" else photographs
        return load_backbone(name, weights, self.device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C classes, in the order of all scores."""
        return WORLDS[self.world].class_names

    @property
    def scales(self) -> Scales:
        """s, m and T: the world's own where the paper has some, else the backbone's."""
        return WORLDS[self.world].scales or self.backbone_.scales

    @cached_property
    def text(self) -> Tensor:
        """[C, D] unit text features t_c of "a photo of a {class}", on the CPU."""
        return self.backbone_.encode_text(self.class_names).cpu()

    def split(self, name: str) -> World:
        """The pictures of "learn", "val" or "test"; with "_unseen", of the other style.

        Photographs have no other style, and the plain split stands in for it.
        """
        if self.world != "mini":
            name = name.removesuffix("_unseen")
        data = load_world(self.world, name, self.data_root)
        return first(data, FAST[name.removesuffix("_unseen")]) if self.fast else data

    def claim(self, holds: bool, message: str) -> None:
        """Say that something holds, and fail if it does not.

        On another configuration than the default a claim that does not hold is reported only.

        Raises AssertionError: on the default configuration, if it does not hold.
        """
        if holds:
            print(f"✓ {message}")
        elif replace(self, device=None) == Config():
            raise AssertionError(f"This claim does not hold: {message}")
        else:
            print(f"✗ not on this configuration: {message}")

    def __str__(self) -> str:
        b, learn, test = self.backbone_, len(self.split("learn")), len(self.split("test"))
        return (
            f"{b.name}: {b.depth} blocks, {b.grid} x {b.grid} patches, on {b.device}\n"
            f"{self.world}: {len(self.class_names)} classes, {learn} pictures to learn from, "
            f"{test} to measure on{', fast' if self.fast else ''}; seed {self.seed}"
        )


class Features(NamedTuple):
    """What a split looks like to CLIP, and what is really in it."""

    cls: Tensor  # [n, D] unit
    patches: dict[str, Tensor]  # encoder: [n, N, D] unit
    labels: np.ndarray  # [n, C] 1 where the class is in the picture
    truth: np.ndarray  # [n, N] the class that covers most of a patch; below 0 none


def cache() -> Path:
    """The folder of cached features, in the clone or where PIAA_CACHE says; delete it at will."""
    return Path(os.environ.get("PIAA_CACHE") or data_dir().parent / "cache") / "features"


def features(config: Config, split: str, encoders: Sequence[str] = ("scclip",)) -> Features:
    """Features of a split, from the cache on disk if any notebook computed them before."""
    encoders = (encoders,) if isinstance(encoders, str) else encoders
    data, backbone = config.split(split), config.backbone_
    seen = encoded(backbone, data, encoders, cache(), desc=f"encoding {split}")
    truth = patch_truth(data, backbone.grid, backbone.image_size)
    return Features(seen.cls, seen.patches, data.labels, truth)


def bank(
    config: Config, split: str = "learn", encoder: str = "scclip", keep: str = ""
) -> PatchBank:
    """Stage I's bank of a split: the text reads `encoder`'s patches, and `keep`'s are kept.

    `keep` is the encoder itself unless another is named.
    """
    keep = keep or encoder
    patches = features(config, split, tuple({encoder: 0, keep: 0})).patches
    out = Recipe().bank(len(config.text))
    for start in range(0, len(patches[encoder]), 64):
        rows = slice(start, start + 64)
        ids = range(len(patches[encoder]))[rows]
        out.update(patches[encoder][rows], config.text, ids, patches[keep][rows])
    return out


def learned(config: Config, split: str = "learn", encoder: str = "scclip") -> Learned:
    """PVCL on a split: W [D, C], b [C] and the report, from cached features."""
    return Recipe().learn(bank(config, split, encoder), config.text, config.class_names)


def ready(config: Config, split: str = "learn", encoder: str = "scclip") -> PIAA:
    """A :class:`piaa_utils.PIAA` that has learned from a split, by cached features."""
    piaa = PIAA(config.class_names, config.backbone_, encoder, scales=config.scales)
    return piaa.fit_bank(bank(config, split, encoder))


@dataclass(frozen=True, order=True)
class Scene:
    """The scene that notebooks follow."""

    split: str
    index: int  # in the split
    classes: list[int]  # what is there, the largest first
    smallest: int  # the class that [CLS] misses


def areas(data: World, grid: int) -> np.ndarray:
    """How many patches' worth of pixels each class covers in each picture: float [n, C]."""
    out = np.zeros((len(data), len(data.class_names)))
    for i in range(len(data)):
        mask = data.mask(i)
        if mask is not None:
            seen = mask[mask >= 0]
            out[i] = np.bincount(seen, minlength=out.shape[1]) * grid**2 / mask.size
    return out


def follow(config: Config, split: str = "val_unseen") -> Scene:
    """The scene that the notebooks follow, chosen by a rule.

    Of the pictures of `split` with three or more classes whose smallest covers 2 to 12 patches: the
    ones where that class is not among [CLS]'s n best (n classes are there), and is among PIAA's
    with its highest patch on it; of those, the one whose patches on objects PIAA's classifier reads
    best. How many there are of each kind, notebook 00 prints.
    """
    data, part = config.split(split), features(config, split)
    piaa = ready(config, "learn_unseen" if "unseen" in split else "learn")
    scores = {
        "cls": cls_scores(part.cls, config.text, 1.0),  # only the order counts
        "piaa": piaa.score_features(part.patches["scclip"], part.cls).cpu(),
    }
    size = areas(data, config.backbone_.grid)
    g = posterior(piaa.decision_function(part.patches["scclip"]), config.scales.T)
    found: list[tuple[float, Scene]] = []
    for i, row in enumerate(size):
        there = np.argsort(-row)[: int((row > 0).sum())]
        if len(there) < 3 or not 2 <= row[there[-1]] < PATCHES_MOST:
            continue
        best = {who: set(s[i].topk(len(there)).indices.tolist()) for who, s in scores.items()}
        c = int(there[-1])
        if c in best["piaa"] - best["cls"] and part.truth[i, int(g[i, :, c].argmax())] == c:
            right = g[i].argmax(-1).numpy()[part.truth[i] >= 0] == part.truth[i][part.truth[i] >= 0]
            found.append((float(right.mean()), Scene(split, i, there.tolist(), c)))
    return max(found)[-1]


def versions() -> str:
    """The versions of what a notebook ran with, on one line."""
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)
