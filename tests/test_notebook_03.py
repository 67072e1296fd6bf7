"""Notebook 03: its checks pass what is right and say what is wrong; its explorer answers."""

import torch
import torch.nn.functional as F
from lesson_cells import cell_function, check_says
from matplotlib.patches import Rectangle

from piaa_utils.lessons import Config
from piaa_utils.lessons.exercises import e03
from piaa_utils.plots import PALETTE, square, subplots
from piaa_utils.selection import PatchBank, entropy

EYE = torch.eye(3)


def sureness(x, t, scale=60):
    p = (scale * x @ t.T).softmax(-1)
    return entropy(p), p.argmax(-1)


def surest(H, says, c, k):
    mine = (says == c).nonzero().flatten()
    return mine[H[mine].argsort()[:k]]


def test_the_core():
    def naive(x, t):
        p = (60 * x @ t.T).softmax(-1)
        return -(p * p.log()).sum(-1), p.argmax(-1)

    wrong = {"0 log 0": naive, "by 60": lambda x, t: sureness(x, t, 50)}
    check_says(e03.check_sureness, sureness, wrong)
    among = lambda H, says, c, k: H[says == c].argsort()[:k]  # noqa: E731
    wrong = {"Positions in the whole list": among, "the shape is": lambda H, s, c, k: H.argsort()}
    check_says(e03.check_surest, surest, wrong)


def test_the_bank():
    bank = PatchBank(3, k=40)
    bank.update(F.normalize(EYE + 0.01, dim=-1)[None], EYE, [0])
    truth = torch.tensor([[0, 1, -1]])
    check_says(e03.check_prediction, "b", {"67 per cent": "c", "put a letter": ...}, bank, truth)
    rest = (EYE[None], EYE, torch.tensor([[0, 1, 2]]), 2, ("cat", "dog", "cup"))
    check_says(e03.check_left_out, 1, {"shows cup": 0, "one number": ...}, *rest)


def test_the_explorer_draws_any_class():
    config = Config(device="cpu")
    chosen, truth = PatchBank(3), torch.zeros(2, 196)
    chosen.update(F.normalize(torch.randn(2, 196, 3), dim=-1), EYE, [0, 1])
    around = {"names": ("cat", "dog", "cup"), "world": config.split("learn"), "grid": 14}
    around |= {"Rectangle": Rectangle, "PALETTE": PALETTE, "square": square, "subplots": subplots}
    sheet = cell_function(
        "03_entropy_selection", "sheet", torch=torch, chosen=chosen, truth=truth, **around
    )
    assert "cat, framed in their pictures: 1. right" in sheet("cat", 8).alt_text
    assert "1. wrong" in sheet("cup", 512).alt_text
