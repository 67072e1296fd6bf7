"""The book: made offline from executed notebooks, with alt text; broken links stop it."""

import base64
import importlib.util
import re
import subprocess
import sys
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

See [code](tool.py), [out](https://a.org), [for students](notebooks/student/01_first.ipynb).

| notebook | question |
| --- | --- |
| [01 First](notebooks/01_first.ipynb) | [why?](notebooks/TEACHING.md#plan) |
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'
TEXT = """# 01 · First

[![Open](https://a.org/b.svg)](https://a.org/c) [![Two](https://a.org/d.svg)](https://a.org/e)

Where $x_i$ is.

$$\\frac{a}{b} = \\arg\\max_c \\log p$$

<details><summary>Hint</summary>

Read [the plan](TEACHING.md#plan).

</details>

![Two boxes.](figures/two.svg)
"""

spec = importlib.util.spec_from_file_location("check", ROOT / "notebooks" / "book" / "check.py")
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)
needs_sphinx = pytest.mark.skipif(
    importlib.util.find_spec("myst_nb") is None, reason="left out: `make book` installs myst-nb"
)


def output(data, kind="display_data", **more):
    return nbformat.v4.new_output(kind, data, **more)


def code(source, *outputs, tags=()):
    metadata = {"tags": list(tags)} if tags else {}
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def write_notebook(path, *cells):
    cells = [nbformat.v4.new_markdown_cell(TEXT), *cells]
    metadata = {"language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


@pytest.fixture
def small(tmp_path):
    """A repository with one notebook."""
    for folder in ("data", "notebooks/student", "notebooks/figures"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README.md").write_text(README)
    for name in ("data/README", "data/mini_clip/README", "piaa_utils/README", "benchmarks/README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.md").write_text(f"# {name}\n")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "notebooks/book/more.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# More\n")
    (tmp_path / "notebooks/TEACHING.md").write_text("# Teaching\n\n## Plan\n\nWords.\n")
    (tmp_path / "tool.py").write_text("answer = 42\n")
    (tmp_path / "data/point.png").write_bytes(base64.b64decode(PIXEL))
    (tmp_path / "notebooks/figures/two.svg").write_text(SVG)
    table = "<table><tr><th>a</th></tr><tr><td>1</td></tr></table>"
    write_notebook(
        tmp_path / "notebooks/01_first.ipynb",
        code("import sys", tags=["setup"]),
        code("show()", figure("A point in the middle."), figure("Another point.", PIXEL[:-4])),
        code("table()", output({"text/html": table}), output({"text/markdown": "|b|\n|-|\n|$2$|"})),
        code("print()", nbformat.v4.new_output("stream", name="stderr", text="grumble")),
        code("answer = 43", tags=["exercise"]),
    )
    write_notebook(tmp_path / "notebooks/student/01_first.ipynb")
    return tmp_path


def figure(alt, png=PIXEL):
    return output({"image/png": png}, metadata={"image/png": {"alt": alt}})


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
        assert old in text
        (small / name).write_text(text.replace(old, new), encoding="utf-8")
    done = build(small)
    assert done.returncode
    for told in ("target not found: 'gone.py'", "'nowhere'", "two.svg has no alt text"):
        assert told in done.stderr
    assert re.search(r"[0-9a-f]{64}\.png has no alt text", done.stderr)


# The check

PAGE = """<!doctype html><html lang="en"><head><title>T</title><link rel="stylesheet" href="a.css">
<link rel="next" href="https://a.org/b.html"></head><body><main><h1>One</h1><h2>Two</h2>
<img alt="A point." src="p.png"><a href="https://a.org">out</a></main></body></html>"""


def write_site(folder, page=PAGE, style="body { background: url(p.png) } a { b: url(data:,) }"):
    (folder / "index.html").write_text("<html></html>")
    (folder / "a.html").write_text(page)
    (folder / "a.css").write_text(style)
    (folder / "p.png").write_bytes(base64.b64decode(PIXEL))
    return folder


def test_a_sound_site_has_no_findings_and_a_missing_one_has(tmp_path):
    assert "run make book" in check.findings(tmp_path)[0]
    assert check.findings(write_site(tmp_path)) == []


@pytest.mark.parametrize(
    "old, new, told",
    [
        ('"p.png"', '"https://a.org/p.png"', "it loads https://a.org/p.png from outside"),
        ('"p.png"', '"q.png"', "it loads q.png, which is not there"),
        ('"a.css"', '"//a.org/a.css"', "it loads //a.org/a.css from outside"),
        ("<h1>", '<script src="https://a.org/m.js"></script><h1>', "https://a.org/m.js from"),
        ("<h1>", "<style>@import 'https://a.org/f.css';</style><h1>", "https://a.org/f.css from"),
        ("<h1>", '<h1 style="background: url(q.png)">', "it loads q.png"),
    ],
)
def test_a_defect_is_found(tmp_path, old, new, told):
    assert old in PAGE
    (line,) = check.findings(write_site(tmp_path, PAGE.replace(old, new, 1)))
    assert line.startswith("a.html: ") and told in line


def test_fonts_from_outside_are_found(tmp_path):
    found = check.findings(write_site(tmp_path, style='a { b: url("https://a.org/f.woff2") }'))
    assert found == ["a.css: it loads https://a.org/f.woff2 from outside"]


def test_axe_finds_what_it_is_there_for(tmp_path):
    left_out = check.browser_missing()
    if left_out:
        pytest.skip(left_out)
    site = write_site(tmp_path, PAGE.replace("<h1>", "<button></button><h1>").replace("h2", "h4"))
    (site / "search.html").write_text(PAGE.replace("p.png", "q.png"))
    found = "\n".join(check.browser_findings(site))
    for told in ("a.html (light): button-name", "a.html (light): heading-order", "finds nothing"):
        assert told in found
    assert "q.png did not load" in found
