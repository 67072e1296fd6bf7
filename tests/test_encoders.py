"""Patch encoders: one trunk pass, no image depends on its batch, and the steps of SC-CLIP.

Against their equations they are compared in test_literal.py and test_golden_encoders.py.
"""

import copy

import numpy as np
import pytest
import test_literal as literal
import torch
import torch.nn.functional as F
from golden_tower import golden_images, seeded_images, small_clip
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from piaa_utils.backbone import load_backbone
from piaa_utils.encoders import (
    ENCODERS,
    HEADS,
    encode,
    fill,
    layers_read,
    lof,
    lof_outliers,
    run_trunk,
    similarity_attention,
    tap,
    thresholded_affinity,
)
from piaa_utils.settings import Calibration


@pytest.fixture(scope="module")
def features(golden_features):
    return {name: F.normalize(x, dim=-1) for name, x in golden_features.items()}


def test_any_choice_of_encoders_gives_the_same_features(golden, features):
    images = golden_images()[:1]
    for asked in ((), *ENCODERS, ("sclip", "scclip")):
        found = encode(golden, images, asked)
        assert list(found) == ["cls", *([asked] if isinstance(asked, str) else asked)]
        for name, x in found.items():
            torch.testing.assert_close(x, features[name][:1], rtol=0, atol=1e-5)
    weight = torch.ones(64, requires_grad=True)  # features can be trained on
    (encode(golden, images)["scclip"] @ weight).sum().backward()
    assert weight.grad is not None


def test_an_image_does_not_depend_on_its_batch(golden, features):
    """In another order, and amid four other images; alone, in the test above."""
    images, others = golden_images(), seeded_images(4, seed=5)
    amid = torch.cat([others[:2], images, others[2:]])
    for batch, places in ((images[[2, 0, 1]], [1, 2, 0]), (amid, [2, 3, 4])):
        for name, x in encode(golden, batch, ENCODERS).items():
            torch.testing.assert_close(x[places], features[name], rtol=0, atol=1e-5)


def test_cls_and_vanilla_are_clips_own(golden, features):
    own = golden.model.encode_image(golden_images(), normalize=True)
    torch.testing.assert_close(features["cls"], own, rtol=0, atol=1e-5)
    out = golden.model.visual.forward_intermediates(
        golden_images(), indices=1, normalize_intermediates=True, output_fmt="NLC"
    )
    own = F.normalize(out["image_intermediates"][0] @ golden.model.visual.proj, dim=-1)
    torch.testing.assert_close(features["vanilla"], own, rtol=0, atol=1e-5)


def test_the_calibration_of_a_call_goes_before_the_backbones(golden, golden_features):
    """None takes the backbone's, which is the paper's for a tower that brings none."""

    def scclip(backbone, calibration):
        return encode(backbone, golden_images()[:1], "scclip", False, calibration)["scclip"]

    own, papers = copy.copy(golden), golden_features["scclip"][:1]
    own.calibration = Calibration(beta=0.8, cls_share=0.1, gain=6.0)
    torch.testing.assert_close(scclip(own, Calibration(0.4, 0.3, 3.0)), papers, rtol=0, atol=1e-4)
    assert (scclip(own, None) - papers).abs().max() > 1e-3
    for name, size in own.calibration._asdict().items():  # each of the three counts
        one = Calibration()._replace(**{name: size})
        assert (scclip(golden, one) - papers).abs().max() > 1e-3


class Operations(TorchDispatchMode):
    """The shapes of what every tensor operation returns."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.shapes.append([tuple(x.shape) for x in tree_leaves(out) if torch.is_tensor(x)])
        return out


@pytest.mark.parametrize("name", ENCODERS)
def test_no_head_keeps_an_attention_map_or_loops_over_images(golden, name):
    """No [B, H, N, N] anywhere; scclip's [B, N, N] is one matrix per image for all heads."""
    calls = []
    for count in (2, 5):
        trunk, operations = run_trunk(golden, seeded_images(count, seed=2)), Operations()
        operations.shapes = []
        with torch.no_grad(), operations:
            HEADS[name](golden, trunk)
        shapes = sum(operations.shapes, [])
        maps = {s for s in shapes if len(s) in (3, 4) and {*s[-2:]} <= {196, 197}}
        assert maps == ({(count, 196, 196)} if name == "scclip" else set())
        calls.append(len(operations.shapes))
    assert calls[0] == calls[1] > 0


def test_all_encoders_cost_one_trunk_pass_and_only_what_is_read_is_kept(golden):
    images, calls = golden_images()[:1], []
    hooks = [
        part.register_forward_hook(lambda *_, i=i: calls.append(i))
        for i, part in enumerate([golden.model.visual.conv1, *golden.blocks])
    ]
    encode(golden, images, ENCODERS)
    for hook in hooks:
        hook.remove()
    assert calls == list(range(12))  # the last block is taken apart, never run whole
    for encoders, read in ((["sclip"], {11}), (["itaclip"], {6, 7, 9, 11}), (None, {*range(12)})):
        assert set(run_trunk(golden, images, encoders).hidden) == read


def test_taps_scale_with_depth():
    layers = (4, 7, 8, 9, 10)
    assert [tap(x, 12) for x in layers] == [4, 7, 8, 9, 10]
    assert [tap(x, 32) for x in layers] == [11, 19, 21, 24, 27]
    assert [tap(x, 6) for x in layers] == [2, 4, 4, 4, 5]
    assert [tap(x, 2) for x in layers] == [1, 1, 1, 1, 1]  # never the last block's output
    assert layers_read(["itaclip", "scclip"], 24) == {13, 15, 19, 8, 10, 12, 14, 16, 18, 20, 23}


def test_a_tower_that_repeats_its_blocks_gives_what_its_taps_say():
    """Every other block of a 24-block tower adds nothing: it is the 12-block tower again."""
    short = load_backbone(small_clip(image_size=112), device="cpu")
    long = small_clip(image_size=112, layers=24)
    for layer, block in enumerate(short.blocks):
        # The last block must stay last; before it, the silent one comes first.
        long.visual.transformer.resblocks[2 * layer + 1].load_state_dict(block.state_dict())
        silent = long.visual.transformer.resblocks[2 * layer]
        for part in (silent.attn.out_proj, silent.mlp.c_proj):
            torch.nn.init.zeros_(part.weight)
            torch.nn.init.zeros_(part.bias)
    long = load_backbone(long, device="cpu")
    images = seeded_images(2, seed=4, size=112)
    a, b = (encode(backbone, images, ["itaclip", "scclip"]) for backbone in (short, long))
    torch.testing.assert_close(a["scclip"], b["scclip"], rtol=0, atol=1e-5)
    torch.testing.assert_close(a["itaclip"], b["itaclip"], rtol=0, atol=1e-5)


def test_images_and_encoders_that_are_refused(golden):
    small = load_backbone(small_clip(image_size=80), device="cpu")  # 5 x 5
    zeros = torch.zeros(1, 3, 80, 80)
    assert encode(small, zeros, ["sclip"])["sclip"].shape == (1, 25, 64)
    shape = r"floats \[B, 3, 224, 224\], as backbone.preprocess"
    for backbone, images, encoders, message in (
        (small, zeros, "scclip", r"scclip needs more than 30 patches.* there are 25"),
        (golden, golden_images(), ("sclip", "saclip"), r"no encoder 'saclip'.*vanilla, .*scclip"),
        (golden, torch.zeros(1, 3, 112, 112), "sclip", shape),
        (golden, torch.zeros(3, 224, 224), "sclip", shape),
        (golden, torch.zeros(1, 3, 224, 224, dtype=torch.uint8), "sclip", shape),
    ):
        with pytest.raises(ValueError, match=message):
            encode(backbone, images, encoders)


def test_a_picture_whose_patches_are_all_alike():
    clip = small_clip(image_size=112)
    torch.nn.init.zeros_(clip.visual.positional_embedding)
    backbone = load_backbone(clip, device="cpu")
    features = encode(backbone, torch.full((2, 3, 112, 112), 0.5), ENCODERS)
    for name in ENCODERS:
        x = features[name]
        torch.testing.assert_close(x, x[:, :1].expand(-1, 49, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_lof(k):
    points = np.random.default_rng(0).normal(size=(3, 49, 16)) ** 3 + 7
    found = lof(torch.from_numpy(points).float(), k).numpy()
    np.testing.assert_allclose(found, [literal.lof(p, k) for p in points], rtol=1e-4)


def test_outliers_are_above_the_quantile_of_their_own_image():
    points = torch.randn(2, 100, 8, generator=torch.Generator().manual_seed(0))
    points[0, [3, 50]] += 40
    points[1, [7, 11, 60]] += 40 * torch.arange(1, 4)[:, None]
    outliers = lof_outliers(points)
    for image, lonely in enumerate(([3, 50], [7, 11, 60])):
        expected = literal.outliers(points[image].double().numpy())
        assert outliers[image].tolist() == expected.tolist() and expected.sum() == 5  # of 100
        assert outliers[image, lonely].all()
    assert not lof_outliers(torch.zeros(1, 49, 8)).any()  # none is above where all are alike


def test_fill():
    random = np.random.default_rng(1)
    tokens = random.normal(size=(4, 36, 3))
    outliers = random.random((4, 36)) < np.array([0, 0.2, 0.8, 1])[:, None]
    outliers[1, [0, 1, 6, 7]] = True  # the corner has outliers around it only
    expected = [literal.fill(t, o, 6) for t, o in zip(tokens, outliers, strict=True)]
    found = fill(torch.from_numpy(tokens), torch.from_numpy(outliers)).numpy()
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(found[1, 0], tokens[1, 0])
    np.testing.assert_array_equal(found[[0, 3]], tokens[[0, 3]])


def test_thresholded_affinity_keeps_beta_itself():
    similarity = torch.tensor([[[1.0, 0.4, 0.39999], [-0.9, 0.5, 0.5], [0.1, 0.2, 0.0]]])
    affinity = thresholded_affinity(similarity)
    expected = torch.tensor([[[1 / 1.4, 0.4 / 1.4, 0], [0, 0.5, 0.5], [0, 0, 0]]])
    torch.testing.assert_close(affinity, expected, rtol=0, atol=2e-6)


def test_similarity_attention_of_each_image_alone():
    similarity = torch.tensor([[[1.0, 0.5], [0.0, 1.0]], [[1.0, 0.9], [0.9, 1.0]]])
    given = similarity.clone()
    # Means 0.625 and 0.95: below them nothing is left but the patch itself.
    torch.testing.assert_close(similarity_attention(similarity), torch.eye(2).expand(2, 2, 2))
    assert similarity.equal(given)
    attention = similarity_attention(torch.tensor([[[1.0, 0.8], [0.0, 1.0]]]))  # mean 0.7
    first = np.exp([0.9, 0.3]) / np.exp([0.9, 0.3]).sum()
    expected = torch.tensor([[first.tolist(), [0, 1]]], dtype=torch.float32)
    torch.testing.assert_close(attention, expected)
    # A patch without direction, below the mean throughout, attends to itself.
    attention = similarity_attention(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]))
    torch.testing.assert_close(attention[0], torch.eye(2))
