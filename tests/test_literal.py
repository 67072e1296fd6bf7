"""PIAA with the release's choices against a slow, literal evaluation of its formulas in float64.

Nothing here comes from piaa_utils but the weights and the pictures; the blocks of CLIP are
open_clip's, taken apart: attention maps in full, selection by sorting a list, the Gaussian and the
aggregation written out.
"""

import copy
import math

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from piaa_utils.classifier import Recipe
from piaa_utils.encoders import encode
from piaa_utils.pipeline import PIAA
from piaa_utils.settings import PAPER, PURIFY_TEMPERATURE, Calibration
from piaa_utils.worlds import mini_scenes

NAMES = ["person", "cat", "chair", "boat", "dog"]
LEARN, TEST = 12, 5  # pictures
# Patches of a class. Chosen so that nothing hides: of few SC-CLIP patches, which are much alike,
# the Gaussian is so narrow that q and the scores are 0 or 1 whatever T and m are.
K = {"scclip": 512, "sclip": 150, "itaclip": 150}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
GRID = 14


# CLIP in float64


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def pixels(path):
    """[3, 224, 224]; the mini world's pictures have that size."""
    image = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) / 255
    return torch.from_numpy(((image - MEAN) / STD).transpose(2, 0, 1))


def apply(layer, x):
    return layer(torch.from_numpy(x)).numpy()


class Tower:
    """An open_clip model whose image tower has 12 blocks, in float64; frozen."""

    def __init__(self, clip):
        self.clip = copy.deepcopy(clip).double()
        self.blocks = [None, *self.clip.visual.transformer.resblocks]  # 1..12
        for block in self.blocks[1:]:
            block.register_forward_hook(lambda _, x, y: self.h.append(y[0].numpy()))

    def hidden(self, path):
        """The outputs of all blocks, [CLS] first: h_l at l."""
        self.h = [None]
        self.clip.encode_image(pixels(path)[None])
        return self.h

    def qkv(self, block, x):
        """Queries, keys and values, each [heads, tokens, 64], of block 1..12."""
        attn, x = self.blocks[block].attn, apply(self.blocks[block].ln_1, x)
        x = x @ attn.in_proj_weight.numpy().T + attn.in_proj_bias.numpy()
        return [p.reshape(len(x), -1, 64).transpose(1, 0, 2) for p in np.split(x, 3, axis=1)]

    def out(self, heads):
        """The last block's projection of attention results [heads, tokens, 64]."""
        x = heads.transpose(1, 0, 2).reshape(heads.shape[1], -1)
        return apply(self.blocks[12].attn.out_proj, x)

    def mlp(self, x):
        """x and the last block's MLP of it."""
        return x + apply(self.blocks[12].mlp, apply(self.blocks[12].ln_2, x))

    def project(self, x):
        return unit(apply(self.clip.visual.ln_post, x) @ self.clip.visual.proj.numpy())

    def text(self, names):
        tokens = SimpleTokenizer(context_length=77)([f"a photo of a {name}" for name in names])
        return unit(self.clip.encode_text(tokens).numpy())


# The patch encoders; S(a) = softmax of a a^T / sqrt(64), for each head


def S(a):
    return softmax(a @ a.transpose(0, 2, 1) / 8)


def sclip(tower, h):
    q, k, v = tower.qkv(12, h[11])
    return tower.project(tower.mlp(h[11] + tower.out((S(q) + S(k)) @ v)))[1:]


def maskclip(tower, h):
    _, _, v = tower.qkv(12, h[11])
    return tower.project(tower.mlp(h[11] + tower.out(v)))[1:]


def clearclip(tower, h):
    q, _, v = tower.qkv(12, h[11])
    return tower.project(tower.out(S(q) @ v))[1:]


def itaclip(tower, h):
    v = tower.qkv(12, h[11])[2]
    maps = {}
    for block in (7, 8, 10, 12):
        q, k, _ = tower.qkv(block, h[block - 1])
        maps[block] = S(q) + S(k)
    A = maps[12] / 2 + (maps[7] + maps[8] + maps[10]) / 3 / 2
    return tower.project(h[11] + tower.out(A @ v))[1:]


def lof(P, k=30):
    """The local outlier factors of patches: distances by hand, k neighbours."""
    d = ((P[:, None] - P[None]) ** 2).sum(-1)
    neighbours, lrd = [], []
    for i in range(len(P)):
        nearest = sorted((d[i, j], j) for j in range(len(P)) if j != i)[:k]
        neighbours.append([j for _, j in nearest])
        lrd.append(k / nearest[-1][0])
    return np.array([np.mean([lrd[j] for j in neighbours[i]]) / lrd[i] for i in range(len(P))])


def outliers(P):
    factors = lof(P)
    return factors > np.quantile(factors, 0.95)


def fill(x, bad, grid=GRID):
    out = x.copy()
    for i in np.flatnonzero(bad):
        row, column = divmod(i, grid)
        around = [
            r * grid + c
            for r in range(max(row - 1, 0), min(row + 2, grid))
            for c in range(max(column - 1, 0), min(column + 2, grid))
            if not bad[r * grid + c]
        ]
        if around:
            out[i] = x[around].mean(0)
    return out


def affinity(M):
    M = np.where(M < 0.4, 0, M)
    return M / (M.sum(1, keepdims=True) + 1e-6)


def scclip(tower, h):
    P, cls = h[11][1:], h[11][:1]
    bad = outliers(P)
    mid = unit(fill(h[9][1:], bad))
    M = mid @ mid.T
    G = 3 * (M - M.mean())
    softmax_G = softmax(np.where(G < 0, -np.inf, G))

    def attn(z):
        _, k, v = tower.qkv(12, z)
        return tower.out((softmax_G[None] + S(k)) / 2 @ v)

    y = attn(affinity(M) @ fill(P, bad)) + 0.3 * cls
    post = unit(h[4][1:])
    R = affinity(post @ post.T)
    z = sum(h[4:11])
    return tower.project(R @ y + R @ (attn(z[1:]) + 0.3 * z[:1]))


# PVCL and PAA


def select(pictures, text, K):
    """The bank: for each class the K rows (x, p) of lowest entropy, by sorting all patches."""
    lists = [[] for _ in text]
    for image, x in enumerate(pictures):
        p = softmax(60 * x @ text.T)
        for i in range(len(x)):
            H = -sum(value * math.log(value) for value in p[i] if value > 0)
            c = int((x[i] @ text.T).argmax())
            lists[c].append((H, image, i, x[i], p[i, c]))
    return [[(x, p) for *_, x, p in sorted(rows, key=lambda r: r[:3])[:K]] for rows in lists]


def gda(bank, text):
    """W [D, C] and b [C] of rows (x, weight) by class."""
    C, D = text.shape
    mu = text.copy()
    for c, rows in enumerate(bank):
        if rows:
            mu[c] = sum(p * x for x, p in rows) / sum(p for _, p in rows)
    Z = np.array([x - mu[c] for c, rows in enumerate(bank) for x, _ in rows])
    n, sigma = len(Z), np.cov(Z, rowvar=False)
    omega = D * np.linalg.inv((n - 1) * sigma + np.trace(sigma) * np.eye(D))
    return omega @ mu.T, np.array([math.log(1 / C) - m @ omega @ m / 2 for m in mu])


def purify(bank, W, b, T):
    """The rows that Stage II keeps, by predicted class, with their q; and how many there are.

    q is taken in float32, as the release does: that it rounds to 1 decides what is kept. The bar is
    a Python float, which PyTorch rounds to float32 before it compares.
    """
    rows = np.array([x for rows in bank for x, _ in rows])
    logits = rows @ W + b
    predicted = logits.argmax(1)
    q = torch.softmax(torch.from_numpy(T * logits).float(), dim=1).double().numpy()
    q = q[np.arange(len(q)), predicted]
    kept = [[] for _ in b]
    for c in range(len(b)):
        mine = np.flatnonzero(predicted == c)
        if len(mine) > 1:
            bar = q[mine].mean() + q[mine].std(ddof=1)
            kept[c] = [(rows[i], q[i]) for i in mine if q[i] >= np.float32(bar)]
    return kept


def classifier(bank, text, T):
    """W and b after all stages, and how many patches of each class Stage II kept."""
    W, b = gda(bank, text)
    kept = purify(bank, W, b, T)
    if any(kept):  # the release crashes where none is kept; then Stage I's classifier stays
        W, b = gda(kept, text)
    return W, b, [len(rows) for rows in kept]


def aggregate(pictures, cls, text, W, b, s, m):
    """Scores [pictures, C]."""
    scores = []
    for x, c in zip(pictures, cls, strict=True):
        e = softmax((x @ W + b) / 500).max(0)
        scores.append(0.9 * softmax(m * e) + 0.1 * softmax(s * c @ text.T))
    return np.array(scores)


class World:
    """Everything literal: features of every encoder and their banks, [CLS] and text."""

    def __init__(self, clip):
        self.tower = tower = Tower(clip)
        self.text = tower.text(NAMES)
        self.paths = mini_scenes("learn").paths[:LEARN] + mini_scenes("test").paths[:TEST]
        self.hidden = [tower.hidden(path) for path in self.paths]
        functions = {"scclip": scclip, "sclip": sclip, "itaclip": itaclip}
        self.features = {e: [f(tower, h) for h in self.hidden] for e, f in functions.items()}
        self.cls = [tower.project(h[12][0]) for h in self.hidden]
        self.banks = {e: select(x[:LEARN], self.text, K[e]) for e, x in self.features.items()}

    def scores(self, encoder, T, s, m, bank=None):
        W, b, kept = classifier(bank or self.banks[encoder], self.text, T)
        x, cls = self.features[encoder][LEARN:], self.cls[LEARN:]
        return aggregate(x, cls, self.text, W, b, s, m), kept, (W, b)


@pytest.fixture(scope="module")
def world(mini):
    return World(mini.model)


@pytest.fixture(scope="module")
def clip(mini):
    """The mini-CLIP with SC-CLIP's own three sizes, as in the formulas above."""
    backbone = copy.copy(mini)
    backbone.calibration = Calibration()
    return backbone


def test_features_and_text_are_the_formulas(world, clip):
    np.testing.assert_allclose(clip.encode_text(NAMES), world.text, atol=1e-5)
    image = pixels(world.paths[0])[None].float()
    found = encode(clip, image, (*K, "maskclip", "clearclip"))
    np.testing.assert_allclose(found["cls"][0], world.cls[0], atol=1e-5)
    for name in K:
        np.testing.assert_allclose(found[name][0], world.features[name][0], atol=1e-4)
    for function in (sclip, maskclip, clearclip):
        expected = function(world.tower, world.hidden[0])
        np.testing.assert_allclose(found[function.__name__][0], expected, atol=2e-5)


@pytest.mark.filterwarnings("ignore:Stage:UserWarning")
@pytest.mark.parametrize("scales", ["voc07", "coco"])  # of coco, T is 0.01
@pytest.mark.parametrize("encoder", K)
def test_the_pipeline_is_the_formulas(world, clip, encoder, scales):
    T, s, m = PURIFY_TEMPERATURE[scales], *PAPER[scales][:2]
    expected, kept, (W, b) = world.scores(encoder, T, s, m)
    piaa = PIAA(NAMES, clip, encoder, Recipe(K[encoder], "released", T), PAPER[scales])
    scores = piaa.fit(world.paths[:LEARN]).predict_proba(world.paths[LEARN:])
    assert piaa.report_["kept"] == kept
    x = np.concatenate(world.features[encoder][LEARN:])
    values = piaa.decision_function(torch.from_numpy(x).float()).numpy()
    literal = x @ W + b
    np.testing.assert_allclose(values, literal, atol=1e-4 * np.abs(literal).max(), rtol=0)
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)
    if scales == "voc07":  # scores at 0 or 1 would agree whatever the constants: these are not so
        few = [rows[:-5] for rows in world.banks[encoder]]
        for other in (0.01, s, m), (T, s * 1.01, m), (T, s, m * 1.01), (T, s, m, few):
            assert np.abs(world.scores(encoder, *other)[0] - expected).max() > 2e-4
