"""PIAA with the release's choices against a slow, literal evaluation of its formulas in float64.

Nothing here comes from piaa_utils but the weights and the pictures: own towers, attention maps in
full, selection by sorting a list, the Gaussian and the aggregation written out.
"""

import copy
import math

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.numpy import load_file

from piaa_utils.classifier import Recipe
from piaa_utils.encoders import encode
from piaa_utils.files import data_dir
from piaa_utils.pipeline import PIAA
from piaa_utils.settings import PAPER, PURIFY_TEMPERATURE, Calibration
from piaa_utils.worlds import mini_scenes

NAMES = ["person", "cat", "chair", "boat", "dog"]
LEARN, TEST = 12, 5  # pictures
# Patches of a class. Chosen so that nothing hides: of few SC-CLIP patches, which are much alike,
# the Gaussian is so narrow that q and the scores are 0 or 1 whatever T and m are.
K = {"scclip": 512, "sclip": 150, "itaclip": 150}
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
GRID = 14


# A ViT and a text transformer, in float64


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


class Tower:
    """The blocks of one of CLIP's two transformers, from its state dict."""

    def __init__(self, weights, prefix):
        self.w = {k: v.astype(np.float64) for k, v in weights.items()}
        self.prefix = prefix
        self.depth = 1 + max(
            int(k.split("resblocks.")[1].split(".")[0])
            for k in weights
            if k.startswith(f"{prefix}transformer.resblocks.")
        )

    def __getitem__(self, name):
        return self.w[self.prefix + name]

    def layer_norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        return centred / np.sqrt(variance + 1e-5) * self[f"{name}.weight"] + self[f"{name}.bias"]

    def part(self, block, name):
        return self[f"transformer.resblocks.{block - 1}.{name}"]

    def qkv(self, block, x):
        """Queries, keys and values, each [heads, tokens, 64], of block 1..L."""
        x = self.layer_norm(x, f"transformer.resblocks.{block - 1}.ln_1")
        x = x @ self.part(block, "attn.in_proj_weight").T + self.part(block, "attn.in_proj_bias")
        parts = np.split(x, 3, axis=1)
        return [p.reshape(len(x), -1, 64).transpose(1, 0, 2) for p in parts]

    def out(self, block, heads):
        """The output projection of attention results [heads, tokens, 64]."""
        x = heads.transpose(1, 0, 2).reshape(heads.shape[1], -1)
        weight, bias = (self.part(block, f"attn.out_proj.{p}") for p in ("weight", "bias"))
        return x @ weight.T + bias

    def mlp(self, block, x):
        x = self.layer_norm(x, f"transformer.resblocks.{block - 1}.ln_2")
        for name in ("c_fc", "c_proj"):
            x = x @ self.part(block, f"mlp.{name}.weight").T + self.part(block, f"mlp.{name}.bias")
            x = x / (1 + np.exp(-1.702 * x)) if name == "c_fc" else x
        return x

    def run(self, x, mask=0.0):
        """[h_0, h_1, ..., h_L]."""
        h = [x]
        for block in range(1, self.depth + 1):
            q, k, v = self.qkv(block, x)
            x = x + self.out(block, softmax(q @ k.transpose(0, 2, 1) / 8 + mask) @ v)
            x = x + self.mlp(block, x)
            h.append(x)
        return h


def pixels(path):
    """[3, 224, 224]; the mini world's pictures have that size."""
    image = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) / 255
    return ((image - MEAN) / STD).transpose(2, 0, 1)


def hidden(tower, path):
    """The outputs of all blocks, [CLS] first."""
    patches = pixels(path).reshape(3, GRID, 16, GRID, 16).transpose(1, 3, 0, 2, 4)
    kernel = tower["conv1.weight"].reshape(len(tower["conv1.weight"]), -1)
    x = patches.reshape(GRID * GRID, -1) @ kernel.T
    x = np.concatenate([tower["class_embedding"][None], x]) + tower["positional_embedding"]
    return tower.run(tower.layer_norm(x, "ln_pre"))


def project(tower, x):
    return unit(tower.layer_norm(x, "ln_post") @ tower["proj"])


def text_features(weights, names):
    tower, out = Tower(weights, ""), []
    for name in names:
        tokens = SimpleTokenizer(context_length=77)([f"a photo of a {name}"])[0].numpy()
        mask = np.triu(np.full((77, 77), -np.inf), 1)
        x = tower["token_embedding.weight"][tokens] + tower["positional_embedding"]
        x = tower.layer_norm(tower.run(x, mask)[-1], "ln_final")
        out.append(x[tokens.argmax()] @ tower["text_projection"])
    return unit(np.array(out))


# The patch encoders; S(a) = softmax of a a^T / sqrt(64), for each head


def S(a):
    return softmax(a @ a.transpose(0, 2, 1) / 8)


def sclip(tower, h):
    q, k, v = tower.qkv(12, h[11])
    x = h[11] + tower.out(12, (S(q) + S(k)) @ v)
    return project(tower, x + tower.mlp(12, x))[1:]


def itaclip(tower, h):
    v = tower.qkv(12, h[11])[2]
    maps = {}
    for block in (7, 8, 10, 12):
        q, k, _ = tower.qkv(block, h[block - 1])
        maps[block] = S(q) + S(k)
    A = maps[12] / 2 + (maps[7] + maps[8] + maps[10]) / 3 / 2
    return project(tower, h[11] + tower.out(12, A @ v))[1:]


def outliers(P):
    """Which patches the local outlier factor singles out: distances by hand, 30 neighbours."""
    d = ((P[:, None] - P[None]) ** 2).sum(-1)
    neighbours, lrd = [], []
    for i in range(len(P)):
        nearest = sorted((d[i, j], j) for j in range(len(P)) if j != i)[:30]
        neighbours.append([j for _, j in nearest])
        lrd.append(30 / nearest[-1][0])
    lof = np.array([np.mean([lrd[j] for j in neighbours[i]]) / lrd[i] for i in range(len(P))])
    return lof > np.quantile(lof, 0.95)


def fill(x, bad):
    out = x.copy()
    for i in np.flatnonzero(bad):
        row, column = divmod(i, GRID)
        around = [
            r * GRID + c
            for r in range(max(row - 1, 0), min(row + 2, GRID))
            for c in range(max(column - 1, 0), min(column + 2, GRID))
            if not bad[r * GRID + c]
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
        return tower.out(12, (softmax_G[None] + S(k)) / 2 @ v)

    y = attn(affinity(M) @ fill(P, bad)) + 0.3 * cls
    post = unit(h[4][1:])
    R = affinity(post @ post.T)
    z = sum(h[4:11])
    return project(tower, R @ y + R @ (attn(z[1:]) + 0.3 * z[:1]))


ENCODE = {"scclip": scclip, "sclip": sclip, "itaclip": itaclip}


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

    def __init__(self):
        weights = load_file(data_dir() / "mini_clip" / "model.safetensors")
        tower = Tower(weights, "visual.")
        assert tower.depth == 12
        self.paths = mini_scenes("learn").paths[:LEARN] + mini_scenes("test").paths[:TEST]
        towers = [hidden(tower, path) for path in self.paths]
        self.features = {name: [f(tower, h) for h in towers] for name, f in ENCODE.items()}
        self.cls = [project(tower, h[12][0]) for h in towers]
        self.text = text_features(weights, NAMES)
        self.banks = {e: select(x[:LEARN], self.text, K[e]) for e, x in self.features.items()}

    def scores(self, encoder, T, s, m, bank=None):
        W, b, kept = classifier(bank or self.banks[encoder], self.text, T)
        x, cls = self.features[encoder][LEARN:], self.cls[LEARN:]
        return aggregate(x, cls, self.text, W, b, s, m), kept, (W, b)


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def clip(mini):
    """The mini-CLIP with SC-CLIP's own three sizes, as in the formulas above."""
    backbone = copy.copy(mini)
    backbone.calibration = Calibration()
    return backbone


def release(name):
    """T of Stage II, s and m of the released code."""
    return PURIFY_TEMPERATURE[name], *PAPER[name][:2]


@pytest.mark.filterwarnings("ignore:Stage:UserWarning")
@pytest.mark.parametrize("scales", ["voc07", "coco"])  # of coco, T is 0.01
@pytest.mark.parametrize("encoder", ENCODE)
def test_the_pipeline_is_the_formulas(world, clip, encoder, scales):
    expected, kept, (W, b) = world.scores(encoder, *release(scales))
    recipe = Recipe(K[encoder], "released", PURIFY_TEMPERATURE[scales])
    piaa = PIAA(NAMES, clip, encoder, recipe, PAPER[scales], progress=False)
    scores = piaa.fit(world.paths[:LEARN]).predict_proba(world.paths[LEARN:])
    assert piaa.report_["kept"] == kept
    x = np.concatenate(world.features[encoder][LEARN:])
    values = piaa.decision_function(torch.from_numpy(x).float()).numpy()
    literal = x @ W + b
    np.testing.assert_allclose(values, literal, atol=1e-4 * np.abs(literal).max(), rtol=0)
    np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("encoder", ENCODE)
def test_a_wrong_number_would_be_seen(world, encoder):
    """Scores at 0 or 1 would agree whatever the constants: these are not so."""
    T, s, m = release("voc07")
    right = world.scores(encoder, T, s, m)[0]
    few = [rows[:-5] for rows in world.banks[encoder]]
    for wrong in (
        world.scores(encoder, 0.01, s, m),
        world.scores(encoder, T, s * 1.01, m),
        world.scores(encoder, T, s, m * 1.01),
        world.scores(encoder, T, s, m, few),
    ):
        assert np.abs(wrong[0] - right).max() > 2e-4


def test_the_two_temperatures_of_stage_two_do_what_the_release_s_do(world):
    """T = 100 keeps a class whole or not at all; T = 0.01 keeps some of each."""
    bank = world.banks["scclip"]
    W, b = gda(bank, world.text)
    predicted = np.bincount((np.array([x for c in bank for x, _ in c]) @ W + b).argmax(1))
    whole, some = (classifier(bank, world.text, T)[2] for T in (100, 0.01))
    assert 0 in whole and set(whole) != {0}
    assert all(n in (0, total) for n, total in zip(whole, predicted, strict=True))
    assert any(0 < n < total for n, total in zip(some, predicted, strict=True))


def test_features_and_text_are_the_formulas(world, clip):
    np.testing.assert_allclose(clip.encode_text(NAMES), world.text, atol=1e-5)
    image = torch.from_numpy(pixels(world.paths[0]))[None].float()
    found = encode(clip, image, tuple(ENCODE))
    np.testing.assert_allclose(found["cls"][0], world.cls[0], atol=1e-5)
    for name in ENCODE:
        np.testing.assert_allclose(found[name][0], world.features[name][0], atol=1e-4)
