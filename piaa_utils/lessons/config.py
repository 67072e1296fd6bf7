"""The configuration of a notebook: which CLIP, which pictures, which device, which seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import Dataset

from piaa_utils import plots
from piaa_utils.backbone import MINI, Backbone, load_backbone
from piaa_utils.constants import CONSTANTS
from piaa_utils.datasets import MINI_CLASSES, mini_scenes
from piaa_utils.labelled import cut_to
from piaa_utils.worlds import WORLDS, load_world

FAST = {"learn": 300, "val": 100, "test": 150}  # pictures used where fast is True


@dataclass(frozen=True)
class Config:
    """What a notebook runs on. The default, the embedded mini world, needs no network.

    Parameters
    ----------
    world : "mini", or one of the paper's four, see :data:`piaa_utils.worlds.WORLDS`: "voc07",
        "voc12", "coco", "nus". Notebooks hold a split's patches in memory, and those of COCO's
        82,081 images to learn from are 33 GB for each encoder: take ``fast=True`` there.
    data_root : the folder that holds ``VOCdevkit/VOC2007``, ``coco`` ..., see
        :func:`piaa_utils.worlds.load_world`; not for "mini".
    backbone, pretrained : as for :func:`piaa_utils.backbone.load_backbone`. None takes the
        mini-CLIP in the mini world, and OpenAI's ViT-B/16 for photographs.
    device : None takes a GPU where there is one.
    seed : of NumPy, PyTorch and random.
    fast : measure on fewer pictures: quicker, and the numbers are rougher.

    Raises
    ------
    ValueError
        An unknown world, or no ``data_root`` for one that needs it.

    Examples
    --------
    >>> config = Config(device="cpu")
    >>> config.backbone_.grid, len(config.dataset("test")), len(config.class_names)
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
        if self.world != "mini" and self.world not in WORLDS:
            raise ValueError(
                f"There is no world {self.world!r}; there are mini, {', '.join(WORLDS)}."
            )
        if self.world != "mini" and self.data_root is None:
            raise ValueError(
                f"The world {self.world!r} needs data_root, the folder that holds "
                f"{WORLDS[self.world].folder}; the embedded world 'mini' needs none."
            )
        plots.style()
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)

    @property
    def is_default(self) -> bool:
        """Whether this is what the notebooks' claims were checked on."""
        same = replace(self, device=None, backbone=None if self.backbone == MINI else self.backbone)
        return same == Config()

    @cached_property
    def backbone_(self) -> Backbone:
        """The frozen CLIP, loaded once."""
        name, weights = self.backbone, self.pretrained
        if name is None and self.world != "mini":
            name, weights = "ViT-B-16-quickgelu", weights or "openai"
        return load_backbone(name or MINI, weights, self.device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of all scores."""
        return MINI_CLASSES if self.world == "mini" else WORLDS[self.world].class_names

    @property
    def constants(self) -> dict[str, float]:
        """The scales s, m and T of this world, from ``piaa_utils.constants``."""
        return CONSTANTS[self.world]

    @cached_property
    def text(self) -> torch.Tensor:
        """[C, D] unit text features t_c of "a photo of a {class}"."""
        return self.backbone_.encode_text(self.class_names)

    def dataset(self, split: str) -> Dataset:
        """The pictures of "learn", "val" or "test".

        With "_unseen" behind it, those of the mini world's other art style; photographs have no
        such split, and the plain one stands in for it.
        """
        if self.world == "mini":
            data = mini_scenes(split)
        else:
            data = load_world(self.world, self.data_root, split.removesuffix("_unseen"))
        return cut_to(data, FAST[split.removesuffix("_unseen")]) if self.fast else data

    def claim(self, holds: bool, message: str) -> None:
        """Say that something holds, and fail if it does not.

        On another configuration than the default a claim that does not hold is reported only: it
        may well be otherwise there.

        Raises
        ------
        AssertionError
            On the default configuration, if it does not hold.
        """
        if holds:
            print(f"✓ {message}")
        elif self.is_default:
            raise AssertionError(f"This claim does not hold: {message}")
        else:
            print(f"✗ not on this configuration: {message}")

    def __str__(self) -> str:
        sizes = ", ".join(f"{len(self.dataset(s))} to {w}" for s, w in _USES)
        b = self.backbone_
        return (
            f"backbone  {b.name}: {b.depth} blocks, {b.grid} x {b.grid} patches, "
            f"{'QuickGELU' if b.quick_gelu else 'GELU'}\n"
            f"data set  {self.world}: {len(self.class_names)} classes, pictures: {sizes}\n"
            f"device    {b.device}\nseed      {self.seed}\n"
            f"mode      {'fast: fewer pictures' if self.fast else 'full'}"
        )


_USES = (("learn", "learn from"), ("test", "measure on"))
