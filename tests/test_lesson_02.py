"""Notebook 02: measures, the release's couplings, figures, the explorer, the exercises' checks."""

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from piaa_utils.backbone import load_backbone
from piaa_utils.encoders import run_trunk, scclip
from piaa_utils.lessons import Config, nb02
from piaa_utils.lessons.checks import CheckFailed
from piaa_utils.lessons.features import Features
from piaa_utils.plots import png_bytes


class Pictures:
    """Three pictures of 48 x 32; the last has no mask."""

    def __getitem__(self, index):
        return Image.new("RGB", (48, 32), (40 * index, 90, 120))

    def masks(self, index):
        if index == 2:
            raise FileNotFoundError("no mask")
        mask = np.full((32, 48), -1)
        mask[4:20, 12:30] = index
        return mask


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def shelf(rng):
    x = F.normalize(torch.randn(3, 16, 5, generator=rng), dim=-1)
    truth = np.full((3, 16), -1)
    truth[0, 5:9], truth[1, :3], truth[1, 3:8] = 0, 1, 2
    found = Features(x[:, 0], {"vanilla": x, "scclip": x.flip(0)}, np.eye(3), truth)
    config = Stub()
    return nb02.shelf(config, found, [0, 1, 2])


class Stub:
    """As much of a Config as a shelf needs."""

    class_names = ("sofa", "cat", "boat")
    text = torch.eye(3, 5)

    def dataset(self, split):
        return Pictures()


# Measures


def test_entanglement_is_that_of_all_pairs(rng):
    x = torch.randn(4, 9, 6, generator=rng) + 1
    truth = torch.randint(-3, 4, (4, 9), generator=rng)
    same, different = [], []
    for image, t in zip(F.normalize(x, dim=-1), truth, strict=True):
        for i in range(9):
            for j in range(i):
                if t[i] >= 0 and t[j] >= 0:
                    (same if t[i] == t[j] else different).append((image[i] @ image[j]).item())
    expected = np.mean(same), np.mean(different), np.mean(different) / np.mean(same)
    np.testing.assert_allclose(nb02.entanglement(x, truth), expected, rtol=1e-4)


def test_entanglement_needs_pairs_of_both_kinds():
    x = torch.eye(3)[None]
    for truth in ([1, 1, 1], [1, 2, 3], [-1, -1, 2]):
        with pytest.raises(ValueError, match="two patches of one class"):
            nb02.entanglement(x, torch.tensor([truth]))


def test_reading_by_hand():
    truth = torch.tensor([[0, 0, 1, -1], [2, 2, 2, -3]])
    predicted = torch.tensor([[0, 1, 1, 2], [2, 2, 0, 1]])
    row = nb02.reading(predicted, truth, 4)
    assert row["accuracy"] == pytest.approx(4 / 6)
    assert row["beyond the largest"] == 1
    assert row["classes a picture"] == 2
    assert row["mIoU"] == pytest.approx((1 / 3 + 1 / 2 + 2 / 3) / 3)


def test_pictures_are_chosen_by_rule():
    truth = np.array([[0] * 6 + [-1] * 6, [0] * 6 + [1] * 6, [0] * 7 + [1] * 5, [-3] * 12])
    assert nb02.crowded(truth, 4) == [1, 2, 0, 3]
    assert nb02.object_sizes(truth[2]) == {0: 7, 1: 5}
    assert nb02.class_mask(Pictures(), 1, 1).sum() == nb02.class_mask(Pictures(), 1).sum() == 288
    assert nb02.class_mask(Pictures(), 2) is None


# Couplings


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    vision = {"image_size": 96, "patch_size": 16, "layers": 12, "width": 128, "head_width": 64}
    text = {"context_length": 16, "width": 64, "heads": 1, "layers": 1}
    backbone = load_backbone(open_clip.CLIP(32, vision, text, quick_gelu=True), device="cpu")
    return backbone, torch.randn(3, 3, 96, 96)


def relative(one, other):
    return ((one - other).abs().max() / other.abs().max()).item()


@torch.no_grad()
def test_couplings_change_features_and_their_absence_does_not(tower):
    backbone, images = tower
    trunk = run_trunk(backbone, images)
    expected = scclip(backbone, trunk)
    assert relative(nb02.released_scclip(backbone, trunk, ()), expected) < 1e-4
    for name in nb02.COUPLINGS:
        assert relative(nb02.released_scclip(backbone, trunk, (name,)), expected) > 1e-3, name
    one = run_trunk(backbone, images[:1])
    assert relative(nb02.released_scclip(backbone, one), expected[:1]) < 1e-4
    first = nb02.released_scclip(backbone, trunk, ("outliers",))[:1]
    assert relative(first, expected[:1]) < 1e-4  # the first image has its own outliers
    with pytest.raises(ValueError, match="no coupling 'seed'"):
        nb02.released_scclip(backbone, trunk, ("seed",))


# Figures


def test_figures_have_alt_text_with_what_they_show(rng):
    data, rows = Pictures(), torch.rand(2, 16, generator=rng)
    figures = [
        nb02.attention_figure(data, 0, rows, [None, 5], ["[CLS]", "patch: cat"]),
        nb02.bars({"a": 0.25, "b": 0.5}, "share", ("evenly", 0.1)),
        nb02.bars({"a": 0.25}, "share"),
        nb02.depth_figure([(0.5, 0.1, 0.2), (0.8, 0.6, 0.75)]),
        nb02.encoders_figure({"vanilla": {"x": 0.2, "y": 0.1}, "z": {"x": 0.3, "y": np.nan}}, "xy"),
        nb02.outlier_figure(data, 2, rows[0], rows[1], rows[0] > 0.8, rows[1]),
        nb02.coupling_figure({"mean": torch.rand(4), "package": torch.zeros(4)}),
    ]
    said = [
        "[CLS] most to row",
        "evenly, 0.10",
        "a 0.25",
        "0.75",
        "z not defined",
        "crossed",
        "mean",
    ]
    for figure, words in zip(figures, said, strict=True):
        assert words in figure.alt_text and figure.get_figwidth() <= 13
        assert png_bytes(figure)[:4] == b"\x89PNG"


# The explorer


def test_explorer_menu_names_the_classes_of_a_picture(shelf):
    assert shelf.titles() == {"0: sofa": 0, "1: boat, cat": 1, "2: nothing of the list": 2}


def test_explorer_answers_for_every_setting(shelf):
    texts, pictures = set(), set()
    settings = [(0, "vanilla", 0), (0, "vanilla", 6), (0, "scclip", 6), (1, "scclip", 6)]
    for setting in [*settings, (2, "scclip", 15)]:
        figure = nb02.explore(*setting, shelf)
        texts.add(figure.alt_text)
        pictures.add(png_bytes(figure))
    assert len(texts) == len(pictures) == 5


def test_explorer_names_the_query_and_the_share_read_right(shelf):
    figure = nb02.explore(0, "vanilla", 6, shelf)
    right = (shelf.predicted["vanilla"][0][5:9] == 0).mean()
    assert "row 1, column 2, sofa" in figure.alt_text
    assert f"{100 * right:.0f} % of the object patches" in figure.alt_text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((7, "vanilla", 0), "Picture 7 is not on the shelf"),
        ((0, "magic", 0), "no encoder 'magic'"),
        ((0, "vanilla", 16), "no patch 16; there are 0 to 15"),
    ],
)
def test_explorer_refuses_a_bad_value_in_one_sentence(shelf, values, message):
    with pytest.raises(ValueError, match=message):
        nb02.explore(*values, shelf)


def test_a_shelf_of_the_mini_world():
    config = Config(device="cpu")
    found = Features(
        torch.zeros(2, 128),
        {"vanilla": F.normalize(torch.ones(2, 196, 128), dim=-1)},
        np.zeros((2, 20)),
        np.full((2, 196), -1),
    )
    ready = nb02.shelf(config, found, [1])
    assert ready.titles() == {"1: nothing of the list": 1}
    assert ready.masks[1].shape == ready.images[1].size[::-1]
    assert "nan" in nb02.explore(1, "vanilla", 3, ready).alt_text


# The exercises


def test_exercise_1(capsys):
    for answer in (
        torch.eye(5),
        np.eye(5, dtype=int),
        [[float(i == j) for i in range(5)] for j in range(5)],
    ):
        nb02.exercise_1(answer)
    assert "✓ Exercise 1 is right." in capsys.readouterr().out
    with pytest.raises(CheckFailed, match="shape is"):
        nb02.exercise_1(torch.eye(4))
    with pytest.raises(CheckFailed, match="expected 1"):
        nb02.exercise_1(torch.full((5, 5), 0.2))


def iou(predicted, truth, of_class):
    keep = truth >= 0
    read, there = predicted[keep] == of_class, truth[keep] == of_class
    return (read & there).sum() / (read | there).sum()


def iou_by_loop(predicted, truth, of_class):
    pairs = [(p, t) for p, t in zip(predicted.tolist(), truth.tolist(), strict=True) if t >= 0]
    both = sum(p == of_class and t == of_class for p, t in pairs)
    return both / sum(p == of_class or t == of_class for p, t in pairs)


def iou_with_background(predicted, truth, of_class):
    read, there = predicted == of_class, truth == of_class
    return (read & there).sum() / (read | there).sum()


def precision(predicted, truth, of_class):
    keep = truth >= 0
    read, there = predicted[keep] == of_class, truth[keep] == of_class
    return (read & there).sum() / read.sum()


def test_exercise_2():
    nb02.exercise_2(iou)
    nb02.exercise_2(iou_by_loop)
    nb02.exercise_2(lambda p, t, c: iou(p.numpy(), t.numpy(), c))
    for wrong, message in (
        (iou_with_background, "expected 0.5"),
        (precision, "expected 0.5"),
        (lambda p, t, c: None, "returned None"),
        (lambda p, t, c: p == t, "shape is"),
    ):
        with pytest.raises(CheckFailed, match=message):
            nb02.exercise_2(wrong)


def test_exercise_3():
    nb02.exercise_3("C")
    for letter, message in (
        ("a", "last digits"),
        ("b", "frozen"),
        ("d", "ranks"),
        ("e", "letters"),
    ):
        with pytest.raises(CheckFailed, match=message):
            nb02.exercise_3(letter)


def test_a_number_that_the_line_would_cross_stands_in_its_bar():
    figure = nb02.bars({"a": 0.15, "b": 0.5, "c": 0.01}, "share", ("evenly", 0.16))
    a, b, c = figure.axes[0].texts
    assert [t.get_ha() for t in (a, b, c)] == ["right", "left", "left"]


def test_exercise_4(capsys):
    nb02.exercise_4(sum(i // 12 == i % 128 for i in range(1536)) / 1536)
    assert "exactly 1/B" in capsys.readouterr().out
    nb02.exercise_4(torch.tensor(1 / 128))
    nb02.exercise_4(0.008)  # three decimals will do
    for wrong, message in (
        (12, "too large"),
        (1 / 12, "too large"),
        (0.0, "too small"),
        (1 / 1536, "too small"),
        ("few", "one number"),
    ):
        with pytest.raises(CheckFailed, match=message):
            nb02.exercise_4(wrong)
