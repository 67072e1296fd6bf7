"""Patch encoders: the paper's first step, "mitigating semantic entanglement".

The last block of CLIP's image tower writes the whole picture's content into every patch. Each
encoder replaces that block. :func:`run_trunk` runs blocks 1 to L - 1 once, for [CLS] too, and one
small function per encoder goes on from there.

Notation: h_l is the output of block l = 1..L, tokens [CLS] first and then N = g * g patches;
q, k, v are the heads' queries, keys and values of a block; S(a) = softmax(a a^T / sqrt(d)) per
head; out(.) is the output projection of the last block's attention. Sums of attention maps are
never formed: (S(q) + S(k)) v = S(q) v + S(k) v, each by PyTorch's fused attention.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from piaa_utils.backbone import Backbone
from piaa_utils.settings import Calibration

ITACLIP_BLOCKS = (7, 8, 10)  # blocks, of 12, whose attention maps ITACLIP joins to the last's
SCCLIP_MID, SCCLIP_POST, SCCLIP_MULTI = 9, 4, (4, 5, 6, 7, 8, 9, 10)  # outputs of blocks, of 12
NEIGHBOURS = 30  # k of the local outlier factor
INLIERS = 0.95  # quantile of the local outlier factor above which a patch is an outlier


class Trunk(NamedTuple):
    """What the encoders share: block outputs, and the last block's queries, keys and values."""

    hidden: dict[int, Tensor]  # l -> h_l [B, 1+N, D_v]; h_0 enters block 1
    q: Tensor  # [B, H, 1+N, d], likewise k and v
    k: Tensor
    v: Tensor


@torch.no_grad()  # not inference mode: its tensors could not be trained on later
def encode(
    backbone: Backbone,
    images: Tensor,
    encoders: Sequence[str] = ("scclip",),
    normalize: bool = True,
    calibration: Calibration | None = None,
) -> dict[str, Tensor]:
    """Encode images: the [CLS] embedding and, for each encoder asked, all patch embeddings.

    images : float [B, 3, S, S] on any device, as ``backbone.preprocess`` makes them; another shape,
        or a grid too small for scclip, is a ValueError.
    encoders : names out of ``ENCODERS``.    normalize : rows of unit length, as the method wants.
    calibration : scclip's beta, CLS share and gain; None takes those of the backbone.

    Returns {"cls": [B, D], name: [B, N, D] for each name}, float32, patches row by row of the grid.

    >>> from piaa_utils.backbone import load_backbone
    >>> backbone = load_backbone("mini", device="cpu")
    >>> features = encode(backbone, torch.zeros(2, 3, 224, 224), ("vanilla", "scclip"))
    >>> {name: tuple(x.shape) for name, x in features.items()}
    {'cls': (2, 128), 'vanilla': (2, 196, 128), 'scclip': (2, 196, 128)}
    """
    encoders = (encoders,) if isinstance(encoders, str) else tuple(encoders)
    for name in encoders:
        if name not in HEADS:
            raise ValueError(f"There is no encoder {name!r}; there are {', '.join(ENCODERS)}.")
    with backbone.autocast():
        trunk = run_trunk(backbone, images, encoders)
        features = {"cls": cls_head(backbone, trunk)}
        for name in encoders:
            own = (calibration,) if name == "scclip" else ()
            features[name] = HEADS[name](backbone, trunk, *own)
    features = {name: x.float() for name, x in features.items()}
    return {k: F.normalize(x, dim=-1) for k, x in features.items()} if normalize else features


def run_trunk(backbone: Backbone, images: Tensor, encoders: Sequence[str] | None = None) -> Trunk:
    """Blocks 1 to L - 1 on images [B, 3, S, S]; keeps what the encoders read, by default all."""
    side = backbone.image_size
    if images.shape[1:] != (3, side, side) or not images.is_floating_point():
        wanted = f"as floats [B, 3, {side}, {side}], as backbone.preprocess makes them"
        found = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"{backbone.name} takes images {wanted}, not {found}.")
    layers = range(backbone.depth) if encoders is None else layers_read(encoders, backbone.depth)
    visual = backbone.model.visual
    pixels = images.to(backbone.device, torch.float32)
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)  # [B, N, D_v]
    cls = visual.class_embedding.expand(len(images), 1, -1)
    x = visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding)  # h_0
    hidden = {0: x} if 0 in layers else {}
    for layer, block in enumerate(backbone.blocks[:-1], start=1):
        x = block(x)
        if layer in layers:
            hidden[layer] = x
    return Trunk(hidden, *heads(backbone.blocks[-1], x, "qkv"))


def tap(layer: int, depth: int) -> int:
    """The layer of a tower of any depth L that stands for a layer of 12: round(l L / 12).

    >>> [tap(layer, 12) for layer in (4, 9, 10)], [tap(layer, 24) for layer in (4, 9, 10)]
    ([4, 9, 10], [8, 18, 20])
    """
    return min(max(round(layer * depth / 12), 1), depth - 1)


def layers_read(encoders: Sequence[str], depth: int) -> set[int]:
    """The block outputs that encoders read; 0 is the input of block 1."""
    layers = {depth - 1}
    if "itaclip" in encoders:
        layers |= {tap(layer, depth) - 1 for layer in ITACLIP_BLOCKS}
    if "scclip" in encoders:
        layers |= {tap(layer, depth) for layer in (SCCLIP_MID, SCCLIP_POST, *SCCLIP_MULTI)}
    return layers


def heads(block: ResidualAttentionBlock, x: Tensor, parts: str) -> Tensor:
    """Parts "qkv", "qk" or "kv" of a block's input [B, T, D_v]: [len(parts), B, H, T, d]."""
    attn, width = block.attn, x.shape[-1]
    rows = {"qkv": slice(None), "qk": slice(2 * width), "kv": slice(width, None)}[parts]
    packed = F.linear(block.ln_1(x), attn.in_proj_weight[rows], attn.in_proj_bias[rows])
    return packed.unflatten(-1, (len(parts), attn.num_heads, -1)).permute(2, 0, 3, 1, 4)


def concat_heads(x: Tensor) -> Tensor:
    """Heads side by side: [B, H, T, d] -> [B, T, D_v]."""
    return x.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, heads concatenated: [B, T, D_v]; the map is not kept."""
    return concat_heads(F.scaled_dot_product_attention(q, k, v))


def mlp(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """Return x plus the block's MLP of it."""
    return x + block.mlp(block.ln_2(x))


def project(backbone: Backbone, x: Tensor) -> Tensor:
    """Tokens in the joint embedding: ln_post, then the projection D_v -> D."""
    visual = backbone.model.visual
    return visual.ln_post(x) @ visual.proj


def last(backbone: Backbone, trunk: Trunk) -> tuple[ResidualAttentionBlock, Tensor, Tensor]:
    """The last block, and the tokens that enter it: [CLS] [B, 1, D_v], patches."""
    x = trunk.hidden[backbone.depth - 1]
    return backbone.blocks[-1], x[:, :1], x[:, 1:]


# The heads: one per encoder. Each takes the trunk and returns embeddings before unit length.


def cls_head(backbone: Backbone, trunk: Trunk) -> Tensor:
    """[CLS] as in CLIP, untouched: the ordinary last block, run for that one query. [B, D]."""
    block, cls, _ = last(backbone, trunk)
    cls = cls + block.attn.out_proj(attend(trunk.q[:, :, :1], trunk.k, trunk.v))
    return project(backbone, mlp(block, cls))[:, 0]


def vanilla(backbone: Backbone, trunk: Trunk) -> Tensor:
    """The patches of the ordinary last block, CLIP as it is. [B, N, D]."""
    block, _, x = last(backbone, trunk)
    x = x + block.attn.out_proj(attend(trunk.q[:, :, 1:], trunk.k, trunk.v))
    return project(backbone, mlp(block, x))


def maskclip(backbone: Backbone, trunk: Trunk) -> Tensor:
    """MaskCLIP: each patch attends to itself alone, x + out(v), then the MLP. [B, N, D]."""
    block, _, x = last(backbone, trunk)
    x = x + block.attn.out_proj(concat_heads(trunk.v[:, :, 1:]))
    return project(backbone, mlp(block, x))


def clearclip(backbone: Backbone, trunk: Trunk) -> Tensor:
    """ClearCLIP: out(S(q) v), without residual and MLP. [B, N, D]."""
    block = backbone.blocks[-1]
    return project(backbone, block.attn.out_proj(attend(trunk.q[:, :, 1:], trunk.q, trunk.v)))


def sclip(backbone: Backbone, trunk: Trunk) -> Tensor:
    """SCLIP: x + out((S(q) + S(k)) v), then the MLP; rows of the sum add to 2. [B, N, D]."""
    block, _, x = last(backbone, trunk)
    x = x + block.attn.out_proj(correlate(trunk.q, trunk.k, trunk.v))
    return project(backbone, mlp(block, x))


def itaclip(backbone: Backbone, trunk: Trunk) -> Tensor:
    """ITACLIP: x + out(A v), without MLP; A joins maps of middle blocks to the last's. [B, N, D].

    A_l = S(q) + S(k) of block l from its own input; A = A_L / 2 + (mean of A_7, A_8, A_10) / 2.
    """
    block, _, x = last(backbone, trunk)
    middle = []
    for layer in (tap(layer, backbone.depth) for layer in ITACLIP_BLOCKS):
        q, k = heads(backbone.blocks[layer - 1], trunk.hidden[layer - 1], "qk")
        middle.append(correlate(q, k, trunk.v) / len(ITACLIP_BLOCKS))
    a_v = correlate(trunk.q, trunk.k, trunk.v) / 2 + reduce(torch.add, middle) / 2
    return project(backbone, x + block.attn.out_proj(a_v))


def correlate(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(S(q) + S(k)) v of the patches, [CLS] among the keys: [B, N, D_v]."""
    return attend(q[:, :, 1:], q, v) + attend(k[:, :, 1:], k, v)


def scclip(backbone: Backbone, trunk: Trunk, calibration: Calibration | None = None) -> Tensor:
    """SC-CLIP, self-calibrated CLIP: ten steps, numbered as in the comments. [B, N, D]."""
    beta, cls_share, gain = calibration or backbone.calibration
    hidden = {layer: trunk.hidden[tap(layer, backbone.depth)] for layer in SCCLIP_MULTI}
    # 1. What enters the last block: patches P and [CLS].
    block, cls, patches = last(backbone, trunk)
    # No rounded products decide who belongs to whom (but h_4 and h_9 may be a float16 trunk's).
    with backbone.autocast(enabled=False):
        # 2. Outliers among P, by their local outlier factor.
        outliers = lof_outliers(patches)
        # 3. fill(.): outliers become the mean of their neighbours on the grid, in P and in h_9.
        mid, patches = fill(hidden[SCCLIP_MID][:, 1:], outliers), fill(patches, outliers)
        # 4. M = cosine similarity of the filled h_9; M_beta = its entries from beta on, rows to
        # sum 1. Further down, R_beta likewise of h_4, unfilled.
        similarity = cosine_similarity(mid)
        affinity = thresholded_affinity(cosine_similarity(hidden[SCCLIP_POST][:, 1:]), beta)
        # 5. x = M_beta P
        x = thresholded_affinity(similarity, beta) @ patches
        # 6. G = gain (M - mean M), negative entries to -inf;
        # attn(z) = out((softmax(G) + S(k_z)) v_z / 2)
        softmax_g = similarity_attention(similarity, gain)
    # 7. y = attn(x) + share cls: no residual, no MLP.
    y = calibrated_attention(block, x, softmax_g) + cls_share * cls
    # 8. y <- R_beta y
    y = affinity @ y
    # 9. z = h_4 + ... + h_10: y <- y + R_beta (attn(z) + share CLS of z)
    z = reduce(torch.add, hidden.values())
    y = y + affinity @ (calibrated_attention(block, z[:, 1:], softmax_g) + cls_share * z[:, :1])
    # 10. Into the joint embedding.
    return project(backbone, y)


def lof(patches: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """The simplified local outlier factor of every patch of every image (step 2).

    With d2_ij = |p_i - p_j|^2 and the k nearest neighbours of i, itself excluded: kd_i = the
    largest of their k distances, lrd_i = k / kd_i, lof_i = mean over them of lrd_j / lrd_i.
    About 1 among equals; larger, the lonelier. [B, N, D] -> positive [B, N].

    >>> line = torch.tensor([[[0.0], [1.0], [2.0], [9.0]]])
    >>> lof(line, k=1)
    tensor([[ 1.,  1.,  1., 49.]])
    """
    count = patches.shape[1]
    if count <= k:
        why = f"more than {k} patches, to compare each with its {k} nearest, and there are {count}"
        mend = "use another encoder or larger images (image_size)"
        raise ValueError(f"The encoder scclip needs {why}: {mend}.")
    patches = patches - patches.mean(1, keepdim=True)  # distances stay, rounding shrinks
    norms = patches.square().sum(-1)
    sums = norms[:, :, None] + norms[:, None]
    distances = torch.baddbmm(sums, patches, patches.transpose(1, 2), alpha=-2)
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # itself excluded
    nearest, neighbours = distances.topk(k, largest=False, sorted=False)  # [B, N, k]
    tiny = torch.finfo(patches.dtype).tiny  # equal patches: all factors 1
    lrd = k / nearest.amax(-1).clamp_min(tiny**0.5)
    return lrd[:, None].expand(-1, count, -1).gather(2, neighbours).mean(-1) / lrd


def lof_outliers(patches: Tensor) -> Tensor:
    """Which patches are outliers (step 2), above the image's 0.95 quantile: bool [B, N]."""
    factor = lof(patches)
    return factor > factor.quantile(INLIERS, dim=1, keepdim=True)


def fill(tokens: Tensor, outliers: Tensor) -> Tensor:
    """Outliers, bool [B, N], of a square grid of tokens [B, N, D] become the mean of those of their
    8 neighbours that are none (step 3).

    >>> tokens = torch.arange(9.0).view(1, 9, 1)
    >>> fill(tokens, tokens[..., 0] == 0).flatten()[:4]  # the mean of 1, 3 and 4
    tensor([2.6667, 1.0000, 2.0000, 3.0000])
    """
    patches = torch.arange(outliers.shape[1], device=tokens.device)
    side = round(len(patches) ** 0.5)
    rows, columns = ((x[:, None] - x).abs() for x in (patches // side, patches % side))
    neighbours = torch.maximum(rows, columns) == 1  # [N, N]: they touch, corners included
    weights = (neighbours & ~outliers[:, None]).to(tokens.dtype)
    count = weights.sum(-1, keepdim=True)
    means = weights @ tokens / count.clamp_min(1)
    return torch.where(outliers[..., None] & (count > 0), means, tokens)


def cosine_similarity(tokens: Tensor) -> Tensor:
    """The cosines between all patches of an image: [B, N, D] -> [B, N, N] (step 4)."""
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.transpose(1, 2)


def thresholded_affinity(similarity: Tensor, beta: float = Calibration().beta) -> Tensor:
    """Similarities [B, N, N] with those below beta set to 0, over the row's sum (step 4).

    >>> thresholded_affinity(torch.tensor([[[1.0, 0.6, 0.3]]]))
    tensor([[[0.6250, 0.3750, 0.0000]]])
    """
    kept = torch.where(similarity < beta, 0.0, similarity)
    return kept / (kept.sum(-1, keepdim=True) + 1e-6)


def similarity_attention(similarity: Tensor, gain: float = Calibration().gain) -> Tensor:
    """softmax(G), G = gain (M - mean M of the image), negative to -inf: [B, N, N] (step 6)."""
    g = gain * (similarity - similarity.mean((1, 2), keepdim=True))
    apart = g < 0
    apart.diagonal(dim1=1, dim2=2).fill_(False)  # itself, where rounding puts M below its mean
    return g.masked_fill_(apart, -torch.inf).softmax(-1)


def calibrated_attention(block: ResidualAttentionBlock, z: Tensor, softmax_g: Tensor) -> Tensor:
    """attn(z) = out((softmax(G) + S(k_z)) v_z / 2) of patches z [B, N, D_v] (step 6)."""
    k, v = heads(block, z, "kv")
    return block.attn.out_proj((softmax_g @ concat_heads(v) + attend(k, k, v)) / 2)


_ALL = vanilla, maskclip, clearclip, sclip, itaclip, scclip
HEADS: dict[str, Callable[..., Tensor]] = {head.__name__: head for head in _ALL}
ENCODERS = tuple(HEADS)
