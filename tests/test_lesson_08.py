"""Notebook 08: pictures in, figures, the explorer, the checks of the exercises."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from piaa_utils.contact_sheet import contact_sheet
from piaa_utils.datasets import mini_scenes
from piaa_utils.images import UnreadableImage
from piaa_utils.lessons import CheckFailed, nb08
from piaa_utils.lessons.features import Features
from piaa_utils.pipeline import PIAA
from piaa_utils.predict import Tagged, choose_tags, tag_images, uncertainty

pytestmark = pytest.mark.filterwarnings("default:Stage I selected no patch")
NAMES = ("cat", "dog", "bus")


class Fitted:
    """As much of a classifier as figures need."""

    class_names, background = NAMES, ("tree", "sky")

    def patch_scores(self, image):
        return torch.arange(3 * 196.0).reshape(3, 14, 14)


@pytest.fixture
def found():
    images = [Image.new("RGB", (40, 30), colour) for colour in ("red", "black", "white")]
    scores = np.array([[0.6, 0.3, 0.1], [0.34, 0.33, 0.33], [0.1, 0.1, 0.8]])
    tags = [("cat",), (), ("bus",)]
    return Tagged(images, list("abc"), NAMES, scores, tags, uncertainty(scores), {})


# Pictures


def png(colour):
    data = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(data, "PNG")
    return memoryview(data.getvalue())


def test_uploads_come_first_then_the_folder_then_the_default(tmp_path):
    button = nb08.upload_button()
    assert button.multiple and button.accept == "image/*"
    assert nb08.chosen(button, None, default=["a.jpg", "b.jpg"]) == ["a.jpg", "b.jpg"]
    (tmp_path / "c.png").write_bytes(png("red"))
    assert nb08.chosen(button, str(tmp_path), default=["a.jpg"]) == [tmp_path / "c.png"]
    button = SimpleNamespace(value=({"name": "mine.png", "content": png("blue")},))
    (picture,) = nb08.chosen(button, str(tmp_path), default=["a.jpg"])
    assert picture.filename == "mine.png" and picture.getpixel((0, 0)) == (0, 0, 255)


def test_an_upload_that_is_no_image_is_named():
    button = SimpleNamespace(value=({"name": "notes.txt", "content": memoryview(b"words")},))
    with pytest.raises(UnreadableImage, match="notes.txt is no image"):
        nb08.chosen(button, None, default=["a.jpg"])


# From features


def test_features_give_the_classifier_and_tags_of_the_pictures():
    from piaa_utils.backbone import load_backbone
    from piaa_utils.encoders import encode

    backbone, paths = load_backbone(device="cpu"), mini_scenes("val").paths[:5]
    pixels = torch.stack([backbone.preprocess(Image.open(p).convert("RGB")) for p in paths])
    x = encode(backbone, pixels, "scclip")
    f = Features(x["cls"], {"scclip": x["scclip"]}, None, None)
    settings = {"n_select": 9, "background": ["tree"], "progress": False}
    piaa = nb08.learned(PIAA(NAMES, backbone, **settings), f)
    other = PIAA(NAMES, backbone, **settings).fit(paths)
    torch.testing.assert_close(piaa.coef_, other.coef_, rtol=1e-3, atol=1e-3)
    found, same = nb08.tagged(piaa, f, paths), tag_images(other, paths)
    np.testing.assert_allclose(found.scores, same.scores, atol=1e-3)
    share = choose_tags(found.scores, NAMES, threshold=1 / 4)
    assert found.tags == share and found.images == paths and found.names[0] == paths[0].name


def test_tags_as_a_table_and_their_quality(found):
    table = nb08.tag_table(found)
    assert table.tolist() == [[True, False, False], [False] * 3, [False, False, True]]
    labels = np.array([[True, True, False], [False, True, False], [False, False, True]])
    assert nb08.precision_recall(table, labels) == (1.0, 0.5)
    nothing = nb08.precision_recall(np.zeros((3, 3), dtype=bool), labels)
    assert np.isnan(nothing[0]) and nothing[1] == 0


# Figures


@pytest.mark.parametrize("indices", [[0], [0, 1, 2], [0, 1, 2, 0, 1]])
def test_the_gallery_shows_each_picture_with_its_tags(found, indices):
    figure = nb08.gallery(found, indices, "Mine")
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == len(indices)
    assert shown[0].get_title().startswith("cat 0.60")
    assert figure.alt_text.startswith("Mine with their tags: cat 0.60")
    assert ("no tag" in figure.alt_text) == (1 in indices)


@pytest.mark.parametrize("picture", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_the_explorer_shows_the_heat_and_the_scores(found, picture, name):
    figure = nb08.explore(picture, name, piaa=Fitted(), found=found)
    assert figure.axes[1].get_title().startswith(name)
    heat = figure.axes[1].images[0].get_array()
    np.testing.assert_array_equal(heat, Fitted().patch_scores(None)[NAMES.index(name)])
    widths = [bar.get_width() for bar in figure.axes[2].patches]
    assert widths == sorted(found.scores[picture], reverse=True)
    tags = ", ".join(found.tags[picture]) or "none"
    assert f"tags {tags};" in figure.alt_text
    (even,) = figure.axes[2].lines
    assert even.get_label() == "even share" and even.get_xdata()[0] == 1 / 5


def test_the_explorer_refuses_what_is_not_there(found):
    with pytest.raises(ValueError, match="no picture 3"):
        nb08.explore(3, "cat", piaa=Fitted(), found=found)
    with pytest.raises(ValueError, match="no class 'cow'"):
        nb08.explore(0, "cow", piaa=Fitted(), found=found)


def test_groups_go_from_the_surest_to_the_least_sure():
    unsure = np.array([0.9, 0.1, 0.5, 0.2])
    wrong, missing = np.array([4, 1, 3, 2]), np.array([0, 1, 1, 0])
    figure = nb08.look_figure(unsure, wrong, missing, groups=2)
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [0.5, 0.5, 1.5, 3.5]
    assert [bar.get_y() for bar in bars] == [0, 0, 0.5, 0.5], "stacked"
    assert "wrong 1.50, 3.50; missing 0.50, 0.50" in figure.alt_text
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["wrong", "missing"]


def test_a_message_is_wrapped_whole_and_names_the_file_alone(tmp_path):
    message = f"damaged: {tmp_path / 'mine.txt'} is " + "no text, " * 30
    lines = nb08.wrapped(message, tmp_path).splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 100
    assert " ".join(" ".join(lines).split()) == f"damaged: mine.txt is {'no text, ' * 30}".strip()


def test_the_top_of_a_sheet_has_the_first_pictures_and_no_headings(found):
    page = contact_sheet(Fitted(), found, first=[2])
    top = nb08.top_of_sheet(page, 2).data
    assert top.count("<article>") == 2 and top.index("<p>c</p>") < top.index("<p>a</p>")
    assert not re.search("<h[1-6]|<style|class=|<script", top)
    assert top.count("<img ") == top.count(' alt="') == 8


def test_strangeness_is_the_distance_to_the_nearest_known_picture():
    known = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), dim=-1)
    cls = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(nb08.strangeness(cls, known), [0, 1 - 0.5**0.5], atol=1e-6)


def test_crops_are_squares_inside_and_the_same_for_a_seed():
    picture = Image.fromarray(np.arange(60 * 90 * 3, dtype=np.uint8).reshape(60, 90, 3))
    pieces, again = nb08.crops([picture], 20), nb08.crops([picture], 20)
    assert len(pieces) == 20
    assert all(p.width == p.height and 30 <= p.width <= 60 for p in pieces)
    assert all(np.array_equal(a, b) for a, b in zip(pieces, again, strict=True))
    assert len({p.size for p in pieces}) > 5


def test_the_figure_of_strangeness_names_each_group():
    groups = {"photographs": np.array([0.5, 0.7]), "scenes": np.linspace(0.1, 0.4, 50)}
    figure = nb08.strange_figure(groups, limit=0.45)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(groups)
    assert "photographs: 0.50, 0.70;" in figure.alt_text
    assert figure.alt_text.endswith("A limit at 0.45.")
    drawn = {line.get_label(): line.get_xdata()[0] for line in figure.axes[0].lines}
    assert drawn["median"] == pytest.approx(0.25) and drawn["limit"] == 0.45
    assert sum(line.get_color() == "black" for line in figure.axes[0].lines) == 1
    assert "scenes: median 0.25" in figure.alt_text


# Exercises


def test_exercise_1():
    nb08.exercise_1(lambda u: F.normalize(F.normalize(u, dim=-1).mean(0), dim=-1))
    with pytest.raises(CheckFailed, match="Exercise 1"):
        nb08.exercise_1(lambda u: F.normalize(u.mean(0), dim=-1))  # long vectors outvote
    with pytest.raises(CheckFailed, match="Exercise 1"):
        nb08.exercise_1(lambda u: F.normalize(u, dim=-1).mean(0))
    with pytest.raises(CheckFailed, match="returned None"):
        nb08.exercise_1(lambda u: None)


def test_exercise_2():
    def right(scores, top, threshold):
        place = (-scores).argsort(axis=1, kind="stable").argsort(axis=1)
        return (place < top) & (scores >= threshold)

    def by_limit(scores, top, threshold):  # as right, where no scores are equal
        last = -np.sort(-scores, axis=1)[:, [min(top, scores.shape[1]) - 1]]
        return (scores >= last) & (scores >= threshold)

    nb08.exercise_2(right)
    nb08.exercise_2(by_limit)
    for wrong in (
        lambda s, top, t: s >= t,
        lambda s, top, t: right(s, top, 0),
        lambda s, top, t: right(s, top, t) & (s > t),
        lambda s, top, t: right(s, top + 1, t),
        lambda s, top, t: ((-s).argsort(axis=1) < top) & (s >= t),  # one argsort is no place
        lambda s, top, t: right(-s, top, -1) & (s >= t),
    ):
        with pytest.raises(CheckFailed, match="Exercise 2"):
            nb08.exercise_2(wrong)


def test_exercise_3():
    nb08.exercise_3(uncertainty)
    with pytest.raises(CheckFailed, match="Exercise 3"):
        nb08.exercise_3(lambda s: uncertainty(s) * np.log(s.shape[1]))
    with pytest.raises(CheckFailed, match="NaN"), np.errstate(all="ignore"):
        nb08.exercise_3(lambda s: -(s * np.log(s)).sum(1) / np.log(s.shape[1]))
    with pytest.raises(CheckFailed, match="Exercise 3"):
        nb08.exercise_3(lambda s: 1 - s.max(1))


@pytest.mark.parametrize("letter", ["a", "b", "d", "e"])
def test_exercise_4(letter):
    nb08.exercise_4("c")
    with pytest.raises(CheckFailed, match="Exercise 4"):
        nb08.exercise_4(letter)
