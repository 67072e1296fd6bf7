"""``python -m piaa_utils run``: the ablation on the embedded mini world."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from piaa_utils import ablation


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line (by default the process's own) and run the command that it names."""
    parser = argparse.ArgumentParser(prog="python -m piaa_utils", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure what each step of PIAA adds")
    run.add_argument("--out", type=Path, default=Path("results"), help="folder of the results")
    run.add_argument("--cache", type=Path, default=Path("cache"), help="folder to reuse work from")
    options = parser.parse_args(arguments)
    ablation.run(options.out, options.cache)


if __name__ == "__main__":
    main()
