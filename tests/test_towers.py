"""Towers of the real shapes with seeded random weights: loaded, encoded, compared; no network.

What small towers show is in test_backbone.py and test_encoders.py. Here: the shapes of CLIP's own
architectures. Image towers are whole; a text tower is whole only where a file is loaded by name,
and has one block elsewhere.
"""

import copy
import gc

import open_clip
import pytest
import torch
import torch.nn.functional as F
from golden_tower import golden_clip, golden_images, seeded_images, seeded_weight, write

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

TOWERS = {  # test name: (architecture, grid, depth, width, dim)
    "B/16": ("ViT-B-16-quickgelu", 14, 12, 768, 512),
    "B/16, LAION": ("ViT-B-16", 14, 12, 768, 512),
    "B/32": ("ViT-B-32-quickgelu", 7, 12, 768, 512),
    "L/14": ("ViT-L-14-quickgelu", 16, 24, 1024, 768),
    "L/14-336": ("ViT-L-14-336-quickgelu", 24, 24, 1024, 768),
}
TAPS = {  # of all encoders together, 0 being the input of block 1
    12: {4, 5, 6, 7, 8, 9, 10, 11},
    24: {8, 10, 12, 13, 14, 15, 16, 18, 19, 20, 23},
}


def random_clip(name, text=ONE_BLOCK):
    """The open_clip architecture `name` with seeded weights; `text` None keeps its text tower."""
    config = open_clip.get_model_config(name)
    with torch.device("meta"):  # PyTorch's own initialisation would take longer than the tests
        clip = open_clip.CLIP(**{**config, "text_cfg": text or config["text_cfg"]})
    clip = clip.to_empty(device="cpu")
    clip.attn_mask = None  # of the text tower; no weight
    generator = torch.Generator().manual_seed(0)
    state = clip.state_dict()
    for key in sorted(state):
        r = torch.randn(state[key].shape, generator=generator).numpy()
        state[key].copy_(torch.as_tensor(seeded_weight(key, r)))
    return clip


class Tower:
    """A backbone and what one pass over two images gave."""

    def __init__(self, name):
        self.backbone = load_backbone(random_clip(name), device="cpu")
        outputs = {}
        hooks = [
            block.register_forward_hook(lambda _, x, y, layer=layer: outputs.update({layer: y}))
            for layer, block in enumerate(self.backbone.blocks, start=1)
        ]
        self.images = seeded_images(2, seed=1, size=self.backbone.image_size)
        with torch.no_grad():
            self.trunk = run_trunk(self.backbone, self.images, ENCODERS)
            self.last = self.backbone.blocks[-1](outputs[self.backbone.depth - 1])
            heads = {"cls": cls_head, **HEADS}
            self.both = {
                name: F.normalize(head(self.backbone, self.trunk), dim=-1)
                for name, head in heads.items()
            }
        self.outputs = outputs
        for hook in hooks:
            hook.remove()
        self.alone = encode(self.backbone, self.images[1:], ENCODERS)


@pytest.fixture(scope="module", params=TOWERS)
def tower(request):
    yield Tower(TOWERS[request.param][0])
    gc.collect()


@pytest.fixture
def expected(request):
    return TOWERS[request.node.callspec.params["tower"]]


def test_attributes(tower, expected):
    backbone = tower.backbone
    found = (backbone.grid, backbone.depth, backbone.width, backbone.dim)
    assert found == expected[1:]
    assert backbone.quick_gelu == expected[0].endswith("quickgelu")


def test_features_are_finite_units(tower, expected):
    _, grid, _, _, dim = expected
    assert tower.both["cls"].shape == (2, dim)
    for name in ENCODERS:
        assert tower.both[name].shape == (2, grid * grid, dim)
    for x in tower.both.values():
        torch.testing.assert_close(x.norm(dim=-1), torch.ones(x.shape[:-1]))


@pytest.mark.parametrize("name", ["cls", *ENCODERS])
def test_an_image_does_not_depend_on_its_batch(tower, name):
    torch.testing.assert_close(tower.alone[name][0], tower.both[name][1], rtol=0, atol=1e-5)


def test_taps(tower, expected):
    depth = expected[2]
    assert set(tower.trunk.hidden) == TAPS[depth]
    for layer in TAPS[depth]:
        assert tower.trunk.hidden[layer].equal(tower.outputs[layer])


def test_cls_and_vanilla_are_the_ordinary_last_block(tower):
    visual = tower.backbone.model.visual
    own = F.normalize(visual.ln_post(tower.last) @ visual.proj, dim=-1)
    torch.testing.assert_close(tower.both["cls"], own[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(tower.both["vanilla"], own[:, 1:], rtol=0, atol=1e-5)


# Files and tags


@pytest.fixture(scope="module")
def openai():
    """A whole ViT-B/16 in half precision, as OpenAI's file holds it."""
    return random_clip("ViT-B-16-quickgelu", text=None).half()


@pytest.mark.parametrize("file", ["state.pt", "weights.safetensors", "torchscript.pt"])
def test_a_file_of_the_papers_backbone(openai, tmp_path, file):
    path = write(openai, tmp_path / file)
    backbone = load_backbone("ViT-B-16-quickgelu", path, device="cpu")
    path.unlink()  # 300 MB
    assert (backbone.name, backbone.quick_gelu) == (f"ViT-B-16-quickgelu/{file}", True)
    state = backbone.model.state_dict()
    assert state.keys() == openai.state_dict().keys()
    for name, tensor in openai.state_dict().items():
        assert state[name].equal(tensor.float()), name
    text = backbone.encode_text(["cat", "tv monitor"])
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2))
    assert text.shape == (2, 512) and text[0] @ text[1] < 0.999


def test_a_tag_of_laion(monkeypatch):
    monkeypatch.setattr(open_clip, "create_model", lambda name, pretrained: random_clip(name))
    backbone = load_backbone("ViT-B-16", "laion2b_s34b_b88k", device="cpu")
    assert backbone.name == "ViT-B-16/laion2b_s34b_b88k"
    assert not backbone.quick_gelu


# Other image sizes


def test_b32_at_another_size_and_on_too_small_a_grid():
    clip = random_clip("ViT-B-32-quickgelu")
    sizes = {size: load_backbone(clip, device="cpu", image_size=size) for size in (192, 160)}
    features = encode(sizes[192], seeded_images(1, seed=1, size=224)[..., :192, :192], ENCODERS)
    for name in ENCODERS:
        assert features[name].shape == (1, 36, 512) and features[name].isfinite().all()
    with pytest.raises(ValueError, match="scclip needs more than 30 patches.* there are 25"):
        encode(sizes[160], torch.zeros(1, 3, 160, 160), ["scclip"])


# Mixed precision


@pytest.fixture(scope="module")
def precisions(golden):
    """The golden tower in both precisions."""
    assert golden.precision == "fp32"
    return {"fp32": golden, "amp": load_backbone(golden_clip(), device="cpu", precision="amp")}


@pytest.mark.parametrize("name", ["cls", *ENCODERS])
def test_mixed_precision_is_near(precisions, name):
    names = [] if name == "cls" else [name]
    exact, mixed = (encode(b, golden_images()[:1], names)[name] for b in precisions.values())
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.norm(dim=-1), torch.ones(mixed.shape[:-1]))
    assert not mixed.equal(exact)  # it was used
    assert F.cosine_similarity(mixed, exact, dim=-1).min() > 0.999


def test_mixed_precision_leaves_the_text_alone(precisions):
    tokens = torch.arange(32).view(2, 16)
    texts = []
    for backbone in map(copy.copy, precisions.values()):
        backbone.tokenizer = lambda prompts: tokens
        texts.append(backbone.encode_text(["a", "b"]))
    assert texts[0].equal(texts[1])
    assert precisions["fp32"].identity() == precisions["amp"].identity()


def test_neighbours_are_compared_in_single_precision(precisions, monkeypatch):
    """Under automatic mixed precision too, what decides who is alike sees no rounded products."""
    kinds = []

    def record(similarity, *beta):
        kinds.append(similarity.dtype)
        return thresholded_affinity(similarity, *beta)

    monkeypatch.setattr(encoders, "thresholded_affinity", record)
    encode(precisions["amp"], golden_images()[:1], ["scclip"])
    assert kinds == [torch.float32, torch.float32]


def test_a_precision_that_is_not_there(monkeypatch):
    with pytest.raises(ValueError, match="one of fp32, amp, not 'fp16'"):
        load_backbone(golden_clip(), device="cpu", precision="fp16")
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device: False)
    with pytest.raises(ValueError, match="no mixed precision on the device cpu.*'fp32'"):
        load_backbone(golden_clip(), device="cpu", precision="amp")


@pytest.mark.parametrize(
    ("split", "device"),
    [
        ("val", "cpu"),
        pytest.param(
            "test",
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"),
        ),
    ],
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
            pytest.xfail("SC-CLIP in float16 moves by more than a hundredth with this mini-CLIP")
        assert 0 < (mixed - exact).abs().max() < 0.01 * exact.std(0).mean(), name
        if device == "cuda":
            one, two = (mean_average_precision(world.labels, x.numpy()).map for x in (exact, mixed))
            assert abs(two - one) < 0.05, name
