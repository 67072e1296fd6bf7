"""Notebook 02: its checks pass what is right and say what is wrong; its explorer answers."""

import torch
import torch.nn.functional as F
from lesson_cells import cell_function, check_says

from piaa_utils.lessons import Config, Features, Scene, figures
from piaa_utils.lessons.exercises import e02
from piaa_utils.settings import Calibration

M = torch.tensor([[1.0, 0.9, 0.5], [0.9, 1.0, 0.5], [0.5, 0.5, 1.0]])
TRUTH = torch.tensor([3, 3, -1])  # at home of M_beta: 1.9 / 2.4 = 0.79, and 1 above 0.5
OWN = Calibration(0.9, 0.1, 10.0)


def cut(M, beta):
    return (kept := M * (M >= beta)) / kept.sum(-1, keepdim=True)


def test_checks():
    no_scale, no_heads = (
        lambda a: (a @ a.mT).softmax(-1),
        lambda a: (a @ a.transpose(0, -1) / 2).softmax(-1),
    )
    wrong = {"Divide by √d": no_scale, "Heads: use a.mT": no_heads}
    check_says(e02.check_s, lambda a: (a @ a.mT / a.shape[-1] ** 0.5).softmax(-1), wrong)
    above, divided = lambda M, b: cut(M, b + 1e-4), lambda M, b: cut(M, 0) * (M >= b)
    check_says(e02.check_share, cut, {"0.5 >= 0.5 stays": above, "Cut first": divided})
    wrong = {"too small. There 0.79": 0.2, "too large": 0.9}
    check_says(e02.check_beta, 0.51, wrong, M, TRUTH)
    wrong = {"70 per cent with its own constants, 40": "a", "put a letter": ...}
    check_says(e02.check_prediction, "b", wrong, lambda c: 0.7 if c == OWN else 0.4, OWN)


def test_the_explorer_draws_any_patch():
    config = Config(device="cpu")
    world, x = config.split("val"), F.normalize(torch.randn(1, 196, 128), dim=-1)
    here = {"picture": world[0], "mask": world.mask(0), "scene": Scene("val", 0, [0], 0)}
    here |= {"seen": {"val_unseen": Features(x[:, 0], {"sclip": x}, None, None)}}
    one_patch = cell_function(
        "02_patch_entanglement", "one_patch", config=config, figures=figures, grid=14, **here
    )
    for patch in (0, 97, 195):
        assert "sclip: like the ring" in one_patch("sclip", patch).alt_text
