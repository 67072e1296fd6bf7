"""Memory against the number of images; time against images and classes (mini-CLIP, CPU)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import warnings
from itertools import permutations
from statistics import median

import common
import numpy as np
import torch

from piaa_utils import PIAA, load_backbone, mini_scenes
from piaa_utils.worlds import VOC_CLASSES

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def scenes(count: int) -> list:
    """The mini scenes to learn from, again and again until there are `count`."""
    paths = list(mini_scenes("learn").paths)
    return (paths * (count // len(paths) + 1))[:count]


def new_piaa(classes: int) -> PIAA:
    """For so many classes, the mini world's first, then made-up ones, such as "cat dog"."""
    names = [*VOC_CLASSES, *map(" ".join, permutations(VOC_CLASSES, 2))][:classes]
    return PIAA(names, load_backbone(device="cpu"), progress=False)


def child(images: int, clock: str) -> None:
    """Fit on so many images in this process; print seconds and peak memory as JSON."""
    piaa, paths = new_piaa(len(VOC_CLASSES)), scenes(images)
    piaa.fit(paths[:8])  # warm up
    seconds = common.rounds({"fit": lambda: piaa.fit(paths)}, 1, clock)["fit"][0]
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
    paths, work = scenes(images), {}
    for count in counts:  # the text is encoded here, outside of what is timed
        piaa = new_piaa(count).fit(paths[:8])
        work[f"fit {count}"] = lambda piaa=piaa: piaa.fit(paths)
        work[f"predict {count}"] = lambda piaa=piaa: piaa.predict_proba(paths)
    seconds = common.rounds(work, min(options.repeats, 3), options.clock)
    steps = ("fit", "predict")
    return {c: {step: median(seconds[f"{step} {c}"]) for step in steps} for c in counts}


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
    memory = by_images(images, options)
    fits = by_classes(classes, images[0], options)
    seconds = [one["seconds"] for one in memory.values()]
    slope = float(np.polyfit(np.log(images), np.log(seconds), 1)[0])
    growth = memory[images[-1]]["peak MB"] / memory[images[0]]["peak MB"]
    rows = [
        [n, f"{one['peak MB']:.0f}", f"{one['seconds']:.2f}", f"{1000 * one['seconds'] / n:.1f}"]
        for n, one in memory.items()
    ]
    text = common.table(["images", "peak memory, MB", "fit, s", "ms an image"], rows)
    text += f"\n\nFit time grows as images^{slope:.2f} (1 is linear); memory by a factor of "
    text += f"{growth:.2f} for {images[-1] // images[0]} times the images.\n\n"
    rows = [
        [c, f"{one['fit']:.2f}", f"{1000 * one['predict'] / images[0]:.1f}"]
        for c, one in fits.items()
    ]
    text += common.table(["classes", f"fit of {images[0]} images, s", "predict, ms an image"], rows)
    result = {"images": memory, "exponent of fit time in images": slope}
    result |= {"growth of memory": growth, "classes": fits, "images of the class runs": images[0]}
    common.report("scaling", text, result, options)


if __name__ == "__main__":
    main()
