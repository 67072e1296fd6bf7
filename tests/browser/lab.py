"""JupyterLab on copies of the students' notebooks, and a headless Chromium that looks at it."""

import contextlib
import json
import os
import runpy
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
SCREEN = {"width": 1366, "height": 768}  # pixels: a small laptop, and many a projector
# Seconds for a run and whatever else is waited for; a busy machine needs more.
PATIENCE = float(os.environ.get("PIAA_BROWSER_SECONDS", 300))
# What JupyterLab would ask of the network, or show over the page.
QUIET = (
    "--ServerApp.open_browser=False",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)
chromium = runpy.run_path(str(NOTEBOOKS / "book" / "check.py"))["chromium"]


@contextlib.contextmanager
def jupyterlab(folder: Path):
    """JupyterLab with settings of its own on copies of the notebooks; yields (address, token).

    The series stands beside them as ``piaa``, where the setup cell finds it, as on Colab; nothing
    in the checkout changes but the cache of features.
    """
    work = folder / "work"
    shutil.copytree(NOTEBOOKS / "student", work)
    (work / "piaa").symlink_to(ROOT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    news = folder / "settings" / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    token, log = secrets.token_hex(16), folder / "jupyterlab.log"
    own = "JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR JUPYTERLAB_SETTINGS_DIR "
    own += "JUPYTERLAB_WORKSPACES_DIR IPYTHONDIR"
    environment = {**os.environ, **{name: str(folder / name) for name in own.split()}}
    environment |= {"JUPYTER_TOKEN": token, "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    command = [sys.executable, "-m", "jupyterlab", str(work), f"--port={port}", "--port-retries=0"]
    command += [*QUIET, *(["--allow-root"] if os.geteuid() == 0 else [])]
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, cwd=work, stdout=out, stderr=out)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.time() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=5)
                break
            except OSError as error:
                if time.time() > end or server.poll() is not None:
                    raise RuntimeError(f"No JupyterLab: {log.read_text()[-2000:]}") from error
                time.sleep(0.3)
        yield address, token
    finally:
        server.terminate()  # JupyterLab ends its kernels
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@contextlib.contextmanager
def browser():
    """A headless Chromium."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that a container seldom has.
        options = ["--no-sandbox", "--disable-gpu"]
        opened = playwright.chromium.launch(executable_path=chromium(), args=options)
        yield opened
        opened.close()


class Notebook:
    """One notebook open in JupyterLab, driven as a person would and read through its model."""

    def __init__(self, page: Page, address: str, token: str, name: str):
        self.page, self.name = page, name
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(f"{address}/lab/workspaces/of-{name}/tree/{name}.ipynb?token={token}")
        page.wait_for_selector(f"{VISIBLE} .jp-Cell")
        self.settle()

    def js(self, expression: str, given=None):
        """What JavaScript says of this notebook: `panel`, `cells` and `given` are at hand."""
        return self.page.evaluate(f"given => {{ {HAVE} return {expression}; }}", given)

    def wait(self, condition: str, given=None) -> None:
        """Until the condition, of the same names, holds."""
        code = f"given => {{ {HAVE} return {condition}; }}"
        self.page.wait_for_function(code, arg=given, polling=200)

    def settle(self) -> None:
        """Wait until the kernel is idle and the page has drawn what it sent."""
        self.wait("panel?.sessionContext?.session?.kernel?.status === 'idle'")
        self.page.wait_for_timeout(500)

    def run(self, entry: str = "Run All Cells") -> None:
        """Choose an entry of the menu Run; wait until each cell has run, or one has failed."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
        self.page.locator(".lm-Menu-itemLabel", has_text=entry).first.click()
        code = "cells.filter(c => c.model.type === 'code')"
        self.wait(f"{IDLE} && ({ERRORS}.length || {code}.every(c => c.model.executionCount))")
        self.settle()

    def errors(self) -> list[dict]:
        """Errors, and words on stderr: {cell, words}."""
        return self.js(ERRORS)

    def answer(self) -> None:
        """Put the solutions into the exercises, and choose the first."""
        given = json.loads((NOTEBOOKS / f"{self.name}.ipynb").read_text())["cells"]
        places = [i for i, c in enumerate(given) if "exercise" in c["metadata"].get("tags", [])]
        for i in places:
            self.js(PUT, [i, "".join(given[i]["source"])])
        self.js("panel.content.activeCellIndex = given", places[0])

    def sizes(self) -> list[dict]:
        """Every output and figure, as wide as it is and as its panel lets it be."""
        out = []
        for i in range(self.js("cells.length")):  # only what is near is laid out
            self.js("panel.content.scrollToItem(given, 'start')", i)
            self.page.wait_for_timeout(60)
            out += self.js(SIZES, i)
        return out

    def explorer(self) -> bool:
        """Bring the explorer into view; False where the notebook has none."""
        at = self.js("cells.findIndex(c => /^explorer\\(/m.test(c.model.sharedModel.getSource()))")
        if at >= 0:
            self.js("panel.content.scrollToItem(given, 'start')", at)
            self.page.locator(f"{BOX} img").scroll_into_view_if_needed()
        return at >= 0

    def figure(self) -> str:
        """The explorer's figure, as the text of its bytes."""
        return self.js(FIGURE)

    def wait_for_another_figure(self, than: str) -> None:
        """Until the explorer shows another picture, whole; TimeoutError if it does not."""
        self.wait(f"{FIGURE} && {FIGURE} !== given", than)
        self.settle()


VISIBLE = ".jp-NotebookPanel:not(.lm-mod-hidden)"
BOX = f"{VISIBLE} .widget-interact"
HAVE = "const panel = window.jupyterapp?.shell.currentWidget, cells = panel?.content?.widgets;"
IDLE = "panel.sessionContext.session.kernel.status === 'idle'"
ERRORS = """cells.flatMap((c, cell) => (c.model.outputs?.toJSON() ?? [])
    .filter(o => o.output_type === 'error' || o.name === 'stderr')
    .map(o => ({cell, words: o.ename ? `${o.ename}: ${o.evalue}` : [o.text].flat().join('')})))"""
PUT = "cells[given[0]].model.sharedModel.setSource(given[1])"
FIGURE = f"([...document.querySelectorAll('{BOX} img')].find(i => i.naturalWidth)?.src ?? '')"
SIZES = """[...cells[given].node.querySelectorAll(
    '.jp-OutputArea-output, .jp-RenderedMarkdown, .jp-OutputArea-output img')].map(e => ({
        cell: given, image: e.tagName === 'IMG', loaded: e.naturalWidth !== 0,
        width: e.scrollWidth, room: e.clientWidth, height: e.clientHeight,
        right: e.getBoundingClientRect().right,
        edge: panel.content.node.getBoundingClientRect().left + panel.content.node.clientWidth}))"""
