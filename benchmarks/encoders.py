"""[CLS] and patches from one trunk pass against the two whole passes of the release (CPU).

The baseline is written from the method's definition: one ordinary CLIP pass for [CLS], then a
second pass for the patches, whose attention maps [B, H, T, T] are formed one head each. Both give
the same features; the script checks that first.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import resource
import subprocess
import sys
from statistics import median

import common
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.encoders import (
    BETA,
    CLS_SHARE,
    ITACLIP_BLOCKS,
    SCCLIP_MULTI,
    embed,
    encode,
    fill,
    lof_outliers,
)

NAMES = ("sclip", "itaclip", "scclip")
TINY = {"image_size": 112, "patch_size": 16, "layers": 12, "width": 128}
GROUPS = {  # of PyTorch's operations, in the profile
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "mkldnn_convolution"),
    "fused attention": ("_scaled_dot_product_flash_attention_for_cpu",),
    "softmax": ("_softmax",),
    "QuickGELU": ("sigmoid", "mul"),
    "layer norm": ("native_layer_norm",),
    "copies": ("copy_", "cat", "clone", "_transform_bias_rescale_qkv"),
}


def attention_flops(q: tuple, k: tuple, v: tuple, *_, **__) -> int:
    """Of fused attention, from the shapes [B, H, T, d]: q k^T, and the map times v."""
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])


# PyTorch's counter does not know the CPU's.
ATTENTION_FLOPS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}


# The release, literally


def plain_pass(backbone: Backbone, images: Tensor) -> Tensor:
    """An ordinary CLIP pass: unit [CLS] [B, D]."""
    return backbone.model.encode_image(images, normalize=True)


def patch_pass(backbone: Backbone, images: Tensor, name: str) -> Tensor:
    """A whole pass of a patch encoder, maps and all: unit patches [B, N, D]."""
    visual, block = backbone.model.visual, backbone.blocks[-1]
    x = embed(visual, images)
    hidden, maps = [x], []
    for layer, ordinary in enumerate(backbone.blocks[:-1], start=1):
        if name == "itaclip" and layer in ITACLIP_BLOCKS:
            q, k, _ = qkv(ordinary, x)
            maps.append(attention_map(q) + attention_map(k))
        x = ordinary(x)
        hidden.append(x)
    if name == "scclip":
        y = scclip_released(block, hidden)
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


def scclip_released(block: nn.Module, hidden: list[Tensor]) -> Tensor:
    """The steps of SC-CLIP with a map for each head (per image, as at batch size 1)."""

    def attend(z: Tensor) -> Tensor:
        _, k, v = qkv(block, z)
        shared = g[:, None].expand(-1, k.shape[1], -1, -1)
        return out(block, (shared.softmax(-1) + attention_map(k)) / 2 @ v)

    def affinity(similarity: Tensor) -> Tensor:
        kept = similarity.masked_fill(similarity < BETA, 0)
        return kept / (kept.sum(-1, keepdim=True) + 1e-6)

    def cosines(tokens: Tensor) -> Tensor:
        unit = F.normalize(tokens, dim=-1)
        return unit @ unit.transpose(1, 2)

    cls, patches = hidden[11][:, :1], hidden[11][:, 1:]
    outliers = lof_outliers(patches)
    m = cosines(fill(hidden[9][:, 1:], outliers))
    x = affinity(m) @ fill(patches, outliers)
    g = 3 * (m - m.mean((1, 2), keepdim=True))
    g = g.masked_fill(g < 0, -torch.inf)
    r = affinity(cosines(hidden[4][:, 1:]))
    y = r @ (attend(x) + CLS_SHARE * cls)
    z = torch.stack([hidden[layer] for layer in SCCLIP_MULTI]).sum(0)
    return y + r @ (attend(z[:, 1:]) + CLS_SHARE * z[:, :1])


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


def speed(backbone: Backbone, images: Tensor, repeats: int, clock: str) -> dict:
    """Seconds of each, round by round, with the peak of matrix products in between."""
    side = 512 if images.shape[-1] < 224 else 2048
    a, b = torch.randn(2, side, side)
    work = {"plain": lambda: plain_pass(backbone, images), "mm": lambda: torch.mm(a, b)}
    for name in NAMES:
        work[f"{name}, ours"] = lambda name=name: encode(backbone, images, [name])
        work[f"{name}, patch pass"] = lambda name=name: patch_pass(backbone, images, name)
    seconds = common.rounds(work, repeats, clock)
    return {"seconds": seconds, "peak": 2 * side**3 / min(seconds["mm"])}


def flops(run) -> int:
    """Floating-point operations of matrix products, attention and convolution."""
    torch.backends.mha.set_fastpath_enabled(False)  # its insides are not counted
    try:
        with FlopCounterMode(display=False, custom_mapping=ATTENTION_FLOPS) as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops()


def spent(run) -> dict[str, float]:
    """Share of the time in each group of operations."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    times = {e.key.removeprefix("aten::"): e.self_cpu_time_total for e in profiler.key_averages()}
    total = sum(times.values())
    shares = {g: sum(times.get(n, 0) for n in names) / total for g, names in GROUPS.items()}
    return shares | {"all else": 1 - sum(shares.values())}


def allocators(options) -> dict[str, dict]:
    """Seconds and page faults of a pass with the system's allocator and with jemalloc."""
    library = ctypes.util.find_library("jemalloc")
    if library is None:
        return {}
    command = [sys.executable, __file__, "--child", f"--batch={options.batch}"]
    command += [f"--threads={options.threads}", f"--clock={options.clock}"]
    command += ["--tiny"] * options.tiny
    found: dict[str, list] = {"system": [], "jemalloc": []}
    for _ in range(2):
        for name in found:
            environment = dict(os.environ, LD_PRELOAD=library if name == "jemalloc" else "")
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        name: {key: median(one[key] for one in each) for key in each[0]}
        for name, each in found.items()
    }


def child(backbone: Backbone, images: Tensor, clock: str) -> None:
    """Print seconds and page faults of one pass of scclip, as JSON."""
    faults = []

    def run():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        encode(backbone, images, ["scclip"])
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    seconds = common.rounds({"scclip": run}, 3, clock)["scclip"]
    print(json.dumps({"seconds": median(seconds), "page faults": median(faults[1:])}))


@torch.no_grad()
def main() -> None:
    parser = common.options(__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="images at once")
    parser.add_argument("--child", action="store_true", help="measure one pass; used internally")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    backbone = tower(options.tiny)
    images = images_for(backbone, options.batch)
    if options.child:
        return child(backbone, images, options.clock)

    same_features(backbone, images)
    measured = speed(backbone, images, options.repeats, options.clock)
    seconds, peak = measured["seconds"], measured["peak"]
    plain = seconds["plain"]
    runs = {"plain": lambda: plain_pass(backbone, images)}
    runs |= {n: lambda n=n: encode(backbone, images, [n]) for n in NAMES}
    counts = {name: flops(run) for name, run in runs.items()}

    result, rows = {"batch": options.batch, "peak GFLOP/s": peak / 1e9, "encoders": {}}, []
    for name in runs:
        ours = plain if name == "plain" else seconds[f"{name}, ours"]
        entry = {
            "images/s": options.batch / median(ours),
            "cost in plain passes": common.ratio(ours, plain),
            "share of peak": counts[name] / median(ours) / peak,
            "GFLOP/image": counts[name] / options.batch / 1e9,
        }
        if name != "plain":
            two = [a + b for a, b in zip(plain, seconds[f"{name}, patch pass"], strict=True)]
            entry["speed-up over two passes"] = common.ratio(two, ours)
        result["encoders"][name] = entry
        rows.append(
            [
                "one plain CLIP pass" if name == "plain" else f"[CLS] + {name}",
                f"{entry['images/s']:.2f}",
                f"{entry.get('speed-up over two passes', float('nan')):.2f}".replace("nan", "-"),
                f"{entry['cost in plain passes']:.2f}",
                f"{entry['GFLOP/image']:.1f}",
                f"{entry['share of peak']:.0%}",
            ]
        )
    header = ["", "images/s", "times two passes", "cost in plain passes", "GFLOP/image"]
    text = common.table([*header, "of matrix peak"], rows)

    result["time spent in"] = {name: spent(runs[name]) for name in ("plain", "scclip")}
    shares = result["time spent in"]
    rows = [[g, *(f"{shares[n][g]:.1%}" for n in shares)] for g in (*GROUPS, "all else")]
    text += f"\n\nPeak of torch.mm: {peak / 1e9:.0f} GFLOP/s.\n\n"
    text += common.table(["time spent in", "plain pass", "[CLS] + scclip"], rows)

    result["allocators"] = allocators(options)
    if result["allocators"]:
        rows = [
            [name, f"{one['seconds']:.3f}", f"{one['page faults']:.0f}"]
            for name, one in result["allocators"].items()
        ]
        text += "\n\n" + common.table(["allocator", "seconds a batch", "page faults"], rows)
    else:
        text += "\n\nNo jemalloc on this machine (Debian: libjemalloc2): allocators not compared."
    common.report("encoders", text, result, options.out, options.clock)


if __name__ == "__main__":
    main()
