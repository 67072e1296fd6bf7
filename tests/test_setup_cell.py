"""The setup cell where such cells break: on a machine like Colab's, and with the network refused.

The stand-in is a fresh environment that sees the packages of this one except what Colab lacks. The
series is served by git from a folder, packages by pip from another, beside a newer torch and numpy
that must not be taken. (In a folder without a network: test_teaching.py.)
"""

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
# Every way out is refused: pip's index, git's and pip's proxy.
NO_NETWORK = dict.fromkeys(("PIP_INDEX_URL", "http_proxy", "https_proxy", "all_proxy"), REFUSED)
NO_NETWORK |= {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": ""}
THEN = """
import piaa_utils, torch
from importlib import metadata
print(numpy.__version__, metadata.version("numpy"), torch.__version__.split("+")[0])
print(Path(piaa_utils.__file__).resolve().parents[1])
"""
pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="there is no git")


def wheel(folder, name, version, files=()):
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file in files:
            if ".." not in file.parts and file.suffix != ".pyc":
                archive.write(file.locate(), file.as_posix())
        if not files:
            info, about = f"{name}-{version}.dist-info", "Metadata-Version: 2.1\n"
            archive.writestr(f"{info}/METADATA", f"{about}Name: {name}\nVersion: {version}\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A repository, a folder of wheels, and this environment's packages but what is lacking."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("repository/notebooks", "wheels", "view"):
        (folder / name).mkdir(parents=True)
    repository = folder / "repository"
    for name in ("pyproject.toml", "notebooks/install_missing.py"):
        shutil.copy(ROOT / name, repository / name)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "piaa_utils", repository / "piaa_utils", ignore=ignore)
    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm all"):
        subprocess.run(["git", *words.split()], cwd=repository, check=True)
    for name in LACKING:
        wheel(folder / "wheels", name, metadata.version(name), metadata.distribution(name).files)
    for name in ("torch", "numpy", "torchvision"):
        wheel(folder / "wheels", name, "99.0")
    for path in Path(numpy.__file__).resolve().parents[1].iterdir():
        if not HIDDEN.match(path.name):
            (folder / "view" / path.name).symlink_to(path)
    return folder


@pytest.fixture
def colab(tmp_path, served):
    return Colab(tmp_path, served)


class Colab:
    def __init__(self, folder, served):
        venv.create(folder / "python", with_pip=False)  # pip is in the view
        self.python, self.content = folder / "python" / "bin" / "python", folder / "content"
        (self.site,) = folder.glob("python/lib/python*/site-packages")
        (self.site / "view.pth").write_text(f"{served / 'view'}\n")
        self.content.mkdir()
        self.reach = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(served / "wheels")}
        self.reach["PIAA_REPOSITORY"] = (served / "repository").as_uri()

    def run(self, code=SETUP, **reach):
        ours = re.compile("PYTHON|COV|PIAA|PIP|GIT|.*_proxy$", re.IGNORECASE)
        env = {k: v for k, v in os.environ.items() if not ours.match(k)}
        quiet = {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "GIT_TERMINAL_PROMPT": "0"}
        command = [self.python, "-I", "-c", f"import numpy\n{code}"]  # as Colab's kernel has
        env = {**env, **quiet, **self.reach, **reach}
        return subprocess.run(command, cwd=self.content, env=env, capture_output=True, text=True)

    def installed(self):
        return {re.match(r"\w+", path.name)[0] for path in self.site.glob("*.dist-info")}

    def is_right(self, done):
        assert done.returncode == 0, done.stderr
        numpy_, torch = metadata.version("numpy"), metadata.version("torch").split("+")[0]
        told = [f"{numpy_} {numpy_} {torch}", str(self.content / "piaa")]
        return done.stdout.splitlines()[-2:] == told


def test_on_colab_it_fetches_the_series_installs_what_is_missing_and_replaces_nothing(colab):
    done = colab.run(f"{SETUP}\n{SETUP}\nimport open_clip\n{THEN}")  # run twice in one kernel
    assert colab.is_right(done)
    assert done.stdout.count("Installing open_clip_torch") == 1, "the second run installs nothing"
    assert colab.installed() == set(LACKING), "nothing but what was missing was installed"
    again = colab.run(SETUP + THEN, **NO_NETWORK, PIAA_REPOSITORY="file:///gone")  # a new kernel
    assert colab.is_right(again) and "Installing" not in again.stdout


def test_with_the_network_refused_one_sentence_says_so_and_the_next_run_heals(colab):
    done = colab.run(**NO_NETWORK, PIAA_REPOSITORY=f"{REFUSED}/owner/repository")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert f"Not fetched: {REFUSED}/owner/repository. Connect" in done.stderr
    assert not list(colab.content.iterdir()), "half a folder would break the next run"
    done = colab.run(**NO_NETWORK)  # of pip alone
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert re.search(r"open_clip_torch\S* are missing and could not be installed: ", done.stderr)
    assert done.stderr.endswith("mend what is said above, then run the cell again.\n")
    assert not colab.installed()
    assert colab.run().returncode == 0 and colab.installed() == set(LACKING)
