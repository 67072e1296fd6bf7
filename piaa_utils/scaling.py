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
- all have the same kind of processor (or GPU), the same versions of the libraries, and the same
  weights. The weights are checked.

Elsewhere the results agree as far as two machines agree on one ``PIAA.fit``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import lru_cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor
from tqdm.auto import tqdm

from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.images import UnreadableImage, list_images, report_skipped
from piaa_utils.pipeline import PIAA, identity
from piaa_utils.selection import PatchBank

try:
    import dask
    from distributed import Client, Future, KilledWorker, LocalCluster, as_completed
except ImportError as error:
    raise ImportError(
        "piaa_utils.scaling needs the packages dask and distributed: pip install dask distributed."
    ) from error

BATCHES_PER_SHARD = 8
# Dask lets its processes give freed memory back at once; CLIP's next layer asks for it again, and
# an image then costs twice the processor time.
KEEP_MEMORY = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
THREADS = 1  # of PyTorch in each worker
LEARNED = ("text_", "coef_", "intercept_")
_BAR_DELAY = 2.0  # seconds, as in piaa_utils.images
_LOCK = Lock()  # of this process's backbone


class Shard(NamedTuple):
    """What a shard cost its worker.

    first : number of its first image; images : how many it has.
    started : when, in seconds since 1970 by the worker's clock.
    seconds, cpu_seconds : by the clock, and of work by all threads of the process.
    memory : peak of the worker's resident memory until its end, in bytes (where the system does
        not know the peak, the memory then).
    pid, host : of the worker.
    """

    first: int
    images: int
    started: float
    seconds: float
    cpu_seconds: float
    memory: int
    pid: int
    host: str


class Part(NamedTuple):
    """What is known of one shard, or of several that were merged.

    bank : None where not one image could be read.
    skipped : (index in the whole list, name, reason) of the images that could not be read.
    log : one :class:`Shard` each.
    """

    bank: PatchBank | None
    skipped: list[tuple[int, str, str]]
    log: list[Shard]


@contextlib.contextmanager
def connect(address: str | None = None, workers: int = 2) -> Iterator[Client]:
    """A Dask client: of a running cluster, or of new processes on this machine.

    At the end the client is closed, and so are the processes that were made for it. In a script,
    call this under ``if __name__ == "__main__":``, as all that starts processes.

    Parameters
    ----------
    address : of a Dask scheduler, such as "tcp://10.0.0.5:8786". Its workers must have this
        package, and find images and weights under the same paths. None: processes here.
    workers : how many processes here.

    Raises
    ------
    ValueError
        If `workers` is below 1.
    OSError
        If there is no scheduler at `address`.
    """
    if address is not None:
        with Client(address, set_as_default=False) as client:
            yield client
        return
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, but is {workers}.")
    options = {"n_workers": workers, "threads_per_worker": 1}
    options["dashboard_address"] = "127.0.0.1:0"  # a free port, for this machine alone
    with dask.config.set(KEEP_MEMORY):
        cluster = LocalCluster(**options, silence_logs=logging.CRITICAL)
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


def fit(
    piaa: PIAA,
    images: object,
    client: Client,
    batches_per_shard: int = BATCHES_PER_SHARD,
    threads: int = THREADS,
    workers: Sequence[str] | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> PIAA:
    """``piaa.fit(images)`` on a cluster; see the top of this module for when it is bit for bit.

    Parameters
    ----------
    piaa : its backbone is given by name, so that every worker can load its own.
    images : a folder, paths, or a Dataset with ``paths``.
    client : from :func:`connect`, or any other Dask client.
    batches_per_shard : batches of ``piaa.batch_size`` images that are one task. It changes the
        time that is lost with a worker, never a result.
    threads : of PyTorch, set in each worker's process.
    workers : addresses of the workers to use; None all.
    on_shard : called after each shard with the number of shards that are done, and of all.

    Returns
    -------
    The same `piaa`, fitted. Beside the usual attributes it has ``shards_``, a list of
    :class:`Shard` in the order of the images.

    Raises
    ------
    ValueError
        As ``piaa.fit``; or images that are no paths, a backbone that is an object, or a worker
        that has other weights.
    UnreadableImage
        If not one image can be read; single ones are skipped, named in one warning and listed in
        ``skipped_`` in the order of the list.
    RuntimeError
        If a shard ended several workers one after the other.

    Examples
    --------
    ::

        with scaling.connect(workers=2) as client:  # or connect("tcp://10.0.0.5:8786")
            piaa = scaling.fit(PIAA(names), "pictures", client)
            scores = scaling.predict_proba(piaa, "more_pictures", client)
    """
    paths, settings = _paths(images), _settings(piaa)
    with torch_threads(threads):
        piaa._prepare()
        job = {"expected": identity(piaa.backbone_), "settings": settings, "threads": threads}
        part = _select(piaa, paths, client, job, batches_per_shard, workers, on_shard)
        piaa.skipped_ = sorted(part.skipped)
        report_skipped(piaa.skipped_, len(paths))
        piaa.shards_ = sorted(part.log)
        return piaa.fit_bank(part.bank)


def predict_proba(
    piaa: PIAA,
    images: object,
    client: Client,
    batches_per_shard: int = BATCHES_PER_SHARD,
    threads: int = THREADS,
    workers: Sequence[str] | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """``piaa.predict_proba(images)`` on a cluster: float32 [n, C], bit for bit as :func:`fit`.

    Only rows of scores come back. Parameters, errors and the warning as :func:`fit`; the row of an
    image that cannot be read is NaN.
    """
    piaa._check_fitted()
    paths = _paths(images)
    more = {"pure": False, "workers": workers}
    learned = {name: getattr(piaa, name).cpu() for name in LEARNED}
    job = {"settings": _settings(piaa), "expected": identity(piaa.backbone_), "threads": threads}
    job["learned"] = client.submit(dict, learned, **more)  # unlike scattered data, never lost
    parts = shards(len(paths), piaa.batch_size, batches_per_shard)
    futures = client.map(_predict_shard, *_split(paths, parts), **job, **more)
    finished = _finished(client, futures, parts, piaa.progress, "recognising", on_shard)
    del futures
    out = np.full((len(paths), len(piaa.class_names)), np.nan, np.float32)
    skipped = []
    for future in finished:
        first, rows, left_out = future.result()
        out[first : first + len(rows)] = rows
        skipped += left_out
    piaa.skipped_ = sorted(skipped)
    report_skipped(piaa.skipped_, len(paths))
    return out


def shards(n: int, batch_size: int, batches_per_shard: int = BATCHES_PER_SHARD) -> list[range]:
    """The shards of n images: whole batches, cut where a single process cuts them.

    Raises
    ------
    ValueError
        On a number below 1.

    Examples
    --------
    >>> shards(100, batch_size=8, batches_per_shard=4)
    [range(0, 32), range(32, 64), range(64, 96), range(96, 100)]
    """
    if batch_size < 1 or batches_per_shard < 1:
        raise ValueError(
            f"batch_size and batches_per_shard must be 1 or more: got {batch_size} and "
            f"{batches_per_shard}."
        )
    step = batch_size * batches_per_shard
    return [range(start, min(start + step, n)) for start in range(0, n, step)]


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads here, and then with as many as before.

    Examples
    --------
    >>> with torch_threads(1):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_memory() -> int:
    """The largest resident memory that this process has had, in bytes.

    From Linux' own count; where there is none, the memory now. (``resource.getrusage`` would not
    do: a new process starts there with the peak of the one that made it.)

    Examples
    --------
    >>> peak_memory() > 1e6
    True
    """
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return psutil.Process().memory_info().rss


def merge_parts(a: Part, b: Part) -> Part:
    """Two parts of the image list as one; exact, associative and commutative."""
    if a.bank is None or b.bank is None:
        bank = b.bank if a.bank is None else a.bank
    else:
        bank = a.bank.merge(b.bank)
    return Part(bank, a.skipped + b.skipped, a.log + b.log)


# On the client


def _select(piaa, paths, client, job, batches_per_shard, workers, on_shard) -> Part:
    """The parts of all shards, merged on the workers."""
    more = {"pure": False, "workers": workers}
    parts = shards(len(paths), piaa.batch_size, batches_per_shard)
    futures = client.map(_select_shard, *_split(paths, parts), **job, **more)
    root = _merge_tree(client, futures, more)
    finished = _finished(client, futures, parts, piaa.progress, "selecting patches", on_shard)
    del futures  # a future that is held keeps its bank in the cluster's memory
    try:
        for future in finished:
            del future
        return root.result()
    except BaseException:
        root.cancel()
        raise


def _split(paths: list[str], parts: Sequence[range]) -> tuple[list[int], list[list[str]]]:
    """The number of the first image of each shard, and its paths."""
    return [part.start for part in parts], [paths[part.start : part.stop] for part in parts]


def _merge_tree(client: Client, futures: Sequence[Future], more: dict[str, Any]) -> Future:
    """One future of all parts, merged two by two; merging comes before the next shard."""
    level = 0
    while len(futures) > 1:
        level += 1
        pairs = len(futures) // 2
        left, right = futures[: 2 * pairs : 2], futures[1 : 2 * pairs : 2]
        merged = client.map(merge_parts, left, right, priority=level, **more)
        futures = [*merged, *futures[2 * pairs :]]
    return futures[0]


def _finished(
    client: Client,
    futures: Sequence[Future],
    parts: Sequence[range],
    progress: bool,
    desc: str,
    on_shard: Callable[[int, int], None] | None,
) -> Iterator[Future]:
    """The futures of shards as they finish; an error of one ends all."""
    where = {future.key: part for future, part in zip(futures, parts, strict=True)}
    waiting = as_completed(futures, loop=client.loop)
    del futures
    total = parts[-1].stop
    bar = tqdm(total=total, desc=desc, unit="image", delay=_BAR_DELAY, disable=not progress)
    try:
        for done, future in enumerate(waiting, start=1):
            part = where[future.key]
            if future.status == "error":
                raise _in_words(future.exception(), part)
            bar.update(len(part))
            if on_shard is not None:
                on_shard(done, len(where))
            yield future
            del future
    finally:
        bar.close()
        waiting.clear()


def _in_words(error: BaseException, part: range) -> BaseException:
    """The error of a shard; that a shard ends its workers is said in one sentence."""
    if not isinstance(error, KilledWorker):
        return error
    told = RuntimeError(
        f"Images {part.start} to {part.stop - 1} ended several workers, one after the other, most "
        f"likely for lack of memory: give the workers more, or PIAA a smaller batch_size."
    )
    told.__cause__ = error
    return told


def _paths(images: object) -> list[str]:
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
    """The estimator's settings, to be sent and compared."""
    if not isinstance(piaa.backbone, str):
        raise ValueError(
            f"Each worker loads the backbone itself, and cannot load this "
            f"{type(piaa.backbone).__name__}: give PIAA the backbone's name, such as 'mini', or an "
            f"architecture with pretrained='path/to/weights'."
        )
    settings = piaa.get_params(deep=False) | {"progress": False}
    weights = settings["pretrained"]
    if weights is not None and os.path.exists(weights):
        settings["pretrained"] = os.path.abspath(weights)
    return pickle.dumps(settings)


# On the workers


def _select_shard(
    first: int, paths: list[str], settings: bytes, expected: dict, threads: int
) -> Part:
    """Stage I of one shard, whose images are numbered from `first` on."""
    piaa = _loaded(settings, expected, threads)
    now, start, cpu = time.time(), time.perf_counter(), time.process_time()
    bank, skipped = _or_skipped(lambda: piaa.select(paths, first_id=first), piaa, first)
    log = Shard(
        first,
        len(paths),
        now,
        time.perf_counter() - start,
        time.process_time() - cpu,
        peak_memory(),
        os.getpid(),
        platform.node(),
    )
    return Part(None if bank is None else _on_cpu(bank), skipped, [log])


def _predict_shard(
    first: int, paths: list[str], settings: bytes, expected: dict, threads: int, learned: dict
) -> tuple[int, np.ndarray, list]:
    """(first, scores [n, C], skipped) of one shard."""
    piaa = _loaded(settings, expected, threads)
    for name, value in learned.items():
        setattr(piaa, name, value.to(piaa.backbone_.device))
    piaa._remember()
    rows, skipped = _or_skipped(lambda: piaa.predict_proba(paths), piaa, first)
    if rows is None:
        rows = np.full((len(paths), len(piaa.class_names)), np.nan, np.float32)
    return first, rows, skipped


def _or_skipped(work: Callable[[], Any], piaa: PIAA, first: int):
    """(result, skipped) of a shard; the result is None where not one image can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client names what was skipped, once for all shards
        try:
            result = work()
        except UnreadableImage:
            result = None
    return result, [(first + i, name, reason) for i, name, reason in piaa.skipped_]


def _loaded(settings: bytes, expected: dict, threads: int) -> PIAA:
    """A PIAA of these settings with this process's one backbone."""
    with _LOCK:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        piaa = copy(_prepared(settings))
        found = identity(piaa.backbone_)
    if found != expected:
        differ = ", ".join(k for k in expected if found.get(k) != expected[k])
        raise ValueError(
            f"The worker in process {os.getpid()} has another backbone {found['name']} than the "
            f"client ({differ}): bring the same weights and the same version to all machines."
        )
    return piaa


@lru_cache(maxsize=1)
def _prepared(settings: bytes) -> PIAA:
    options = pickle.loads(settings)
    of_backbone = {k: options[k] for k in ("backbone", "pretrained", "device")}
    piaa = PIAA(**options | {"backbone": _backbone(pickle.dumps(of_backbone))})
    piaa._prepare()
    return piaa


@lru_cache(maxsize=1)
def _backbone(options: bytes) -> Backbone:
    options = pickle.loads(options)
    return load_backbone(options["backbone"], options["pretrained"], options["device"])


def _on_cpu(bank: PatchBank) -> PatchBank:
    """The bank with all its tensors where every process can read them."""
    for name, value in vars(bank).items():
        if isinstance(value, Tensor):
            setattr(bank, name, value.cpu())
    return bank
