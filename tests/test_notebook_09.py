"""Notebook 09: its checks pass what is right and say what is wrong; its explorer answers."""

import math

from lesson_cells import cell_function, check_says

from piaa_utils.lessons.exercises import e09
from piaa_utils.plots import subplots

hours = cell_function("09_scaling_out", "hours_on_paper", math=math)


def test_checks():
    def no_limit(a, b, k):
        return sorted(a + b)

    def by_entropy(a, b, k):
        return sorted(a + b, key=lambda row: row[0])[:k]

    wrong = {"At most k": no_limit, "smaller image": by_entropy}
    check_says(e09.check_merge, lambda a, b, k: sorted(a + b)[:k], wrong)
    check_says(e09.check_share, "b", {"0.80 of the rows": "a", "answer with one of": "?"}, 0.8)
    check_says(e09.check_shard, 256, {"hours, not": 4096, "whole number": ...}, hours)


def test_the_explorer_draws_any_collection():
    draw = cell_function(
        "09_scaling_out", "hours_figure", subplots=subplots, hours_on_paper=hours, a_merge=0.1
    )
    for images in (0.1, 100):
        assert f"{images:g} million images" in draw(images, 0.01).alt_text
