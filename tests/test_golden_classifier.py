"""Stages I to III against figures of the authors' released code."""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from piaa_utils.classifier import Recipe, purify_released

GOLDEN = np.load(Path(__file__).parent / "golden" / "classifier.npz")
TEXT = torch.from_numpy(GOLDEN["text"])


def golden_bank():
    patches = torch.from_numpy(GOLDEN["X"]).reshape(-1, 20, 64)
    bank = Recipe(k=int(GOLDEN["K"])).bank(n_classes=8)
    for i, image in enumerate(patches):
        bank.update(image[None], TEXT, [i])
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
        W, b, report = Recipe(40, purify, temperature).learn(golden_bank(), TEXT, names)
    told = (
        "Stage II kept no patch for" if sum(kept or []) else "(released, T=1) kept no patch of any"
    )
    assert kept is None or told in str(caught[-1].message)
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
