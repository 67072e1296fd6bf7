"""The reproduction: the same bits after any kill, nothing mixed, and honest about its numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from trees import names_of, write_voc

from piaa_utils import reproduce
from piaa_utils.__main__ import main
from piaa_utils.aggregation import cls_scores
from piaa_utils.backbone import load_backbone
from piaa_utils.classifier import Recipe
from piaa_utils.metrics import interval, mean_average_precision
from piaa_utils.pipeline import PIAA
from piaa_utils.reproduce import job_of
from piaa_utils.selection import PatchBank
from piaa_utils.walk import encoded
from piaa_utils.worlds import VOC_CLASSES, first, load_world, mini_scenes

N = 6  # pictures of each split, three batches
MINI = ["mini", "--limit", str(N), "--batch-size", "2", "--device", "cpu"]
TWO = ["--encoders", "scclip", "sclip"]
pytestmark = pytest.mark.filterwarnings("ignore:Stage I")  # too few pictures for all classes


@pytest.fixture(scope="module", autouse=True)
def mini():
    """The mini-CLIP, read once; a checkpoint after every batch; few resamples."""
    clip, real = load_backbone(device="cpu"), reproduce.load_backbone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "SAVING_SHARE", float("inf"))
        patch.setattr(reproduce, "interval", partial(interval, n=20))
        load = lambda name, *a, **k: clip if name == "mini" else real(name, *a, **k)  # noqa: E731
        patch.setattr(reproduce, "load_backbone", load)
        yield clip


def command(*words):
    main(["reproduce", *map(str, words)])


def refused(capsys, *words):
    """The one sentence in which a command ends."""
    with pytest.raises(SystemExit) as end:
        command(*words)
    said = capsys.readouterr().err.strip()
    assert end.value.code == 2 and "\n" not in said
    return said


def outcome(folder):
    """All files of a finished run; of the result, all but how the run went."""
    out = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            result = json.loads(path.read_text())
            out[path.name] = {k: v for k, v in result.items() if k != "run"}
        elif path.is_file() and path.suffix != ".lock":
            out[path.name] = path.read_bytes()
    return out


@pytest.fixture(scope="module")
def whole(mini, tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    command(*MINI, *TWO, "--out", folder)
    return folder


def result_of(folder):
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def scores_of(folder):
    (path,) = folder.glob("*-scores.safetensors")
    return load_file(path)


KILLED = """
import os, signal, sys
from piaa_utils import reproduce
from piaa_utils.__main__ import main

reproduce.SAVING_SHARE, real, calls = float("inf"), os.replace, []


def replace(part, path):
    calls.append(part)
    if len(calls) == 2:  # when the second checkpoint is written, but not yet in its place
        os.kill(os.getpid(), signal.SIGKILL)
    real(part, path)


os.replace = replace
main(sys.argv[1:])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill")
def test_a_killed_process_goes_on_to_the_same_bits(whole, tmp_path, capsys):
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    arguments = [*MINI, *TWO, "--out", str(tmp_path)]
    program = [sys.executable, "-c", KILLED, "reproduce", *arguments]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and not list(tmp_path.glob("*.json")), done.stderr
    command(*arguments)
    assert ": 2 pictures learned, 0 tested" in capsys.readouterr().out
    (part,) = tmp_path.glob(".*.part")  # what it was writing
    part.unlink()
    assert outcome(tmp_path) == outcome(whole)
    assert result_of(tmp_path)["run"]["resumed"] == 1


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def stop(monkeypatch, place, name, at, error=Killed):
    """Let one function stop the process at some of its calls."""
    real, calls = getattr(place, name), []

    def call(*arguments, **options):
        if not str(arguments[0]).endswith(".part"):
            calls.append(name)
            if len(calls) in at:
                raise error
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, call)


def run_and_stop(monkeypatch, place, name, at, *words):
    """Run a command as often as it is stopped, then to its end."""
    stop(monkeypatch, place, name, at)
    for _ in at:
        with pytest.raises(Killed):
            command(*words)
    command(*words)


@pytest.mark.parametrize(
    ("place", "name", "at"),
    [
        (reproduce, "walk", {1, 3}),  # before the passes
        (PatchBank, "update", {1, 3, 6}),  # within the first
        (PIAA, "score_features", {2, 5, 9}),  # within the second, between its rows
        (PIAA, "fit_bank", {2, 3}),  # between two classifiers
        (reproduce, "write_whole", {1, 3, 6, 9}),  # at checkpoints and files of the results
        (PIAA, "save", {2, 4}),  # among the classifiers
        (Path, "unlink", {1}),  # at the very end
    ],
)
def test_it_goes_on_wherever_it_was_stopped(place, name, at, whole, tmp_path, monkeypatch):
    run_and_stop(monkeypatch, place, name, at, *MINI, *TWO, "--out", tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_on_a_pretended_gpu_too(gpu, whole, tmp_path, monkeypatch):
    clip = gpu.move(load_backbone(device="cpu"))
    monkeypatch.setattr(reproduce, "load_backbone", lambda *_, **__: clip)
    monkeypatch.setattr(reproduce, "device_name", str)
    command(*MINI, "--out", tmp_path / "whole")
    for place, name, at in ((PatchBank, "update", {2, 4}), (PIAA, "score_features", {3, 6})):
        folder = tmp_path / name
        with monkeypatch.context() as patch:
            run_and_stop(patch, place, name, at, *MINI, "--out", folder)
        assert outcome(folder) == outcome(tmp_path / "whole")
        assert result_of(folder)["run"]["resumed"] > 0
    for row, there in scores_of(tmp_path / "whole").items():
        torch.testing.assert_close(there, scores_of(whole)[row], atol=1e-4, rtol=0)


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """The folder of a run that was interrupted in its first pass."""
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        stop(patch, PatchBank, "update", {3}, KeyboardInterrupt)
        command(*MINI, "--out", tmp_path)
    assert end.value.code == 130
    return tmp_path


OTHER = {  # settings: what is said where a checkpoint has others
    "--batch-size 5": "batch_size (2, here 5)",
    "--encoders sclip": "encoders (['scclip'], here ['sclip'])",
    "--limit 5": "images_hash",
    "--scales 1 2 3": "scales",
}


def test_a_checkpoint_of_other_settings_or_a_damaged_one_is_refused(unfinished, capsys):
    path = unfinished / "mini.unfinished.safetensors"
    before = path.read_bytes()
    for words, said in OTHER.items():
        error = refused(capsys, *MINI, *words.split(), "--out", unfinished)
        assert said in error and str(path) in error
        assert path.read_bytes() == before and not list(unfinished.glob("*.json"))
    with safe_open(path, framework="pt") as file:
        no_rows = save({"a": torch.ones(1)}, file.metadata())
    for data in (before[:-100], b"nonsense", no_rows):
        path.write_bytes(data)
        assert "is damaged" in refused(capsys, *MINI, "--out", unfinished)


def test_runs_with_different_settings_do_not_share_a_name(tmp_path):
    variants = [words.split() for words in ("", *OTHER)]
    stems = {job_of(*MINI, *words, "--out", str(tmp_path)).stem for words in variants}
    assert len(stems) == len(variants) and all(stem.startswith("mini-s") for stem in stems)


def test_two_processes_never_work_on_the_same(tmp_path, capsys):
    with filelock.FileLock(tmp_path / ".mini.lock"):
        said = refused(capsys, *MINI, "--out", tmp_path)
        assert "Another process is at work on mini" in said
    command(*MINI, "--out", tmp_path)  # the lock of a dead process is none


def test_the_same_run_again_is_refused(whole, capsys):
    before, (path,) = outcome(whole), whole.glob("*.json")
    said = refused(capsys, *MINI, *TWO, "--out", whole)
    assert said.endswith(f"{path} was measured before: remove it to measure again.")
    assert outcome(whole) == before


def test_scores_are_those_of_the_estimator(whole, mini):
    result, scores = result_of(whole), scores_of(whole)
    assert result["settings"]["backbone"]["weights_hash"] == mini.weights_hash
    assert not result["papers_setting"] and result["reported"] == {}
    learn, test = (first(mini_scenes(split), N) for split in ("learn", "test"))
    for variant, purify in (("plain", None), ("released", "released")):
        piaa = PIAA(VOC_CLASSES, mini, recipe=Recipe(purify=purify)).fit(learn.paths)
        mine = scores[f"scclip, {variant}"]
        (file,) = whole.glob(f"*-scclip-{variant}.safetensors")
        for each in (piaa, PIAA.load(file, backbone=mini)):
            np.testing.assert_allclose(mine, each.predict_proba(test.paths), atol=1e-4)
        row = result["rows"][f"scclip, {variant}"]["absent"]
        mean = mean_average_precision(test.labels, mine.numpy(), class_names=VOC_CLASSES)
        assert row["point"] == pytest.approx(mean.map) and row["low"] <= row["high"]
        each = np.array(list(row["per_class"].values()), dtype=float)  # None becomes NaN
        np.testing.assert_allclose(each, mean.per_class)
        assert row["left_out"] == [k for k, v in row["per_class"].items() if v is None]
    cls, text = encoded(mini, test, ()).cls, mini.encode_text(VOC_CLASSES)
    np.testing.assert_allclose(scores["[CLS]"], cls_scores(cls, text, mini.scales.s), atol=1e-5)


def test_one_encoder_alone_gives_what_it_gives_beside_others(whole, tmp_path):
    command(*MINI, "--encoders", "sclip", "--out", tmp_path)
    one, both = result_of(tmp_path)["rows"], result_of(whole)["rows"]
    assert len(one) == 3 and one == {row: both[row] for row in one}


@pytest.fixture
def voc(tmp_path):
    """VOC 2007 in little: mini pictures, some objects marked "difficult", two files that are none.

    The words of a command that measures it.
    """
    root, scenes = tmp_path / "VOCdevkit/VOC2007", mini_scenes("test")
    for split, rows in (("trainval", range(8)), ("test", range(8, 16))):
        objects = {scenes.ids[i]: [(name, i % 2) for name in names_of(scenes, i)] for i in rows}
        write_voc(root, objects, split)
        for i in rows:
            shutil.copy(scenes.paths[i], root / "JPEGImages")
    for i in (3, 9):
        (root / "JPEGImages" / f"{scenes.ids[i]}.jpg").write_text("no picture")
    how = ["--backbone", "mini", "--batch-size", 2]
    return ["voc07", "--data-root", tmp_path, "--out", tmp_path, *how]


def test_both_protocols_and_unreadable_pictures(voc, tmp_path, capsys):
    command(*voc)
    said = capsys.readouterr().out
    assert "difficult = absent       difficult = ignored   reported" in said and "92.5" in said
    assert "learn: 1 of 8 pictures cannot be read" in said
    assert "number: 8 and 8 pictures, not 5,011 and 4,952." in said
    assert "number: 2 unreadable pictures left out." in said
    result = result_of(tmp_path)
    assert result["reported"]["scclip"] == 92.5 and not result["papers_setting"]
    assert result["settings"]["scales"]["s"] == 80.0, "the paper's, on whatever backbone"
    assert [index for index, *_ in result["skipped"]["test"]] == [1]
    data = load_world("voc07", "test", tmp_path)
    scores = scores_of(tmp_path)["scclip, released"].numpy()
    read = [i for i in range(8) if i != 1]
    assert np.flatnonzero(~np.isnan(scores).any(axis=1)).tolist() == read
    for protocol, ignore in (("absent", None), ("ignored", data.difficult[read])):
        expected = mean_average_precision(data.labels[read], scores[read], ignore).map
        row = result["rows"]["scclip, released"][protocol]
        assert data.difficult.any() and row["point"] == pytest.approx(expected)
    lines = {line[:16]: line for line in reproduce.format_result(result).splitlines()}
    assert lines["scclip, released"].endswith(" 92.5") and "92.5" not in lines["scclip, plain   "]


def test_unreadable_pictures_at_the_end_after_a_resume(voc, tmp_path, monkeypatch):
    """The rest of a pass may be unreadable as a whole; that is no reason to stop."""
    folder = tmp_path / "VOCdevkit/VOC2007"
    for image_id in (folder / "ImageSets/Main/trainval.txt").read_text().split()[4:]:
        (folder / f"JPEGImages/{image_id}.jpg").write_text("no picture")
    run_and_stop(monkeypatch, reproduce, "write_whole", {3}, *voc)
    assert [index for index, *_ in result_of(tmp_path)["skipped"]["learn"]] == [3, 4, 5, 6, 7]


def test_the_papers_clip_is_known_by_its_tag_or_its_file(tmp_path, monkeypatch):
    name, file = "ViT-B-16-quickgelu/x", tmp_path / "ViT-B-16.pt"
    file.write_text("weights")
    assert reproduce.papers_clip(name, "openai")
    assert not any(reproduce.papers_clip(*x) for x in (("mini", None), ("ViT-L-14/x", "openai")))
    assert not reproduce.papers_clip(name, str(file))
    url = {"url": f"https://example.org/{reproduce.sha256(b'weights')}/ViT-B-16.pt"}
    monkeypatch.setattr(reproduce.open_clip, "get_pretrained_cfg", lambda *_: url)
    assert reproduce.papers_clip(name, str(file))


def test_a_result_at_the_papers_setting_is_known_as_one(tmp_path):
    job = job_of(*MINI, "--out", str(tmp_path))
    job.dataset, job.entry = "coco", reproduce.WORLDS["coco"]
    job.weights, job.scales = "openai", job.entry.scales
    job.backbone = SimpleNamespace(name="ViT-B-16-quickgelu/openai", precision="fp32")
    job.learn, job.test = map(range, job.entry.pictures)
    assert reproduce.differences(job) == []
    job.backbone, job.scales = SimpleNamespace(name="ViT-L-14/x", precision="amp"), (80, 200, 500)
    assert [r.split()[1] for r in reproduce.differences(job)] == ["backbone", "amp", "scales"]


def test_no_label_at_all_is_refused(monkeypatch):
    empty = SimpleNamespace(labels=np.zeros((3, 2)))
    monkeypatch.setattr(reproduce, "first", lambda *_: empty)
    with pytest.raises(ValueError, match="None of the test pictures of mini has a label"):
        job_of("mini")
