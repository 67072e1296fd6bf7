"""The estimator: fit, predict, heat maps, save and load, and what it says to bad input."""

import errno
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from piaa_utils.aggregation import paa
from piaa_utils.backbone import load_backbone
from piaa_utils.constants import CONSTANTS
from piaa_utils.datasets import mini_long_classes, mini_scenes
from piaa_utils.encoders import encode
from piaa_utils.images import UnreadableImage
from piaa_utils.pipeline import PIAA
from piaa_utils.purification import learn_classifier
from piaa_utils.selection import PatchBank

NAMES = ["cat", "dog", "person", "chair"]
# Few pictures do not show every class, and the estimator says so.
pytestmark = pytest.mark.filterwarnings("default:Stage I selected no patch")


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(device="cpu")


@pytest.fixture(scope="module")
def paths():
    return mini_scenes("val").paths[:10]


@pytest.fixture(scope="module")
def fitted(backbone, paths):
    return PIAA(NAMES, backbone=backbone, n_select=40, batch_size=4).fit(paths)


def test_fit_and_predict_are_the_paper_s_steps_one_after_the_other(fitted, backbone, paths):
    pixels = torch.stack([backbone.preprocess(Image.open(p).convert("RGB")) for p in paths])
    features = encode(backbone, pixels, "scclip")
    text = backbone.encode_text(NAMES)
    bank = PatchBank(len(NAMES), 40, per_image=1)
    bank.update(features["scclip"], text, range(len(paths)))
    W, b, _ = learn_classifier(bank, text, "spread")
    expected = paa(features["scclip"] @ W + b, features["cls"], text, 5.0, 1000.0)
    scores = fitted.predict_proba(paths)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)


def test_one_encoder_selects_and_another_is_learned(backbone, paths, tmp_path):
    pixels = torch.stack([backbone.preprocess(Image.open(p).convert("RGB")) for p in paths])
    features = encode(backbone, pixels, ("vanilla", "scclip"))
    text = backbone.encode_text(NAMES)
    bank = PatchBank(len(NAMES), 40, per_image=1)
    bank.update(features["scclip"], text, range(len(paths)), features["vanilla"])
    W, b, _ = learn_classifier(bank, text, "spread")
    expected = paa(features["vanilla"] @ W + b, features["cls"], text, 5.0, 1000.0)
    two = PIAA(NAMES, backbone, encoder="vanilla", selector="scclip", n_select=40).fit(paths)
    np.testing.assert_allclose(two.predict_proba(paths), expected.numpy(), atol=1e-4)
    two.save(tmp_path / "two.safetensors")
    again = PIAA.load(tmp_path / "two.safetensors", backbone=backbone)
    assert again.selector == "scclip"
    np.testing.assert_allclose(again.predict_proba(paths), expected.numpy(), atol=1e-4)


def test_scores_do_not_depend_on_batch_or_order(fitted, paths):
    scores = fitted.predict_proba(paths)
    other = clone(fitted).set_params(batch_size=3).fit(paths)
    np.testing.assert_allclose(other.predict_proba(paths), scores, atol=1e-4)
    np.testing.assert_allclose(fitted.predict_proba(paths[::-1])[::-1], scores, atol=1e-4)


def test_paths_pictures_and_datasets_are_the_same_to_it(fitted, paths):
    scores = fitted.predict_proba(paths[:3])
    pictures = [Image.open(p) for p in paths[:3]]
    np.testing.assert_allclose(fitted.predict_proba(pictures), scores, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(mini_scenes("val"))[:3], scores, atol=1e-4)


def test_the_readme_s_lines_run(backbone, tmp_path, monkeypatch):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    few = {split: mini_scenes(split).paths[:6] for split in ("learn", "test")}
    code = code.replace('mini_scenes("test").paths[0]', 'mini_scenes("test")[0]')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("piaa_utils.datasets.mini_scenes", few.get)
    names: dict = {}
    exec(code, names)
    assert names["scores"].shape == (6, 5) and names["maps"].shape == (5, 14, 14)
    assert (tmp_path / "five-classes.safetensors").is_file()


def test_the_paper_s_constants_are_settings_of_the_estimator(backbone):
    piaa = PIAA(NAMES, backbone=backbone, purify="released", **CONSTANTS["coco"])
    settings = piaa.get_params()
    assert (settings["cls_scale"], settings["patch_scale"]) == (80, 400)
    assert settings["purify_temperature"] == 0.01


def test_merged_banks_give_the_classifier_of_one_pass(fitted, paths, backbone):
    left, right = (PIAA(NAMES, backbone=backbone, n_select=40) for _ in range(2))
    first = left.select(paths[:5])
    second = right.select(paths[5:], first_id=5)
    merged = PIAA(NAMES, backbone=backbone, n_select=40).fit_bank(first.merge(second))
    np.testing.assert_allclose(merged.coef_, fitted.coef_, atol=1e-3 * float(fitted.coef_.max()))


def test_heat_maps_are_the_patches_probabilities(fitted, paths, backbone):
    maps = fitted.patch_scores(paths[0])
    assert maps.shape == (4, 14, 14)
    torch.testing.assert_close(maps.sum(0), torch.ones(14, 14))
    pixels = backbone.preprocess(Image.open(paths[0]))[None]
    patches = encode(backbone, pixels, "scclip")["scclip"][0]
    best = fitted.decision_function(patches).argmax(-1).view(14, 14)
    assert torch.equal(maps.argmax(0), best)


def test_it_is_cloned_and_printed_like_any_estimator(fitted):
    copy = clone(fitted)
    assert copy.get_params()["n_select"] == 40 and not hasattr(copy, "coef_")
    assert "n_select=40" in repr(PIAA(NAMES, n_select=40))


def test_unreadable_images_are_named_and_keep_their_row(fitted, paths, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    with pytest.warns(UserWarning, match="1 of 3 images.*broken.jpg"):
        scores = fitted.predict_proba([paths[0], broken, paths[1]])
    assert np.isnan(scores).all(axis=1).tolist() == [False, True, False]
    assert [index for index, _, _ in fitted.skipped_] == [1]
    np.testing.assert_allclose(scores[[0, 2]], fitted.predict_proba(paths[:2]), atol=1e-5)
    with pytest.raises(UnreadableImage, match="broken.jpg"):
        fitted.patch_scores(broken)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "is empty"),
        (["cat"], "two or more.*'cat'"),
        (["cat", "dog", "cat"], "cat"),
        (["cat", "  "], "empty"),
        ("cat", "list"),
    ],
)
def test_bad_class_names_are_refused(names, message, backbone, paths):
    with pytest.raises(ValueError, match=message):
        PIAA(names, backbone=backbone).fit(paths)


def test_no_images_and_no_fit_are_refused(backbone, tmp_path, paths):
    with pytest.raises(ValueError, match="no images in the folder"):
        PIAA(NAMES, backbone=backbone).fit(tmp_path)
    with pytest.raises(ValueError, match=r"call fit\(images\)"):
        PIAA(NAMES, backbone=backbone).predict_proba(paths)


def test_more_patches_asked_for_than_there_are(backbone, paths):
    piaa = PIAA(NAMES, backbone=backbone, n_select=10**6, purify=None).fit(paths[:2])
    assert sum(piaa.report_["selected"]) == 2 * 196


def test_unreadable_images_are_left_out_of_fit_and_named(backbone, paths, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.warns(UserWarning, match="1 of 4 images.*broken.png"):
        piaa = PIAA(NAMES, backbone=backbone, purify=None).fit(
            [*paths[:3], tmp_path / "broken.png"]
        )
    whole = PIAA(NAMES, backbone=backbone, purify=None).fit(paths[:3])
    assert torch.equal(piaa.coef_, whole.coef_) and [i for i, _, _ in piaa.skipped_] == [3]


def test_features_that_are_not_finite_name_the_image(backbone, paths):
    broken = load_backbone(backbone.model, device="cpu")
    broken.model.visual.ln_post.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match=f"features of .*{paths[0].name} are not finite"):
        PIAA(NAMES, backbone=broken).fit(paths[:2])


def test_settings_changed_after_fit_are_refused(backbone, paths):
    piaa = PIAA(NAMES, backbone=backbone, purify=None).fit(paths[:2])
    for change in ({"class_names": NAMES[::-1]}, {"encoder": "sclip"}):
        with pytest.raises(ValueError, match="changed after the classifier was learned"):
            clone_of(piaa).set_params(**change).predict_proba(paths[:1])


def clone_of(piaa):
    """A fitted copy."""
    import copy

    return copy.copy(piaa)


def test_a_class_that_no_patch_is_taken_for_falls_back_on_its_text(backbone, paths):
    names = mini_long_classes()
    with pytest.warns(UserWarning, match="Stage I selected no patch for .*text feature stands in"):
        piaa = PIAA(names, backbone=backbone, purify=None).fit(paths[:1])
    missing = piaa.report_["text_fallback"]
    assert missing == [c for c, n in enumerate(piaa.report_["selected"]) if n == 0] != []
    assert np.isfinite(piaa.predict_proba(paths[:2])).all()


# Synonyms, templates, background


def test_the_text_of_a_class_is_the_mean_over_names_and_templates(backbone):
    templates = ["a photo of a {}", "a drawing of a {}"]
    text = backbone.encode_text(["cat", "sofa"], templates, {"sofa": ["couch", "settee"]})
    units = [
        backbone.encode_text([n], [t])[0] for n in ("sofa", "couch", "settee") for t in templates
    ]
    expected = torch.nn.functional.normalize(torch.stack(units).mean(0), dim=-1)
    torch.testing.assert_close(text[1], expected)
    torch.testing.assert_close(text[0], backbone.encode_text(["cat"], templates)[0])


def test_background_classes_compete_and_are_left_out(backbone, paths):
    settings = {"backbone": backbone, "n_select": 20}
    plain = PIAA([*NAMES, "tree", "sun"], **settings).fit(paths)
    piaa = PIAA(NAMES, background=["tree", "sun"], **settings).fit(paths)
    expected = plain.predict_proba(paths)[:, : len(NAMES)]
    scores = piaa.predict_proba(paths)
    assert scores.shape == (len(paths), len(NAMES))
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert (scores.sum(1) < 0.999).all(), "the background has a share"
    torch.testing.assert_close(piaa.patch_scores(paths[0]), plain.patch_scores(paths[0])[:4])


def test_one_class_and_a_background_are_enough(backbone, paths):
    piaa = PIAA(["cat"], backbone, n_select=20, background=["dog"], synonyms={"cat": ["kitten"]})
    assert piaa.fit(paths).predict_proba(paths).shape == (len(paths), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"background": ["cat"]}, "'cat' twice"),
        ({"background": "tree"}, "background must be a list"),
        ({"background": [" "]}, "non-empty"),
        ({"synonyms": {"sofa": ["couch"]}}, "'sofa', which is no class"),
        ({"synonyms": {"cat": "kitten"}}, "must be a list"),
        ({"synonyms": {"cat": [""]}}, "non-empty"),
        ({"synonyms": {"cat": ["dog"]}}, "'dog' twice"),
        ({"templates": ["a photo"]}, "needs {}"),
    ],
)
def test_bad_words_are_refused(settings, message, backbone, paths):
    with pytest.raises(ValueError, match=message):
        PIAA(NAMES, backbone=backbone, **settings).fit(paths)


def test_words_changed_after_fit_are_refused(backbone, paths):
    piaa = PIAA(NAMES, backbone, n_select=20, purify=None).fit(paths)
    for change in ({"background": ["sky"]}, {"synonyms": {"cat": ["cow"]}}, {"templates": ["{}"]}):
        with pytest.raises(ValueError, match="changed after the classifier was learned"):
            clone_of(piaa).set_params(**change).predict_proba(paths[:1])


WORDS = {"background": ("tree",), "synonyms": {"cat": ("kitten",)}, "templates": ("{}", "my {}")}


def test_a_saved_classifier_keeps_its_words_and_refuses_others(backbone, paths, tmp_path):
    piaa = PIAA(NAMES, backbone, n_select=20, purify=None, **WORDS).fit(paths)
    piaa.save(tmp_path / "c.safetensors")
    scores = piaa.predict_proba(paths[:3])
    for expected in ({}, WORDS):
        again = PIAA.load(tmp_path / "c.safetensors", backbone=backbone, **expected)
        np.testing.assert_allclose(again.predict_proba(paths[:3]), scores, atol=1e-5)
    assert again.background == ["tree"] and again.synonyms == {"cat": ["kitten"]}
    for other in (
        {"background": []},
        {"background": ["sky"]},
        {"synonyms": None},
        {"synonyms": {"cat": ["puss"]}},
        {"templates": ["{}"]},
        {"encoder": "sclip"},
    ):
        with pytest.raises(ValueError, match=f"learned with {next(iter(other))}="):
            PIAA.load(tmp_path / "c.safetensors", backbone=backbone, **other)


def test_a_file_from_before_there_were_synonyms_is_read(fitted, paths, tmp_path, backbone):
    from safetensors import safe_open
    from safetensors.torch import save_file

    fitted.save(tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        about = json.loads(file.metadata()["piaa"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    about["format"] = 1
    del about["settings"]["synonyms"], about["settings"]["background"]
    save_file(tensors, tmp_path / "old.safetensors", {"piaa": json.dumps(about)})
    old = PIAA.load(tmp_path / "old.safetensors", backbone=backbone, synonyms={}, background=())
    scores = fitted.predict_proba(paths[:2])
    np.testing.assert_allclose(old.predict_proba(paths[:2]), scores, atol=1e-5)
    about["format"] = 3
    save_file(tensors, tmp_path / "next.safetensors", {"piaa": json.dumps(about)})
    with pytest.raises(ValueError, match="format 3, not 2"):
        PIAA.load(tmp_path / "next.safetensors", backbone=backbone)


# Saving and loading


def test_a_saved_classifier_scores_the_same(fitted, paths, tmp_path, backbone):
    fitted.save(tmp_path / "pets.safetensors")
    loaded = PIAA.load(tmp_path / "pets.safetensors", NAMES, batch_size=2)
    assert loaded.get_params()["n_select"] == 40 and loaded.class_names == NAMES
    assert loaded.report_ == json.loads(json.dumps(fitted.report_))
    scores = fitted.predict_proba(paths)
    np.testing.assert_allclose(loaded.predict_proba(paths), scores, atol=1e-5)
    assert list(tmp_path.iterdir()) == [tmp_path / "pets.safetensors"]


def test_a_classifier_for_other_classes_or_order_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / "pets.safetensors")
    for names, what in (
        (["cat", "dog"], "other classes"),
        (NAMES[::-1], "the same classes in another order"),
    ):
        with pytest.raises(ValueError, match=f"learned for {what}.*cat, dog, person, chair"):
            PIAA.load(tmp_path / "pets.safetensors", names)


def test_a_classifier_of_other_weights_is_refused(fitted, tmp_path, backbone):
    import copy

    model = copy.deepcopy(backbone.model)
    model.visual.proj.data[0, 0] += 1
    other = load_backbone(model, device="cpu")
    fitted.save(tmp_path / "pets.safetensors")
    with pytest.raises(
        ValueError, match="learned with the backbone mini, and custom here has other weights"
    ):
        PIAA.load(tmp_path / "pets.safetensors", backbone=other)


def test_a_classifier_of_another_activation_is_refused(fitted, tmp_path, backbone):
    other = load_backbone(backbone.model, device="cpu")
    other.quick_gelu = False  # as if GELU had silently taken its place
    fitted.save(tmp_path / "pets.safetensors")
    with pytest.raises(ValueError, match="other weights, activation"):
        PIAA.load(tmp_path / "pets.safetensors", backbone=other)


def test_a_backbone_that_has_no_name_must_be_given_again(tmp_path, backbone, paths):
    custom = load_backbone(backbone.model, device="cpu")
    piaa = PIAA(NAMES, backbone=custom, n_select=np.int64(20), purify=None).fit(paths[:2])
    piaa.save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="backbone custom, which cannot be loaded by that name"):
        PIAA.load(tmp_path / "own.safetensors")
    loaded = PIAA.load(tmp_path / "own.safetensors", backbone=custom)
    np.testing.assert_allclose(loaded.predict_proba(paths[:2]), piaa.predict_proba(paths[:2]))


def test_damaged_foreign_and_missing_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved classifier.*gone"):
        PIAA.load(tmp_path / "gone.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match="is no classifier saved by PIAA.save, or is damaged"):
        PIAA.load(tmp_path / "text.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="is no classifier saved by PIAA.save"):
        PIAA.load(tmp_path / "foreign.safetensors")


def test_a_full_disk_leaves_the_old_file_and_no_litter(fitted, tmp_path, monkeypatch):
    path = tmp_path / "pets.safetensors"
    path.write_bytes(b"the old one")

    def full(file, data):
        with file.open("wb") as half:
            half.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="pets.* could not be saved .*No space left.*has room"):
        fitted.save(path)
    assert path.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    with pytest.raises(OSError, match="check that its folder exists"):
        fitted.save(tmp_path / "no folder" / "pets.safetensors")
