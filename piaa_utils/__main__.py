"""``piaa COMMAND``, or ``python -m piaa_utils COMMAND``: each command in a module of its own."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from piaa_utils.files import printable

# Every module has ``add_arguments(parser)`` and ``run_command(options)``.
COMMANDS = {
    "run": ("ablation", "measure what each step of PIAA adds, on the embedded mini world"),
    "predict": ("predict", "tag your own images"),
    "reproduce": ("reproduce", "measure the paper's table on its data sets"),
    "download": ("download", "fetch one of the paper's data sets, or the embedded data"),
}
EXPECTED = (ValueError, OSError, ImportError, MemoryError)  # what a user can mend


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; what goes wrong is one sentence and status 2, or with --debug a trace."""
    if hasattr(sys.stdout, "reconfigure"):  # names that the terminal's encoding does not have
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        run(arguments)
    except KeyboardInterrupt:
        print(f"\npiaa {' '.join(arguments[:1])}: interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if debug:
            raise
        said = printable(" ".join(str(error).split()))
        if isinstance(error, ModuleNotFoundError):
            said += ": install what it needs with pip install -e ."
        if not isinstance(error, EXPECTED):
            said = f"{type(error).__name__}: {said} (--debug shows where)"
        print(f"piaa {arguments[0]}: {said or type(error).__name__}", file=sys.stderr)
        raise SystemExit(2) from None


def run(arguments: list[str]) -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(prog="piaa", description=__doc__)
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if arguments[:1] == [name]:  # the others' libraries need not be loaded
            loaded = importlib.import_module(f"piaa_utils.{module}")
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.run_command)
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
