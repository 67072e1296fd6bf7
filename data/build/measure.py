"""Measure a CLIP on the mini world, whose every pixel's owner is known.

    python data/build/measure.py data/mini_clip --choose    chooses constants.json, on val pictures
    python data/build/measure.py data/mini_clip             writes figures.json and prints it

Choices look at `val` and `val_unseen` alone. Of each split: [CLS] at s = 80 and at the scale chosen
for it; for each encoder what the text reads of its patches, what a classifier learned without
labels (PVCL) and one learned with the masks' labels (the oracle) read, and PIAA against [CLS]; and
how many of a picture's classes beyond the largest are named.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from piaa_utils.ablation import scales_of
from piaa_utils.aggregation import cls_scores, evidence, paa, posterior
from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.classifier import Recipe, fit_gda
from piaa_utils.encoders import ENCODERS
from piaa_utils.files import write_whole
from piaa_utils.metrics import (
    interval,
    mean_average_precision,
    named_beyond_largest,
    patch_accuracy,
    peak_on_object,
    purity,
    within_picture_auc,
)
from piaa_utils.settings import SELECTION_SCALE, Calibration, Scales
from piaa_utils.walk import encoded
from piaa_utils.worlds import VOC_CLASSES, mini_scenes, patch_truth

SPLITS = {  # measured on: learned from
    "val": "learn",
    "val_unseen": "learn_unseen",
    "test": "learn",
    "test_unseen": "learn_unseen",
}
CHOOSE = ("val", "val_unseen")
PAPER_S, PAPER_M = 80.0, 200.0
BETAS, SHARES, GAINS = (0.4, 0.9), (0.1, 0.3), (3.0, 10.0)  # the paper's and those of a trial
CLS_SCALES = (3.0, 5.0, 7.0, 10.0, 15.0, 20.0)
PATCH_SCALES = (2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0)
TEMPERATURES = (10.0, 20.0, 40.0)
TEXT_SCALES = (10.0, 15.0, 20.0, 30.0, 60.0)


class Part(NamedTuple):
    """A split as a CLIP sees it, and what is really in it."""

    cls: Tensor  # [n, D]
    patches: dict[str, Tensor]  # encoder: [n, N, D]
    labels: np.ndarray  # [n, C]
    truth: np.ndarray  # [n, N] class of each patch, below 0 none
    areas: np.ndarray  # [n, C] pixels


def look(backbone: Backbone, split: str, encoders=ENCODERS, calibration=None, limit=None) -> Part:
    """Encode a split and read its masks."""
    world = mini_scenes(split)
    n = min(len(world), limit or len(world))
    seen = encoded(backbone, world.paths[:n], encoders, calibration=calibration, progress=False)
    masks = [world.mask(i) for i in range(n)]
    areas = np.stack([np.bincount(m[m >= 0], minlength=len(VOC_CLASSES)) for m in masks])
    truth = patch_truth(world, backbone.grid, backbone.image_size)[:n]
    return Part(seen.cls, seen.patches, world.labels[:n], truth, areas)


def mean_ap(labels: np.ndarray, scores: Tensor) -> float:
    return mean_average_precision(labels, scores.numpy()).map


def learn(part: Part, encoder: str, text: Tensor, k: int = 512):
    """The bank of an encoder's patches, what PVCL and what the oracle learn from them."""
    recipe = Recipe(k=k)
    bank = recipe.bank(len(text))
    for i, x in enumerate(part.patches[encoder].split(64)):
        bank.update(x, text, range(64 * i, 64 * i + len(x)))
    W, b, _ = recipe.learn(bank, text)
    on = part.truth >= 0
    rows, labels = part.patches[encoder][torch.from_numpy(on)], torch.from_numpy(part.truth[on])
    gda = fit_gda(rows, labels, torch.ones(len(rows)), text)
    oracle = torch.tensor(gda.coef_.T).float(), torch.tensor(gda.intercept_).float()
    return bank, (W, b), oracle


def watch(backbone: Backbone, split: str) -> dict:
    """A quick look while training: one third of the pictures to learn from, K = 170."""
    trial, seen = Calibration(0.9, 0.1, 10.0), ("vanilla", "sclip", "scclip")
    text = backbone.encode_text(VOC_CLASSES)
    part = look(backbone, split, seen, trial)
    cls = {s: mean_ap(part.labels, cls_scores(part.cls, text, s)) for s in CLS_SCALES}
    out: dict = {"cls": max(cls.values())}
    for name in seen:
        cosines = (part.patches[name] @ text.T).numpy()
        measures = (patch_accuracy, within_picture_auc, peak_on_object)  # peak of the cosine
        out[name] = [measure(cosines, part.truth) for measure in measures]
    more = look(backbone, SPLITS[split], ("scclip",), trial, limit=400)
    bank, (W, b), _ = learn(more, "scclip", text, k=170)
    x = part.patches["scclip"]
    out["purity"] = purity(bank, more.truth)[0]
    out["text"] = text_map(part, "scclip", text)
    out["pvcl"] = mean_ap(part.labels, evidence(posterior(x @ W + b, 20.0)))
    piaa = [
        mean_ap(part.labels, paa(x @ W + b, part.cls, text, Scales(s, m, 20.0)))
        for s, m in itertools.product((10.0, 20.0, 40.0, 80.0), (10.0, 20.0, 50.0, 100.0))
    ]
    out["piaa"] = max(piaa)
    return rounded(out)


def choose(backbone: Backbone) -> dict:
    """The model's constants, each chosen on `val` and `val_unseen` as `how` says."""
    text = backbone.encode_text(VOC_CLASSES)
    grid: dict[Calibration, float] = {}
    for calibration in map(
        Calibration, *zip(*itertools.product(BETAS, SHARES, GAINS), strict=True)
    ):
        parts = [look(backbone, split, ("scclip",), calibration) for split in CHOOSE]
        grid[calibration] = float(np.mean([text_map(part, "scclip", text) for part in parts]))
    backbone.calibration = max(grid, key=grid.__getitem__)
    vals = {split: look(backbone, split, ("scclip",)) for split in CHOOSE}
    cls = {
        s: np.mean([mean_ap(p.labels, cls_scores(p.cls, text, s)) for p in vals.values()])
        for s in CLS_SCALES
    }
    words = {
        s: np.mean([text_map(part, "scclip", text, s) for part in vals.values()])
        for s in TEXT_SCALES
    }
    alone = max(cls, key=cls.__getitem__)
    gains: dict[str, dict[Scales, list[float]]] = {n: {} for n in ("scclip", "sclip", "itaclip")}
    at_80: dict[float, list[float]] = {T: [] for T in TEMPERATURES}
    for split in CHOOSE:
        part, source = (look(backbone, name, gains) for name in (split, SPLITS[split]))
        by_cls = mean_ap(part.labels, cls_scores(part.cls, text, alone))
        for name, found in gains.items():
            _, (W, b), _ = learn(source, name, text)
            logits = part.patches[name] @ W + b
            for scales in itertools.starmap(
                Scales, itertools.product(CLS_SCALES, PATCH_SCALES, TEMPERATURES)
            ):
                gain = mean_ap(part.labels, paa(logits, part.cls, text, scales)) - by_cls
                found.setdefault(scales, []).append(gain)
            for T in TEMPERATURES if name == "scclip" else ():
                papers = Scales(PAPER_S, PAPER_M, T)
                at_80[T].append(mean_ap(part.labels, paa(logits, part.cls, text, papers)))
    # T first, so that the paper's s and m fit; s and m then, for each encoder: neither style is to
    # pay for the other
    T = max(at_80, key=lambda T: sum(at_80[T]))
    best = {
        name: max((x for x in found if x.T == T), key=lambda x: min(found[x]))
        for name, found in gains.items()
    }
    numbers = {name: {"s": x.s, "m": x.m, "T": x.T} for name, x in best.items()}
    return {
        "scclip": backbone.calibration._asdict(),
        "scales": numbers.pop("scclip"),
        "scales_of": numbers,
        "cls_alone": alone,
        "text": max(words, key=words.__getitem__),
        "how": {
            "where": "the mean over `val` and `val_unseen`, by data/build/measure.py --choose",
            "scclip": "mAP of the surest patch, read by the text",
            "scales": "T: mAP of PIAA with SC-CLIP at s = 80, m = 200; then s and m: the smaller "
            "of the gains over [CLS] on the two, at its largest",
            "cls_alone": "mAP of [CLS]",
            "text": "the scale of cosines: mAP of the surest patch, read by the text",
        },
    }


def by_text(x: Tensor, text: Tensor, scale: float) -> Tensor:
    """Scores [n, C] of the surest patch: the largest over patches of the text's softmax."""
    return evidence((scale * x @ text.T).softmax(-1))


def text_map(part: Part, encoder: str, text: Tensor, scale: float = 20.0) -> float:
    return mean_ap(part.labels, by_text(part.patches[encoder], text, scale))


def figures(backbone: Backbone, split: str) -> dict:
    """All that the model card and the issue's table name, of one split."""
    text, scales = backbone.encode_text(VOC_CLASSES), backbone.scales
    part, source = look(backbone, split), look(backbone, SPLITS[split])
    alone = cls_scores(part.cls, text, backbone.constants["cls_alone"])
    at_80 = cls_scores(part.cls, text, PAPER_S)
    out: dict = {
        "cls": {"best": mean_ap(part.labels, alone), "s80": mean_ap(part.labels, at_80)},
        "encoders": {},
    }
    for name in ENCODERS:
        x = part.patches[name]
        bank, (W, b), (W_oracle, b_oracle) = learn(source, name, text)
        logits, cosines = x @ W + b, (x @ text.T).numpy()
        own_scales = scales_of(backbone, name)
        piaa = paa(logits, part.cls, text, own_scales)
        gain = interval(part.labels, piaa.numpy(), alone.numpy())
        paper = paa(logits, part.cls, text, scales._replace(s=PAPER_S, m=PAPER_M))
        out["encoders"][name] = {
            "accuracy": patch_accuracy(cosines, part.truth),
            "auc": within_picture_auc(cosines, part.truth),
            "peak": peak_on_object((SELECTION_SCALE * x @ text.T).softmax(-1).numpy(), part.truth),
            "map": text_map(part, name, text, backbone.constants["text"]),
            "purity": purity(bank, source.truth)[0],
            "pvcl_accuracy": patch_accuracy(logits.numpy(), part.truth),
            "pvcl": mean_ap(part.labels, evidence(posterior(logits, scales.T))),
            "oracle_accuracy": patch_accuracy((x @ W_oracle + b_oracle).numpy(), part.truth),
            "oracle": mean_ap(part.labels, evidence(posterior(x @ W_oracle + b_oracle, scales.T))),
            "piaa": mean_ap(part.labels, piaa),
            "gain": gain.point,
            "low": gain.low,
            "high": gain.high,
            "gain_s80": mean_ap(part.labels, paper) - out["cls"]["s80"],
        }
        if name == "scclip":
            share, base = purity(bank, source.truth)
            out["bank"] = {"purity": share, "base": base}
            words = by_text(x, text, backbone.constants["text"])
            named = {"cls": alone, "text": words, "piaa": piaa}
            out["named_beyond_largest"] = {
                who: named_beyond_largest(scores.numpy(), part.areas)
                for who, scores in named.items()
            }
            own = out["encoders"][name]
            out["piaa"] = {"map": own["piaa"], **{k: own[k] for k in ("gain", "low", "high")}}
    return rounded(out)


def rounded(x, digits: int = 4):
    if isinstance(x, dict):
        return {key: rounded(value, digits) for key, value in x.items()}
    if isinstance(x, list):
        return [rounded(value, digits) for value in x]
    return round(float(x), digits)


def table(all_figures: dict) -> str:
    """figures.json as text: a block for each split."""
    lines = []
    for split, f in all_figures.items():
        named = f["named_beyond_largest"]
        lines += [
            f"{split}: [CLS] {f['cls']['best']:.1f} ({f['cls']['s80']:.1f} at s = 80), PIAA "
            f"{f['piaa']['map']:.1f}, {f['piaa']['gain']:+.1f} "
            f"[{f['piaa']['low']:+.1f}, {f['piaa']['high']:+.1f}]; bank's purity "
            f"{f['bank']['purity']:.2f} (base rate {f['bank']['base']:.2f}); beyond the largest "
            "named: " + ", ".join(f"{who} {share:.2f}" for who, share in named.items()),
            f"  {'':10s}" + "".join(f"{key:>16s}" for key in f["encoders"]["scclip"]),
        ]
        for name, own in f["encoders"].items():
            lines.append(f"  {name:10s}" + "".join(f"{value:16.2f}" for value in own.values()))
    return "\n".join(lines)


def save(path: Path, content: dict) -> None:
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of an exported model")
    parser.add_argument("--choose", action="store_true", help="choose constants.json anew")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=list(SPLITS))
    options = parser.parse_args()
    backbone = load_backbone(options.model, device="cpu")
    with torch.inference_mode():
        if options.choose:
            chosen = choose(backbone)
            save(options.model / "constants.json", chosen)
            print(json.dumps(chosen, indent=1))
        else:
            found = {split: figures(backbone, split) for split in options.splits}
            save(options.model / "figures.json", found)
            print(table(found))
