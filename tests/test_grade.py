"""The students' notebooks, and nbgrader on them: who gets which points.

Grading starts a kernel a notebook: `make test-grade` runs it, `make test` only what is quick.
"""

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbgrader", reason="pip install -e '.[teach]'")
ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
slow = pytest.mark.skipif(not os.environ.get("PIAA_TEST_GRADE"), reason="make test-grade")
TINY = '''# %% tags=["setup"]
x = 2
# %% tags=["exercise"]
def double(a):
    """Twice a."""
    # solution
    return 2 * a
    # end solution
# %% [markdown]
# See [the data](../data/README.md).
# %% tags=["check"]
assert double(x) == 4 and double(0) == 0
# %% tags=["exercise"]
# solution
first, answer = 1, "b"
# end solution
print("Your answer:", answer)
# %% tags=["check"]
assert answer == "b"
# %% tags=["exercise"]
# solution
answer = "b" * x
# end solution
# %% tags=["check"]
assert set(answer) == {"b"}
'''
RIGHT = ["def double(a):\n    return a + a", 'answer = "b"', 'answer = "bb"']


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "00_tiny.py").write_text(TINY)
    return build.read_source(tmp_path / "00_tiny.py")


def with_answers(tiny, *answers, change=len):
    """The student's notebook with some answers filled in; `change` does the rest to its cells."""
    student = build.student_version(tiny)
    blanks = [cell for cell in student.cells if build.tagged(cell, "exercise")]
    for cell, answer in zip(blanks, answers, strict=False):
        cell.source = answer
    change(student.cells)
    return student


def test_blanks_hold_no_solution_and_no_name_of_an_earlier_answer(tiny):
    cells = build.student_version(tiny).cells
    definition, words, error = cells[1].source.splitlines()
    assert error.startswith("    raise NotImplementedError(")
    assert cells[4].source == 'answer = ...  # your answer\n\nprint("Your answer:", answer)'
    assert cells[6].source == "answer = ...  # your answer"
    assert "(../../data/README.md)" in cells[2].source


def test_nbgrader_knows_exercises_checks_and_setup(tiny):
    cells = [c for c in build.student_version(tiny).cells if "nbgrader" in c.metadata]
    known = {c.metadata.nbgrader.grade_id: c.metadata.nbgrader for c in cells}
    pairs = [f"{kind}-{n}" for n in (1, 2, 3) for kind in ("exercise", "check")]
    assert list(known) == ["setup", *pairs]
    for name, about in known.items():
        assert about.solution == (not about.locked) == name.startswith("exercise")
        assert about.grade == ("points" in about) == name.startswith("check")
        assert about.checksum and about.get("points", 1) == 1


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("    # end solution\n", "", "no '# solution' lines"),
        ('tags=["check"]\nassert double', "tags=[]\nassert double", "no check"),
        ('# %% tags=["exercise"]\ndef', "# %%\ndef", "would be shown"),
        ("assert set(answer)", "assert set(x)", "reads nothing that the solution gives"),
    ],
)
def test_a_source_that_breaks_the_rules_is_refused(tmp_path, old, new, words):
    assert old in TINY
    (tmp_path / "00_tiny.py").write_text(TINY.replace(old, new, 1))
    with pytest.raises(ValueError, match=words):
        build.course_version(build.read_source(tmp_path / "00_tiny.py"))


def test_without_nbgrader_one_sentence_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader.preprocessors", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[teach\]'$"):
        build.student_version(tiny)


@pytest.fixture
def course():
    """A course in a folder of its own within the repository, where setup cells find it."""
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=ROOT / "course"))
    shutil.copy(ROOT / "course" / "nbgrader_config.py", folder)
    shutil.copytree(ROOT / "course" / "kernels", folder / "kernels")
    yield folder
    shutil.rmtree(folder)


def grade(course, name, notebook, handed_in, *options, **environment):
    """Grade what some students handed in; {student: points}, of all, and what was said."""
    source = course / "source" / name[:2] / f"{name}.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(build.course_version(notebook), source)
    for student, answers in handed_in.items():
        path = course / "submitted" / student / name[:2] / source.name
        path.parent.mkdir(parents=True)
        path.write_text(answers if isinstance(answers, str) else nbformat.writes(answers))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "JUPYTER_PATH": str(course), **environment}

    def nbgrader(*words):
        command = [sys.executable, "-m", "nbgrader", *words]
        return subprocess.run(command, cwd=course, env=env, capture_output=True, text=True)

    assert nbgrader("generate_assignment", "*").returncode == 0
    said = nbgrader("autograde", "*", *options).stderr
    assert nbgrader("export").returncode == 0
    with open(course / "grades.csv", newline="") as file:
        return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}, said


def copy_first(cells):
    copies = [nbformat.from_dict({**cell, "id": f"{cell.id}-copy"}) for cell in cells[1:4]]
    cells[1:1] = copies  # of the exercise and its check


def loosen(cells):
    for cell in cells[0], cells[3], cells[5], cells[7]:  # setup and checks
        cell.source = "x = 5"


@slow
@pytest.mark.parametrize("fence", ["", "1"], ids=["plain", "fenced"])
def test_points(course, tiny, fence):
    if fence and not shutil.which("bwrap"):
        pytest.skip("there is no bubblewrap")
    double, *rest = RIGHT
    warns = "import sys\ndef double(a):\n    print('x', file=sys.stderr)\n    return 2 * a"
    handed_in = {
        "right": with_answers(tiny, *RIGHT),
        "blank": with_answers(tiny),
        "wrong": with_answers(tiny, double.replace("+", "-"), 'answer = "c"'),
        "one": with_answers(tiny, double),
        "warns": with_answers(tiny, warns, *rest),
        "hangs": with_answers(tiny, "while True: pass", *rest),
        "copies": with_answers(tiny, *RIGHT, change=copy_first),
        "loosens": with_answers(tiny, double, rest[0], change=loosen),
        "deletes": with_answers(tiny, *RIGHT, change=lambda cells: cells.__delitem__(slice(4))),
        "broken": "{no notebook",
        "dies": with_answers(tiny, "import os; os._exit(1)", *rest),
    }
    given, said = grade(course, "00_tiny", tiny, handed_in, "--Execute.timeout=5", PIAA_FENCE=fence)
    expected = dict(right=3, blank=0, wrong=0, one=1, warns=3, hangs=2, copies=3, loosens=2)
    assert given == {**expected, "deletes": 2, "broken": 0, "dies": 0}, said
    for student in ("broken", "dies"):  # their 0 is told apart: nbgrader names them, no notebook
        assert f"error processing assignment '00' for student '{student}'" in said
        assert not (course / "autograded" / student / "00").exists()


@slow
@pytest.mark.parametrize("path", build.sources(), ids=lambda path: path.stem)
def test_a_real_notebook(course, path):
    """Solutions get all points, the blank notebook none."""
    notebook = build.read_source(path)
    handed_in = {"right": build.course_version(notebook), "blank": with_answers(notebook)}
    exercises = sum(build.tagged(cell, "exercise") for cell in notebook.cells)
    given, said = grade(course, path.stem, notebook, handed_in)
    assert given == {"right": exercises, "blank": 0} and exercises, said
