"""The versions a notebook ran with."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("torch", "torchvision", "open_clip_torch", "scikit-learn", "numpy", "seaborn")


def versions() -> str:
    """Python's version and those of the packages that decide the numbers, on one line.

    Examples
    --------
    >>> versions().split(",")[0].startswith("Python 3.")
    True
    """
    named = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *named])
