"""The notebooks: in step with their sources, of one form, and students stop at exercises only."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
LONGEST_CELL, MOST_CELLS = 30, 35
WORDS = (2000, 2500)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?")


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load("build")
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


def prose(notebook):
    """What is read as words: no formulas, code, addresses or folded pieces' marks."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|<[^>]*>", " ", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)


def printed(notebook):
    """All that the cells print, and the words of their figures."""
    out = []
    for cell in code(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            out += [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")]
            out += [str(v) for v in output.get("metadata", {}).values()]
    return "\n".join("".join(x) for x in out)


def finding(notebook):
    """The bold sentence that the notebook opens with."""
    return re.search(r"\*\*([^*]{40,}?)\*\*", notebook.cells[0].source)[1]


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
    notebook = student(path)
    assert not any("# solution" in cell.source for cell in notebook.cells)
    assert all(not cell.outputs and cell.execution_count is None for cell in code(notebook))


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
    for cell in executed(path).cells:
        if "nbval-check-output" in tags(cell):
            assert cell.execution_count and cell.outputs, cell.source
            assert all(o.output_type == "stream" or "text/plain" in o.data for o in cell.outputs)


@each
def test_figures_have_alt_text(path):
    outputs = [o for cell in code(executed(path)) for o in cell.outputs if "data" in o]
    for kind in ("image/png", "image/gif", "image/svg+xml"):
        for picture in (o for o in outputs if kind in o.data):
            alt = picture.metadata.get(kind, {}).get("alt", "")
            assert len(alt) > 20, f"a figure without alt text: {alt!r}"


# Form


@each
def test_it_opens_with_a_finding_whose_numbers_the_run_gave(path):
    notebook = executed(path)
    first, setup, config = notebook.cells[:3]
    title, text = first.source.split("\n", 1)
    assert title.startswith(f"# {path.stem[:2]} · ")
    assert build.badges(f"{path.stem}.ipynb") in text
    assert "**Before**" in text and re.search(r"\*\*Time\*\*.*minute", text)
    assert tags(setup) == ["setup"] and tags(config) == ["config"]
    assert setup.source == SETUP.replace("OWNER/REPOSITORY", build.REPOSITORY)
    numbers = NUMBER.findall(re.sub(r"\$[^$]*\$|`[^`]*`", "", finding(notebook)))
    assert numbers, "the finding has no number"
    missing = [n for n in numbers if n not in printed(notebook)]
    assert not missing, f"no cell prints these numbers of the finding: {missing}"


@each
def test_a_figure_follows_the_finding(path):
    cells = executed(path).cells[:12]
    pictures = [k for c in cells for o in c.get("outputs", []) for k in o.get("data", {})]
    assert {"image/png", "image/svg+xml", "image/gif"} & set(pictures)


@each
def test_length(path):
    notebook = executed(path)
    assert len(code(notebook)) <= MOST_CELLS
    for cell in code(notebook):
        lines = [line for line in cell.source.split("\n") if line.strip()]
        assert len(lines) <= LONGEST_CELL, f"{len(lines)} lines: {lines[0]}"
    words = len(prose(notebook).split())
    assert WORDS[0] <= words <= WORDS[1], words


@each
def test_claims_diagrams_and_the_caveat(path):
    notebook = executed(path)
    sources = "\n".join(cell.source for cell in code(notebook))
    assert sources.count(".claim(") >= 2
    assert "What this does not show" in prose(notebook)
    if 1 <= int(path.stem[:2]) <= 6:
        assert "diagram(" in sources, "no diagram"
    assert "versions()" in notebook.cells[-1].source


@each
def test_no_number_in_prose_that_no_cell_prints(path):
    """Numbers with a decimal, and per cents, are results: a cell must print them.

    But for reported ones, levels of intervals, addresses of papers, and what exercises give.
    """
    notebook = executed(path)
    text, shown = prose(notebook), printed(notebook)
    given = r"### Exercise.*?(?=\n#|\Z)|\d{4}\.\d{5}|95 (?=per cent|%)"
    text = re.sub(given, "", text, flags=re.DOTALL)
    text = " ".join(x for x in re.split(r"(?<=[.:])\s", text) if "reported" not in x)
    sources = "\n".join(cell.source for cell in code(notebook))
    results = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])|\d+(?= per cent| %)", text))
    bare = {n for n in results if n not in shown and n not in sources}
    assert not bare, f"no cell prints {sorted(bare)}"


@each
def test_exercises_have_a_hint_and_a_check(path):
    cells = executed(path).cells
    places = [i for i, c in enumerate(cells) if c.cell_type == "code" and "exercise" in tags(c)]
    assert 3 <= len(places) <= 5
    for number, i in enumerate(places, start=1):
        task = [c.source for c in cells[:i] if c.cell_type == "markdown"][-1]
        assert f"### Exercise {number}" in task and "<summary>Hint</summary>" in task
        assert "Expected output" in task
        assert any("check" in tags(cell) for cell in cells[i + 1 : i + 3])


def documents():
    for path in SOURCES:
        yield FOLDER / f"{path.stem}.ipynb"
        yield FOLDER / "student" / f"{path.stem}.ipynb"
    for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "data/mini_clip/README.md"):
        yield ROOT / name


@pytest.mark.parametrize("path", list(documents()), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, 4).cells
        text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    links = [link for link in LINK.findall(text) if not link.startswith(("http", "mailto"))]
    assert not [link for link in links if not (path.parent / link).exists()]


# Students


@each
def test_a_student_notebook_stops_at_the_exercises_and_nowhere_else(path):
    notebook = build.execute(student(path), allow_errors=True)
    stopped = [c for c in code(notebook) if any(o.output_type == "error" for o in c.outputs)]
    assert {tag for c in stopped for tag in tags(c)} <= {"exercise", "check"}
    checks = [c for c in code(notebook) if "check" in tags(c)]
    assert all(c in stopped for c in checks), "a check passes without an answer"
