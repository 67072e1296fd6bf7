"""The contact sheet: one file, nothing from outside, in order, and true to the classifier."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from piaa_utils.contact_sheet import MAPS, SIDE, contact_sheet
from piaa_utils.tags import Tagged, choose_tags, uncertainty

CLASSES = ("cat", 'dog <b> & "pup"', "sofa", "tree")


class Fitted:
    """As much of a classifier as a sheet needs: class c is seen in the corner c, ever less."""

    def heat_maps(self, image):
        maps = torch.zeros(4, 14, 14)
        maps[range(4), [0, 0, 13, 13], [0, 13, 0, 13]] = 1 - 0.25 * torch.arange(4)
        return maps


class Page(HTMLParser):
    """The tags of a page in order, with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.pictures, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "img":
            kind, _, data = dict(attributes)["src"].partition(",")
            assert kind == "data:image/jpeg;base64", "it would be loaded from outside"
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def found():
    images = [Image.new("RGB", (60, 40), colour) for colour in ("red", "black", "white")]
    scores = np.array([[0.5, 0.3, 0.1, 0.1], [np.nan] * 4, [0.2, 0.2, 0.3, 0.3]])
    tags = choose_tags(scores, CLASSES)
    names = ["<i>a</i>.jpg", "b.jpg", "c.jpg"]
    return Tagged(images, names, CLASSES, scores, tags, uncertainty(scores), {1: "b.jpg: <cut>"})


def test_the_page_is_whole_and_loads_nothing(found):
    text = contact_sheet(Fitted(), found, title="Mine & yours")
    page = Page(text)
    assert page.open == [], "every element is closed"
    assert not {"script", "link", "iframe", "i", "b"} & {tag for tag, _ in page.tags}
    assert [picture.size for picture in page.pictures] == 2 * (1 + MAPS) * [(SIDE, SIDE)]
    assert not re.search(r"https?:|url\(|@import", text)
    assert "default-src 'none'" in text
    brightest = [int(np.asarray(map.convert("L")).max()) for map in page.pictures[1 : 1 + MAPS]]
    assert brightest == sorted(brightest, reverse=True) and brightest[0] > brightest[2] + 30
    assert ("html", {"lang": "en"}) in page.tags and "Mine & yours" in page.text


def test_headings_are_in_order_and_every_picture_has_alt_text(found):
    page = Page(contact_sheet(Fitted(), found, first=[2]))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels == [1, 2, 3, 2, 3, 3]
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts[:2] == ["The picture c.jpg", "Heat map of sofa, brightest at the bottom left"]
    assert alts[2] == "Heat map of tree, brightest at the bottom right", "the best class first"
    assert page.text.index("Look at these first") < page.text.index("c.jpg")
    text = contact_sheet(Fitted(), found, first=[1, 0], limit=1)
    assert "1 of 3 pictures are shown" in text and text.count("<article>") == 1
    assert "The others" not in text and "<img" not in text and "are shown" not in page.text
    assert page.text.index("c.jpg") < page.text.index("The others") < page.text.index("a</i>.jpg")


def test_what_users_typed_is_text_and_what_speaks_against_the_tags_stands_first(found):
    text = contact_sheet(Fitted(), found._replace(notice="No <photographs>."))
    assert "<i>a" not in text and "dog <b>" not in text and "<cut>" not in text
    page = Page(text).text
    assert "<i>a</i>.jpg" in page and 'dog <b> & "pup"' in page
    assert page.index("No <photographs>.") < page.index("Classes:") < page.index("c.jpg")
    assert "<strong>No" not in contact_sheet(Fitted(), found)
    assert "<strong>cat 0.50</strong>" in text and "<figcaption>sofa 0.10<" in text
    assert "Could not be read. b.jpg" in text and "1 of 3 could not be read" in text
