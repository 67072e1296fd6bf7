"""Notebook 01: its checks pass what is right and say what is wrong; its explorer answers."""

import numpy as np
import torch
import torch.nn.functional as F
from lesson_cells import cell_function, check_says

from piaa_utils.lessons import Config, Features, Scene, figures
from piaa_utils.lessons.exercises import e01

X = F.normalize(torch.randn(1, 196, 128, generator=torch.Generator().manual_seed(0)), dim=-1)
SEEN = Features(X[:, 0], {"vanilla": X, "scclip": X}, np.ones((1, 20)), np.zeros((1, 196), int))
PATCHES = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]), np.array([0, 0, 1, 0])


def moved(text, gap, shift):
    return F.normalize(text + shift * gap, dim=-1)


def test_checks():
    means, pairs = lambda a, b: a.mean() - b.mean(), lambda a, b: torch.cdist(a, b).mean()
    wrong = {"length of a difference": means, "mean distance of pairs": pairs}
    check_says(e01.check_gap_length, lambda a, b: (a.mean(0) - b.mean(0)).norm(), wrong)
    one = lambda t, gap, shift: (t + shift * gap) / (t + shift * gap)[0].norm()  # noqa: E731
    wrong = {"To unit length": lambda t, gap, shift: t + shift * gap, "Each row": one}
    check_says(e01.check_move, moved, wrong)
    wrong = {"0.0 per cent change": 50, "one number": ...}
    check_says(e01.check_prediction, 0, wrong, SEEN, X[0, :20])
    check_says(e01.check_head_room, 50.0, {"in points": 0.5, "largest": 25.0}, *PATCHES)


def test_the_explorer_draws_every_shift():
    config = Config(device="cpu")
    here = {"scene": Scene("val", 0, [0], 0), "world": config.split("val"), "F": F}
    moved_words = cell_function(
        "01_modality_gap", "moved_words", config=config, figures=figures,
        seen={"val_unseen": SEEN}, **here,
    )  # fmt: skip
    for shift in (0.0, 1.0, 2.0):
        assert f"SC-CLIP, λ = {shift}" in moved_words(shift).alt_text
