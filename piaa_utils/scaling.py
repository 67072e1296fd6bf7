"""PIAA on many processes or machines, with Dask: the same classifier, bit for bit.

    shards of the image list --select--> banks --merge, two by two--> one bank --GDA--> W, b

A worker is given paths and returns a bank, whose size does not depend on the number of images.
Banks merge exactly and in any order (``PatchBank.merge``), so neither the number of workers, nor
who finishes first, nor a worker that dies half-way changes the result.

In floating point, an image's features depend a little (1e-7) on how many images are encoded with
it and on how many threads share the work. W and b equal those of ``PIAA.fit`` in every bit if

- shards are whole batches: :func:`shards` cuts only between the batches of the single process;
- all processes use the same number of PyTorch threads: the workers do, see ``threads``, and
  the single process does within ``with torch_threads(1):``;
- all have the same kind of processor (or GPU), versions of the libraries, and weights. The
  weights are checked.
"""

from __future__ import annotations

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
import numpy as np
import psutil
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, TimeoutError, wait
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from tqdm.auto import tqdm

from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.images import UnreadableImage, list_images, report_skipped
from piaa_utils.pipeline import PIAA
from piaa_utils.selection import PatchBank

# Dask lets its processes give freed memory back at once; CLIP's next layer asks for it again, and
# an image then costs twice the processor time.
KEEP_MEMORY = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
PAUSED, GONE = 30.0, 300.0  # seconds that we wait where all workers are; the gone may be restarted
_LOCK = Lock()  # of this process's backbone


class Shard(NamedTuple):
    """What a shard cost its worker: by the clock, and of work by all threads of the process."""

    first: int  # number of its first image
    images: int
    started: float  # seconds since 1970 by the worker's clock
    seconds: float
    cpu_seconds: float
    memory: int  # bytes resident at its end
    pid: int


class Part(NamedTuple):
    """What is known of one shard, or of several that were merged."""

    bank: PatchBank | None  # None where not one image could be read
    skipped: list[tuple[int, str, str]]  # index in the whole list, name, reason
    log: list[Shard]


@contextlib.contextmanager
def connect(address: str | None = None, workers: int = 2) -> Iterator[Client]:
    """A Dask client: of a running cluster, or of new processes on this machine, until its end.

    In a script, call this under ``if __name__ == "__main__":``, as all that starts processes.

    Parameters
    ----------
    address : of a Dask scheduler, such as "tcp://10.0.0.5:8786" (OSError if there is none). Its
        workers must have this package, and find images under the same paths. None: processes here.
    workers : how many processes here, which share the memory; 1 or more, else ValueError.
    """
    if address is not None:
        with Client(address, set_as_default=False) as client:
            yield client
        return
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, but is {workers}.")
    quiet: dict[str, Any] = {
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.CRITICAL,
    }  # a free port
    with dask.config.set(KEEP_MEMORY):
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, **quiet)
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def fit(
    piaa: PIAA, images: Any, client: Client, batches_per_shard: int = 8, **options: Any
) -> PIAA:
    """``piaa.fit(images)`` on a cluster; see the top of this module for when it is bit for bit.

    Parameters
    ----------
    images : a folder, paths, or a world.
    client : from :func:`connect`, or any other Dask client.
    batches_per_shard : batches of ``piaa.batch_size`` images that are one task; changes the time
        that is lost with a worker, never a result.
    options : ``threads``, 1: of PyTorch in each worker. ``workers``: addresses of those to use.
        ``on_shard``: called after each shard with the number of shards done, and of all.
        ``load``: how a worker loads its backbone, such as ``partial(load_backbone,
        "ViT-B-16-quickgelu", "/weights/ViT-B-16.pt")``. By its name, if nothing is given; that
        does for all that no file or object was given for.

    Returns
    -------
    The same `piaa`, fitted; ``shards_`` is a list of :class:`Shard` in the order of the images.

    Raises
    ------
    ValueError, UnreadableImage
        As ``piaa.fit``; or images that are no paths, or a worker that has another backbone.
    RuntimeError
        A shard ended several workers one after the other, or all workers were paused for lack of
        memory for half a minute, or gone for five.

    Examples
    --------
    ::

        with scaling.connect(workers=2) as client:  # or connect("tcp://10.0.0.5:8786")
            piaa = scaling.fit(PIAA(names), "pictures", client)
            scores = scaling.predict_proba(piaa, "more_pictures", client)
    """
    paths, given = _paths(images), piaa.backbone
    with torch_threads(options.get("threads", 1)):
        backbone = load_backbone(given) if isinstance(given, str) else given
        job = _Job(client, _select_shard, piaa, backbone, paths, batches_per_shard, **options)
        one: Any = None
        for future in job.finished("selecting patches"):  # merged two by two, as they come
            if one is None:
                one = future
            else:  # merging goes before the shards that wait
                job.pending.add(client.submit(merge_parts, one, future, priority=1, **job.more))
                one = None
        part = one.result()
        piaa.skipped_, piaa.shards_ = sorted(part.skipped), sorted(part.log)
        report_skipped(piaa.skipped_, len(paths))
        return piaa.fit_bank(part.bank)


def predict_proba(
    piaa: PIAA, images: Any, client: Client, batches_per_shard: int = 8, **options: Any
) -> np.ndarray:
    """``piaa.predict_proba(images)`` on a cluster: float32 [n, C], as :func:`fit` bit for bit.

    Only rows of scores come back. The row of an image that cannot be read is NaN.
    """
    check_is_fitted(piaa, "coef_")
    paths, backbone = _paths(images), piaa.backbone_
    job = _Job(client, _predict_shard, piaa, backbone, paths, batches_per_shard, **options)
    out = np.full((len(paths), len(piaa.classes_)), np.nan, np.float32)
    skipped = []
    for future in job.finished("recognising"):
        first, rows, unread = future.result()
        out[first : first + len(rows)] = rows
        skipped += unread
    piaa.skipped_ = sorted(skipped)
    report_skipped(piaa.skipped_, len(paths))
    return out


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


# On the client


class _Job:
    """The shards of a list of images, at work on the cluster."""

    def __init__(
        self,
        client: Client,
        work: Callable[..., Any],
        piaa: PIAA,
        backbone: Backbone,
        paths: list[str],
        batches_per_shard: int,
        threads: int = 1,
        workers: Sequence[str] | None = None,
        on_shard: Callable[[int, int], None] | None = None,
        load: Callable[[], Backbone] | None = None,
    ):
        self.client, self.progress, self.on_shard = client, piaa.progress, on_shard
        self.more: dict[str, Any] = {"pure": False, "workers": workers}
        parts = shards(len(paths), piaa.batch_size, batches_per_shard)
        pieces = [p.start for p in parts], [paths[p.start : p.stop] for p in parts]
        given: dict[str, Any] = {"expected": _about(backbone), "threads": threads, **self.more}
        given["load"] = pickle.dumps(load or _loader(backbone))
        # Unlike scattered data, what was computed is never lost with a worker.
        given["settings"] = client.submit(bytes, _settings(piaa), **self.more)
        futures = client.map(work, *pieces, **given)
        self.parts = dict(zip((f.key for f in futures), parts, strict=True))
        self.pending = set(futures)

    def finished(self, desc: str) -> Iterator[Future]:
        """The futures as they finish, also those submitted meanwhile; an error of one ends all."""
        total, done, since = sum(map(len, self.parts.values())), 0, time.monotonic()
        bar = tqdm(total=total, desc=desc, unit="image", delay=2.0, disable=not self.progress)
        try:
            while self.pending:
                with self.client.as_current(), contextlib.suppress(TimeoutError):
                    wait(self.pending, timeout=1, return_when="FIRST_COMPLETED")
                ready = [future for future in self.pending if future.done()]
                self.pending -= set(ready)
                short = None if ready else _nobody_works(self.client)
                since = since if short else time.monotonic()
                if short and time.monotonic() - since > short[0]:
                    raise RuntimeError(short[1])
                while ready:  # a future that is held keeps its bank in the cluster's memory
                    future = ready.pop()
                    if part := self.parts.get(future.key):
                        done += 1
                        self._tell(future, part, done)
                        bar.update(len(part))
                    yield future
        finally:
            bar.close()
            self.client.cancel(list(self.pending))

    def _tell(self, future: Any, part: range, done: int) -> None:
        """A shard's error, as it is or in one sentence; else that it is done."""
        error = future.exception()
        if isinstance(error, KilledWorker):
            raise RuntimeError(
                f"Images {part.start} to {part.stop - 1} ended several workers, one after the "
                f"other, most likely for lack of memory: give the workers more, or PIAA a smaller "
                f"batch_size."
            ) from error
        if error is not None:
            raise error
        if self.on_shard is not None:
            self.on_shard(done, len(self.parts))


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
    return PAUSED, (
        f"All {len(there)} workers are paused for lack of memory: each may hold {limit:.2f} GB, "
        f"and PyTorch, the backbone and the work take up to {used:.2f} GB. Use fewer workers, or "
        f"give them more."
    )


def _paths(images: Any) -> list[str]:
    """Absolute paths of the images, for workers that may be in another folder."""
    paths = list_images(images)
    for i, path in enumerate(paths):
        if not isinstance(path, str | os.PathLike):
            raise ValueError(
                f"Workers are given paths, not pixels, and image {i} is a {type(path).__name__}: "
                f"save the pictures in a folder that all workers can read, and give its paths."
            )
    return [os.path.abspath(path) for path in paths]


def _settings(piaa: PIAA) -> bytes:
    """A PIAA, fitted or not, without its backbone."""
    public = {k: v for k, v in vars(piaa).items() if not k.startswith(("_", "backbone"))}
    public = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in public.items()}
    return pickle.dumps(public | {"progress": False})


def _loader(backbone: Backbone) -> Callable[[], Backbone]:
    """How a worker loads a backbone of this name."""
    plain, _, size = backbone.name.partition("@")
    model, _, weights = plain.partition("/")
    more = backbone.device.type, int(size) if size else None, backbone.precision
    return partial(load_backbone, model, weights or None, *more)


def _about(backbone: Backbone) -> dict[str, Any]:
    """All of a backbone that features depend on."""
    return backbone.identity() | {"calibration": tuple(backbone.calibration)}


# On the workers


def _select_shard(first: int, paths: list[str], **given: Any) -> Part:
    """Stage I of one shard, whose images are numbered from `first` on."""
    piaa = _loaded(**given)
    now, start, cpu = time.time(), time.perf_counter(), time.process_time()
    bank, skipped = _or_skipped(partial(piaa.select, paths, first), piaa, first)
    spent = time.perf_counter() - start, time.process_time() - cpu
    memory = psutil.Process().memory_info().rss
    log = Shard(first, len(paths), now, *spent, memory, os.getpid())
    return Part(_packed(bank), skipped, [log])


def _predict_shard(first: int, paths: list[str], **given: Any) -> tuple[int, np.ndarray, list]:
    """(first, scores [n, C], skipped) of one shard."""
    piaa = _loaded(**given)
    rows, skipped = _or_skipped(partial(piaa.predict_proba, paths), piaa, first)
    if rows is None:
        rows = np.full((len(paths), len(piaa.classes_)), np.nan, np.float32)
    return first, rows, skipped


def _or_skipped(work: Callable[[], Any], piaa: PIAA, first: int) -> tuple[Any, list]:
    """(result, skipped) of a shard; the result is None where not one image can be read."""
    result = None
    with warnings.catch_warnings(), contextlib.suppress(UnreadableImage):
        warnings.simplefilter("ignore")  # the client names what was skipped, once for all shards
        result = work()
    return result, [(first + i, name, reason) for i, name, reason in piaa.skipped_]


def _packed(bank: PatchBank | None) -> PatchBank | None:
    """A bank of C K rows at most, where every process can read them."""
    return bank and PatchBank(bank.n_classes, bank.k, bank.scale).restore(bank.state())


def _loaded(settings: bytes, load: bytes, expected: dict[str, Any], threads: int) -> PIAA:
    """A PIAA of these settings with this process's one backbone."""
    with _LOCK:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        found = _about(_backbone(load))
        if found != expected:
            differ = ", ".join(k for k in expected if found[k] != expected[k])
            raise ValueError(
                f"The worker in process {os.getpid()} has another backbone {found['name']} than "
                f"the client ({differ}): bring the same weights and version to all machines."
            )
        return copy(_made(settings, load))


@lru_cache(maxsize=1)
def _backbone(load: bytes) -> Backbone:
    """This process's backbone."""
    return pickle.loads(load)()


@lru_cache(maxsize=1)
def _made(settings: bytes, load: bytes) -> PIAA:
    """The client's PIAA, with this process's backbone."""
    given = pickle.loads(settings) | {"backbone": _backbone(load), "backbone_": _backbone(load)}
    piaa = PIAA(given["classes"])
    for name, value in given.items():
        setattr(piaa, name, value)
    return piaa
