"""PIAA on a cluster: the same bits as in one process, whatever the shards and whoever dies."""

import os
import pickle
import random
import signal
import warnings

import dask
import numpy as np
import pytest
import torch
from distributed import KilledWorker
from PIL import Image
from sklearn.exceptions import NotFittedError

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
def job():
    """What every shard is given."""
    backbone = load_backbone(device="cpu")
    return {
        "settings": scaling._settings(piaa()),
        "load": pickle.dumps(scaling._loader(backbone)),
        "expected": scaling._about(backbone),
        "threads": 1,
    }


@pytest.fixture(scope="module")
def shards_here(paths, job):
    """The parts of the shards, computed in this process."""
    cuts = scaling.shards(len(paths), BATCH, batches_per_shard=1)
    with scaling.torch_threads(1):
        return [scaling._select_shard(c.start, paths[c.start : c.stop], **job) for c in cuts]


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


# Shards and merging, without a cluster


def test_shards_are_whole_batches_and_cover_all_images():
    for n, batch_size, batches in ((1, 4, 1), (48, 4, 5), (49, 7, 2), (50, 64, 8)):
        parts = scaling.shards(n, batch_size, batches)
        assert [i for part in parts for i in part] == list(range(n))
        assert all(part.start % batch_size == 0 for part in parts)
        assert all(len(part) == batch_size * batches for part in parts[:-1])
    with pytest.raises(ValueError, match="batch_size=0, batches_per_shard=8"):
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
        for name, column in first.bank.state().items():
            assert torch.equal(other.bank.state()[name], column), name
        assert sorted(other.log) == sorted(first.log)
    with scaling.torch_threads(1):
        assert same(piaa().fit_bank(first.bank), alone)


def test_a_worker_returns_no_more_than_a_bank(shards_here):
    width, classes, k = 128, len(NAMES), 8
    rows = classes * k * (4 * (width + classes) + 5 * 8)
    whole = merged_somehow(shards_here, random.Random(1))
    assert len(whole.bank) < sum(len(part.bank) for part in shards_here)
    assert all(len(pickle.dumps(part)) < rows + 8000 for part in (*shards_here, whole))


def test_a_shard_without_one_readable_image_is_named_and_changes_nothing(shards_here, mixed, job):
    none, messages = told(lambda: scaling._select_shard(8, mixed[8:16], **job))
    assert none.bank is None and not messages, "the client warns, once for all shards"
    assert [i for i, _, _ in none.skipped] == list(range(8, 16)) and none.skipped[0][1] == mixed[8]
    for pair in ((none, shards_here[0]), (shards_here[0], none)):
        merged = scaling.merge_parts(*pair)
        assert torch.equal(merged.bank.features, shards_here[0].bank.features)
        assert len(merged.skipped) == 8


def test_threads_are_put_back_and_a_worker_sets_its_own(job):
    before = torch.get_num_threads()
    with pytest.raises(KeyError), scaling.torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        scaling._loaded(**job)
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


# Errors, without a cluster


def test_what_cannot_be_sent_is_refused(paths):
    with pytest.raises(ValueError, match="paths, not pixels, and image 1 is a Image: save"):
        scaling.fit(piaa(), [paths[0], Image.new("RGB", (8, 8))], client=None)
    with pytest.raises(NotFittedError):
        scaling.predict_proba(piaa(), paths, client=None)
    with pytest.raises(ValueError, match="workers must be 1 or more, but is 0"):
        with scaling.connect(workers=0):
            pass


def test_a_worker_with_other_weights_refuses(job):
    given = job | {"expected": job["expected"] | {"weights_hash": "other"}}
    with pytest.raises(ValueError, match=r"another backbone mini than the client \(weights_hash\)"):
        scaling._loaded(**given)


class Errs:
    """A future that ended with an error."""

    def exception(self):
        return KilledWorker("key", None, 3)


def test_a_shard_that_ends_its_workers_is_told_in_one_sentence():
    with pytest.raises(RuntimeError, match="Images 8 to 15 ended several workers"):
        scaling._Job._tell(None, Errs(), range(8, 16), 1)


class Scheduler:
    """A client of workers that are (status, tasks at work)."""

    def __init__(self, *workers):
        self.workers = workers

    def scheduler_info(self, n_workers):
        return {
            "workers": {
                i: {
                    "status": status,
                    "memory_limit": 10**9,
                    "metrics": {"memory": 84 * 10**7, "task_counts": {"executing": busy}},
                }
                for i, (status, busy) in enumerate(self.workers)
            }
        }


def test_who_works_and_what_is_short():
    paused = ("paused", 0)
    assert scaling._nobody_works(Scheduler(paused, ("running", 0))) is None
    assert scaling._nobody_works(Scheduler(paused, ("paused", 1))) is None
    assert "no worker any more" in scaling._nobody_works(Scheduler())[1]
    _, told = scaling._nobody_works(Scheduler(paused, paused))
    assert "All 2 workers are paused" in told and "1.00 GB" in told and "0.84 GB" in told


# On the cluster


def test_two_workers_give_the_bits_of_one_process(client, paths, alone):
    calls = []
    more = {"on_shard": lambda done, total: calls.append((done, total))}
    far = scaling.fit(piaa(), paths, client, 3, **more)
    assert same(far, alone) and torch.equal(far.text_, alone.text_)
    assert far.report_ == alone.report_ and far.skipped_ == []
    assert calls == [(i, 3) for i in (1, 2, 3)]
    assert [log.first for log in far.shards_] == [0, 12, 24]
    assert os.getpid() not in {log.pid for log in far.shards_}
    assert all(log.seconds > 0 and log.memory > 1e8 for log in far.shards_)


def test_one_worker_through_an_address_gives_the_same(client, paths, alone):
    (worker, *_) = client.scheduler_info()["workers"]
    with scaling.connect(client.scheduler.address) as other:
        far = scaling.fit(piaa(), paths, other, 5, workers=[worker])
    assert same(far, alone)
    assert len({log.pid for log in far.shards_}) == 1
    assert client.run(os.getpid)  # the cluster that was only visited goes on
    loads = client.run(lambda: scaling._backbone.cache_info().misses)
    assert max(loads.values()) == 1, "a process loads its backbone once"


def test_scores_are_those_of_one_process(client, paths, alone, mixed):
    with scaling.torch_threads(1):
        expected, here = told(lambda: alone.predict_proba(mixed))
    skipped, alone.skipped_ = alone.skipped_, []
    scores, there = told(lambda: scaling.predict_proba(alone, mixed, client, 2))
    np.testing.assert_array_equal(scores, expected)
    assert scores.dtype == np.float32 and np.isnan(scores[5]).all()
    assert there == here and len(here) == 1 and alone.skipped_ == skipped


def test_unreadable_images_are_named_as_in_one_process(client, mixed):
    with scaling.torch_threads(1):
        one, here = told(lambda: piaa().fit(mixed))
    far, there = told(lambda: scaling.fit(piaa(), mixed, client, 2))
    assert same(far, one) and far.skipped_ == one.skipped_ and len(far.skipped_) == 9
    assert there == here and "9 of 24 images cannot be read" in here[0]
    with pytest.raises(UnreadableImage, match="None of the 8 images can be read"):
        scaling.fit(piaa(), mixed[8:16], client, 1)


def test_the_error_of_a_shard_ends_the_work(client, paths, monkeypatch):
    about = scaling._about
    monkeypatch.setattr(scaling, "_about", lambda backbone: about(backbone) | {"std": 1})
    with pytest.raises(ValueError, match=r"another backbone mini than the client \(std\)"):
        scaling.fit(piaa(), paths, client, 1)
    monkeypatch.undo()
    told(lambda: scaling.fit(piaa(), paths[:8], client, 1))


def test_workers_that_are_paused_end_the_work_with_a_sentence(client, paths, monkeypatch):
    """As at their memory limit; without an end to its patience, fit would wait for ever."""

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
