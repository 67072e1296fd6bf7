"""Notebook 04: its checks pass what is right and say what is wrong."""

import math

import numpy as np
import pytest
import torch
from lesson_cells import check_says

from piaa_utils.classifier import Recipe
from piaa_utils.lessons.exercises import e04


def linear(mu, omega):
    return omega @ mu.T, -math.log(len(mu)) - ((mu @ omega) * mu).sum(1) / 2


def keep(q):
    return torch.zeros(len(q), dtype=torch.bool) if len(q) < 2 else q >= q.mean() + q.std()


def test_w_and_b():
    wrong = {
        "transposed": lambda mu, o: ((linear(mu, o)[0]).flip(0), linear(mu, o)[1]),
        "log of 1/C": lambda mu, o: (o @ mu.T, -((mu @ o) * mu).sum(1) / 2 - math.log(2)),
    }
    check_says(e04.check_linear, linear, wrong)


@pytest.mark.filterwarnings("ignore:No class has two different rows")
def test_the_cleaned_bank():
    bank, truth = Recipe().bank(2), np.array([[0, 1, 1]])  # the middle row shows the other class
    bank.update(torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]]), torch.eye(2), [0])
    wrong = {"2 of 3 rows stay": 60.0, "one number is wanted": ...}
    read = lambda W, b: 50 * float(W[0, 0])  # noqa: E731
    check_says(e04.check_cleaned, 50.0, wrong, bank, truth, torch.eye(2), read)


def test_the_prediction():
    point = {"gain": -1.2, "head-room": 0.5}
    check_says(e04.check_prediction, "b", {"changed -1.2 points": "a", "a letter": ...}, point)


def test_stage_two():
    wrong = {
        "mean plus deviation": lambda q: q > q.mean(),
        "unbiased": lambda q: q >= q.mean() + q.std(correction=0),
        ">=, not >": lambda q: q > q.mean() + q.nan_to_num().std(),
    }
    check_says(e04.check_keep, keep, wrong)
