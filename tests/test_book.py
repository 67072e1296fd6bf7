"""The book: every notebook and page, its links led into it, and the check of the rendered site."""

import base64
import doctest
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c4944415408d763f8ffff3f0005fe02fea735810b0000000049454e44ae426082"
    )
).decode()
README = """# Series

![One point](data/point.png)

## Use it

See [the map](#the-map-of-the-series), [code](tool.py), [the folder](data) and [out](https://a.org).

## The map of the series

| notebook | question |
| --- | --- |
| [00 First](notebooks/00_first.ipynb) | [why?](notebooks/01_second.ipynb) |
"""


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "notebooks" / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


book, check = load("book"), load("check")


def figure(alt="A point in the middle."):
    metadata = {"image/png": {"alt": alt}} if alt else {}
    return nbformat.v4.new_output("display_data", {"image/png": PIXEL}, metadata=metadata)


def code_cell(source, *outputs, tags=()):
    metadata = {"tags": list(tags)} if tags else {}
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def notebook(path, title, *cells):
    opening = nbformat.v4.new_markdown_cell(
        f"# {title}\n\n[![Open](https://a.org/b.svg)](https://a.org/c)\n\nWhere $x_i$ is."
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[opening, *cells]), path)


@pytest.fixture
def small(tmp_path):
    """A repository of two notebooks."""
    for folder in ("data", "notebooks/student"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "notebooks/TEACHING.md").write_text("# Teaching\n\nFrom [01](01_second.ipynb).\n")
    (tmp_path / "tool.py").write_text("answer = 42\n")
    (tmp_path / "data/point.png").write_bytes(base64.b64decode(PIXEL))
    text = nbformat.v4.new_markdown_cell(
        "## Formula\n\n$$\\frac{a}{b} = \\arg\\max_c \\log p$$\n\n"
        "<details><summary>Hint</summary>\n\nRead [00](00_first.ipynb#formula).\n\n</details>"
    )
    widget, button = (
        nbformat.v4.new_output("display_data", {"text/plain": f"The {what} {book.WIDGET}"})
        for what in ("explorer", "button")
    )
    words = nbformat.v4.new_output("stream", name="stdout", text="a ``` b\n")
    table = nbformat.v4.new_output(
        "display_data", {"text/html": "<table><tr><th>a</th></tr><tr><td>1</td></tr></table>"}
    )
    markdown = nbformat.v4.new_output("display_data", {"text/markdown": "| a |\n|---|\n| 1 |"})
    value = nbformat.v4.new_output("execute_result", {"text/plain": "42"}, execution_count=1)
    grumble = nbformat.v4.new_output("stream", name="stderr", text="grumble")
    notebook(tmp_path / "notebooks/00_first.ipynb", "00 · First", text)
    notebook(tmp_path / "notebooks/student/00_first.ipynb", "00 · First", text)
    cells = [
        code_cell("import sys", tags=["setup"]),
        code_cell("explorer()", widget, figure()),
        code_cell("upload()", button),
        code_cell("show()", words, table, markdown, value, grumble),
        code_cell("answer = 42", tags=["exercise"]),
        text,
    ]
    notebook(tmp_path / "notebooks/01_second.ipynb", "01 · Second", *cells)
    return tmp_path


@pytest.fixture
def staged(small, tmp_path_factory):
    stage = book.Stage(small, tmp_path_factory.mktemp("stage"))
    stage.write()
    return stage.folder


# Pages from the repository


def test_the_book_holds_what_is_there(small):
    assert list(book.pages(small).values()) == ["index", "00_first", "01_second", "teaching"]


def test_every_notebook_of_the_series_is_in_it():
    names = list(book.pages().values())
    assert names[0] == "index" and "mini_clip" in names
    assert {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")} <= set(names)


def test_the_map_comes_first_and_pages_in_order(staged):
    text = (staged / "index.md").read_text()
    assert text.index("## The map of the series") < text.index("## Use it")
    assert text.index("00_first\n01_second\n") < text.index(":caption: About\n\nteaching\n")


def test_a_readme_without_the_map_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="README.md must have one section"):
        book.map_first("# Series\n\n## Use it\n")


def test_links_lead_into_the_book(staged):
    text = (staged / "index.md").read_text()
    assert "[00 First](/00_first.md)" in text and "[out](https://a.org)" in text
    assert (
        "[code](/code/tool_py.md)" in text
        and "answer = 42" in (staged / "code/tool_py.md").read_text()
    )
    assert (
        "![One point](/files/data/point.png)" in text and (staged / "files/data/point.png").exists()
    )
    assert "[the map](#the-map-of-the-series), " in text and ", the folder and" in text.replace(
        "\n", " "
    ).replace("[code](/code/tool_py.md), the", ", the")
    assert "[00](/00_first.md#formula)" in (staged / "01_second.md").read_text()


def test_links_in_code_are_left(small, tmp_path):
    stage = book.Stage(small, tmp_path / "stage")
    text = "```python\na[0](gone.py)\n```\n"
    assert stage.links(text, "README.md") == text


def test_a_broken_link_stops_the_book(small, tmp_path):
    stage = book.Stage(small, tmp_path / "stage")
    with pytest.raises(ValueError, match="README.md links to gone.py, which is not there"):
        stage.links("[gone](gone.py)", "README.md")


def test_badges_give_way_to_the_files_themselves(staged):
    first, second = ((staged / f"{n}.md").read_text() for n in ("00_first", "01_second"))
    assert "a.org" not in first + second
    assert "[the notebook](/files/notebooks/00_first.ipynb) · [with blank" in first
    assert "with blank" not in second, "it has no version for students"
    assert (staged / "files/notebooks/student/00_first.ipynb").exists()


def test_outputs_as_a_reader_sees_them(staged):
    text = (staged / "01_second.md").read_text()
    assert text.count(book.EXPLORER) == text.count(book.BUTTON) == 1
    assert book.WIDGET not in text and "grumble" not in text
    assert '```{image} /figures/01_second-2-1.png\n:alt: "A point in the middle."\n```' in text
    assert "````text\na ``` b\n````" in text and "<table><tr><th>a</th>" in text
    assert "| a |\n|---|" in text and "```text\n42\n```" in text
    assert "<summary>A solution</summary>\n\n```python\nanswer = 42\n```\n\n</details>" in text


def test_a_figure_without_alt_text_stops_the_book(small, tmp_path):
    notebook(small / "notebooks/02_third.ipynb", "02 · Third", code_cell("show()", figure(alt="")))
    with pytest.raises(ValueError, match="02_third-1-0 has no alt text"):
        book.Stage(small, tmp_path / "stage").write()


def test_every_markdown_file_that_the_front_page_links_to_is_a_page():
    linked = re.findall(r"\]\(([\w/.-]+\.md)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "notebooks/TEACHING.md" in linked and set(linked) <= set(book.pages())


def test_the_series_as_pages(tmp_path):
    """All figures are there, beside the explorers too, and no badge or widget is left."""
    stage = book.Stage(ROOT, tmp_path)
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        text = stage.notebook(f"notebooks/{path.name}")
        cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        pictures = [o for c in cells for o in c.outputs if "image/png" in o.get("data", {})]
        assert text.count("```{image}") == len(pictures) >= 3
        assert text.count(book.EXPLORER) == 1 and book.WIDGET not in text
        near = text[max(text.index(book.EXPLORER) - 2500, 0) : text.index(book.EXPLORER) + 2500]
        assert "```{image}" in near
        assert "[![" not in text and "](../" not in text


# Rendering


@pytest.fixture(scope="module")
def needs_sphinx():
    if book.missing():
        pytest.skip(f"left out: `make book` installs {', '.join(book.missing())}")


def test_the_rendered_site(needs_sphinx, small, capsys):
    site = small / "results" / "book"
    book.render(site, small)
    assert check.findings(site) == []
    second = (site / "01_second.html").read_text(encoding="utf-8")
    assert re.search(r"<math display=.block.><mfrac><mi>a</mi><mi>b</mi></mfrac>", second)
    assert 'alt="A point in the middle."' in second
    assert 'rel="prev" title="00 · First"' in second and 'rel="next" title="Teaching"' in second
    assert "second" in (site / "searchindex.js").read_text(encoding="utf-8")
    assert "data:font/woff;base64" in (site / "_static/math.css").read_text(encoding="utf-8")
    assert "@media print" in (site / "_static/book.css").read_text(encoding="utf-8")
    (small / "notebooks/TEACHING.md").write_text("# Teaching\n\nOf [nothing](#nowhere).\n")
    with pytest.raises(RuntimeError, match="Sphinx refused the book"):
        book.render(site, small)
    assert (site / "index.html").exists(), "the last good book stays"


def test_a_folder_of_something_else_is_left(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(ValueError, match="holds something else than a book"):
        book.render(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_without_sphinx_one_sentence_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(book, "PACKAGES", ("sphinx_not_there",))
    monkeypatch.setattr("sys.argv", ["book.py", "--output", str(tmp_path / "site")])
    assert book.main() == 2
    assert "The book needs sphinx_not_there; run `make book`" in capsys.readouterr().err


# The check

PAGE = """<!doctype html><html lang="en"><head><title>T</title><link rel="stylesheet" href="a.css">
<link rel="next" href="b.html"></head><body><h1>One<a class="headerlink" href="#one">¶</a></h1>
<h2 id="one">Two</h2><img src="p.png" alt="A point."><a href="b.html#there">b</a>
<a href="https://a.org">out</a><a href="mailto:a@a.org">write</a>
<table><tr><th>a</th></tr><tr><td>1</td></tr></table></body></html>"""
OTHER = '<html lang="en"><title>B</title><h1 id="there">B</h1></html>'


def write_site(folder, page=PAGE, style="body { background: url(p.png) }"):
    (folder / "a.html").write_text(page)
    (folder / "b.html").write_text(OTHER)
    (folder / "a.css").write_text(style)
    (folder / "p.png").write_bytes(base64.b64decode(PIXEL))
    return folder


def test_a_sound_site_has_no_findings(tmp_path):
    assert check.findings(write_site(tmp_path)) == []


@pytest.mark.parametrize(
    "old, new, told",
    [
        ('lang="en"', "", "<html> has no lang"),
        ("<title>T</title>", "", "it has no title"),
        ("<h1>One", "<h2>One", "it has 0 headings of level 1"),
        ("<h1>One", "<h1>One</h1><h1>", "it has 2 headings of level 1"),
        ("<h2", "<h3", "'Two' of level 3 follows one of level 1"),
        (">Two<", "><", "a heading of level 2 is empty"),
        (' alt="A point."', "", "the picture p.png has no alt text"),
        ("A point.", " ", "the picture p.png has no alt text"),
        ("<th>a</th>", "<td>a</td>", "1 of 1 tables have no header cell"),
        ("<table>", '<p id="one"><table>', "ids are used twice: ['one']"),
        (">b</a>", ">Error displaying widget</a>", "a widget that cannot run"),
        ("b.html#there", "c.html", "the link to c.html is broken"),
        ("b.html#there", "b.html#gone", "b.html#gone is broken: there is no such anchor"),
        ("#one", "#gone", "the link to #gone is broken: there is no such anchor"),
        ('href="b.html"', 'href="c.html"', "the link to c.html is broken"),
        ('"p.png"', '"https://a.org/p.png"', "it loads https://a.org/p.png from outside"),
        ('"p.png"', '"q.png"', "it loads q.png, which is not there"),
        ('src="p.png"', 'src="p.png" srcset="p.png 1x, q.png 2x"', "it loads q.png"),
        ('"a.css"', '"//a.org/a.css"', "it loads //a.org/a.css from outside"),
        ("<h1>", '<script src="https://a.org/m.js"></script><h1>', "https://a.org/m.js from"),
        ("<h1>", "<style>@import 'https://a.org/f.css';</style><h1>", "https://a.org/f.css from"),
        ("<h1>", '<h1 style="background: url(q.png)">', "it loads q.png"),
    ],
)
def test_a_defect_is_found(tmp_path, old, new, told):
    assert old in PAGE
    found = check.findings(write_site(tmp_path, PAGE.replace(old, new, 1)))
    assert any(told in line and line.startswith("a.html: ") for line in found), found


def test_fonts_from_outside_are_found(tmp_path):
    style = '@font-face { src: url("https://a.org/f.woff2") } a { b: url(q.png) url(data:,) }'
    found = check.findings(write_site(tmp_path, style=style))
    assert found == [
        "a.css: it loads https://a.org/f.woff2 from outside",
        "a.css: it loads q.png, which is not there",
    ]


def run_check(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["check.py", *map(str, words)])
    return check.main()


def test_the_command_fails_on_a_finding_and_says_what_was_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AXE", str(tmp_path / "not-there.js"))
    assert run_check(monkeypatch, write_site(tmp_path)) == 0
    out = capsys.readouterr().out
    assert (
        "axe was left out; it needs: " in out and "npm install --prefix .venv/axe axe-core" in out
    )
    assert out.endswith("2 pages, 0 findings\n")
    assert run_check(monkeypatch, write_site(tmp_path, PAGE.replace("p.png", "q.png"))) == 1
    assert "a.html: it loads q.png" in capsys.readouterr().out


def test_the_command_says_that_there_is_no_book(tmp_path, monkeypatch, capsys):
    assert run_check(monkeypatch, tmp_path) == 2
    assert "run `make book` first" in capsys.readouterr().err


def test_axe_finds_what_it_is_there_for(tmp_path, monkeypatch):
    left_out = check.browser_missing()
    if left_out:
        pytest.skip(left_out)
    (tmp_path / "index.html").write_text(PAGE.replace("<h1>", "<button></button><h1>"))
    (tmp_path / "search.html").write_text(PAGE)
    monkeypatch.setattr(check, "SEARCH_TIMEOUT", 500)
    found = check.browser_findings(tmp_path)
    assert any("index.html (light): critical, button-name" in line for line in found), found
    assert any("p.png did not load" in line for line in found)
    assert any("search.html: a search for 'entropy' finds nothing" in line for line in found)


@pytest.mark.parametrize("module", [book, check], ids=["book", "check"])
def test_the_examples_in_the_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert tried and not failed
