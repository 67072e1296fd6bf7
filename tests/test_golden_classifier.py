"""Stages I to III against figures of the authors' released code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from piaa_utils.purification import learn_classifier
from piaa_utils.selection import PatchBank

GOLDEN = np.load(Path(__file__).parent / "golden" / "classifier.npz")
TEXT = torch.from_numpy(GOLDEN["text"])


def golden_bank(images_of=20):
    patches = torch.from_numpy(GOLDEN["X"]).reshape(-1, images_of, 64)
    bank = PatchBank(n_classes=8, k=int(GOLDEN["K"]))
    for i, image in enumerate(patches):
        bank.update(image[None], TEXT, [i])
    return bank


def agree(ours, golden):
    assert ours.dtype == torch.float32
    assert ours.shape == golden.shape
    largest = np.abs(golden).max()
    np.testing.assert_allclose(ours.numpy() / largest, golden / largest, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("purify", "temperature", "stage"),
    [(None, 100.0, "1"), ("released", 0.01, "2_T0.01"), ("released", 100.0, "2_T100")],
)
def test_classifier_of_the_release(purify, temperature, stage):
    with pytest.warns(UserWarning, match="no patch for class 6: the text feature stands in"):
        W, b, report = learn_classifier(golden_bank(), TEXT, purify, temperature)
    agree(W, GOLDEN[f"W{stage}"])
    agree(b, GOLDEN[f"b{stage}"])
    assert report["selected"] == [40, 40, 40, 40, 40, 40, 0, 40]
    assert report["text_fallback"] == [6]
    json.dumps(report)


def test_how_the_pixels_fall_into_images_is_irrelevant():
    with pytest.warns(UserWarning):
        W, b, _ = learn_classifier(golden_bank(images_of=42), TEXT, None)
    agree(W, GOLDEN["W1"])
    agree(b, GOLDEN["b1"])


@pytest.mark.parametrize(
    ("temperature", "kept"), [(0.01, [7, 7, 7, 7, 6, 6, 0, 5]), (100.0, [40] * 6 + [0, 40])]
)
def test_the_report_counts_what_stage_two_keeps(temperature, kept):
    names = ["a", "b", "c", "d", "e", "f", "dog", "h"]
    with pytest.warns(UserWarning, match="no patch for dog") as caught:
        _, _, report = learn_classifier(
            golden_bank(), TEXT, "released", temperature, class_names=names
        )
    assert [str(w.message).split(" no ")[0] for w in caught] == [
        "Stage I selected",
        "Stage II kept",
    ]
    assert report["predicted"] == [40] * 6 + [0, 40] and report["kept"] == kept
    assert report["text_fallback"] == [6]
    assert not report["kept_nothing"]


def test_at_temperature_one_stage_two_keeps_nothing_and_stage_one_stays():
    with pytest.warns(UserWarning) as caught:
        W, b, report = learn_classifier(golden_bank(), TEXT, "released", temperature=1.0)
    assert "Stage II (released, T=1) kept no patch of any class" in str(caught[-1].message)
    agree(W, GOLDEN["W1"])
    agree(b, GOLDEN["b1"])
    assert report["kept_nothing"]
    assert report["kept"] == [0] * 8
