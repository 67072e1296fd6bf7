"""PIAA, step by step: multi-label recognition with a frozen CLIP, read patch by patch.

Each name is loaded from its file when it is first used, so ``import piaa_utils`` takes no time.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

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
