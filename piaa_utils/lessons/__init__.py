"""What the notebooks share: configuration, cached features, claims, checks and explorers.

One module for each notebook, ``nb00`` to ``nb09``, holds what is its own: the checks of its
exercises, the callback of its explorer, and figures that are too long for a cell.
"""

from piaa_utils.lessons.checks import (
    CheckFailed,
    check_array,
    check_choice,
    check_function,
    check_number,
)
from piaa_utils.lessons.config import Config
from piaa_utils.lessons.explorer import explorer
from piaa_utils.lessons.features import Features, bank, features, mask_or_none, object_shares
from piaa_utils.lessons.versions import versions

__all__ = [
    "CheckFailed",
    "Config",
    "Features",
    "bank",
    "check_array",
    "check_choice",
    "check_function",
    "check_number",
    "explorer",
    "features",
    "mask_or_none",
    "object_shares",
    "versions",
]
