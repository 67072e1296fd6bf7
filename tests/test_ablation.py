"""The ablation: what each row computes, to the literal figure; `make run` runs the whole."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from piaa_utils import ablation
from piaa_utils.__main__ import main
from piaa_utils.backbone import load_backbone
from piaa_utils.classifier import Learned, Recipe
from piaa_utils.pipeline import PIAA
from piaa_utils.settings import Scales
from piaa_utils.walk import encoded
from piaa_utils.worlds import VOC_CLASSES, first, mini_scenes

TEXT = torch.eye(2)
CLS = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
PATCHES = torch.tensor([[[1.0, 0.0], [0.8, 0.6]], [[0.0, 1.0], [0.6, 0.8]]])
LEARNED = Learned(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 0.5]), {})
SCALES = Scales(s=2.0, m=3.0, T=0.5)
SCALES_OF = {"sclip": {"s": 4.0, "m": 1.0}, "itaclip": {"m": 2.0, "T": 1.0}}
CONSTANTS = {"cls_alone": 5.0, "text": 4.0, "scales_of": SCALES_OF}
TEXT_READS = (0.982014, 0.310026)  # 4 cos, the larger of two patches
PAA = (0.885514, 0.203347)  # 0.9 softmax(3 e) + 0.1 softmax(2 cos)
# What each row reads, and how; its s, m, T (None: it uses none); and class 0's share of each
# picture by hand: of two classes softmax gives 1 / (1 + exp(difference)).
_ = None
WANTED = {
    "[CLS]": (_, _, "cls", (5, _, _), (0.993307, 0.268941)),
    "text on vanilla patches": ("vanilla", _, "max", (_, _, 0.25), TEXT_READS),
    "text on SC-CLIP's patches": ("scclip", _, "max", (_, _, 0.25), TEXT_READS),
    "+ PVCL": ("scclip", Recipe(), "max", (_, _, 0.5), (0.952574, 0.450166)),  # (x.W + b) / 0.5
    "+ PAA = PIAA": ("scclip", Recipe(), "paa", (2, 3, 0.5), PAA),
    "PIAA of SCLIP": ("sclip", Recipe(), "paa", (4, 1, 0.5), (0.696295, 0.37028)),
    "PIAA of ITACLIP": ("itaclip", Recipe(), "paa", (2, 2, 1), (0.724232, 0.341741)),
    "GDA, the masks' labels": ("scclip", "masks", "max", (_, _, 0.5), (0.952574, 0.450166)),
    "[CLS], paper's s": (_, _, "cls", (80, _, _), (1.0, 1.12535e-07)),
    "PIAA, paper's s, m": ("scclip", Recipe(), "paa", (80, 200, 0.5), (1.0, 1.12535e-08)),
}
UNKNOWN = {  # s, m, T of a model without constants, where that makes a difference
    "[CLS]": (2, _, _),
    "text on vanilla patches": (_, _, 1 / 60),
    "text on SC-CLIP's patches": (_, _, 1 / 60),
    "PIAA of SCLIP": (2, 3, 0.5),
    "PIAA of ITACLIP": (2, 3, 0.5),
}


def test_every_row_has_its_literal_scales_and_gives_its_literal_figure():
    rows, plain = ablation.ladder(SCALES, CONSTANTS), ablation.ladder(SCALES, {})
    model = SimpleNamespace(scales=SCALES, constants=CONSTANTS)
    own = [ablation.scales_of(model, encoder)[:3] for encoder in ("sclip", "itaclip", "scclip")]
    assert own == [(4, 1, 0.5), (2, 2, 1), (2, 3, 0.5)]
    assert set(rows) == set(plain) == set(WANTED) == {*ablation.ROWS, *ablation.PAPERS}
    for name, (encoder, recipe, pool, scales, wanted) in WANTED.items():
        row = rows[name]
        assert (row.name, *row[1:3], row.pool) == (name, encoder, recipe, pool)
        for given, expected in ((row, scales), (plain[name], UNKNOWN.get(name, scales))):
            for value, number in zip(given.scales, expected, strict=False):
                assert number is None or value == pytest.approx(number), name
        learned = LEARNED if row.recipe else None
        scores = row.score(CLS, PATCHES if row.encoder else None, TEXT, learned)
        np.testing.assert_allclose(scores[:, 0], wanted, rtol=2e-5, atol=1e-12, err_msg=name)


def test_the_row_piaa_is_the_estimator():
    backbone, world = load_backbone(device="cpu"), first(mini_scenes("learn"), 30)
    row = ablation.ladder(backbone.scales, backbone.constants)["+ PAA = PIAA"]
    seen, text = encoded(backbone, world, ("scclip",)), backbone.encode_text(VOC_CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without a patch in so few pictures
        learned = ablation.learn(row, seen, np.zeros(0), text, VOC_CLASSES)
        piaa = PIAA(VOC_CLASSES, backbone, progress=False).fit(world.paths)
    scores = row.score(seen.cls, seen.patches["scclip"], text, learned)
    np.testing.assert_allclose(scores, piaa.predict_proba(world.paths), atol=1e-5)


def test_the_ceiling_learns_what_the_masks_say():
    x = torch.nn.functional.normalize(torch.randn(3, 40, 8) + 4 * torch.eye(8)[:, None][:3], dim=-1)
    text = torch.eye(8)[:4]
    truth = np.repeat([[1], [0], [2]], 40, axis=1)  # not what the text would say; none of class 3
    truth[:, :5] = -3
    learned = ablation.learn_from_masks(x, truth, text, k=10)
    assert learned.report["selected"] == [10, 10, 10, 0]
    read = (x @ learned.W + learned.b)[..., :3].argmax(-1)
    assert (read == torch.tensor([[1], [0], [2]])).float().mean() > 0.95


def test_scenes_are_chosen_by_their_rule():
    areas = np.zeros((5, 5))
    areas[0, :3] = 50, 40, 30
    areas[1, :3] = 50, 40, 20  # its smallest is class 2 too, and smaller
    areas[2, 2:] = 60, 9, 7
    areas[3, :2] = 5, 5  # two classes only
    areas[4, :3] = 50, 3, 90
    cls = np.tile([5.0, 4.0, 0.0, 3.0, 0.0], (5, 1))  # its three best: 0, 1, 3
    piaa = np.tile([5.0, 4.0, 3.0, 0.0, 2.0], (5, 1))  # 0, 1, 2
    piaa[2] = [5, 0, 0, 1, 2]  # 0, 4, 3: object 4 is missed by [CLS], 3 is not
    scenes = ablation.choose_scenes(areas, cls, piaa)
    assert [scene[:2] for scene in scenes] == [(2, 4), (1, 2), (4, 1)]
    assert scenes[0][2:] == ([0, 1, 3], [0, 4, 3])  # the tags of [CLS], of PIAA


def test_a_scene_shows_the_map_of_its_object_rows_first(monkeypatch):
    i = int((mini_scenes("val_unseen").labels.sum(1) >= 3).argmax())
    world = first(mini_scenes("val_unseen"), i + 1)
    shown = np.flatnonzero(world.labels[i])
    smallest = min(shown, key=lambda k: (world.mask(i) == k).sum())
    g = torch.zeros(i + 1, 9, len(VOC_CLASSES))
    g[i, 2, smallest] = 1.0  # top right
    monkeypatch.setattr(ablation.plots, "scenes_figure", lambda rows: rows)
    piaa = world.labels.astype(float)
    ((_, cls_tags, piaa_tags, grid, name),) = ablation.draw_scenes(world, -piaa, piaa, g)
    assert name == VOC_CLASSES[smallest] and grid[0, 2] == 1 and grid.sum() == 1
    assert set(piaa_tags) == {VOC_CLASSES[k] for k in shown} and not set(cls_tags) & set(piaa_tags)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without a patch in so few pictures
        patch.setattr(ablation, "mini_scenes", lambda *a: first(mini_scenes(*a), 24))
        main(["run", "--out", str(folder / "out"), "--cache", str(folder / "cache")])
        patch.setattr("piaa_utils.walk.walk", None)  # a second run must not encode the splits
        second = ablation.run(folder / "out2", folder / "cache")
    return folder / "out", json.loads((folder / "out/ablation.json").read_text()), second


def test_gains_are_differences_of_rows_with_an_interval_around_them(run):
    _, result, _ = run
    assert len(ablation.ROWS) == 8 and len(ablation.GAINS) == 5
    cells = {(e["name"], e["set"]): e for e in result["table"]}
    assert set(cells) == {(r, c) for r in ablation.ROWS for c in ablation.COLUMNS}
    assert all(0 < e["low"] < e["high"] <= 100 for e in cells.values())
    assert len(result["gains"]) == 5 * len(ablation.COLUMNS)
    for g in result["gains"]:
        better, worse = ablation.GAINS[g["name"]]
        if better in ablation.ROWS:
            points = cells[better, g["set"]]["value"] - cells[worse, g["set"]]["value"]
            assert g["value"] == pytest.approx(points, abs=1e-6)
        assert g["low"] < g["high"]


def test_pictures_are_saved_and_a_second_run_encodes_nothing(run):
    out, first_time, second = run
    for name in ("ablation.png", "scenes.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert first_time["table"] == second["table"] and first_time["gains"] == second["gains"]
    lines = ablation.format_table(second["gains"], "points", sign="+").splitlines()
    assert len(lines) == 1 + 5 and "+" in lines[-1]


def test_the_table_in_readme_has_today_s_rows():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for name in (*ablation.ROWS, *ablation.GAINS):
        line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        assert line.count("[") - name.count("[") == len(ablation.COLUMNS), line
