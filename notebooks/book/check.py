"""Check the site of the series: links, resources, headings, pictures, tables (make check-book).

    python notebooks/book/check.py [FOLDER]

Every page of the folder is read. Where Playwright, Chromium and axe-core are installed, axe looks
at each page in the browser too; where they are not, it is said what was left out.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "results" / "book"
AXE = ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
AXE_VERSION = "4.14.1"
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
RESOURCES = {  # what a page loads by itself: tag -> attributes with an address
    "script": ("src",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "audio": ("src",),
    "video": ("src", "poster"),
    "object": ("data",),
    "embed": ("src",),
    "input": ("src",),
}
LOADED_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "manifest", "preconnect"}
CSS_ADDRESS = re.compile(r"(?:url\(\s*|@import\s+)[\"']?([^\"')\s;]+)", re.IGNORECASE)
SEARCH_TIMEOUT = 20_000  # milliseconds
DEAD_WIDGETS = (
    "The explorer needs a running kernel",
    "The button needs a running kernel",
    "Error displaying widget",
    "A Jupyter Widget",
)


class Page(HTMLParser):
    """What the checks need to know of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.images: list[tuple[str, str | None]] = []
        self.tables: list[bool] = []  # whether each has a header cell
        self.language = self.title = ""
        self._open: list[int] = []  # the tables that we are in
        self._inside = ""  # the heading, title or style that we are in
        self._text: list[str] = []
        self.styles: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(values["id"])
        if values.get("style"):
            self.styles.append(values["style"])
        for name in RESOURCES.get(tag, ()):
            if values.get(name):
                several = name == "srcset" and not values[name].startswith("data:")
                self.loads += (
                    [part.split()[0] for part in values[name].split(",")]
                    if several
                    else [values[name]]
                )
        if tag == "link" and LOADED_RELATIONS & set((values.get("rel") or "").lower().split()):
            self.loads.append(values.get("href") or "")
        elif tag in ("a", "area", "link") and values.get("href"):
            self.links.append(values["href"])
        if tag == "html":
            self.language = values.get("lang") or ""
        if tag == "img":
            self.images.append((values.get("src") or "", values.get("alt")))
        if tag == "table":
            self._open.append(len(self.tables))
            self.tables.append(values.get("role") == "presentation")
        if tag == "th" and self._open:
            self.tables[self._open[-1]] = True
        if tag in (*HEADINGS, "title", "style"):
            self._inside, self._text = tag, []

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "table" and self._open:
            self._open.pop()
        if not self._inside or tag not in (*HEADINGS, "title", "style"):
            return
        text = "".join(self._text).strip().removesuffix("¶")
        if self._inside == "title":
            self.title = self.title or text
        elif self._inside == "style":
            self.styles.append(text)
        else:
            self.headings.append((int(self._inside[1]), text))
        self._inside = ""


def outside(address: str) -> bool:
    """Whether an address leads to another machine.

    >>> [outside(a) for a in ("https://a.org/b.js", "//a.org", "b.css", "data:image/png;base64,")]
    [True, True, False, False]
    """
    return bool(urlsplit(address).netloc) or address.lower().startswith(("http:", "https:"))


def heading_findings(headings: list[tuple[int, str]]) -> Iterator[str]:
    """What is wrong with a page's headings, given as (level, text) in order.

    >>> list(heading_findings([(1, "A"), (3, "B")]))
    ["the heading 'B' of level 3 follows one of level 1"]
    """
    first = [text for level, text in headings if level == 1]
    if len(first) != 1:
        yield f"it has {len(first)} headings of level 1, not one: {first}"
    before = 0
    for level, text in headings:
        if level > before + 1:
            yield f"the heading {text!r} of level {level} follows one of level {before}"
        if not text:
            yield f"a heading of level {level} is empty"
        before = level


def findings(site: Path) -> list[str]:
    """What is wrong with the pages and style sheets below `site`, a line each.

    Raises
    ------
    ValueError
        There is no page.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    texts = {path: text for path, text in texts.items() if "_static" not in path.parts}
    if not texts:
        raise ValueError(f"There is no page in {site}; run `make book` first.")
    pages = {path.resolve(): Page(text) for path, text in texts.items()}
    out = []
    for path, text in texts.items():
        page = pages[path.resolve()]
        name = path.relative_to(site)
        out += [f"{name}: {line}" for line in _page_findings(page, text)]
        out += [f"{name}: {line}" for line in _link_findings(page, path, pages)]
    for path in sorted(site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        out += [f"{path.relative_to(site)}: {line}" for line in _style_findings(text, path.parent)]
    return out


def _page_findings(page: Page, text: str) -> Iterator[str]:
    if not page.language:
        yield "<html> has no lang"
    if not page.title:
        yield "it has no title"
    yield from heading_findings(page.headings)
    for source, alt in page.images:
        if not alt or not alt.strip():
            yield f"the picture {source} has no alt text"
    if not all(page.tables):
        yield f"{page.tables.count(False)} of {len(page.tables)} tables have no header cell"
    twice = sorted({name for name in page.ids if page.ids.count(name) > 1})
    if twice:
        yield f"ids are used twice: {twice}"
    for words in DEAD_WIDGETS:
        if words in text:
            yield f"it shows a widget that cannot run: {words!r}"


def _link_findings(page: Page, path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    for address in page.loads:
        if outside(address):
            yield f"it loads {address} from outside"
        elif not address.startswith("data:") and not _file(address, path).exists():
            yield f"it loads {address}, which is not there"
    for style in page.styles:
        yield from _style_findings(style, path.parent)
    for address in page.links:
        if outside(address) or urlsplit(address).scheme:
            continue
        target = _file(address, path)
        anchor = unquote(urlsplit(address).fragment)
        if not target.is_file():
            yield f"the link to {address} is broken"
        elif anchor and target.resolve() in pages and anchor not in pages[target.resolve()].ids:
            yield f"the link to {address} is broken: there is no such anchor"


def _style_findings(text: str, folder: Path) -> Iterator[str]:
    for address in CSS_ADDRESS.findall(text):
        if outside(address):
            yield f"it loads {address} from outside"
        elif not address.startswith(("data:", "#")):
            if not (folder / unquote(urlsplit(address).path)).exists():
                yield f"it loads {address}, which is not there"


def _file(address: str, page: Path) -> Path:
    path = unquote(urlsplit(address).path)
    return page.parent / path if path else page


def browser_missing() -> str:
    """Why axe cannot look at the pages here; empty where it can."""
    from importlib.util import find_spec

    wanted = []
    if find_spec("playwright") is None:
        wanted.append("pip install playwright")
    if not chromium():
        wanted.append("apt-get install chromium")
    if not axe_script().exists():
        wanted.append(f"npm install --prefix .venv/axe axe-core@{AXE_VERSION}")
    return f"axe was left out; it needs: {'; '.join(wanted)}" if wanted else ""


def chromium() -> str | None:
    """Where the browser is; the environment's CHROMIUM comes first."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def axe_script() -> Path:
    """Where axe-core is; the environment's AXE comes first."""
    return Path(os.environ.get("AXE", AXE))


def browser_findings(site: Path) -> list[str]:
    """What axe finds serious or critical in the pages, and what they fail to load.

    Each page is opened from the file system with the network cut off; a search must find something.
    """
    from playwright.sync_api import sync_playwright

    out: list[str] = []
    script = axe_script().read_text(encoding="utf-8")
    with sync_playwright() as play:
        options = {"executable_path": chromium(), "args": ["--no-sandbox"]}
        browser = play.chromium.launch(**options)
        pages = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
        lessons = [path for path in pages if path.name[0].isdigit()]
        dark = [site / "index.html", site / "search.html", *lessons[:1]]  # same colours everywhere
        for scheme, chosen in (("light", pages), ("dark", dark)):
            context = browser.new_context(offline=True, color_scheme=scheme)
            for path in chosen:
                name = f"{path.relative_to(site)} ({scheme})"
                out += [f"{name}: {line}" for line in _axe_findings(context, path, script)]
            context.close()
        out += _search_findings(browser, site)
        browser.close()
    return out


def _axe_findings(context: object, path: Path, script: str) -> Iterator[str]:
    page = context.new_page()
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(f"an error: {error}"))
    page.on("requestfailed", lambda request: trouble.append(f"{request.url} did not load"))
    page.goto(path.resolve().as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate(script)
    # Without preload: axe would fetch the style sheets, which a browser refuses for files.
    options = "{resultTypes: ['violations'], preload: false}"
    found = page.evaluate(f"axe.run(document, {options}).then(r => r.violations)")
    page.close()
    yield from trouble
    for violation in found:
        if violation["impact"] in ("serious", "critical"):
            places = [node["target"][0] for node in violation["nodes"]]
            yield (
                f"{violation['impact']}, {violation['id']}: {violation['help']}; "
                f"{len(places)} places, such as {places[:3]}"
            )


def _search_findings(browser: object, site: Path) -> list[str]:
    page = browser.new_context(offline=True).new_page()
    page.goto((site / "search.html").resolve().as_uri() + "?q=entropy")
    try:
        page.wait_for_selector("#search-results ul.search li a", timeout=SEARCH_TIMEOUT)
    except Exception as error:
        return [f"search.html: a search for 'entropy' finds nothing ({type(error).__name__})"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, nargs="?", default=SITE, help="default: results/book")
    site = parser.parse_args().site
    try:
        found = findings(site)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    left_out = browser_missing()
    if not left_out:
        found += browser_findings(site)
    print("\n".join([*found, left_out] if left_out else found))
    pages = len(list(site.rglob("*.html")))
    print(f"{pages} pages, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
