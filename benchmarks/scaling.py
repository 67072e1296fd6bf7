"""Memory against the number of images; time against images and classes (mini-CLIP, CPU)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings
from statistics import median

import common
import numpy as np
import torch

from piaa_utils.backbone import load_backbone
from piaa_utils.datasets import MINI_CLASSES, mini_scenes
from piaa_utils.pipeline import PIAA

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def scenes(count: int) -> list:
    """The mini scenes to learn from, again and again until there are `count`."""
    paths = list(mini_scenes("learn").paths)
    return (paths * (count // len(paths) + 1))[:count]


def names(count: int) -> list[str]:
    """`count` class names, the mini world's first."""
    return [*MINI_CLASSES, *(f"thing {i}" for i in range(count))][:count]


def child(images: int, clock: str) -> None:
    """Fit on so many images in this process; print seconds and peak memory as JSON."""
    piaa = PIAA(backbone=load_backbone(device="cpu"), progress=False)
    paths, now = scenes(images), common.CLOCKS[clock]
    piaa.fit(paths[:8])  # warm up
    start = now()
    piaa.fit(paths)
    seconds = now() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    print(json.dumps({"seconds": seconds, "peak MB": peak / 1e6}))


def by_images(counts: list[int], options) -> dict[int, dict]:
    """Each count in a process of its own, since a peak never falls."""
    found = {}
    for count in counts:
        command = [sys.executable, __file__, f"--child={count}", f"--clock={options.clock}"]
        command += [f"--threads={options.threads}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found[count] = json.loads(done.stdout.splitlines()[-1])
    return found


def by_classes(counts: list[int], images: int, options) -> dict[int, dict]:
    """Seconds of fit and of predict, for so many classes, in turns."""
    backbone, paths = load_backbone(device="cpu"), scenes(images)
    fitted = {}
    for count in counts:  # the text is encoded here, outside of what is timed
        fitted[count] = PIAA(names(count), backbone, progress=False).fit(paths[:8])
    work = {}
    for count, piaa in fitted.items():
        work[f"fit {count}"] = lambda piaa=piaa: piaa.fit(paths)
        work[f"predict {count}"] = lambda piaa=piaa: piaa.predict_proba(paths)
    seconds = common.rounds(work, min(options.repeats, 3), options.clock)
    return {
        count: {step: median(seconds[f"{step} {count}"]) for step in ("fit", "predict")}
        for count in counts
    }


def slope(x: list[int], y: list[float]) -> float:
    """Exponent of y ~ x^slope: 1 is linear, 0 is flat."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--child", type=int, help="fit on so many images; used internally")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", "Stage I selected no patch")  # few images, made-up classes
    if options.child:
        return child(options.child, options.clock)

    images = [16, 32, 64] if options.tiny else [125, 250, 500, 1000]
    classes = [20, 40] if options.tiny else [20, 80, 320]
    start = time.perf_counter()
    memory = by_images(images, options)
    fits = by_classes(classes, images[0], options)
    rows = [
        [n, f"{one['peak MB']:.0f}", f"{one['seconds']:.2f}", f"{1000 * one['seconds'] / n:.1f}"]
        for n, one in memory.items()
    ]
    text = common.table(["images", "peak memory, MB", "fit, s", "ms an image"], rows)
    exponent = slope(images, [one["seconds"] for one in memory.values()])
    growth = memory[images[-1]]["peak MB"] / memory[images[0]]["peak MB"]
    text += f"\n\nFit time grows as images^{exponent:.2f} (1 is linear); "
    text += (
        f"memory by a factor of {growth:.2f} for {images[-1] // images[0]} times the images.\n\n"
    )
    rows = [
        [c, f"{one['fit']:.2f}", f"{1000 * one['predict'] / images[0]:.1f}"]
        for c, one in fits.items()
    ]
    text += common.table(["classes", f"fit of {images[0]} images, s", "predict, ms an image"], rows)
    result = {
        "images": memory,
        "exponent of fit time in images": exponent,
        "growth of memory": growth,
        "classes": fits,
        "images of the class runs": images[0],
        "whole benchmark, seconds": time.perf_counter() - start,
    }
    common.report("scaling", text, result, options.out, options.clock)


if __name__ == "__main__":
    main()
