"""Render the series to a static site to read without running: results/book (make book).

    python notebooks/book/book.py [--output FOLDER]

The executed notebooks and the repository's Markdown files become Markdown pages with pictures
(here), and Sphinx makes the site of them (conf.py). What is in it is what is there: every
notebooks/NN_*.ipynb, README.md as the front page, notebooks/TEACHING.md, and the two about the
data. Linked source files get a page, other linked files are copied. The site loads nothing from
outside and works from the file system.
"""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
OUTPUT = ROOT / "results" / "book"
PACKAGES = ("sphinx", "myst_parser", "furo", "math_core", "ziamath")
ABOUT = {"data/README.md": "data", "data/mini_clip/README.md": "mini_clip"}
MAP = "The map of the series"  # the section of README.md that comes first
FOLDED = {  # cells that a reader opens: their summary by tag
    "setup": "Setup: finds or fetches the series",
    "exercise": "A solution",
    "versions": "Versions",
}
WIDGET = "needs a running kernel: run the notebook."
EXPLORER = (
    "*In a running notebook this cell shows sliders. The figure beside it shows one of their "
    "settings.*"
)
BUTTON = "*In a running notebook this cell shows a button.*"
BADGES = re.compile(r"^(?:\[!\[[^\]]*\]\(http[^)]*\)\]\([^)]*\)[ \t]*)+$", re.MULTILINE)
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")


def pages(root: Path = ROOT) -> dict[str, str]:
    """The files that become pages, in the order of the book: path below root -> page's name."""
    notebooks = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    others = sorted((root / "notebooks").glob("*.md"))
    found = {"README.md": "index"}
    found |= {f"notebooks/{path.name}": path.stem for path in notebooks}
    found |= {f"notebooks/{path.name}": path.stem.lower() for path in others}
    found |= {path: name for path, name in ABOUT.items() if (root / path).exists()}
    return found


class Stage:
    """Writes the Markdown pages into a folder, and with them the files that they link to.

    Parameters
    ----------
    root : the repository.
    folder : where to write; Sphinx's source folder.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.pages = pages(root)
        self.code: dict[str, str] = {}  # linked source files: path below root -> page's name

    def write(self) -> None:
        """Write all pages."""
        for path, name in self.pages.items():
            if path.endswith(".ipynb"):
                text = self.notebook(path)
            else:
                text = self.links((self.root / path).read_text(encoding="utf-8"), path)
            if name == "index":
                text = f"{map_first(text)}\n\n{self.contents()}\n"
            self.put(f"{name}.md", text)
        for path, name in self.code.items():
            source = (self.root / path).read_text(encoding="utf-8")
            language = "python" if path.endswith(".py") else "text"
            self.put(
                f"{name}.md", f"---\norphan: true\n---\n\n# {path}\n\n{fence(source, language)}\n"
            )

    def put(self, name: str, content: str | bytes) -> str:
        """Write a file of the stage, and return its name."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def contents(self) -> str:
        """The tables of contents: they make the sidebar, and what is previous and next."""
        out = []
        lessons = [n for p, n in self.pages.items() if p.endswith(".ipynb")]
        others = [n for p, n in self.pages.items() if n not in lessons and n != "index"]
        for caption, names in (("Notebooks", lessons), ("About", others)):
            if names:
                listed = "\n".join(names)
                out.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```")
        return "\n\n".join(out)

    # Links

    def links(self, text: str, page: str) -> str:
        """The Markdown of a page with its links into the repository leading into the book."""
        parts, end = [], 0
        for block in FENCE.finditer(text):
            parts += [self._links(text[end : block.start()], page), block[0]]
            end = block.end()
        return "".join([*parts, self._links(text[end:], page)])

    def _links(self, text: str, page: str) -> str:
        def lead(match: re.Match) -> str:
            mark, words, target = match.groups()
            place = self.place(target, page)
            return words if place is None else f"{mark}[{self._links(words, page)}]({place})"

        return LINK.sub(lead, text)

    def place(self, target: str, page: str) -> str | None:
        """Where in the book a link's target is; None where the link leads to a folder.

        Raises
        ------
        ValueError
            There is no such file.
        """
        if re.match(r"[a-z]+:|[#/]", target):
            return target
        target, _, anchor = target.partition("#")
        anchor = f"#{anchor}" if anchor else ""
        full = (self.root / page).parent / target
        path = os.path.relpath(full, self.root).replace(os.sep, "/")
        if not full.exists():
            raise ValueError(f"{page} links to {target}, which is not there; mend the link.")
        if full.is_dir():
            path = f"{path}/README.md"
        if path in self.pages:
            return f"/{self.pages[path]}.md{anchor}"
        if full.is_dir():
            return None
        if (
            full.suffix in (".py", ".yml", ".toml", ".json", ".txt", "")
            and full.stat().st_size < 1e6
        ):
            self.code[path] = "code/" + re.sub(r"\W", "_", path)
            return f"/{self.code[path]}.md"
        return "/" + self.put(f"files/{path}", full.read_bytes())

    # Notebooks

    def notebook(self, path: str) -> str:
        """An executed notebook as Markdown, its figures beside it."""
        notebook = nbformat.read(self.root / path, 4)
        parts = []
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type == "markdown":
                source = BADGES.sub(lambda _: self.downloads(path), cell.source)
                parts.append(self.links(source, path))
            elif cell.cell_type == "code":
                parts += self.code_cell(cell, f"{Path(path).stem}-{number}")
        return "\n\n".join(parts) + "\n"

    def downloads(self, path: str) -> str:
        """Links to the notebook's own file and to the students'."""
        own = self.put(f"files/{path}", (self.root / path).read_bytes())
        words = f"To run it: [the notebook](/{own})"
        student = f"notebooks/student/{Path(path).name}"
        if (self.root / student).exists():
            other = self.put(f"files/{student}", (self.root / student).read_bytes())
            words += f" · [with blank exercises](/{other})"
        return words

    def code_cell(self, cell: nbformat.NotebookNode, name: str) -> Iterable[str]:
        """A code cell and its outputs as Markdown blocks."""
        folded = [FOLDED[tag] for tag in cell.metadata.get("tags", []) if tag in FOLDED]
        if folded:
            yield f'<details class="fold"><summary>{folded[0]}</summary>'
        yield fence(cell.source, "python")
        if folded:
            yield "</details>"
        for number, output in enumerate(cell.outputs):
            shown = self.output(output, f"{name}-{number}")
            if shown:
                yield f'<div class="output">\n\n{shown}\n\n</div>'

    def output(self, output: nbformat.NotebookNode, name: str) -> str:
        """One output as Markdown; empty for words on stderr.

        Raises
        ------
        ValueError
            A figure without alt text.
        """
        if output.output_type == "stream":
            return fence(output.text, "text") if output.name == "stdout" else ""
        data = output.get("data", {})
        if "image/png" in data:
            alt = output.metadata.get("image/png", {}).get("alt", "")
            if not alt:
                raise ValueError(f"The figure {name} has no alt text; run `make notebooks`.")
            picture = self.put(f"figures/{name}.png", base64.b64decode(data["image/png"]))
            return f"```{{image}} /{picture}\n:alt: {json.dumps(alt, ensure_ascii=False)}\n```"
        if "text/html" in data:
            # A wide table scrolls, so the keyboard must reach it.
            table = f'<div class="scrolls" tabindex="0">\n{data["text/html"]}\n</div>'
            return f"```{{raw}} html\n{table}\n```"
        if "text/markdown" in data:
            return data["text/markdown"]
        text = data.get("text/plain", "")
        if text.endswith(WIDGET):
            return EXPLORER if text.startswith("The explorer") else BUTTON
        return fence(text, "text")


def fence(text: str, language: str) -> str:
    """Text between fences longer than any in it.

    >>> print(fence("a = 1", "python"))
    ```python
    a = 1
    ```
    """
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def map_first(readme: str) -> str:
    """README.md with the map of the series ahead of its other sections.

    >>> print(map_first("# A\\n\\n## B\\n\\n## The map of the series\\n\\nc\\n"))
    # A
    <BLANKLINE>
    ## The map of the series
    <BLANKLINE>
    c
    <BLANKLINE>
    ## B
    """
    opening, *sections = re.split(r"^(?=## )", readme, flags=re.MULTILINE)
    mapped = [section for section in sections if section.startswith(f"## {MAP}\n")]
    if len(mapped) != 1:
        raise ValueError(f"README.md must have one section '## {MAP}': the book opens with it.")
    others = [section for section in sections if section is not mapped[0]]
    return "\n\n".join(part.strip() for part in (opening, *mapped, *others))


def missing() -> list[str]:
    """The modules that the book needs and that are not installed."""
    from importlib.util import find_spec

    return [name for name in PACKAGES if find_spec(name) is None]


def render(output: Path = OUTPUT, root: Path = ROOT) -> None:
    """Make the site in `output`, which is replaced when all went well.

    Raises
    ------
    RuntimeError
        A package is missing, or Sphinx found something wrong (it said what).
    ValueError
        `output` holds something else than a book.
    """
    if output.exists() and any(output.iterdir()) and not (output / "searchindex.js").exists():
        raise ValueError(f"{output} holds something else than a book; name another folder.")
    if missing():
        raise RuntimeError(
            f"The book needs {', '.join(missing())}; run `make book`, which installs what is "
            "missing (once, with a network)."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".book-") as work:
        source, site = Path(work) / "source", Path(work) / "site"
        Stage(root, source).write()
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
        command += ["-c", HERE, "-d", Path(work) / "doctrees", source, site]
        if subprocess.run(command).returncode:
            raise RuntimeError("Sphinx refused the book; what it names above is to be mended.")
        shutil.rmtree(site / ".doctrees", ignore_errors=True)
        if output.exists():
            output.rename(Path(work) / "old")
        site.rename(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: results/book")
    options = parser.parse_args()
    start = time.time()
    try:
        render(options.output.resolve())
    except (RuntimeError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    count = len(list(options.output.rglob("*.html")))
    print(f"{options.output / 'index.html'}: {count} pages in {time.time() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
