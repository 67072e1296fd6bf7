"""``python -m piaa_utils reproduce``: the paper's table, measured.

One pass over the pictures to learn from fills the banks of all encoders and variants; one over the
test pictures scores them. After every shard of whole batches a checkpoint holds what there is so
far, and the same command goes on from it, to the same result bit for bit. Memory does not grow
with the number of pictures, but for a row of scores each.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import safetensors.torch
import torch
from torch import Tensor
from tqdm.auto import tqdm

from piaa_utils import constants, encoders
from piaa_utils.aggregation import cls_scores
from piaa_utils.backbone import MINI, PRECISIONS, Backbone, load_backbone
from piaa_utils.constants import CONSTANTS
from piaa_utils.datasets import mini_scenes
from piaa_utils.encoders import ENCODERS, encode
from piaa_utils.files import write_whole
from piaa_utils.images import UnreadableImage, batches
from piaa_utils.messages import some
from piaa_utils.metrics import bootstrap_map, mean_average_precision
from piaa_utils.pipeline import PIAA, identity
from piaa_utils.purification import PER_IMAGE
from piaa_utils.resume import Keeper, State, differing, key_of
from piaa_utils.selection import PatchBank
from piaa_utils.worlds import load_world

FORMAT = 1  # of results
DATASETS = ("voc07", "voc12", "coco", "nus", MINI)
ARCHITECTURE, WEIGHTS = "ViT-B-16-quickgelu", "openai"  # the paper's CLIP

# mAP in per cent as reported in the paper's table (arXiv 2605.25821). Nothing here was measured.
REPORTED = {
    "voc12": {"scclip": 92.2, "itaclip": 92.2, "sclip": 91.4},
    "voc07": {"scclip": 92.5, "itaclip": 92.3, "sclip": 91.7},
    "coco": {"scclip": 73.2, "itaclip": 74.6, "sclip": 73.0},
    "nus": {"scclip": 50.6, "itaclip": 49.1, "sclip": 49.2},
}
# Pictures to learn from and to test on in the paper's protocol.
PICTURES = {
    "voc07": (5011, 4952),
    "voc12": (5717, 5823),
    "coco": (82081, 40137),
    "nus": (150000, 60260),
}
CLS_ROW = "[CLS]"
# How PVCL learns: Stage II, and the most patches of an image that a bank takes for a class.
VARIANTS = {"released": ("released", None), "ours": ("spread", PER_IMAGE)}
ROWS = (CLS_ROW, *VARIANTS)
PROTOCOLS = ("absent", "ignored")  # what becomes of a pair that is marked only "difficult"

SCALES_FROM = {
    "voc07": "released code, settings for PASCAL VOC 2007 and 2012",
    "voc12": "released code, settings for PASCAL VOC 2007 and 2012",
    "coco": "released code, settings for MS COCO 2014",
    "nus": "released code, settings for NUS-WIDE",
    MINI: "ours, chosen on val and val_unseen of the mini world",
}
# The modules and libraries that a result depends on. Those that read a data set are not here:
# the names, pictures and labels that they gave are compared themselves.
CODE = (
    "aggregation backbone checkpoint constants encoders gda images metrics pipeline purification "
    "reproduce resume selection"
).split()
LIBRARIES = "torch torchvision open_clip_torch numpy scipy scikit-learn pillow".split()


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def bare(source: bytes) -> str:
    """Python code without comments, docstrings and layout.

    Examples
    --------
    >>> bare(b"def f():  # why\\n    'What.'\\n    return  1")
    'def f():\\n    return 1'
    """
    tree = ast.parse(source)
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.unparse(tree)


# Taken when the modules are loaded: the code that runs, not what a file may become meanwhile.
SOURCES = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in CODE]


@cache
def code_hash() -> str:
    """The SHA-256 of the code that a result depends on; comments and docstrings do not count."""
    return sha256("\n".join(map(bare, SOURCES)).encode())


# What a run is


@dataclass(frozen=True)
class Job:
    """All settings of a run; :func:`load_job` makes it.

    learn, test : image files. labels : int [n, C] and difficult : bool [n, C] of the test ones.
    weights : what ``pretrained`` named. limit : None, or how many pictures of each split there are.
    shard : batches between two checkpoints.
    """

    dataset: str
    class_names: tuple[str, ...]
    learn: list[Path]
    test: list[Path]
    labels: np.ndarray
    difficult: np.ndarray
    backbone: Backbone
    weights: str | None
    encoders: tuple[str, ...]
    batch_size: int
    limit: int | None
    shard: int
    out: Path

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the result depends on, as JSON knows it."""
        about = {
            "format": FORMAT,
            "dataset": self.dataset,
            "limit": self.limit,
            "class_names": self.class_names,
            "class_names_hash": sha256(json.dumps(self.class_names).encode()),
            "learn_images_hash": images_hash(self.learn),
            "test_images_hash": images_hash(self.test),
            "labels_hash": sha256(self.labels.tobytes() + self.difficult.tobytes()),
            "backbone": identity(self.backbone),
            "precision": self.backbone.precision,
            "encoders": self.encoders,
            "constants": constants_used(self.dataset),
            "variants": VARIANTS,
            "batch_size": self.batch_size,
            "device": device_name(self.backbone.device),
            "code_hash": code_hash(),
            "versions": {name: version(name) for name in LIBRARIES},
        }
        return json.loads(json.dumps(about))

    def of(self, encoder: str) -> dict[str, Any]:
        """The identity of one encoder's result: the others beside it changed nothing."""
        return self.identity | {"encoders": [encoder]}

    @property
    def keys(self) -> list[tuple[str, str]]:
        """(encoder, variant) of all classifiers."""
        return [(encoder, variant) for encoder in self.encoders for variant in VARIANTS]

    def stem(self, encoder: str) -> str:
        """The name of a result's files; what is not the data set's usual setting is in it."""
        parts, name = [self.dataset, encoder], self.backbone.name
        usual = name == MINI if self.dataset == MINI else papers_clip(name, self.weights)
        if not usual:
            parts.append(re.sub(r"[^\w.@-]+", "-", name))
        if self.backbone.precision != "fp32":
            parts.append(self.backbone.precision)
        if self.limit is not None:
            parts.append(f"first{self.limit}")
        return "-".join(parts)

    def empty_banks(self) -> dict[tuple[str, str], PatchBank]:
        """A bank for each encoder and variant."""
        n = len(self.class_names)
        return {key: PatchBank(n, per_image=VARIANTS[key[1]][1]) for key in self.keys}

    def piaa(self, encoder: str, variant: str) -> PIAA:
        """The estimator of a row, not fitted."""
        purify, scales = VARIANTS[variant][0], CONSTANTS[self.dataset]
        return PIAA(self.class_names, self.backbone, encoder=encoder, purify=purify, **scales)


def load_job(
    dataset: str,
    data_root: str | os.PathLike | None = None,
    encoders: Sequence[str] = ("scclip",),
    backbone: str | None = None,
    pretrained: str | None = None,
    device: str | None = None,
    batch_size: int = 64,
    out: str | os.PathLike = "results/reproduce",
    precision: str = "fp32",
    limit: int | None = None,
    shard: int = 16,
) -> Job:
    """Find pictures and weights, and check what can be checked before the work begins.

    Parameters
    ----------
    dataset : one of ``DATASETS``; "mini" is the embedded world and takes no `data_root`.
    data_root : the data set's folder, see ``piaa_utils.worlds``.
    encoders : names out of ``ENCODERS``; they share one pass over the pictures.
    backbone, pretrained, device, precision : as for :func:`piaa_utils.backbone.load_backbone`; by
        default the mini-CLIP for "mini", else the paper's ViT-B/16. "amp" needs CUDA.
    batch_size : pictures encoded at once.
    out : the folder of the results.
    limit : None, or how many pictures of each split to take, for a quick try.
    shard : batches between two checkpoints.

    Raises
    ------
    ValueError, OSError
        An option out of range, no data, test pictures without any label, or no weights.
    """
    if dataset not in DATASETS:
        raise ValueError(f"There is no data set {dataset!r}; there are {', '.join(DATASETS)}.")
    for name in encoders:
        if name not in ENCODERS:
            raise ValueError(f"There is no encoder {name!r}; there are {', '.join(ENCODERS)}.")
    for name, value in {"batch_size": batch_size, "limit": limit, "shard": shard}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, but is {value}.")
    learn, test = (load_split(dataset, data_root, split) for split in ("learn", "test"))
    labels, difficult = (np.asarray(x)[:limit] for x in (test.labels, test.difficult))
    if not labels.any():
        raise ValueError(
            f"None of the {len(labels)} test pictures of {dataset} has a label: take more "
            f"pictures, or check the annotations."
        )
    name = backbone or (MINI if dataset == MINI else ARCHITECTURE)
    weights = pretrained if name == MINI else pretrained or WEIGHTS
    clip = load_backbone(name, weights, device, precision=precision)
    if precision == "amp" and clip.device.type != "cuda":
        raise ValueError(f"Precision 'amp' is for CUDA, and the device is {clip.device}: use fp32.")
    return Job(
        dataset=dataset,
        class_names=tuple(test.class_names),
        learn=list(learn.paths[:limit]),
        test=list(test.paths[:limit]),
        labels=labels,
        difficult=difficult,
        backbone=clip,
        weights=weights,
        encoders=tuple(dict.fromkeys(encoders)),
        batch_size=batch_size,
        limit=limit,
        shard=shard,
        out=Path(out),
    )


def load_split(dataset: str, data_root: str | os.PathLike | None, split: str):
    """The split "learn" or "test" of a data set."""
    if dataset == MINI:
        if data_root is not None:
            raise ValueError("The mini world is embedded: leave out --data-root.")
        return mini_scenes(split)
    if data_root is None:
        raise ValueError(f"The data set {dataset} needs --data-root, the folder of its files.")
    return load_world(dataset, data_root, split)


def constants_used(dataset: str) -> dict[str, dict[str, Any]]:
    """Every number of the method and where it comes from: {name: {"value", "source"}}.

    Examples
    --------
    >>> constants_used("coco")["m, scale of the patches"]
    {'value': 400.0, 'source': 'released code, settings for MS COCO 2014'}
    """
    paper, code = "paper, the same for every data set", "released code, the same for every data set"
    scales, c = SCALES_FROM[dataset], CONSTANTS[dataset]
    values = {
        "s, scale of [CLS]": (c["cls_scale"], scales),
        "m, scale of the patches": (c["patch_scale"], scales),
        "T, of Stage II as released": (
            c["purify_temperature"],
            SCALES_FROM["voc07"] if dataset == MINI else scales,
        ),
        "K, patches of a class": (constants.BANK_SIZE, paper),
        "factor on the cosines in Stage I": (constants.SELECTION_TEMPERATURE, paper),
        "temperature of the evidence": (constants.EVIDENCE_TEMPERATURE, paper),
        "share of [CLS] in the score": (constants.CLS_WEIGHT, paper),
        "template": ("a photo of a {}", paper),
        "SC-CLIP: least similarity": (encoders.BETA, code),
        "SC-CLIP: share of [CLS]": (encoders.CLS_SHARE, code),
        "SC-CLIP: neighbours of the outlier factor": (encoders.NEIGHBOURS, code),
        "SC-CLIP: quantile of the inliers": (encoders.INLIERS, code),
        "ITACLIP: blocks joined": (list(encoders.ITACLIP_BLOCKS), code),
        "ours: patches of an image for a class": (PER_IMAGE, "ours, see purification.py"),
    }
    return {name: {"value": value, "source": source} for name, (value, source) in values.items()}


def papers_clip(name: str, weights: str | None) -> bool:
    """Whether a backbone is the paper's: OpenAI's ViT-B/16, by its tag or its file's SHA-256."""
    if name == f"{ARCHITECTURE}/{WEIGHTS}":
        return True
    if not name.startswith(f"{ARCHITECTURE}/") or not Path(str(weights)).is_file():
        return False
    url = open_clip.get_pretrained_cfg(ARCHITECTURE, WEIGHTS).get("url", "")
    return sha256(Path(str(weights)).read_bytes()) in url


def images_hash(paths: Sequence[str | os.PathLike]) -> str:
    """SHA-256 over the files' places below their common folder, in order, and their sizes."""
    names = [os.path.abspath(path) for path in paths]
    base = os.path.commonpath([os.path.dirname(name) for name in names])
    digest = hashlib.sha256()
    for name in names:
        size = os.path.getsize(name) if os.path.isfile(name) else None
        digest.update(f"{Path(name).relative_to(base).as_posix()} {size}\n".encode())
    return digest.hexdigest()


def device_name(device: torch.device) -> str:
    """The device in words, with what decides the last bits of its results."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        instructions = torch.backends.cpu.get_cpu_capability()
        return f"cpu: {platform.machine()}, {instructions}, {torch.get_num_threads()} threads"
    return device.type


# The two passes


def learn(job: Job, keeper: Keeper, state: State) -> None:
    """PVCL: fill all banks in one pass over the pictures, and learn a classifier from each."""
    if state.stage != "learn":
        return
    text = job.backbone.encode_text(job.class_names)

    def take(ids: list[int], features: dict[str, Tensor]) -> None:
        for (encoder, _), bank in state.banks.items():
            bank.update(features[encoder], text, ids)

    walk(job, keeper, state, job.learn, take)
    for key, bank in state.banks.items():
        file = keeper.classifier_file(*key)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            job.piaa(*key).fit_bank(bank).save(file)
        for warning in said:
            print(f"{', '.join(key)}: {warning.message}")
        state.classifiers[key] = PIAA.load(file, backbone=job.backbone)
    state.banks, state.stage, state.done = {}, "test", 0
    shape = len(job.test), len(job.class_names)
    state.scores = {key: torch.full(shape, torch.nan) for key in [(CLS_ROW,), *job.keys]}
    keeper.save(state)


def score(job: Job, keeper: Keeper, state: State) -> None:
    """Score the test pictures: [CLS] alone, and PAA with each classifier."""
    if state.stage != "test":
        return
    text = job.backbone.encode_text(job.class_names)
    s = CONSTANTS[job.dataset]["cls_scale"]

    def take(ids: list[int], features: dict[str, Tensor]) -> None:
        state.scores[CLS_ROW,][ids] = cls_scores(features["cls"], text, s).cpu()
        for key, piaa in state.classifiers.items():
            scores = piaa.score_features(features[key[0]], features["cls"])
            state.scores[key][ids] = scores.cpu()

    walk(job, keeper, state, job.test, take)
    state.stage, state.done = "done", len(job.test)
    keeper.save(state)


def walk(job: Job, keeper: Keeper, state: State, paths: list, take: Callable) -> None:
    """Show `take` the features of all pictures from ``state.done`` on, and save after shards.

    `take` gets the pictures' numbers and ``encode``'s features of one batch. A batch is always of
    the same pictures, wherever the walk began, so that no bit of a feature depends on that.

    Raises
    ------
    UnreadableImage
        If not one picture could be read; single ones are noted in ``state.skipped`` and named.
    """
    stage, first, size = state.stage, state.done, job.batch_size
    skipped, spent = list(state.skipped[stage]), state.seconds[stage]
    rest = paths[first:]
    stream = batches(rest, job.backbone.preprocess, size, progress=False) if rest else None
    start = time.perf_counter()

    def note(done: int) -> None:
        bar.update(done - state.done)
        state.done = done
        noted = stream.skipped if stream else []
        met = [[first + i, name, why] for i, name, why in noted if first + i < done]
        state.skipped[stage] = skipped + met
        state.seconds[stage] = spent + time.perf_counter() - start

    bar = tqdm(total=len(paths), initial=first, desc=stage, unit=" images", delay=2)
    with bar, warnings.catch_warnings(), full_float32():
        warnings.filterwarnings("ignore", message=".* images cannot be read and were left out")
        try:
            for indices, pixels in stream or ():
                features = encode(job.backbone, pixels, job.encoders)
                check_finite(features, [paths[first + i] for i in indices])
                take([first + i for i in indices], features)
                batch = indices[-1] // size + 1
                note(min(first + batch * size, len(paths)))
                if batch % job.shard == 0:
                    keeper.save(state, must=False)
        except UnreadableImage:  # none from `first` on; there may have been some before
            pass
        note(len(paths))
    left_out = state.skipped[stage]
    if len(left_out) == len(paths):
        raise UnreadableImage(
            f"None of the {len(paths)} pictures of the stage {stage} can be read. {left_out[0][2]}"
        )
    if left_out:
        print(
            f"{len(left_out)} of {len(paths)} pictures of the stage {stage} cannot be read and "
            f"were left out: {some([name for _, name, _ in left_out])}."
        )


def full_float32():
    """A context in which CUDA's convolutions compute in float32, as all else does here."""
    enabled = torch.backends.cudnn.enabled
    return torch.backends.cudnn.flags(enabled=enabled, deterministic=True, allow_tf32=False)


def check_finite(features: dict[str, Tensor], paths: list) -> None:
    """Refuse features with NaN or infinite values, naming the picture."""
    for name, x in features.items():
        bad = ~x.isfinite().flatten(1).all(dim=1)
        if bad.any():
            raise ValueError(
                f"The {name} features of {paths[int(bad.nonzero()[0])]} are not finite: leave the "
                f"picture out, check the weights, or take --precision fp32."
            )


# Results


def run(job: Job) -> list[dict[str, Any]]:
    """Measure, or go on measuring, and write the results: one for each encoder, in order.

    A result that is there already for exactly these settings is read, not measured again. One for
    other settings, or without its files, is named, and in the end moved to ``replaced/``.

    Raises
    ------
    ValueError, OSError
        On pictures or weights that cannot be used, files that cannot be written, or another process
        that is at work on the same.
    """
    keeper = Keeper(job.out, job.dataset, job.identity)
    there = {}
    if not keeper.path.is_file():
        if keeper.folder.is_dir():  # what a run that was killed while it tidied up left behind
            with keeper.alone():
                keeper.finish()
        there = {e: r for e in job.encoders if (r := finished(job, e)) is not None}
        for encoder in there:
            path = job.out / f"{job.stem(encoder)}.json"
            print(f"Measured before: {path}; remove it to measure again.")
    rest = tuple(e for e in job.encoders if e not in there)
    if rest:
        job = replace(job, encoders=rest)
        keeper = Keeper(job.out, job.dataset, job.identity)
        with keeper.alone():
            keeper.name_others()
            for encoder in rest:
                if why := why_again(job, encoder):
                    path = job.out / f"{job.stem(encoder)}.json"
                    print(f"Measuring again: {path} {why}. It stays until the new one is there.")
            state = keeper.load(job.empty_banks(), job.backbone)
            learn(job, keeper, state)
            score(job, keeper, state)
            there |= write_results(job, keeper, state)
            keeper.finish()
    return [there[e] for e in sorted(there, key=[*there, *rest].index)]


def finished(job: Job, encoder: str) -> dict[str, Any] | None:
    """The result that is there for exactly these settings, with all its files, or None."""
    path = job.out / f"{job.stem(encoder)}.json"
    return read_result(path) if path.is_file() and not why_again(job, encoder) else None


def read_result(path: Path) -> dict[str, Any]:
    """What a result's file says; nothing where it is damaged."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return result if isinstance(result, dict) else {}


def why_again(job: Job, encoder: str) -> str:
    """What is wrong with the result that is there; "" if nothing is, or none is there."""
    path, ours = job.out / f"{job.stem(encoder)}.json", job.of(encoder)
    if not path.is_file():
        return ""
    result = read_result(path)
    if not {"key", "settings", "files"} <= result.keys():
        return "is damaged"
    if result["key"] != key_of(ours):
        return "has other " + ("; ".join(differing(result["settings"], ours)) or "key")
    gone = [name for name in result["files"].values() if not (job.out / name).is_file()]
    return f"lacks its file {gone[0]}" if gone else ""


def write_results(job: Job, keeper: Keeper, state: State) -> dict[str, dict[str, Any]]:
    """Measure the scores and write, for each encoder, classifiers, scores and, last, the result."""
    rows = [(CLS_ROW,), *job.keys]
    measured = {key: measure(job, state, key) for key in tqdm(rows, desc="intervals", delay=2)}
    results = {}
    for encoder in job.encoders:
        stem = job.stem(encoder)
        move_old(job, encoder)
        own = {CLS_ROW: (CLS_ROW,)} | {variant: (encoder, variant) for variant in VARIANTS}
        files = {v: f"{stem}-{v}.safetensors" for v in VARIANTS}
        for variant, name in files.items():
            write_whole(job.out / name, keeper.classifier_file(encoder, variant).read_bytes())
        files["scores"] = f"{stem}-scores.safetensors"
        about = {"class_names": job.class_names, "images": list(map(str, job.test))}
        scores = {row: state.scores[key] for row, key in own.items()}
        data = safetensors.torch.save(scores, {"piaa": json.dumps(about)})
        write_whole(job.out / files["scores"], data)
        differs = differences(job, state, encoder)
        results[encoder] = {
            "key": key_of(job.of(encoder)),
            "dataset": job.dataset,
            "encoder": encoder,
            "unit": "mAP in per cent",
            "rows": {row: measured[key] for row, key in own.items()},
            "reported": REPORTED.get(job.dataset, {}).get(encoder),
            "papers_setting": not differs,
            "differs": differs,
            "pictures": {"learn": len(job.learn), "test": len(job.test)},
            "skipped": state.skipped,
            "stages": {
                variant: state.classifiers[encoder, variant].report_ for variant in VARIANTS
            },
            "settings": job.of(encoder),
            "files": files,
            "run": {
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "resumed": state.resumed,
                "encoders_in_one_pass": list(job.encoders),
                "seconds": state.seconds,
                "images_per_second": {
                    stage: len(paths) / max(state.seconds[stage], 1e-9)
                    for stage, paths in (("learn", job.learn), ("test", job.test))
                },
            },
        }
    for encoder, result in results.items():
        path = job.out / f"{job.stem(encoder)}.json"
        write_whole(path, (json.dumps(result, indent=1) + "\n").encode())
    return results


def measure(job: Job, state: State, key: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The mAP of one row in per cent, by each protocol, with interval and average precisions."""
    scores = state.scores[key].numpy()
    read = ~np.isnan(scores).any(axis=1)
    labels, scores, difficult = job.labels[read], scores[read], job.difficult[read]
    out = {}
    for protocol in PROTOCOLS:
        if protocol == "ignored" and not difficult.any():
            continue  # nothing is marked "difficult": the two protocols are one
        ignore = difficult if protocol == "ignored" else None
        mean = mean_average_precision(labels, scores, ignore, job.class_names)
        low, high = bootstrap_map(labels, scores, ignore=ignore)
        ap = zip(job.class_names, mean.per_class, strict=True)
        out[protocol] = {
            "map": 100 * mean.map,
            "low": 100 * low,
            "high": 100 * high,
            "per_class": {name: None if np.isnan(x) else 100 * float(x) for name, x in ap},
            "left_out": mean.left_out,
        }
    return out


def differences(job: Job, state: State, encoder: str) -> list[str]:
    """What keeps a result from standing beside the paper's number, in words."""
    out = []
    if job.dataset == MINI:
        out.append("the mini world is not in the paper")
    elif (len(job.learn), len(job.test)) != PICTURES[job.dataset]:
        wanted = " and ".join(f"{n:,}" for n in PICTURES[job.dataset])
        out.append(f"{len(job.learn):,} and {len(job.test):,} pictures, not {wanted}")
    if job.limit is not None:
        out.append(f"only the first {job.limit} pictures of each split")
    if job.dataset != MINI and not papers_clip(job.backbone.name, job.weights):
        out.append(f"the backbone {job.backbone.name}, not OpenAI's ViT-B/16")
    if job.backbone.precision != "fp32":
        out.append(f"precision {job.backbone.precision}")
    if count := sum(map(len, state.skipped.values())):
        out.append(f"{count} unreadable pictures left out")
    if job.dataset != MINI and encoder not in REPORTED[job.dataset]:
        out.append(f"the encoder {encoder}, for which the paper reports nothing")
    return out


def move_old(job: Job, encoder: str) -> None:
    """Move the files of a result that cannot stay (see ``why_again``) into ``replaced/``."""
    stem, why = job.stem(encoder), why_again(job, encoder)
    if not why:
        return
    path = job.out / f"{stem}.json"
    stamp = datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y%m%d-%H%M%S")
    folder, number = job.out / "replaced" / f"{stem}-{stamp}", 1
    while (folder / path.name).exists():  # the last file of a result that is moved
        number += 1
        folder = folder.with_name(f"{stem}-{stamp}-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in [f"{stem}-{part}.safetensors" for part in (*VARIANTS, "scores")] + [path.name]:
        if (job.out / name).is_file():
            os.replace(job.out / name, folder / name)
    print(f"The older result {path.name} {why}: it is now in {folder}.")


def format_results(results: Sequence[dict[str, Any]], difficult: str = "both") -> str:
    """The results as text, a line for each row; `difficult` is one of ``PROTOCOLS``, or "both"."""
    protocols = PROTOCOLS if difficult == "both" else (difficult,)
    wanted = [p for p in protocols if any(p in r["rows"][CLS_ROW] for r in results)] or ["absent"]
    head = "".join(f"{'difficult = ' + p:>26}" for p in wanted)
    lines = [f"{'mAP (%) [95 % interval]':<32}{head}{'reported':>11}"]
    for n, result in enumerate(results):
        for row in ROWS[n > 0 :]:  # [CLS] is the same for all encoders
            cells = ""
            for protocol in wanted:
                m = result["rows"][row].get(protocol) or result["rows"][row]["absent"]
                cells += f"{m['map']:>11.1f} [{m['low']:5.1f}, {m['high']:5.1f}]"
            name = row if row == CLS_ROW else f"{result['encoder']}, {row}"
            reported = result["reported"] if row == "released" else None
            lines.append(f"{name:<32}{cells}{'' if reported is None else f'{reported:>11.1f}'}")
    for reason in dict.fromkeys(reason for r in results for reason in r["differs"]):
        lines.append(f"Not the paper's number: {reason}.")
    left_out = results[0]["rows"][CLS_ROW]["absent"]["left_out"]
    if left_out:
        lines.append(f"Without positives, and left out of the mean: {', '.join(left_out)}.")
    return "\n".join(lines)


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m piaa_utils reproduce``."""
    add = parser.add_argument
    add("--dataset", choices=DATASETS, required=True, help="mini is the embedded world")
    add("--data-root", help="the data set's folder; not for mini")
    add("--encoder", nargs="+", choices=ENCODERS, default=["scclip"], help="one pass serves all")
    add("--backbone", help=f"an open_clip architecture; by default {ARCHITECTURE}")
    add("--pretrained", help=f"its weights: a tag of open_clip or a file; by default {WEIGHTS}")
    add("--device", help="such as cuda or cpu; by default a GPU where there is one")
    add("--precision", choices=PRECISIONS, default="fp32", help="amp is faster, on CUDA only")
    add("--batch-size", type=int, default=64, help="pictures encoded at once (64)")
    add("--limit", type=int, help="a quick try: only so many pictures of each split")
    add("--difficult", choices=(*PROTOCOLS, "both"), default="both", help="protocols to print")
    add("--save-every", type=int, default=16, help="batches between two checkpoints (16)")
    add("--out", type=Path, default=Path("results/reproduce"), help="folder of the results")


def run_command(options: argparse.Namespace) -> None:
    """``python -m piaa_utils reproduce``: :func:`run` with the options of the command line."""
    job = load_job(
        options.dataset,
        options.data_root,
        options.encoder,
        options.backbone,
        options.pretrained,
        options.device,
        options.batch_size,
        options.out,
        options.precision,
        options.limit,
        options.save_every,
    )
    try:
        results = run(job)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from the last checkpoint.")
        raise SystemExit(130) from None
    print(format_results(results, options.difficult))
    print(f"\nSaved in {job.out}: " + ", ".join(f"{job.stem(e)}.json" for e in job.encoders))
