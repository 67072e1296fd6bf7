"""The ablation on the embedded mini world: what each of PIAA's three steps adds, measured.

Rows: [CLS] alone; patches read by the text, for each encoder; the learned classifier (PVCL) in
place of the text; the aggregation (PAA). What was computed once is kept on disk and used again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch import Tensor
from tqdm.auto import tqdm

from piaa_utils import plots
from piaa_utils.aggregation import cls_scores, paa, spatial_evidence, spatial_softmax
from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.constants import CONSTANTS
from piaa_utils.datasets import MINI_CLASSES, data_dir, mini_long_classes, mini_scenes
from piaa_utils.encoders import ENCODERS, HEADS, cls_head, run_trunk
from piaa_utils.files import write_whole
from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.images import batches
from piaa_utils.metrics import bootstrap_map, mean_average_precision, paired_bootstrap
from piaa_utils.patch_labels import patch_labels
from piaa_utils.pipeline import PIAA
from piaa_utils.purification import PER_IMAGE, learn_classifier
from piaa_utils.selection import PatchBank

ENCODER = "scclip"
# The columns of the table: where it is measured, on which classes, learned from which pictures.
COLUMNS = {
    "test": ("test", "voc", "learn"),
    "test_unseen": ("test_unseen", "voc", "learn_unseen"),
    "test, long list": ("test", "long", "learn"),
}
TEXT_SCALE = 10.0  # of patches read by the text, chosen on `val` for the best of them
OWN_SCALE = 3.0  # s of [CLS] alone, chosen for it on `val` and `val_unseen`; PIAA's s is 5
# How PVCL learns: Stage II, the bank's limit for an image, and the encoder whose patches are
# learned from. The text reads the patches of ENCODER to select them, always.
PVCL = {
    "released": ("released", None, ENCODER),
    "spread": ("spread", PER_IMAGE, ENCODER),
    "vanilla": ("spread", PER_IMAGE, "vanilla"),
}
PIAA_ROW = "+ PVCL, spread + PAA = PIAA"
METHOD = {  # the rows with PVCL, and how it learns
    "+ PVCL as released": "released",
    "+ PVCL, spread": "spread",
    "+ PVCL as released + PAA": "released",
    PIAA_ROW: "spread",
    "PIAA at VOC's scales": "spread",
    "+ PVCL, vanilla read by scclip": "vanilla",
    "+ PVCL, vanilla + PAA": "vanilla",
    "the same at VOC's scales": "vanilla",
}
ROWS = (
    "[CLS]",
    "[CLS] at its own scale",
    "[CLS] at VOC's scale",
    *(f"patches + text, {name}" for name in ENCODERS),
    *METHOD,
)
# (better, worse): the whole, the classifier alone, and each step of the paper.
STEPS = {
    "PIAA - [CLS]": (PIAA_ROW, "[CLS]"),
    "PIAA - [CLS] at its own scale": (PIAA_ROW, "[CLS] at its own scale"),
    "PIAA - [CLS], at VOC's scales": ("PIAA at VOC's scales", "[CLS] at VOC's scale"),
    "encoder: scclip - vanilla": (f"patches + text, {ENCODER}", "patches + text, vanilla"),
    "PVCL - text, same patches": ("+ PVCL, spread", f"patches + text, {ENCODER}"),
    "PAA - maximum of the patches": (PIAA_ROW, "+ PVCL, spread"),
    "vanilla: PVCL - text, same patches": (
        "+ PVCL, vanilla read by scclip",
        "patches + text, vanilla",
    ),
    "vanilla: PIAA - [CLS]": ("+ PVCL, vanilla + PAA", "[CLS]"),
    "vanilla: PIAA - [CLS], its own scale": ("+ PVCL, vanilla + PAA", "[CLS] at its own scale"),
    "vanilla: PIAA - [CLS], VOC's scales": ("the same at VOC's scales", "[CLS] at VOC's scale"),
    "released PVCL - text": ("+ PVCL as released", f"patches + text, {ENCODER}"),
}


def class_list(name: str) -> tuple[str, ...]:
    """The classes of a column: "voc" (20) or "long"."""
    return MINI_CLASSES if name == "voc" else mini_long_classes()


def features(backbone: Backbone, split: str, encoders: Sequence[str], seconds: dict):
    """Unit features of a split, batch by batch; adds to `seconds` what each part took."""
    dataset = mini_scenes(split)
    for indices, pixels in batches(dataset, backbone.preprocess, 32, desc=split):
        start = time.perf_counter()
        with torch.no_grad():
            trunk = run_trunk(backbone, pixels, encoders)
            out = {}
            for name in ("cls", *encoders):
                head = cls_head if name == "cls" else HEADS[name]
                out[name] = torch.nn.functional.normalize(head(backbone, trunk), dim=-1)
                now = time.perf_counter()
                seconds[name] = seconds.get(name, 0.0) + now - start
                start = now
        yield indices, out


def learn(key: str, backbone: Backbone, split: str, lists: Sequence[str]) -> dict[str, Any]:
    """PVCL on a split, for several class lists; and GDA with the masks' labels, the oracle.

    Returns {list: {method: {"W", "b", "report"}}, "oracle": {"W", "b"}, "bank" (of "voc"),
    "purity" of the banks, "seconds"}. `key` names what else the result depends on, for the cache.
    """
    text = {name: backbone.encode_text(class_list(name)) for name in lists}
    banks = {
        (name, method): PatchBank(len(text[name]), per_image=limit)
        for name in lists
        for method, (_, limit, _) in PVCL.items()
    }
    dataset, seconds = mini_scenes(split), {}
    truth, rows, labels = [], [], []
    for indices, batch in features(backbone, split, (ENCODER, "vanilla"), seconds):
        patches = batch[ENCODER]
        for (name, method), bank in banks.items():
            start = time.perf_counter()
            bank.update(patches, text[name], indices, batch[PVCL[method][2]])
            part = f"selection, {name}, {method}"
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start
        for i, x in zip(indices, patches, strict=True):
            truth.append(patch_labels(dataset.masks(i), backbone.grid))
            on_object = truth[-1] >= 0
            rows.append(x[torch.from_numpy(on_object)])
            labels.append(truth[-1][on_object])
    shown = np.stack(truth)
    out: dict[str, Any] = {name: {} for name in lists} | {"purity": {}}
    for (name, method), bank in banks.items():
        start = time.perf_counter()
        W, b, report = learn_classifier(
            bank,
            text[name],
            PVCL[method][0],
            CONSTANTS["mini"]["purify_temperature"],
            class_names=class_list(name),
        )
        seconds[f"GDA, {name}, {method}"] = time.perf_counter() - start
        out[name][method] = {"W": W, "b": b, "report": report}
        if name == "voc":
            right = shown[bank.image_id.numpy(), bank.patch_index.numpy()] == bank.labels.numpy()
            out["purity"][method] = float(right.mean())
    out["bank"] = banks["voc", "spread"]
    oracle = GaussianDiscriminantAnalysis(prototypes=text["voc"].numpy())
    oracle.fit(torch.cat(rows).numpy(), np.concatenate(labels))
    out["oracle"] = {"W": as_tensor(oracle.coef_.T), "b": as_tensor(oracle.intercept_)}
    return out | {"seconds": seconds}


def measure(
    key: str, backbone: Backbone, split: str, learned: dict, lists: Sequence[str]
) -> dict[str, Any]:
    """Scores of all rows on a split, and how many patches each classifier reads right.

    Returns {list: {row: [n, C]}, "patch accuracy": {name: share}, "cls": [n, D], "seconds"}.
    """
    text = {name: backbone.encode_text(class_list(name)) for name in lists}
    dataset, seconds = mini_scenes(split), {}
    scores: dict[str, dict[str, list]] = {name: {row: [] for row in ROWS} for name in lists}
    right: dict[str, list] = {}
    cls = []
    for indices, batch in features(backbone, split, ENCODERS, seconds):
        cls.append(batch["cls"])
        for name in lists:
            for row, value in batch_scores(batch, text[name], learned[name]).items():
                scores[name][row].append(value)
        truth = np.stack([patch_labels(dataset.masks(i), backbone.grid) for i in indices])
        truth = torch.from_numpy(truth)
        readers = {f"{e}, text": batch[e] @ text["voc"].T for e in ENCODERS}
        classifiers = {f"PVCL {m}": learned["voc"][m] for m in PVCL}
        for reader, c in (classifiers | {"oracle GDA": learned["oracle"]}).items():
            encoder = PVCL[reader.removeprefix("PVCL ")][2] if "PVCL" in reader else ENCODER
            readers[f"{encoder}, {reader}"] = batch[encoder] @ c["W"] + c["b"]
        for reader, logits in readers.items():
            hit = logits.argmax(-1) == truth
            right.setdefault(reader, []).append(hit[truth >= 0])
    return {
        **{n: {row: torch.cat(v).numpy() for row, v in s.items()} for n, s in scores.items()},
        "patch accuracy": {n: float(torch.cat(v).float().mean()) for n, v in right.items()},
        "cls": torch.cat(cls).numpy(),
        "seconds": seconds,
    }


def batch_scores(batch: dict[str, Tensor], text: Tensor, classifiers: dict) -> dict[str, Tensor]:
    """The scores [B, C] of every row of the table."""
    mini, mini_vanilla, voc = (
        (CONSTANTS[name]["cls_scale"], CONSTANTS[name]["patch_scale"])
        for name in ("mini", "mini_vanilla", "voc07")
    )
    out = {
        "[CLS]": cls_scores(batch["cls"], text, mini[0]),
        "[CLS] at its own scale": cls_scores(batch["cls"], text, OWN_SCALE),
        "[CLS] at VOC's scale": cls_scores(batch["cls"], text, voc[0]),
    }
    for name in ENCODERS:
        p = torch.softmax(TEXT_SCALE * batch[name] @ text.T, dim=-1)
        out[f"patches + text, {name}"] = spatial_evidence(p)
    for row, method in METHOD.items():
        encoder, c = PVCL[method][2], classifiers[method]
        logits = batch[encoder] @ c["W"] + c["b"]
        if "VOC" in row:
            out[row] = paa(logits, batch["cls"], text, *voc)
        elif "PAA" in row:
            out[row] = paa(logits, batch["cls"], text, *(mini_vanilla, mini)[encoder == ENCODER])
        else:
            out[row] = spatial_evidence(spatial_softmax(logits))
    return out


def as_tensor(array: np.ndarray) -> Tensor:
    """A float32 copy."""
    return torch.as_tensor(array.copy(), dtype=torch.float32)


def separability(images: np.ndarray, text: np.ndarray) -> float:
    """Share of held-out embeddings, [n, D] of images and [m, D] of texts, that a line tells apart.

    0.5 is chance; near 1 there is a modality gap. Mean of 5 folds, both kinds weighing the same.
    """
    X = np.concatenate([images, text])
    y = np.repeat([0, 1], [len(images), len(text)])
    model = LogisticRegression(class_weight="balanced", C=100.0, max_iter=1000)
    return float(cross_val_score(model, X, y, cv=5, scoring="balanced_accuracy").mean())


def table(scores: dict, seconds: dict, truth: dict) -> list[dict[str, Any]]:
    """One entry for each row and column: mAP in per cent with its 95 % interval."""
    entries = []
    for row in tqdm(ROWS, desc="intervals", unit="row", delay=2):
        for column, (split, names, _) in COLUMNS.items():
            y, s = truth[split, names], scores[split][names][row]
            low, high = bootstrap_map(y, s)
            value = mean_average_precision(y, s).map
            entries.append(
                {
                    "name": row,
                    "set": column,
                    "value": 100 * value,
                    "low": 100 * low,
                    "high": 100 * high,
                    "seconds": seconds[row],
                }
            )
    return entries


def steps(scores: dict, truth: dict) -> list[dict[str, Any]]:
    """The gain of each step, in points of mAP, with its paired 95 % interval."""
    out = []
    for name, (better, worse) in STEPS.items():
        for column, (split, names, _) in COLUMNS.items():
            s = scores[split][names]
            gain = paired_bootstrap(truth[split, names], s[better], s[worse])
            value, low, high = (100 * x for x in gain)
            entry = {"step": name, "set": column, "gain": value, "low": low, "high": high}
            out.append(entry)
    return out


def row_seconds(measured: dict, learned: dict) -> dict[str, float]:
    """What each row costs on `test`: the trunk and [CLS], an encoder's head, learning once."""
    spent = measured["seconds"]
    base = spent["cls"]
    out = dict.fromkeys(ROWS[:3], base)
    out |= {f"patches + text, {name}": base + spent[name] for name in ENCODERS}
    once = learned["seconds"]
    for row, method in METHOD.items():
        _, _, encoder = PVCL[method]
        heads = {ENCODER, encoder}  # the one that is read, the one that is learned
        parts = ("cls", *heads, f"selection, voc, {method}", f"GDA, voc, {method}")
        out[row] = out[f"patches + text, {encoder}"] + sum(once[part] for part in parts)
    return out


def format_table(entries: list[dict], gains: list[dict]) -> str:
    """The ablation as text, one line a row."""
    lines = [
        f"{'mAP (%) [95 % interval]':<32}" + "".join(f"{c:>24}" for c in COLUMNS) + "  seconds"
    ]
    for row in ROWS:
        cells = [e for e in entries if e["name"] == row]
        numbers = "".join(f"{e['value']:>10.1f} [{e['low']:5.1f}, {e['high']:5.1f}]" for e in cells)
        lines.append(f"{row:<32}{numbers}{cells[0]['seconds']:>9.1f}")
    lines += ["", f"{'gain in points':<36}" + "".join(f"{c:>24}" for c in COLUMNS)]
    for step in STEPS:
        cells = [g for g in gains if g["step"] == step]
        numbers = "".join(
            f"{g['gain']:>+10.1f} [{g['low']:+5.1f}, {g['high']:+5.1f}]" for g in cells
        )
        lines.append(f"{step:<36}{numbers}")
    return "\n".join(lines)


def scene(backbone: Backbone, bank: PatchBank, split: str = "test") -> plots.Figure:
    """The picture with the most classes, where PIAA sees each, and its score of each."""
    dataset = mini_scenes(split)
    index = int(dataset.labels.sum(1).argmax())
    piaa = PIAA(backbone=backbone).fit_bank(bank)
    shown = np.flatnonzero(dataset.labels[index])
    names = [MINI_CLASSES[c] for c in shown]
    maps = piaa.patch_scores(dataset.paths[index])[shown]
    masks = [dataset.masks(index) == c for c in shown]
    scores = piaa.predict_proba([dataset.paths[index]])[0, shown]
    return plots.scene_figure(dataset.paths[index], names, maps, scores, masks)


def fingerprint(*folders: Path) -> str:
    """SHA-256 over the files of folders: a cache made from others is not used."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def run(out: Path, cache: Path) -> dict[str, Any]:
    """Measure everything, print the table, and write ablation.json, ablation.png and scene.png."""
    backbone = load_backbone(device="cpu")
    memory = joblib.Memory(cache, verbose=0)
    key = fingerprint(Path(__file__).parent, data_dir() / "mini_scenes", data_dir() / "mini_clip")
    cached_learn = memory.cache(learn, ignore=["backbone"])
    cached_measure = memory.cache(measure, ignore=["backbone", "learned"])
    learned, measured = {}, {}
    for split, source in dict.fromkeys((s, source) for s, _, source in COLUMNS.values()):
        lists = tuple(names for s, names, _ in COLUMNS.values() if s == split)
        learned[source] = cached_learn(key, backbone, source, lists)
        measured[split] = cached_measure(key, backbone, split, learned[source], lists)
    truth = {(s, n): mini_scenes(s, class_list(n)).labels for s, n, _ in COLUMNS.values()}
    entries = table(measured, row_seconds(measured["test"], learned["learn"]), truth)
    gains = steps(measured, truth)
    text = backbone.encode_text(mini_long_classes()).numpy()
    result = {
        "table": entries,
        "gains": gains,
        "patch accuracy": {s: m["patch accuracy"] for s, m in measured.items()},
        "bank purity": {s: m["purity"] for s, m in learned.items()},
        "images and texts told apart by a line": separability(measured["test"]["cls"], text),
        "stages": {s: {m: x["report"] for m, x in r["voc"].items()} for s, r in learned.items()},
        "backbone": {"name": backbone.name, "weights_hash": backbone.weights_hash},
        "versions": {p: version(p) for p in ("torch", "open_clip_torch", "scikit-learn", "numpy")},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    out.mkdir(parents=True, exist_ok=True)
    files = [out / name for name in ("ablation.json", "ablation.png", "scene.png")]
    write_whole(files[0], (json.dumps(result, indent=1) + "\n").encode())
    figure = plots.ablation_figure(entries, title="PIAA on the mini world, step by step")
    write_whole(files[1], plots.png_bytes(figure))
    write_whole(files[2], plots.png_bytes(scene(backbone, learned["learn"]["bank"])))
    print(format_table(entries, gains))
    print(f"\nSaved: {', '.join(map(str, files))}")
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m piaa_utils run``."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("results"), help="folder of the results")
    add("--cache", type=Path, default=Path("cache"), help="folder to reuse work from")


def run_command(options: argparse.Namespace) -> None:
    """``python -m piaa_utils run``: :func:`run` with the options of the command line."""
    run(options.out, options.cache)
