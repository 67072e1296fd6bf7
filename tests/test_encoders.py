"""Patch encoders: each against its equation, one trunk pass, no image depends on its batch."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_tower import golden_images, seeded_images, small_clip
from torch.utils._python_dispatch import TorchDispatchMode

from piaa_utils.backbone import load_backbone
from piaa_utils.encoders import (
    ENCODERS,
    HEADS,
    cls_head,
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


class Operations(TorchDispatchMode):
    """Record the shapes of what every tensor operation returns."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        outs = out if isinstance(out, (tuple, list)) else [out]
        shapes = [tuple(x.shape) for x in outs if isinstance(x, torch.Tensor)]
        self.calls.append((func.overloadpacket.__name__, shapes))
        return out

    def count(self, name):
        return sum(called == name for called, _ in self.calls)

    def shapes(self, dimensions):
        return {s for _, shapes in self.calls for s in shapes if len(s) == dimensions}


@pytest.fixture(scope="module")
def trunk(golden):
    return run_trunk(golden, golden_images())


@pytest.fixture(scope="module")
def features(golden_features):
    return {name: F.normalize(x, dim=-1) for name, x in golden_features.items()}


# Whole encoders


def test_shapes_and_unit_rows(golden, features):
    found = encode(golden, golden_images(), ("sclip", "scclip"))
    assert list(found) == ["cls", "sclip", "scclip"]
    assert (found["cls"].shape, found["scclip"].shape) == ((3, 64), (3, 196, 64))
    for name, x in found.items():
        torch.testing.assert_close(x, features[name], rtol=0, atol=1e-5)


def test_one_name_as_a_string_and_no_name(golden):
    images = golden_images()[:1]
    assert list(encode(golden, images, "sclip")) == ["cls", "sclip"]
    assert list(encode(golden, images, [])) == ["cls"]
    assert list(encode(golden, images)) == ["cls", "scclip"]


def test_features_can_be_trained_on(golden):
    weight = torch.ones(64, requires_grad=True)
    (encode(golden, golden_images()[:1])["scclip"] @ weight).sum().backward()
    assert weight.grad is not None


@pytest.fixture(scope="module")
def batches(golden):
    """The golden images' features alone, in another order, and amid four other images."""
    images, others = golden_images(), seeded_images(4, seed=5)
    alone = [encode(golden, x[None], ENCODERS) for x in images]
    permuted = encode(golden, images[[2, 0, 1]], ENCODERS)
    amid = encode(golden, torch.cat([others[:2], images, others[2:]]), ENCODERS)
    return {
        "alone": {name: torch.cat([one[name] for one in alone]) for name in permuted},
        "permuted": {name: x[[1, 2, 0]] for name, x in permuted.items()},
        "amid others": {name: x[2:5] for name, x in amid.items()},
    }


@pytest.mark.parametrize("batch", ["alone", "permuted", "amid others"])
@pytest.mark.parametrize("name", ["cls", *ENCODERS])
def test_an_image_does_not_depend_on_its_batch(features, batches, name, batch):
    torch.testing.assert_close(batches[batch][name], features[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_does_not_depend_on_the_others_asked(golden, features, name):
    alone = encode(golden, golden_images()[:1], [name])
    torch.testing.assert_close(alone[name], features[name][:1], rtol=0, atol=1e-5)


def test_cls_is_clips_own(golden, features):
    own = golden.model.encode_image(golden_images(), normalize=True)
    torch.testing.assert_close(features["cls"], own, rtol=0, atol=1e-5)


def test_vanilla_is_clips_own(golden, features):
    out = golden.model.visual.forward_intermediates(
        golden_images(), indices=1, normalize_intermediates=True, output_fmt="NLC"
    )
    own = F.normalize(out["image_intermediates"][0] @ golden.model.visual.proj, dim=-1)
    torch.testing.assert_close(features["vanilla"], own, rtol=0, atol=1e-5)


def softmax_map(a, b):
    return (a @ b.transpose(-1, -2) * a.shape[-1] ** -0.5).softmax(-1)


def by_maps(golden, x, attention, residual=True):
    """A last block with its attention maps formed, from their definition in head space."""
    block, visual = golden.blocks[-1], golden.model.visual
    q, k, v = (
        part.unflatten(-1, (2, 64)).transpose(1, 2)
        for part in F.linear(
            block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias
        ).chunk(3, dim=-1)
    )
    out = block.attn.out_proj((attention(q, k) @ v).transpose(1, 2).flatten(2))
    if residual:
        out = x + out
        out = out + block.mlp(block.ln_2(out))
    return F.normalize((visual.ln_post(out) @ visual.proj)[:, 1:], dim=-1)


@pytest.mark.parametrize(
    ("name", "attention", "residual"),
    [
        ("vanilla", softmax_map, True),
        ("maskclip", lambda q, k: torch.eye(q.shape[2]), True),
        ("clearclip", lambda q, k: softmax_map(q, q), False),
        ("sclip", lambda q, k: softmax_map(q, q) + softmax_map(k, k), True),
    ],
)
def test_last_block_by_its_attention_map(golden, trunk, features, name, attention, residual):
    expected = by_maps(golden, trunk.hidden[11], attention, residual)
    torch.testing.assert_close(features[name], expected, rtol=0, atol=2e-5)


# Cost


def test_all_encoders_cost_one_trunk_pass(golden):
    calls = [0] * golden.depth
    convolutions = []

    def count(layer):
        def hook(*_):
            calls[layer] += 1

        return hook

    hooks = [b.register_forward_hook(count(i)) for i, b in enumerate(golden.blocks)]
    conv1 = golden.model.visual.conv1
    hooks.append(conv1.register_forward_hook(lambda *_: convolutions.append(1)))
    encode(golden, golden_images()[:1], ENCODERS)
    for hook in hooks:
        hook.remove()
    assert calls == [1] * 11 + [0]  # the last block is taken apart, never run whole
    assert len(convolutions) == 1


def test_the_cls_head_runs_one_query(golden, trunk, monkeypatch):
    queries, rows = [], []
    fused = F.scaled_dot_product_attention

    def record(q, k, v):
        queries.append((q.shape[2], k.shape[2]))
        return fused(q, k, v)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    hook = golden.blocks[-1].mlp.register_forward_hook(lambda m, x, y: rows.append(x[0].shape[1]))
    cls_head(golden, trunk)
    hook.remove()
    assert queries == [(1, 197)]
    assert rows == [1]


@pytest.mark.parametrize("name", ENCODERS)
def test_no_head_keeps_an_attention_map(golden, trunk, name):
    """No [B, H, N, N] anywhere; scclip's [B, N, N] is one matrix per image for all heads."""
    with torch.no_grad(), Operations() as operations:
        HEADS[name](golden, trunk)
    maps = {s for d in (3, 4) for s in operations.shapes(d) if {*s[-2:]} <= {196, 197}}
    assert maps == ({(3, 196, 196)} if name == "scclip" else set())
    assert operations.count("_softmax") == (name == "scclip")


@pytest.mark.parametrize("name", ENCODERS)
def test_no_loop_over_images(golden, name):
    """As many operations for two images as for five."""
    counts = []
    for count in (2, 5):
        trunk = run_trunk(golden, seeded_images(count, seed=2))
        with torch.no_grad(), Operations() as operations:
            HEADS[name](golden, trunk)
        counts.append(len(operations.calls))
    assert counts[0] == counts[1] > 0


def test_only_what_is_read_is_kept(golden):
    images = golden_images()[:1]
    assert set(run_trunk(golden, images).hidden) == set(range(12))
    assert set(run_trunk(golden, images, ["sclip"]).hidden) == {11}
    assert set(run_trunk(golden, images, ["itaclip"]).hidden) == {6, 7, 9, 11}
    assert set(run_trunk(golden, images, ["scclip"]).hidden) == {4, 5, 6, 7, 8, 9, 10, 11}


# Depth, grids, bad input


def test_taps_scale_with_depth():
    layers = (4, 7, 8, 9, 10)
    assert [tap(x, 12) for x in layers] == [4, 7, 8, 9, 10]
    assert [tap(x, 24) for x in layers] == [8, 14, 16, 18, 20]
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


def test_a_grid_too_small_for_scclip_says_so():
    backbone = load_backbone(small_clip(image_size=80), device="cpu")  # 5 x 5
    images = torch.zeros(1, 3, 80, 80)
    with pytest.raises(ValueError, match=r"scclip needs more than 30 patches.* there are 25"):
        encode(backbone, images)
    assert encode(backbone, images, ["sclip"])["sclip"].shape == (1, 25, 64)


def test_an_unknown_encoder_is_named(golden):
    with pytest.raises(ValueError, match=r"no encoder 'saclip'.*vanilla, .*scclip"):
        encode(golden, golden_images(), ("sclip", "saclip"))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 112, 112),
        torch.zeros(3, 224, 224),
        torch.zeros(1, 3, 224, 224, dtype=torch.uint8),
    ],
)
def test_images_of_another_shape_or_kind(golden, images):
    with pytest.raises(ValueError, match=r"floats \[B, 3, 224, 224\], as backbone.preprocess"):
        encode(golden, images)


def test_a_picture_whose_patches_are_all_alike():
    clip = small_clip(image_size=112)
    torch.nn.init.zeros_(clip.visual.positional_embedding)
    backbone = load_backbone(clip, device="cpu")
    features = encode(backbone, torch.full((2, 3, 112, 112), 0.5), ENCODERS)
    for name in ENCODERS:
        assert features[name].isfinite().all()
        torch.testing.assert_close(
            features[name], features[name][:, :1].expand(-1, 49, -1), rtol=0, atol=1e-5
        )


# The steps of SC-CLIP


def naive_lof(points, k):
    """Straight from the definition, one image, float64."""
    n = len(points)
    d2 = ((points[:, None] - points[None]) ** 2).sum(-1)
    np.fill_diagonal(d2, np.inf)
    nearest = [sorted(range(n), key=row.__getitem__)[:k] for row in d2]
    lrd = [k / max(d2[i, j] for j in nearest[i]) for i in range(n)]
    return np.array([np.mean([lrd[j] / lrd[i] for j in nearest[i]]) for i in range(n)])


@pytest.mark.parametrize("k", [1, 5, 30])
def test_lof(k):
    points = np.random.default_rng(0).normal(size=(3, 49, 16)) ** 3 + 7
    expected = np.stack([naive_lof(p, k) for p in points])
    found = lof(torch.from_numpy(points).float(), k).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_outliers_are_above_the_quantile_of_their_own_image():
    points = torch.randn(2, 100, 8, generator=torch.Generator().manual_seed(0))
    points[0, [3, 50]] += 40
    points[1, [7, 11, 60]] += 40 * torch.arange(1, 4)[:, None]
    outliers = lof_outliers(points)
    for image, lonely in enumerate(([3, 50], [7, 11, 60])):
        factor = naive_lof(points[image].double().numpy(), 30)
        expected = factor > np.quantile(factor, 0.95)  # 5 of 100
        assert expected.sum() == 5
        assert outliers[image].tolist() == expected.tolist()
        assert outliers[image, lonely].all()
    assert not lof_outliers(torch.zeros(1, 49, 8)).any()  # none is above where all are alike


def naive_fill(tokens, outliers, side):
    filled = tokens.copy()
    for i in np.flatnonzero(outliers):
        row, column = divmod(i, side)
        around = [
            r * side + c
            for r in range(max(row - 1, 0), min(row + 2, side))
            for c in range(max(column - 1, 0), min(column + 2, side))
            if (r, c) != (row, column) and not outliers[r * side + c]
        ]
        if around:
            filled[i] = tokens[around].mean(0)
    return filled


def test_fill():
    random = np.random.default_rng(1)
    tokens = random.normal(size=(4, 36, 3))
    outliers = random.random((4, 36)) < np.array([0, 0.2, 0.8, 1])[:, None]
    outliers[1, [0, 1, 6, 7]] = True  # the corner has outliers around it only
    expected = np.stack([naive_fill(t, o, 6) for t, o in zip(tokens, outliers, strict=True)])
    found = fill(torch.from_numpy(tokens), torch.from_numpy(outliers)).numpy()
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(found[1, 0], tokens[1, 0])
    np.testing.assert_array_equal(found[0], tokens[0])
    np.testing.assert_array_equal(found[3], tokens[3])


def test_thresholded_affinity_keeps_beta_itself():
    similarity = torch.tensor([[[1.0, 0.4, 0.39999], [-0.9, 0.5, 0.5], [0.1, 0.2, 0.0]]])
    affinity = thresholded_affinity(similarity)
    expected = torch.tensor([[[1 / 1.4, 0.4 / 1.4, 0], [0, 0.5, 0.5], [0, 0, 0]]])
    torch.testing.assert_close(affinity, expected, rtol=0, atol=2e-6)


def test_similarity_attention_of_each_image_alone():
    similarity = torch.tensor([[[1.0, 0.5], [0.0, 1.0]], [[1.0, 0.9], [0.9, 1.0]]])
    given = similarity.clone()
    attention = similarity_attention(similarity)
    # Means 0.625 and 0.95: below them nothing is left but the patch itself.
    torch.testing.assert_close(attention, torch.eye(2).expand(2, 2, 2))
    assert similarity.equal(given)
    attention = similarity_attention(torch.tensor([[[1.0, 0.8], [0.0, 1.0]]]))  # mean 0.7
    first = np.exp([0.9, 0.3]) / np.exp([0.9, 0.3]).sum()
    expected = torch.tensor([[first.tolist(), [0, 1]]], dtype=torch.float32)
    torch.testing.assert_close(attention, expected)


def test_a_patch_without_direction_attends_to_itself():
    similarity = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])  # the first is below the mean throughout
    torch.testing.assert_close(similarity_attention(similarity)[0], torch.eye(2))


def test_the_calibration_of_a_call_goes_before_the_backbones(golden, golden_features):
    """None takes the backbone's, which is the paper's for a tower that brings none."""
    images, own = golden_images()[:1], copy.copy(golden)
    own.calibration = Calibration(beta=0.8, cls_share=0.1, gain=6.0)
    papers, mine = (
        encode(backbone, images, "scclip", False, calibration)["scclip"]
        for backbone, calibration in ((own, Calibration(0.4, 0.3, 3.0)), (own, None))
    )
    expected = golden_features["scclip"][:1]
    torch.testing.assert_close(papers, expected, rtol=0, atol=1e-4)
    for i, size in enumerate(own.calibration):  # each of the three counts
        one = Calibration()._replace(**{Calibration._fields[i]: size})
        changed = encode(golden, images, "scclip", False, one)["scclip"]
        assert (changed - expected).abs().max() > 1e-3
    assert (mine - expected).abs().max() > 1e-3
