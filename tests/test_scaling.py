"""PIAA on a cluster: the same bits as in one process, whatever the shards and whoever dies."""

import os
import pickle
import random
import signal
import warnings
from types import SimpleNamespace

import dask
import pytest
import torch
from distributed import KilledWorker
from PIL import Image

from piaa_utils import PIAA, Recipe, load_backbone, mini_scenes, scaling
from piaa_utils.images import UnreadableImage

NAMES = ("cat", "dog", "person", "chair", "bottle")
BATCH = 4
PATIENT = {f"distributed.comm.timeouts.{kind}": "300s" for kind in ("connect", "tcp")}
PATIENT["distributed.scheduler.worker-ttl"] = None  # a busy machine starves workers for minutes


def piaa(**settings):
    return PIAA(NAMES, recipe=Recipe(k=8), batch_size=BATCH, progress=False, **settings)


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


@pytest.fixture(scope="module")
def select():
    """What a worker does: select the patches of some images, in this process."""
    backbone = load_backbone(device="cpu")
    given = {
        "settings": scaling._settings(piaa()),
        "load": pickle.dumps(scaling._loader(backbone)),
        "expected": scaling._about(backbone),
        "threads": 1,
    }

    def select(first, paths):
        with scaling.torch_threads(1):
            return scaling._select_shard(first, paths, **given)

    return select


@pytest.fixture
def mixed(tmp_path, paths):
    """24 images, of which number 5 and the whole second shard of eight cannot be read."""
    mixed = list(paths[:24])
    for i in (5, *range(8, 16)):
        mixed[i] = str(tmp_path / f"broken_{i}.jpg")
        (tmp_path / f"broken_{i}.jpg").write_text("no picture")
    return mixed


def same(a, b):
    """The classifiers agree in every bit."""
    return torch.equal(a.coef_, b.coef_) and torch.equal(a.intercept_, b.intercept_)


def told(work):
    """The result of some work and the warnings about unreadable images."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    return result, [str(w.message) for w in caught if "cannot be read" in str(w.message)]


def test_shards_are_whole_batches_and_cover_all_images():
    for n, batch_size, batches in ((1, 4, 1), (48, 4, 5), (49, 7, 2), (50, 64, 8)):
        parts = scaling.shards(n, batch_size, batches)
        assert [i for part in parts for i in part] == list(range(n))
        assert all(len(part) == batch_size * batches for part in parts[:-1])
    with pytest.raises(ValueError, match="batch_size=0, batches_per_shard=8"):
        scaling.shards(10, 0)


def test_any_order_and_any_tree_of_merges_give_the_same_bits(select, paths, mixed, alone):
    """Also beside a shard of which no image can be read; the client, not the worker, warns."""
    unread, messages = told(lambda: select(8, mixed[8:16]))
    assert unread.bank is None and not messages
    cuts = scaling.shards(len(paths), BATCH, batches_per_shard=1)
    shards = [unread, *(select(c.start, paths[c.start : c.stop]) for c in cuts)]
    whole, rng = select(0, paths).bank.state(), random.Random(0)
    for _ in range(12):
        parts = rng.sample(shards, len(shards))
        while len(parts) > 1:
            i = rng.randrange(len(parts) - 1)
            parts[i : i + 2] = [scaling.merge_parts(parts[i], parts[i + 1])]
        for name, column in whole.items():
            assert torch.equal(parts[0].bank.state()[name], column), name
        assert [i for i, *_ in parts[0].skipped] == list(range(8, 16))
        assert sorted(log.first for log in parts[0].log) == sorted([8, *range(0, 32, BATCH)])
        with scaling.torch_threads(1):
            assert same(piaa().fit_bank(parts[0].bank), alone)


def test_what_cannot_be_done_is_said(paths):
    with pytest.raises(ValueError, match="paths, not pixels, and image 1 is a Image: save"):
        scaling.fit(piaa(), [paths[0], Image.new("RGB", (8, 8))], client=None)
    with pytest.raises(ValueError, match="workers must be 1 or more, but is 0"):
        with scaling.connect(workers=0):
            pass
    ended = SimpleNamespace(exception=lambda: KilledWorker("key", None, 3))
    with pytest.raises(RuntimeError, match="Images 8 to 15 ended several workers"):
        scaling._check(ended, range(8, 16))
    nobody = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": {}})
    assert "no worker any more" in scaling._nobody_works(nobody)[1]


def test_two_workers_give_the_bits_of_one_process(client, paths, alone):
    """And one worker, through an address, with other shards."""
    calls = []
    far = scaling.fit(piaa(), paths, client, 3, on_shard=lambda *done: calls.append(done))
    assert same(far, alone) and torch.equal(far.text_, alone.text_)
    assert far.report_ == alone.report_ and far.skipped_ == []
    assert calls == [(i, 3) for i in (1, 2, 3)]
    assert [log.first for log in far.shards_] == [0, 12, 24]
    assert os.getpid() not in {log.pid for log in far.shards_}
    (worker, *_) = client.scheduler_info()["workers"]
    with scaling.connect(client.scheduler.address) as other:
        far = scaling.fit(piaa(), paths, other, 5, workers=[worker])
    assert same(far, alone) and len({log.pid for log in far.shards_}) == 1
    loads = client.run(lambda: scaling._backbone.cache_info().misses)  # the cluster goes on
    assert max(loads.values()) == 1, "a process loads its backbone once"


def test_unreadable_images_are_named_as_in_one_process(client, mixed):
    with scaling.torch_threads(1):
        one, here = told(lambda: piaa().fit(mixed))
    far, there = told(lambda: scaling.fit(piaa(), mixed, client, 2))
    assert same(far, one) and far.skipped_ == one.skipped_ and len(far.skipped_) == 9
    assert there == here and "9 of 24 images cannot be read" in here[0]
    with pytest.raises(UnreadableImage, match="None of the 8 images can be read"):
        scaling.fit(piaa(), mixed[8:16], client, 1)


def test_errors_and_paused_workers_end_the_work_with_a_sentence(client, paths, monkeypatch):
    """Paused as at their memory limit; without an end to its patience, fit would wait for ever."""
    about = scaling._about
    monkeypatch.setattr(scaling, "_about", lambda backbone: about(backbone) | {"std": 1})
    with pytest.raises(ValueError, match=r"another backbone mini than the client \(std\)"):
        scaling.fit(piaa(), paths, client, 1)
    monkeypatch.undo()

    def pause(state, dask_worker):
        dask_worker.memory_manager.memory_pause_fraction = 0.001 if state else False
        dask_worker.status = type(dask_worker.status)("paused" if state else "running")

    monkeypatch.setattr(scaling, "PAUSED", 2.0)
    client.run(pause, True)
    try:
        with pytest.raises(RuntimeError, match="All 2 workers are paused for lack of memory"):
            scaling.fit(piaa(), paths, client, 1)
    finally:
        client.run(pause, False)
    told(lambda: scaling.fit(piaa(), paths[:8], client, 1))


def test_a_killed_worker_costs_time_and_no_bit(client, paths, alone):
    """SIGKILL, as the system does it, while the worker computes a shard."""
    killed = []

    def kill(done, total):
        if done == 2:
            busy = max(worker for worker, keys in client.processing().items() if keys)
            killed.append(client.run(os.getpid)[busy])
            os.kill(killed[0], signal.SIGKILL)

    far = scaling.fit(piaa(), paths, client, 1, on_shard=kill)
    assert same(far, alone)
    assert [log.first for log in far.shards_] == list(range(0, 32, BATCH)), "each shard once"
    client.wait_for_workers(2, timeout=300)
    assert killed and killed[0] not in client.run(os.getpid).values()
