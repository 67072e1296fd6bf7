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
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PIP_LINES = next(entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))
PINS = [Requirement(line) for line in PIP_LINES if not line.startswith("-e")]

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="there is no make")


def required():
    """Everything that pyproject.toml asks for, with every extra."""
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for lines in (PROJECT["dependencies"], *extras) for line in lines]


def later():
    """What only `make book`, `make notebooks` and `make test-browser` install."""
    extras, later = PROJECT["optional-dependencies"], ("book", "browser", "teach")
    return {canonicalize_name(Requirement(line).name) for e in later for line in extras[e]}


def installed(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def pinned_version(pin):
    (specifier,) = pin.specifier
    assert specifier.operator == "==", f"environment.yml must give one version of {pin.name}"
    return specifier.version


# Versions


@pytest.mark.skipif("PIAA_DRIFT" in os.environ, reason="tests/drift/run.py takes other versions")
@pytest.mark.parametrize("pin", PINS, ids=lambda pin: pin.name)
def test_environment_yml_has_the_versions_of_this_environment(pin):
    version = pinned_version(pin)
    if pin.marker and not pin.marker.evaluate():
        pytest.skip(f"Python of this version takes what {pin.name} still offers it")
    if canonicalize_name(pin.name) in later() and not installed(pin.name):
        pytest.skip("another command installs it")
    assert metadata.version(pin.name) == version, (
        f"environment.yml pins {pin.name} {version}; run the tests with `make test`, which "
        "installs it, or change the line"
    )


@pytest.mark.parametrize("requirement", required(), ids=lambda requirement: requirement.name)
def test_every_requirement_is_pinned_within_its_range(requirement):
    pins = {canonicalize_name(pin.name): pinned_version(pin) for pin in PINS}
    assert requirement.specifier, f"pyproject.toml gives no range for {requirement.name}"
    assert pins[canonicalize_name(requirement.name)] in requirement.specifier


def test_conda_installs_the_package_itself_with_all_extras():
    (line,) = [line for line in PIP_LINES if line.startswith("-e")]
    extras = set(re.fullmatch(r"-e \.\[(.*)\]", line)[1].split(","))
    assert extras == set(PROJECT["optional-dependencies"])


def test_make_reads_the_same_pins_as_conda():
    """The Makefile's sed line finds in environment.yml exactly what a YAML reader finds."""
    command = re.search(r"sed -n '(s/\^ \*- .*)' environment\.yml", (ROOT / "Makefile").read_text())
    words = ["sed", "-n", command[1], "environment.yml"]
    found = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert [str(Requirement(line)) for line in found.stdout.splitlines()] == list(map(str, PINS))


def test_the_wheel_has_the_command_and_all_packages():
    assert PROJECT["scripts"] == {"piaa": "piaa_utils.__main__:main"}
    (pattern,) = SETUPTOOLS["packages"]["find"]["include"]
    folders = {path.parent for path in (ROOT / "piaa_utils").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders), "no package"
    assert all(
        fnmatch.fnmatch(folder.name, pattern) or folder.parent in folders for folder in folders
    )
    other = {p.name for p in (ROOT / "piaa_utils").iterdir() if p.is_file()}
    other = {n for n in other if not n.endswith((".py", ".md"))}
    patterns = SETUPTOOLS["package-data"]["piaa_utils"]
    assert "py.typed" in other
    assert all(any(fnmatch.fnmatch(name, p) for p in patterns) for name in other), other


# Commands


@pytest.fixture
def copy(tmp_path):
    """A folder with what `make` needs to decide what to do."""
    for name in ("Makefile", "pyproject.toml", "environment.yml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder, *words, **more_environment):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        [shutil.which("make"), *words],
        cwd=folder,
        env={**environment, **more_environment},
        capture_output=True,
        text=True,
    )


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@needs_make
def test_make_alone_lists_the_commands(copy):
    done = make(copy)
    assert done.returncode == 0, done.stderr
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert listed == set(phony.replace("\\", "").split()) - {"gone"}


@needs_make
def test_help_leaves_an_environment_whose_python_fails(copy):
    program(copy / ".venv/bin/python", "exit 127")
    (copy / ".venv/ready").touch()
    assert make(copy).returncode == 0
    assert (copy / ".venv/bin/python").exists() and (copy / ".venv/ready").exists()


@needs_make
def test_lab_opens_the_notebooks_where_there_are_some(copy):
    """JupyterLab does not start in a folder that is missing."""
    assert make(copy, "-n", "lab").stdout.rstrip().endswith("-m jupyterlab")
    (copy / "notebooks").mkdir()
    assert make(copy, "-n", "lab").stdout.rstrip().endswith("-m jupyterlab notebooks")


@needs_make
def test_second_make_does_not_install_again(copy):
    assert "pip install" in make(copy, "-n", "run", "UV=").stdout
    program(copy / ".venv/bin/python", "exit 0")
    (copy / ".venv/ready").touch()
    planned = make(copy, "-n", "run", "UV=").stdout
    assert "pip install" not in planned and "-m piaa_utils run" in planned
    os.utime(copy / ".venv/ready", (1, 1))  # older than pyproject.toml
    assert "pip install" in make(copy, "-n", "run", "UV=").stdout


@needs_make
def test_environment_whose_python_is_gone_is_made_anew(copy):
    program(copy / ".venv/bin/python", "exit 127")
    (copy / ".venv/ready").touch()
    planned = make(copy, "-n", "run", "UV=").stdout
    assert "pip install" in planned and "-m venv --clear .venv" in planned


@needs_make
def test_machine_without_a_new_enough_python_gets_one_sentence(copy):
    tools = copy / "tools"
    for name in ("sh", "rm", "sed", "touch"):
        program(tools / name, f'exec {shutil.which(name)} "$@"')
    for name in ("python3", "python3.11"):
        program(tools / name, "exit 1")
    done = make(copy, "run", PATH=str(tools))
    assert done.returncode != 0
    sentence = done.stderr.splitlines()[0]
    assert sentence.startswith("There is no Python 3.10 or newer") and "install" in sentence
    assert not (copy / ".venv").exists()


@needs_make
def test_first_good_python_makes_the_environment(copy):
    """Python 3.9 is passed over; the environment gets the pins and the package with its extras."""
    tools, log = copy / "tools", copy / "log"
    program(tools / "python3", "exit 1")
    fake_environment = f'#!/bin/sh\\necho pip "$@" >> {log}\\n'
    program(
        tools / "python3.13",
        f'echo found "$@" >> {log}\n'
        '[ "$2" != venv ] && exit 0\n'
        f"mkdir -p .venv/bin; printf '{fake_environment}' > .venv/bin/python\n"
        "chmod +x .venv/bin/python",
    )
    done = make(copy, "run", "UV=", PATH=f"{tools}:/usr/bin:/bin", CI="")
    assert done.returncode == 0, done.stderr
    told = log.read_text()
    assert "found -m venv --clear .venv" in told
    assert re.search(r"pip -m pip install .*-c \.venv/versions\.txt -e \.\[coco,lab,test\]", told)
    assert told.splitlines()[-1] == "pip -m piaa_utils run"
    assert "torch==" in (copy / ".venv/versions.txt").read_text()
    assert (copy / ".venv/ready").exists()


@needs_make
def test_uv_installs_the_same_pins_where_it_is_there(copy):
    tools, log = copy / "tools", copy / "log"
    program(tools / "uv", f'echo uv "$@" >> {log}')
    program(copy / ".venv/bin/python", "exit 0")
    done = make(copy, "run", PATH=f"{tools}:{os.environ['PATH']}", CI="")
    assert done.returncode == 0, done.stderr
    pins = r"-c \.venv/versions\.txt -e \.\[coco,lab,test\]"
    assert re.fullmatch(rf"uv pip install --python \.venv/bin/python {pins}\n", log.read_text())


@needs_make
def test_failed_installation_is_tried_again(copy):
    program(copy / ".venv/bin/python", '[ "$3" != install ]')
    assert make(copy, "run", "UV=").returncode != 0
    assert not (copy / ".venv/ready").exists()


ALWAYS = [".venv/teach .venv/book", "test"]  # what .ci/run calls on every machine


def run_ci(copy, *programs, make="exit 0"):
    """Run .ci/run in a folder with a `make` that notes its calls; (its calls, what was done)."""
    tools, log = copy / "tools", copy / "log"
    (copy / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", copy / ".ci")
    for name in ("dirname", "head"):
        program(tools / name, f'exec {shutil.which(name)} "$@"')
    for name in programs:
        program(tools / name, "exit 1")
    program(tools / "make", f'echo "$@" >> {log}\n{make}')
    command = [shutil.which("bash"), ".ci/run"]
    environment = {"PATH": str(tools)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    return log.read_text().splitlines(), done


def test_ci_calls_make_test_and_says_that_there_is_no_browser(copy):
    assert os.access(ROOT / ".ci/run", os.X_OK)
    calls, done = run_ci(copy)
    assert done.returncode == 0 and calls == ALWAYS
    assert done.stdout.startswith("Left out: make test-browser, for there is no Chromium")


def test_ci_calls_make_test_browser_where_there_is_one(copy):
    calls, done = run_ci(copy, "chromium")
    assert done.returncode == 0 and calls == [*ALWAYS, ".venv/browser", "test-browser"]


def test_ci_says_that_playwright_could_not_be_installed(copy):
    calls, done = run_ci(copy, "chromium", make='[ "$1" != .venv/browser ]')
    assert done.returncode == 0 and calls == [*ALWAYS, ".venv/browser"]
    assert "Left out: make test-browser, for playwright could not be installed" in done.stdout


@pytest.mark.parametrize("failing", [*ALWAYS, "test-browser"])
def test_ci_fails_where_a_test_fails(copy, failing):
    calls, done = run_ci(copy, "chromium", make=f'[ "$*" != "{failing}" ]')
    assert done.returncode != 0 and calls[-1] == failing


# Binder


def test_binder_takes_the_python_and_the_versions_of_environment_yml(copy):
    """Its postBuild, run with a `python` that notes what pip is asked for."""
    (python,) = [e for e in CONDA["dependencies"] if str(e).startswith("python=")]
    runtime = (ROOT / ".binder/runtime.txt").read_text().strip()
    assert runtime == f"python-{python.removeprefix('python=')}"
    log = copy / "log"
    program(
        copy / "tools/python",
        f'if [ "$2" = pip ]; then echo "$@" >> {log}; cp versions.txt taken.txt; '
        f"else echo features >> {log}; fi",
    )
    command = [shutil.which("bash"), ROOT / ".binder/postBuild"]
    environment = {**os.environ, "PATH": f"{copy / 'tools'}:{os.environ['PATH']}"}
    subprocess.run(command, cwd=copy, env=environment, check=True)
    asked, then = log.read_text().splitlines()
    assert asked.endswith(" -c versions.txt -e .") and then == "features"
    taken = (copy / "taken.txt").read_text().splitlines()
    assert [str(Requirement(line)) for line in taken] == list(map(str, PINS))
    assert not (copy / "versions.txt").exists()


def test_binder_has_all_it_looks_for_and_no_list_of_its_own():
    """Where .binder is, repo2docker reads nothing else; a list of versions there could drift."""
    assert {p.name for p in (ROOT / ".binder").iterdir()} == {"runtime.txt", "postBuild"}
    assert os.access(ROOT / ".binder/postBuild", os.X_OK)
    assert "==" not in (ROOT / ".binder/postBuild").read_text().replace(r".*==.*", "")


# Size


def test_repository_stays_under_80_mib():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    total = sum(file.stat().st_size for file in files if file.is_file())
    assert total < 80 * 2**20, f"{total / 2**20:.1f} MiB are committed"
