"""What automatic mixed precision changes in mean average precision, and in time (mini world).

Patches read by the text, [CLS], and the whole of PIAA with SC-CLIP. On a CPU this shows what the
rounding does; the gain in time is CUDA's: ``--device cuda``.
"""

from __future__ import annotations

import time

import common
import numpy as np
import torch

from piaa_utils.backbone import PRECISIONS, load_backbone
from piaa_utils.datasets import MINI_CLASSES, mini_scenes
from piaa_utils.encoders import encode
from piaa_utils.images import batches
from piaa_utils.metrics import mean_average_precision
from piaa_utils.pipeline import PIAA

ENCODERS = ("sclip", "itaclip", "scclip")


def read_by_text(backbone, dataset) -> dict[str, np.ndarray]:
    """Scores [images, classes] of [CLS], and of each encoder: the largest over the patches."""
    text, scores = backbone.encode_text(MINI_CLASSES), {}
    for _, pixels in batches(dataset, backbone.preprocess, 32):
        for name, x in encode(backbone, pixels, ENCODERS).items():
            logits = x @ text.T
            scores.setdefault(name, []).append(logits if name == "cls" else logits.amax(1))
    return {name: torch.cat(parts).cpu().numpy() for name, parts in scores.items()}


def measure(device: str, precision: str, learn: list, splits: dict) -> tuple[dict, float]:
    """The mAP in points of each split and score, and the seconds that all of it took."""
    start, found = time.perf_counter(), {}
    backbone = load_backbone(device=device, precision=precision)
    piaa = PIAA(MINI_CLASSES, backbone).fit(learn)
    for split, dataset in splits.items():
        scores = read_by_text(backbone, dataset) | {"PIAA": piaa.predict_proba(dataset)}
        for name, score in scores.items():
            found[split, name] = 100 * mean_average_precision(dataset.labels, score).map
    return found, time.perf_counter() - start


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    learn = list(mini_scenes("learn").paths)[: 100 if options.tiny else None]
    names = ["val"] if options.tiny else ["val", "test", "test_unseen"]
    splits = {name: mini_scenes(name) for name in names}
    (exact, slow), (mixed, fast) = (measure(options.device, p, learn, splits) for p in PRECISIONS)
    moved = {key: mixed[key] - points for key, points in exact.items()}
    rows = [
        [split, len(splits[split].paths), name, f"{points:.2f}", f"{moved[split, name]:+.3f}"]
        for (split, name), points in exact.items()
    ]
    text = common.table(["split", "images", "score", "mAP, fp32", "amp moves it by"], rows)
    text += f"\n\nOn {options.device}, amp takes {fast / slow:.2f} of the time of fp32."
    result = {
        "device": options.device,
        "mAP, fp32": {" ".join(key): points for key, points in exact.items()},
        "moved by amp": {" ".join(key): points for key, points in moved.items()},
        "time, amp over fp32": fast / slow,
    }
    common.report("precision", text, result, options.out)


if __name__ == "__main__":
    main()
