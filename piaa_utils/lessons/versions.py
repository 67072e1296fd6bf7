"""The versions a notebook ran with."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("torch", "torchvision", "open_clip_torch", "scikit-learn", "numpy", "seaborn")


def versions() -> str:
    """Python's version and those of the packages that decide the numbers, on two lines.

    Examples
    --------
    >>> versions().split(",")[0].startswith("Python 3.")
    True
    """
    named = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    named.insert(0, f"Python {platform.python_version()}")
    return ",\n".join([", ".join(named[:4]), ", ".join(named[4:])])
