"""PIAA on many processes or machines, with Dask: the same classifier, bit for bit.

    shards of the image list --select--> banks --merge, two by two--> one bank --GDA--> W, b

Banks merge exactly and in any order (``PatchBank.merge``), so neither the number of workers, nor
who finishes first, nor a worker that dies half-way changes the result. It is that of ``PIAA.fit``
in every bit if shards are whole batches (:func:`shards` cuts so) and all processes have the same
number of PyTorch threads (a single process has one ``with torch_threads(1):``), kind of processor
or GPU, libraries, and weights. The weights are checked.
"""

import contextlib
import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import lru_cache, partial
from threading import Lock
from typing import Any, NamedTuple

import dask
import psutil
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, TimeoutError, wait
from tqdm.auto import tqdm

from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.images import UnreadableImage, list_images, report_skipped
from piaa_utils.pipeline import PIAA
from piaa_utils.selection import PatchBank

# Dask gives freed memory back at once, CLIP's next layer asks for it again: twice the time.
KEEP_MEMORY = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
PAUSED, GONE = 30.0, 300.0  # seconds that we wait where all workers are; the gone may be restarted
_LOCK = Lock()  # of this process's backbone


class Shard(NamedTuple):
    """What a shard cost its worker."""

    first: int  # number of its first image
    images: int
    cpu_seconds: float  # of all threads of the process
    memory: int  # bytes resident at its end
    pid: int


class Part(NamedTuple):
    """What is known of one shard, or of several that were merged."""

    bank: Any  # a PatchBank; None where not one image could be read
    skipped: list[tuple[int, str, str]]  # index in the whole list, name, reason
    log: list[Shard]


@contextlib.contextmanager
def connect(address: str | None = None, workers: int = 2) -> Iterator[Client]:
    """A Dask client: of a running cluster, or of new processes on this machine, until its end.

    In a script, call this under ``if __name__ == "__main__":``, as all that starts processes.

    address : of a Dask scheduler, such as "tcp://10.0.0.5:8786" (OSError if there is none), whose
        workers have this package, and find images under the same paths; None: `workers` here.
    """
    if address is not None:
        with Client(address, set_as_default=False) as client:
            yield client
        return
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, but is {workers}.")
    quiet: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with dask.config.set(KEEP_MEMORY):
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **quiet)
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def fit(
    piaa: PIAA,
    images: Any,
    client: Client,
    batches_per_shard: int = 8,
    threads: int = 1,
    workers: Sequence[str] | None = None,
    on_shard: Callable[[int, int], None] | None = None,
    load: Callable[[], Backbone] | None = None,
) -> PIAA:
    """``piaa.fit(images)`` on a cluster, to the same bits as at the top of this module.

    images : a folder, paths, or a world.    client : from :func:`connect`, or any of Dask.
    batches_per_shard : batches of ``piaa.batch_size`` images in a task; changes no result.
    threads : of PyTorch in each worker.    workers : addresses of those to use; None: all.
    on_shard : called after each shard with the number of shards done, and of all.
    load : how a worker loads its backbone, such as ``partial(load_backbone, "ViT-B-16-quickgelu",
        "ViT-B-16.pt")``; None, by its name, does where no file or object was given.

    Returns `piaa`, with ``shards_``, a list of :class:`Shard` in the images' order. Errors as in
    ``piaa.fit``; another backbone is a ValueError, what ends or stops workers a RuntimeError. ::

        with scaling.connect(workers=2) as client:  # or connect("tcp://10.0.0.5:8786")
            piaa = scaling.fit(PIAA(names), "pictures", client)
    """
    paths, given = _paths(images), piaa.backbone
    with torch_threads(threads):
        backbone = load_backbone(given) if isinstance(given, str) else given
        cuts = shards(len(paths), piaa.batch_size, batches_per_shard)
        how: dict[str, Any] = {"pure": False, "workers": workers}
        job: dict[str, Any] = {
            "load": pickle.dumps(load or _loader(backbone)),
            "expected": _about(backbone),
            "threads": threads,
            # Unlike scattered data, what was computed is never lost with a worker.
            "settings": client.submit(bytes, _settings(piaa), **how),
        }
        pieces = [c.start for c in cuts], [paths[c.start : c.stop] for c in cuts]
        futures = client.map(_select_shard, *pieces, **job, **how)
        told = dict(zip((f.key for f in futures), cuts, strict=True))
        look: dict[str, Any] = {"unit": "image", "delay": 2, "disable": not piaa.progress}
        with tqdm(total=len(paths), desc="selecting patches", **look) as bar:
            part = _merged(client, futures, told, how, bar, on_shard)
        piaa.skipped_, piaa.shards_ = sorted(part.skipped), sorted(part.log)
        report_skipped(piaa.skipped_, len(paths))
        return piaa.fit_bank(part.bank)


def shards(n: int, batch_size: int, batches_per_shard: int = 8) -> list[range]:
    """The shards of n images: whole batches, cut where a single process cuts them.

    >>> shards(100, batch_size=8, batches_per_shard=4)
    [range(0, 32), range(32, 64), range(64, 96), range(96, 100)]
    """
    if batch_size < 1 or batches_per_shard < 1:
        raise ValueError(f"Both must be 1 or more: {batch_size=}, {batches_per_shard=}.")
    step = batch_size * batches_per_shard
    return [range(start, min(start + step, n)) for start in range(0, n, step)]


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads here, and then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def merge_parts(a: Part, b: Part) -> Part:
    """Two parts of the image list as one; exact, associative and commutative."""
    bank = a.bank.merge(b.bank) if a.bank and b.bank else a.bank or b.bank
    return Part(_packed(bank), a.skipped + b.skipped, a.log + b.log)


def _merged(
    client: Client, futures: list, cuts: dict[Any, range], how: dict, bar: tqdm, on_shard: Any
) -> Part:
    """All shards as one part, merged two by two as they come; an error of one ends all."""
    pending, one, done, since = set(futures), None, 0, time.monotonic()
    futures.clear()  # a future that is held keeps its bank in the cluster's memory
    try:
        while pending:
            with client.as_current(), contextlib.suppress(TimeoutError):
                wait(pending, timeout=1, return_when="FIRST_COMPLETED")
            ready = [future for future in pending if future.done()]
            pending -= set(ready)
            short = None if ready else _nobody_works(client)
            since = since if short else time.monotonic()
            if short and time.monotonic() - since > short[0]:
                raise RuntimeError(short[1])
            while ready:
                future = ready.pop()
                if cut := cuts.get(future.key):
                    done += 1
                    _check(future, cut)
                    bar.update(len(cut))
                    if on_shard is not None:
                        on_shard(done, len(cuts))
                if one is None:
                    one = future
                else:  # merging goes before the shards that wait
                    pending.add(client.submit(merge_parts, one, future, priority=1, **how))
                    one = None
        assert one is not None  # there is an image, and so a shard
        return one.result()
    finally:
        client.cancel(list(pending))


def _check(future: Future, cut: range) -> None:
    """Raise a shard's error, if it had one: as it is, or in one sentence."""
    error = future.exception()
    if isinstance(error, KilledWorker):
        what = f"Images {cut.start} to {cut.stop - 1} ended several workers, one after the other"
        mend = "give the workers more, or PIAA a smaller batch_size"
        raise RuntimeError(f"{what}, most likely for lack of memory: {mend}.") from error
    if error is not None:
        raise error


def _nobody_works(client: Client) -> tuple[float, str] | None:
    """How long to wait, and what is short, where all workers are gone, or paused and idle."""
    there = client.scheduler_info(n_workers=-1)["workers"].values()
    if not there:
        return GONE, "There is no worker any more: start some, and try again."
    for worker in there:
        if worker["status"] != "paused" or worker["metrics"]["task_counts"].get("executing"):
            return None
    used = max(worker["metrics"]["memory"] for worker in there) / 1e9
    limit = min(worker["memory_limit"] for worker in there) / 1e9
    memory = f"each may hold {limit:.2f} GB, and needs up to {used:.2f} GB"
    what = f"All {len(there)} workers are paused for lack of memory: {memory}."
    return PAUSED, f"{what} Use fewer workers, or give them more."


def _paths(images: Any) -> list[str]:
    """Absolute paths of the images, for workers that may be in another folder."""
    paths = list_images(images)
    for i, path in enumerate(paths):
        if not isinstance(path, str | os.PathLike):
            what = f"Workers are given paths, not pixels, and image {i} is a {type(path).__name__}"
            raise ValueError(f"{what}: save the pictures where all workers can read them.")
    return [os.path.abspath(path) for path in paths]


def _settings(piaa: PIAA) -> bytes:
    """The parameters of a PIAA but its backbone."""
    return pickle.dumps(piaa.get_params(deep=False) | {"backbone": None, "progress": False})


def _loader(backbone: Backbone) -> Callable[[], Backbone]:
    """How a worker loads a backbone of this name."""
    plain, _, size = backbone.name.partition("@")
    model, _, weights = plain.partition("/")
    more = backbone.device.type, int(size) if size else None, backbone.precision
    return partial(load_backbone, model, weights or None, *more)


def _about(backbone: Backbone) -> dict[str, Any]:
    """All of a backbone that features depend on."""
    return backbone.identity() | {"calibration": tuple(backbone.calibration)}


def _select_shard(first: int, paths: list[str], **job: Any) -> Part:
    """On a worker: Stage I of one shard, whose images are numbered from `first` on."""
    piaa, bank, start = _loaded(**job), None, time.process_time()
    with warnings.catch_warnings(), contextlib.suppress(UnreadableImage):  # not one can be read
        warnings.simplefilter("ignore")  # the client names what was skipped, once for all shards
        bank = piaa.select(paths, first)
    skipped = [(first + i, name, reason) for i, name, reason in piaa.skipped_]
    spent, memory = time.process_time() - start, psutil.Process().memory_info().rss
    cost = Shard(first, len(paths), spent, memory, os.getpid())
    return Part(_packed(bank), skipped, [cost])


def _packed(bank: PatchBank | None) -> PatchBank | None:
    """A bank of C K rows at most, where every process can read them."""
    return bank and PatchBank(bank.n_classes, bank.k, bank.scale).restore(bank.state())


def _loaded(settings: bytes, load: bytes, expected: dict[str, Any], threads: int) -> PIAA:
    """A PIAA of these settings with this process's one backbone."""
    with _LOCK:
        torch.set_num_threads(threads)
        found = _about(_backbone(load))
        if differ := ", ".join(k for k in expected if found[k] != expected[k]):
            what = f"The worker in process {os.getpid()} has another backbone {found['name']}"
            mend = "bring the same weights and version to all machines"
            raise ValueError(f"{what} than the client ({differ}): {mend}.")
        return copy(_made(settings, load))


@lru_cache(maxsize=1)
def _backbone(load: bytes) -> Backbone:
    """This process's backbone."""
    return pickle.loads(load)()


@lru_cache(maxsize=1)
def _made(settings: bytes, load: bytes) -> PIAA:
    """The client's PIAA, with this process's backbone."""
    return PIAA(**pickle.loads(settings) | {"backbone": _backbone(load)})
