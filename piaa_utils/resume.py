"""Checkpoints of ``piaa_utils.reproduce``: a run killed at any moment goes on where it was.

A checkpoint is one safetensors file that appears whole or not at all. It holds all that the run
depends on, and is used for exactly those settings and no others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from piaa_utils.files import write_whole
from piaa_utils.pipeline import PIAA
from piaa_utils.selection import COLUMNS, PatchBank

SAVING_SHARE = 0.05  # of the time, at most about so much goes into writing checkpoints
BROKEN = (SafetensorError, KeyError, TypeError, ValueError, OSError)  # what bad files raise
LONGEST = 60  # of a setting that a message repeats; hashes are longer
NOTED = ("stage", "done", "resumed", "skipped", "seconds")


@dataclass
class State:
    """How far a run is.

    stage : "learn", "test" or "done".
    done : pictures of the stage that were seen.
    resumed : how often the run went on from a checkpoint.
    skipped : for each stage the [index, name, reason] of unreadable pictures.
    seconds : for each stage, of all the runs that took part.
    banks, classifiers : of each (encoder, variant); banks while learning, classifiers after it.
    scores : float32 [n, C] of each row of the table, NaN where there are none yet.
    """

    stage: str = "learn"
    done: int = 0
    resumed: int = 0
    skipped: dict[str, list] = field(default_factory=lambda: {"learn": [], "test": []})
    seconds: dict[str, float] = field(default_factory=lambda: {"learn": 0.0, "test": 0.0})
    banks: dict[tuple[str, str], PatchBank] = field(default_factory=dict)
    classifiers: dict[tuple[str, str], PIAA] = field(default_factory=dict)
    scores: dict[tuple[str, ...], Tensor] = field(default_factory=dict)


class Keeper:
    """Writes and reads the checkpoint of one set of settings.

    Parameters
    ----------
    out : the folder of the results; checkpoints go into a folder ``unfinished`` in it.
    name : what the run is called, such as "voc07".
    about : everything that the result depends on, as JSON knows it.
    """

    def __init__(self, out: Path, name: str, about: dict[str, Any]):
        self.about, self.name = about, name
        self.folder = Path(out) / "unfinished" / f"{name}-{key_of(about)}"
        self.path = self.folder / "checkpoint.safetensors"
        self.lock = self.folder / "lock"
        self._took, self._saved_at = 0.0, float("-inf")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A context in which no other process has this folder. The lock of a dead one is taken.

        Raises
        ------
        OSError
            If another process has it, or the lock cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            file = os.open(self.lock, flags)
        except FileExistsError:
            pid = owner(self.lock)
            if pid not in (0, os.getpid()) and psutil.pid_exists(pid):
                raise OSError(
                    f"The process {pid} is at work on the same settings in {self.folder}: wait "
                    f"for it, choose another --out, or, if it is another program, remove "
                    f"{self.lock}."
                ) from None
            self.lock.unlink()
            file = os.open(self.lock, flags)
        with open(file, "w") as lock:
            lock.write(str(os.getpid()))
        try:
            yield
        finally:
            if owner(self.lock) == os.getpid():
                self.lock.unlink()
            with contextlib.suppress(OSError):  # of folders that hold something
                self.folder.rmdir()
                self.folder.parent.rmdir()

    def classifier_file(self, encoder: str, variant: str) -> Path:
        """Where the classifier of a row is kept; written before a checkpoint that needs it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{encoder}-{variant}.safetensors"

    def save(self, state: State, must: bool = True) -> None:
        """Write a state; where it need not be, only if enough work was done since the last time.

        Raises
        ------
        OSError
            If it cannot be written; the last checkpoint stays.
        """
        start = time.perf_counter()
        if not must and start - self._saved_at < self._took / SAVING_SHARE:
            return
        about = {"of": self.about} | {name: getattr(state, name) for name in NOTED}
        tensors = {"/".join(["scores", *key]): x for key, x in state.scores.items()}
        for key, bank in state.banks.items():
            tensors |= {"/".join(["banks", *key, k]): x for k, x in bank.state().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, safetensors.torch.save(tensors, {"piaa": json.dumps(about)}))
        self._saved_at = time.perf_counter()
        self._took = self._saved_at - start

    def load(self, banks: dict[tuple[str, str], PatchBank], backbone: Any) -> State:
        """The state that was saved last, or that of a beginning where there is none to use.

        A checkpoint that is damaged or belongs to other settings is moved aside and named.

        Parameters
        ----------
        banks : an empty bank for each (encoder, variant).
        backbone : of the classifiers, and the device of the banks.
        """
        if not self.path.is_file():
            return State(banks=banks)
        try:
            about, tensors = read(self.path)
            if about["of"] != self.about:
                raise ValueError("it belongs to other settings")
            state = State(**{name: about[name] for name in NOTED})
            if state.stage == "learn":
                device = "cpu" if backbone.device.type == "mps" else backbone.device
                for key, bank in banks.items():
                    rows = {k: tensors["/".join(["banks", *key, k])] for k in COLUMNS}
                    state.banks[key] = PatchBank(
                        bank.n_classes, bank.k, bank.temperature, bank.per_image
                    ).restore(rows, device)
            else:
                for key in banks:
                    file = self.classifier_file(*key)
                    state.classifiers[key] = PIAA.load(file, backbone=backbone)
        except BROKEN as error:
            aside = set_aside(self.path)
            print(f"The checkpoint {self.path} cannot be used ({error}): moved to {aside}.")
            return State(banks=banks)
        for name, x in tensors.items():
            if name.startswith("scores/"):
                state.scores[tuple(name.split("/")[1:])] = x
        state.resumed += 1
        print(f"Going on from {self.path}: {state.done} pictures done of the stage {state.stage}.")
        return state

    def name_others(self) -> None:
        """Say which unfinished runs of that name have other settings; they stay as they are."""
        for path in sorted(self.folder.parent.glob(f"{self.name}-*/{self.path.name}")):
            if path == self.path:
                continue
            try:
                what = "of other " + "; ".join(differing(read(path)[0]["of"], self.about))
            except BROKEN:
                what = "which cannot be read"
            print(
                f"Left alone: the unfinished run {path.parent}, {what}. If you do not want to go "
                f"on with it, remove that folder."
            )

    def finish(self) -> None:
        """Remove the checkpoint, then all that belongs to it."""
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run is in there
            self.folder.parent.rmdir()


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a checkpoint says, and its tensors, on the CPU."""
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {})["piaa"])
        return about, {name: file.get_tensor(name) for name in file.keys()}


def set_aside(path: Path) -> Path:
    """Move a checkpoint beside its folder, under the first free name with a number, and tell it.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run" / "checkpoint"
    >>> path.parent.mkdir()
    >>> for text in ("one", "two"):
    ...     path.write_text(text) and set_aside(path).name
    'run.aside-1'
    'run.aside-2'
    """
    number, folder = 1, path.parent
    while (aside := folder.with_name(f"{folder.name}.aside-{number}")).exists():
        number += 1
    return path.rename(aside)


def owner(lock: Path) -> int:
    """The process that a lock file names; 0 where there is no file, or none is named."""
    try:
        return int(lock.read_text())
    except (OSError, ValueError):
        return 0


def differing(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """The settings of ours that differ from theirs, in words, with both values if they are short.

    Examples
    --------
    >>> differing({"a": 1, "b": 2, "c": {"d": 3}}, {"a": 1, "b": 4, "c": {"d": 5}})
    ['b (2, here 4)', 'c: d (3, here 5)']
    """
    out = []
    for name, here in sorted(ours.items()):
        there = theirs.get(name)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            out += [f"{name}: {more}" for more in differing(there, here)] or [name]
        else:
            short = max(len(str(there)), len(str(here))) <= LONGEST
            out.append(f"{name} ({there}, here {here})" if short else name)
    return out


def key_of(about: dict[str, Any]) -> str:
    """A short name for one set of settings: 16 hex digits of a SHA-256.

    Examples
    --------
    >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 2, "b": 2})
    True
    """
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
