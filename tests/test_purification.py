"""Stages II and III on cases small enough to follow by hand."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.purification import METHODS, learn_classifier, purify
from piaa_utils.selection import PatchBank


def logits_for(q):
    """Two classes' logits whose softmax at T=1 has q for the first."""
    return torch.tensor([[math.log(v / (1 - v)), 0.0] for v in q], dtype=torch.float64)


def test_released_keeps_what_reaches_mean_plus_unbiased_deviation():
    # Predicted class 0: q = 0.9, 0.6, 0.6, 0.6; mean 0.675, std 0.15: only 0.9 reaches 0.825.
    # Predicted class 1: q = 0.6, 0.9; mean 0.75, std 0.212: neither reaches 0.962.
    logits = logits_for([0.9, 0.6, 0.6, 0.6, 0.4, 0.1])
    kept = purify(logits, torch.zeros(6, dtype=torch.int64), "released", temperature=1.0)
    assert kept.rows.tolist() == [0]
    assert kept.labels.tolist() == [0]
    assert kept.counts.tolist() == [1, 0]
    torch.testing.assert_close(kept.weights, torch.tensor([0.9]))


def test_released_uses_the_unbiased_deviation():
    # q = 0.9, 0.8, 0.6: mean 0.767, std 0.153 (n - 1): 0.919 keeps none; 0.125 (n) would keep 0.9.
    kept = purify(logits_for([0.9, 0.8, 0.6]), torch.zeros(3, dtype=torch.int64), "released", 1.0)
    assert len(kept.rows) == 0


def test_released_drops_a_lone_row_and_keeps_all_equal_ones():
    logits = torch.tensor([[1.0, 0, 0], [0, 1.1, 0], [0, 1.1, 0], [0, 1.1, 0]])
    kept = purify(logits, torch.zeros(4, dtype=torch.int64), "released", temperature=1.0)
    assert kept.rows.tolist() == [1, 2, 3]
    assert kept.labels.tolist() == [1, 1, 1]
    assert kept.counts.tolist() == [0, 3, 0]


def test_released_keeps_all_that_float32_saturates():
    logits = torch.tensor([[0.2, 0.0], [0.3, 0.0], [0.9, 0.0]], dtype=torch.float64)
    kept = purify(logits, torch.ones(3, dtype=torch.int64), "released", temperature=100.0)
    assert kept.rows.tolist() == [0, 1, 2]
    assert kept.weights.tolist() == [1.0, 1.0, 1.0]


LOGITS = torch.tensor(
    [[5, 1, 0], [3, 1, 0], [2, 1, 0], [0, 4, 3.5], [0, 4, 1], [0, 0, 9], [0, 7.0, 0]]
)
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2])  # the last two predictions disagree


def test_agree_keeps_the_rows_whose_prediction_is_their_label():
    kept = purify(LOGITS, LABELS, "agree", temperature=1.0)
    assert kept.rows.tolist() == [0, 1, 2, 3, 4]
    assert kept.labels.tolist() == [0, 0, 0, 1, 1]
    assert kept.counts.tolist() == [3, 2, 0]
    expected = torch.softmax(LOGITS[:5], dim=1).gather(1, LABELS[:5, None]).squeeze(1)
    torch.testing.assert_close(kept.weights, expected)


@pytest.mark.parametrize(
    ("keep", "rows"),
    [(0.1, [0, 4]), (0.5, [0, 1, 4]), (0.6, [0, 1, 3, 4]), (1.0, [0, 1, 2, 3, 4])],
)
def test_margin_keeps_a_share_of_each_class_rounded_up(keep, rows):
    kept = purify(LOGITS, LABELS, "margin", temperature=1.0, keep=keep)
    assert kept.rows.tolist() == rows
    assert kept.labels.tolist() == LABELS[rows].tolist()


def test_margin_with_one_class_keeps_the_first():
    kept = purify(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64), "margin", keep=0.5)
    assert kept.rows.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "method", "keep", "message"),
    [
        (LABELS, "best", 0.5, "purify must be one of"),
        (LABELS[:3], "agree", 0.5, r"labels \[n\]"),
        (LABELS, "margin", 0.0, "share above 0"),
        (LABELS, "margin", 1.1, "share above 0"),
    ],
)
def test_purify_refuses_bad_options(labels, method, keep, message):
    with pytest.raises(ValueError, match=message):
        purify(LOGITS, labels, method, keep=keep)


def noisy_bank(seed=0, n_classes=4, width=12):
    """Patches around shifted class centres: text reads some of them wrong."""
    rng = torch.Generator().manual_seed(seed)
    text = normalize(torch.randn(n_classes, width, generator=rng), dim=-1)
    centre = text + 0.5 * torch.randn(n_classes, width, generator=rng)
    true = torch.randint(n_classes, (10, 16), generator=rng)
    patches = normalize(centre[true] + 0.5 * torch.randn(10, 16, width, generator=rng), dim=-1)
    bank = PatchBank(n_classes, k=30, temperature=5.0)
    bank.update(patches, text, range(10))
    return bank, text


def fit(X, y, w, text):
    gda = GaussianDiscriminantAnalysis(text.numpy(), weigh_covariance=False)
    return gda.fit(X.numpy(), y.numpy(), w.numpy())


def test_stage_one_weighs_each_row_by_its_own_class_probability():
    bank, text = noisy_bank()
    W, b, report = learn_classifier(bank, text, purify=None)
    gda = fit(bank.features, bank.labels, bank.probs.amax(dim=1), text)
    np.testing.assert_allclose(W, gda.coef_.T, rtol=1e-5)
    np.testing.assert_allclose(b, gda.intercept_, rtol=1e-5)
    assert report["rounds"] == []
    assert report["selected"] == bank.counts.tolist()
    flat = fit(bank.features, bank.labels, torch.ones(len(bank)), text)
    assert np.abs(W.numpy() / flat.coef_.T - 1).max() > 0.01, "the weights make no difference"


@pytest.mark.filterwarnings("ignore:Stage II kept no patch for")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rounds", [1, 3])
def test_each_round_purifies_the_whole_bank_with_the_newest_classifier(method, rounds):
    bank, text = noisy_bank()
    gda = fit(bank.features, bank.labels, bank.probs.amax(dim=1), text)
    counts = []
    for _ in range(rounds):
        logits = torch.from_numpy(gda.decision_function(bank.features.numpy()))
        kept = purify(logits, bank.labels, method, temperature=0.3, keep=0.4)
        gda = fit(bank.features[kept.rows], kept.labels, kept.weights, text)
        counts.append(kept.counts.tolist())
    W, b, report = learn_classifier(bank, text, method, temperature=0.3, keep=0.4, rounds=rounds)
    np.testing.assert_allclose(W, gda.coef_.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(b, gda.intercept_, rtol=1e-4, atol=1e-4)
    assert [stage["kept"] for stage in report["rounds"]] == counts
    assert all(sum(stage["predicted"]) == len(bank) for stage in report["rounds"])
    assert sum(counts[0]) < len(bank)
    json.dumps(report)


def test_a_class_without_patches_takes_its_text_feature_and_is_named():
    text = torch.eye(4)
    patches = torch.tensor([[[1.0, 0.1, 0, 0], [0.1, 1.0, 0, 0], [1.0, 0.3, 0, 0]]])
    patches = normalize(patches, dim=-1)
    bank = PatchBank(4)
    bank.update(patches, text, [0])
    with pytest.warns(UserWarning, match="no patch for cow, dog: the text feature stands in"):
        W, b, report = learn_classifier(bank, text, None, class_names=["ant", "bee", "cow", "dog"])
    assert report["text_fallback"] == [2, 3]
    assert (text @ W + b).argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_a_single_patch_still_gives_a_classifier():
    bank = PatchBank(2)
    bank.update(torch.tensor([[[1.0, 0.0]]]), torch.eye(2), [0])
    with pytest.warns(UserWarning):
        W, b, report = learn_classifier(bank, torch.eye(2))
    assert report["kept_nothing"]
    assert W.isfinite().all() and b.isfinite().all()
    assert (torch.eye(2) @ W + b).argmax(dim=1).tolist() == [0, 1]


def test_bad_input_is_refused_in_one_sentence():
    bank, text = noisy_bank()
    with pytest.raises(ValueError, match="The bank is empty"):
        learn_classifier(PatchBank(4), text)
    with pytest.raises(ValueError, match=r"text must be \[C, D\] = \[4, 12\]"):
        learn_classifier(bank, text[:, :3])
    with pytest.raises(ValueError, match="class_names must be 4 names: got 1"):
        learn_classifier(bank, text, class_names=["cat"])
    with pytest.raises(ValueError, match="purify must be one of"):
        learn_classifier(bank, text, purify="best")
    with pytest.raises(ValueError, match="rounds must be 1 or more"):
        learn_classifier(bank, text, rounds=0)
