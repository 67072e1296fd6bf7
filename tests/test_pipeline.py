"""The estimator: fit, predict, heat maps, save and load, and what it says to bad input."""

import json
from copy import copy

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import random_clip
from PIL import Image
from safetensors import safe_open
from sklearn.base import clone

from piaa_utils.aggregation import paa, posterior
from piaa_utils.backbone import load_backbone
from piaa_utils.classifier import Recipe
from piaa_utils.encoders import encode
from piaa_utils.images import UnreadableImage, open_image
from piaa_utils.pipeline import PIAA
from piaa_utils.selection import PatchBank
from piaa_utils.settings import PAPER, Calibration, Scales
from piaa_utils.vocabulary import Vocabulary

NAMES = ["cat", "dog", "person", "chair"]
SCALES = Scales(5.0, 300.0, 20.0, "this test")
# Few pictures do not show every class, and the estimator says so.
pytestmark = pytest.mark.filterwarnings("ignore:Stage I selected no patch")


@pytest.fixture(scope="module")
def fitted(tiny, noise):
    return PIAA(NAMES, tiny, recipe=Recipe(k=20), scales=SCALES, batch_size=3).fit(noise)


@pytest.fixture
def file(fitted, tmp_path):
    fitted.save(tmp_path / "pets.safetensors")
    return tmp_path / "pets.safetensors"


def test_fit_and_predict_are_the_paper_s_steps_one_after_the_other(fitted, tiny, noise):
    pixels = torch.stack([tiny.preprocess(open_image(path)) for path in noise])
    features, text = encode(tiny, pixels, ("scclip",)), tiny.encode_text(NAMES)
    bank = PatchBank(len(NAMES), 20)
    bank.update(features["scclip"], text, range(len(noise)))
    W, b, _ = Recipe(k=20).learn(bank, text)
    logits = features["scclip"] @ W + b
    expected = paa(logits, features["cls"], text, Scales(5, 300, 20), 0.1)
    scores = fitted.predict_proba(noise)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-3)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    maps = fitted.heat_maps(noise[0])
    assert maps.shape == (4, 6, 6)
    torch.testing.assert_close(maps.flatten(1), posterior(logits[0], 20.0).T, atol=1e-4, rtol=1e-3)
    other = clone(fitted).set_params(batch_size=8).fit(noise)
    np.testing.assert_allclose(other.predict_proba(noise), scores, atol=1e-4)
    np.testing.assert_allclose(fitted.predict_proba(noise[::-1])[::-1], scores, atol=1e-4)


def test_a_heat_map_s_rows_are_the_picture_s_rows(tiny, noise):
    """A bar of one row and three columns in the upper right changes those patches most."""
    grey = Image.new("RGB", (96, 96), "grey")
    bar = grey.copy()
    bar.paste("red", (48, 16, 96, 32))  # patches of row 1, columns 3 to 5
    piaa = PIAA(NAMES, tiny, "sclip", Recipe(k=20), SCALES).fit(noise)
    change = (piaa.heat_maps(bar) - piaa.heat_maps(grey)).abs().sum(0)
    most = change.flatten().topk(3).indices
    assert {(int(i) // 6, int(i) % 6) for i in most} == {(1, 3), (1, 4), (1, 5)}


def test_unreadable_images_are_named_and_keep_their_row(fitted, noise, tmp_path, tiny):
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    with pytest.warns(UserWarning, match=r"1 of 3 images.*broken\.jpg"):
        scores = fitted.predict_proba([noise[0], broken, noise[1]])
    assert np.isnan(scores).all(axis=1).tolist() == [False, True, False]
    assert [index for index, _, _ in fitted.skipped_] == [1]
    np.testing.assert_allclose(scores[[0, 2]], fitted.predict_proba(noise[:2]), atol=1e-5)
    with pytest.raises(UnreadableImage, match=r"broken\.jpg"):
        fitted.heat_maps(broken)
    with pytest.warns(UserWarning, match=r"1 of 3 images.*broken\.jpg"):
        piaa = PIAA(NAMES, tiny).fit([noise[0], broken, noise[1]])
    whole = PIAA(NAMES, tiny).fit(noise[:2])
    torch.testing.assert_close(piaa.coef_, whole.coef_, rtol=1e-3, atol=1e-3)


def test_scales_are_the_backbone_s_unless_they_are_given(fitted, noise):
    other = load_backbone(random_clip(), device="cpu")
    other.scales = Scales(7.0, 8.0, 9.0)
    assert PIAA(NAMES, other).fit(noise[:2]).scales_ == other.scales
    assert copy(fitted).set_params(scales=None).scales_ == PAPER["voc07"]
    assert copy(fitted).set_params(scales=PAPER["coco"]).scales_.m == 400


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["cat"]}, "two or more.*'cat'"),
        ({"classes": ["cat", "dog", "Cat"]}, "'Cat'"),
        ({"encoder": "clip"}, "No encoder is 'clip'"),
        ({"cls_weight": float("nan")}, "cls_weight must be"),
        ({"scales": Scales(0.0)}, "scale s must be a number above 0"),
        ({"scales": Scales(m=-1.0)}, "scale m must be"),
        ({"scales": Scales(T=float("nan"))}, "scale T must be"),
        ({"batch_size": 0}, "1 or more"),
    ],
)
def test_bad_settings_are_refused(settings, message, tiny, noise):
    with pytest.raises(ValueError, match=message):
        PIAA(**{"classes": NAMES, "backbone": tiny} | settings).fit(noise)


def test_no_fit_and_settings_changed_after_it_are_refused(fitted, tiny, noise):
    fresh, other = (PIAA(NAMES, tiny, recipe=Recipe(k=20)) for _ in range(2))
    other.fit(noise[:2]).set_params(classes=NAMES[::-1]).select(noise[:2])
    for piaa in (fresh, other):
        with pytest.raises(ValueError, match=r"call fit\(images\)"):
            piaa.predict_proba(noise)
    for change in ({"classes": NAMES[::-1]}, {"encoder": "sclip"}):
        changed = copy(fitted).set_params(**change)
        with pytest.raises(ValueError, match="changed after the classifier was learned"):
            changed.predict_proba(noise[:1])


def test_background_classes_compete_and_are_left_out(tiny, noise):
    settings = {"backbone": tiny, "recipe": Recipe(k=20), "scales": SCALES}
    plain = PIAA([*NAMES, "tree", "sun"], **settings).fit(noise)
    piaa = PIAA(Vocabulary(NAMES, background=["tree", "sun"]), **settings).fit(noise)
    scores = piaa.predict_proba(noise)
    assert scores.shape == (len(noise), len(NAMES)) and piaa.classes_ == tuple(NAMES)
    np.testing.assert_allclose(scores, plain.predict_proba(noise)[:, :4], atol=1e-6)
    assert (scores.sum(1) < 0.999).all(), "the background has a share"
    torch.testing.assert_close(piaa.heat_maps(noise[0]), plain.heat_maps(noise[0])[:4])


def test_a_saved_classifier_scores_the_same(fitted, file, noise, tiny):
    loaded = PIAA.load(file, NAMES, tiny, batch_size=2)
    told = loaded.recipe, loaded.scales_, loaded.classes_
    assert told == (fitted.recipe, SCALES, tuple(NAMES))
    assert loaded.report_ == json.loads(json.dumps(fitted.report_))
    scores = fitted.predict_proba(noise)
    np.testing.assert_allclose(loaded.predict_proba(noise), scores, atol=1e-5)
    assert PIAA.load(file, backbone=tiny, scales=PAPER["nus"]).scales_ == PAPER["nus"]
    assert list(file.parent.iterdir()) == [file]
    changed(file, lambda old: {name: x.half() for name, x in old.items()})
    half = PIAA.load(file, backbone=tiny).predict_proba(noise)
    np.testing.assert_allclose(half, scores, atol=0.05)


def test_other_words_or_another_order_are_refused(tiny, noise, tmp_path):
    words = Vocabulary(NAMES, {"cat": ["kitten"]}, ["tree"], ["{}", "my {}"])
    path = tmp_path / "c.safetensors"
    PIAA(words, tiny).fit(noise).save(path)
    for same in (words, NAMES, None):
        assert PIAA.load(path, same, tiny).vocabulary_ == words
    for other in (NAMES[::-1], NAMES[:2], Vocabulary(NAMES), Vocabulary(NAMES, {"cat": ["puss"]})):
        with pytest.raises(ValueError, match="other classes, words or another order.*cat, dog"):
            PIAA.load(path, other, tiny)


def test_another_backbone_is_refused(file):
    other = load_backbone(random_clip(), device="cpu")
    PIAA.load(file, backbone=other)  # the same weights
    other.calibration = Calibration(gain=2.0)
    quick = load_backbone(random_clip(), device="cpu")
    quick.quick_gelu = False  # as if GELU had silently taken its place
    for each in (load_backbone(random_clip(1), device="cpu"), other, quick):
        with pytest.raises(ValueError, match="learned with the backbone custom, and custom here"):
            PIAA.load(file, backbone=each)
    with pytest.raises(ValueError, match="backbone custom, which cannot be loaded by that name"):
        PIAA.load(file)


def changed(path, tensors=None, **description):
    """Write a saved classifier again with other tensors or another description."""
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
        old = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    about = json.loads(metadata["piaa"]) | description
    metadata["piaa"] = json.dumps(about) if description else metadata["piaa"]
    path.write_bytes(safetensors.torch.save(tensors(old) if tensors else old, metadata))
    return path


@pytest.mark.parametrize(
    ("tensors", "description", "message"),
    [
        (lambda old: {name: x.flip(0) for name, x in old.items()}, {}, "were changed"),
        (lambda old: {n: x.half().flip(0) for n, x in old.items()}, {}, "were changed"),
        (lambda old: old | {"coef": old["coef"] + 1e-6}, {}, "were changed"),
        (lambda old: old | {"coef": old["coef"] * torch.nan}, {}, "not finite"),
        (lambda old: {n: x[:2].clone() for n, x in old.items()}, {}, r"text is \[2, 32\]"),
        (lambda old: old | {"intercept": old["intercept"][:1] * 1}, {}, r"intercept is \[1\]"),
        (lambda old: {"coef": old["coef"]}, {}, "no classifier saved by PIAA.save"),
        (None, {"vocabulary": Vocabulary(NAMES[::-1]).to_dict()}, "description were changed"),
        (None, {"format": 2}, "format 2, not 3"),
    ],
)
def test_a_changed_file_is_refused(file, tiny, tensors, description, message):
    with pytest.raises(ValueError, match=f"pets.safetensors.*{message}"):
        PIAA.load(changed(file, tensors, **description), backbone=tiny)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved classifier.*pets"):
        PIAA.load(tmp_path / "pets")
    for data in (b"no tensors", safetensors.torch.save({"a": torch.ones(1)})):
        (tmp_path / "pets").write_bytes(data)
        with pytest.raises(ValueError, match="is no classifier saved by PIAA.save, or is damaged"):
            PIAA.load(tmp_path / "pets")
