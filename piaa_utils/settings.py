"""The numbers that PIAA fixes, in one place.

The scales of the aggregation (:data:`PAPER`) and the temperature of Stage II differ from one data
set to the next, as in the authors' released code. The mini-CLIP brings scales of its own.
"""

import math
from typing import Any, NamedTuple

SELECTION_SCALE = 60.0  # Stage I: p_ic = softmax_c(60 x_i.t_c)
BANK_SIZE = 512  # Stage I: K, patches kept for each class
CLS_WEIGHT = 0.1  # PAA: score = 0.9 s_patch + 0.1 s_cls
TEMPLATES = ("a photo of a {}",)  # the prompt of a class


class Scales(NamedTuple):
    """The scales of the aggregation (PIAA, PAA); by default the paper's for PASCAL VOC."""

    s: float = 80.0  # s_cls = softmax_c(s cos(CLS, t_c))
    m: float = 200.0  # s_patch = softmax_c(m e_c)
    T: float = 500.0  # g_ic = softmax_c((x_i.W + b) / T)
    source: str = "the released code, PASCAL VOC"


def check_positive(what: str, **numbers: Any) -> None:
    """Refuse factors that would make every score NaN, all alike or turned round."""
    for name, x in numbers.items():
        if not 0 < x < math.inf:
            raise ValueError(f"{what} {name} must be a number above 0 and finite, not {x}.")


class Calibration(NamedTuple):
    """SC-CLIP's three sizes; they were chosen for OpenAI's ViT-B/16, whose they are by default."""

    beta: float = 0.4  # cosine similarity below which two patches share nothing
    cls_share: float = 0.3  # of the [CLS] token, added to every patch
    gain: float = 3.0  # of the similarities that become an attention


PAPER = {
    "voc07": Scales(),
    "voc12": Scales(),
    "coco": Scales(80.0, 400.0, 500.0, "the released code, MS COCO"),
    "nus": Scales(10.0, 400.0, 500.0, "the released code, NUS-WIDE"),
}
# T of Stage II, q = softmax_c(T (x.W + b)), in the released code.
PURIFY_TEMPERATURE = {"voc07": 100.0, "voc12": 100.0, "coco": 0.01, "nus": 500.0}
