"""Look at the rendered book (`make check-book`): what it loads; with axe-core what readers meet.

Links and alt text are checked when Sphinx makes it (conf.py). Where there are Chromium, playwright
and axe-core, axe looks at each page, opened from the file system with the network cut off.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AXE = Path(os.environ.get("AXE", ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"))
LOADS = re.compile(
    r"""(?:<(?:img|script|source|iframe)\b[^>]*?\bsrc="|<link rel="stylesheet"[^>]*?href="|"""
    r"""url\(["']?|@import ["'])([^"')]+)"""
)
HEADINGS = ("heading-order", "page-has-heading-one")


def findings(site: Path) -> list[str]:
    """Files that the pages and style sheets below `site` load from outside, or that are missing."""
    paths = [*sorted(site.rglob("*.html")), *sorted(site.rglob("*.css"))]
    out = [] if (site / "index.html").exists() else [f"there is no book in {site}: run make book"]
    for path in paths:
        for address in LOADS.findall(path.read_text(encoding="utf-8")):
            if re.match(r"(https?:)?//", address):
                out.append(f"{path.relative_to(site)}: it loads {address} from outside")
            elif not re.match(r"data:|#", address):
                if not (path.parent / re.split("[?#]", address)[0]).exists():
                    out.append(f"{path.relative_to(site)}: it loads {address}, which is not there")
    return out


def chromium() -> str | None:
    """Where the browser is: what PIAA_CHROMIUM names, or the first on the path; or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return shutil.which(os.environ.get("PIAA_CHROMIUM") or next(filter(shutil.which, names), ""))


def browser_missing() -> str:
    """Why axe cannot look at the pages here; empty where it can."""
    there = {"playwright": find_spec("playwright"), "Chromium": chromium()}
    there["axe-core (npm install --prefix .venv/axe axe-core)"] = AXE.exists()
    lacking = ", ".join(name for name, found in there.items() if not found)
    return f"axe was left out; it needs {lacking}." if lacking else ""


def browser_findings(site: Path) -> Iterator[str]:
    """What axe finds serious, what a page fails to load; a search must find something."""
    from playwright.sync_api import sync_playwright

    pages = [p for p in sorted(site.rglob("*.html")) if p.name != "index.html"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for scheme, chosen in (("light", pages), ("dark", pages[-3:])):
            context = browser.new_context(offline=True, color_scheme=scheme)
            context.set_default_timeout(300_000)  # milliseconds: the machine may be busy
            for path in chosen:
                for line in _axe(context.new_page(), path):
                    yield f"{path.relative_to(site)} ({scheme}): {line}"
        page = browser.new_context(offline=True).new_page()
        page.goto((site / "search.html").resolve().as_uri() + "?q=entropy")
        page.wait_for_timeout(3000)
        if not page.locator("#search-results ul.search li a").count():
            yield "search.html: a search for 'entropy' finds nothing"
        browser.close()


def _axe(page, path: Path) -> Iterator[str]:
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(f"an error: {error}"))
    page.on("requestfailed", lambda request: trouble.append(f"{request.url} did not load"))
    page.goto(path.resolve().as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    # Without preload: axe would fetch the style sheets, which a browser refuses for files.
    found = page.evaluate("axe.run(document, {preload: false}).then(r => r.violations)")
    page.close()
    yield from trouble
    for fault in found:
        if fault["impact"] in ("serious", "critical") or fault["id"] in HEADINGS:
            places = [node["target"][0] for node in fault["nodes"]]
            yield f"{fault['id']}: {fault['help']}; {len(places)} places, such as {places[:3]}"


if __name__ == "__main__":
    book = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results" / "book"
    left_out = browser_missing()
    found = findings(book) + ([] if left_out else list(browser_findings(book)))
    print("\n".join([*found, *filter(None, [left_out]), f"{len(found)} findings"]))
    sys.exit(bool(found))
