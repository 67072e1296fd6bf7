"""The tests on the oldest or the newest versions that pyproject.toml allows.

``make test-min`` and ``make test-latest`` make a virtual environment of their own, ``.venv-min`` or
``.venv-latest`` (some GB), and run ``make unit nbval`` there; what was installed is written to
``results/drift``. ``DRIFT_PYTHON=path`` chooses the interpreter; without it the oldest or the
newest from 3.10 on that is found on the machine.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESOLUTION = {"min": "lowest-direct", "latest": "highest"}
EXTRAS = ("--extra", "coco", "--extra", "lab", "--extra", "test")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def find_python(which: str) -> str:
    """The interpreter: $DRIFT_PYTHON, or the oldest ("min") or newest ("latest") that starts."""
    if given := os.environ.get("DRIFT_PYTHON"):
        return given
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = list[str | Path | None]()
    for version in PYTHONS if which == "min" else PYTHONS[::-1]:
        known += [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")]
    for python in filter(None, known):
        if subprocess.run([python, "-c", "pass"], capture_output=True).returncode == 0:
            return str(python)
    raise SystemExit("There is no Python 3.10 or newer here: DRIFT_PYTHON=path make test-min.")


def run(*command: object, **environment: str) -> None:
    """Run a command in the repository; end with its status if it fails."""
    done = subprocess.run([str(c) for c in command], cwd=ROOT, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(done.returncode)


def main(which: str) -> None:
    """Make the environment for "min" or "latest", and run the tests in it."""
    home = ROOT / f".venv-{which}"
    python = home / "bin" / "python"
    uv = ROOT / ".venv" / "uv" / "bin" / "uv"
    if not uv.exists():
        run(sys.executable, "-m", "venv", uv.parents[1])
        run(uv.parent / "pip", "install", "--quiet", "uv")
    if not python.exists():
        run(find_python(which), "-m", "venv", home)
    versions = ROOT / "results" / "drift" / f"{which}.txt"
    versions.parent.mkdir(parents=True, exist_ok=True)
    resolve = ("--resolution", RESOLUTION[which], "--python", python, "-o", versions)
    run(uv, "pip", "compile", "--quiet", "--upgrade", "pyproject.toml", *EXTRAS, *resolve)
    run(uv, "pip", "install", "--quiet", "--python", python, "-r", versions)
    run(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "-e", ROOT)
    ready = home / "ready"
    ready.touch()
    own = {"PIAA_CACHE": str(home / "cache"), "PIAA_DRIFT": which}
    run("make", "unit", "nbval", f"PYTHON={python}", f"READY={ready}", **own)
    print(f"Passed with the versions in {versions}.")


if __name__ == "__main__":
    main(sys.argv[1])
