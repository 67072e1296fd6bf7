"""The encoders against the authors' released code: 1e-4 of each array's largest magnitude."""

import copy

import pytest
import torch
import torch.nn.functional as F
from golden_tower import golden_arrays, relative_error


@pytest.mark.parametrize("name", ["sclip", "itaclip", "scclip"])
def test_patches(golden_features, name):
    assert golden_features[name].shape == (3, 196, 64)
    assert relative_error(golden_features[name], golden_arrays()[name]) < 1e-4


def test_cls(golden_features):
    assert relative_error(golden_features["cls"], golden_arrays()["clip"]) < 1e-4


def test_text_tower(golden):
    tokens = torch.from_numpy(golden_arrays()["tokens"])
    assert relative_error(golden.model.encode_text(tokens), golden_arrays()["text"]) < 1e-4


def test_text_of_classes(golden):
    """The same through encode_text, whose rows have unit length."""
    numbers = {f"class {i}": row for i, row in enumerate(golden_arrays()["tokens"])}
    backbone = copy.copy(golden)
    backbone.tokenizer = lambda prompts: torch.tensor([numbers[p].tolist() for p in prompts])
    text = backbone.encode_text(list(numbers), templates=["{}"])
    unit = F.normalize(torch.from_numpy(golden_arrays()["text"]), dim=-1).numpy()
    assert relative_error(text, unit) < 1e-4
