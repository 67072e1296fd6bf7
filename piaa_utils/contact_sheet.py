"""A contact sheet: pictures, tags and heat maps in one HTML file that needs nothing else.

The pictures are inside the file as data URIs. It has no script, and its policy forbids the browser
to load anything else.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from PIL import Image

from piaa_utils.images import open_image
from piaa_utils.pipeline import PIAA
from piaa_utils.plots import HEAT, SHADE, centre_square, where_highest

if TYPE_CHECKING:
    from piaa_utils.predict import Tagged

SIDE = 168  # pixels of a picture on the sheet
MAPS = 3  # heat maps of a picture
LIMIT = 200  # pictures on a sheet

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 1.5rem auto;
  max-width: 60rem; padding: 0 1rem; }
h3 { margin: 0 0 .3rem; font-size: 1rem; overflow-wrap: anywhere; }
article { border-top: 1px solid #767676; padding: .8rem 0; break-inside: avoid; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; width: SIDEpx; }
figcaption { font-size: .9rem; overflow-wrap: anywhere; }
img { display: block; width: SIDEpx; height: SIDEpx; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } }
""".replace("SIDE", str(SIDE))

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def contact_sheet(
    piaa: PIAA,
    found: Tagged,
    first: Sequence[int] = (),
    title: str = "Contact sheet",
    limit: int = LIMIT,
) -> str:
    """The sheet as HTML: each picture with its tags and the heat maps of its best classes.

    Parameters
    ----------
    piaa : the classifier that tagged.
    found : from :func:`piaa_utils.predict.tag_images`.
    first : indices of the pictures under the heading "Look at these first", in this order; see
        :func:`piaa_utils.predict.needs_a_look`. The others follow.
    title : the heading.
    limit : pictures on the sheet; the sheet says how many are left out.

    Raises
    ------
    UnreadableImage
        If a picture that was tagged can no longer be read.
    """
    order = [*first, *(i for i in range(len(found.names)) if i not in set(first))]
    shown = order[:limit]
    parts = [f"<h1>{escape(title)}</h1>", *_introduction(found, len(shown))]
    sections = {
        "Look at these first": shown[: len(first)],
        "The others" if first else "The pictures": shown[len(first) :],
    }
    for heading, indices in sections.items():
        if indices:
            parts.append(f"<section><h2>{heading}</h2>")
            parts += [_article(piaa, found, i) for i in indices]
            parts.append("</section>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def heat_picture(image: object, scores: np.ndarray) -> Image.Image:
    """A heat map, shaded by the picture, as in :func:`piaa_utils.plots.heat_map`: SIDE pixels.

    Parameters
    ----------
    image : a path or PIL image.
    scores : [g, g], a patch each; the lowest is light, the highest dark.
    """
    scores = np.asarray(scores, dtype=float)
    share = (scores - scores.min()) / max(np.ptp(scores), 1e-12)
    colours = mpl.colormaps[HEAT](share, bytes=True)[..., :3]
    layer = Image.fromarray(np.ascontiguousarray(colours)).resize((SIDE, SIDE), 0)
    grey = np.asarray(_square(image).convert("L"), dtype=float)[..., None] / 255
    return Image.fromarray((np.asarray(layer) * (1 - SHADE * (1 - grey))).astype(np.uint8))


def _introduction(found: Tagged, shown: int) -> list[str]:
    text = [
        f"<p>Classes: {escape(', '.join(found.classes))}.</p>",
        "<p>Tags are in bold. A score ranks; it is no probability. A heat map is light where "
        "patches speak least for its class and dark where they speak most; each map has its own "
        "scale. What lies outside the square is not seen.</p>",
    ]
    if found.notice:
        text.insert(0, f"<p><strong>{escape(found.notice)}</strong></p>")
    if shown < len(found.names):
        text.append(f"<p>{shown} of {len(found.names)} pictures are shown.</p>")
    if found.problems:
        text.append(f"<p>{len(found.problems)} of {len(found.names)} could not be read.</p>")
    return text


def _article(piaa: PIAA, found: Tagged, index: int) -> str:
    name = escape(found.names[index])
    head = f"<article><h3>{name}</h3>\n"
    if index in found.problems:
        return f"{head}<p>Could not be read. {escape(found.problems[index])}</p></article>"
    image, scores = found.images[index], found.scores[index]
    best = np.argsort(-scores, kind="stable")[:MAPS]
    maps = np.asarray(piaa.patch_scores(image))[best]
    tags = ", ".join(found.tags[index]) or "no tag"
    figures = [_figure(_square(image), f"The picture {found.names[index]}", escape(tags))]
    for c, map_of_class in zip(best, maps, strict=True):
        class_name = found.classes[c]
        words = f"{escape(class_name)} {scores[c]:.2f}"
        words = f"<strong>{words}</strong>" if class_name in found.tags[index] else words
        alt = f"Heat map of {class_name}, darkest {where_highest(map_of_class)}"
        figures.append(_figure(heat_picture(image, map_of_class), alt, words))
    uncertain = f"<p>Uncertainty {found.uncertainty[index]:.4f}</p>"
    return f'{head}<div class="row">{"".join(figures)}</div>{uncertain}</article>'


def _figure(picture: Image.Image, alt: str, caption: str) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return (
        f'<figure><img src="{source}" alt="{escape(alt)}" width="{SIDE}" height="{SIDE}">'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def _square(image: object) -> Image.Image:
    return centre_square(open_image(image)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
