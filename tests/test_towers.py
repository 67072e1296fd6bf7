"""Towers of CLIP's real shapes with seeded random weights, and mixed precision; no network.

What small towers show is in test_backbone.py and test_encoders.py.
"""

import copy

import open_clip
import pytest
import torch
import torch.nn.functional as F
from golden_tower import golden_clip, golden_images, seeded_images, seeded_weight

from piaa_utils import encoders
from piaa_utils.backbone import PRECISIONS, load_backbone
from piaa_utils.encoders import (
    ENCODERS,
    HEADS,
    cls_head,
    encode,
    run_trunk,
    thresholded_affinity,
)
from piaa_utils.metrics import mean_average_precision
from piaa_utils.walk import encoded
from piaa_utils.worlds import VOC_CLASSES, first, mini_scenes

ONE_BLOCK = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}


def random_clip(name):
    """The open_clip architecture `name` with seeded weights and a text tower of one block."""
    config = open_clip.get_model_config(name) | {"text_cfg": ONE_BLOCK}
    with torch.device("meta"):  # PyTorch's own initialisation would take longer than the tests
        clip = open_clip.CLIP(**config)
    clip = clip.to_empty(device="cpu")
    clip.attn_mask = None  # of the text tower; no weight
    generator = torch.Generator().manual_seed(0)
    for key, weight in sorted(clip.state_dict().items()):
        r = torch.randn(weight.shape, generator=generator).numpy()
        weight.copy_(torch.as_tensor(seeded_weight(key, r)))
    return clip


@pytest.mark.parametrize(
    ("name", "shape"),
    [  # grid, depth, width, dim
        ("ViT-B-16-quickgelu", (14, 12, 768, 512)),
        ("ViT-B-16", (14, 12, 768, 512)),  # LAION's
        ("ViT-B-32-quickgelu", (7, 12, 768, 512)),
        ("ViT-L-14-quickgelu", (16, 24, 1024, 768)),
        ("ViT-L-14-336-quickgelu", (24, 24, 1024, 768)),
    ],
)
def test_a_tower_of_a_real_shape(name, shape):
    backbone, outputs = load_backbone(random_clip(name), device="cpu"), {}
    assert (backbone.grid, backbone.depth, backbone.width, backbone.dim) == shape
    assert backbone.quick_gelu == name.endswith("quickgelu")
    for layer, block in enumerate(backbone.blocks, start=1):
        block.register_forward_hook(lambda _, x, y, layer=layer: outputs.update({layer: y}))
    images = seeded_images(2, seed=1, size=backbone.image_size)
    with torch.no_grad():
        trunk = run_trunk(backbone, images, ENCODERS)
        heads = {"cls": cls_head, **HEADS}.items()
        both = {name: F.normalize(head(backbone, trunk), dim=-1) for name, head in heads}
    # The layers that are read, and the ordinary last block.
    assert all(x.equal(outputs[layer]) for layer, x in trunk.hidden.items())
    visual = backbone.model.visual
    with torch.no_grad():
        last = backbone.blocks[-1](trunk.hidden[backbone.depth - 1])
    own = F.normalize(visual.ln_post(last) @ visual.proj, dim=-1)
    for name, expected in (("cls", own[:, 0]), ("vanilla", own[:, 1:])):
        torch.testing.assert_close(both[name], expected, rtol=0, atol=1e-5)
    n, dim = backbone.grid**2, backbone.dim
    # Of every encoder: rows of unit length, whatever the batch.
    for name, x in encode(backbone, images[1:], ENCODERS).items():
        assert both[name].shape[1:] == ((n, dim) if name != "cls" else (dim,))
        torch.testing.assert_close(both[name].norm(dim=-1), torch.ones(both[name].shape[:-1]))
        torch.testing.assert_close(x[0], both[name][1], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def amp():
    """The golden tower in mixed precision."""
    return load_backbone(golden_clip(), device="cpu", precision="amp")


@pytest.mark.parametrize("name", ["cls", *ENCODERS])
def test_mixed_precision_is_near(golden, amp, name):
    names = [] if name == "cls" else [name]
    exact, mixed = (encode(b, golden_images()[:1], names)[name] for b in (golden, amp))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.norm(dim=-1), torch.ones(mixed.shape[:-1]))
    assert not mixed.equal(exact)  # it was used
    assert F.cosine_similarity(mixed, exact, dim=-1).min() > 0.999


def test_mixed_precision_leaves_the_text_and_the_neighbours_alone(golden, amp, monkeypatch):
    """What decides who is alike sees no rounded products."""
    texts, kinds = [], []
    for backbone in map(copy.copy, (golden, amp)):
        backbone.tokenizer = lambda prompts: torch.arange(32).view(2, 16)
        texts.append(backbone.encode_text(["a", "b"]))
    assert texts[0].equal(texts[1]) and golden.identity() == amp.identity()

    def record(similarity, *beta):
        kinds.append(similarity.dtype)
        return thresholded_affinity(similarity, *beta)

    monkeypatch.setattr(encoders, "thresholded_affinity", record)
    encode(amp, golden_images()[:1], ["scclip"])
    assert kinds == [torch.float32, torch.float32]


def test_a_precision_that_is_not_there(monkeypatch):
    with pytest.raises(ValueError, match="one of fp32, amp, not 'fp16'"):
        load_backbone(golden_clip(), device="cpu", precision="fp16")
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device: False)
    with pytest.raises(ValueError, match="no mixed precision on the device cpu.*'fp32'"):
        load_backbone(golden_clip(), device="cpu", precision="amp")


NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")


@pytest.mark.parametrize(
    ("split", "device"),
    [("val", "cpu"), pytest.param("test", "cuda", marks=NO_CUDA)],
)
def test_mixed_precision_hardly_moves_a_score(split, device):
    """[CLS] and the paper's encoders, read by the text, on the CPU 32 pictures, on CUDA 600.

    By less than a hundredth of what scores of a class differ by from picture to picture; and mAP
    on CUDA by less than 0.05 points. On a CPU SC-CLIP of the present mini-CLIP fails this, by up to
    a fourteenth (patches near its threshold may change sides): a known fault, still to be mended.
    """
    world, scores = mini_scenes(split), []
    world = first(world, 32) if device == "cpu" else world
    for precision in PRECISIONS:
        backbone = load_backbone(device=device, precision=precision)
        three = ["sclip", "itaclip", "scclip"]
        found = encoded(backbone, world, three, progress=False)
        text = backbone.encode_text(VOC_CLASSES).cpu()
        read = {name: (x.cpu() @ text.T).amax(1) for name, x in found.patches.items()}
        scores.append({"cls": found.cls.cpu() @ text.T, **read})
    for name, exact in scores[0].items():
        mixed = scores[1][name]
        if name == "scclip" and device == "cpu":
            pytest.xfail("the float16 trunk moves some cosines of h_4 and h_9 across beta")
        assert 0 < (mixed - exact).abs().max() < 0.01 * exact.std(0).mean(), name
        if device == "cuda":
            one, two = (mean_average_precision(world.labels, x.numpy()).map for x in (exact, mixed))
            assert abs(two - one) < 0.05, name
