"""PAA: prediction adaptive aggregation, from patch logits and [CLS] to the scores of an image.

g_ic = softmax_c((x_i.W + b) / T)          e_c = max_i g_ic         "spatial evidence"
s_patch = softmax_c(m e)                   s_cls = softmax_c(s cos(CLS, t))
score = 0.9 s_patch + 0.1 s_cls
"""

import torch
from torch import Tensor

from piaa_utils.settings import CLS_WEIGHT, Scales, check_positive


def posterior(logits: Tensor, T: float = 500.0) -> Tensor:
    """Class probabilities of patches, g = softmax_c(logits / T): [..., N, C] both (PIAA, PAA).

    >>> posterior(torch.tensor([[0.0, 0.0], [500.0, 0.0]])).round(decimals=3)
    tensor([[0.5000, 0.5000],
            [0.7310, 0.2690]])
    """
    return torch.softmax(logits / T, dim=-1)


def evidence(g: Tensor) -> Tensor:
    """The best patch of each class, e_c = max_i g_ic: [..., N, C] to [..., C] (PIAA, PAA).

    >>> evidence(torch.tensor([[0.2, 0.8], [0.6, 0.4]]))
    tensor([0.6000, 0.8000])
    """
    return g.amax(dim=-2)


def patch_scores(e: Tensor, m: float = 200.0) -> Tensor:
    """s_patch = softmax_c(m e): [..., C] evidence, 0 to 1, to [..., C] scores (PIAA, PAA).

    >>> patch_scores(torch.tensor([0.60, 0.61])).round(decimals=3)
    tensor([0.1190, 0.8810])
    """
    return torch.softmax(m * e, dim=-1)


def cls_scores(cls: Tensor, text: Tensor, s: float = 80.0) -> Tensor:
    """CLIP's own answer, s_cls = softmax_c(s cos(CLS, t)): [..., D] to [..., C] (PIAA, PAA).

    >>> cls_scores(torch.tensor([[0.6, 0.8]]), torch.eye(2), s=10.0).round(decimals=3)
    tensor([[0.1190, 0.8810]])
    """
    return torch.softmax(s * cls @ text.T, dim=-1)


def paa(
    logits: Tensor,
    cls: Tensor,
    text: Tensor,
    scales: Scales = Scales(),  # noqa: B008 (a tuple: nobody can change it)
    cls_weight: float = CLS_WEIGHT,
) -> Tensor:
    """Scores of images from their patches and [CLS] (PIAA, PAA).

    logits : [B, N, C] decision values of the patches, x.W + b.
    cls : [B, D] and text : [C, D], unit features.
    scales : s, m and T, see ``settings.PAPER``; each above 0, else ValueError.
    cls_weight : share of [CLS] in the score, 0 to 1; 1 is [CLS] alone.

    Returns [B, C] scores from 0 to 1, which sum to 1.

    >>> logits = torch.tensor([[[40.0, 0.0], [0.0, 30.0]]])
    >>> paa(logits, torch.tensor([[1.0, 0.0]]), torch.eye(2)).round(decimals=3)
    tensor([[0.7580, 0.2420]])
    """
    check_positive("The scale", **dict(zip("smT", scales, strict=False)))
    e = evidence(posterior(logits, scales.T))
    patch = patch_scores(e, scales.m)
    return (1 - cls_weight) * patch + cls_weight * cls_scores(cls, text, scales.s)
