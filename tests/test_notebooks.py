"""The notebooks: in step with their sources, of one form, and students stop at exercises only."""

import importlib.util
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
LONGEST_CELL = 15  # lines of code
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build, install_missing = load("build"), load("install_missing")
SOURCES = build.sources()
NAMES = [path.stem for path in SOURCES]
SETUP = (ROOT / "tests" / "setup_cell.txt").read_text(encoding="utf-8").rstrip()
each = pytest.mark.parametrize("path", SOURCES, ids=NAMES)


def tags(cell):
    return cell.metadata.get("tags", [])


def executed(path):
    return nbformat.read(FOLDER / f"{path.stem}.ipynb", 4)


def student(path):
    return nbformat.read(FOLDER / "student" / f"{path.stem}.ipynb", 4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_ten_notebooks():
    assert [name[:2] for name in NAMES] == [f"{n:02}" for n in range(10)]
    found = {p.stem for p in [*FOLDER.glob("*.ipynb"), *(FOLDER / "student").glob("*.ipynb")]}
    assert found == set(NAMES)


# In step


@each
def test_the_executed_notebook_is_in_step_with_its_source(path):
    assert build.same_cells(executed(path), build.read_source(path)), "run `make notebooks`"


@each
def test_the_student_notebook_is_in_step_with_its_source(path):
    made = build.student_version(build.read_source(path))
    assert build.same_cells(student(path), made), "run `make notebooks`"


@each
def test_the_student_notebook_has_no_solution_and_no_output(path):
    notebook = student(path)
    assert not any("# solution" in cell.source for cell in notebook.cells)
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))


@each
def test_solutions_put_into_the_student_notebook_give_the_executed_one(path):
    """So that nbval, which runs the executed notebook, runs each solution against its check."""
    given, full = student(path), executed(path)
    for blank, solved in zip(given.cells, full.cells, strict=True):
        if "exercise" in tags(blank) and blank.cell_type == "code":
            blank["source"] = solved.source
    assert [c.source for c in code(given)] == [c.source for c in code(full)]


# Outputs


@each
def test_cells_ran_once_in_order_without_error_or_warning(path):
    cells = code(executed(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@each
def test_checked_cells_hold_a_text_output(path):
    """A checked cell without one would pass with nothing compared."""
    checked = [cell for cell in executed(path).cells if "nbval-check-output" in tags(cell)]
    assert checked, "tag one deterministic text cell with nbval-check-output"
    for cell in checked:
        assert cell.execution_count and cell.outputs, cell.source
        assert all(o.output_type == "stream" or "text/plain" in o.data for o in cell.outputs)


@each
def test_figures_have_alt_text(path):
    outputs = [o for cell in code(executed(path)) for o in cell.outputs if "data" in o]
    pictures = [o for o in outputs if "image/png" in o.data]
    assert len(pictures) >= 3
    for picture in pictures:
        alt = picture.metadata.get("image/png", {}).get("alt", "")
        assert len(alt) > 20, f"a figure without alt text: {alt!r}"


# Form


@each
def test_opening(path):
    first, setup, config = executed(path).cells[:3]
    title, text = first.source.split("\n", 1)
    assert title.startswith(f"# {path.stem[:2]} · ")
    assert build.badges(f"{path.stem}.ipynb") in text
    goals = text.split("**After this notebook you can**")[1].split("**Before**")[0]
    assert 3 <= len(re.findall(r"^- ", goals, re.M)) <= 5
    assert re.search(r"\*\*Time\*\*.*minute", text)
    assert tags(setup) == ["setup"] and tags(config) == ["config"]
    assert setup.source == SETUP.replace("OWNER/REPOSITORY", build.REPOSITORY)
    assert 'config = Config("mini")' in config.source and "print(config)" in config.source


@each
def test_closing(path):
    notebook = executed(path)
    closing, versions = notebook.cells[-2:]
    for word in ("## What you have seen", "**Try next**", "**In the paper**", "**References**"):
        assert word in closing.source, f"the closing lacks {word}"
    answered = closing.source.split("**Try next**")[0]
    opening = notebook.cells[0].source.split("**Before**")[0]
    assert answered.count("\n- ") >= opening.count("\n- "), "a goal is not answered"
    assert tags(versions) == ["versions"] and "Python 3" in versions.outputs[0].text


@each
def test_code_cells_are_short(path):
    for cell in code(executed(path)):
        lines = [line for line in cell.source.split("\n") if line.strip()]
        assert len(lines) <= LONGEST_CELL, f"{len(lines)} lines: {lines[0]}"


@each
def test_exercises_have_a_hint_and_a_check(path):
    cells = executed(path).cells
    places = [i for i, c in enumerate(cells) if c.cell_type == "code" and "exercise" in tags(c)]
    assert 3 <= len(places) <= 5
    for number, i in enumerate(places, start=1):
        task = [c.source for c in cells[:i] if c.cell_type == "markdown"][-1]
        assert f"### Exercise {number} · " in task
        assert "<summary>Hint</summary>" in task and "**Expected output" in task
        assert "check" in tags(cells[i + 1]) and f"exercise_{number}(" in cells[i + 1].source


@each
def test_claims_and_one_explorer_with_a_static_figure_beside_it(path):
    cells = code(executed(path))
    assert sum("config.claim(" in cell.source for cell in cells) >= 3
    (place,) = [i for i, cell in enumerate(cells) if re.search(r"\bexplorer\(", cell.source)]
    near = cells[max(place - 1, 0) : place + 2]
    assert any("image/png" in o.get("data", {}) for c in near for o in c.outputs)


def documents():
    for path in SOURCES:
        yield FOLDER / f"{path.stem}.ipynb"
        yield FOLDER / "student" / f"{path.stem}.ipynb"
    yield from (ROOT / "README.md", ROOT / "data/README.md", ROOT / "data/mini_clip/README.md")


@pytest.mark.parametrize("path", list(documents()), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, 4).cells
        text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    links = [link for link in LINK.findall(text) if not link.startswith(("http", "mailto"))]
    broken = [link for link in links if not (path.parent / link).exists()]
    assert not broken


# Students


@each
def test_a_student_notebook_stops_at_the_exercises_and_nowhere_else(path):
    notebook = build.execute(student(path), allow_errors=True)
    stopped = [c for c in code(notebook) if any(o.output_type == "error" for o in c.outputs)]
    assert {tag for c in stopped for tag in tags(c)} <= {"exercise", "check"}
    checks = [c for c in code(notebook) if "check" in tags(c)]
    assert all(c in stopped for c in checks), "a check passes without an answer"


# The setup cell


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory):
    """A fresh environment outside the clone that sees the packages of this one, but not ours."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    (site,) = folder.glob("lib/python*/site-packages")
    here = Path(nbformat.__file__).resolve().parents[1]
    links = [str(here)]
    (site / "others.pth").write_text("\n".join(links) + "\n")
    return folder / "bin" / "python"


def run_setup(python, folder, **environment):
    """Run the setup cell twice in one process, as a reader would; then import the package."""
    then = (
        "import piaa_utils; print(Path(piaa_utils.__file__).resolve(), sys.path.count(str(root)))"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV", "PIAA"))}
    return subprocess.run(
        [python, "-I", "-c", f"{SETUP}\n{SETUP}\n{then}"],
        cwd=folder,
        env={**clean, "PIP_NO_INDEX": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_setup_cell_in_a_clone(fresh_python):
    done = run_setup(fresh_python, FOLDER / "student")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / "piaa_utils" / "__init__.py"), "1"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone, so nothing to clone")
def test_setup_cell_alone_clones_the_series_beside_it(fresh_python, tmp_path):
    done = run_setup(fresh_python, tmp_path, PIAA_REPOSITORY=ROOT.as_uri())
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "piaa" / "piaa_utils" / "__init__.py"), "1"]
    again = run_setup(fresh_python, tmp_path, PIAA_REPOSITORY="file:///gone")
    assert again.returncode == 0, "a second run needs no network"


def test_install_missing_installs_what_is_not_there_and_nothing_else(fresh_python, tmp_path):
    wheel(tmp_path, "piaa_probe", "1.0")
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import install_missing as i; "
        "i.requirements = lambda: ['piaa-probe>=0.5', 'numpy>=99']; i.main(); print(i.missing())"
    )
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    command = [fresh_python, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Installing piaa-probe>=0.5\n" in done.stdout, "and not numpy beside it"
    assert done.stdout.rstrip().endswith("[]"), "numpy is there, whatever its version"


def test_another_version_than_asked_for_is_named_and_left(monkeypatch, capsys):
    monkeypatch.setattr(install_missing, "requirements", lambda: ["numpy>=99", "torch>=1"])
    install_missing.main()
    out = capsys.readouterr().out
    assert (
        re.match(r"Note: numpy [\d.]+ is installed, >=99 is asked for", out) and "torch" not in out
    )


def test_install_missing_says_what_to_do_without_a_network(fresh_python):
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import install_missing as i; "
        "i.requirements = lambda: ['piaa-not-there>=1']; i.main()"
    )
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    command = [fresh_python, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "piaa-not-there>=1 are missing and could not be installed: connect" in done.stderr


def test_requirements_are_those_of_pyproject():
    assert "open_clip_torch>=3,<4" in install_missing.requirements()
    assert not install_missing.missing()


def wheel(folder, name, version):
    """A wheel of one empty module."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


# The builder itself


def small_source(tmp_path, answer="return 2 * x"):
    path = tmp_path / "00_small.py"
    path.write_text(
        "# %% [markdown]\n# # 00 · Small\n#\n# <!-- badges -->\n#\n# [other](01_other.ipynb)\n\n"
        f'# %% tags=["exercise"]\ndef twice(x):\n    # solution\n    {answer}\n'
        "    # end solution\n\n\n"
        '# %% tags=["check"]\nassert twice(2) == 4\n'
    )
    return path


def test_student_version_blanks_the_solution_alone(tmp_path):
    notebook = build.read_source(small_source(tmp_path))
    made = build.student_version(notebook)
    assert made.cells[1].source.startswith("def twice(x):\n    raise NotImplementedError(")
    assert "return" not in made.cells[1].source and "return" in notebook.cells[1].source
    assert made.cells[2].source == notebook.cells[2].source
    assert "notebooks/student/00_small.ipynb" in made.cells[0].source


def test_a_blank_at_the_top_of_a_cell_names_what_to_fill_in(tmp_path):
    path = small_source(tmp_path)
    lines = "# solution\nfirst = 1\nanswer = first + 1\n# end solution\nprint(answer)"
    text = path.read_text(encoding="utf-8").split("def twice")[0] + lines
    path.write_text(text, encoding="utf-8")
    made = build.student_version(build.read_source(path))
    assert made.cells[-1].source == "answer = ...  # your answer\nprint(answer)"


def test_an_exercise_without_solution_marks_is_refused(tmp_path):
    path = small_source(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("    # end solution\n", ""))
    with pytest.raises(ValueError, match="has no '# solution' lines"):
        build.student_version(build.read_source(path))
    path = small_source(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('tags=["exercise"]', ""))
    with pytest.raises(ValueError, match="would be shown"):
        build.student_version(build.read_source(path))


def test_a_wrong_solution_stops_the_builder(tmp_path):
    good = build.execute(build.read_source(small_source(tmp_path)))
    assert not any(o.output_type == "error" for c in code(good) for o in c.outputs)
    with pytest.raises(Exception, match="AssertionError"):
        build.execute(build.read_source(small_source(tmp_path, answer="return 3 * x")))
    assert sys.executable  # the kernel ran in this environment
