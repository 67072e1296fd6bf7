"""Notebook 03: what its module measures, its figures, its explorer and its exercises' checks."""

import numpy as np
import pytest
import torch

from piaa_utils.lessons import CheckFailed, nb03
from piaa_utils.plots import display_metadata, png_bytes
from piaa_utils.selection import PatchBank, entropy, patch_probabilities

CLASSES = ("cat", "dog", "cow")


class Pictures:
    """Four pictures with masks, but for the last, which has none, of 2 x 2 patches."""

    class_names = CLASSES
    ids = paths = ()

    def __init__(self, folder):
        from PIL import Image

        rng = np.random.default_rng(0)
        self.paths = [folder / f"{i}.png" for i in range(4)]
        for path in self.paths:
            Image.fromarray(rng.integers(0, 255, (28, 28, 3), dtype=np.uint8)).save(path)
        self.labels = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]], dtype=np.int8)

    def __len__(self):
        return len(self.paths)

    def masks(self, index):
        if index == 3:
            raise FileNotFoundError("no mask")
        mask = np.full((28, 28), -1)
        mask[:14] = index % 3
        return mask


@pytest.fixture
def world(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(4, 4, 6, generator=generator), dim=-1)
    text = torch.eye(6)[:3]
    truth = np.array([[0, 0, -1, -1], [1, 1, -1, -3], [2, 2, -1, -1], [-2, -2, -2, -2]])
    banks = {}
    for what, limit in (("no limit", None), ("one a picture", 1)):
        banks[what] = PatchBank(3, k=8, per_image=limit)
        banks[what].update(x, text, range(4))
    return Pictures(tmp_path), x, text, truth, banks


def shows_itself(figure):
    assert len(display_metadata(figure)["image/png"]["alt"]) > 40
    assert figure.alt_text.endswith(".") and figure.get_figwidth() <= 13  # inches, at 100 dpi
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_purity_and_pictures_of_classes_are_those_of_a_loop(world):
    _, _, _, truth, banks = world
    for bank in banks.values():
        for k in (1, 2, None):
            purity = nb03.purity_of_classes(bank, truth, k)
            pictures = nb03.pictures_of_classes(bank, k)
            for c in range(3):
                rows = (bank.labels == c).nonzero().flatten().tolist()[:k]
                where = [(int(bank.image_id[r]), int(bank.patch_index[r])) for r in rows]
                known = [truth[w] == c for w in where if truth[w] != -2]
                np.testing.assert_allclose(purity[c], np.mean(known) if known else np.nan)
                assert pictures[c] == len({i for i, _ in where})


def test_a_bank_equals_itself_and_not_another(world):
    _, x, text, _, banks = world
    bank, other = banks.values()
    assert nb03.same_bank(bank, bank) and not nb03.same_bank(bank, other)
    assert nb03.bank_bytes(bank) == len(bank) * (4 * 6 + 4 * 3 + 36)


def test_mean_cosine_of_one_row_is_not_a_number():
    assert np.isnan(nb03.mean_cosine(torch.eye(3)[:1]))


def test_the_explorer_answers_for_each_class_and_k(world):
    data, _, _, truth, banks = world
    seen = set()
    for name in CLASSES:
        for k in (1, 8):
            figure = nb03.explore(name, k, data, banks, truth)
            assert name in figure.alt_text
            seen.add(figure.alt_text)
    assert len(seen) == 6
    shows_itself(figure)


def test_the_explorer_shows_an_empty_class_and_unknown_purity(world):
    data, x, _, truth, _ = world
    empty = {"empty": PatchBank(3)}
    assert "0 patches of 0 pictures, purity unknown" in (
        nb03.explore("cow", 8, data, empty, truth).alt_text
    )


@pytest.mark.parametrize(("name", "k", "word"), [("yak", 8, "yak"), ("cat", 0, "at least 1")])
def test_the_explorer_refuses_a_bad_value_in_one_sentence(world, name, k, word):
    data, _, _, truth, banks = world
    with pytest.raises(ValueError, match=word) as caught:
        nb03.explore(name, k, data, banks, truth)
    assert "\n" not in str(caught.value)


def test_the_entropy_figure_takes_pictures_with_and_without_a_mask(world):
    data, x, text, _, _ = world
    p = patch_probabilities(x, text)
    figure = nb03.entropy_figure(
        data, {"a": 1, "nothing in it": 2, "no mask": 3}, p.argmax(-1), entropy(p)
    )
    shows_itself(figure)
    assert "dog, cow" in figure.alt_text and "no class of the list" in figure.alt_text


def test_figures_say_their_numbers():
    y = np.linspace(0.9, 0.1, 10)
    figure = nb03.deciles_figure(y, {"right": y}, {"right": 0.5})
    shows_itself(figure)
    assert "90%" in figure.alt_text and "50% of all" in figure.alt_text

    figure = nb03.composition_figure([[0.5, 0.1, 0.4, 0.0]] * 5, list("12345"), "decile")
    shows_itself(figure)
    assert figure.alt_text.count("50% the class it names") == 2  # the first and the last

    figure = nb03.purity_figure((8, 16), {"bank": [0.5, 0.25]}, {"bank": [1.0, 3.0]})
    shows_itself(figure)
    assert "25% at K = 16" in figure.alt_text

    figure = nb03.temperature_figure((1, 60), [0.1, 0.2], [2.0, 0.5], {"margin": [0.3, 0.9]})
    shows_itself(figure)
    assert "margin from 0.30 to 0.90" in figure.alt_text

    figure = nb03.memory_figure([0, 64], [0, 1_000_000], [0, 9_000_000])
    shows_itself(figure)
    assert "9 MB" in figure.alt_text


def test_the_figure_of_classes_knows_who_starves_and_bears_unknown_purity():
    purity = {"bank": [0.2, 0.8, np.nan], "other": [np.nan] * 3}
    figure = nb03.classes_figure(CLASSES, [5, 6, 7], [4, 2, 9], purity)
    shows_itself(figure)
    assert "fewest dog (2; 6 pictures" in figure.alt_text and "cat (20%)" in figure.alt_text


# Exercises --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        lambda p: entropy(p).exp(),
        lambda p: np.exp(
            -np.sum([np.where(c > 0, c * np.log(c + 1e-300), 0) for c in _columns(p)], 0)
        ),
    ],
)
def test_exercise_1_passes(answer, capsys):
    nb03.exercise_1(answer)
    assert "Exercise 1 is right" in capsys.readouterr().out


def _columns(p):
    return np.moveaxis(p.double().numpy(), -1, 0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda p: (-(p * p.log()).sum(-1)).exp(), "NaN"),
        (lambda p: entropy(p), "expected 4"),
        (lambda p: entropy(p).exp().sum(), "shape"),
        (lambda p: (-torch.xlogy(p, p).sum(1)).exp(), "shape"),
        (4.0, "a function is wanted"),
    ],
)
def test_exercise_1_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        nb03.exercise_1(answer)


def _purity_by_loop(entropies, right):
    pairs = sorted(zip(entropies.tolist(), right.tolist(), strict=True))
    return [sum(r for _, r in pairs[:k]) / k for k in range(1, len(pairs) + 1)]


@pytest.mark.parametrize("answer", [nb03.purity_curve, _purity_by_loop])
def test_exercise_2_passes(answer, capsys):
    nb03.exercise_2(answer)
    assert "Exercise 2 is right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h, r: r.float().cumsum(0) / torch.arange(1, len(r) + 1), "expected 1"),
        (lambda h, r: r[h.argsort()].float().cumsum(0) / len(r), "expected 1"),
        (lambda h, r: r.float().mean(), "shape"),
    ],
)
def test_exercise_2_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        nb03.exercise_2(answer)


def _first_by_groups(entropies, image_ids, m):
    keep = []
    for i in image_ids.unique():
        rows = (image_ids == i).nonzero().flatten()
        keep += rows[entropies[rows].argsort()[:m]].tolist()
    return sorted(keep, key=lambda r: float(entropies[r]))


@pytest.mark.parametrize("answer", [nb03.first_of_each_picture, _first_by_groups])
def test_exercise_3_passes(answer, capsys):
    nb03.exercise_3(answer)
    assert "Exercise 3 is right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h, i, m: sorted(_first_by_groups(h, i, m)), "entry 0"),
        (lambda h, i, m: h.argsort()[:m], "shape"),
        (lambda h, i, m: None, "return"),
    ],
)
def test_exercise_3_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        nb03.exercise_3(answer)


def test_exercise_4_knows_too_small_from_too_large(capsys):
    named = torch.randint(3, (10, 16), generator=torch.Generator().manual_seed(0))
    right = nb03.smallest_limit(named, 3, 20)
    assert 1 < right < 16
    nb03.exercise_4(torch.tensor(right), named, 3, 20)
    nb03.exercise_4(float(right), named.numpy(), 3, 20)
    assert capsys.readouterr().out.count("Exercise 4 is right") == 2
    for answer, message in ((right - 1, "too small"), (right + 1, "too large"), ("2", "number")):
        with pytest.raises(CheckFailed, match=message):
            nb03.exercise_4(answer, named, 3, 20)
    with pytest.raises(CheckFailed, match="number"):
        nb03.exercise_4([right, right], named, 3, 20)


def test_exercise_5_gives_reasons(capsys):
    nb03.exercise_5("B")
    assert "largest stays" in capsys.readouterr().out
    for letter, word in (("a", "margin"), ("c", "sharpens"), ("d", "share p"), ("e", "letters")):
        with pytest.raises(CheckFailed, match=word):
            nb03.exercise_5(letter)
