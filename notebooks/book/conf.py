"""How Sphinx renders the book: MathML for formulas, no scripts or fonts from outside."""

import base64
import html
import io
import logging
import re
from importlib.resources import files

from docutils import nodes
from fontTools import subset, ttLib
from math_core import LatexToMathML

project = "PIAA, step by step"
author = ""
html_title = project
language = "en"
extensions = ["myst_parser"]
exclude_patterns = ["files", "figures"]

myst_enable_extensions = ["dollarmath", "amsmath"]
# Of MyST's own syntax the notebooks know nothing: a line that starts with % is no comment there.
myst_disable_syntax = ["myst_line_comment", "myst_block_break", "myst_target", "myst_role"]
myst_heading_anchors = 4
highlight_language = "text"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

html_theme = "furo"
html_theme_options = {"navigation_with_keys": False}
html_static_path = ["static"]
templates_path = ["templates"]
html_css_files = ["book.css", "math.css"]
html_js_files = ["book.js"]
html_math_renderer = "mathml"
html_copy_source = False
html_use_index = False
html_show_copyright = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses for files
smartquotes = False

WIDE = 88  # characters: longer lines scroll, so the keyboard must reach them
# What formulas may hold: Latin, Greek, accents, signs, arrows, operators, brackets, and the
# mathematical italics that browsers put for single letters.
MATH_RANGES = (
    (0x20, 0x7E),
    (0xA0, 0xFF),
    (0x2C6, 0x2DD),
    (0x300, 0x338),
    (0x391, 0x3F5),
    (0x2010, 0x2064),
    (0x2100, 0x22FF),
    (0x2308, 0x230B),
    (0x23B4, 0x23E1),
    (0x27E6, 0x27EF),
    (0x1D434, 0x1D467),
    (0x1D6E2, 0x1D71B),
)
converter = LatexToMathML()


def mathml(self, node: nodes.Node, display: bool) -> None:
    """A formula as MathML, which browsers draw and screen readers read."""
    formula = converter.convert_with_local_state(node.astext(), displaystyle=display)
    self.body.append(f'<div class="formula" tabindex="0">{formula}</div>' if display else formula)
    raise nodes.SkipNode


def math_font() -> str:
    """The style sheet with the mathematical font, STIX Two Math, in it.

    In it and not beside it: some browsers load no fonts from the file system.
    """
    path = files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    font = ttLib.TTFont(io.BytesIO(path.read_bytes()))
    picker = subset.Subsetter()
    picker.populate(unicodes=[code for a, b in MATH_RANGES for code in range(a, b + 1)])
    picker.subset(font)
    font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        '@font-face { font-family: "STIX Two Math of the book"; '
        f'src: url("data:font/woff;base64,{data}") format("woff"); }}\n'
    )


def write_math_font(app, exception) -> None:
    if exception is None and app.builder.format == "html":
        (app.outdir / "_static" / "math.css").write_text(math_font(), encoding="utf-8")


def reach_wide_blocks(app, pagename, templatename, context, doctree) -> None:
    """Let the keyboard reach blocks that scroll sideways."""

    def reach(match: re.Match) -> str:
        text = html.unescape(re.sub(r"<[^>]*>", "", match[1]))
        wide = max(map(len, text.splitlines()), default=0) > WIDE
        return f'<pre class="wide" tabindex="0">{match[1]}</pre>' if wide else match[0]

    if "body" in context:
        context["body"] = re.sub(r"<pre>(.*?)</pre>", reach, context["body"], flags=re.DOTALL)


def plain_captions(app, pagename, templatename, context, doctree) -> None:
    """The sidebar's captions are no headings: the theme gives them the role without a level."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(' role="heading"', "")


def setup(app) -> None:
    inline = (lambda self, node: mathml(self, node, False), None)
    block = (lambda self, node: mathml(self, node, True), None)
    app.add_html_math_renderer("mathml", inline, block)
    app.connect("html-page-context", reach_wide_blocks)
    app.connect("html-page-context", plain_captions, priority=900)  # after the theme
    app.connect("build-finished", write_math_font)
