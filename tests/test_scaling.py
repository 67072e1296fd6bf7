"""PIAA on a cluster: the same bits as in one process, whatever the shards and whoever dies."""

import importlib.util
import os
import pickle
import random
import signal
import sys
import warnings

import dask
import numpy as np
import pytest
import torch
from distributed import KilledWorker
from PIL import Image

from piaa_utils import images, scaling
from piaa_utils.backbone import load_backbone
from piaa_utils.datasets import mini_scenes
from piaa_utils.images import UnreadableImage
from piaa_utils.pipeline import PIAA, identity
from piaa_utils.selection import COLUMNS

NAMES = ("cat", "dog", "person", "chair", "bottle")
BATCH = 4
PATIENT = {"distributed.comm.timeouts.connect": "300s", "distributed.comm.timeouts.tcp": "300s"}


def piaa(**settings):
    return PIAA(NAMES, n_select=8, batch_size=BATCH, progress=False, **settings)


@pytest.fixture(scope="module")
def paths():
    return [str(path) for path in mini_scenes("learn").paths[:32]]


@pytest.fixture(scope="module")
def alone(paths):
    """Fitted in this process alone."""
    with scaling.torch_threads(1):
        return piaa().fit(paths)


@pytest.fixture(scope="module")
def client():
    with dask.config.set(PATIENT), scaling.connect(workers=2) as client:
        yield client


def job(threads=1, **settings):
    """What every shard of this estimator is given."""
    one = piaa(**settings)
    expected = identity(load_backbone(device=settings.get("device")))
    return {"settings": scaling._settings(one), "expected": expected, "threads": threads}


@pytest.fixture(scope="module")
def shards_here(paths):
    """The parts of the shards, computed in this process."""
    cuts = scaling.shards(len(paths), BATCH, batches_per_shard=1)
    with scaling.torch_threads(1):
        return [scaling._select_shard(c.start, paths[c.start : c.stop], **job()) for c in cuts]


def same(a, b):
    """The classifiers agree in every bit."""
    return torch.equal(a.coef_, b.coef_) and torch.equal(a.intercept_, b.intercept_)


def broken_files(tmp_path, paths):
    """24 images, of which number 5 and the whole second shard of eight cannot be read."""
    mixed = list(paths[:24])
    for i in (5, *range(8, 16)):
        mixed[i] = str(tmp_path / f"broken_{i}.jpg")
        (tmp_path / f"broken_{i}.jpg").write_text("no picture")
    return mixed


def told(work):
    """The result of some work and the warnings about unreadable images."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    return result, [str(w.message) for w in caught if "cannot be read" in str(w.message)]


# Shards and merging, without a cluster


def test_shards_are_whole_batches_and_cover_all_images():
    for n, batch_size, batches in ((1, 4, 1), (48, 4, 5), (49, 7, 2), (50, 64, 8)):
        parts = scaling.shards(n, batch_size, batches)
        assert [i for part in parts for i in part] == list(range(n))
        assert all(part.start % batch_size == 0 for part in parts)
        assert all(len(part) == batch_size * batches for part in parts[:-1])
    with pytest.raises(ValueError, match="must be 1 or more: got 0 and 8"):
        scaling.shards(10, 0)


def merged_somehow(parts, rng):
    """Merge parts in a random order along a random tree."""
    parts = rng.sample(parts, len(parts))
    while len(parts) > 1:
        i = rng.randrange(len(parts) - 1)
        parts[i : i + 2] = [scaling.merge_parts(parts[i], parts[i + 1])]
    return parts[0]


def test_any_order_and_any_tree_of_merges_give_the_same_bits(shards_here, alone):
    assert len(shards_here) == 8
    rng = random.Random(0)
    first = merged_somehow(shards_here, rng)
    for _ in range(12):
        other = merged_somehow(shards_here, rng)
        for name in COLUMNS:
            assert torch.equal(getattr(other.bank, name), getattr(first.bank, name)), name
        assert sorted(other.log) == sorted(first.log)
    with scaling.torch_threads(1):
        assert same(piaa().fit_bank(first.bank), alone)


def test_a_worker_returns_no_more_than_a_bank(shards_here):
    width, classes, k = 128, len(NAMES), 8
    rows = classes * k * (4 * (width + classes) + 5 * 8)
    whole = merged_somehow(shards_here, random.Random(1))
    assert len(whole.bank) < sum(len(part.bank) for part in shards_here)
    assert len(whole.bank) <= classes * k
    assert all(len(pickle.dumps(part)) < rows + 8000 for part in (*shards_here, whole))


def test_the_log_of_a_shard(shards_here):
    (log,) = shards_here[1].log
    assert (log.first, log.images, log.pid) == (4, 4, os.getpid())
    assert 0 < log.cpu_seconds and 0 < log.seconds and log.memory > 1e8


def test_a_shard_without_one_readable_image_is_named_and_changes_nothing(
    shards_here, paths, tmp_path
):
    mixed = broken_files(tmp_path, paths)
    (none, messages) = told(lambda: scaling._select_shard(8, mixed[8:16], **job()))
    assert none.bank is None and not messages, "the client warns, once for all shards"
    assert [i for i, _, _ in none.skipped] == list(range(8, 16))
    assert none.skipped[0][1] == mixed[8] and "broken_8.jpg: not an image" in none.skipped[0][2]
    for merged in (
        scaling.merge_parts(none, shards_here[0]),
        scaling.merge_parts(shards_here[0], none),
    ):
        assert merged.bank is shards_here[0].bank and len(merged.skipped) == 8


def test_a_shard_that_could_be_read_a_moment_later_is_named_too(paths, monkeypatch):
    """As on a network drive that was away: what was not used is never passed over in silence."""
    real, left = images.open_image, [4]

    def open_image(source):
        left[0] -= 1
        if left[0] >= 0:
            raise UnreadableImage(f"{source}: away")
        return real(source)

    monkeypatch.setattr(images, "THREADS", 1)
    monkeypatch.setattr(images, "open_image", open_image)
    part = scaling._select_shard(4, paths[:4], **job())
    assert part.bank is None and [i for i, _, _ in part.skipped] == [4, 5, 6, 7]


def test_scores_of_a_shard(alone, paths, tmp_path):
    mixed = broken_files(tmp_path, paths)
    learned = {name: getattr(alone, name) for name in scaling.LEARNED}
    with scaling.torch_threads(1):
        first, rows, skipped = scaling._predict_shard(4, mixed[4:8], **job(), learned=learned)
        expected, _ = told(lambda: alone.predict_proba(mixed[4:8]))
    assert first == 4 and [i for i, _, _ in skipped] == [5]
    np.testing.assert_array_equal(rows, expected)
    _, rows, skipped = scaling._predict_shard(8, mixed[8:12], **job(), learned=learned)
    assert rows.shape == (4, len(NAMES)) and np.isnan(rows).all() and len(skipped) == 4


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), scaling.torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_a_worker_sets_its_threads():
    with scaling.torch_threads(2):
        scaling._loaded(**job(threads=1))
        assert torch.get_num_threads() == 1


def test_memory_where_the_system_keeps_no_peak(monkeypatch):
    def no_file(*_):
        raise FileNotFoundError

    monkeypatch.setattr(scaling, "open", no_file, raising=False)
    assert scaling.peak_memory() > 1e7


# Errors, without a cluster


def test_pictures_and_loaded_backbones_are_refused(paths):
    with pytest.raises(ValueError, match="paths, not pixels, and image 1 is a Image: save"):
        scaling.fit(piaa(), [paths[0], Image.new("RGB", (8, 8))], client=None)
    with pytest.raises(ValueError, match="cannot load this Backbone: give PIAA the backbone's"):
        scaling.fit(piaa(backbone=load_backbone(device="cpu")), paths, client=None)


def test_paths_reach_workers_in_other_folders(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert scaling._paths(["a.jpg"]) == [str(tmp_path / "a.jpg")]
    (tmp_path / "weights.pt").write_text("")
    settings = pickle.loads(scaling._settings(piaa(pretrained="weights.pt")))
    assert settings["pretrained"] == str(tmp_path / "weights.pt")
    assert pickle.loads(scaling._settings(piaa(pretrained="openai")))["pretrained"] == "openai"


def test_a_worker_with_other_weights_refuses():
    given = job()
    given["expected"] = given["expected"] | {"weights_hash": "other"}
    with pytest.raises(ValueError, match=r"another backbone mini than the client \(weights_hash\)"):
        scaling._loaded(**given)


def test_a_shard_that_ends_its_workers_is_told_in_one_sentence():
    error = scaling._in_words(KilledWorker("key", None, 3), range(8, 16))
    assert isinstance(error, RuntimeError) and "Images 8 to 15 ended several" in str(error)
    other = ValueError("as it is")
    assert scaling._in_words(other, range(8, 16)) is other


def test_a_cluster_has_workers():
    with pytest.raises(ValueError, match="workers must be 1 or more, but is 0"):
        with scaling.connect(workers=0):
            pass


def test_without_dask_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    spec = importlib.util.spec_from_file_location("scaling_alone", scaling.__file__)
    with pytest.raises(ImportError, match="needs the packages dask and distributed: pip install"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


# On the cluster


def test_two_workers_give_the_bits_of_one_process(client, paths, alone):
    batches_per_shard = 3
    calls = []
    more = {"on_shard": lambda done, total: calls.append((done, total))}
    far = scaling.fit(piaa(), paths, client, batches_per_shard, **more)
    assert same(far, alone) and torch.equal(far.text_, alone.text_)
    assert far.report_ == alone.report_ and far.skipped_ == []
    total = len(scaling.shards(32, BATCH, batches_per_shard))
    assert calls == [(i + 1, total) for i in range(total)]
    assert [log.first for log in far.shards_] == list(range(0, 32, BATCH * batches_per_shard))
    assert os.getpid() not in {log.pid for log in far.shards_}


def test_one_worker_through_an_address_gives_the_same(client, paths, alone):
    (worker, *_) = client.scheduler_info()["workers"]
    with scaling.connect(client.scheduler.address) as other:
        far = scaling.fit(piaa(), paths, other, 5, workers=[worker])
    assert same(far, alone)
    assert len({log.pid for log in far.shards_}) == 1
    assert client.run(os.getpid)  # the cluster that was only visited goes on


def test_the_backbone_is_loaded_once_in_each_process(client, paths):
    loads = client.run(lambda: scaling._backbone.cache_info().misses)
    others = PIAA(("sofa", "train"), n_select=4, progress=False)
    told(lambda: scaling.fit(others, paths[:8], client, 1))
    assert set(client.run(lambda: scaling._backbone.cache_info().misses).values()) <= {0, 1}
    assert max(loads.values()) == 1
    assert set(client.run(torch.get_num_threads).values()) == {1}


def test_scores_are_those_of_one_process(client, paths, alone, tmp_path):
    mixed = broken_files(tmp_path, paths)
    with scaling.torch_threads(1):
        expected, here = told(lambda: alone.predict_proba(mixed))
    skipped = alone.skipped_
    far = piaa()
    for name in ("text_", "coef_", "intercept_", "report_", "backbone_"):
        setattr(far, name, getattr(alone, name))
    far._remember()
    scores, there = told(lambda: scaling.predict_proba(far, mixed, client, 2))
    np.testing.assert_array_equal(scores, expected)
    assert scores.dtype == np.float32 and np.isnan(scores[5]).all()
    assert there == here and len(here) == 1 and far.skipped_ == skipped


def test_unreadable_images_are_named_as_in_one_process(client, paths, tmp_path):
    mixed = broken_files(tmp_path, paths)
    with scaling.torch_threads(1):
        one, here = told(lambda: piaa().fit(mixed))
    far, there = told(lambda: scaling.fit(piaa(), mixed, client, 2))
    assert same(far, one)
    assert far.skipped_ == one.skipped_ and len(far.skipped_) == 9
    assert there == here and "9 of 24 images cannot be read" in here[0]
    with pytest.raises(UnreadableImage, match="None of the 8 images can be read"):
        scaling.fit(piaa(), mixed[8:16], client, 1)


def test_the_error_of_a_shard_ends_the_work(client, paths, monkeypatch):
    monkeypatch.setattr(scaling, "identity", lambda backbone: identity(backbone) | {"std": 1})
    with pytest.raises(ValueError, match=r"another backbone mini than the client \(std\)"):
        scaling.fit(piaa(), paths, client, 1)
    monkeypatch.undo()
    told(lambda: scaling.fit(piaa(), paths[:8], client, 1))


def test_memory_of_a_worker_does_not_grow_with_the_images(client, paths):
    """If workers kept the pixels of what they have seen, this would fail."""
    few, many = paths[:16], paths * 3
    before = max(s.memory for s in scaling.fit(piaa(), few, client, 1).shards_)
    after = max(s.memory for s in scaling.fit(piaa(), many, client, 1).shards_)
    pixels = (len(many) - len(few)) / 2 * 3 * 224 * 224 * 4  # of each of two workers
    assert after - before < 0.8 * pixels


def test_a_killed_worker_costs_time_and_no_bit(client, paths, alone):
    """SIGKILL, as the system does it, while the worker computes a shard."""
    killed = []

    def kill(done, total):
        if done != 2:
            return
        busy = {worker for worker, keys in client.processing().items() if keys}
        pids = client.run(os.getpid)
        killed.append(pids[max(busy)])
        os.kill(killed[0], signal.SIGKILL)

    far = scaling.fit(piaa(), paths, client, 1, on_shard=kill)
    assert same(far, alone)
    assert [log.first for log in far.shards_] == list(range(0, 32, BATCH)), "each shard once"
    client.wait_for_workers(2, timeout=300)
    assert killed and killed[0] not in client.run(os.getpid).values()
