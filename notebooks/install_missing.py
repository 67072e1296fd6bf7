"""Install what the series needs and this Python lacks; what is there stays as it is.

Run by the setup cell of every notebook. What the series needs and is there is not upgraded or
downgraded, also where a missing package asks for it, so a kernel that runs already (Colab's) need
not be restarted; where nothing is missing, no network is needed.
"""

import re
import subprocess
import sys
import tempfile
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


def installed() -> list[str]:
    """The requirements that are installed, each held to its version: ``numpy==2.0.2``."""
    out = []
    for line in requirements():
        name = re.match(r"[\w.-]+", line)[0]
        try:
            out.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            pass
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
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "installed.txt"
        held.write_text("\n".join(installed()))
        done = subprocess.run([*command, "--disable-pip-version-check", "-c", str(held)])
    if done.returncode:
        words = " ".join(f"'{word}'" if re.search("[<>]", word) else word for word in command)
        sys.exit(
            f"The packages {', '.join(lines)} are missing and could not be installed: connect to "
            f"a network and run the cell again, or, where pip names a conflict above, run {words} "
            "in a terminal, which may replace what is installed, and restart the kernel."
        )


if __name__ == "__main__":
    main()
