"""A contact sheet: pictures, tags and heat maps in one HTML file without scripts or links."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from piaa_utils.files import printable
from piaa_utils.pipeline import PIAA
from piaa_utils.plots import heated, square, where_highest
from piaa_utils.tags import Tagged

SIDE = 168  # pixels of a picture on the sheet
MAPS = 3  # heat maps of a picture
LIMIT = 200  # pictures on a sheet
PAGE = Path(__file__).with_suffix(".html")


def contact_sheet(
    piaa: PIAA,
    found: Tagged,
    first: Sequence[int] = (),
    title: str = "Contact sheet",
    limit: int = LIMIT,
) -> str:
    """The sheet as HTML: each picture with its tags and the heat maps of its best classes.

    found : from :func:`piaa_utils.tags.tag_images`, with the classifier `piaa`.
    first : indices of the pictures that stand first, see :func:`piaa_utils.tags.needs_a_look`.
    """
    n, k = len(found.names), len(first)
    order = [*first, *(i for i in range(n) if i not in set(first))][:limit]
    rest = "The others" if first else "The pictures"
    sections = [("Look at these first", order[:k]), (rest, order[k:])]
    page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(PAGE.read_text())
    words = {"title": title, "side": SIDE, "found": found, "shown": len(order), "n": n}
    tools = {"printable": printable, "figures": lambda i: _figures(piaa, found, i)}
    return page.render(words, sections=sections, **tools)


def _figures(piaa: PIAA, found: Tagged, i: int) -> list[tuple[str, str, str, bool]]:
    """The picture and the maps of its best classes: source, alt text, caption, is it a tag."""
    picture, scores, tags = found.images[i], found.scores[i], found.tags[i]
    best = np.argsort(-scores, kind="stable")[:MAPS]
    maps = np.asarray(piaa.heat_maps(picture))[best]
    tagged = ", ".join(tags) or "no tag"
    out = [(_uri(square(picture)), f"The picture {printable(found.names[i])}", tagged, False)]
    for c, of_class in zip(best, maps, strict=True):
        name = found.classes[c]
        heat = heated(picture, of_class, maps.min(), maps.max())
        alt = f"Heat map of {name}, brightest {where_highest(of_class)}"
        out.append((_uri(heat), alt, f"{name} {scores[c]:.2f}", name in tags))
    return out


def _uri(picture: Any) -> str:
    """A PIL image as a data URI of a JPEG of SIDE pixels."""
    data = io.BytesIO()
    picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
