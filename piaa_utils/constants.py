"""The numbers that PIAA fixes, in one place.

The four constants of the method are the same for every data set. Three scales differ from one data
set to the next: :data:`CONSTANTS` holds the ones that the authors' released code uses.
"""

from typing import NamedTuple


class Calibration(NamedTuple):
    """SC-CLIP's three sizes; they were chosen for OpenAI's ViT-B/16, whose they are by default."""

    beta: float = 0.4  # cosine similarity below which two patches share nothing
    cls_share: float = 0.3  # of the [CLS] token, added to every patch
    gain: float = 3.0  # of the similarities that become an attention


SELECTION_TEMPERATURE = 60.0  # Stage I: p_ic = softmax_c(60 x_i.t_c)
BANK_SIZE = 512  # Stage I: K, patches kept for each class
EVIDENCE_TEMPERATURE = 500.0  # PAA: g_ic = softmax_c((x_i.W + b) / 500)
CLS_WEIGHT = 0.1  # PAA: score = 0.9 s_patch + 0.1 s_cls

# cls_scale: s in s_cls = softmax_c(s cos(CLS, t)).   patch_scale: m in s_patch = softmax_c(m e).
# purify_temperature: T in Stage II's q = softmax_c(T (x.W + b)).
CONSTANTS: dict[str, dict[str, float]] = {
    # Released code, settings for PASCAL VOC 2007 and 2012.
    "voc07": {"cls_scale": 80.0, "patch_scale": 200.0, "purify_temperature": 100.0},
    "voc12": {"cls_scale": 80.0, "patch_scale": 200.0, "purify_temperature": 100.0},
    # Released code, settings for MS COCO 2014.
    "coco": {"cls_scale": 80.0, "patch_scale": 400.0, "purify_temperature": 0.01},
    # Released code, settings for NUS-WIDE.
    "nus": {"cls_scale": 10.0, "patch_scale": 400.0, "purify_temperature": 500.0},
    # The embedded mini world: s and m chosen on `val` and `val_unseen`. The mini-CLIP was trained
    # to a logit scale of 29, CLIP to 100: its cosines spread wider, and VOC's s of 80 costs [CLS]
    # 7 points of mAP there (56.5 for 63.3, mean of the two). T as for VOC.
    "mini": {"cls_scale": 5.0, "patch_scale": 1000.0, "purify_temperature": 100.0},
    # The same for encoder="vanilla", selector="scclip", chosen on the same pictures.
    "mini_vanilla": {"cls_scale": 7.0, "patch_scale": 3000.0, "purify_temperature": 100.0},
}
