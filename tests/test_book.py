"""The book: made offline from executed notebooks, with alt text; broken links stop it."""

import base64
import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c4944415408d763f8ffff3f0005fe02fea735810b0000000049454e44ae426082"
    )
).decode()
FILES = {
    "README.md": """# Series

![One point](data/point.png)

See [code](tool.py), [out](https://a.org), [for students](notebooks/student/01_first.ipynb).

| notebook | question |
| --- | --- |
| [01 First](notebooks/01_first.ipynb) | [why?](notebooks/TEACHING.md#plan) |
""",
    "notebooks/TEACHING.md": "# Teaching\n\n## Plan\n\nWords.\n",
    "notebooks/figures/two.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>',
    "tool.py": "answer = 42\n",
}
FILES |= dict.fromkeys(("CHANGELOG.md", "CONTRIBUTING.md", "notebooks/book/more.md"), "# More\n")
FILES |= dict.fromkeys(("data/README.md", "data/mini_clip/README.md"), "# Data\n")
FILES |= dict.fromkeys(("piaa_utils/README.md", "benchmarks/README.md"), "# Code\n")
TEXT = """# 01 · First

[![Open](https://a.org/b.svg)](https://a.org/c) [![Two](https://a.org/d.svg)](https://a.org/e)

After this notebook you can

- say where $x_i$ is.

$$\\frac{a}{b} = \\arg\\max_c \\log p$$

<details><summary>Hint</summary>

Read [the plan](TEACHING.md#plan).

</details>

![Two boxes.](figures/two.svg)
"""

check = SimpleNamespace(**runpy.run_path(str(ROOT / "notebooks" / "book" / "check.py")))
needs_sphinx = pytest.mark.skipif(
    importlib.util.find_spec("myst_nb") is None, reason="left out: `make book` installs myst-nb"
)


def output(kind, data, **metadata):
    return new_output("display_data", {kind: data}, metadata={kind: metadata})


CELLS = [
    new_markdown_cell(TEXT),
    new_code_cell("import sys", metadata={"tags": ["setup"]}),
    new_code_cell("show()", outputs=[output("image/png", PIXEL, alt="A point in the middle.")]),
    new_code_cell("show()", outputs=[output("image/png", PIXEL[:-4], alt="Another point.")]),
    new_code_cell("table()", outputs=[output("text/html", "<table><tr><th>a</th></tr></table>")]),
    new_code_cell("table()", outputs=[output("text/markdown", "|b|\n|-|\n|$2$|")]),
    new_code_cell("print()", outputs=[new_output("stream", name="stderr", text="grumble")]),
    new_code_cell("answer = 43", metadata={"tags": ["exercise"]}),
]


@pytest.fixture
def small(tmp_path):
    """A repository with one notebook."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "data/point.png").write_bytes(base64.b64decode(PIXEL))
    (tmp_path / "notebooks/student").mkdir()
    metadata = {"language_info": {"name": "python"}}
    for name, cells in (("01_first", CELLS), ("student/01_first", CELLS[:1])):
        notebook = new_notebook(cells=cells, metadata=metadata)
        nbformat.write(notebook, tmp_path / f"notebooks/{name}.ipynb")
    return tmp_path


def build(root):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c"]
    command += [ROOT / "notebooks" / "book", root, root / "results/book"]
    return subprocess.run(command, capture_output=True, text=True)


@needs_sphinx
def test_the_rendered_site(small):
    done = build(small)
    assert not done.returncode, done.stderr
    site = small / "results" / "book"
    assert check.findings(site) == []
    page = (site / "notebooks/01_first.html").read_text(encoding="utf-8")
    for alt in ("A point in the middle.", "Another point.", "Two boxes."):
        assert f'alt="{alt}"' in page
    assert page.index("A point in the middle.") < page.index("After this notebook you can")
    assert re.search(r"<math display=.block.><mfrac><mi>a</mi><mi>b</mi></mfrac>", page)
    assert "<th>a</th>" in page and re.search(r"<td><p><math><mn>2</mn></math></p></td>", page)
    assert "grumble" not in page and "a.org" not in page
    assert re.search(r"<details[^>]*>\s*<summary[^>]*>.{0,80}A solution", page, re.DOTALL)
    assert 'href="TEACHING.html#plan"' in page and "with blank exercises" in page
    assert len(list(site.glob("_downloads/*/01_first.ipynb"))) == 2, "ours and the students'"
    front = (site / "README.html").read_text(encoding="utf-8")
    assert "notebooks/01_first.html" in front and "notebooks/TEACHING.html#plan" in front
    assert 'url=README.html"' in (site / "index.html").read_text()
    assert "01_first" in (site / "searchindex.js").read_text(encoding="utf-8")
    assert "data:font/woff;base64" in (site / "_static/math.css").read_text(encoding="utf-8")


@needs_sphinx
def test_faults_stop_the_book(small):
    """One build, to spare time: a link without a file, one without an anchor, two bare pictures."""
    for name, old, new in (
        ("README.md", "(tool.py)", "(gone.py)"),
        ("README.md", "#plan", "#nowhere"),
        ("notebooks/01_first.ipynb", "A point in the middle.", ""),
        ("notebooks/01_first.ipynb", "Two boxes.", ""),
    ):
        text = (small / name).read_text(encoding="utf-8")
        (small / name).write_text(text.replace(old, new), encoding="utf-8")
    done = build(small)
    assert done.returncode
    for told in ("target not found: 'gone.py'", "'nowhere'", "two.svg has no alt text"):
        assert told in done.stderr
    assert re.search(r"[0-9a-f]{64}\.png has no alt text", done.stderr)


PAGE = """<!doctype html><html lang="en"><head><title>T</title><link rel="stylesheet" href="a.css">
<link rel="next" href="https://a.org/b.html"></head><body><main><h1>One</h1><h2>Two</h2>
<img alt="A point." src="p.png"><a href="https://a.org">out</a></main></body></html>"""
STYLE = "body { background: url(p.png) } a { b: url(data:,) }"


def test_what_the_book_loads_from_outside_or_in_vain_is_found(tmp_path):
    assert "run make book" in check.findings(tmp_path)[0]
    (tmp_path / "index.html").write_text("<html></html>")
    (tmp_path / "p.png").write_bytes(base64.b64decode(PIXEL))
    for old, new, told in (
        ("", "", None),
        ('"p.png"', '"https://a.org/p.png"', "a.html: it loads https://a.org/p.png from outside"),
        ('"p.png"', '"q.png"', "a.html: it loads q.png, which is not there"),
        ('"a.css"', '"//a.org/a.css"', "a.html: it loads //a.org/a.css from outside"),
        ("<h1>", '<script src="https://a.org/m.js"></script>', "https://a.org/m.js from"),
        ("<h1>", "<style>@import 'https://a.org/f.css';</style>", "https://a.org/f.css from"),
        ("(p.png)", '("https://a.org/f.woff2")', "a.css: it loads https://a.org/f.woff2 from"),
    ):
        (tmp_path / "a.html").write_text(PAGE.replace(old, new, 1))
        (tmp_path / "a.css").write_text(STYLE.replace(old, new, 1))
        found = check.findings(tmp_path)
        assert len(found) == 1 and told in found[0] if told else found == []
