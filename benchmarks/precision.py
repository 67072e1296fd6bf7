"""What automatic mixed precision changes in mean average precision, and in time (mini world).

Patches read by the text, [CLS], and the whole of PIAA with SC-CLIP. On a CPU this shows what the
rounding does; the gain in time is CUDA's: ``--device cuda``.
"""

from __future__ import annotations

import time

import common
import numpy as np
import torch

from piaa_utils import PIAA, encoded, load_backbone, mean_average_precision, mini_scenes
from piaa_utils.backbone import PRECISIONS
from piaa_utils.worlds import VOC_CLASSES

ENCODERS = ("sclip", "itaclip", "scclip")


def scores_of(piaa: PIAA, world) -> dict[str, np.ndarray]:
    """Scores [n, C] of [CLS], of each encoder's patches (the largest), and of PIAA."""
    _, cls, patches = encoded(piaa.backbone_, world, ENCODERS)
    text = piaa.text_.cpu()
    found = {"cls": cls @ text.T} | {e: (x @ text.T).amax(1) for e, x in patches.items()}
    found["PIAA"] = piaa.score_features(patches[piaa.encoder], cls)
    return {name: scores.numpy() for name, scores in found.items()}


def measure(device: str, precision: str, learn: list, worlds: dict) -> tuple[dict, float]:
    """The mAP in points of each split and score, and the seconds that all of it took."""
    start, found = time.perf_counter(), {}
    piaa = PIAA(VOC_CLASSES, load_backbone(device=device, precision=precision)).fit(learn)
    for split, world in worlds.items():
        for name, scores in scores_of(piaa, world).items():
            found[split, name] = mean_average_precision(world.labels, scores).map
    return found, time.perf_counter() - start


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    learn = list(mini_scenes("learn").paths)[: 100 if options.tiny else None]
    splits = ["val"] if options.tiny else ["val", "test", "test_unseen"]
    worlds = {split: mini_scenes(split) for split in splits}
    (exact, slow), (mixed, fast) = (measure(options.device, p, learn, worlds) for p in PRECISIONS)
    moved = {key: mixed[key] - points for key, points in exact.items()}
    rows = [[*key, f"{points:.2f}", f"{moved[key]:+.3f}"] for key, points in exact.items()]
    text = common.table(["split", "score", "mAP, fp32", "amp moves it by"], rows)
    text += f"\n\nOn {options.device}, amp takes {fast / slow:.2f} of the time of fp32."
    result = {
        "device": options.device,
        "mAP, fp32": {" ".join(key): points for key, points in exact.items()},
        "moved by amp": {" ".join(key): points for key, points in moved.items()},
        "time, amp over fp32": fast / slow,
    }
    common.report("precision", text, result, options)


if __name__ == "__main__":
    main()
