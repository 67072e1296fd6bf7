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
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if arguments[:1] == [name]:  # the others' libraries need not be loaded
            module = importlib.import_module(f"piaa_utils.{module}")
            module.add_arguments(command)
            command.set_defaults(run=module.run_command)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:  # what a user can mend, said in one sentence
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
