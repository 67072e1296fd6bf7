"""Measure a model on the mini world's pictures, whose every pixel's owner is known."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.data import DataLoader

from piaa_utils.aggregation import paa
from piaa_utils.constants import Calibration
from piaa_utils.datasets import MINI_CLASSES, mini_scenes
from piaa_utils.encoders import encode
from piaa_utils.patch_labels import MIXED, patch_labels
from piaa_utils.purification import learn_classifier
from piaa_utils.selection import PatchBank

TRIAL = Calibration(0.9, 0.1, 10.0)
SCALES = (2, 3, 5, 7, 10, 15, 20, 30, 50, 80)


def features(backbone, split, encoders, calibration=None, limit=None):
    dataset = mini_scenes(split)
    n = min(len(dataset), limit or len(dataset))
    parts = {}
    for start in range(0, n, 32):
        pixels = torch.stack([backbone.preprocess(dataset[i]) for i in range(start, min(start + 32, n))])
        for name, x in encode(backbone, pixels, encoders, calibration=calibration).items():
            parts.setdefault(name, []).append(x)
    out = {name: torch.cat(p) for name, p in parts.items()}
    out["truth"] = torch.from_numpy(np.stack([patch_labels(dataset.masks(i), backbone.grid) for i in range(n)]))
    out["labels"] = dataset.labels[:n]
    return out


def mean_ap(labels, scores):
    there = labels.any(0)
    return 100 * average_precision_score(labels[:, there], np.asarray(scores)[:, there], average="macro")


def best(labels, scores):
    """(mAP, scale) of the best of {scale: scores}."""
    return max((mean_ap(labels, s), scale) for scale, s in scores.items())


def within(cos, truth):
    """Accuracy on object patches; AUC and peak within pictures."""
    on = truth >= 0
    accuracy = float((cos.argmax(-1) == truth)[on].float().mean())
    auc, peak = [], []
    for i in range(len(cos)):
        for c in truth[i][truth[i] >= 0].unique():
            mine, rest = truth[i] == c, (truth[i] != c) & (truth[i] != MIXED)
            peak.append(bool(mine[(60 * cos[i]).softmax(-1)[:, c].argmax()]))
            if rest.any():
                use = mine | rest
                auc.append(roc_auc_score(mine[use], cos[i][use, c]))
    return accuracy, float(np.mean(auc)), float(np.mean(peak))


def watch(backbone, split):
    learn = "learn_unseen" if "unseen" in split else "learn"
    text = backbone.encode_text(MINI_CLASSES)
    val = features(backbone, split, ("vanilla", "sclip", "scclip"), TRIAL)
    cls_at = {s: (s * val["cls"] @ text.T).softmax(-1) for s in SCALES}
    out = {"cls": best(val["labels"], cls_at)}
    for name in ("vanilla", "sclip", "scclip"):
        out[name] = within(val[name] @ text.T, val["truth"])
    more = features(backbone, learn, ("scclip",), TRIAL, 400)
    bank = PatchBank(len(text), k=170)
    bank.update(more["scclip"], text, torch.arange(len(more["scclip"])))
    right = more["truth"][bank.image_id, bank.patch_index] == bank.labels
    out["purity"] = float(right.float().mean())
    W, b, _ = learn_classifier(bank, text, None)
    cos, logits = val["scclip"] @ text.T, val["scclip"] @ W + b
    out["text map"] = best(val["labels"], {s: (s * cos).softmax(-1).amax(1) for s in SCALES})
    out["pvcl map"] = best(val["labels"], {T: (logits / T).softmax(-1).amax(1) for T in (5, 10, 20, 40)})
    piaa = {
        (s, m): paa(logits, val["cls"], text, s, m, 20.0)
        for s in (5, 10, 20, 40, 80)
        for m in (5, 10, 20, 50, 100, 200)
    }
    out["piaa"] = best(val["labels"], piaa)
    return rounded(out)


def rounded(x, digits=4):
    if isinstance(x, dict):
        return {str(k): rounded(v, digits) for k, v in x.items()}
    if isinstance(x, (tuple, list)):
        return [rounded(v, digits) for v in x]
    return round(float(x), digits) if isinstance(x, (float, np.floating)) else x
