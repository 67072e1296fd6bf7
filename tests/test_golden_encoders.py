"""The encoders against the authors' released code: 1e-4 of each array's largest magnitude."""

import pytest
import torch
import torch.nn.functional as F
from golden_tower import golden_arrays, golden_clip, golden_images, relative_error

from piaa_utils.backbone import load_backbone
from piaa_utils.encoders import encode


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(golden_clip(), device="cpu")


@pytest.fixture(scope="module")
def features(backbone):
    return encode(backbone, golden_images(), ("sclip", "itaclip", "scclip"), normalize=False)


@pytest.mark.parametrize("name", ["sclip", "itaclip", "scclip"])
def test_patches(features, name):
    assert features[name].shape == (3, 196, 64)
    assert relative_error(features[name], golden_arrays()[name]) < 1e-4


def test_cls(features):
    assert relative_error(features["cls"], golden_arrays()["clip"]) < 1e-4


def test_text_tower(backbone):
    tokens = torch.from_numpy(golden_arrays()["tokens"])
    assert relative_error(backbone.model.encode_text(tokens), golden_arrays()["text"]) < 1e-4


def test_text_of_classes(backbone):
    """The same through encode_text, whose rows have unit length."""
    numbers = {f"class {i}": row for i, row in enumerate(golden_arrays()["tokens"])}
    backbone.tokenizer = lambda prompts: torch.tensor([numbers[p].tolist() for p in prompts])
    text = backbone.encode_text(list(numbers), templates=["{}"])
    golden = F.normalize(torch.from_numpy(golden_arrays()["text"]), dim=-1).numpy()
    assert relative_error(text, golden) < 1e-4
