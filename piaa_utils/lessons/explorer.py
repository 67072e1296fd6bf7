"""Sliders and menus over a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets

from piaa_utils.plots import Figure


def explorer(
    callback: Callable[..., Figure],
    start: Mapping[str, object] | None = None,
    **choices: Sequence | Mapping,
) -> widgets.interactive:
    """A figure with controls above it; what the controls say goes to `callback`.

    Parameters
    ----------
    callback : takes one argument for each control, and returns the figure.
    start : values to begin with; a control that is not named there begins with its first.
    choices : for each argument the values to choose from. Numbers become a slider that stops at
        those values, all else a menu. A mapping {words: value} becomes a menu of the words.

    Raises
    ------
    ValueError
        An argument without values.
    """
    controls = {}
    for name, values in choices.items():
        if not len(values):
            raise ValueError(f"The explorer's control {name!r} has no values to choose from.")
        words = list(values) if isinstance(values, Mapping) else None
        values = list(values.values() if words else values)
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

    def show(**values: object) -> Figure:  # ipywidgets takes no functools.partial
        return callback(**values)

    # An `interactive`, unlike `interact`, does not show what its function returns unless told to.
    return widgets.interactive(show, {"auto_display": True}, **controls)
