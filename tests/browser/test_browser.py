"""What a class sees: notebooks in JupyterLab on a small screen, run and played with.

Not part of ``make test``: ``make test-browser`` runs it. It needs a Chromium on this machine and
the extra ``browser``. Screenshots and the sizes of all outputs are left in results/browser.
"""

import json
import os

import lab
import pytest

if not lab.chromium():
    pytest.exit(
        "There is no Chromium on this machine; install it (Debian and Ubuntu: apt-get install "
        "chromium) and run make test-browser again.",
        returncode=2,
    )

NAMES = ["00_start_here", "02_patch_entanglement", "05_adaptive_aggregation"]
# Seconds that a notebook may take; the first one fills the cache of features, about a minute on
# two idle cores. A busy machine may need more.
RUN = float(os.environ.get("PIAA_BROWSER_SECONDS", 240))
SLACK = 1  # pixels by which rounding may differ
ARTEFACTS = lab.ROOT / "results" / "browser"
each = pytest.mark.parametrize("name", NAMES)
EXPLORER = f"{lab.VISIBLE} .widget-interact"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function that opens a notebook in a page of its own, has it run, and keeps it."""
    folder = tmp_path_factory.mktemp("browser")
    work = lab.scratch(folder, NAMES)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    notebooks = {}
    with lab.jupyterlab(folder, work) as (address, token), lab.browser() as chromium:

        def open_and_run(name):
            if name not in notebooks:
                page = chromium.new_page(viewport=lab.SCREEN)
                notebook = lab.Notebook(page, address, token, name, f"test-{name[:2]}")
                notebooks[name] = notebook
                try:
                    notebook.run_all(RUN)
                finally:
                    keep(notebook, "run")
            return notebooks[name]

        yield open_and_run


def keep(notebook, what):
    notebook.page.screenshot(path=ARTEFACTS / f"{notebook.name[:2]}_{what}.png")


@each
def test_all_cells_run_without_error_or_warning(opened, name):
    notebook = opened(name)
    assert not notebook.complaints()
    assert not notebook.not_run()


@each
def test_nothing_is_cut_off_on_a_small_screen(opened, name):
    notebook = opened(name)
    sizes = notebook.sizes()
    (ARTEFACTS / f"{name[:2]}_sizes.json").write_text(json.dumps(sizes, indent=1))
    shown = [s for s in sizes if s["kind"] != "source"]
    assert sum(s["kind"] == "figure" for s in shown) >= 3, "the figures were not found"
    assert not [s for s in shown if s["width"] > s["room"] + SLACK], "wider than its panel"
    assert not [s for s in shown if s["right"] > s["edge"] + SLACK], "beyond the panel's edge"
    tall = [s for s in shown if s["kind"] == "figure" and s["height"] > lab.SCREEN["height"]]
    assert not tall, "taller than the screen"


@each
def test_every_control_of_the_explorer_changes_its_figure(opened, name):
    notebook = opened(name)
    notebook.explorer_cell()
    keep(notebook, "explorer")
    sliders = notebook.page.locator(f"{EXPLORER} .widget-slider, {EXPLORER} .widget-hslider")
    menus = notebook.page.locator(f"{EXPLORER} select")
    assert sliders.count() + menus.count() >= 2
    for i in range(menus.count()):
        changed_by(notebook, f"menu_{i}", choose_another, menus.nth(i))
    for i in range(sliders.count()):
        changed_by(notebook, f"slider_{i}", drag, sliders.nth(i))
    assert not notebook.complaints()


def test_sliders_and_menus_are_among_the_controls(opened):
    """So that the test above has moved one of each."""
    kinds = set()
    for name in NAMES:
        page = opened(name).page
        opened(name).explorer_cell()
        for kind, selector in (("slider", ".noUi-handle"), ("menu", "select")):
            if page.locator(f"{EXPLORER} {selector}").count():
                kinds.add(kind)
    assert kinds == {"slider", "menu"}


def changed_by(notebook, what, act, control):
    before = notebook.figure()
    assert before, "the explorer shows no figure"
    act(control)
    try:
        notebook.wait_for_another_figure(before)
    finally:
        keep(notebook, what)


def choose_another(menu):
    chosen = menu.evaluate("m => m.selectedIndex")
    menu.select_option(index=1 if chosen != 1 else 0)


def drag(slider):
    """Move the handle to four fifths of the way, with the mouse."""
    page = slider.page
    slider.scroll_into_view_if_needed()
    track = slider.locator(".noUi-base").bounding_box()
    handle = slider.locator(".noUi-handle").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + 0.8 * track["width"], track["y"] + track["height"] / 2, steps=8)
    page.mouse.up()
