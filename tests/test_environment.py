"""The scaffolding: one list of versions, two commands, a repository of bearable size."""

import fnmatch
import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # comes with pytest there

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PIP_LINES = next(entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))
PINS = [Requirement(line) for line in PIP_LINES if not line.startswith("-e")]


def named(*extras):
    """What pyproject.toml asks for with these extras."""
    return [Requirement(line) for extra in extras for line in EXTRAS[extra]]


REQUIRED = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]] + named(*EXTRAS)
LATER = {canonicalize_name(r.name) for r in named("book", "browser", "teach")}


def pinned_version(pin):
    (specifier,) = pin.specifier
    assert specifier.operator == "==", f"environment.yml must give one version of {pin.name}"
    return specifier.version


@pytest.mark.skipif("PIAA_DRIFT" in os.environ, reason="tests/drift/run.py takes other versions")
def test_environment_yml_has_the_versions_of_this_environment():
    """Run by `make test`, which installs them."""
    for pin in PINS:
        if pin.marker and not pin.marker.evaluate():
            continue  # Python of this version takes what the package still offers it
        try:
            assert metadata.version(pin.name) == pinned_version(pin), pin.name
        except metadata.PackageNotFoundError:
            assert canonicalize_name(pin.name) in LATER


def test_every_requirement_is_pinned_within_its_range():
    pins = {canonicalize_name(pin.name): pinned_version(pin) for pin in PINS}
    for requirement in REQUIRED:
        assert requirement.specifier, f"pyproject.toml gives no range for {requirement.name}"
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_make_and_conda_install_the_same():
    """The Makefile's sed line finds in environment.yml exactly what a YAML reader finds."""
    command = re.search(r"sed -n '(s/\^ \*- .*)' environment\.yml", (ROOT / "Makefile").read_text())
    words = ["sed", "-n", command[1], "environment.yml"]
    found = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert [str(Requirement(line)) for line in found.stdout.splitlines()] == list(map(str, PINS))
    (line,) = [line for line in PIP_LINES if line.startswith("-e")]
    assert set(re.fullmatch(r"-e \.\[(.*)\]", line)[1].split(",")) == set(EXTRAS)


def test_the_wheel_has_all_packages_and_files():
    folders = {path.parent for path in (ROOT / "piaa_utils").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
    patterns = (*PYPROJECT["tool"]["setuptools"]["package-data"]["piaa_utils"], "*.py", "*.md")
    names = [path.name for path in (ROOT / "piaa_utils").iterdir() if path.is_file()]
    assert "py.typed" in names
    assert not [n for n in names if not any(fnmatch.fnmatch(n, p) for p in patterns)]


@pytest.fixture
def copy(tmp_path):
    """A folder with what `make` needs to decide what to do."""
    for name in ("Makefile", "pyproject.toml", "environment.yml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder, *words, **more):
    if not shutil.which("make"):
        pytest.skip("there is no make")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")} | more
    command = [shutil.which("make"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("python", "age", "installs"),
    [(None, None, True), ("exit 0", None, False), ("exit 0", 1, True), ("exit 127", None, True)],
    ids=["first", "again", "older than pyproject.toml", "its Python is gone"],
)
def test_make_installs_where_it_must(copy, python, age, installs):
    if python:
        program(copy / ".venv/bin/python", python)
        (copy / ".venv/ready").touch()
        os.utime(copy / ".venv/ready", age and (age, age))
    planned = make(copy, "-n", "run", "UV=").stdout
    assert ("pip install" in planned) == installs and "-m piaa_utils run" in planned


def test_what_cannot_be_installed_leaves_no_environment(copy):
    program(copy / ".venv/bin/python", '[ "$3" != install ]')
    assert make(copy, "run", "UV=").returncode != 0
    assert not (copy / ".venv/ready").exists(), "it is tried again"
    shutil.rmtree(copy / ".venv")
    tools = copy / "tools"
    for name in ("sh", "rm", "sed", "touch"):
        program(tools / name, f'exec {shutil.which(name)} "$@"')
    for name in ("python3", "python3.11"):
        program(tools / name, "exit 1")
    done = make(copy, "run", PATH=str(tools))
    assert done.returncode != 0 and not (copy / ".venv").exists()
    assert done.stderr.startswith("There is no Python 3.10 or newer")


def test_first_good_python_makes_the_environment(copy):
    """Python 3.9 is passed over; the environment gets the pins and the package with its extras."""
    tools, log = copy / "tools", copy / "log"
    program(tools / "python3", "exit 1")
    makes = f"""mkdir -p .venv/bin; cp {copy / "fake"} .venv/bin/python"""
    program(copy / "fake", f'echo pip "$@" >> {log}')
    program(tools / "python3.13", f'echo found "$@" >> {log}\n[ "$2" != venv ] || {{ {makes}; }}')
    done = make(copy, "run", "UV=", PATH=f"{tools}:/usr/bin:/bin", CI="")
    assert done.returncode == 0 and (copy / ".venv/ready").exists(), done.stderr
    told = log.read_text()
    assert "found -m venv --clear .venv" in told
    assert re.search(r"pip -m pip install .*-c \.venv/versions\.txt -e \.\[coco,lab,test\]", told)
    assert told.splitlines()[-1] == "pip -m piaa_utils run"
    assert "torch==" in (copy / ".venv/versions.txt").read_text()


def test_binder_takes_the_python_and_the_versions_of_environment_yml(copy):
    """Its postBuild, run with a `python` that notes what pip is asked for."""
    runtime = (ROOT / ".binder/runtime.txt").read_text().strip()
    assert runtime.replace("-", "=") in CONDA["dependencies"]
    assert os.access(ROOT / ".binder/postBuild", os.X_OK)
    program(copy / "tools/python", '[ "$2" != pip ] || { echo "$@"; cat versions.txt; } >> asked')
    path = {"PATH": f"{copy / 'tools'}:{os.environ['PATH']}"}
    command = ["bash", ROOT / ".binder/postBuild"]
    subprocess.run(command, cwd=copy, env=os.environ | path, check=True)
    asked, *versions = (copy / "asked").read_text().splitlines()
    assert asked.endswith(" -c versions.txt -e .")
    assert [str(Requirement(line)) for line in versions] == list(map(str, PINS))


def test_repository_stays_under_80_mib():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    total = sum(file.stat().st_size for file in files if file.is_file())
    assert total < 80 * 2**20, f"{total / 2**20:.1f} MiB are committed"
