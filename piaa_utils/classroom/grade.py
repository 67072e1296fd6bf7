"""Grade a class's notebooks in bulk: ``python -m piaa_utils grade FOLDER``.

FOLDER holds one sub-folder a student, with their notebooks anywhere below it under their names
(``00_start_here.ipynb``; what a browser adds, such as ``(1)``, does no harm). A notebook that lies
in FOLDER itself, ``ann_00_start_here.ipynb``, is of the student whose name stands before its own.

What runs is the pristine student notebook, with two things out of the student's file: the answers
to the exercises, and cells that the student added. So a check or a lesson's cell that was edited or
deleted counts as it was handed out. Each notebook runs in a process of its own, in a scratch copy
of its folder, without a network but 127.0.0.1 (for Dask) where the system permits, and with limits
of time, memory, file size and what is printed (:mod:`piaa_utils.classroom.worker`).

This is a grader for a class and no prison. Answers run in the process that judges them, as the
grader's own user. It mends what an answer replaced, by accident or for a joke: names, functions of
the package, of NumPy and PyTorch, printed words. It does not stop one who sets out to deceive it:
who rewrites data that the lesson goes on to use, patches what it does not watch, writes files by
way of a library in C, or reads the reference answers in ``piaa_utils/lessons``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nbformat  # comes with JupyterLab

from piaa_utils.classroom.merge import (
    LARGEST,
    Merged,
    Pristine,
    merge,
    plan_of,
    read_notebook,
    read_pristine,
)
from piaa_utils.datasets import data_dir
from piaa_utils.files import no_formula, write_whole

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
    "student",
    "notebook",
    "points",
    "of",
    "passed",
    "failed",
    "not answered",
    "exercises",
    "seconds",
    "what went wrong",
    "graded as",
)
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
WORKER = "import sys; sys.path[0] = {!r}; from piaa_utils.classroom.worker import main; main()"


@dataclass(frozen=True)
class Limits:
    """What one notebook may use: seconds in all, megabytes of memory."""

    timeout: float = 600
    memory: int = 4096


@dataclass(frozen=True)
class Submission:
    """One student's file for one notebook.

    others : further files for the same notebook, which do not count.
    alone : it lies in FOLDER itself, so what lies beside it is of other students.
    """

    student: str
    notebook: str
    path: Path | None
    others: tuple[Path, ...] = ()
    alone: bool = False


def submissions(folder: Path, names: list[str]) -> tuple[list[Submission], list[str]]:
    """Who handed in what, and the names of what else FOLDER holds, tables aside.

    Every student has an entry for each notebook that anybody handed in; its path is None where they
    did not. Of several files for one notebook the newest counts.

    Raises
    ------
    ValueError
        FOLDER is none, or holds no notebook of the series.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name the one that holds a sub-folder a student.")
    files: dict[str, list[Path]] = {}
    alone, ignored = set(), []
    for entry in sorted(folder.iterdir()):
        name = next((n for n in names if n in entry.name and entry.suffix == ".ipynb"), None)
        student = entry.name.split(name)[0].strip("_- ") if name else ""
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            found = [p for p in entry.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
            found = [p for p in found if p.is_file() and not p.is_symlink()]
            files.setdefault(entry.name, []).extend(found)
        elif entry.is_file() and student and not entry.is_symlink():
            files.setdefault(student, []).append(entry)
            alone.add(entry)
        elif entry.suffix != ".csv" and not entry.name.startswith("."):
            ignored.append(entry.name)
    anybody = [n for n in names if any(n in p.name for paths in files.values() for p in paths)]
    if not anybody:
        raise ValueError(
            f"There is no notebook of the series in {folder}: it needs a sub-folder a student with "
            f"files such as {names[0]}.ipynb, or files such as ann_{names[0]}.ipynb."
        )
    out = []
    for student, paths in sorted(files.items()):
        for name in anybody:
            mine = [p for p in paths if name in p.name]
            mine.sort(key=lambda p: (p.stat().st_mtime, str(p)), reverse=True)
            first = mine[0] if mine else None
            out.append(Submission(student, name, first, tuple(mine[1:]), first in alone))
    return out, ignored


@lru_cache(maxsize=1)
def _without_network() -> tuple[str, ...]:
    """The command that starts another without a network; empty where the system forbids it."""
    command = ("unshare", "--map-root-user", "--net")
    try:
        done = subprocess.run([*command, "true"], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return command if done.returncode == 0 else ()


def run_plan(
    plan: list[dict], limits: Limits, beside: list[Path], cache: Path, fill: bool, running: set
) -> tuple[list[dict], str, float]:
    """Run a plan in a process of its own, in a scratch folder that is removed afterwards.

    Parameters
    ----------
    beside : files to copy into the scratch folder.
    cache : the folder of the features; read, and written only where ``fill``.
    running : the process is in this set while it runs, for who must stop it.

    Returns
    -------
    (what the worker told, how it ended if not by itself, seconds)
    """
    with tempfile.TemporaryDirectory(prefix="piaa-grade-", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        work, found, spec = scratch / "work", scratch / "found.jsonl", scratch / "plan.json"
        (work / "tmp").mkdir(parents=True)
        for file in beside:
            shutil.copyfile(file, work / file.name)
        settings = {
            "plan": plan,
            "timeout": limits.timeout,
            "memory": limits.memory,
            "each": limits.timeout / 4 if not fill else limits.timeout,
            "cache": str(cache),
            "cut_off": bool(_without_network()),
            "writable": [str(cache)] if fill else [],
        }
        spec.write_text(json.dumps(settings), encoding="utf-8")
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", WORKER.format(str(ROOT)), str(spec), str(found)]
        start = time.monotonic()
        process = subprocess.Popen(
            [*_without_network(), *command],
            cwd=work,
            env=_environment(work, cache),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        running.add(process)
        ended = ""
        try:
            code = process.wait(limits.timeout)
        except subprocess.TimeoutExpired:
            code, ended = 0, f"the limit of {limits.timeout:g} s was reached"
        finally:
            stop(process)
            running.discard(process)
        seconds = time.monotonic() - start
        told = _told(found)
        if not ended and not any("end" in t for t in told):
            ended = _ending(code)
        return told, ended, seconds


def _told(found: Path) -> list[dict]:
    """The worker's findings; a line that was cut off when the process died is none."""
    out = []
    if found.exists():
        for line in found.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                out.append(json.loads(line))
            except ValueError:
                continue
    return [each for each in out if isinstance(each, dict)]


def stop(process: subprocess.Popen) -> None:
    """Kill a process and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _ending(code: int) -> str:
    """In words, how a process ended before its time.

    >>> _ending(7)
    'the process ended itself (code 7)'
    """
    if code >= 0:
        return f"the process ended itself (code {code})"
    name = signal.Signals(-code).name
    why = {"SIGXCPU": " for its processor time", "SIGKILL": ", perhaps for memory"}.get(name, "")
    return f"the process was killed{why} ({name})"


def _environment(work: Path, cache: Path) -> dict[str, str]:
    """The few variables that a notebook needs; nothing else of the lecturer's."""
    out = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    places = {"HOME": work, "TMPDIR": work / "tmp", "IPYTHONDIR": work / "tmp"}
    places |= {"MPLCONFIGDIR": cache / "matplotlib", "PIAA_DATA": data_dir()}
    single = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "MPLBACKEND": "Agg"}
    return {
        **out,
        **single,
        "PYTHONDONTWRITEBYTECODE": "1",
        **{name: str(place) for name, place in places.items()},
    }


def grade_one(
    submission: Submission, pristine: Pristine, limits: Limits, cache: Path, running: set
) -> dict[str, Any]:
    """The table's row for one notebook of one student, without "graded as"."""
    total = len(pristine.exercises)
    row = dict.fromkeys(COLUMNS, "")
    row |= {"student": submission.student, "notebook": pristine.name, "of": total, "seconds": 0}
    if submission.path is None:
        return _count(row, {}, pristine, ["it was not handed in"])
    try:
        cells = read_notebook(submission.path)
        beside = _beside(submission)
    except ValueError as error:
        return _count(row, {}, pristine, [str(error)])
    merged = merge(pristine, cells)
    plan = plan_of(pristine, merged)
    told, ended, seconds = [], "", 0.0
    if plan:
        told, ended, seconds = run_plan(plan, limits, beside, cache, False, running)
    row["seconds"] = round(seconds, 1)
    verdicts = {t["number"]: t["verdict"] for t in told if "verdict" in t}
    words = [_failure(t) for t in told if t.get("verdict") == "failed"]
    if ended:
        where = next((t["start"] for t in reversed(told) if "start" in t), "the lesson")
        words.insert(0, f"{ended} in {where}")
        asked = [step["number"] for step in plan if step["kind"] == "check"]
        lost = [number for number in asked if number not in verdicts]
        verdicts |= dict.fromkeys(lost, "failed")
        if later := [str(n) for n in lost if f"Exercise {n}" != where]:
            words.append(f"not reached: Exercise {', '.join(later)}")
    words += list(dict.fromkeys(t["note"] for t in told if "note" in t)) + merged.edited
    if submission.others:
        words.append(f"of {len(submission.others) + 1} files the newest, {submission.path.name}")
    return _count(row, verdicts, pristine, words)


def _failure(told: dict) -> str:
    """Why a check failed; most of the lesson's own words begin with the exercise already.

    >>> _failure({"number": 2, "message": "Exercise 2: too small."}), _failure(
    ...     {"number": 2, "message": "NameError: x"}
    ... )
    ('Exercise 2: too small.', 'Exercise 2: NameError: x')
    """
    start = f"Exercise {told['number']}"
    message = told["message"]
    return message if message.startswith(start) else f"{start}: {message}"


def _beside(submission: Submission) -> list[Path]:
    """The notebook and the files in its folder, which it may read.

    Raises
    ------
    ValueError
        They are too large to copy.
    """
    path = submission.path
    if submission.alone:
        return [path]
    files = sorted(p for p in path.parent.iterdir() if p.is_file() and not p.is_symlink())
    if sum(p.stat().st_size for p in files) > LARGEST:
        raise ValueError(f"the files beside it have more than {LARGEST >> 20} MB: take some away")
    return files


def _count(row: dict, verdicts: dict[int, str], pristine: Pristine, words: list[str]) -> dict:
    """Fill in a row's numbers and its sentence."""
    state = {n: verdicts.get(n, "blank") for n in sorted(pristine.exercises)}
    found = list(state.values())
    signs = {"passed": "+", "failed": "-", "blank": "."}
    row["points"] = row["passed"] = found.count("passed")
    row["failed"], row["not answered"] = found.count("failed"), found.count("blank")
    row["exercises"] = " ".join(f"{n}{signs[v]}" for n, v in state.items())
    row["what went wrong"] = _sentence(words)
    return row


def _sentence(words: list[str], limit: int = 600) -> str:
    """One line that begins with a capital and ends with a full stop.

    >>> _sentence(["it ended", "a cell was edited."])
    'It ended; a cell was edited.'
    """
    if not words:
        return ""
    text = "; ".join(" ".join(w.split()).rstrip(".") for w in words)
    text = "".join(c for c in text if c.isprintable())
    text = text if len(text) <= limit else text[: limit - 3] + "..."
    return text[0].upper() + text[1:] + "."


# The table


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier run; none where there is no file.

    Raises
    ------
    ValueError
        It is another table, which is not overwritten.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) == COLUMNS:
                return list(reader)
    except (UnicodeDecodeError, csv.Error):
        pass
    raise ValueError(f"{path} is no table of grades, so it stays: name another file with --out.")


def write_table(path: Path, rows: list[dict]) -> None:
    """Write all rows, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def _plain(student: str) -> str:
    r"""A folder's name that can be written, and that no spreadsheet takes for a formula.

    >>> _plain("=1+1"), _plain("ann"), _plain("j\udcf6rg")
    ("'=1+1", 'ann', 'j?rg')
    """
    return no_formula("".join(c if c.isprintable() else "?" for c in student))


def fingerprint(submission: Submission, pristine: Pristine, limits: Limits) -> str:
    """A hash of all that a row depends on; empty for what was not handed in."""
    if submission.path is None:
        return ""
    digest = hashlib.sha256(f"{_package()} {limits} {len(submission.others)}".encode())
    digest.update(pristine.path.read_bytes())
    for file in _small(submission):
        digest.update(os.fsencode(file.name) + f" {file.stat().st_size} ".encode())
        with file.open("rb") as opened:
            for block in iter(lambda: opened.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()[:16]


def _small(submission: Submission) -> list[Path]:
    try:
        return _beside(submission)
    except ValueError:
        return [submission.path]


@lru_cache(maxsize=1)
def _package() -> str:
    """A hash of the package's code, where the checks are."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "piaa_utils").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def trial(pristine: Pristine, limits: Limits, cache: Path, running: set) -> str:
    """Run a notebook with its own solutions, filling the cache: what does not pass, in words.

    The solutions are in the notebook of the same name one folder up. Where that is missing, the
    blank notebook runs, and nothing can fail. A trial that passed is remembered in the cache.
    """
    solved = pristine.path.parent.parent / pristine.path.name
    cells = nbformat.read(solved, 4).cells if solved.exists() else pristine.cells
    key = hashlib.sha256(f"{_package()} {limits}".encode() + pristine.path.read_bytes())
    key.update(solved.read_bytes() if solved.exists() else b"")
    stamp = cache / "graded" / key.hexdigest()[:16]
    if stamp.exists():
        return ""
    merged = merge(pristine, cells)
    plan = plan_of(pristine, Merged(merged.answers, {}, []))
    longer = Limits(3 * limits.timeout, limits.memory)  # features may have to be computed
    told, ended, _ = run_plan(plan, longer, [], cache, True, running)
    bad = [_failure(t) for t in told if t.get("verdict") == "failed"]
    bad += [t["note"] for t in told if "note" in t] + ([ended] if ended else [])
    if not bad:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        write_whole(stamp, b"")
    return "; ".join(bad)


def grade(
    folder: str | os.PathLike,
    out: str | os.PathLike = "grades.csv",
    limits: Limits = Limits(),
    jobs: int = 1,
    again: bool = False,
    pristine: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """Grade all notebooks of a class; the table is on disk after every row.

    Parameters
    ----------
    folder : what was handed in; see this module.
    out : the table, CSV. Its rows are kept where nothing they depend on has changed, and so are
        rows of students who are not in `folder`.
    limits : for each notebook. One exercise may take a quarter of the time.
    jobs : notebooks at a time.
    again : grade also what has not changed.
    pristine : the folder of the notebooks as handed out, by default ``notebooks/student``.
    cache : the folder of the features, by default ``cache/notebooks``.

    Returns
    -------
    The rows, dicts with the keys COLUMNS.

    Raises
    ------
    ValueError
        No such folder, nothing to grade in it, limits that are not positive, or `out` is another
        file than a table of grades.
    OSError
        The table cannot be written.
    """
    if limits.timeout <= 0 or limits.memory <= 0 or jobs < 1:
        raise ValueError("The limits of time and memory and the number of jobs are above zero.")
    out, cache = Path(out), Path(cache or data_dir().parent / "cache" / "notebooks")
    handed_out = Path(pristine or ROOT / "notebooks" / "student")
    names = [p.stem for p in sorted(handed_out.glob("[0-9][0-9]_*.ipynb"))]
    work, ignored = submissions(Path(folder), names)
    for name in ignored:
        print(f"Not graded: {name} (it is no sub-folder, and no notebook after a student's name)")
    originals = {n: read_pristine(handed_out / f"{n}.ipynb") for n in {s.notebook for s in work}}
    earlier = {(r["student"], r["notebook"]): r for r in read_table(out)}
    rows = dict(earlier)
    write_table(out, list(rows.values()))  # finds out now whether it can be written
    waiting = []
    for submission in work:
        key = (_plain(submission.student), submission.notebook)
        mark = fingerprint(submission, originals[submission.notebook], limits)
        if again or not mark or earlier.get(key, {}).get("graded as") != mark:
            waiting.append((key, submission, mark))
    wanted = {(_plain(s.student), s.notebook) for s in work}
    if others := len(set(earlier) - wanted):
        print(f"Kept: {others} rows of {out} that are not in {folder}")
    if kept := len(work) - len(waiting):
        print(f"Kept: {kept} rows of {out} whose notebooks have not changed (--again grades them)")
    for key, row in _graded(waiting, originals, limits, cache, jobs):
        rows[key] = row
        write_table(out, [rows[k] for k in sorted(rows)])
        line = f"{key[0]}  {key[1]}  {row['points']}/{row['of']}  {row['seconds']} s"
        print(f"{line}  {row['what went wrong']}".rstrip(), flush=True)
    return [rows[k] for k in sorted(rows)]


def _graded(
    waiting: list, originals: dict, limits: Limits, cache: Path, jobs: int
) -> Iterator[tuple[tuple[str, str], dict]]:
    """The rows as they are ready; stops what still runs when it is left early."""
    running: set[subprocess.Popen] = set()
    names = sorted({s.notebook for _, s, _ in waiting if s.path is not None})
    pool = ThreadPoolExecutor(jobs)
    try:
        bad = {}
        for name in names:
            print(f"{name}: a trial with its own solutions", flush=True)
            if words := trial(originals[name], limits, cache, running):
                bad[name] = words
        futures = {}
        for key, submission, mark in waiting:
            original = originals[submission.notebook]
            if submission.notebook in bad and submission.path is not None:
                words = f"not graded, since its own solutions fail here ({bad[original.name]})"
                row = {**dict.fromkeys(COLUMNS, ""), "of": len(original.exercises), "seconds": 0}
                row |= {"student": key[0], "notebook": key[1]}
                yield key, {**row, "points": "", "what went wrong": _sentence([words])}
                continue
            call = (submission, original, limits, cache, running)
            futures[pool.submit(grade_one, *call)] = (key, mark)
        for future in as_completed(futures):
            key, mark = futures[future]
            try:
                row = {**future.result(), "student": key[0], "graded as": mark}
            except Exception as error:  # whatever it is, it costs this row and no other
                row = dict.fromkeys(COLUMNS, "") | {"student": key[0], "notebook": key[1]}
                words = f"not graded ({type(error).__name__}: {error})"
                row |= {"seconds": 0, "what went wrong": _sentence([words])}
            yield key, row
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            stop(process)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m piaa_utils grade``."""
    parser.add_argument("folder", type=Path, help="what was handed in: a sub-folder a student")
    parser.add_argument("--out", type=Path, default=Path("grades.csv"), help="the table")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one notebook")
    parser.add_argument("--memory", type=int, default=4096, help="megabytes for one notebook")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at a time")
    parser.add_argument("--again", action="store_true", help="also what has not changed")


def run_command(options: argparse.Namespace) -> None:
    """``python -m piaa_utils grade``: :func:`grade` with the options of the command line."""
    limits = Limits(options.timeout, options.memory)
    try:
        rows = grade(options.folder, options.out, limits, options.jobs, options.again)
    except KeyboardInterrupt:
        print(f"\nStopped. What was graded so far is in {options.out}; run it again to go on.")
        raise SystemExit(130) from None
    print(f"Saved: {options.out}, {len(rows)} rows")
