"""[CLS] and patches from one trunk pass against the two whole passes of the release (CPU).

The baseline is written from the method's definition: one ordinary CLIP pass for [CLS], then a
second pass for the patches, whose attention maps [B, H, T, T] are formed one head each. Both give
the same features; the script checks that first.
"""

from __future__ import annotations

from statistics import median

import common
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.encoders import ITACLIP_BLOCKS, SCCLIP_MULTI, encode, fill, lof_outliers

NAMES = ("sclip", "itaclip", "scclip")
TINY = {"image_size": 112, "patch_size": 16, "layers": 12, "width": 128}


# The release, literally


def plain_pass(backbone: Backbone, images: Tensor) -> Tensor:
    """An ordinary CLIP pass: unit [CLS] [B, D]."""
    return backbone.model.encode_image(images, normalize=True)


def patch_pass(backbone: Backbone, images: Tensor, name: str) -> Tensor:
    """A whole pass of a patch encoder, maps and all: unit patches [B, N, D]."""
    visual, block = backbone.model.visual, backbone.blocks[-1]
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(images), 1, -1)
    x = visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding)
    hidden, maps = [x], []
    for layer, ordinary in enumerate(backbone.blocks[:-1], start=1):
        if name == "itaclip" and layer in ITACLIP_BLOCKS:
            q, k, _ = qkv(ordinary, x)
            maps.append(attention_map(q) + attention_map(k))
        x = ordinary(x)
        hidden.append(x)
    if name == "scclip":
        y = scclip_released(backbone, hidden)
    else:
        q, k, v = qkv(block, x)
        attention = attention_map(q) + attention_map(k)
        if name == "itaclip":
            attention = attention / 2 + torch.stack(maps).mean(0) / 2
        y = x + out(block, attention @ v)
        if name == "sclip":
            y = y + block.mlp(block.ln_2(y))
        y = y[:, 1:]
    return F.normalize(visual.ln_post(y) @ visual.proj, dim=-1)


def qkv(block: nn.Module, x: Tensor) -> list[Tensor]:
    """Queries, keys, values [B, H, T, d] of a block's input."""
    packed = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    heads = block.attn.num_heads
    return [p.unflatten(-1, (heads, -1)).transpose(1, 2) for p in packed.chunk(3, dim=-1)]


def attention_map(a: Tensor) -> Tensor:
    """S(a) = softmax(a a^T / sqrt(d)): [B, H, T, T]."""
    return (a @ a.transpose(-1, -2) * a.shape[-1] ** -0.5).softmax(-1)


def out(block: nn.Module, heads: Tensor) -> Tensor:
    """The output projection of heads [B, H, T, d]."""
    return block.attn.out_proj(heads.transpose(1, 2).flatten(2))


def scclip_released(backbone: Backbone, hidden: list[Tensor]) -> Tensor:
    """The steps of SC-CLIP with a map for each head (per image, as at batch size 1)."""
    block, (beta, cls_share, gain) = backbone.blocks[-1], backbone.calibration

    def attend(z: Tensor) -> Tensor:
        _, k, v = qkv(block, z)
        shared = g[:, None].expand(-1, k.shape[1], -1, -1)
        return out(block, (shared.softmax(-1) + attention_map(k)) / 2 @ v)

    def affinity(similarity: Tensor) -> Tensor:
        kept = similarity.masked_fill(similarity < beta, 0)
        return kept / (kept.sum(-1, keepdim=True) + 1e-6)

    def cosines(tokens: Tensor) -> Tensor:
        unit = F.normalize(tokens, dim=-1)
        return unit @ unit.transpose(1, 2)

    cls, patches = hidden[11][:, :1], hidden[11][:, 1:]
    outliers = lof_outliers(patches)
    m = cosines(fill(hidden[9][:, 1:], outliers))
    x = affinity(m) @ fill(patches, outliers)
    g = gain * (m - m.mean((1, 2), keepdim=True))
    g = g.masked_fill(g < 0, -torch.inf)
    r = affinity(cosines(hidden[4][:, 1:]))
    y = r @ (attend(x) + cls_share * cls)
    z = torch.stack([hidden[layer] for layer in SCCLIP_MULTI]).sum(0)
    return y + r @ (attend(z[:, 1:]) + cls_share * z[:, :1])


# Measuring


def tower(tiny: bool) -> Backbone:
    """An image tower of ViT-B/16's shape with seeded random weights, or a tiny one."""
    torch.manual_seed(0)
    vision = TINY if tiny else open_clip.get_model_config("ViT-B-16-quickgelu")["vision_cfg"]
    text = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
    clip = open_clip.CLIP(512, vision, text, quick_gelu=True)
    return load_backbone(clip, device="cpu")


def images_for(backbone: Backbone, batch: int) -> Tensor:
    """Random images [B, 3, S, S]."""
    size = (batch, 3, backbone.image_size, backbone.image_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def same_features(backbone: Backbone, images: Tensor) -> None:
    """Refuse to time two computations that do not give the same."""
    for name in NAMES:
        ours = encode(backbone, images, [name])
        theirs = {"cls": plain_pass(backbone, images), name: patch_pass(backbone, images, name)}
        for key, x in theirs.items():
            # A similarity next to a threshold may fall on the other side: a few patches differ.
            agree = ((ours[key] - x).abs().amax(-1) < 1e-4).float().mean()
            if agree < 0.95:
                raise SystemExit(f"{name}: {key} differ, only {agree:.1%} agree to 1e-4.")


@torch.no_grad()
def main() -> None:
    parser = common.options(__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="images at once")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    backbone = tower(options.tiny)
    images = images_for(backbone, options.batch)
    same_features(backbone, images)

    work = {"plain": lambda: plain_pass(backbone, images)}
    for name in NAMES:
        work[name] = lambda name=name: encode(backbone, images, [name])
        work[f"{name}, patch pass"] = lambda name=name: patch_pass(backbone, images, name)
    seconds = common.rounds(work, options.repeats, options.clock)
    result, rows = {"batch": options.batch, "encoders": {}}, []
    for name in ("plain", *NAMES):
        ours = seconds[name]
        second = seconds.get(f"{name}, patch pass", [0.0] * len(ours))  # the release's second pass
        two = [a + b for a, b in zip(seconds["plain"], second, strict=True)]
        entry = {
            "images/s": options.batch / median(ours),
            "speed-up over two passes": common.ratio(two, ours),
            "cost in plain passes": common.ratio(ours, seconds["plain"]),
        }
        result["encoders"][name] = entry
        title = "one plain CLIP pass" if name == "plain" else f"[CLS] + {name}"
        rows.append([title, *(f"{x:.2f}" for x in entry.values())])
    header = ["", "images/s", "times two passes", "cost in plain passes"]
    common.report("encoders", common.table(header, rows), result, options)


if __name__ == "__main__":
    main()
