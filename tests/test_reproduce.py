"""The reproduction: the same bits after any kill, nothing mixed, and honest about its numbers."""

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from piaa_utils import reproduce, resume
from piaa_utils.__main__ import main
from piaa_utils.aggregation import cls_scores
from piaa_utils.backbone import load_backbone
from piaa_utils.constants import CONSTANTS
from piaa_utils.datasets import VOC_CLASSES, mini_scenes
from piaa_utils.images import UnreadableImage
from piaa_utils.metrics import mean_average_precision
from piaa_utils.pipeline import PIAA
from piaa_utils.selection import PatchBank

N = 6  # pictures of each split, three batches
MINI = ["reproduce", "--dataset", "mini", "--limit", str(N), "--save-every", "1"]
MINI += ["--batch-size", "2"]
TWO = ["--encoder", "scclip", "sclip"]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mini():
    backbone = load_backbone(device="cpu")
    real, known = backbone.encode_text, {}

    def encode_text(*arguments):
        if str(arguments) not in known:
            known[str(arguments)] = real(*arguments)
        return known[str(arguments)]

    backbone.encode_text = encode_text
    return backbone


@pytest.fixture(autouse=True)
def quick(monkeypatch, mini):
    """A checkpoint after every shard, few resamples, and the mini-CLIP, and its text, read once."""
    real = reproduce.load_backbone

    def load(name, weights=None, device=None, **options):
        usual = name == "mini" and options == {"precision": "fp32"}
        return mini if usual else real(name, weights, device, **options)

    monkeypatch.setattr(reproduce, "load_backbone", load)
    monkeypatch.setattr(resume, "SAVING_SHARE", float("inf"))
    boot = reproduce.bootstrap_map
    monkeypatch.setattr(reproduce, "bootstrap_map", lambda *a, **k: boot(*a, n=20, **k))


def outcome(folder):
    """All files of a finished run; of the results, all but how the run went."""
    out = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            out[path.name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "run"}
        elif path.is_file():
            out[path.relative_to(folder).as_posix()] = path.read_bytes()
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted, in which nothing but the resamples is replaced."""
    folder = tmp_path_factory.mktemp("whole")
    boot = reproduce.bootstrap_map
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "bootstrap_map", lambda *a, **k: boot(*a, n=20, **k))
        main([*MINI, *TWO, "--out", str(folder)])
    return folder


# Killed and resumed

KILLED = """
import os, signal, sys
from pathlib import Path
from piaa_utils import reproduce, resume
from piaa_utils.__main__ import main

resume.SAVING_SHARE, real = float("inf"), resume.write_whole


def die(when, at):
    calls = []

    def write_whole(path, data):
        calls.append(path)
        if len(calls) == at and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if len(calls) == at and when == "half":
            part = Path(path).with_name(f".{path.name}.{os.getpid()}.part")
            part.write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, data)
        if len(calls) == at and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    resume.write_whole = write_whole
    main(sys.argv[1:])


# The first dies in the first pass, so does the second while it writes, the third in the second.
for when, at in (("after", 1), ("half", 2), ("before", 4)):
    child = os.fork()  # before any work, so that the libraries are loaded once
    if child == 0:
        die(when, at)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not list(Path(sys.argv[-1]).glob("*.json"))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_killed_process_goes_on_to_the_same_bits(whole, tmp_path, capsys):
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    arguments = [*MINI, "--out", str(tmp_path)]
    command = [sys.executable, "-c", KILLED, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    main(arguments)
    assert "Going on from" in capsys.readouterr().out
    found = outcome(tmp_path)
    assert found and found == {k: v for k, v in outcome(whole).items() if k in found}
    (result,) = (json.loads(p.read_text()) for p in tmp_path.glob("mini-scclip*.json"))
    assert result["run"]["resumed"] == 3


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.mark.parametrize(
    ("place", "name", "at"),
    [
        (reproduce, "encode", {1, 3, 5}),  # within the passes
        (PIAA, "fit_bank", {2, 3}),  # between two classifiers
        (resume, "write_whole", {1, 3, 6}),  # at checkpoints
        (reproduce, "write_whole", {1, 6, 14}),  # among the files of the results
        (shutil, "rmtree", {1}),  # at the very end
    ],
)
def test_it_goes_on_wherever_it_was_stopped(place, name, at, whole, tmp_path, monkeypatch):
    real, calls, stopped = getattr(place, name), [], 0

    def call(*arguments, **options):
        calls.append(name)
        if len(calls) in at:
            raise Killed
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, call)
    for _ in range(len(at)):
        with pytest.raises(Killed):
            main([*MINI, *TWO, "--out", str(tmp_path)])
        stopped += 1
    main([*MINI, *TWO, "--out", str(tmp_path)])
    assert stopped == len(at) and outcome(tmp_path) == outcome(whole)


def test_checkpoints_are_written_as_often_as_they_are_worth(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "SAVING_SHARE", 1e-9)
    keeper = resume.Keeper(tmp_path, "x", {"a": 1})
    keeper.save(resume.State(done=1), must=False)  # the first always
    keeper.save(resume.State(done=2), must=False)
    assert resume.read(keeper.path)[0]["done"] == 1
    keeper.save(resume.State(done=3))
    assert resume.read(keeper.path)[0]["done"] == 3


def test_the_bank_of_a_checkpoint_is_the_bank(tmp_path):
    bank = PatchBank(2, k=3)
    text = torch.eye(2, 4)
    x = torch.nn.functional.normalize(torch.randn(3, 5, 4), dim=-1)
    bank.update(x[:2], text, [0, 1])
    keeper = resume.Keeper(tmp_path, "x", {"a": 1})
    keeper.save(resume.State(banks={("e", "v"): bank}))
    cpu = SimpleNamespace(device=torch.device("cpu"))
    back = keeper.load({("e", "v"): PatchBank(2, k=3)}, cpu).banks["e", "v"]
    for one in (bank, back):
        one.update(x[2:], text, [2])
    assert all(torch.equal(value, back.state()[name]) for name, value in bank.state().items())
    with pytest.raises(ValueError, match="Only an empty bank"):
        bank.restore(back.state())


# Never mixed


def stop_after(monkeypatch, calls):
    """Let a run end in an interrupt after some batches; the runs after it do not."""
    real, left = reproduce.encode, [calls]

    def encode(*arguments):
        left[0] -= 1
        if left[0] == -1:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(reproduce, "encode", encode)


def test_an_interrupt_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    stop_after(monkeypatch, 2)
    with pytest.raises(SystemExit) as stop:
        main([*MINI, "--out", str(tmp_path)])
    assert stop.value.code == 130 and "goes on from" in capsys.readouterr().out


def test_the_checkpoint_of_other_settings_is_left_alone(tmp_path, monkeypatch, capsys):
    stop_after(monkeypatch, 2)
    with pytest.raises(SystemExit):
        main([*MINI, "--out", str(tmp_path)])
    (theirs,) = tmp_path.glob("unfinished/*/checkpoint.safetensors")
    before = theirs.read_bytes()
    main([*MINI, "--batch-size", "5", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    said = f"Left alone: the unfinished run {theirs.parent}, of other batch_size (2, here 5). If"
    assert said in out and "remove that folder" in out
    assert "Going on" not in out and theirs.read_bytes() == before
    theirs.write_bytes(b"nonsense")
    main([*MINI, "--batch-size", "4", "--out", str(tmp_path)])
    assert "which cannot be read" in capsys.readouterr().out


def test_what_differs_is_said_with_both_values_if_they_are_short():
    ours = {"device": "cpu: 2 threads", "code_hash": "a" * 64, "versions": {"torch": "2", "x": "1"}}
    theirs = {"device": "cpu: 1 threads", "code_hash": "b" * 64, "versions": {"torch": "3"}}
    assert resume.differing(theirs, ours) == [
        "code_hash",
        "device (cpu: 1 threads, here cpu: 2 threads)",
        "versions: torch (3, here 2)",
        "versions: x (None, here 1)",
    ]
    assert resume.differing(ours, ours) == []
    assert resume.differing(ours, theirs | {"versions": {}}) == [
        "code_hash",
        "device (cpu: 2 threads, here cpu: 1 threads)",
        "versions",
    ]


def test_two_processes_never_share_a_folder(tmp_path, monkeypatch, capsys):
    stop_after(monkeypatch, 2)
    with pytest.raises(SystemExit):
        main([*MINI, "--out", str(tmp_path)])
    (checkpoint,) = tmp_path.glob("unfinished/*/checkpoint.safetensors")
    lock = checkpoint.with_name("lock")
    assert not lock.exists(), "an interrupt gives the folder back"
    lock.write_text(str(os.getppid()))  # a process that lives
    for there in (True, False):  # also before its first checkpoint
        with pytest.raises(SystemExit) as stop:
            main([*MINI, "--out", str(tmp_path)])
        said = capsys.readouterr().err.strip()
        assert stop.value.code == 2 and "\n" not in said
        assert f"The process {os.getppid()} is at work" in said and f"remove {lock}" in said
        assert lock.is_file() and checkpoint.is_file() == there
        checkpoint.unlink(missing_ok=True)


def test_the_lock_of_a_dead_process_is_taken(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    keeper = resume.Keeper(tmp_path, "x", {"a": 1})
    for text in (str(dead.pid), str(os.getpid()), ""):  # the last was killed as it wrote its lock
        keeper.folder.mkdir(parents=True)
        keeper.lock.write_text(text)
        with keeper.alone():
            assert keeper.lock.read_text() == str(os.getpid())
        assert not list(tmp_path.iterdir()), "no folder without a checkpoint stays"


def test_what_became_another_s_lock_is_not_removed(tmp_path):
    keeper = resume.Keeper(tmp_path, "x", {"a": 1})
    with keeper.alone():
        keeper.lock.write_text("1")
    assert keeper.lock.read_text() == "1"


@pytest.mark.parametrize("how", ["cut short", "of another run", "without its classifiers"])
def test_a_checkpoint_that_does_not_fit_is_set_aside(how, whole, tmp_path, monkeypatch, capsys):
    stop_after(monkeypatch, 4 if "without" in how else 2)
    with pytest.raises(SystemExit):
        main([*MINI, *TWO, "--out", str(tmp_path)])
    (path,) = tmp_path.glob("unfinished/*/checkpoint.safetensors")
    if how == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "without its classifiers":
        (path.parent / "sclip-ours.safetensors").unlink()
    else:
        about, tensors = resume.read(path)
        about["of"]["batch_size"] = 3
        resume.safetensors.torch.save_file(tensors, path, {"piaa": json.dumps(about)})
    odd = path.read_bytes()
    main([*MINI, *TWO, "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "cannot be used" in out and "Going on" not in out
    (aside,) = tmp_path.glob("unfinished/*.aside-1")
    assert aside.read_bytes() == odd
    aside.unlink(), aside.parent.rmdir()
    assert outcome(tmp_path) == outcome(whole)


def test_the_same_run_again_measures_nothing(whole, tmp_path, monkeypatch, capsys):
    shutil.copytree(whole, tmp_path / "copy")
    monkeypatch.setattr(reproduce, "encode", None)
    main([*MINI, *TWO, "--out", str(tmp_path / "copy")])
    out = capsys.readouterr().out
    assert "Measured before" in out and "scclip, released" in out
    assert outcome(tmp_path / "copy") == outcome(whole)


def test_one_encoder_alone_gives_what_it_gives_beside_others(whole, tmp_path):
    main([*MINI, "--encoder", "sclip", "--out", str(tmp_path)])
    found = outcome(tmp_path)
    assert found and found == {k: v for k, v in outcome(whole).items() if k in found}


def test_an_older_result_is_named_before_the_work_and_moved_not_lost(
    whole, tmp_path, monkeypatch, capsys
):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "mini-sclip-first6.json"
    old = json.loads(path.read_text()) | {"key": "of older code"}
    old["settings"]["code_hash"] = "0" * 64
    path.write_text(json.dumps(old))
    arguments = [*MINI, "--encoder", "sclip", "--out", str(tmp_path)]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_after(patch, 0)
        main(arguments)
    assert f"Measuring again: {path} has other code_hash. It stays" in capsys.readouterr().out
    assert json.loads(path.read_text()) == old
    main(arguments)
    assert f"The older result {path.name} has other code_hash: it is" in capsys.readouterr().out
    (moved,) = tmp_path.glob(f"replaced/*/{path.name}")
    assert json.loads(moved.read_text()) == old
    assert len(list(moved.parent.iterdir())) == 4
    assert json.loads(path.read_text())["key"] != "of older code"


def test_a_result_that_lacks_a_file_is_measured_again(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mini-sclip-first6-scores.safetensors").unlink()
    main([*MINI, *TWO, "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "sclip-first6.json lacks its file mini-sclip-first6-scores.safetensors" in out
    assert "Measured before" in out, "the other encoder's result is whole"
    assert len(list(tmp_path.glob("replaced/*/*"))) == 3
    shutil.rmtree(tmp_path / "replaced")
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_results_of_one_second_are_moved_to_folders_of_their_own(text, tmp_path, capsys):
    job = job_of(tmp_path)
    path, scores = (tmp_path / f"mini-scclip-first6{s}" for s in (".json", "-scores.safetensors"))
    for content in "ab":
        scores.write_text(content)
        path.write_text(text)  # cut short, say
        os.utime(path, (1e9, 1e9))
        reproduce.move_old(job, "scclip")
    assert "is damaged" in capsys.readouterr().out
    assert not path.exists()
    assert sorted(p.read_text() for p in tmp_path.glob(f"replaced/*/{scores.name}")) == ["a", "b"]


def test_a_move_that_was_cut_short_goes_on_into_the_same_folder(tmp_path, monkeypatch):
    job = job_of(tmp_path)
    path, scores = (tmp_path / f"mini-scclip-first6{s}" for s in (".json", "-scores.safetensors"))
    scores.write_text(""), path.write_text("{")
    real = os.replace

    def once(old, new):
        real(old, new)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(reproduce.os, "replace", once)
        reproduce.move_old(job, "scclip")
    reproduce.move_old(job, "scclip")
    (folder,) = tmp_path.glob("replaced/*")
    assert {p.name for p in folder.iterdir()} == {path.name, scores.name}


# What is measured


def job_of(tmp_path, **options):
    options = {"limit": N, "batch_size": 4, "device": "cpu", "out": tmp_path} | options
    return reproduce.load_job(options.pop("dataset", "mini"), **options)


def test_scores_are_those_of_the_estimator(whole, capsys):
    result = json.loads((whole / "mini-scclip-first6.json").read_text())
    scores = load_file(whole / result["files"]["scores"])
    learn, test = mini_scenes("learn").paths[:N], mini_scenes("test").paths[:N]
    labels = mini_scenes("test").labels[:N]
    for variant, purify in (("released", "released"), ("ours", "spread")):
        piaa = PIAA(VOC_CLASSES, purify=purify, device="cpu", **CONSTANTS["mini"])
        with pytest.warns(UserWarning):
            expected = piaa.fit(learn).predict_proba(test)
        np.testing.assert_allclose(scores[variant], expected, atol=1e-4)
        loaded = PIAA.load(whole / result["files"][variant], VOC_CLASSES, device="cpu")
        np.testing.assert_allclose(loaded.predict_proba(test), scores[variant], atol=1e-4)
        mean = mean_average_precision(labels, scores[variant])
        row = result["rows"][variant]["absent"]
        assert row["map"] == pytest.approx(100 * mean.map)
        assert row["low"] <= row["map"] <= row["high"]
        named = dict(zip(VOC_CLASSES, 100 * mean.per_class, strict=True))
        assert row["per_class"]["dog"] == pytest.approx(named["dog"])
        absent = [c for c in VOC_CLASSES if not labels[:, VOC_CLASSES.index(c)].any()]
        left_out = [c for c in VOC_CLASSES if row["per_class"][c] is None]
        assert row["left_out"] == absent == left_out
    backbone = load_backbone(device="cpu")
    x = reproduce.encode(backbone, torch.stack([backbone.preprocess(im) for im in open_all(test)]))
    cls = cls_scores(x["cls"], backbone.encode_text(VOC_CLASSES), CONSTANTS["mini"]["cls_scale"])
    np.testing.assert_allclose(scores["[CLS]"], cls, atol=1e-5)


def open_all(paths):
    from piaa_utils.images import open_image

    return [open_image(path) for path in paths]


def test_the_result_says_what_it_depends_on_and_that_it_is_not_the_paper_s(whole):
    result = json.loads((whole / "mini-scclip-first6.json").read_text())
    settings = result["settings"]
    assert settings["encoders"] == ["scclip"] and settings["limit"] == N
    assert settings["backbone"]["weights_hash"] == load_backbone().weights_hash
    assert len(settings["learn_images_hash"]) == 64 and settings["versions"]["torch"]
    assert all(c["source"] for c in settings["constants"].values())
    assert not result["papers_setting"] and result["reported"] is None
    assert "only the first 6" in " ".join(result["differs"])
    assert set(result["run"]["images_per_second"]) == {"learn", "test"}
    assert result["stages"]["released"]["selected"]


@pytest.fixture
def voc(tmp_path):
    """VOC 2007 in little: mini pictures, some objects marked "difficult", a file that is none."""
    root = tmp_path / "VOCdevkit/VOC2007"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    scenes = mini_scenes("test")
    for split, start in (("trainval", 0), ("test", 8)):
        ids = scenes.ids[start : start + 8]
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(ids))
        for row, image_id in enumerate(ids, start):
            shutil.copy(scenes.paths[row], root / "JPEGImages")
            marked = [(n, n == "person" and row % 2) for n, _ in scenes.objects(image_id)]
            xml = "".join(
                f"<object><name>{n}</name><difficult>{int(d)}</difficult></object>"
                for n, d in marked
                if n in VOC_CLASSES
            )
            (root / f"Annotations/{image_id}.xml").write_text(f"<annotation>{xml}</annotation>")
    (root / "JPEGImages" / f"{scenes.ids[3]}.jpg").write_text("no picture")
    (root / "JPEGImages" / f"{scenes.ids[9]}.jpg").write_text("no picture")
    return tmp_path


def test_both_protocols_and_unreadable_pictures(voc, capsys):
    out = voc / "out"
    arguments = ["reproduce", "--dataset", "voc07", "--data-root", str(voc), "--backbone", "mini"]
    main([*arguments, "--batch-size", "2", "--out", str(out)])
    said = capsys.readouterr().out
    assert "difficult = absent" in said and "difficult = ignored" in said and "92.5" in said
    assert "1 of 8 pictures of the stage learn cannot be read" in said
    assert "Not the paper's number: 8 and 8 pictures, not 5,011 and 4,952." in said
    assert "Not the paper's number: 2 unreadable pictures left out." in said
    (path,) = out.glob("*.json")
    result = json.loads(path.read_text())
    assert result["reported"] == 92.5 and not result["papers_setting"]
    assert [index for index, *_ in result["skipped"]["test"]] == [1]
    assert result["skipped"]["learn"][0][1].endswith(".jpg")
    data = reproduce.load_world("voc07", voc, "test")
    assert data.difficult.any()
    scores = load_file(out / result["files"]["scores"])["released"].numpy()
    assert np.isnan(scores).all(axis=1).tolist() == [i == 1 for i in range(8)]
    read = [i for i in range(8) if i != 1]
    for protocol, ignore in (("absent", None), ("ignored", data.difficult[read])):
        expected = mean_average_precision(data.labels[read], scores[read], ignore).map
        assert result["rows"]["released"][protocol]["map"] == pytest.approx(100 * expected)
    main([*arguments, "--batch-size", "2", "--out", str(out), "--difficult", "ignored"])
    said = capsys.readouterr().out
    assert "difficult = ignored" in said and "difficult = absent" not in said


def test_if_nothing_can_be_read_it_says_so(voc, capsys):
    for path in (voc / "VOCdevkit/VOC2007/JPEGImages").iterdir():
        path.write_text("no picture")
    job = job_of(voc, dataset="voc07", data_root=voc, backbone="mini", limit=None)
    with pytest.raises(UnreadableImage, match="None of the 8 pictures of the stage learn"):
        reproduce.run(job)


def test_unreadable_pictures_at_the_end_after_a_resume(voc, monkeypatch):
    """The rest of a pass may be unreadable as a whole; that is no reason to stop."""
    folder = voc / "VOCdevkit/VOC2007"
    for image_id in (folder / "ImageSets/Main/trainval.txt").read_text().split()[4:]:
        (folder / f"JPEGImages/{image_id}.jpg").write_text("no picture")
    options = {"dataset": "voc07", "data_root": voc, "backbone": "mini", "limit": None, "shard": 1}
    job = job_of(voc, **options)
    real = resume.Keeper.save

    def save(self, state, must=True):
        real(self, state, must)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(resume.Keeper, "save", save)
        reproduce.run(job)
    (result,) = reproduce.run(job)
    assert [index for index, *_ in result["skipped"]["learn"]] == [3, 4, 5, 6, 7]


def test_features_that_are_not_finite_name_the_picture():
    x = {"cls": torch.ones(2, 3), "scclip": torch.ones(2, 4, 3)}
    reproduce.check_finite(x, ["a.jpg", "b.jpg"])
    x["scclip"][1, 2, 0] = torch.inf
    with pytest.raises(ValueError, match="scclip features of b.jpg are not finite"):
        reproduce.check_finite(x, ["a.jpg", "b.jpg"])


# Hashes, names, and what is the paper's


def test_the_hash_of_images_follows_names_order_and_size_not_the_place(tmp_path):
    hashes = []
    for folder, names in (("a", "xy"), ("b", "xy"), ("c", "yx"), ("d", "xz")):
        (tmp_path / folder).mkdir()
        paths = [tmp_path / folder / name for name in names]
        for path in paths:
            path.write_text(path.name)
        hashes.append(reproduce.images_hash(paths))
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3
    (tmp_path / "a" / "x").write_text("longer")
    assert reproduce.images_hash([tmp_path / "a" / n for n in "xy"]) not in hashes
    (tmp_path / "a" / "x").unlink()
    assert reproduce.images_hash([tmp_path / "a" / n for n in "xy"]) not in hashes


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"batch_size": 5}, "batch_size"),
        ({"class_names": ("a", "b")}, "class_names"),
        ({"limit": 5}, "limit"),
        ({"encoders": ("sclip",)}, "encoders"),
        ({"labels": np.ones((N, 20), np.int8)}, "labels_hash"),
        ({"dataset": "coco"}, "constants"),
    ],
)
def test_the_key_follows_the_settings(change, field, tmp_path):
    job = job_of(tmp_path)
    other = replace(job, **change)
    assert resume.key_of(other.identity) != resume.key_of(job.identity)
    assert other.identity[field] != job.identity[field]


def test_comments_and_docstrings_do_not_count_as_code():
    text = b'''"""Module."""\nclass A:\n    """Class."""\n\n    def f(self):\n        return 1\n'''
    other = text.replace(b"Module", b"Words").replace(b"Class", b"More") + b"# why\n\n"
    assert reproduce.bare(text) == reproduce.bare(other)
    assert reproduce.bare(text) != reproduce.bare(text.replace(b"1", b"2"))


def test_a_result_depends_on_all_code_but_what_reads_a_data_set():
    found, rest = set(), ["reproduce"]
    while rest:
        found.add(name := rest.pop())
        tree = ast.parse((ROOT / f"piaa_utils/{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("piaa_utils"):
                _, _, module = node.module.partition(".")
                rest += {module} - found if module else {a.name for a in node.names} - found
    readers = {"coco", "datasets", "folder", "labelled", "nus_wide", "worlds"}
    assert found - set(reproduce.CODE) == readers | {"files", "messages"}
    assert set(reproduce.CODE) <= found


def test_the_papers_clip_is_known_by_its_tag_or_its_file(tmp_path, monkeypatch):
    assert reproduce.papers_clip("ViT-B-16-quickgelu/openai", "openai")
    assert not reproduce.papers_clip("mini", None)
    file = tmp_path / "ViT-B-16.pt"
    file.write_text("weights")
    name = "ViT-B-16-quickgelu/ViT-B-16.pt"
    assert not reproduce.papers_clip(name, str(file))
    url = {"url": f"https://example.org/{reproduce.sha256(b'weights')}/ViT-B-16.pt"}
    monkeypatch.setattr(reproduce.open_clip, "get_pretrained_cfg", lambda *_: url)
    assert reproduce.papers_clip(name, str(file))


def test_a_result_at_the_papers_setting_is_known_as_one(tmp_path):
    job = job_of(tmp_path)
    clip = SimpleNamespace(name="ViT-B-16-quickgelu/openai", precision="fp32")
    n, m = reproduce.PICTURES["voc07"]
    options = {"dataset": "voc07", "backbone": clip, "weights": "openai", "limit": None}
    job = replace(job, **options, learn=[Path("x")] * n, test=[Path("x")] * m)
    assert reproduce.differences(job, resume.State(), "scclip") == []
    assert job.stem("scclip") == "voc07-scclip"
    reasons = reproduce.differences(job, resume.State(), "vanilla")
    assert reasons == ["the encoder vanilla, for which the paper reports nothing"]
    clip.precision, clip.name = "amp", "ViT-L-14/x y"
    reasons = " ".join(reproduce.differences(job, resume.State(), "scclip"))
    assert "precision amp" in reasons and "ViT-L-14" in reasons
    assert job.stem("scclip") == "voc07-scclip-ViT-L-14-x-y-amp"


def test_only_a_data_set_s_usual_backbone_is_left_out_of_the_name(tmp_path):
    job = job_of(tmp_path)
    assert job.stem("scclip") == "mini-scclip-first6"
    assert replace(job, dataset="voc07").stem("scclip") == "voc07-scclip-mini-first6"
    clip = SimpleNamespace(name="ViT-B-16-quickgelu/openai", precision="fp32")
    for dataset, stem in (
        ("mini", "mini-scclip-ViT-B-16-quickgelu-openai-first6"),
        ("coco", "coco-scclip-first6"),
    ):
        other = replace(job, dataset=dataset, backbone=clip, weights="openai")
        assert other.stem("scclip") == stem


def test_the_device_is_named_with_what_decides_the_last_bits(monkeypatch):
    assert f"{torch.get_num_threads()} threads" in reproduce.device_name(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    assert reproduce.device_name(torch.device("cuda")) == "cuda: a GPU"
    assert reproduce.device_name(torch.device("mps")) == "mps"


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "voc07"], "needs --data-root"),
        (["--dataset", "voc07", "--data-root", "/nowhere"], "/nowhere"),
        (["--dataset", "mini", "--data-root", "x"], "leave out --data-root"),
        (["--dataset", "mini", "--limit", "0"], "limit must be 1 or more"),
        (["--dataset", "mini", "--device", "cpu", "--precision", "amp"], "is for CUDA"),
        (["--dataset", "mini", "--backbone", "ViT-B-16-quickgelu", "--pretrained", "no"], "'no'"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_2(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *arguments, "--out", str(tmp_path)])
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and message in said and "\n" not in said


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "python -m piaa_utils predict: interrupted."),
        (ImportError("x needs y: pip install y."), 2, "predict: x needs y: pip install y."),
        (ModuleNotFoundError("No module named 'y'", name="y"), 2, "with pip install -e ."),
    ],
)
def test_any_command_ends_in_one_sentence(error, code, said, monkeypatch, capsys):
    def import_module(name):
        raise error

    monkeypatch.setattr("piaa_utils.__main__.importlib.import_module", import_module)
    with pytest.raises(SystemExit) as stop:
        main(["predict"])
    line = capsys.readouterr().err.strip()
    assert stop.value.code == code and line.endswith(said) and "\n" not in line


def test_weights_that_cannot_be_had_are_an_error_too(voc, monkeypatch, capsys):
    def create_model(*_, **__):
        raise RuntimeError("no network")

    monkeypatch.setattr("open_clip.create_model", create_model)
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--dataset", "voc07", "--data-root", str(voc), "--out", str(voc)])
    assert stop.value.code == 2 and "no network" in capsys.readouterr().err


def test_what_is_not_there_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no data set 'x'"):
        job_of(tmp_path, dataset="x")
    with pytest.raises(ValueError, match="no encoder 'x'"):
        job_of(tmp_path, encoders=["x"])
    empty = SimpleNamespace(labels=np.zeros((3, 2)), difficult=np.zeros((3, 2)), paths=[1, 2, 3])
    monkeypatch.setattr(reproduce, "load_split", lambda *_: empty)
    with pytest.raises(ValueError, match="None of the 3 test pictures of mini has a label"):
        job_of(tmp_path)
