"""Notebook 01: its explorer, figures and helpers, and the checks of its exercises."""

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from piaa_utils.backbone import load_backbone
from piaa_utils.lessons import CheckFailed, Config, Features, nb01
from piaa_utils.plots import Figure


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture(scope="module")
def world():
    """Pictures and patches of 4 classes about their own means, texts elsewhere."""
    random = np.random.default_rng(0)
    means, text = unit(4, 12, seed=1), unit(4, 12, seed=2)
    labels = random.integers(0, 2, (30, 4))
    labels[:4] = np.eye(4)
    truth = random.integers(-1, 4, (30, 9))
    patches = F.normalize(means[np.maximum(truth, 0)] + 0.5 * unit(30, 9, 12, seed=3), dim=-1)
    cls = F.normalize(torch.tensor(labels).float() @ means + unit(30, 12, seed=4), dim=-1)
    return Features(cls, {"scclip": patches}, labels, truth), text


@pytest.fixture(scope="module")
def moves(world):
    x, text = world
    return nb01.move_text(x, text, text, scale=20.0, shifts=(-1.0, 0.0, 1.0, 2.0))


def test_moving_without_renormalising_changes_no_softmax_and_no_argmax(moves):
    assert np.ptp(moves.curves["[CLS]"]["softmax, not renormalised"]) < 1e-3
    assert np.ptp(moves.curves["patches"]["argmax, not renormalised"]) < 1e-3
    assert np.ptp(moves.curves["[CLS]"]["cosine"]) > 0.1
    assert moves.points["patches"].shape == (270, 2) and moves.texts["[CLS]"].shape == (4, 4, 2)


def test_moving_by_one_gap_brings_the_texts_to_the_pictures(moves):
    along = moves.texts["patches"].mean(1)[:, 0]
    assert (np.diff(along) > 0).all()


def test_each_kind_moves_along_its_own_gap(world, moves):
    x, text = world
    patches = x.patches["scclip"].flatten(0, 1)
    on_object = torch.as_tensor(x.truth).flatten() >= 0
    truth = torch.as_tensor(x.truth).flatten()[on_object]
    for shift, found in zip(moves.shifts, moves.curves["patches"]["argmax"], strict=True):
        moved = F.normalize(text + shift * (patches.mean(0) - text.mean(0)), dim=-1)
        right = (patches[on_object] @ moved.T).argmax(-1) == truth
        assert found == pytest.approx(100 * float(right.float().mean()), abs=1e-4)


@pytest.mark.parametrize("kind", nb01.KINDS)
@pytest.mark.parametrize("shift", [0.0, 1.0, 2])
def test_explorer_draws_each_setting(moves, kind, shift):
    figure = nb01.explore_moves(kind, shift, moves)
    assert isinstance(figure, Figure) and f"moved by {shift:g} of the gap" in figure.alt_text
    assert kind in figure.axes[1].get_title() and figure.get_figwidth() <= 13


def test_explorer_figure_follows_its_controls(moves):
    alts = {nb01.explore_moves(k, s, moves).alt_text for k in nb01.KINDS for s in (0.0, 1.0)}
    assert len(alts) == 4
    one, other = (nb01.explore_moves("patches", s, moves) for s in (0.0, 1.0))
    moved = [figure.axes[0].collections[2].get_offsets() for figure in (one, other)]
    assert not np.allclose(*moved)


def test_explorer_refuses_what_was_not_computed(moves):
    with pytest.raises(ValueError, match=r"kind is one of \[CLS\], patches, not 'words'"):
        nb01.explore_moves("words", 0.0, moves)
    with pytest.raises(ValueError, match="0.3 is none of them"):
        nb01.explore_moves("patches", 0.3, moves)


def test_loss_is_open_clips():
    x, t = unit(6, 5), unit(6, 5, seed=1)
    loss = open_clip.ClipLoss()(x, t, torch.tensor(30.0))
    torch.testing.assert_close(nb01.contrastive_loss(x, t, 30.0), loss)
    both = nb01.contrastive_loss(torch.stack([x, t]), torch.stack([t, x]), 30.0)
    torch.testing.assert_close(both, loss.expand(2))


def test_toy_closes_the_gap_at_a_small_scale_only():
    threads = torch.get_num_threads()
    table = nb01.train_free_pairs((1.0, 100.0), seeds=1, pairs=12, dim=12, steps=70)
    assert torch.get_num_threads() == threads
    assert sorted(table.step.unique()) == [0, 20, 40, 60, 70]
    gap = table.set_index(["scale", "step"]).gap
    assert gap[1.0, 0] == gap[100.0, 0]
    assert gap[1.0, 70] < 0.2 * gap[100.0, 70]
    assert table.found.between(0, 1).all()
    figure = nb01.toy_figure(table, table)
    assert "two cones: 1 0.0" in figure.alt_text
    assert figure.alt_text.count(f"{gap[1.0, 0]:.2f} at the start") == 2
    dotted = [line for line in figure.axes[1].lines if line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in dotted] == pytest.approx([gap[1.0, 0]] * 2)


def test_fresh_clip_has_the_shape_and_leaves_the_random_state_alone():
    tower = {"image_size": 96, "patch_size": 16, "layers": 2, "width": 64}
    text = {"context_length": 16, "width": 64, "heads": 1, "layers": 1}
    old = load_backbone(open_clip.CLIP(32, tower, text, quick_gelu=True), device="cpu")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fresh = nb01.fresh_clip(old, seed=1)
    assert torch.rand(1) == expected
    shapes = [{k: v.shape for k, v in b.model.state_dict().items()} for b in (old, fresh)]
    assert shapes[0] == shapes[1] and fresh.quick_gelu
    assert fresh.weights_hash == nb01.fresh_clip(old, seed=1).weights_hash
    assert fresh.weights_hash != nb01.fresh_clip(old, seed=2).weights_hash


def test_worlds_differ_in_texts_and_pairs():
    voc = Config("voc07", data_root="nowhere", device="cpu")
    names, templates = nb01.text_list(voc)
    assert len(names) == 20 and len(templates) > 3
    assert nb01.world_pairs(voc) == [("learn", "test")]
    assert len(nb01.world_pairs(Config(device="cpu"))) == 3


def test_nearest_uses_the_distance_it_is_given():
    x, m = np.array([[1.0, 0.4]]), np.array([[0.0, 0.0], [2.0, 1.0]])
    assert nb01.nearest(x, m).tolist() == [int(np.linalg.norm(x - m, axis=1).argmin())]
    # 1.0 is nearer to 0 than to 2.1; without the half of |m|^2, or with the whole, it is not so
    assert nb01.nearest(np.array([[1.0]]), np.array([[0.0], [2.1]])).tolist() == [0]
    assert nb01.nearest(np.array([[1.0]]), np.array([[0.0], [1.9]])).tolist() == [1]
    a = np.array([[3.0, 1.0], [1.0, 2.0]])
    by_hand = [(x[0] - row) @ a @ (x[0] - row) for row in m]
    assert nb01.nearest(x, m, a).tolist() == [int(np.argmin(by_hand))]


def test_object_patches_are_those_with_a_class(world):
    x, _ = world
    rows, truth = nb01.object_patches(x)
    assert len(rows) == len(truth) == (x.truth >= 0).sum() and rows.dtype == np.float64
    np.testing.assert_allclose(rows[0], x.patches["scclip"][tuple(np.argwhere(x.truth >= 0)[0])])


def test_figures_say_what_they_show(world, moves):
    x, text = world
    shows = torch.tensor(x.labels).bool()
    assert "two pictures" in nb01.cosine_figure(x.cls, text, shows, text).alt_text
    points = np.concatenate([np.zeros((5, 2)), np.ones((5, 2))])
    is_text = np.arange(10) > 4
    figure = nb01.clouds_figure(points, is_text, points, (0.5, 0.25))
    assert "0% of the points" in figure.alt_text
    decision = np.where(is_text, 1.0, -1.0)
    assert "0.0%" in nb01.line_figure(decision, is_text).alt_text
    decision[0] = 2.0
    assert "10.0%" in nb01.line_figure(decision, is_text).alt_text
    table = pd.DataFrame({"model": ["a", "a", "b"], "pairs": "p", "cosine": [0.2, 0.4, 0.9]})
    assert "a, p 0.30, b, p 0.90" in nb01.cones_figure(table).alt_text
    assert "unmoved" in nb01.moves_figure(moves).alt_text
    table = pd.DataFrame({"sets": "test\nlearn", "reader": ["text", "GDA"], "right": [50.0, 60.5]})
    figure = nb01.readers_figure(table)
    assert "test learn: text 50.0, GDA 60.5" in figure.alt_text
    assert [words.get_text() for words in figure.legends[0].get_texts()] == ["text", "GDA"]
    table = pd.DataFrame({"plain": [1.0, 2.0]}, index=["text", "means"])
    assert "means with plain 2.0" in nb01.recipe_figure(table, "Right").alt_text


def test_maps_figure_measures_inside_the_outline():
    mask = np.zeros((40, 60), dtype=bool)
    mask[:20, 10:30] = True  # the top left quarter of the middle square
    grid = np.zeros((1, 4, 4))
    grid[:, :2, :2] = 0.8
    maps = {"text": grid * 0, "GDA": torch.from_numpy(grid)}
    figure = nb01.maps_figure(Image.new("RGB", (60, 40), "grey"), ["cat"], maps, [mask])
    assert "cat, by text: 0.00; cat, by GDA: 0.80" in figure.alt_text


# Exercises


def test_exercise_1_takes_any_right_way(capsys):
    nb01.exercise_1(lambda a, b: (a.mean(0) - b.mean(0)).norm())
    nb01.exercise_1(lambda a, b: np.linalg.norm(a.numpy().mean(0) - b.numpy().mean(0)))

    def by_cosines(a, b):
        return float((a @ a.T).mean() + (b @ b.T).mean() - 2 * (a @ b.T).mean()) ** 0.5

    nb01.exercise_1(by_cosines)
    assert capsys.readouterr().out.count("✓ Exercise 1 is right.") == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda a, b: torch.cdist(a, b).mean(), "expected"),
        (lambda a, b: a.mean(0) - b.mean(0), "the shape is"),
        (lambda a, b: None, "returned None"),
        (0.5, "a function is wanted"),
    ],
)
def test_exercise_1_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        nb01.exercise_1(answer)


def test_exercise_3_takes_any_right_way(capsys):
    nb01.exercise_3(lambda text, gap, shift: F.normalize(text + shift * gap, dim=-1))

    def loop(text, gap, shift):
        moved = [np.asarray(row) + shift * np.asarray(gap) for row in text]
        return np.stack([row / np.linalg.norm(row) for row in moved])

    nb01.exercise_3(loop)
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(
    "answer",
    [
        lambda text, gap, shift: text + shift * gap,
        lambda text, gap, shift: F.normalize(text - shift * gap, dim=-1),
        lambda text, gap, shift: F.normalize(text + gap, dim=-1),
        lambda text, gap, shift: F.normalize(text + shift * gap, dim=0),
    ],
)
def test_exercise_3_shows_an_entry_that_is_wrong(answer):
    with pytest.raises(CheckFailed, match=r"Exercise 3, for the input .* entry .* expected"):
        nb01.exercise_3(answer)


@pytest.mark.parametrize(("check", "right"), [(nb01.exercise_2, "b"), (nb01.exercise_4, "C")])
def test_choices_take_the_right_letter_and_explain_the_others(check, right, capsys):
    check(right)
    assert "is right." in capsys.readouterr().out
    for letter in set("abcd") - {right.lower()}:
        with pytest.raises(CheckFailed, match=f"not {letter}\\. "):
            check(letter)
    with pytest.raises(CheckFailed, match="one of the letters a, b, c, d"):
        check("e")


def test_exercise_5_wants_the_largest_gain_of_a_class(capsys):
    truth = np.array([0, 0, 0, 0, 1, 1])
    by_text, by_oracle = np.array([0, 1, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    for answer in (50.0, torch.tensor(50.04), np.float32(49.97)):
        nb01.exercise_5(answer, truth, by_text, by_oracle)
    assert capsys.readouterr().out.count("✓") == 3
    for answer, message in ((0.5, "too small"), (75.0, "too large"), ("cat", "one number")):
        with pytest.raises(CheckFailed, match=message):
            nb01.exercise_5(answer, truth, by_text, by_oracle)
