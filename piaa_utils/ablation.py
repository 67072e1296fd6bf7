"""``piaa run``: what each step of PIAA adds, measured on the embedded mini world."""

import argparse
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from piaa_utils import plots
from piaa_utils.aggregation import cls_scores, evidence, paa, posterior
from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.classifier import Learned, Recipe, fit_gda
from piaa_utils.files import make_folder, write_whole
from piaa_utils.metrics import interval
from piaa_utils.settings import BANK_SIZE, SELECTION_SCALE, Scales
from piaa_utils.walk import Encoded, encoded
from piaa_utils.worlds import VOC_CLASSES, World, mini_long_classes, mini_scenes, patch_truth

COLUMNS = {  # where it is measured, learned from which pictures, for which classes
    "test": ("test", "learn", lambda: VOC_CLASSES),
    "test_unseen": ("test_unseen", "learn_unseen", lambda: VOC_CLASSES),
    "test, long list": ("test", "learn", mini_long_classes),
}
PIAA_ROW = "+ PAA = PIAA"
PAPERS = ("PIAA, paper's s, m", "[CLS], paper's s")  # in no line of the table
GAINS = {  # (better, worse)
    "PIAA - [CLS]": (PIAA_ROW, "[CLS]"),
    "the same at the paper's s, m": PAPERS,
    "encoder: SC-CLIP's text - vanilla's": ("text on SC-CLIP's patches", "text on vanilla patches"),
    "PVCL - text, same patches": ("+ PVCL", "text on SC-CLIP's patches"),
    "PAA - maximum of the patches": (PIAA_ROW, "+ PVCL"),
}
MASKS = "masks"  # a recipe: as many patches of each class, named by the masks instead of the text
Scores = dict[tuple[str, str], np.ndarray]  # [n, C] of each (row, column)


class Row(NamedTuple):
    """One way to score pictures."""

    name: str
    encoder: str | None  # whose patches; None, where [CLS] alone is asked
    recipe: Recipe | str | None  # of the classifier that reads them, or MASKS; None: the text does
    scales: Scales
    pool: str  # "cls", "max" (over the patches, of their posteriors) or "paa"

    def score(
        self, cls: Tensor, patches: Tensor | None, text: Tensor, learned: Learned | None = None
    ) -> Tensor:
        """Scores of pictures from their features (PIAA, PAA and what it is compared with).

        [n, D] unit [CLS], [n, N, D] unit patches of the row's encoder, [C, D] unit text, and what
        ``recipe`` gave (None: cosines read the patches) to [n, C] from 0 to 1.

        >>> row = Row("text", "vanilla", None, Scales(T=0.5), "max")
        >>> row.score(torch.eye(1, 2), torch.eye(2)[None], torch.eye(2)).round(decimals=2)
        tensor([[0.8800, 0.8800]])
        """
        if self.pool == "cls" or patches is None:
            return cls_scores(cls, text, self.scales.s)
        logits = patches @ text.T if learned is None else patches @ learned.W + learned.b
        if self.pool == "max":
            return evidence(posterior(logits, self.scales.T))
        return paa(logits, cls, text, self.scales)


def scales_of(backbone: Backbone, encoder: str) -> Scales:
    """The scales chosen for an encoder of this model; where there are none, the model's."""
    own = backbone.constants.get("scales_of", {}).get(encoder)
    return backbone.scales._replace(**own) if own else backbone.scales


def ladder(scales: Scales, constants: dict[str, Any]) -> dict[str, Row]:
    """All rows by name, with the scales of a model: ``backbone.scales``, ``backbone.constants``."""
    alone = Scales(s=constants.get("cls_alone", scales.s))
    text = Scales(T=1 / constants.get("text", SELECTION_SCALE))  # softmax(60 cos)
    papers = Scales(T=scales.T)  # s = 80, m = 200
    own = constants.get("scales_of", {})
    of_sclip, of_itaclip = (scales._replace(**own.get(e, {})) for e in ("sclip", "itaclip"))
    rows = (
        Row("[CLS]", None, None, alone, "cls"),
        Row("text on vanilla patches", "vanilla", None, text, "max"),
        Row("text on SC-CLIP's patches", "scclip", None, text, "max"),
        Row("+ PVCL", "scclip", Recipe(), scales, "max"),
        Row(PIAA_ROW, "scclip", Recipe(), scales, "paa"),
        Row("PIAA of SCLIP", "sclip", Recipe(), of_sclip, "paa"),
        Row("PIAA of ITACLIP", "itaclip", Recipe(), of_itaclip, "paa"),
        Row("GDA, the masks' labels", "scclip", MASKS, scales, "max"),
        Row(PAPERS[0], "scclip", Recipe(), papers, "paa"),
        Row(PAPERS[1], None, None, papers, "cls"),
    )
    return {row.name: row for row in rows}


ROWS = tuple(name for name in ladder(Scales(), {}) if name not in PAPERS)  # of the table


def learn(
    row: Row, seen: Encoded, truth: np.ndarray, text: Tensor, names: Sequence[str]
) -> Learned | None:
    """A row's classifier, from pictures to learn from, whose patches show `truth` [n, N]."""
    if row.encoder is None or row.recipe is None:
        return None
    patches = seen.patches[row.encoder]
    if not isinstance(row.recipe, Recipe):
        return learn_from_masks(patches, truth, text)
    bank = row.recipe.bank(len(text))
    for ids in torch.tensor(seen.ids).split(100):
        bank.update(patches[ids], text, ids.tolist())
    return row.recipe.learn(bank, text, names)


def learn_from_masks(
    patches: Tensor, truth: np.ndarray, text: Tensor, k: int = BANK_SIZE
) -> Learned:
    """GDA on k patches of each class, as many as in a bank, spread over all that truly show it."""
    shown = torch.from_numpy(truth.astype(np.int64)).flatten()
    of_class = [(shown == c).nonzero().flatten() for c in range(len(text))]
    rows = torch.cat([r[np.linspace(0, len(r) - 1, min(k, len(r))).astype(int)] for r in of_class])
    gda = fit_gda(patches.flatten(0, 1)[rows], shown[rows], torch.ones(len(rows)), text)
    W, b = (torch.as_tensor(x.copy(), dtype=torch.float32) for x in (gda.coef_.T, gda.intercept_))
    return Learned(W, b, {"selected": [min(k, len(r)) for r in of_class]})


def measure(backbone: Backbone, cache: Path) -> tuple[Scores, plots.Figure]:
    """The scores of all rows in all columns, and the picture."""
    rows, scores = ladder(backbone.scales, backbone.constants), Scores()
    readers = sorted({r.encoder for r in rows.values() if r.encoder})
    learners = sorted({r.encoder for r in rows.values() if r.encoder and r.recipe})
    for column, (split, source, classes) in COLUMNS.items():
        seen = encoded(backbone, mini_scenes(source), learners, cache, desc=source)
        test = encoded(backbone, mini_scenes(split), readers, cache, desc=split)
        names = classes()
        text = backbone.encode_text(names).cpu()  # as the features
        truth = patch_truth(mini_scenes(source, names), backbone.grid, backbone.image_size)
        learned: dict[tuple, Learned | None] = {}
        for name, row in rows.items():
            if (key := row[1:3]) not in learned:
                learned[key] = learn(row, seen, truth, text, names)
            patches = test.patches[row.encoder] if row.encoder else None
            scores[name, column] = row.score(test.cls, patches, text, learned[key]).numpy()
        if column == "test_unseen" and (W := learned[rows[PIAA_ROW][1:3]]):
            g = posterior(test.patches["scclip"] @ W.W + W.b, backbone.scales.T)
            cls, piaa = scores["[CLS]", column], scores[PIAA_ROW, column]
            picture = draw_scenes(mini_scenes(split), cls, piaa, g)
    return scores, picture


def choose_scenes(
    areas: np.ndarray, cls: np.ndarray, piaa: np.ndarray, n: int = 3
) -> list[tuple[int, int, list[int], list[int]]]:
    """Pictures that show what PIAA adds: (picture, class, [CLS]'s best, PIAA's best) of each.

    Of pictures with three classes or more: the smallest objects, each of another class, that are
    among PIAA's best classes and (but for a lack of such) not among [CLS]'s.

    areas : [pictures, C] pixels of each class, 0 where it is not shown. cls, piaa : scores alike.
    """
    found = []
    for i in np.flatnonzero((areas > 0).sum(1) >= 3).tolist():
        count = (areas[i] > 0).sum()
        a, b = (np.argsort(-s[i], kind="stable")[:count].tolist() for s in (cls, piaa))
        found += [((c in a, areas[i, c], i), (i, c, a, b)) for c in b if areas[i, c]]
    chosen: list[tuple[int, int, list[int], list[int]]] = []
    for _, scene in sorted(found):
        if not any(scene[0] == i or scene[1] == c for i, c, *_ in chosen):
            chosen.append(scene)
    return chosen[:n]


def draw_scenes(world: World, cls: np.ndarray, piaa: np.ndarray, g: Tensor) -> plots.Figure:
    """Each scene, its tags by the scores [n, C] of [CLS] and PIAA, its object in g [n, N, C]."""
    masks, C, names = [world.mask(i) for i in range(len(world))], len(cls[0]), world.class_names
    areas = np.stack([np.bincount(m[m >= 0], minlength=C) for m in masks if m is not None])
    rows = []
    for i, c, *best in choose_scenes(areas, cls, piaa):
        by_cls, by_piaa = ([names[k] for k in classes] for classes in best)
        grid = g[i, :, c].unflatten(0, (int(g.shape[1] ** 0.5), -1))
        rows.append((world[i], by_cls, by_piaa, grid.numpy(), names[c]))
    return plots.scenes_figure(rows)


def summary(scores: Scores) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Table and gains: mAP or points, each with its 95 % interval, by row and column."""
    table, gains = list[dict[str, Any]](), list[dict[str, Any]]()
    for column, (split, _, classes) in tqdm(COLUMNS.items(), desc="intervals", delay=2):
        y = mini_scenes(split, classes()).labels
        for name, (a, b) in ({row: (row, "") for row in ROWS} | GAINS).items():
            value, low, high = interval(y, scores[a, column], scores.get((b, column)))
            entry = {"name": name, "set": column, "value": value, "low": low, "high": high}
            (gains if name in GAINS else table).append(entry)
    return table, gains


def format_table(entries: list[dict[str, Any]], head: str, sign: str = "") -> str:
    """Table or gains as text, a line a row."""
    lines = [f"{head:<36}" + "".join(f"{c:>24}" for c in COLUMNS)]
    for name in dict.fromkeys(e["name"] for e in entries):
        cells = [[e[k] for k in ("value", "low", "high")] for e in entries if e["name"] == name]
        text = (f"{v:>{sign}10.1f} [{a:{sign}5.1f}, {b:{sign}5.1f}]" for v, a, b in cells)
        lines.append(f"{name:<36}" + "".join(text))
    return "\n".join(lines)


def run(out: Path, cache: Path) -> dict[str, Any]:
    """Measure, print the table, and write ablation.json, ablation.png and scenes.png to `out`."""
    make_folder(out)
    backbone = load_backbone(device="cpu")
    scores, picture = measure(backbone, cache)
    table, gains = summary(scores)
    result = {
        "table": table,
        "gains": gains,
        "rows": {n: r._asdict() for n, r in ladder(backbone.scales, backbone.constants).items()},
        "backbone": backbone.identity(),
        "versions": {p: version(p) for p in ("torch", "open_clip_torch", "scikit-learn", "numpy")},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    chart = plots.ablation_figure(table, title="PIAA on the mini world, step by step")
    write_whole(out / "ablation.json", (json.dumps(result, indent=1) + "\n").encode())
    write_whole(out / "ablation.png", plots.png_bytes(chart))
    write_whole(out / "scenes.png", plots.png_bytes(picture))
    print(format_table(table, "mAP (%) [95 % interval]"))
    print("\n" + format_table(gains, "gain in points", sign="+"))
    print(f"\nSaved: ablation.json, ablation.png and scenes.png in {out}")
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m piaa_utils run``."""
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="to reuse work from")


def run_command(options: argparse.Namespace) -> None:
    """``python -m piaa_utils run``: :func:`run` with the options of the command line."""
    run(options.out, options.cache)
