"""What notebooks share: configuration, features, checks, explorers."""

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from piaa_utils.datasets import VOID, mini_scenes
from piaa_utils.encoders import encode
from piaa_utils.lessons import (
    CheckFailed,
    Config,
    bank,
    check_array,
    check_choice,
    check_function,
    check_number,
    explorer,
    features,
    versions,
)
from piaa_utils.lessons import features as features_function
from piaa_utils.lessons.features import patch_truth
from piaa_utils.plots import subplots
from piaa_utils.selection import PatchBank


@pytest.fixture
def config(monkeypatch, tmp_path):
    """The default on eight pictures, with a cache of its own."""
    import joblib

    from piaa_utils.lessons import config as config_module

    module = __import__("sys").modules[features_function.__module__]
    monkeypatch.setattr(module, "memory", lambda: joblib.Memory(tmp_path, verbose=0))
    monkeypatch.setattr(config_module, "FAST", {"learn": 8, "val": 8, "test": 8})
    return Config(device="cpu", fast=True)


# Configuration


def test_config_prints_what_it_is():
    text = str(Config(device="cpu"))
    assert "mini: 20 classes" in text and "1200 to learn from, 600 to measure on" in text
    assert "14 x 14 patches, QuickGELU" in text and "seed      0" in text


def test_config_refuses_an_unknown_world_and_missing_data():
    with pytest.raises(ValueError, match="no world 'cars'; there are mini, voc07, .*, coco, nus"):
        Config("cars")
    with pytest.raises(ValueError, match="needs data_root"):
        Config("voc07")


def test_config_seeds_all_generators():
    Config(seed=3)
    first = np.random.rand(), torch.rand(()).item()
    Config(seed=3)
    assert (np.random.rand(), torch.rand(()).item()) == first


def test_a_claim_fails_only_on_the_default(capsys):
    with pytest.raises(AssertionError, match="does not hold: 1 is above 2"):
        Config().claim(False, "1 is above 2")
    for other in (Config(fast=True), Config(seed=1), Config(pretrained="x")):
        other.claim(False, "1 is above 2")
    assert Config(backbone="mini", device="cpu").is_default
    assert "✗ not on this configuration: 1 is above 2" in capsys.readouterr().out


def test_voc_in_the_same_notebook(tmp_path, config):
    """A tree of VOC's layout, with the mini-CLIP in place of the real one."""
    source = mini_scenes("val")
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    for i, name in enumerate(("000001", "000002")):
        source[i].resize((300, 260)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(
            "<annotation><object><name>dog</name></object></annotation>"
        )
    Image.new("L", (300, 260), 12).save(tmp_path / "SegmentationClass/000001.png")  # all dog
    for split in ("trainval", "test"):
        (tmp_path / "ImageSets/Main" / f"{split}.txt").write_text("000001\n000002\n")
    voc = Config("voc07", data_root=str(tmp_path), backbone="mini", device="cpu")
    assert not voc.is_default and voc.constants["patch_scale"] == 200
    x = features(voc, "test")
    assert (x.truth[0] == voc.class_names.index("dog")).all() and (x.truth[1] == VOID).all()
    assert len(features(voc, "test_unseen").cls) == 2


# Features


def test_features_are_those_of_the_encoder(config):
    data, backbone = config.dataset("val"), config.backbone_
    x = features(config, "val")
    pixels = torch.stack([backbone.preprocess(data[i]) for i in range(8)])
    wanted = encode(backbone, pixels, "scclip")
    torch.testing.assert_close(x.cls, wanted["cls"], atol=1e-5, rtol=0)
    torch.testing.assert_close(x.patches["scclip"], wanted["scclip"], atol=1e-5, rtol=0)
    assert x.labels.shape == (8, 20) and x.truth.shape == (8, 196)


def test_features_come_from_the_cache_the_second_time(config, monkeypatch):
    first = features(config, "test", ("vanilla",))
    module = __import__("sys").modules[features_function.__module__]
    monkeypatch.setattr(module, "encode", None)  # would fail if it were called
    again = features(config, "test", ("scclip", "vanilla"))
    torch.testing.assert_close(again.patches["vanilla"], first.patches["vanilla"])
    assert set(again.patches) == {"scclip", "vanilla"} and set(first.patches) == {"vanilla"}


def test_the_cache_knows_all_that_features_depend_on(config, tmp_path):
    import open_clip

    from piaa_utils.backbone import load_backbone
    from piaa_utils.lessons.features import _key

    data = config.dataset("val")
    first = _key(config, data)
    assert _key(config, config.dataset("val")) == first
    assert _key(config, config.dataset("test")) != first
    tower = {"image_size": 96, "patch_size": 16, "layers": 12, "width": 64}
    text = {"context_length": 16, "width": 64, "heads": 1, "layers": 1}
    keys = set()
    state = None
    for quick in (True, False):
        model = open_clip.CLIP(32, tower, text, quick_gelu=quick)
        state = state or model.state_dict()
        model.load_state_dict(state)
        other = Config(device="cpu", fast=True)
        other.__dict__["backbone_"] = load_backbone(model, device="cpu")
        keys.add(_key(other, data))
    assert len(keys | {first}) == 3, "the activation counts, and so do the weights"
    (tmp_path / "SegmentationClass").mkdir()
    data.root = tmp_path  # no masks there
    without = _key(config, data)
    (tmp_path / "SegmentationClass" / f"{data.ids[0]}.png").write_bytes(b"mask")
    assert len({first, without, _key(config, data)}) == 3


def test_one_encoder_by_name_and_an_unknown_one(config):
    assert set(features(config, "val", "vanilla").patches) == {"vanilla"}
    with pytest.raises(ValueError, match="no encoder 'clip'; there are vanilla, maskclip"):
        features(config, "val", "clip")


def test_an_unreadable_picture_is_named(config, tmp_path, monkeypatch):
    data = config.dataset("val")
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    data.paths[3] = bad
    monkeypatch.setattr(Config, "dataset", lambda self, split: data)
    with (
        pytest.warns(UserWarning, match="bad.jpg"),
        pytest.raises(OSError, match="1 pictures of val cannot be read, first .*bad.jpg"),
    ):
        features(config, "val")


def test_bank_is_the_bank_of_the_features(config):
    x = features(config, "learn").patches["scclip"]
    wanted = PatchBank(20, per_image=1)
    wanted.update(x, config.text, range(8))
    made = bank(config)
    assert made.image_id.equal(wanted.image_id) and made.patch_index.equal(wanted.patch_index)


def test_bank_of_two_encoders(config):
    x = features(config, "learn", ("vanilla", "scclip")).patches
    made, plain = bank(config, encoder="vanilla", selector="scclip"), bank(config)
    assert made.image_id.equal(plain.image_id) and made.patch_index.equal(plain.patch_index)
    assert made.features.equal(x["vanilla"][plain.image_id, plain.patch_index])


def test_patch_truth_of_a_picture_that_is_no_square(config):
    class Data:
        def masks(self, _):
            mask = np.full((100, 300), 5)
            mask[:, :100] = 7  # outside the square in the middle
            return mask

    assert (patch_truth(Data(), 0, config.backbone_) == 5).all()


# Checks


def test_check_function_shows_the_input_that_differs():
    cases = [(np.array([1.0, 2.0]),), (np.array([1.0, -2.0]),)]
    check_function(lambda x: np.sqrt(x * x), np.abs, cases, "Exercise 1")
    with pytest.raises(
        CheckFailed, match=r"for the input \[1.0, -2.0\]: entry 1 is -2, expected 2"
    ):
        check_function(lambda x: x, np.abs, cases, "Exercise 1")
    with pytest.raises(CheckFailed, match="returned None"):
        check_function(lambda x: None, np.abs, cases, "Exercise 1")
    with pytest.raises(CheckFailed, match="a function is wanted, but this is 3"):
        check_function(3, np.abs, cases, "Exercise 1")


def test_check_function_cannot_be_cheated_by_changing_the_input():
    def spoils(x):
        x *= 0
        return x

    case = torch.ones(2)
    with pytest.raises(CheckFailed):
        check_function(spoils, lambda x: 2 * x, [(case,)], "Exercise 1")
    assert case.sum() == 2


def test_check_function_of_several_results():
    def right(x):
        return x.min(), x.max()

    cases = [(torch.tensor([1.0, 3.0]),)]
    check_function(lambda x: (1, np.float32(3)), right, cases, "Exercise 2")
    check_function(lambda x: [1, 3], right, cases, "Exercise 2")
    with pytest.raises(CheckFailed, match="value 1 of the result: the result is 1, expected 3"):
        check_function(lambda x: (x.min(), x.min()), right, cases, "Exercise 2")
    with pytest.raises(CheckFailed, match="2 values are wanted, not 1"):
        check_function(lambda x: 1, right, cases, "Exercise 2")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([0.5, 0.5, 0.0], r"the shape is \[3\], expected \[2\]"),
        ([np.nan, 0.5], "NaN or infinite"),
        ("half", "numbers are wanted, but this is 'half'"),
        ([0.5, 0.6], "entry 1 is 0.6, expected 0.5"),
    ],
)
def test_check_array_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        check_array(answer, [0.5, 0.5], "Exercise 3")


def test_check_array_takes_any_kind_of_number():
    ones = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    check_array(ones, [1, 1], "Exercise 3")
    with pytest.raises(CheckFailed, match=r"entry 0 is 1, expected 2"):
        check_array(ones, [2, 2], "Exercise 3")
    with pytest.raises(CheckFailed, match=r"numbers are wanted, but this is \['a'\]"):
        check_array(np.array(["a"]), [1], "Exercise 3")
    with pytest.raises(CheckFailed, match=r"one number is wanted, but this is \[1.0, 1.0\]"):
        check_number(ones, 1, "Exercise 3")
    check_array(torch.tensor([1, 2]), np.array([1.0, 2.0]), "Exercise 3")
    with pytest.raises(CheckFailed, match=r"entry \(1, 0\) is 0, expected 1"):
        check_array(np.zeros((2, 2)), np.array([[0, 0], [1, 0]]), "Exercise 3")


def test_check_number():
    check_number(torch.tensor(0.5), 0.5004, "Exercise 4")
    with pytest.raises(CheckFailed, match="0.4 is too small. Divide by C."):
        check_number(0.4, 0.5, "Exercise 4", hint="Divide by C.")
    with pytest.raises(CheckFailed, match="too large"):
        check_number(0.6, 0.5, "Exercise 4")
    with pytest.raises(CheckFailed, match="not a number"):
        check_number(float("nan"), 0.5, "Exercise 4")
    with pytest.raises(CheckFailed, match="one number is wanted, but this is an array of shape"):
        check_number(np.zeros(20), 0.5, "Exercise 4")


def test_check_choice():
    arguments = ("b", {"a": "It is not."}, "Exercise 5", "It is.")
    for right in (" B ", "b)", "(b)", "**b**"):
        check_choice(right, *arguments)
    with pytest.raises(CheckFailed, match="not a. It is not."):
        check_choice("a", *arguments)
    with pytest.raises(CheckFailed, match="one of the letters a, b, not 'x'"):
        check_choice("x", *arguments)
    with pytest.raises(CheckFailed, match="not Ellipsis"):
        check_choice(..., *arguments)


# Explorer


def test_explorer_calls_back_with_what_was_chosen():
    seen = []

    def callback(k, how):
        seen.append((k, how))
        return subplots(alt_text=f"{k} {how}")[0]

    box = explorer(callback, k=[1, 2, 5], how=["max", "mean"])
    k, how = box.children[:2]
    assert (k.description, how.options) == ("k", ("max", "mean"))
    k.value, how.value = 5, "mean"
    assert seen == [(1, "max"), (5, "max"), (5, "mean")]


def test_explorer_shows_the_figure_at_first_and_after_each_change():
    box = explorer(lambda k: subplots(alt_text=f"<{k}> is shown")[0], k=[1, 2, 5])
    slider, picture = box.children
    first = picture.value
    assert 'alt="&lt;1&gt; is shown"' in first and "data:image/png;base64,iVBOR" in first
    slider.value = 5
    assert 'alt="&lt;5&gt; is shown"' in picture.value and picture.value != first


def test_explorer_fails_at_the_start_and_says_later_what_went_wrong():
    def callback(k):
        if k:
            raise ValueError("k < 1, please")
        return subplots(alt_text="nothing")[0]

    with pytest.raises(ValueError, match="please"):
        explorer(callback, k=[1, 0])
    slider, picture = explorer(callback, k=[0, 1]).children
    slider.value = 1
    assert picture.value == "<pre>ValueError: k &lt; 1, please</pre>"


def test_explorer_starts_where_it_is_told_and_takes_words_for_values():
    seen = []

    def callback(k):
        seen.append(k)
        return subplots(alt_text=f"{k}")[0]

    slider = explorer(callback, {"k": 2}, k=range(3)).children[0]
    assert seen == [2] and slider.options == (0, 1, 2)
    box = explorer(lambda i: subplots(alt_text=str(i))[0], i={"7: cat": 7, "3: dog": 3})
    menu, picture = box.children
    assert (menu.value, menu.label) == (7, "7: cat")
    menu.label = "3: dog"
    assert 'alt="3"' in picture.value


def test_explorer_needs_values():
    with pytest.raises(ValueError, match="control 'k' has no values"):
        explorer(lambda k: None, k=[])


def test_versions_names_torch():
    assert f"torch {torch.__version__.split('+')[0]}" in versions()


def test_of_a_failed_check_jupyter_shows_the_message_and_the_students_own_lines(monkeypatch):
    def students(x):
        return x[7]

    def solution(x):
        return sum(x)

    shell = InteractiveShell()
    with pytest.raises(CheckFailed, match="raised IndexError: list index out of range") as caught:
        check_function(students, solution, [([1],)], "Exercise 1")
    shown = []
    monkeypatch.setattr(shell, "_showtraceback", lambda kind, value, lines: shown.extend(lines))
    shell.showtraceback((caught.type, caught.value, caught.tb))
    shown = "\n".join(shown)
    assert "return x[7]" in shown and shown.endswith("list index out of range")
    assert "reference" not in shown and "deepcopy" not in shown
