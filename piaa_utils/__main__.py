"""``python -m piaa_utils COMMAND``: the commands of the package, each in a module of its own."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

# Every module has ``add_arguments(parser)`` and ``run_command(options)``.
COMMANDS = {
    "run": ("ablation", "measure what each step of PIAA adds, on the embedded mini world"),
    "predict": ("predict", "tag your own images"),
    "reproduce": ("reproduce", "measure the paper's table on its data sets"),
    "download": ("downloads", "fetch and unpack one of the paper's data sets"),
    "grade": ("classroom.grade", "grade a class's notebooks: a folder in, a table out"),
    "handout": ("classroom.handout", "make the folder for a class's students"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line (by default the process's own) and run the command that it names."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m piaa_utils", description=__doc__)
    try:
        run(parser, arguments)
    except (ValueError, OSError, ImportError) as error:  # what a user can mend, in one sentence
        missing = isinstance(error, ImportError) and error.name
        mend = ": install what it needs with pip install -e ." if missing else ""
        print(f"{parser.prog} {arguments[0]}: {error}{mend}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\n{parser.prog} {' '.join(arguments[:1])}: interrupted.", file=sys.stderr)
        raise SystemExit(130) from None


def run(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    """Run the command that the arguments name."""
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if arguments[:1] == [name]:  # the others' libraries need not be loaded
            module = importlib.import_module(f"piaa_utils.{module}")
            module.add_arguments(command)
            command.set_defaults(run=module.run_command)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
