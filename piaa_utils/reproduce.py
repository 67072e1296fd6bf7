"""``python -m piaa_utils reproduce``: the paper's table, measured.

One pass over the pictures to learn from fills a bank for each encoder; one over the test pictures
scores them. The same command goes on from its rolling checkpoint, to the same bits.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import open_clip
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from piaa_utils.aggregation import cls_scores
from piaa_utils.backbone import MINI, PRECISIONS, load_backbone
from piaa_utils.classifier import Recipe
from piaa_utils.encoders import ENCODERS
from piaa_utils.files import make_folder, printable, some, write_whole
from piaa_utils.images import UnreadableImage
from piaa_utils.metrics import interval, mean_average_precision
from piaa_utils.pipeline import PIAA
from piaa_utils.settings import PAPER, PURIFY_TEMPERATURE, Scales, check_positive
from piaa_utils.walk import Encoded, walk
from piaa_utils.worlds import WORLDS, World, first, load_world

FORMAT = 2  # of results and checkpoints
ARCHITECTURE, WEIGHTS = "ViT-B-16-quickgelu", "openai"  # the paper's CLIP
SAVING_SHARE = 0.05  # of the time, at most about so much goes into writing checkpoints
CLS_ROW = "[CLS]"
STAGES = ("learn", "test")
VARIANTS = {"plain": None, "released": "released"}  # PVCL: Stage I alone; Stages II and III too
PROTOCOLS = ("absent", "ignored")  # what becomes of a pair that is marked only "difficult"
DAMAGE = SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError
LIBRARIES = "torch torchvision open_clip_torch numpy scipy scikit-learn pillow".split()


class Job:
    """One run: its data, settings and how far it is. What cannot be: a ValueError or OSError."""

    def __init__(self, options: argparse.Namespace):
        dataset = options.dataset
        for name in ("batch_size", "limit"):
            if (value := getattr(options, name)) is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, but is {value}.")
        clip = options.backbone or (MINI if dataset == MINI else ARCHITECTURE)
        self.weights = options.pretrained or (None if clip == MINI else WEIGHTS)
        worlds = [load_world(dataset, split, options.data_root) for split in STAGES]
        self.learn, self.test = (first(w, options.limit or len(w)) for w in worlds)
        if not self.test.labels.any():
            raise ValueError(f"None of the test pictures of {dataset} has a label: take more.")
        if len(self.test.class_names) < 2:
            raise ValueError(f"{dataset} has but one class, and PIAA compares classes: add one.")
        device, precision = options.device, options.precision
        self.backbone = load_backbone(clip, self.weights, device, precision=precision)
        self.entry = WORLDS.get(dataset)
        self.scales = (self.entry and self.entry.scales) or self.backbone.scales
        if options.scales:
            self.scales = Scales(*options.scales)._replace(source="the command line")
        check_positive("The scale", **dict(zip("smT", self.scales, strict=False)))
        self.dataset = dataset if self.entry else f"folder-{Path(dataset).resolve().name}"
        self.encoders, self.batch_size = tuple(dict.fromkeys(options.encoders)), options.batch_size
        self.out = Path(options.out)
        self.checkpoint = self.out / f"{self.dataset}.unfinished.safetensors"
        self.rows = {f"{e}, {v}": (e, v) for e in self.encoders for v in VARIANTS}
        # How far it is: the checkpoint holds this and the settings.
        shape = self.test.labels.shape
        self.banks = {e: Recipe().bank(shape[1]) for e in self.encoders}
        self.scores = {row: torch.full(shape, torch.nan) for row in (CLS_ROW, *self.rows)}
        begun = {stage: {"done": 0, "skipped": [], "seconds": 0.0} for stage in STAGES}
        self.so_far: dict[str, Any] = {"resumed": 0, **begun}
        self._saved_at, self._took = -math.inf, 0.0

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on, as JSON knows it."""
        about = {
            "format": FORMAT,
            "dataset": self.dataset,
            "class_names": self.test.class_names,
            "images_hash": [images_hash(world.paths) for world in (self.learn, self.test)],
            "labels_hash": sha256(self.test.labels.tobytes() + self.test.difficult.tobytes()),
            "backbone": self.backbone.identity(),
            "precision": self.backbone.precision,
            "calibration": self.backbone.calibration._asdict(),
            "encoders": self.encoders,
            "recipes": {variant: self.recipe(variant)._asdict() for variant in VARIANTS},
            "scales": self.scales._asdict(),
            "batch_size": self.batch_size,
            "device": device_name(self.backbone.device),
            "versions": {name: version(name) for name in LIBRARIES},
        }
        return json.loads(json.dumps(about))

    @property
    def stem(self) -> str:
        """What the files of the result are called: each set of settings has a name of its own."""
        return f"{self.dataset}-{'-'.join(self.encoders)}-{sha256(self.settings)[:8]}"

    def recipe(self, variant: str) -> Recipe:
        """How a variant learns."""
        temperature = PURIFY_TEMPERATURE.get(self.dataset, PURIFY_TEMPERATURE["voc07"])
        return Recipe(purify=VARIANTS[variant], purify_temperature=temperature)

    def save(self, must: bool) -> None:
        """Write the checkpoint; where it need not be, only if enough was done since the last."""
        start = time.perf_counter()
        if not must and start - self._saved_at < self._took / SAVING_SHARE:
            return
        tensors = {f"bank/{e}/{k}": x for e, b in self.banks.items() for k, x in b.state().items()}
        tensors |= {f"scores/{row}": x for row, x in self.scores.items()}
        about = {"settings": self.settings, "so_far": self.so_far}
        write_whole(self.checkpoint, safetensors.torch.save(tensors, {"piaa": json.dumps(about)}))
        self._saved_at = time.perf_counter()
        self._took = self._saved_at - start

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one; a damaged one, or another's, is refused."""
        if not self.checkpoint.is_file():
            return
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                about = json.loads(file.metadata()["piaa"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            so_far, theirs, ours = about["so_far"], about["settings"], self.settings
            differ = {
                k: f" ({theirs.get(k)}, here {v})" for k, v in ours.items() if theirs.get(k) != v
            }
            other = "; ".join(k + (text if len(text) < 120 else "") for k, text in differ.items())
            device = "cpu" if self.backbone.device.type == "mps" else self.backbone.device
            for encoder, bank in self.banks.items() if not other else ():
                rows = {k: tensors[f"bank/{encoder}/{k}"] for k in bank.state()}
                self.banks[encoder] = bank.restore(rows, device)
            self.scores = self.scores if other else {r: tensors[f"scores/{r}"] for r in self.scores}
            learned, tested = (so_far[stage]["done"] for stage in STAGES)
        except DAMAGE as error:
            what = f"The checkpoint {self.checkpoint} is damaged ({error})"
            raise ValueError(f"{what}: remove it to begin anew.") from error
        if other:
            what = f"{self.checkpoint} is an unfinished run of other settings, {other}"
            raise ValueError(f"{what}: finish it with those, remove it, or choose another --out.")
        self.so_far, where = so_far | {"resumed": so_far["resumed"] + 1}, printable(self.checkpoint)
        print(f"Going on from {where}: {learned} pictures learned, {tested} tested.")


def sha256(data: Any) -> str:
    """The SHA-256 of bytes, or of what JSON knows whatever the order of its keys; in hex."""
    text = data if isinstance(data, bytes) else json.dumps(data, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()


def images_hash(paths: Sequence[str | os.PathLike]) -> str:
    """SHA-256 over the files' names, in order, and their sizes."""
    sizes = [os.path.getsize(path) if os.path.isfile(path) else None for path in paths]
    return sha256([[Path(path).name for path in paths], sizes])


def device_name(device: torch.device) -> str:
    """The device in words, with what decides the last bits of its results."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    cpu = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{device.type}: {cpu}, {torch.get_num_threads()} threads"


def learn(job: Job) -> dict[str, PIAA]:
    """PVCL: fill the banks in one pass over the pictures, and learn each row's classifier."""
    names, text, out = job.test.class_names, job.backbone.encode_text(job.test.class_names), {}
    for seen in see(job, "learn", job.learn):
        for encoder, bank in job.banks.items():
            bank.update(seen.patches[encoder], text, seen.ids)
    for row, (encoder, variant) in job.rows.items():
        piaa = PIAA(names, job.backbone, encoder, recipe=job.recipe(variant), scales=job.scales)
        out[row] = piaa.fit_bank(job.banks[encoder])
    return out


def score(job: Job, classifiers: dict[str, PIAA]) -> None:
    """Score the test pictures: [CLS] alone, and PAA with each classifier."""
    text = job.backbone.encode_text(job.test.class_names)
    for seen in see(job, "test", job.test):
        job.scores[CLS_ROW][seen.ids] = cls_scores(seen.cls, text, job.scales.s).cpu()
        for row, piaa in classifiers.items():
            patches = seen.patches[piaa.encoder]
            job.scores[row][seen.ids] = piaa.score_features(patches, seen.cls).cpu()


def see(job: Job, stage: str, world: World) -> Iterator[Encoded]:
    """The features of all pictures that are not done, a batch at a time; keeps the checkpoint.

    A batch is always of the same pictures, wherever the walk began, so no bit depends on that.
    """
    so_far, n, size, start = job.so_far[stage], len(world), job.batch_size, time.perf_counter()
    begin, before, spent = so_far["done"], so_far["skipped"], so_far["seconds"]
    met: list[tuple[int, str, str]] = []

    def note(done: int) -> None:
        so_far["done"], so_far["seconds"] = done, spent + time.perf_counter() - start
        so_far["skipped"] = before + [list(one) for one in met if one[0] < done]
        job.save(must=done == n)

    cudnn = torch.backends.cudnn  # in float32, as all else
    with warnings.catch_warnings(), cudnn.flags(cudnn.enabled, allow_tf32=False):
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ images cannot be read")
        for seen in walk(job.backbone, world.paths, job.encoders, size, begin, stage, skipped=met):
            yield seen
            note(min(n, (seen.ids[-1] // size + 1) * size))
    if so_far["done"] < n:  # the last batches could not be read
        note(n)
    if gone := [name for _, name, _ in so_far["skipped"]]:
        print(f"{stage}: {len(gone)} of {n} pictures cannot be read, left out: {some(gone)}.")
    if len(gone) == n:  # some of them in an earlier run
        raise UnreadableImage(f"None of the {n} pictures of {stage} can be read.")


def run(job: Job) -> dict[str, Any]:
    """Measure, or go on measuring, and write the result: classifiers, scores and, last, the JSON.

    A result of the same settings is a FileExistsError, an unfinished run of others a ValueError,
    another process at work on the same an OSError.
    """
    make_folder(job.out)
    result_file = job.out / f"{job.stem}.json"
    try:
        with filelock.FileLock(job.out / f".{job.dataset}.lock", timeout=0):
            if result_file.exists() and not job.checkpoint.is_file():
                before = f"{printable(result_file)} was measured before"
                raise FileExistsError(f"{before}: remove it to measure again.")
            job.resume()
            classifiers = learn(job)
            score(job, classifiers)
            result = write_result(job, classifiers)
            job.checkpoint.unlink()
            return result
    except filelock.Timeout:
        where = f"{job.dataset} in {job.out}: wait for it, or choose another --out"
        raise OSError(f"Another process is at work on {where}.") from None


def write_result(job: Job, classifiers: dict[str, PIAA]) -> dict[str, Any]:
    """Measure the scores, and write what belongs to the result; the JSON last."""
    files = {row: f"{job.stem}-{row.replace(', ', '-')}.safetensors" for row in classifiers}
    for row, piaa in classifiers.items():
        piaa.save(job.out / files[row])
    files["scores"] = f"{job.stem}-scores.safetensors"
    about = {"class_names": job.test.class_names, "images": list(map(str, job.test.paths))}
    scores = safetensors.torch.save(job.scores, {"piaa": json.dumps(about)})
    write_whole(job.out / files["scores"], scores)
    differs = differences(job)
    result = {
        "unit": "mAP in per cent",
        "rows": {row: measure(job, x.numpy()) for row, x in job.scores.items()},
        "reported": job.entry.reported if job.entry else {},
        "papers_setting": not differs,
        "differs": differs,
        "pictures": {"learn": len(job.learn), "test": len(job.test)},
        "skipped": {stage: job.so_far[stage]["skipped"] for stage in STAGES},
        "reports": {row: piaa.report_ for row, piaa in classifiers.items()},
        "settings": job.settings,
        "files": list(files.values()),
        "run": job.so_far | {"date": datetime.now(timezone.utc).isoformat(timespec="seconds")},
    }
    text = json.dumps(result, indent=1) + "\n"
    write_whole(job.out / f"{job.stem}.json", text.encode())
    return json.loads(text)


def measure(job: Job, scores: np.ndarray) -> dict[str, dict[str, Any]]:
    """The mAP of one row in per cent, by each protocol, with interval and average precisions."""
    read, names, out = ~np.isnan(scores).any(axis=1), job.test.class_names, {}
    labels, difficult, scores = job.test.labels[read], job.test.difficult[read], scores[read]
    for protocol in PROTOCOLS if difficult.any() else PROTOCOLS[:1]:
        ignore = difficult if protocol == "ignored" else None
        mean = mean_average_precision(labels, scores, ignore, names)
        each = [None if np.isnan(x) else float(x) for x in mean.per_class]
        about = {"per_class": dict(zip(names, each, strict=True)), "left_out": mean.left_out}
        out[protocol] = interval(labels, scores, ignore=ignore)._asdict() | about
    return out


def differences(job: Job) -> list[str]:
    """What keeps a result from standing beside the paper's number, in words."""
    if job.entry is None or not (wanted := job.entry.pictures):
        return [f"{job.dataset} is not in the paper"]
    n, clip, scales = (len(job.learn), len(job.test)), job.backbone, job.scales[:3]
    paper = PAPER[job.dataset][:3]
    left_out = sum(len(job.so_far[stage]["skipped"]) for stage in STAGES)
    reasons = {
        f"{n[0]:,} and {n[1]:,} pictures, not {wanted[0]:,} and {wanted[1]:,}": n != wanted,
        f"the backbone {clip.name}, not OpenAI's": not papers_clip(clip.name, job.weights),
        f"precision {clip.precision}": clip.precision != "fp32",
        f"the scales {scales}, not {paper}": scales != paper,
        f"{left_out} unreadable pictures left out": left_out > 0,
    }
    return [reason for reason, holds in reasons.items() if holds]


def papers_clip(name: str, weights: str | None) -> bool:
    """Whether a backbone is the paper's: OpenAI's ViT-B/16, by its tag or its file's SHA-256."""
    url, file = open_clip.get_pretrained_cfg(ARCHITECTURE, WEIGHTS)["url"], Path(str(weights))
    known = weights == WEIGHTS or (file.is_file() and sha256(file.read_bytes()) in url)
    return known and name.startswith(f"{ARCHITECTURE}/")


def format_result(result: dict[str, Any]) -> str:
    """A result as text, a line for each row; what the paper reports stands at Stages I to III."""
    wanted = list(result["rows"][CLS_ROW])
    head = "".join(f"{'difficult = ' + p:>26}" for p in wanted)
    lines = [f"{'mAP (%) [95 % interval]':<32}{head}{'reported':>11}"]
    for name, row in result["rows"].items():
        found = (row[protocol] for protocol in wanted)
        cells = "".join(f"{m['point']:>11.1f} [{m['low']:5.1f}, {m['high']:5.1f}]" for m in found)
        lines.append(
            f"{name:<32}{cells}{result['reported'].get(name.removesuffix(', released'), ''):>11}"
        )
    lines += [f"Not the paper's number: {reason}." for reason in result["differs"]]
    if left_out := result["rows"][CLS_ROW][wanted[0]]["left_out"]:
        lines.append(f"Without positives, and left out of the mean: {', '.join(left_out)}.")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m piaa_utils reproduce``."""
    add = parser.add_argument
    add("dataset", help=f"{', '.join(WORLDS)}, or a labelled folder")
    add("--data-root", help="the data set's folder; not for mini")
    add("--encoders", nargs="+", choices=ENCODERS, default=["scclip"], help="one pass serves all")
    add("--backbone", help=f"an open_clip architecture; by default {ARCHITECTURE}")
    add("--pretrained", help=f"its weights: a tag of open_clip or a file; by default {WEIGHTS}")
    add("--device", help="such as cuda or cpu; by default a GPU where there is one")
    add("--precision", choices=PRECISIONS, default="fp32", help="amp is faster on CUDA")
    add("--batch-size", type=int, default=64, help="pictures encoded at once (64)")
    add("--limit", type=int, help="a quick try: only so many pictures of each split")
    add("--scales", type=float, nargs=3, metavar=("s", "m", "T"), help="instead of the paper's")
    add("--out", default="results/reproduce", help="folder of the results")


def job_of(*words: str) -> Job:
    """The run of a command line, such as ``job_of("mini", "--limit", "6")``."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return Job(parser.parse_args(words))


def run_command(options: argparse.Namespace) -> None:
    """``python -m piaa_utils reproduce``: :func:`run` with the options of the command line."""
    job = Job(options)
    print(format_result(run(job)))
    print(f"\nSaved: {printable(job.out / job.stem)}.json and what it names.")
