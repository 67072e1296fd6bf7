"""What the benchmarks share: options, paired timing, the machine's name, tables, JSON."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from piaa_utils.files import write_whole

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


def options(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of PyTorch")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, after one to warm up")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help='"process" counts processor time: with --threads 1, a guide on a busy machine',
    )
    return parser


def rounds(
    work: dict[str, Callable[[], Any]], repeats: int, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of each piece of work, taken in turns: `repeats` rounds, after one to warm up."""
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        for name, run in work.items():
            start = now()
            run()
            if turn:
                seconds[name].append(now() - start)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over rounds of one time over another of the same round."""
    return median(a / b for a, b in zip(above, below, strict=True))


def processor() -> str:
    """The processor's name, as Linux gives it; elsewhere what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (named or [platform.processor() or platform.machine()])[0]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def report(name: str, text: str, result: dict, given: argparse.Namespace) -> None:
    """Print the tables, and write the numbers to folder/name.json with the machine's name."""
    about = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "clock": given.clock,
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"{name}.json"
    write_whole(path, (json.dumps({"machine": about, **result}, indent=1) + "\n").encode())
    where = f"{about['processor']}, {about['threads']} threads, torch {about['torch']}"
    print(f"{text}\n\n{where}, {given.clock} time\nSaved: {path}\n")
