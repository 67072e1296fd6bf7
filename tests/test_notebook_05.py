"""Notebook 05: its checks pass what is right and say what is wrong; its explorer answers."""

import torch
from lesson_cells import cell_function, check_says

from piaa_utils.aggregation import paa
from piaa_utils.lessons import Config, Scene
from piaa_utils.lessons.exercises import e05
from piaa_utils.plots import subplots
from piaa_utils.settings import Scales


def one_score(logits, cosines, s, m, T):
    e = (logits / T).softmax(-1).amax(0)
    return 0.9 * (m * e).softmax(-1) + 0.1 * (s * cosines).softmax(-1)


def test_checks():
    def other_axis(x, c, s, m, T):
        return one_score(x.mT, c, s, m, T)[[1, 0]]

    def no_T(x, c, s, m, T):
        return one_score(x, c, s, m, 1.0)

    def no_cls(x, c, s, m, T):
        return one_score(x, 0 * c, s, m, T)

    wrong = {"Divide the logits by T": no_T, "counts a tenth": no_cls, "Softmax over": other_axis}
    check_says(e05.check_paa, one_score, wrong)
    check_says(e05.check_shift, "b", {"not a": "a", "not c": "c"}, 1e-6, -8.0)
    check_says(lambda a: e05.check_scales(a, 5.0, 20.0), 80.0, {"too small": 5.0, "number": "?"})
    y, g = torch.eye(2).numpy(), torch.eye(2)[:, None].expand(2, 196, 2)
    check_says(e05.check_k, 4, {"one of 1, 2": 3, "not Ellipsis": ...}, g, y)


def test_the_explorer_draws_all_scales():
    config, x = Config(device="cpu"), torch.randn(3, 20)
    draw = cell_function(
        "05_adaptive_aggregation",
        "scores_of_the_scene",
        config=config,
        scene=Scene("val", 1, [2, 3], 3),
        logits=torch.randn(3, 196, 20),
        text=torch.eye(20),
        x=type("Features", (), {"cls": x}),
        scales=Scales(),
        paa=paa,
        mean_ap=lambda scores: 50.0,
        subplots=subplots,
    )
    for m, T in ((1.0, 5.0), (200.0, 500.0)):
        assert f"m = {m:g}, T = {T:g}" in draw(m, T, 80.0).alt_text
