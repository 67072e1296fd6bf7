"""PVCL's selection and GDA against lists of tuples and a pseudo-inverse (CPU).

Two baselines, both written from the method's definition. The literal one goes tuple by tuple: each
patch becomes a tuple in the list of its class, sorted and cut after each image; means and the
covariance are sums over the tuples; ``pinv`` inverts. The stacked one keeps lists and ``pinv``, and
does the arithmetic of an image, and of a class, at once. All give the same bank and the same
classifier; the script checks that.
"""

from __future__ import annotations

import math
from statistics import median

import common
import torch
import torch.nn.functional as F
from torch import Tensor

from piaa_utils.classifier import Recipe
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


def select_literal(patches: Tensor, text: Tensor, k: int) -> list[list[tuple]]:
    """Stage I, literally: for each class the k tuples (H, image, patch, x, p) of least entropy."""
    classes: list[list[tuple]] = [[] for _ in text]
    for image, rows in enumerate(patches):
        for i, x in enumerate(rows):
            p = torch.softmax(60 * (text @ x), dim=0)
            h = -(p * p.clamp_min(1e-45).log()).sum()
            classes[p.argmax()].append((h.item(), image, i, x, p))
        classes = [sorted(rows, key=lambda row: row[:3])[:k] for rows in classes]
    return classes


def select_stacked(patches: Tensor, text: Tensor, k: int) -> list[list[tuple]]:
    """The same, with the arithmetic of an image at once."""
    classes: list[list[tuple]] = [[] for _ in text]
    for image, x in enumerate(patches):
        p = torch.softmax(60 * x @ text.T, dim=1)
        h = (-(p * p.clamp_min(1e-45).log()).sum(1)).tolist()
        for i, c in enumerate(p.argmax(1).tolist()):
            classes[c].append((h[i], image, i, x[i], p[i]))
        classes = [sorted(rows, key=lambda row: row[:3])[:k] for rows in classes]
    return classes


def learn(bank: PatchBank, text: Tensor) -> tuple[Tensor, Tensor]:
    """Stage I's classifier, ours."""
    return Recipe().learn(bank, text)[:2]


def learn_literal(classes: list[list[tuple]], text: Tensor) -> tuple[Tensor, Tensor]:
    """Stage I's classifier, literally, in float64 as ours: sums over tuples, and pinv."""
    means, z = [], []
    for c, rows in enumerate(classes):
        mean = sum(p[c].double() * x.double() for *_, x, p in rows)
        means.append(mean / sum(p[c].double() for *_, p in rows))
        z += [x.double() - means[-1] for *_, x, _ in rows]
    centre = sum(z) / len(z)
    sigma = sum(torch.outer(row - centre, row - centre) for row in z) / (len(z) - 1)
    return weights(torch.stack(means), sigma, len(z))


def learn_stacked(classes: list[list[tuple]], text: Tensor) -> tuple[Tensor, Tensor]:
    """The same, with the arithmetic of a class at once."""
    means, centred = [], []
    for c, rows in enumerate(classes):
        x = torch.stack([row[3] for row in rows]).double()
        p = torch.stack([row[4][c] for row in rows]).double()
        means.append((p[:, None] * x).sum(0) / p.sum())
        centred.append(x - means[-1])
    z = torch.cat(centred)
    return weights(torch.stack(means), torch.cov(z.T), len(z))


def weights(mu: Tensor, sigma: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """W and b of the class means [C, D] and the covariance [D, D] of n rows."""
    width = len(sigma)
    ridge = sigma.trace() * torch.eye(width, dtype=sigma.dtype)
    precision = width * torch.linalg.pinv((n - 1) * sigma + ridge)
    W = precision @ mu.T
    b = math.log(1 / len(mu)) - 0.5 * torch.stack([m @ precision @ m for m in mu])
    return W.float(), b.float()


def main() -> None:
    parser = common.options(__doc__.splitlines()[0])
    parser.set_defaults(repeats=3)  # the literal version takes its time
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n_classes, k, width = (8, 32, 64) if options.tiny else (80, 512, 512)
    images = math.ceil(1.25 * n_classes * k / PATCHES)
    text, patches = world(n_classes, width, images)
    bank, classes = select(patches, text, k), select_stacked(patches, text, k)
    check(bank, classes, text)
    check(bank, select_literal(patches, text, k), text)

    work = {
        "selection": lambda: select(patches, text, k),
        "selection, literal": lambda: select_literal(patches, text, k),
        "selection, stacked": lambda: select_stacked(patches, text, k),
        "GDA": lambda: learn(bank, text),
        "GDA, literal": lambda: learn_literal(classes, text),
        "GDA, stacked": lambda: learn_stacked(classes, text),
    }
    seconds = common.rounds(work, options.repeats, options.clock)
    sizes = {"classes": n_classes, "patches a class": k, "dimensions": width}
    result, lines = {**sizes, "patches seen": images * PATCHES, "steps": {}}, []
    for step in ("selection", "GDA"):
        entry = {"seconds": median(seconds[step])}
        for baseline in ("literal", "stacked"):
            theirs = seconds[f"{step}, {baseline}"]
            entry[f"{baseline} seconds"] = median(theirs)
            entry[f"speed-up on {baseline}"] = common.ratio(theirs, seconds[step])
        result["steps"][step] = entry
        lines.append([step, *(f"{x:.2f}" for x in entry.values())])
    text = f"{n_classes} classes, K = {k}, D = {width}, {images * PATCHES} patches seen\n\n"
    header = ["", "seconds", "literal", "times faster", "stacked", "times faster"]
    common.report("pvcl", text + common.table(header, lines), result, options)


def check(bank: PatchBank, classes: list[list[tuple]], text: Tensor) -> None:
    """End the script if the lists give another bank, or one of their classifiers another W."""
    rows = {(row[1], row[2]) for each in classes for row in each}
    ours = torch.stack([bank.image_id, bank.patch_index], dim=1).tolist()
    agree = sum(tuple(row) in rows for row in ours) / len(rows)
    W, _ = learn(bank, text)
    for baseline in (learn_literal, learn_stacked):
        difference = (W - baseline(classes, text)[0]).abs().max() / W.abs().max()
        if agree < 0.99 or difference > 0.01:  # entropies of float32 tie and swap now and then
            raise SystemExit(
                f"Not the same: {agree:.1%} of the bank, W differs by {difference:.2g}."
            )


if __name__ == "__main__":
    main()
