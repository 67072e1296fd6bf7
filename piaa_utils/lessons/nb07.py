"""Notebook 07, the reproduction: tables, figures, explorer, and the checks of its exercises."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from piaa_utils.encoders import encode
from piaa_utils.images import batches
from piaa_utils.lessons.checks import check_choice, check_function
from piaa_utils.metrics import average_precision, paired_bootstrap
from piaa_utils.plots import PALETTE, Figure, subplots
from piaa_utils.purification import learn_classifier, purify_released
from piaa_utils.reproduce import CLS_ROW, PICTURES, REPORTED, VARIANTS, Job
from piaa_utils.selection import PatchBank

COLUMNS = {"released": "released code's choices", "ours": "ours"}
KINDS = ("whole", "in part", "nothing")  # what Stage II keeps of a class
MARK = " *"  # of a row whose classifier is Stage I's, as Stage II kept nothing
CALLED = {"voc12": "VOC 2012", "voc07": "VOC 2007", "coco": "COCO 2014", "nus": "NUS-WIDE"}


# Runs


def first(job: Job, n: int, out: Path, encoder: str = "scclip") -> Job:
    """The same job on the first n pictures of each split, with one encoder, in another folder."""
    labels, difficult = job.labels[:n], job.difficult[:n]
    pictures = {"learn": job.learn[:n], "test": job.test[:n]}
    return replace(
        job, **pictures, labels=labels, difficult=difficult, encoders=(encoder,), limit=n, out=out,
        batch_size=4, shard=1,
    )  # fmt: skip


def fill_bank(job: Job, encoder: str, n: int) -> PatchBank:
    """Stage I's bank, as released, of the first n pictures to learn from."""
    bank = PatchBank(len(job.class_names))
    text = job.backbone.encode_text(job.class_names)
    stream = batches(job.learn[:n], job.backbone.preprocess, job.batch_size, progress=False)
    for indices, pixels in stream:
        bank.update(encode(job.backbone, pixels, (encoder,))[encoder], text, indices)
    return bank


# Stage II


def kept_shares(bank: PatchBank, text: Tensor, temperatures: Sequence[float]) -> np.ndarray:
    """What share of its patches each class keeps in the released Stage II.

    Parameters
    ----------
    bank : with ``per_image=None``.
    text : [C, D] unit text features.
    temperatures : values of T.

    Returns
    -------
    [T, C] from 0 to 1; NaN for a class that no patch of the bank is taken for.
    """
    logits = _decisions(bank, text)
    there = torch.bincount(logits.argmax(dim=1), minlength=bank.n_classes).double()
    there[there == 0] = torch.nan
    counts = [purify_released(logits, t).counts / there for t in temperatures]
    return torch.stack(counts).numpy()


def _decisions(bank: PatchBank, text: Tensor) -> Tensor:
    """Stage I's decision values [n, C] of a bank's patches, float64 and so on the CPU."""
    W, b, _ = learn_classifier(bank, text.cpu(), purify=None)
    return bank.features.cpu().double() @ W.double() + b.double()


def above_mean(bank: PatchBank, text: Tensor, temperature: float) -> np.ndarray:
    """What share of a class's patches has a q above the mean of that class.

    Arguments as in :func:`kept_shares`, with one T. Returns [C] from 0 to 1; NaN for a class that
    no patch of the bank is taken for.
    """
    q, predicted = torch.softmax(temperature * _decisions(bank, text), dim=1).max(dim=1)
    of_class = [q[predicted == c] for c in range(bank.n_classes)]
    return np.array([float((x > x.mean()).double().mean()) for x in of_class])


def kinds_of(shares: np.ndarray) -> dict[str, np.ndarray]:
    """How many classes keep all, some or none of their patches: {kind: [T]} of shares [T, C]."""
    whole, nothing = (shares == 1).sum(axis=1), (shares == 0).sum(axis=1)
    some = (~np.isnan(shares)).sum(axis=1) - whole - nothing
    return dict(zip(KINDS, (whole, some, nothing), strict=True))


def kept_figure(
    shares: Mapping[str, np.ndarray],
    temperatures: Sequence[float],
    marks: Mapping[str, float],
) -> Figure:
    """For each encoder, how many classes keep all, some or none of their patches, over T.

    `marks` are values of T that get a named vertical line.
    """
    size = (5.6 * len(shares) + 1.6, 4.8)
    figure, axes = subplots(1, len(shares), size=size, sharey=True, squeeze=False)
    said = []
    for ax, (encoder, share) in zip(axes[0], shares.items(), strict=True):
        kinds = kinds_of(share)
        lines = zip(kinds.items(), ("o-", "s--", "^:"), PALETTE, strict=False)
        for (kind, counts), style, colour in lines:
            ax.plot(temperatures, counts, style, color=colour, label=kind)
        ax.set(xscale="log", xlabel="T of Stage II", title=encoder)
        across = ax.get_xaxis_transform()
        for name, t in marks.items():
            ax.axvline(t, color="0.5", lw=1.5, zorder=0)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            ax.text(t, 0.5, name, transform=across, rotation=90, ha="center", va="center",
                    fontsize="x-small", bbox=box)  # fmt: skip
        ends = ", ".join(f"{kind} {c[0]} and {c[-1]}" for kind, c in kinds.items())
        said.append(f"{encoder}, at T = {temperatures[0]:g} and {temperatures[-1]:g}: {ends}")
    axes[0, 0].set_ylabel("classes")
    axes[0, -1].legend(title="patches kept", loc="upper left", bbox_to_anchor=(1, 1))
    lines = ", ".join(f"{name} ({t:g})" for name, t in marks.items())
    figure.alt_text = (
        f"Classes that keep their patches whole, in part or not. {'; '.join(said)}. "
        f"Vertical lines at the T of {lines}."
    )
    return figure


# Results


def _mark(result: Mapping[str, Any], row: str) -> str:
    """``MARK`` for the released row of a result whose Stage II kept nothing, else ""."""
    lone = row == "released" and result["stages"][row].get("kept_nothing", False)
    return MARK if lone else ""


def note(results: Mapping[str, dict]) -> str:
    """What the mark stands for, naming the rows of {encoder: result} that have it."""
    rows = [f"{encoder}, released" for encoder, r in results.items() if _mark(r, "released")]
    if not rows:
        return "Stage II kept some patches in every row, so no row is marked *."
    return (
        f"Marked * below: {'; '.join(rows)}. Stage II kept nothing there: the classifier is Stage "
        f"I's."
    )


def leads(
    results: Mapping[str, dict], scores: Mapping[tuple, Tensor], labels: np.ndarray, n: int = 500
) -> pd.DataFrame:
    """By how many points of mAP each row leads [CLS], with the paired 95 % interval.

    Parameters
    ----------
    results : {encoder: result}.
    scores : [m, C] of (encoder, row) and of ("[CLS]",); NaN where a picture could not be read.
    labels : int [m, C].
    n : resamples.
    """
    cls, lines = scores[CLS_ROW,].numpy(), {}
    read = ~np.isnan(cls).any(axis=1)
    for encoder, result in results.items():
        for row in VARIANTS:
            own = scores[encoder, row].numpy()[read]
            lead = [100 * x for x in paired_bootstrap(labels[read], own, cls[read], n)]
            pictures = np.median(result["stages"][row]["images"])
            lines[f"{encoder}, {row}"] = [int(pictures), *lead]
    columns = ["pictures behind a class, median", "lead over [CLS]", "low", "high"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns)
    return table.round(1)


def rows_of(results: Mapping[str, dict], protocol: str = "absent") -> list[dict[str, Any]]:
    """Rows for ``plots.ablation_figure`` of {encoder: result}; [CLS] is the same for all."""
    out = []
    for n, (encoder, result) in enumerate(results.items()):
        for row, measured in result["rows"].items():
            if row == CLS_ROW and n:
                continue
            m = measured[protocol]
            name = row if row == CLS_ROW else f"{encoder}, {row}{_mark(result, row)}"
            value = {"value": m["map"], "low": m["low"], "high": m["high"]}
            out.append({"name": name, "set": result["dataset"]} | value)
    return out


def classes_figure(encoder: str, row: str, results: Mapping[str, dict]) -> Figure:
    """Average precision of every class: a row of an encoder's result beside [CLS] alone.

    Raises
    ------
    ValueError
        On an encoder or a row that is not there.
    """
    if encoder not in results:
        raise ValueError(f"There is no result of {encoder!r}: choose one of {', '.join(results)}.")
    if row not in VARIANTS:
        raise ValueError(f"There is no row {row!r}: choose one of {', '.join(VARIANTS)}.")
    rows = results[encoder]["rows"]
    cls, ap = (rows[r]["absent"]["per_class"] for r in (CLS_ROW, row))
    names = sorted((n for n in ap if ap[n] is not None), key=lambda n: ap[n] - cls[n])
    figure, ax = subplots(size=(9, 0.36 * len(names) + 1.6))
    y = range(len(names))
    ax.hlines(y, [cls[n] for n in names], [ap[n] for n in names], color="0.7", lw=2, zorder=1)
    ax.plot([cls[n] for n in names], y, "o", color=PALETTE[0], mfc="white", label=CLS_ROW)
    ax.plot([ap[n] for n in names], y, "D", color=PALETTE[1], label=f"{encoder}, {row}")
    ax.set_yticks(y, names)
    ax.set_xlabel("average precision (%)")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    up, down = names[-1], names[0]
    figure.alt_text = (
        f"Average precision of {len(names)} classes, {encoder} ({row}) beside [CLS]: most gained "
        f"by {up} ({ap[up] - cls[up]:+.1f}), least by {down} ({ap[down] - cls[down]:+.1f})."
    )
    return figure


def read_results(folder: Path) -> tuple[dict[tuple[str, str], dict], list[dict]]:
    """The results in a folder: those at the paper's setting by (data set, encoder), and the rest.

    A file that is no result is passed over and named.
    """
    papers, others = {}, []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            key, fits = (result["dataset"], result["encoder"]), result["papers_setting"]
        except (ValueError, KeyError, TypeError):
            print(f"{path.name} is no result of the reproduction: passed over.")
            continue
        if fits and key[0] in REPORTED and key[1] in REPORTED[key[0]]:
            papers[key] = result
        else:
            others.append(result)
    return papers, others


def papers_table(papers: Mapping[tuple[str, str], dict]) -> pd.DataFrame:
    """Reported, as released and ours, for each data set and encoder; empty where nothing was run.

    Only results at the paper's setting fill a cell: whole splits, its CLIP, float32. A ``*`` marks
    a classifier that is Stage I's, since Stage II kept nothing.
    """
    lines, index = [], []
    for dataset, encoders in REPORTED.items():
        for encoder, reported in encoders.items():
            result = papers.get((dataset, encoder))
            line = {"reported": f"{reported:.1f}"}
            for row, column in COLUMNS.items():
                line[column] = _cell(result, row) if result else ""
            lines.append(line)
            index.append((CALLED[dataset], encoder))
    index = pd.MultiIndex.from_tuples(index, names=("data set", "encoder"))
    return pd.DataFrame(lines, index=index)


def own_table(results: Mapping[str, dict]) -> pd.DataFrame:
    """The same of other runs, such as the mini world's: {encoder: result}, nothing reported."""
    lines = {
        encoder: {"[CLS]": _cell(result, CLS_ROW)}
        | {column: _cell(result, row) for row, column in COLUMNS.items()}
        for encoder, result in results.items()
    }
    return pd.DataFrame(lines).T.rename_axis("encoder")


def _cell(result: Mapping[str, Any], row: str) -> str:
    m = result["rows"][row]["absent"]
    return f"{m['map']:.1f} [{m['low']:.1f}, {m['high']:.1f}]{_mark(result, row)}"


# Time


def operations(width: int, depth: int, tokens: int, patch: int = 16) -> float:
    """Multiplications of a ViT for one picture: matrices of the blocks, attention, patches.

    Examples
    --------
    >>> round(operations(768, 12, 197) / 1e9, 1)  # ViT-B/16 at 224 px
    17.6
    """
    block = 12 * tokens * width**2 + 2 * tokens**2 * width
    return depth * block + (tokens - 1) * 3 * patch**2 * width


def hours_table(learn_rate: float, test_rate: float) -> pd.DataFrame:
    """Hours of each data set's two passes at the given images per second, to two digits."""
    lines = {
        CALLED[name]: {
            "pictures to learn from": learn,
            "pictures to test on": test,
            "hours, about": _two_digits((learn / learn_rate + test / test_rate) / 3600),
        }
        for name, (learn, test) in PICTURES.items()
    }
    return pd.DataFrame(lines).T.astype({"pictures to learn from": int, "pictures to test on": int})


def _two_digits(x: float) -> str:
    return f"{float(f'{x:.2g}'):g}"


# Exercises


def exercise_1(answer: Callable) -> None:
    """Check ``answer(labels, scores, difficult)``: one class's AP, difficult pictures left out."""

    def right(labels, scores, difficult):
        ap = average_precision(labels[:, None], scores[:, None], difficult[:, None])
        return np.asarray(ap[0])

    check_function(answer, right, [_ranked(n) for n in (3, 5, 30)], "Exercise 1")


def _ranked(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and marks of n pictures; the second best is difficult, and no positive.

    Some scores are negative, so that a difficult picture is not left out by a score of zero.
    """
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 2 == 0
    scores = np.linspace(-0.1, -0.9, n)
    difficult = ~labels & ((np.arange(n) == 1) | (rng.random(n) < 0.3))
    return labels.astype(int), scores, difficult


def exercise_2(answer: Callable) -> None:
    """Check ``answer(q)``: which patches of one class the released Stage II keeps, as bool [n]."""
    cases = [
        torch.tensor([1.0, 1.0, 1.0]),
        torch.tensor([1.0, 1.0, 1.0, 0.5]),
        torch.tensor([0.75, 0.25]),  # tells the unbiased deviation from the other
        torch.tensor([0.9, 0.5, 0.6, 0.4]),
        torch.tensor([0.7]),
    ]

    def right(q):
        return q >= q.mean() + (q.std() if len(q) > 1 else torch.inf)

    def strict(q):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*[Dd]egrees of freedom")
            try:
                return answer(q)
            except (UserWarning, RuntimeWarning) as warning:
                said = type(warning)(
                    "a lone patch has no deviation, std() warns and gives NaN. Treat len(q) < 2 "
                    "before you call std()."
                )
                raise said.with_traceback(warning.__traceback__) from None

    asked = strict if callable(answer) else answer
    check_function(asked, right, [(q,) for q in cases], "Exercise 2")


def exercise_3(answer: object) -> None:
    """Check the choice: which of four runs may stand in the paper's table."""
    wrong = {
        "a": "The first 500 pictures are another test set, and mAP moves with it.",
        "b": "Another CLIP is another method's number, however good it is.",
        "d": "PASCAL's protocol leaves those pairs out; the paper's counts them as absent.",
    }
    why = "Whole splits, the paper's CLIP and its protocol; going on after a kill changes no bit."
    check_choice(answer, "c", wrong, "Exercise 3", why)
