"""JupyterLab on copies of the notebooks, and a headless Chromium that looks at it."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SCREEN = {"width": 1366, "height": 768}  # pixels: a small laptop, and many a projector
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
START = 60  # seconds that JupyterLab may take to answer
# What JupyterLab would ask of the network, or show over the page.
QUIET = (
    "--ServerApp.open_browser=False",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)


def chromium() -> str | None:
    """The path of a Chromium of this machine, or None."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def scratch(folder: Path, names: list[str]) -> Path:
    """A working folder with copies of the notebooks, and the series beside them as ``piaa``.

    The setup cell finds the series there, as it does on Colab; nothing in the checkout changes
    but the cache of features.
    """
    work = folder / "work"
    work.mkdir()
    (work / "piaa").symlink_to(ROOT)
    for name in names:
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", work)
    return work


@contextlib.contextmanager
def jupyterlab(folder: Path, work: Path):
    """JupyterLab on a free port, with settings of its own; yields (address, token)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    news = folder / "settings" / "@jupyterlab" / "apputils-extension"
    news.mkdir(parents=True)
    (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = {**os.environ, "JUPYTER_TOKEN": token}
    environment.update({k: str(folder / v) for k, v in places.items()})
    command = [sys.executable, "-m", "jupyterlab", str(work), f"--port={port}", "--port-retries=0"]
    command += [*QUIET, *(["--allow-root"] if os.geteuid() == 0 else [])]
    with (folder / "jupyterlab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=work, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_for(server, f"{address}/api/status?token={token}", folder / "jupyterlab.log")
            yield address, token
        finally:
            server.terminate()  # JupyterLab ends its kernels
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_for(server: subprocess.Popen, address: str, log: Path) -> None:
    """Until the server answers; RuntimeError with its log if it ends or takes too long."""
    end = time.time() + START
    while time.time() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start; its log says:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def browser():
    """A headless Chromium."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that a container seldom has.
        opened = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


class Notebook:
    """One notebook open in JupyterLab, driven as a person would and read through its model."""

    def __init__(self, page: Page, address: str, token: str, name: str, workspace: str):
        self.page, self.name = page, name
        page.set_default_timeout(30_000)
        page.goto(f"{address}/lab/workspaces/{workspace}/tree/{name}.ipynb?token={token}")
        page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", timeout=60_000)
        page.wait_for_function(
            f"() => {PANEL}?.sessionContext?.session?.kernel?.status === 'idle'", timeout=60_000
        )

    def run_all(self, seconds: float) -> None:
        """Run > Run All Cells, then wait until the last one has run or one has failed."""
        before = self.page.evaluate(COUNTS)
        assert before, "the notebook has no code cell"
        # Outputs of the stored notebook must not pass for those of this run.
        self.page.evaluate(f"() => window.jupyterapp.commands.execute('{CLEAR}')")
        menu = self.page.locator(".lm-MenuBar-itemLabel", has_text="Run").first
        menu.click()
        entry = self.page.locator(".lm-Menu-itemLabel", has_text="Run All Cells")
        entry.first.click()
        self.page.wait_for_function(DONE, timeout=1000 * seconds, polling=500)
        self.settle()

    def settle(self) -> None:
        """Wait until the kernel is idle and the page has drawn what it sent."""
        self.page.wait_for_function(
            f"() => {PANEL}.sessionContext.session.kernel.status === 'idle'"
        )
        self.page.wait_for_timeout(400)

    def complaints(self) -> list[str]:
        """Errors and words on stderr in the cells' outputs, and in the explorers' own."""
        return self.page.evaluate(COMPLAINTS)

    def not_run(self) -> list[int]:
        """The places of code cells that have no execution count."""
        return [i for i, count in enumerate(self.page.evaluate(COUNTS)) if count is None]

    def sizes(self) -> list[dict]:
        """Every output and figure, as wide as it is and as its panel lets it be.

        Cells are brought into view one by one: JupyterLab lays out only what is near.
        """
        out = []
        for cell in range(self.page.evaluate(f"() => {PANEL}.content.widgets.length")):
            self.page.evaluate(f"(i) => {PANEL}.content.scrollToItem(i, 'start')", cell)
            self.page.wait_for_timeout(30)
            out += self.page.evaluate(SIZES, cell)
        return out

    def scroll_to(self, selector: str) -> None:
        """Bring the first match to the top of the panel."""
        self.page.locator(selector).first.evaluate("e => e.scrollIntoView({block: 'start'})")
        self.page.wait_for_timeout(200)

    def explorer_cell(self) -> int:
        """The place of the cell with the explorer, brought into view."""
        cell = self.page.evaluate(EXPLORER)
        assert cell >= 0, "no cell has an explorer"
        self.page.evaluate(f"(i) => {PANEL}.content.scrollToItem(i, 'start')", cell)
        self.page.wait_for_selector(f"{VISIBLE} .widget-interact", state="visible")
        self.page.evaluate(
            f"(i) => {PANEL}.content.widgets[i].node.querySelector('.widget-interact')"
            ".scrollIntoView({block: 'start'})",
            cell,
        )
        self.page.wait_for_selector(f"{VISIBLE} .widget-interact img")
        return cell

    def figure(self) -> str:
        """The explorer's figure, as the text of its bytes."""
        return self.page.evaluate(FIGURE)

    def wait_for_another_figure(self, than: str) -> None:
        """Until the explorer shows another picture, whole; TimeoutError if it does not."""
        shown = f"(old) => {{ const f = ({FIGURE})(); return f !== '' && f !== old; }}"
        self.page.wait_for_function(shown, arg=than, polling=100)
        self.settle()


PANEL = "window.jupyterapp.shell.currentWidget"
VISIBLE = ".jp-NotebookPanel:not(.lm-mod-hidden)"
CLEAR = "editmenu:clear-all"
COUNTS = f"""() => {PANEL}.content.widgets.filter(c => c.model.type === 'code')
    .map(c => c.model.executionCount)"""
DONE = f"""() => {{
    const cells = {PANEL}.content.widgets.filter(c => c.model.type === 'code');
    const failed = cells.some(c => c.model.outputs.toJSON().some(o => o.output_type === 'error'));
    const idle = {PANEL}.sessionContext.session.kernel.status === 'idle';
    return idle && (failed || cells.every(c => c.model.executionCount !== null));
}}"""
COMPLAINTS = f"""() => {{
    const out = [];
    {PANEL}.content.widgets.forEach((cell, i) => {{
        if (cell.model.type !== 'code') return;
        for (const o of cell.model.outputs.toJSON()) {{
            if (o.output_type === 'error') out.push(`cell ${{i}}: ${{o.ename}}: ${{o.evalue}}`);
            if (o.name === 'stderr') out.push(`cell ${{i}}: ${{[o.text].flat().join('')}}`);
        }}
        const words = cell.node.querySelectorAll('[data-mime-type="application/vnd.jupyter.error"],'
            + '[data-mime-type="application/vnd.jupyter.stderr"]');
        for (const w of cell.node.querySelectorAll('.widget-interact') .length ? words : [])
            out.push(`cell ${{i}}, explorer: ${{w.textContent}}`);
    }});
    return out;
}}"""
SIZES = f"""(i) => {{
    const panel = {PANEL}.content.node, cell = {PANEL}.content.widgets[i];
    const edge = panel.getBoundingClientRect().left + panel.clientWidth;
    const out = [];
    const add = (kind, e, more) => out.push({{
        cell: i, kind, width: e.scrollWidth, room: e.clientWidth,
        height: e.getBoundingClientRect().height,
        right: e.getBoundingClientRect().right, edge, panel: panel.clientHeight, ...more}});
    const outputs = cell.node.querySelectorAll('.jp-OutputArea-output, .jp-RenderedMarkdown');
    for (const e of outputs) add('output', e, {{}});
    for (const e of cell.node.querySelectorAll('.jp-OutputArea-output img'))
        add('figure', e, {{natural: e.naturalWidth, shown: e.clientWidth}});
    for (const e of cell.node.querySelectorAll('.cm-scroller')) add('source', e, {{}});
    return out;
}}"""
EXPLORER = f"""() => {PANEL}.content.widgets.findIndex(c => c.model.type === 'code'
    && /^explorer\\(/m.test(c.model.sharedModel.getSource()))"""
FIGURE = f"""() => {{
    const shown = {PANEL}.node.querySelectorAll('.widget-interact img');
    return shown.length === 1 && shown[0].complete ? shown[0].src : '';
}}"""
