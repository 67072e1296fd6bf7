"""PIAA, step by step: multi-label recognition with a frozen CLIP, read patch by patch.

What users need stands here; each name is loaded from its file when it is first used, so that
``import piaa_utils`` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ruff: noqa: F401
if TYPE_CHECKING:  # the same names again, for type checkers
    from piaa_utils.aggregation import cls_scores, paa, patch_scores, posterior
    from piaa_utils.backbone import Backbone, load_backbone
    from piaa_utils.classifier import Recipe
    from piaa_utils.encoders import ENCODERS, encode
    from piaa_utils.gda import GaussianDiscriminantAnalysis
    from piaa_utils.metrics import Interval, interval, mean_average_precision
    from piaa_utils.pipeline import PIAA
    from piaa_utils.selection import PatchBank
    from piaa_utils.settings import PAPER, Calibration, Scales
    from piaa_utils.tags import tag_images
    from piaa_utils.vocabulary import Vocabulary
    from piaa_utils.walk import Encoded, encoded
    from piaa_utils.worlds import load_world, mini_scenes

_HOMES = {
    "aggregation": ("cls_scores", "paa", "patch_scores", "posterior"),
    "backbone": ("Backbone", "load_backbone"),
    "classifier": ("Recipe",),
    "encoders": ("ENCODERS", "encode"),
    "gda": ("GaussianDiscriminantAnalysis",),
    "metrics": ("Interval", "interval", "mean_average_precision"),
    "pipeline": ("PIAA",),
    "selection": ("PatchBank",),
    "settings": ("PAPER", "Calibration", "Scales"),
    "tags": ("tag_images",),
    "vocabulary": ("Vocabulary",),
    "walk": ("Encoded", "encoded"),
    "worlds": ("load_world", "mini_scenes"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"piaa_utils.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *globals()]
