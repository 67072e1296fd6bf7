"""PVCL's selection and GDA against lists of tuples and a pseudo-inverse (CPU).

The baseline is written from the method's definition with the plainest means: each patch becomes a
tuple in the list of its class, sorted and cut after each image; the covariance is inverted by
``pinv``. Both give the same bank and the same classifier; the script checks that.
"""

from __future__ import annotations

import math
from statistics import median

import common
import torch
import torch.nn.functional as F
from torch import Tensor

from piaa_utils.purification import learn_classifier
from piaa_utils.selection import PatchBank

BATCH = 32  # images at once
PATCHES = 196  # of an image


def world(n_classes: int, width: int, images: int) -> tuple[Tensor, Tensor]:
    """Unit text [C, D], and unit patches [images, N, D] around the classes in turn."""
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(n_classes, width, generator=generator), dim=-1)
    labels = torch.arange(images * PATCHES) % n_classes
    noise = torch.randn(images * PATCHES, width, generator=generator) / width**0.5
    patches = F.normalize(text[labels] + 1.5 * noise, dim=-1)
    return text, patches.unflatten(0, (images, PATCHES))


def select(patches: Tensor, text: Tensor, k: int) -> PatchBank:
    """Stage I, ours, in batches."""
    bank = PatchBank(len(text), k)
    for start in range(0, len(patches), BATCH):
        batch = patches[start : start + BATCH]
        bank.update(batch, text, range(start, start + len(batch)))
    return bank


def select_lists(patches: Tensor, text: Tensor, k: int) -> list[list[tuple]]:
    """Stage I, literally: for each class the k tuples (H, image, patch, x, p) of least entropy."""
    classes: list[list[tuple]] = [[] for _ in text]
    for image, x in enumerate(patches):
        cosines = x @ text.T
        p = torch.softmax(60 * cosines, dim=1)
        h = -(p * p.clamp_min(1e-45).log()).sum(1)
        for i, c in enumerate(cosines.argmax(1).tolist()):
            classes[c].append((h[i].item(), image, i, x[i], p[i]))
        classes = [sorted(rows, key=lambda row: row[:3])[:k] for rows in classes]
    return classes


def learn(bank: PatchBank, text: Tensor) -> tuple[Tensor, Tensor]:
    """Stage I's classifier, ours."""
    W, b, _ = learn_classifier(bank, text, purify=None)
    return W, b


def learn_pinv(classes: list[list[tuple]], text: Tensor) -> tuple[Tensor, Tensor]:
    """Stage I's classifier, literally, in float64 as ours."""
    means, centred = [], []
    for c, rows in enumerate(classes):
        x = torch.stack([row[3] for row in rows]).double()
        p = torch.stack([row[4][c] for row in rows]).double()
        means.append((p[:, None] * x).sum(0) / p.sum())
        centred += [row - means[-1] for row in x]
    mu, z = torch.stack(means), torch.stack(centred)
    sigma = torch.cov(z.T)
    ridge = sigma.trace() * torch.eye(len(sigma), dtype=z.dtype)
    precision = len(sigma) * torch.linalg.pinv((len(z) - 1) * sigma + ridge)
    W = precision @ mu.T
    b = math.log(1 / len(text)) - 0.5 * torch.stack([m @ precision @ m for m in mu])
    return W.float(), b.float()


def main() -> None:
    options = common.options(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(options.threads)
    n_classes, k, width = (8, 32, 64) if options.tiny else (80, 512, 512)
    images = math.ceil(1.25 * n_classes * k / PATCHES)
    text, patches = world(n_classes, width, images)

    bank, classes = select(patches, text, k), select_lists(patches, text, k)
    rows = {(row[1], row[2]) for each in classes for row in each}
    ours = torch.stack([bank.image_id, bank.patch_index], dim=1).tolist()
    agree = sum(tuple(row) in rows for row in ours) / len(rows)
    difference = (learn(bank, text)[0] - learn_pinv(classes, text)[0]).abs().max()
    scale = learn(bank, text)[0].abs().max()
    if agree < 0.99 or difference > 0.01 * scale:  # entropies of float32 tie and swap now and then
        raise SystemExit(f"Not the same: {agree:.1%} of the bank, W differs by {difference:.2g}.")

    work = {
        "selection": lambda: select(patches, text, k),
        "selection, lists of tuples": lambda: select_lists(patches, text, k),
        "GDA": lambda: learn(bank, text),
        "GDA, lists and pinv": lambda: learn_pinv(classes, text),
    }
    seconds = common.rounds(work, options.repeats, options.clock)
    result = {
        "classes": n_classes,
        "patches a class": k,
        "dimensions": width,
        "patches seen": images * PATCHES,
        "bank rows": len(bank),
        "steps": {},
    }
    lines = []
    for ours, theirs in (list(work)[:2], list(work)[2:]):
        entry = {
            "seconds": median(seconds[ours]),
            "baseline seconds": median(seconds[theirs]),
            "speed-up": common.ratio(seconds[theirs], seconds[ours]),
        }
        result["steps"][ours] = entry
        lines.append(
            [ours, *(f"{entry[key]:.3f}" for key in ("seconds", "baseline seconds"))]
            + [f"{entry['speed-up']:.1f}"]
        )
    text = f"{n_classes} classes, K = {k}, D = {width}, {images * PATCHES} patches seen\n\n"
    text += common.table(["", "seconds", "baseline, seconds", "times faster"], lines)
    common.report("pvcl", text, result, options.out, options.clock)


if __name__ == "__main__":
    main()
