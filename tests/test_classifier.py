"""Stages I to III against figures of the authors' released code, and by hand."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from piaa_utils.classifier import Recipe, purify_released
from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.selection import PatchBank

GOLDEN = np.load(Path(__file__).parent / "golden" / "classifier.npz")
GOLDEN_TEXT = torch.from_numpy(GOLDEN["text"])


def golden_bank():
    patches = torch.from_numpy(GOLDEN["X"]).reshape(-1, 20, 64)
    bank = Recipe(k=int(GOLDEN["K"])).bank(n_classes=8)
    for i, image in enumerate(patches):
        bank.update(image[None], GOLDEN_TEXT, [i])
    return bank


def agree(ours, golden):
    assert ours.dtype == torch.float32
    assert ours.shape == golden.shape
    largest = np.abs(golden).max()
    np.testing.assert_allclose(ours.numpy() / largest, golden / largest, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("purify", "temperature", "stage", "kept"),
    [
        (None, 100.0, "1", None),
        ("released", 0.01, "2_T0.01", [7, 7, 7, 7, 6, 6, 0, 5]),
        ("released", 100.0, "2_T100", [40] * 6 + [0, 40]),
        ("released", 1.0, "1", [0] * 8),  # Stage II keeps nothing, and Stage I's stays
    ],
)
def test_classifier_of_the_release(purify, temperature, stage, kept):
    names = ["a", "b", "c", "d", "e", "f", "dog", "h"]
    with pytest.warns(UserWarning, match="no patch for dog: the text feature stands in") as caught:
        W, b, report = Recipe(40, purify, temperature).learn(golden_bank(), GOLDEN_TEXT, names)
    told = "patch for" if sum(kept or []) else "patch of any"
    assert kept is None or f"kept no {told}" in str(caught[-1].message)
    agree(W, GOLDEN[f"W{stage}"])
    agree(b, GOLDEN[f"b{stage}"])
    assert report["selected"] == [40] * 6 + [0, 40] and report["text_fallback"] == [6]
    assert report.get("kept") == kept
    assert kept is None or report["predicted"] == [40] * 6 + [0, 40]
    assert report.get("kept_nothing", False) == (temperature == 1)
    json.dumps(report)


def released_rule(logits, T):
    """Rows that Stage II keeps, by the release's rule: each q is a float32, the bar a float64 that
    PyTorch rounds to float32 before it compares."""
    q = torch.softmax(torch.from_numpy(T * logits).float(), dim=1).numpy()
    predicted = logits.argmax(1)
    q = q[np.arange(len(q)), predicted]
    kept, unrounded = [], []
    for c in np.unique(predicted):
        rows = np.flatnonzero(predicted == c)
        mine = [float(q[i]) for i in rows]
        if len(mine) > 1:
            bar = statistics.fmean(mine) + statistics.stdev(mine)
            kept += [i for i in rows if q[i] >= np.float32(bar)]
            unrounded += [i for i in rows if float(q[i]) >= bar]
    return sorted(kept), sorted(unrounded)


def test_rows_of_exactly_one_are_kept_where_the_bar_rounds_to_one():
    # By hand: q of the 512th row is 1 / (1 + exp(-14.5)) = 1 - 5.0e-7, in float32 1 - 8 / 2^24.
    # Mean 1 - 9.3e-10, deviation 2.1e-8: the bar is 1 + 2.0e-8, in float32 1.
    logits = np.array(511 * [[1.0, 0.0]] + [[0.145, 0.0]])
    kept = purify_released(torch.from_numpy(logits), temperature=100.0)
    assert kept.rows.tolist() == list(range(511)) == released_rule(logits, 100.0)[0]
    assert kept.weights.eq(1).all() and kept.counts.tolist() == [511, 0]
    assert released_rule(logits, 100.0)[1] == [], "without the rounding no row is kept"


def test_a_saturated_bank_of_twenty_classes_keeps_what_the_release_keeps():
    rng = np.random.default_rng(0)
    says = np.repeat(np.arange(20), 256)
    logits = rng.normal(0, 0.001, (len(says), 20))
    lead = rng.uniform(0.04, 0.08, 20)[says] + rng.normal(0, 0.006, len(says))
    logits[np.arange(len(says)), says] += lead
    kept = purify_released(torch.from_numpy(logits), temperature=500.0)
    rule, unrounded = released_rule(logits, 500.0)
    assert kept.rows.tolist() == rule
    assert kept.labels.tolist() == logits[rule].argmax(1).tolist()
    assert kept.counts.tolist() == np.bincount(logits[rule].argmax(1), minlength=20).tolist()
    assert len(rule) > 1.1 * len(unrounded), "a float64 comparison would do as well"


def logits_for(q):
    """Two classes' logits whose softmax at T=1 has q for the first."""
    return torch.tensor([[math.log(v / (1 - v)), 0.0] for v in q], dtype=torch.float64)


@pytest.mark.parametrize(
    ("logits", "T", "rows", "labels", "counts", "weights"),
    [
        # Predicted class 0: q = 0.9, 0.6, 0.6, 0.6; mean 0.675, std 0.15: only 0.9 reaches 0.825.
        # Predicted class 1: q = 0.6, 0.9; mean 0.75, std 0.212: neither reaches 0.962.
        (logits_for([0.9, 0.6, 0.6, 0.6, 0.4, 0.1]), 1.0, [0], [0], [1, 0], [0.9]),
        # Mean 0.767, std 0.153 (n - 1): 0.919 keeps none; 0.125 (n) would keep 0.9.
        (logits_for([0.9, 0.8, 0.6]), 1.0, [], [], [0, 0], []),
        # A lone row goes, equal ones stay: q = 1 / (1 + 2 exp(-1.1)).
        ([[1.0, 0, 0]] + 3 * [[0, 1.1, 0]], 1.0, [1, 2, 3], 3 * [1], [0, 3, 0], 3 * [0.600333]),
        # All that float32 saturates.
        ([[0.2, 0.0], [0.3, 0.0], [0.9, 0.0]], 100.0, [0, 1, 2], 3 * [0], [3, 0], 3 * [1.0]),
    ],
)
def test_released_keeps_what_reaches_mean_plus_unbiased_deviation(
    logits, T, rows, labels, counts, weights
):
    kept = purify_released(torch.as_tensor(logits, dtype=torch.float64), temperature=T)
    assert kept.rows.tolist() == rows and kept.labels.tolist() == labels
    assert kept.counts.tolist() == counts
    assert kept.weights.tolist() == pytest.approx(weights, rel=1e-5)


def noisy_bank(seed=0, n_classes=4, width=12):
    """Patches around shifted class centres: text reads some of them wrong."""
    rng = torch.Generator().manual_seed(seed)
    text = normalize(torch.randn(n_classes, width, generator=rng), dim=-1)
    centre = text + 0.5 * torch.randn(n_classes, width, generator=rng)
    true = torch.randint(n_classes, (10, 16), generator=rng)
    patches = normalize(centre[true] + 0.5 * torch.randn(10, 16, width, generator=rng), dim=-1)
    bank = PatchBank(n_classes, k=30, scale=5.0)
    bank.update(patches, text, range(10))
    return bank, text


def fit(X, y, w, text):
    gda = GaussianDiscriminantAnalysis(text.numpy(), weigh_covariance=False)
    return gda.fit(X.numpy(), y.numpy(), w.numpy())


def test_stage_one_weighs_each_row_by_its_own_class_probability():
    bank, text = noisy_bank()
    W, b, report = Recipe().learn(bank, text)
    gda = fit(bank.features, bank.labels, bank.probs.amax(dim=1), text)
    np.testing.assert_allclose(W, gda.coef_.T, rtol=1e-5)
    np.testing.assert_allclose(b, gda.intercept_, rtol=1e-5)
    assert report["selected"] == bank.counts.tolist()
    assert report["images"] == [len(bank.image_id[bank.labels == c].unique()) for c in range(4)]
    assert min(report["images"]) > 1 and "kept" not in report
    assert W.dtype == b.dtype == torch.float32
    flat = fit(bank.features, bank.labels, torch.ones(len(bank)), text)
    assert np.abs(W.numpy() / flat.coef_.T - 1).max() > 0.01, "the weights make no difference"


@pytest.mark.filterwarnings("ignore:Stage II kept no patch for")
def test_stages_two_and_three_start_from_stage_one_and_weigh_by_q():
    bank, text = noisy_bank(seed=2)
    gda = fit(bank.features, bank.labels, bank.probs.amax(dim=1), text)
    logits = torch.from_numpy(gda.decision_function(bank.features.numpy()))
    kept = purify_released(logits, temperature=0.01)
    assert (kept.labels != bank.labels[kept.rows]).any(), "no row has changed its class"
    gda = fit(bank.features[kept.rows], kept.labels, kept.weights, text)
    W, b, report = Recipe(30, "released", 0.01).learn(bank, text)
    np.testing.assert_allclose(W, gda.coef_.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(b, gda.intercept_, rtol=1e-4, atol=1e-4)
    assert report["kept"] == kept.counts.tolist() and sum(report["kept"]) < len(bank)
    assert sum(report["predicted"]) == len(bank)
    json.dumps(report)


def test_a_class_without_patches_takes_its_text_feature_and_is_named():
    text = torch.eye(4)
    patches = torch.tensor([[[1.0, 0.1, 0, 0], [0.1, 1.0, 0, 0], [1.0, 0.3, 0, 0]]])
    patches = normalize(patches, dim=-1)
    bank = PatchBank(4)
    bank.update(patches, text, [0])
    with pytest.warns(UserWarning, match="no patch for cow, dog: the text feature stands in"):
        W, b, report = Recipe().learn(bank, text, ["ant", "bee", "cow", "dog"])
    assert report["text_fallback"] == [2, 3]
    assert (text @ W + b).argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_the_default_recipe_its_bank_and_what_is_refused():
    bank, text = noisy_bank()
    assert Recipe() == (512, None, 100.0)
    empty = Recipe(k=7).bank(4)
    assert (empty.n_classes, empty.k, empty.scale) == (4, 7, 60.0)
    with pytest.raises(ValueError, match="The bank is empty"):
        Recipe().learn(empty, text)
    with pytest.raises(ValueError, match="None or \"released\": got 'spread'"):
        Recipe(purify="spread").learn(bank, text)
