"""The ablation's parts, on a few pictures; `make run` runs the whole."""

import json
import warnings

import numpy as np
import pytest

from piaa_utils import ablation
from piaa_utils.__main__ import main
from piaa_utils.datasets import data_dir
from piaa_utils.patch_labels import MIXED, patch_labels


def small_world(folder):
    """A data folder with the mini-CLIP and the first 40 pictures of each split."""
    scenes = folder / "mini_scenes"
    (scenes / "ImageSets/Main").mkdir(parents=True)
    whole = data_dir() / "mini_scenes"
    (folder / "mini_clip").symlink_to(data_dir() / "mini_clip")
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "labels.txt"):
        (scenes / name).symlink_to(whole / name)
    for path in (whole / "ImageSets/Main").iterdir():
        ids = path.read_text().split()[:40]
        (scenes / "ImageSets/Main" / path.name).write_text("\n".join(ids))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    world = small_world(folder / "data")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without a patch in so few pictures
        patch.setenv("PIAA_DATA", str(world))
        main(["run", "--out", str(folder / "out"), "--cache", str(folder / "cache")])
        patch.setattr(ablation, "features", None)  # a second run must not encode the splits
        second = ablation.run(folder / "out2", folder / "cache")
    return folder, json.loads((folder / "out/ablation.json").read_text()), second


def test_the_table_has_every_row_and_column_with_its_interval(run):
    _, result, _ = run
    cells = {(e["name"], e["set"]): e for e in result["table"]}
    assert set(cells) == {(r, c) for r in ablation.ROWS for c in ablation.COLUMNS}
    for e in cells.values():
        assert 0 < e["value"] <= 100 and e["low"] < e["high"] and e["seconds"] > 0


def test_gains_are_differences_of_the_table(run):
    _, result, _ = run
    cells = {(e["name"], e["set"]): e["value"] for e in result["table"]}
    for g in result["gains"]:
        better, worse = ablation.STEPS[g["step"]]
        difference = cells[better, g["set"]] - cells[worse, g["set"]]
        assert g["gain"] == pytest.approx(difference, abs=1e-6)


def test_pictures_are_saved_and_a_second_run_computes_nothing_again(run):
    folder, first, second = run
    for name in ("ablation.png", "scene.png"):
        assert (folder / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert [e["value"] for e in first["table"]] == [e["value"] for e in second["table"]]


def test_fingerprint_follows_the_files(tmp_path):
    (tmp_path / "a").write_text("one")
    before = ablation.fingerprint(tmp_path)
    assert ablation.fingerprint(tmp_path) == before
    (tmp_path / "a").write_text("two")
    assert ablation.fingerprint(tmp_path) != before


def test_a_line_tells_two_cones_apart_and_not_one_cloud():
    rng = np.random.default_rng(0)
    images, text = rng.normal(size=(200, 8)), rng.normal(size=(40, 8))
    assert ablation.separability(images + 5, text) > 0.99
    assert ablation.separability(images, text) < 0.75


def test_patch_labels_of_known_masks():
    mask = np.full((4, 4), -1)
    mask[:2, :2] = [[3, 3], [3, -1]]
    mask[2:, 2:] = [[4, 4], [5, 5]]
    assert patch_labels(mask, 2, share=0.7).tolist() == [3, -1, -1, MIXED]
    # Half and half: the larger index. With a small share, the one that covers most.
    assert patch_labels(mask, 2).tolist() == [3, -1, -1, 5]
    mask[:2, 2:] = [[7, 7], [7, 9]]
    assert patch_labels(mask, 2, share=0.2)[1] == 7
    with pytest.raises(ValueError, match="does not divide into 3 x 3"):
        patch_labels(mask, 3)
    with pytest.raises(ValueError, match="share above 0"):
        patch_labels(mask, 2, share=0)
