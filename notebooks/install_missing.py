"""Install what the series needs and this Python lacks; what is there stays as it is.

Run by the setup cell of every notebook. Nothing is upgraded or downgraded, so a kernel that runs
already (Colab's) need not be restarted; where nothing is missing, no network is needed.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def requirements() -> list[str]:
    """The lines of ``dependencies`` in pyproject.toml (Python 3.10 has no TOML reader)."""
    block = re.search(r"^dependencies = \[\n(.*?)^\]", PYPROJECT.read_text(), re.M | re.S)[1]
    return re.findall(r'"(.+?)"', block)


def missing() -> list[str]:
    """The requirements whose package is not installed, whatever its version."""
    out = []
    for line in requirements():
        try:
            metadata.distribution(re.match(r"[\w.-]+", line)[0])
        except metadata.PackageNotFoundError:
            out.append(line)
    return out


def too_old() -> list[str]:
    """What is installed in another version than asked for, in words; it is left as it is."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return []
    out = []
    for line in map(Requirement, requirements()):
        try:
            version = metadata.version(line.name)
        except metadata.PackageNotFoundError:
            continue
        if not line.specifier.contains(version, prereleases=True):
            out.append(f"{line.name} {version} is installed, {line.specifier} is asked for")
    return out


def main() -> None:
    """Install what is missing, or say in one sentence why that failed."""
    for words in too_old():
        print(f"Note: {words}; if something fails, install that version.", flush=True)
    lines = missing()
    if not lines:
        return
    print(f"Installing {', '.join(lines)}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", *lines]
    if subprocess.run(command).returncode:
        sys.exit(
            f"The packages {', '.join(lines)} are missing and could not be installed: connect to "
            f"a network and run the cell again, or install them with: {' '.join(command)}"
        )


if __name__ == "__main__":
    main()
