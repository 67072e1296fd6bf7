"""What the notebooks share: configuration, cached features, claims, checks, explorers, figures."""

from piaa_utils.lessons.checks import (
    CheckFailed,
    check_array,
    check_choice,
    check_function,
    check_number,
)
from piaa_utils.lessons.explorer import explorer
from piaa_utils.lessons.lesson import (
    Config,
    Features,
    Scene,
    areas,
    bank,
    features,
    follow,
    learned,
    ready,
    versions,
)

__all__ = [
    "CheckFailed",
    "Config",
    "Features",
    "Scene",
    "areas",
    "bank",
    "check_array",
    "check_choice",
    "check_function",
    "check_number",
    "explorer",
    "features",
    "follow",
    "learned",
    "ready",
    "versions",
]
