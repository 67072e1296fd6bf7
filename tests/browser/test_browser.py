"""What a class meets: the students' notebooks in JupyterLab on a small screen, run and played with.

Not part of ``make test``: ``make test-browser`` runs it. It needs a Chromium (on the path, or where
the variable PIAA_CHROMIUM says) and the extra ``browser``; screenshots are left in results/browser.
``PYTEST_ADDOPTS="-k 02"`` takes one notebook.
"""

import lab
import pytest

pytestmark = pytest.mark.skipif(
    not lab.chromium(),
    reason="There is no Chromium here: install one (Debian and Ubuntu: apt-get install chromium), "
    "or let the variable PIAA_CHROMIUM name it.",
)
NAMES = sorted(path.stem for path in (lab.NOTEBOOKS / "student").glob("[0-9]*.ipynb"))
SLACK = 1  # pixels by which rounding may differ
KEPT = lab.ROOT / "results" / "browser"


@pytest.fixture(scope="module")
def chromium_and_lab(tmp_path_factory):
    KEPT.mkdir(parents=True, exist_ok=True)
    with lab.jupyterlab(tmp_path_factory.mktemp("browser")) as place, lab.browser() as chromium:
        yield chromium, place


@pytest.fixture(scope="module", params=NAMES)
def notebook(chromium_and_lab, request):
    """A student's notebook after Run All Cells; its kernel ends with its tests."""
    chromium, place = chromium_and_lab
    page = chromium.new_page(viewport=lab.SCREEN)
    opened = lab.Notebook(page, *place, request.param)
    opened.run()
    keep(opened, "blank")
    yield opened
    opened.js("panel.sessionContext.shutdown()")
    page.close()


def keep(notebook, what):
    notebook.page.screenshot(path=KEPT / f"{notebook.name[:2]}_{what}.png")


def test_a_blank_stops_the_run_and_right_answers_let_it_end(notebook):
    said = notebook.errors()
    assert len(said) == 1, said
    tags = notebook.js("cells[given].model.metadata.tags", said[0]["cell"])
    assert tags in (["exercise"], ["check"]), said
    notebook.answer()
    notebook.run("Run Selected Cell and All Below")
    keep(notebook, "answered")
    assert not notebook.errors()


def test_every_figure_is_there_and_nothing_is_cut_off(notebook):
    sizes = notebook.sizes()
    figures = [s for s in sizes if s["image"]]
    assert len(figures) >= 3 and all(s["loaded"] for s in figures), figures
    assert not [s for s in sizes if s["width"] > s["room"] + SLACK], "wider than its panel"
    assert not [s for s in sizes if s["right"] > s["edge"] + SLACK], "beyond the panel's edge"
    assert not [s for s in figures if s["height"] > lab.SCREEN["height"]], "taller than the screen"


def test_every_control_of_the_explorer_changes_its_figure(notebook):
    if not notebook.explorer():
        assert notebook.name[:2] in ("04", "06", "07")
        return
    sliders = notebook.page.locator(f"{lab.BOX} .widget-hslider")
    menus = notebook.page.locator(f"{lab.BOX} select")
    controls = [(choose, menus.nth(i)) for i in range(menus.count())]
    controls += [(drag, sliders.nth(i)) for i in range(sliders.count())]
    assert controls
    for act, control in controls:
        before = notebook.figure()
        assert before, "the explorer shows no figure"
        act(control)
        notebook.wait_for_another_figure(before)
        keep(notebook, f"{act.__name__}_{controls.index((act, control))}")


def choose(menu):
    """Another entry of a menu: the last, or the first where the last is chosen."""
    last = menu.locator("option").count() - 1
    menu.select_option(index=0 if menu.evaluate("m => m.selectedIndex") == last else last)


def drag(slider):
    """Move the handle, with the mouse, to the end of the track that is farther away."""
    page = slider.page
    slider.scroll_into_view_if_needed()
    track = slider.locator(".noUi-base").bounding_box()
    handle = slider.locator(".noUi-handle").bounding_box()
    at = handle["x"] + handle["width"] / 2
    half = track["x"] + track["width"] / 2
    page.mouse.move(at, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    end = track["x"] + (0.95 if at < half else 0.05) * track["width"]
    page.mouse.move(end, track["y"] + track["height"] / 2, steps=8)
    page.mouse.up()
