"""The students' notebooks, and nbgrader on them: who gets which points.

Grading starts a kernel a notebook: `make test-grade` runs it, `make test` only what is quick.
"""

import copy
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "00_tiny.py"
    path.write_text(TINY)
    return build.read_source(path)


def with_answers(tiny, *answers):
    """The student's notebook with some answers filled in."""
    student = build.student_version(tiny)
    blanks = [cell for cell in student.cells if build.tagged(cell, "exercise")]
    for cell, answer in zip(blanks, answers, strict=False):
        cell.source = answer
    return student


# The students' notebook


def test_blanks_hold_no_solution_and_no_name_of_an_earlier_answer(tiny):
    student = build.student_version(tiny)
    code = [cell.source for cell in student.cells if cell.cell_type == "code"]
    assert code[1].splitlines()[:2] == ["def double(a):", '    """Twice a."""']
    assert code[1].splitlines()[2].startswith("    raise NotImplementedError(")
    assert code[3] == 'answer = ...  # your answer\n\nprint("Your answer:", answer)'
    assert code[5] == "answer = ...  # your answer"
    assert "(../../data/README.md)" in student.cells[2].source
    assert tiny.cells[1].source in TINY, "the notebook that it is made of stays"


def test_nbgrader_knows_exercises_checks_and_setup(tiny):
    student = build.student_version(tiny)
    about = [c.metadata.nbgrader for c in student.cells if "nbgrader" in c.metadata]
    checks = [m for m in about if m["grade"]]
    assert [m["grade_id"] for m in checks] == ["check-1", "check-2", "check-3"]
    assert [m["points"] for m in checks] == [1, 1, 1] and all(m["locked"] for m in checks)
    assert [m["grade_id"] for m in about if m["solution"]] == [f"exercise-{n}" for n in (1, 2, 3)]
    assert [m["grade_id"] for m in about if not m["grade"] and m["locked"]] == ["setup"]
    assert all("checksum" in m for m in about)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("    # end solution\n", "", "no '# solution' lines"),
        ('tags=["check"]\nassert double', "tags=[]\nassert double", "no check"),
        ('# %% tags=["exercise"]\ndef', "# %%\ndef", "would be shown"),
        ('assert answer == "b"\n', "assert x\n", None),  # `print` still reads the answer
        ("assert set(answer)", "assert set(x)", "reads nothing that the solution gives"),
    ],
)
def test_a_source_that_breaks_the_rules_is_refused(tmp_path, old, new, words):
    path = tmp_path / "00_tiny.py"
    assert old in TINY
    path.write_text(TINY.replace(old, new, 1))
    if words is None:
        build.course_version(build.read_source(path))
        return
    with pytest.raises(ValueError, match=words):
        build.course_version(build.read_source(path))


def test_without_nbgrader_one_sentence_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader.preprocessors", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[teach\]'$"):
        build.student_version(tiny)


# Grading


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


def changed(notebook, change):
    change(notebook.cells)
    return notebook


def copy_first(cells):
    for cell in copy.deepcopy(cells[1:4])[::-1]:  # the exercise and its check
        cell["id"] += "-copy"
        cells.insert(1, cell)


def loosen(cells):
    for cell in cells:
        if build.tagged(cell, "check") or build.tagged(cell, "setup"):
            cell.source = "x = 5"


WARNS = (
    "import sys, warnings\ndef double(a):\n    warnings.warn('hm')\n    print('x', file=sys.stderr)"
)


@slow
@pytest.mark.parametrize("fence", ["", "1"], ids=["plain", "fenced"])
def test_points(course, tiny, fence):
    if fence and not shutil.which("bwrap"):
        pytest.skip("there is no bubblewrap")
    handed_in = {
        "right": with_answers(tiny, *RIGHT),
        "blank": with_answers(tiny),
        "wrong": with_answers(tiny, "def double(a):\n    return 3 * a", 'answer = "c"'),
        "one": with_answers(tiny, RIGHT[0]),
        "warns": with_answers(tiny, f"{WARNS}\n    return 2 * a", *RIGHT[1:]),
        "hangs": with_answers(tiny, "while True: pass", *RIGHT[1:]),
        "copies": changed(with_answers(tiny, *RIGHT), copy_first),
        "loosens": changed(with_answers(tiny, *RIGHT[:2]), loosen),
        "deletes": changed(with_answers(tiny, *RIGHT), lambda cells: cells.__delitem__(slice(4))),
        "broken": "{no notebook",
        "dies": with_answers(tiny, "import os; os._exit(1)", *RIGHT[1:]),
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
    handed_in = {
        "right": build.course_version(notebook),
        "blank": build.student_version(notebook),
    }
    exercises = sum(build.tagged(cell, "exercise") for cell in notebook.cells)
    given, said = grade(course, path.stem, notebook, handed_in)
    assert given == {"right": exercises, "blank": 0} and exercises, said
