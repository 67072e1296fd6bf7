"""Notebook 09, scaling out: checks of its exercises, its explorer, its longer figures."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.patches import FancyArrowPatch
from torch import Tensor

from piaa_utils.lessons.checks import CheckFailed, check_choice, check_function
from piaa_utils.plots import PALETTE, Figure, subplots
from piaa_utils.scaling import Shard
from piaa_utils.selection import PatchBank

COLUMNS = ("labels", "entropy", "image_id", "patch_index", "features", "probs")  # of a bank
SHARD = 2048  # images, on paper
MERGE_SECONDS = 0.1  # on paper, where nothing else is said


def columns(bank: PatchBank) -> list[Tensor]:
    """All that a bank holds, as tensors whose rows have one order."""
    return [getattr(bank, name) for name in COLUMNS]


def same_bits(a: PatchBank, b: PatchBank) -> bool:
    """Whether two banks agree in every bit."""
    return all(torch.equal(x, y) for x, y in zip(columns(a), columns(b), strict=True))


def bank_bytes(bank: PatchBank) -> int:
    """What a bank takes in memory, and on the way from a worker."""
    return sum(x.numel() * x.element_size() for x in columns(bank))


def merged_at_random(banks: Sequence[PatchBank], seed: int) -> PatchBank:
    """The banks in a random order, merged along a random tree."""
    rng = random.Random(seed)
    banks = rng.sample(list(banks), len(banks))
    while len(banks) > 1:
        i = rng.randrange(len(banks) - 1)
        banks[i : i + 2] = [banks[i].merge(banks[i + 1])]
    return banks[0]


def full_bank(n_classes: int, k: int, width: int, first_id: int = 0) -> PatchBank:
    """A full bank of random patches, K of each class, each of an image of its own.

    Parameters
    ----------
    n_classes, k, width : C, K and D, with C no larger than D.
    first_id : number of its first image.
    """
    generator = torch.Generator().manual_seed(first_id)
    text = torch.eye(n_classes, width)
    noise = torch.randn(k * n_classes, 1, width, generator=generator) / width
    patches = F.normalize(text.repeat(k, 1)[:, None] + noise, dim=-1)
    bank = PatchBank(n_classes, k, per_image=1)
    bank.update(patches, text, range(first_id, first_id + len(patches)))
    return bank


def merge_seconds(n_classes: int, k: int, width: int, rounds: int = 3) -> float:
    """The shortest time in which two full banks were merged here.

    Parameters
    ----------
    n_classes, k, width : of the banks, as in :func:`full_bank`.
    rounds : how often it is tried.
    """
    a, b = (full_bank(n_classes, k, width, first) for first in (0, n_classes * k))
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        a.merge(b)
        spent.append(time.perf_counter() - start)
    return min(spent)


# On paper


class Plan(NamedTuple):
    """What a collection would take.

    hours : from start to end; worker_hours : of all workers together, without waiting.
    shards, rounds : how many, and how often merging halves the number of banks.
    bank_bytes : of one full bank. patch_bytes : of the features of all patches, if they were kept.
    """

    hours: float
    worker_hours: float
    shards: int
    rounds: int
    bank_bytes: int
    patch_bytes: int


def plan(
    images: float,
    workers: int,
    seconds_per_image: float,
    merge_seconds: float = MERGE_SECONDS,
    n_classes: int = 20,
    k: int = 512,
    width: int = 128,
    patches: int = 196,
    shard: int = SHARD,
) -> Plan:
    """Learning from a collection, computed: every worker takes shard after shard, then merging.

    Parameters
    ----------
    images, workers : how many.
    seconds_per_image : of one worker.
    merge_seconds : of two banks.
    n_classes, k, width, patches : C, K, D and N.
    shard : images a shard.

    Raises
    ------
    ValueError
        If there is less than one image or worker.

    Examples
    --------
    >>> plan(36_000, workers=10, seconds_per_image=0.1, shard=360, merge_seconds=0).hours
    0.1
    """
    if images < 1 or workers < 1:
        raise ValueError(f"At least one image and one worker: got {images} and {workers}.")
    n = math.ceil(images / shard)
    rounds = math.ceil(math.log2(n))
    waves = math.ceil(n / workers)
    seconds = min(waves * shard, images) * seconds_per_image + rounds * merge_seconds
    work = images * seconds_per_image + (n - 1) * merge_seconds
    row = 4 * (width + n_classes) + 4 + 3 * 8  # float32 features, p and entropy; three integers
    features = int(images) * patches * width * 4
    return Plan(seconds / 3600, work / 3600, n, rounds, n_classes * k * row, features)


def in_words(hours: float) -> str:
    """A duration with a unit that suits it.

    Examples
    --------
    >>> in_words(0.5), in_words(5), in_words(240), in_words(87660)
    ('30 minutes', '5.0 hours', '10 days', '10 years')
    """
    if hours < 1:
        return f"{60 * hours:.0f} minutes"
    if hours < 48:
        return f"{hours:.1f} hours"
    days = hours / 24
    return f"{days:.0f} days" if days < 1000 else f"{days / 365.25:.0f} years"


def size(n: float) -> str:
    """A number of bytes with a unit that suits it.

    Examples
    --------
    >>> size(6_400_000), size(1.1e12)
    ('6.4 MB', '1.1 TB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


# Figures


def flow_figure(n: int = 4) -> Figure:
    """Map and reduce: n shards become banks, the banks are merged two by two, then one GDA.

    Parameters
    ----------
    n : shards, a power of two.
    """
    figure, ax = subplots(size=(15, 1.15 * n + 1.6))
    ax.axis("off")
    heights = [float(n - 1 - i) for i in range(n)]
    for i, y in enumerate(heights):
        _box(ax, 0, y, f"shard {i}\npaths", "0.93")
        _box(ax, 1.15, y, "bank", "#cfe6f5")
        _arrow(ax, 0, y, 1.15, y)
    x = 1.15
    while len(heights) > 1:
        upper = [(a + b) / 2 for a, b in zip(heights[::2], heights[1::2], strict=True)]
        for i, y in enumerate(upper):
            for below in heights[2 * i : 2 * i + 2]:
                _arrow(ax, x, below, x + 1, y)
            _box(ax, x + 1, y, "bank", "#cfe6f5")
        heights, x = upper, x + 1
    _box(ax, x + 1.15, heights[0], "W, b", "#fbe3c8")
    _arrow(ax, x, heights[0], x + 1.15, heights[0])
    top = n - 0.35
    words = {0.58: "map: select", (1.15 + x) / 2: "reduce: merge", x + 0.6: "GDA"}
    for where, text in words.items():
        ax.text(where, top, text, ha="center", fontsize=18, fontweight="bold", color=PALETTE[0])
    ax.set(xlim=(-0.5, x + 1.7), ylim=(-0.6, n))
    rounds = int(math.log2(n))
    figure.alt_text = (
        f"A diagram from left to right. {n} shards of the list of images each become a bank (map: "
        f"select). The banks are merged two by two in {rounds} rounds until one is left (reduce: "
        f"merge). From it the GDA makes W and b."
    )
    return figure


def _box(ax, x: float, y: float, text: str, color: str) -> None:
    look = {"boxstyle": "round,pad=0.45", "facecolor": color, "edgecolor": "0.3"}
    ax.text(x, y, text, ha="center", va="center", fontsize=16, bbox=look, zorder=3)


def _arrow(ax, x0: float, y0: float, x1: float, y1: float) -> None:
    look = {"arrowstyle": "-|>", "mutation_scale": 20, "color": "0.35", "linewidth": 1.8}
    begin = 38 if x0 == 0 else 28  # points: half a box
    ax.add_patch(FancyArrowPatch((x0, y0), (x1, y1), shrinkA=begin, shrinkB=30, **look))


def timeline_figure(
    log: Sequence[Shard], killed: tuple[int, float] | None = None, began: float | None = None
) -> Figure:
    """Who computed which shard when: a row for each process, a bar for each shard.

    Parameters
    ----------
    log : what the shards of one run cost.
    killed : process and time (seconds since 1970) of a worker that was killed.
    began : when the run began; None takes the first shard that counted.
    """
    first = {s.pid: s.started for s in sorted(log, key=lambda s: -s.started)}
    if killed is not None:  # all its banks may be lost; it stands before who came in its place
        first.setdefault(*killed)
    pids = sorted(first, key=first.get)
    begin = min(s.started for s in log) if began is None else began
    figure, ax = subplots(size=(14, 0.95 * len(pids) + 2.2))
    for s in log:
        y = pids.index(s.pid)
        look = {"color": PALETTE[y % len(PALETTE)], "alpha": 0.55, "edgecolor": "0.2"}
        ax.barh(y, s.seconds, left=s.started - begin, height=0.6, **look)
        middle = s.started - begin + s.seconds / 2
        ax.text(middle, y, f"{s.first}+", ha="center", va="center", fontsize=13)
    said = "; ".join(f"process {p}: {sum(s.pid == p for s in log)} shards" for p in pids)
    if killed is not None:
        y, at = pids.index(killed[0]), killed[1] - begin
        ax.plot([at, at], [y - 0.45, y + 0.45], color="black", linewidth=4)
        ax.text(at, y, " killed", ha="left", va="center", fontsize=15, fontweight="bold")
        said += f"; process {killed[0]} was killed after {at:.1f} seconds"
    ax.set_yticks(range(len(pids)), [f"process {p}" for p in pids], fontsize=15)
    ax.set_ylim(len(pids) - 0.4, -0.6)
    ax.set_xlim(0, None)
    ax.set_xlabel("seconds")
    figure.alt_text = f"Bars over time, one for each shard whose bank counted. {said}."
    return figure


def seen_by_process(logs: Sequence[Sequence[Shard]]) -> dict[int, tuple[list[int], list[int]]]:
    """{process: (images seen so far, peak memory in bytes)} after each shard of several runs."""
    out: dict[int, tuple[list[int], list[int]]] = {}
    for s in sorted((s for log in logs for s in log), key=lambda s: s.started):
        seen, memory = out.setdefault(s.pid, ([], []))
        seen.append((seen[-1] if seen else 0) + s.images)
        memory.append(s.memory)
    return out


def memory_figure(seen: dict[int, tuple[list[int], list[int]]], pixels: float) -> Figure:
    """By how much the peak memory of each worker grew after its first shard, and if it kept images.

    Parameters
    ----------
    seen : from :func:`seen_by_process`.
    pixels : bytes of one image.
    """
    figure, ax = subplots(size=(12, 6.5))
    most, said = max(n[-1] - n[0] for n, _ in seen.values()), []
    for i, (pid, (images, memory)) in enumerate(seen.items()):
        line = {"marker": "o", "color": PALETTE[i % len(PALETTE)], "label": f"process {pid}"}
        more = [n - images[0] for n in images], [(m - memory[0]) / 1e6 for m in memory]
        ax.plot(*more, linewidth=2.5, **line)
        said.append(f"process {pid}: {memory[0] / 1e6:.0f} MB, then {memory[-1] / 1e6:.0f} MB")
    kept = [0, most * pixels / 1e6]
    ax.plot([0, most], kept, "--", color="0.35", linewidth=2.5, label="if it kept the pixels")
    ax.set(xlabel="images seen after the first shard", ylabel="growth of the peak memory (MB)")
    ax.grid(color="0.9")
    ax.legend(frameon=False, fontsize=14, loc="upper left")
    figure.alt_text = (
        f"Growth of the peak memory of the workers over the images they have seen. "
        f"{'; '.join(said)}. A rising line shows what keeping all pixels would take."
    )
    return figure


def explore(
    workers: int,
    million_images: float,
    seconds_per_image: float,
    merge_seconds: float = MERGE_SECONDS,
    n_classes: int = 20,
    width: int = 128,
    patches: int = 196,
) -> Figure:
    """The explorer: how long learning would take, over the number of workers.

    Parameters
    ----------
    workers : the number to mark.
    million_images : how many millions.
    seconds_per_image : of one worker.
    merge_seconds, n_classes, width, patches : as for :func:`plan`.

    Raises
    ------
    ValueError
        As :func:`plan`.
    """
    more = {"n_classes": n_classes, "width": width, "patches": patches}
    images = 1e6 * million_images

    def of(n: int) -> Plan:
        return plan(images, n, seconds_per_image, merge_seconds, **more)

    chosen, counts = of(workers), sorted({round(10 ** (i / 60)) for i in range(260)})
    figure, ax = subplots(size=(13, 7))
    ax.plot(counts, [of(n).hours for n in counts], color=PALETTE[0], linewidth=3)
    ax.plot(workers, chosen.hours, "o", color=PALETTE[1], markersize=15)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(xlabel="workers", ylabel="hours")
    ax.grid(color="0.9")
    ax.axvline(chosen.shards, color="0.4", linestyle=":", linewidth=2.5)
    ax.text(chosen.shards, 1, " one shard each ", transform=ax.get_xaxis_transform(), va="top",
            ha="right" if chosen.shards > 200 else "left", fontsize=14, color="0.3")  # fmt: skip
    took = in_words(chosen.hours)
    ax.set_title(f"{million_images:g} million images, {workers} workers: {took}")
    facts = (
        f"{in_words(chosen.worker_hours)} of work by all workers\n"
        f"{chosen.shards} shards of {SHARD}, {chosen.rounds} rounds of merging\n"
        f"one bank: {size(chosen.bank_bytes)}\n"
        f"all patches, if kept: {size(chosen.patch_bytes)}"
    )
    ax.text(0.03, 0.05, facts, transform=ax.transAxes, fontsize=15, va="bottom")
    figure.alt_text = (
        f"Hours over workers, both on log scales, for {million_images:g} million images at "
        f"{seconds_per_image:g} seconds each. Marked: {workers} workers, {took}. "
        + facts.replace("\n", "; ")
        + "."
    )
    return figure


# Exercises


def exercise_1(answer: Callable) -> None:
    """Check ``answer(a, b, k)``: the k first of two sorted lists of (entropy, image, patch).

    Raises
    ------
    CheckFailed
        With the smallest input that differs.
    """
    rng = random.Random(0)

    def rows(images: range) -> list[tuple[float, int, int]]:
        return sorted((rng.randrange(8) / 8, i, rng.randrange(4)) for i in images)

    cases = [
        ([(0.1, 0, 3)], [(0.2, 1, 0)], 2),
        ([(0.3, 0, 3)], [(0.2, 1, 0)], 1),
        ([(0.5, 2, 0)], [(0.5, 1, 7)], 1),
        (rows(range(4)), rows(range(4, 9)), 5),
        (rows(range(0, 12, 2)), rows(range(1, 13, 2)), 6),
        ([], rows(range(3)), 2),
    ]

    def listed(a, b, k):
        result = answer(a, b, k)
        return None if result is None else list(result)

    check = listed if callable(answer) else answer
    check_function(check, lambda a, b, k: sorted(a + b)[:k], cases, "Exercise 1")


def exercise_2(answer: object) -> None:
    """Check the choice: what cannot be merged exactly from the shards' values."""
    wrong = {
        "a": "The largest of two maxima is the maximum of both shards.",
        "b": "(n₁m₁ + n₂m₂)/(n₁ + n₂) is the mean of both, as far as sums are exact.",
        "d": "The ten smallest of twenty: whoever is among the ten of all is among those of its "
        "shard.",
    }
    why = (
        "Medians of 2 and 4 do not tell that of all: it is 3.5 for (1, 2, 9) and (3, 4, 5), and 3 "
        "for (1, 2, 3) and (3, 4, 5)."
    )
    check_choice(answer, "c", wrong, "Exercise 2", why)


def exercise_3(answer: Callable) -> None:
    """Check ``answer(images, workers, shard, image_seconds, merge_seconds)``: hours.

    Raises
    ------
    CheckFailed
        With the smallest input that differs.
    """

    def hours(images, workers, shard, image_seconds, merge_seconds):
        more = {"merge_seconds": merge_seconds, "shard": shard}
        return plan(images, workers, image_seconds, **more).hours

    cases = [
        (1024, 1, 1024, 1.0, 0.0),
        (4096, 4, 1024, 0.9, 3600.0),
        (5 * 1024, 4, 1024, 3.6, 36.0),
        (9 * 512, 100, 512, 7.2, 72.0),
    ]
    if not callable(answer):
        raise CheckFailed("Exercise 3: a function is wanted.")
    check_function(answer, hours, cases, "Exercise 3")
