"""PAA: prediction adaptive aggregation, from patch logits and [CLS] to the scores of an image.

    g_ic = softmax_c((x_i.W + b) / 500)        e_c = max_i g_ic         "spatial evidence"
    s_patch = softmax_c(m e)                   s_cls = softmax_c(s cos(CLS, t))
    score = 0.9 s_patch + 0.1 s_cls

and, for comparison, the simpler ways to pool patches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from piaa_utils.constants import CLS_WEIGHT, CONSTANTS, EVIDENCE_TEMPERATURE

POOLINGS = ("mean", "max", "topk", "lse")


def spatial_softmax(logits: Tensor, temperature: float = EVIDENCE_TEMPERATURE) -> Tensor:
    """Class probabilities of each patch, g = softmax_c(logits / temperature) (PIAA, PAA).

    Parameters
    ----------
    logits : [..., N, C] decision values of the patches, x.W + b.
    temperature : 500 in the paper; the larger, the flatter.

    Returns
    -------
    [..., N, C]; the classes of each patch sum to 1.

    Examples
    --------
    >>> spatial_softmax(torch.tensor([[0.0, 0.0], [500.0, 0.0]])).round(decimals=3)
    tensor([[0.5000, 0.5000],
            [0.7310, 0.2690]])
    """
    return torch.softmax(logits / temperature, dim=-1)


def spatial_evidence(g: Tensor) -> Tensor:
    """The best patch of each class, e_c = max_i g_ic: [..., N, C] to [..., C] (PIAA, PAA).

    Examples
    --------
    >>> spatial_evidence(torch.tensor([[0.2, 0.8], [0.6, 0.4]]))
    tensor([0.6000, 0.8000])
    """
    return g.amax(dim=-2)


def patch_scores(evidence: Tensor, scale: float) -> Tensor:
    """s_patch = softmax_c(scale * e): [..., C] evidence to [..., C] scores (PIAA, PAA).

    Parameters
    ----------
    evidence : [..., C] spatial evidence, 0 to 1.
    scale : m; in the authors' code 200 for VOC, 400 for COCO and NUS-WIDE.

    Examples
    --------
    >>> patch_scores(torch.tensor([0.60, 0.61]), scale=200.0).round(decimals=3)
    tensor([0.1190, 0.8810])
    """
    return torch.softmax(scale * evidence, dim=-1)


def cls_scores(cls: Tensor, text: Tensor, scale: float) -> Tensor:
    """s_cls = softmax_c(scale * cos(CLS, t)), CLIP's own answer (PIAA, PAA).

    Parameters
    ----------
    cls : [..., D] unit [CLS] features.
    text : [C, D] unit text features.
    scale : s; in the authors' code 80 for VOC and COCO, 10 for NUS-WIDE.

    Returns
    -------
    [..., C] scores that sum to 1.

    Examples
    --------
    >>> cls_scores(torch.tensor([[0.6, 0.8]]), torch.eye(2), scale=10.0).round(decimals=3)
    tensor([[0.1190, 0.8810]])
    """
    return torch.softmax(scale * cls @ text.T, dim=-1)


def paa(
    logits: Tensor,
    cls: Tensor,
    text: Tensor,
    cls_scale: float = CONSTANTS["voc07"]["cls_scale"],
    patch_scale: float = CONSTANTS["voc07"]["patch_scale"],
    evidence_temperature: float = EVIDENCE_TEMPERATURE,
    cls_weight: float = CLS_WEIGHT,
    second_softmax: bool = True,
) -> Tensor:
    """Scores of images from their patches and [CLS] (PIAA, PAA).

    Parameters
    ----------
    logits : [B, N, C] decision values of the patches, x.W + b.
    cls : [B, D] unit [CLS] features.
    text : [C, D] unit text features.
    cls_scale, patch_scale : s and m, see ``piaa_utils.constants.CONSTANTS``; VOC's by default.
    evidence_temperature : 500 in the paper.
    cls_weight : share of [CLS] in the score, 0 to 1; 0.1 in the paper. 1 is [CLS] alone.
    second_softmax : False leaves s_patch at the evidence e itself, for comparison.

    Returns
    -------
    [B, C] scores from 0 to 1; they sum to 1 with the second softmax.

    Raises
    ------
    ValueError
        On shapes that do not fit, a share out of range, or features with NaN or infinite values.

    Examples
    --------
    >>> logits = torch.tensor([[[40.0, 0.0], [0.0, 30.0]]])
    >>> paa(logits, torch.tensor([[1.0, 0.0]]), torch.eye(2)).round(decimals=3)
    tensor([[0.7580, 0.2420]])
    """
    if logits.ndim != 3 or cls.shape != (len(logits), text.shape[1]):
        raise ValueError(
            f"logits must be [B, N, C], cls [B, D] and text [C, D]: got {tuple(logits.shape)}, "
            f"{tuple(cls.shape)} and {tuple(text.shape)}."
        )
    if len(text) != logits.shape[2]:
        raise ValueError(
            f"The classifier has {logits.shape[2]} classes and the text {len(text)}: use one list."
        )
    if not 0 <= cls_weight <= 1:
        raise ValueError(f"cls_weight is a share from 0 to 1: got {cls_weight}.")
    evidence = spatial_evidence(spatial_softmax(logits, evidence_temperature))
    patch = patch_scores(evidence, patch_scale) if second_softmax else evidence
    score = (1 - cls_weight) * patch + cls_weight * cls_scores(cls, text, cls_scale)
    bad = ~score.isfinite().all(dim=1)
    if bad.any():
        raise ValueError(
            f"Image {int(bad.nonzero()[0])} of the batch has NaN or infinite features: leave it "
            f"out, or check the backbone and the classifier."
        )
    return score


def pool(scores: Tensor, how: str, k: int = 10, sharpness: float = 1.0) -> Tensor:
    """The plain ways to make one score of an image's patches, to compare PAA with.

    Parameters
    ----------
    scores : [..., N, C] logits, cosines or probabilities of the patches.
    how : "mean"; "max"; "topk", the mean of the k best patches of each class; or "lse", the
        log-mean-exp, log(mean_i exp(r s_i)) / r, a soft maximum between "mean" and "max".
    k : patches that "topk" averages; all of them if there are fewer.
    sharpness : r of "lse", above 0: small is near the mean, large is near the maximum.

    Returns
    -------
    [..., C].

    Raises
    ------
    ValueError
        On another `how`, k below 1, or a sharpness that is not above 0.

    Examples
    --------
    >>> scores = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]])
    >>> pool(scores, "mean"), pool(scores, "max"), pool(scores, "topk", k=2)
    (tensor([3., 1.]), tensor([6., 3.]), tensor([4.0000, 1.5000]))
    >>> pool(scores, "lse").round(decimals=2)
    tensor([4.9300, 2.0000])
    """
    n = scores.shape[-2]
    if how == "mean":
        return scores.mean(dim=-2)
    if how == "max":
        return scores.amax(dim=-2)
    if how == "topk":
        if k < 1:
            raise ValueError(f"k must be 1 or more: got {k}.")
        return scores.topk(min(k, n), dim=-2).values.mean(dim=-2)
    if how == "lse":
        if not sharpness > 0:
            raise ValueError(f"sharpness must be above 0: got {sharpness}.")
        return (torch.logsumexp(sharpness * scores, dim=-2) - math.log(n)) / sharpness
    raise ValueError(f"how must be one of {POOLINGS}: got {how!r}.")
