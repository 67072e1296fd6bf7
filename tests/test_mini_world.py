"""The embedded world is what its description says, and shows the paper's phenomena."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from piaa_utils.ablation import separability
from piaa_utils.backbone import load_backbone
from piaa_utils.datasets import (
    MINI_CLASSES,
    VOC_CLASSES,
    data_dir,
    mini_long_classes,
    mini_scenes,
)
from piaa_utils.encoders import encode
from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.images import batches
from piaa_utils.metrics import mean_average_precision
from piaa_utils.patch_labels import patch_labels

SPLITS = {
    "learn": 1200,
    "learn_unseen": 1000,
    "val": 150,
    "val_unseen": 150,
    "test": 600,
    "test_unseen": 600,
}


@pytest.mark.parametrize(("split", "count"), SPLITS.items())
def test_splits_have_their_pictures_and_enough_labels(split, count):
    dataset = mini_scenes(split)
    assert len(dataset) == count and len(set(dataset.ids)) == count
    assert dataset[0].size == (224, 224)
    assert dataset.labels.sum(1).mean() >= 2.5
    assert (dataset.labels.sum(0) >= (10 if split.startswith("test") else 1)).all()


def test_the_long_list_begins_with_voc_s_and_each_class_occurs():
    names = mini_long_classes()
    assert names[:20] == MINI_CLASSES == VOC_CLASSES and len(names) >= 60
    assert (mini_scenes("test", names).labels.sum(0) > 0).all()


def test_masks_and_annotations_agree():
    dataset = mini_scenes("test", mini_long_classes())
    for i in range(0, len(dataset), 25):
        mask = dataset.masks(i)
        assert mask.shape == (224, 224)
        marked = dataset.labels[i].astype(bool) | dataset.difficult[i]
        seen = np.bincount(mask[mask >= 0], minlength=len(marked))
        assert set(np.flatnonzero(seen)) == set(np.flatnonzero(marked))
        assert (seen[dataset.labels[i] == 1] >= 100).all()  # what is seen less is "difficult"


def test_boxes_lie_in_the_picture():
    root = data_dir() / "mini_scenes"
    for path in sorted((root / "Annotations").iterdir())[::100]:
        for thing in ElementTree.parse(path).iter("bndbox"):
            x0, y0, x1, y1 = (int(thing.find(k).text) for k in ("xmin", "ymin", "xmax", "ymax"))
            assert 1 <= x0 <= x1 <= 224 and 1 <= y0 <= y1 <= 224


def test_the_mini_clip_has_the_shape_of_vit_b_16():
    folder = data_dir() / "mini_clip"
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    vision, text = config["vision_cfg"], config["text_cfg"]
    assert config["quick_gelu"] and vision["layers"] == 12 and vision["head_width"] == 64
    assert (vision["image_size"], vision["patch_size"]) == (224, 16)
    assert (text["context_length"], text["vocab_size"]) == (77, 49408)
    assert (folder / "model.safetensors").stat().st_size < 25 * 2**20


def encoded(split, count, encoders):
    """Features of a split's first pictures, their labels, and what each patch shows."""
    backbone = load_backbone(device="cpu")
    dataset = mini_scenes(split)
    stream = batches(dataset.paths[:count], backbone.preprocess, progress=False)
    parts = [encode(backbone, pixels, encoders) for _, pixels in stream]
    features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    shown = np.stack([patch_labels(dataset.masks(i), backbone.grid) for i in range(count)])
    return features, dataset.labels[:count], shown, backbone.encode_text(MINI_CLASSES)


@pytest.fixture(scope="module")
def world():
    return encoded("test", 150, ("vanilla", "scclip"))


def test_cls_knows_the_classes_without_having_been_asked_before(world):
    features, labels, _, text = world
    scores = torch.softmax(5 * features["cls"] @ text.T, dim=-1).numpy()
    assert mean_average_precision(labels, scores).map > 0.6


def test_images_and_texts_live_in_two_cones(world):
    features, *_ = world
    text = load_backbone(device="cpu").encode_text(mini_long_classes())
    assert separability(features["cls"].numpy(), text.numpy()) > 0.95


def test_patches_are_entangled_and_scclip_untangles_them(world):
    features, _, shown, text = world
    right = {}
    for name in ("vanilla", "scclip"):
        read = (features[name] @ text.T).argmax(-1).numpy()
        right[name] = (read == shown)[shown >= 0].mean()
    assert right["scclip"] > 2 * right["vanilla"]


def test_patches_of_the_unseen_style_know_more_than_the_text_can_read():
    features, _, shown, text = encoded("learn_unseen", 300, ("scclip",))
    oracle = GaussianDiscriminantAnalysis(prototypes=text.numpy())
    oracle.fit(features["scclip"].numpy()[shown >= 0], shown[shown >= 0])
    features, _, shown, _ = encoded("test_unseen", 100, ("scclip",))
    X, y = features["scclip"].numpy()[shown >= 0], shown[shown >= 0]
    assert oracle.score(X, y) > ((X @ text.numpy().T).argmax(1) == y).mean() + 0.03
