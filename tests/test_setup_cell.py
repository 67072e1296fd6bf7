"""The setup cell where such cells break: on a machine like Colab's, and with the network refused.

The stand-in is a fresh environment that sees the packages of this one except what Colab lacks. The
series is served by git from a folder, packages are served by pip from another, beside a newer
torch and numpy that must not be taken. (Setup in a clone: test_notebooks.py.)
"""

import base64
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import numpy
import pytest

ROOT = Path(__file__).resolve().parents[1]
SETUP = (ROOT / "tests" / "setup_cell.txt").read_text(encoding="utf-8")
LACKING = ("open_clip_torch", "ftfy")  # what Colab does not have
HIDDEN = re.compile(r"(?i)open_clip|ftfy|piaa|__editable__|.*\.pth$|__pycache__")
REFUSED = "http://127.0.0.1:9"  # nothing listens there
VERSIONS = {name: metadata.version(name) for name in ("numpy", "torch", "torchvision")}
pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="there is no git")


@pytest.fixture(scope="module")
def install_missing():
    path = ROOT / "notebooks" / "install_missing.py"
    spec = importlib.util.spec_from_file_location("install_missing", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder of wheels: what is lacking, and a newer torch and numpy as bait."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in LACKING:
        pack(folder, name, metadata.version(name))
    for name in ("torch", "numpy", "torchvision"):
        empty_wheel(folder, name, "99.0")
    return folder


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """The address of a repository with what the setup cell needs of this checkout."""
    folder = tmp_path_factory.mktemp("remote")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "piaa_utils", folder / "piaa_utils", ignore=ignore)
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks/install_missing.py", folder / "notebooks")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm all"):
        subprocess.run(["git", *words.split()], cwd=folder, check=True)
    return folder.as_uri()


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    """This environment's packages without the lacking ones, and without this project."""
    folder = tmp_path_factory.mktemp("view")
    for path in Path(numpy.__file__).resolve().parents[1].iterdir():
        if not HIDDEN.match(path.name):
            (folder / path.name).symlink_to(path)
    return folder


class Machine:
    """A fresh Python like Colab's, the folder it runs in, and what it may reach."""

    def __init__(self, folder, view, **reach):
        venv.create(folder / "python", with_pip=False)  # pip is in the view
        self.python = folder / "python" / "bin" / "python"
        (self.site,) = folder.glob("python/lib/python*/site-packages")
        (self.site / "view.pth").write_text(f"{view}\n")
        (self.site / "google" / "colab").mkdir(parents=True)
        (self.site / "google" / "colab" / "__init__.py").write_text("")
        self.content = folder / "content"
        self.content.mkdir()
        self.reach = reach

    def run(self, code=SETUP, **reach):
        """Run the code after the kernel has loaded numpy, as Colab's has; what it printed."""
        clean = {
            k: v
            for k, v in os.environ.items()
            if not re.match("PYTHON|COV|PIAA|PIP|GIT|.*_proxy$", k, re.IGNORECASE)
        }
        quiet = {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "GIT_TERMINAL_PROMPT": "0"}
        first = "import google.colab, numpy"
        return subprocess.run(
            [self.python, "-I", "-c", f"{first}\n{code}"],
            cwd=self.content,
            env={**clean, **quiet, **self.reach, **reach},
            capture_output=True,
            text=True,
        )

    def installed(self):
        """What the environment has of its own: distributions in its site-packages."""
        return {re.match(r"\w+", path.name)[0] for path in self.site.glob("*.dist-info")}


def no_network():
    """Every way out is refused: pip's index, and git's and pip's proxy."""
    proxies = {name: REFUSED for name in ("http_proxy", "https_proxy", "all_proxy")}
    return {"PIP_INDEX_URL": f"{REFUSED}/simple", **proxies}


@pytest.fixture
def colab(tmp_path, view, remote, packages):
    """A machine that reaches the repository and the packages."""
    reach = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(packages), "PIAA_REPOSITORY": remote}
    return Machine(tmp_path, view, **reach)


THEN = """
from importlib import metadata
import piaa_utils
for name in ("numpy", "torch", "torchvision"):
    print(name, metadata.version(name))
print(numpy.__version__ == metadata.version("numpy"), Path(piaa_utils.__file__).resolve())
"""


def check_versions(told, machine):
    """Torch and numpy are those of before, and the package is the fetched one."""
    for name, version in VERSIONS.items():
        assert f"{name} {version}\n" in told
    assert told.splitlines()[-1] == f"True {machine.content}/piaa/piaa_utils/__init__.py"


def test_on_colab_it_fetches_the_series_installs_what_is_missing_and_replaces_nothing(colab):
    assert not colab.installed()
    work = "import piaa_utils.pipeline\n"  # loads open_clip, which has just come
    done = colab.run(SETUP + SETUP + work + THEN)  # the cell run twice in one kernel
    assert done.returncode == 0, done.stderr
    check_versions(done.stdout, colab)
    assert done.stdout.count("Installing open_clip_torch") == 1, "the second run installs nothing"
    assert colab.installed() == set(LACKING), "nothing but what was missing was installed"

    # A new kernel, later, and by then the network is gone.
    away = {**no_network(), "PIP_FIND_LINKS": "", "PIAA_REPOSITORY": "file:///gone"}
    again = colab.run(SETUP + THEN, **away)
    assert again.returncode == 0, again.stderr
    assert "Installing" not in again.stdout
    check_versions(again.stdout, colab)


def test_with_pip_refused_one_sentence_says_so_and_the_next_run_heals(colab):
    away = {**no_network(), "PIP_NO_INDEX": "", "PIP_FIND_LINKS": ""}
    done = colab.run(**away)
    assert done.returncode != 0
    assert re.search(r"open_clip_torch\S* are missing and could not be installed: ", done.stderr)
    assert done.stderr.endswith("mend what is said above, then run the cell again.\n")
    assert "Traceback" not in done.stderr
    assert not colab.installed()
    healed = colab.run()
    assert healed.returncode == 0, healed.stderr
    assert colab.installed() == set(LACKING)


def test_with_the_repository_refused_nothing_is_left_behind(colab, remote):
    done = colab.run(**no_network(), PIAA_REPOSITORY=f"{REFUSED}/owner/repository")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert f"{REFUSED}/owner/repository was not fetched: connect to a network" in done.stderr
    assert not list(colab.content.iterdir()), "half a folder would break the next run"


def test_a_package_that_asks_for_another_numpy_does_not_get_it(colab, tmp_path):
    """Were numpy replaced, the kernel would hold one version and the disk another."""
    folder = tmp_path / "asks"
    folder.mkdir()
    empty_wheel(folder, "open_clip_torch", "3.0", "Requires-Dist: numpy>=99\n")
    empty_wheel(folder, "numpy", "99.0")
    done = colab.run(PIP_FIND_LINKS=str(folder))
    assert done.returncode != 0 and not colab.installed()
    assert "where pip names a conflict above, run " in done.stderr


def test_pip_is_asked_for_what_is_missing_alone_and_held_to_the_rest(install_missing, monkeypatch):
    asked = []

    def run(command):
        held = Path(command[command.index("-c") + 1]).read_text().split()
        asked.append((command[1:], held))
        return subprocess.CompletedProcess(command, 0)

    lines = ["numpy>=1", "torch>=99", "piaa-probe>=1"]
    monkeypatch.setattr(install_missing, "requirements", lambda: lines)
    monkeypatch.setattr(install_missing.subprocess, "run", run)
    install_missing.main()
    ((command, held),) = asked
    assert command[:3] == ["-m", "pip", "install"]
    assert [word for word in command[3:] if word[0] != "-"][0] == "piaa-probe>=1"
    assert not {"-U", "--upgrade", "--force-reinstall", "--ignore-installed"} & set(command)
    assert held == [f"numpy=={VERSIONS['numpy']}", f"torch=={VERSIONS['torch']}"]


def pack(folder, name, version):
    """An installed package as the wheel it came from."""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file in metadata.distribution(name).files:
            if ".." not in file.parts and file.suffix != ".pyc":
                archive.write(file.locate(), file.as_posix())


def empty_wheel(folder, name, version, more=""):
    """A wheel of one empty module."""
    info = f"{name}-{version}.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": about,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={digest(text)},{len(text)}\n" for path, text in files.items())
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)


def digest(text):
    value = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
