"""How Sphinx makes the book (`make book`): the executed notebooks and the Markdown, as a site.

Nothing is executed, nothing is loaded from outside, and the site opens from the file system. A
link that leads nowhere, or a figure without alt text, stops it (Sphinx runs with -W).
"""

import base64
import hashlib
import html
import json
import logging
import os
import re
from importlib.resources import files

from docutils import nodes
from fontTools import subset
from math_core import LatexToMathML
from sphinx.util import logging as sphinx_logging

project = "PIAA, step by step"
html_title = project
language = "en"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = ["*.md", "notebooks/*.ipynb", "notebooks/*.md", "notebooks/book/*.md"]
include_patterns += ["piaa_utils/*.md", "data/*.md", "data/mini_clip/*.md", "benchmarks/*.md"]
exclude_patterns = [".*", "build", "cache", "course", "results", "tests", "data/mini_scenes"]

nb_execution_mode = "off"
nb_output_stderr = "remove"
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
# Of MyST's own syntax the notebooks know nothing: a line that starts with % is no comment there.
myst_disable_syntax = ["myst_line_comment", "myst_block_break", "myst_target", "myst_role"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # cells with % or ! are no Python
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
smartquotes = False

html_theme = "furo"
html_theme_options = {"navigation_with_keys": False}
html_static_path = ["static"]
templates_path = ["templates"]
html_css_files = ["book.css", "math.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_use_index = False
html_show_copyright = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses for files

TOC = "\n\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {}\n\n{}\n```\n"
ABOUT = "notebooks/book/* piaa_utils/README data/README data/mini_clip/README benchmarks/README"
ABOUT += " notebooks/[A-Z]* CONTRIBUTING CHANGELOG"
FOLDED = {"setup": "Setup: finds or fetches the series", "exercise": "A solution"}
FOLDED |= {"config": "Configuration", "versions": "Versions"}
GOALS = re.compile(r"^\**After this notebook you can", re.MULTILINE)
STUDENT = re.compile(r"\]\(([\w/.]*student/[^)]*\.ipynb)\)")  # no pages: files to fetch
BADGES = re.compile(r"^(?:\[!\[[^\]]*\]\(http[^)]*\)\]\([^)]*\)[ \t]*)+$", re.MULTILINE)
WIDE = 88  # characters: longer lines scroll, so the keyboard must reach them
# What formulas may hold: Latin, Greek, accents, signs, arrows, operators, mathematical italics.
MATH = "20-7E,A0-FF,2C6-2DD,300-338,391-3F5,2010-2064,2100-22FF,2308-230B,23B4-23E1,27E6-27EF,"
MATH += "1D434-1D467,1D6E2-1D71B"
converter = LatexToMathML()
alts: dict[str, str] = {}  # of figures: by the sha256 that myst-nb names a file by


def read(app, docname, source) -> None:
    """Front page: the sidebar. Notebooks: badges become links, some cells fold, alts are noted."""
    source[0] = STUDENT.sub(r"](path:\1)", source[0])
    if docname == root_doc:
        source[0] += TOC.format("Notebooks", "notebooks/[0-9]*")
        source[0] += TOC.format("About", ABOUT.replace(" ", "\n"))
    if not docname.startswith("notebooks/") or not source[0].startswith("{"):
        return
    notebook, name = json.loads(source[0]), docname.removeprefix("notebooks/")
    own = f"To run it: [the notebook](path:{name}.ipynb)"
    if (app.srcdir / f"notebooks/student/{name}.ipynb").exists():
        own += f" · [with blank exercises](path:student/{name}.ipynb)"
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = BADGES.sub(own, "".join(cell["source"]))
        for tag in set(FOLDED) & set(cell["metadata"].get("tags", [])):
            cell["metadata"]["tags"] += ["hide-input"]
            cell["metadata"]["mystnb"] = {"code_prompt_show": FOLDED[tag]}
        for output in cell.get("outputs", []):
            for kind, given in output.get("data", {}).items():
                if kind in ("image/png", "image/gif", "image/svg+xml"):
                    text = "".join(given)
                    lines = os.linesep.join(text.splitlines()).encode()  # as myst-nb writes it
                    data = lines if "svg" in kind else base64.b64decode(text)
                    alt = output["metadata"].get(kind, {}).get("alt", "")
                    alts[hashlib.sha256(data).hexdigest()] = alt
    finding_first(notebook["cells"])
    source[0] = json.dumps(notebook)


def finding_first(cells: list[dict]) -> None:
    """The first figure once more below the finding: a lecturer's first screen shows both."""
    figures = (o for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {}))
    text, figure = "".join(cells[0]["source"]), next(figures, None)
    if (goals := GOALS.search(text)) and figure:
        shown = {"cell_type": "code", "id": "finding", "source": "figure", "outputs": [figure]}
        shown |= {"metadata": {"tags": ["remove-input"]}, "execution_count": None}
        rest = {**cells[0], "id": "goals", "source": text[goals.start() :]}
        cells[:1] = [{**cells[0], "source": text[: goals.start()]}, shown, rest]


def describe(app, doctree) -> None:
    """Figures get the alt text that their notebook has; one without is a warning."""
    for image in doctree.findall(nodes.image):
        image["alt"] = image.get("alt") or alts.get(image["uri"].split("/")[-1][:64], "")
        if not image["alt"].strip():
            words = "the picture %s has no alt text"
            sphinx_logging.getLogger(__name__).warning(words, image["uri"], location=image)


def reach(app, pagename, templatename, context, doctree) -> None:
    """Let the keyboard reach what scrolls sideways; the sidebar's captions are no headings."""

    def wide(match: re.Match) -> str:
        lines = html.unescape(re.sub(r"<[^>]*>", "", match[1])).splitlines()
        long = max(map(len, lines), default=0) > WIDE
        return f'<pre class="wide" tabindex="0">{match[1]}</pre>' if long else match[0]

    body = re.sub(r"<pre>(.*?)</pre>", wide, context.get("body", ""), flags=re.DOTALL)
    body = body.replace(' aria-label="Toggle hidden content"', "")  # the summary has words
    context["body"] = body.replace('output text_html"', 'output text_html" tabindex="0"')
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(' role="heading"', "")


def finish(app, exception) -> None:
    """index.html, and the font of formulas in a style sheet: some browsers load none from disk."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    font, made = (
        files("ziamath") / "fonts/STIXTwoMath-Regular.ttf",
        app.outdir / "_static/math.woff",
    )
    subset.main([str(font), f"--unicodes={MATH}", "--flavor=woff", f"--output-file={made}"])
    data = base64.b64encode(made.read_bytes()).decode()
    face = f'font-family: "STIX of the book"; src: url("data:font/woff;base64,{data}")'
    made.with_suffix(".css").write_text(f"@font-face {{ {face} }}\n")
    (app.outdir / "index.html").write_text(
        f'<!doctype html><html lang="en"><title>{project}</title><h1>{project}</h1>'
        '<meta http-equiv="refresh" content="0; url=README.html"><a href="README.html">Read</a>'
    )


def mathml(self, node: nodes.Node, display: bool) -> None:
    """A formula as MathML, which browsers draw and screen readers read."""
    formula = converter.convert_with_local_state(node.astext(), displaystyle=display)
    self.body.append(f'<div class="formula" tabindex="0">{formula}</div>' if display else formula)
    raise nodes.SkipNode


def setup(app) -> None:
    inline = (lambda self, node: mathml(self, node, False), None)
    block = (lambda self, node: mathml(self, node, True), None)
    app.add_html_math_renderer("mathml", inline, block)
    app.connect("source-read", read)
    app.connect("doctree-read", describe)
    app.connect("html-page-context", reach, priority=900)  # after the theme
    app.connect("build-finished", finish)
