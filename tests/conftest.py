"""What several test files share: backbones that are loaded once, and two small architectures.

A test that changes a shared backbone copies it first (``copy.copy``), or loads its own.
"""

import json

import numpy as np
import open_clip
import pytest
import torch
from golden_tower import SMALL, TEXT, VISION, golden_clip, golden_images
from PIL import Image
from pretend_gpu import PretendGPU

from piaa_utils.backbone import load_backbone
from piaa_utils.encoders import ENCODERS, encode


@pytest.fixture(scope="session")
def golden():
    """The golden tower (see golden_tower.py)."""
    return load_backbone(golden_clip(), device="cpu")


@pytest.fixture(scope="session")
def golden_features(golden):
    """Its features of the golden images, all encoders, before unit length."""
    return encode(golden, golden_images(), ENCODERS, normalize=False)


@pytest.fixture(scope="session")
def mini():
    """The embedded mini-CLIP."""
    return load_backbone(device="cpu")


@pytest.fixture(scope="session")
def architectures(tmp_path_factory):
    """A small tower as two open_clip architectures, small-test and small-test-quickgelu."""
    folder = tmp_path_factory.mktemp("configs")
    for name, quick_gelu in (("small-test", False), ("small-test-quickgelu", True)):
        vision = {**VISION, **SMALL}
        config = {"embed_dim": 64, "quick_gelu": quick_gelu, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")


def random_clip(seed=0):
    """An open_clip model of 6 x 6 patches with random weights and CLIP's own vocabulary."""
    torch.manual_seed(seed)
    image = {"image_size": 96, "patch_size": 16, "layers": 12, "width": 64}
    text = {"context_length": 16, "width": 64, "heads": 1, "layers": 1}
    return open_clip.CLIP(32, image, text, quick_gelu=True)


@pytest.fixture(scope="session")
def tiny():
    """The backbone of such a model."""
    return load_backbone(random_clip(), device="cpu")


@pytest.fixture(scope="session")
def noise(tmp_path_factory):
    """Eight small pictures of noise: their paths."""
    folder = tmp_path_factory.mktemp("noise")
    values = np.random.RandomState(0).randint(0, 255, (8, 12, 16, 3), np.uint8)
    for i, pixels in enumerate(values):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


@pytest.fixture(params=["cuda", "mps"])
def gpu(request, monkeypatch):
    """A pretended GPU (see pretend_gpu.py)."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)  # PyTorch would look for a driver
    with PretendGPU(request.param) as device:
        yield device
