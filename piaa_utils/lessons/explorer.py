"""Sliders and menus over a figure."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets

from piaa_utils.plots import Figure, display_metadata, png_bytes


def explorer(
    callback: Callable[..., Figure],
    start: Mapping[str, object] | None = None,
    **choices: Sequence | Mapping,
) -> widgets.VBox:
    """A figure with controls above it; what the controls say goes to `callback`.

    callback : takes one argument for each control, and returns the figure.
    start : values to begin with; a control that is not named there begins with its first.
    choices : for each argument the values to choose from. Numbers become a slider that stops at
        those values, all else a menu. A mapping {words: value} becomes a menu of the words.

    Raises ValueError: an argument without values.
    """
    controls = {}
    for name, values in choices.items():
        if not len(values):
            raise ValueError(f"The explorer's control {name!r} has no values to choose from.")
        words = list(values) if isinstance(values, Mapping) else None
        values = list(values.values() if isinstance(values, Mapping) else values)
        numbers = not words and all(isinstance(v, int | float) for v in values)
        kind = widgets.SelectionSlider if numbers else widgets.Dropdown
        more = {"continuous_update": False} if numbers else {}
        controls[name] = kind(
            options=list(zip(words, values, strict=True)) if words else values,
            value=(start or {}).get(name, values[0]),
            description=name.replace("_", " "),
            style={"description_width": "initial"},
            **more,
        )

    picture = _Picture()
    box = widgets.VBox([*controls.values(), picture]).add_class("widget-interact")

    def show(change: object = None) -> None:
        values = {name: control.value for name, control in controls.items()}
        try:
            picture.value = _image(callback(**values))
        except Exception as error:
            if change is None:
                raise  # at the start the cell fails; later nobody would see it
            picture.value = f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"

    for control in controls.values():
        control.observe(show, "value")
    show()
    return box


class _Picture(widgets.HTML):
    """HTML whose words for a notebook without widgets do not hold the whole picture."""

    def __repr__(self) -> str:
        return "a figure"


def _image(figure: Figure) -> str:
    """A figure as an HTML image with its alt text.

    No output widget shows it: those now and then stall a notebook that runs without a browser.
    """
    words = html.escape(display_metadata(figure)["image/png"]["alt"], quote=True)
    data = base64.b64encode(png_bytes(figure)).decode()
    return f'<img alt="{words}" src="data:image/png;base64,{data}" style="max-width: 100%">'
