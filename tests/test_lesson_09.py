"""Notebook 09: the explorer, the figures, the paper calculation and the checks of the exercises."""

import math
from statistics import median

import numpy as np
import pytest

from piaa_utils.lessons import CheckFailed, nb09
from piaa_utils.plots import Figure
from piaa_utils.scaling import Shard
from piaa_utils.selection import COLUMNS


def log(*rows):
    """Shards as (first, started, seconds, pid), of eight images and a memory that rises by 1 MB."""
    return [
        Shard(first, 8, started, seconds, 0.5, int(1e8 + 1e6 * i), pid, "host")
        for i, (first, started, seconds, pid) in enumerate(rows)
    ]


RUN = log((0, 100.0, 2.0, 11), (8, 100.5, 2.0, 12), (16, 102.0, 2.0, 11), (24, 110.0, 2.0, 13))


def test_banks_are_compared_in_every_column():
    assert nb09.COLUMNS == COLUMNS
    a, b = nb09.full_bank(3, 4, 8), nb09.full_bank(3, 4, 8)
    assert nb09.same_bits(a, b)
    b.entropy[0] += 1e-7
    assert not nb09.same_bits(a, b)
    assert not nb09.same_bits(a, nb09.full_bank(3, 5, 8))


def test_a_full_bank_is_full_and_takes_what_the_plan_says():
    bank = nb09.full_bank(3, 4, 8, first_id=100)
    assert bank.counts.tolist() == [4, 4, 4] and min(bank.image_id) == 100
    assert nb09.bank_bytes(bank) == nb09.plan(1, 1, 1, n_classes=3, k=4, width=8).bank_bytes


def test_banks_merged_at_random_are_one_bank():
    banks = [nb09.full_bank(3, 4, 8, first_id=20 * i) for i in range(5)]
    merged = [nb09.merged_at_random(banks, seed) for seed in range(6)]
    assert all(nb09.same_bits(bank, merged[0]) for bank in merged)
    assert merged[0].counts.tolist() == [4, 4, 4] and len(merged[0].image_id.unique()) > 4
    assert nb09.merge_seconds(3, 4, 8, rounds=1) > 0


def test_the_plan_is_the_formula():
    p = nb09.plan(10_000, 3, 0.5, merge_seconds=7, shard=1000, patches=4, width=2)
    assert (p.shards, p.rounds) == (10, 4)
    assert p.hours == pytest.approx((4 * 1000 * 0.5 + 4 * 7) / 3600)
    assert p.worker_hours == pytest.approx((10_000 * 0.5 + 9 * 7) / 3600)
    assert p.patch_bytes == 10_000 * 4 * 2 * 4
    alone = nb09.plan(1500, 1, 1.0, shard=1000, merge_seconds=0)
    assert alone.hours == pytest.approx(1500 / 3600), "the last shard is not full"
    assert nb09.plan(10, 5, 1.0).rounds == 0
    with pytest.raises(ValueError, match="At least one image and one worker: got 0 and 1"):
        nb09.plan(0, 1, 1.0)


def test_durations_and_sizes_in_words():
    assert nb09.in_words(1 / 60) == "1 minutes" and nb09.in_words(47.9) == "47.9 hours"
    assert nb09.size(12) == "12 bytes" and nb09.size(2e15) == "2e+03 TB"


def test_the_flow_has_a_box_for_each_bank():
    figure = nb09.flow_figure(8)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts.count("bank") == 8 + 4 + 2 + 1 and "W, b" in texts
    assert "8 shards" in figure.alt_text and "3 rounds" in figure.alt_text
    assert sum(t.startswith("shard ") for t in texts) == 8


def test_the_timeline_has_a_row_for_each_process():
    figure = nb09.timeline_figure(RUN, killed=(12, 103.0))
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == ["process 11", "process 12", "process 13"]
    assert [bar.get_x() for bar in figure.axes[0].patches] == [0.0, 0.5, 2.0, 10.0]
    assert "process 11: 2 shards" in figure.alt_text
    assert "process 12 was killed after 3.0 seconds" in figure.alt_text
    later = nb09.timeline_figure(RUN, killed=(12, 103.0), began=99.0)
    assert later.axes[0].patches[0].get_x() == 1.0 and "after 4.0 seconds" in later.alt_text
    lost_all = nb09.timeline_figure(RUN[:1], killed=(99, 101.0))
    assert "process 99: 0 shards" in lost_all.alt_text
    before_the_new = nb09.timeline_figure([RUN[0], RUN[3]], killed=(99, 103.0))
    labels = [t.get_text() for t in before_the_new.axes[0].get_yticklabels()]
    assert labels == ["process 11", "process 99", "process 13"]
    assert "killed" not in nb09.timeline_figure(RUN).alt_text


def test_memory_is_followed_over_runs():
    seen = nb09.seen_by_process([RUN[2:], RUN[:2]])
    assert seen[11] == ([8, 16], [100_000_000, 102_000_000]) and seen[13][0] == [8]
    figure = nb09.memory_figure(seen, pixels=6e5)
    assert "process 11: 100 MB, then 102 MB" in figure.alt_text
    grown, rising = (figure.axes[0].lines[i].get_xydata() for i in (0, -1))
    np.testing.assert_allclose(grown, [[0, 0], [8, 2]])
    np.testing.assert_allclose(rising, [[0, 0], [8, 8 * 0.6]])


def test_the_explorer_shows_what_was_chosen():
    figures = [nb09.explore(*chosen) for chosen in ((1, 10, 0.1), (100, 10, 0.1), (10_000, 0.1, 1))]
    assert all(isinstance(f, Figure) for f in figures)
    assert len({f.alt_text for f in figures}) == 3
    one, many, small = figures
    hours = [f.axes[0].lines[1].get_ydata()[0] for f in (one, many)]
    assert hours[0] / hours[1] == pytest.approx(100, rel=0.05)
    assert "10 million images, 100 workers" in many.axes[0].get_title()
    assert many.axes[0].lines[1].get_xdata()[0] == 100
    assert small.axes[0].lines[2].get_xdata()[0] == math.ceil(1e5 / nb09.SHARD)
    assert "all patches, if kept: 1 TB" in one.alt_text


def test_the_explorer_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="At least one image and one worker"):
        nb09.explore(0, 1, 0.1)


# Exercises


def by_hand(a, b, k):
    """Merging as in merge sort."""
    a, b, out = list(a), list(b), []
    while (a or b) and len(out) < k:
        out.append(a.pop(0) if a and (not b or a[0] < b[0]) else b.pop(0))
    return tuple(out)


@pytest.mark.parametrize("answer", [lambda a, b, k: sorted(a + b)[:k], by_hand])
def test_exercise_1_accepts(answer):
    nb09.exercise_1(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda a, b, k: (a + b)[:k], "Exercise 1, for the input"),
        (lambda a, b, k: sorted(a + b), "shape"),
        (lambda a, b, k: sorted(a + b)[-k:], "Exercise 1, for the input"),
        (lambda a, b, k: sorted(a + b, key=lambda row: row[0])[:k], "expected 1"),
        (lambda a, b, k: None, "returned None"),
        (3, "a function is wanted"),
    ],
)
def test_exercise_1_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        nb09.exercise_1(answer)


def test_exercise_2(capsys):
    nb09.exercise_2("C")
    why = capsys.readouterr().out
    for a, b in (((1, 2, 9), (3, 4, 5)), ((1, 2, 3), (3, 4, 5))):
        assert (median(a), median(b)) == (2, 4) and f"{median(a + b):g} for {a} and {b}" in (
            " ".join(why.split())
        )
    for letter, message in (("a", "maxima"), ("b", "mean of both"), ("d", "ten smallest")):
        with pytest.raises(CheckFailed, match=message):
            nb09.exercise_2(letter)


def in_hours(images, workers, shard, image_seconds, merge_seconds, up=math.ceil, log=math.log2):
    waves, rounds = up(images / shard / workers), math.ceil(log(images / shard))
    return (waves * shard * image_seconds + rounds * merge_seconds) / 3600


@pytest.mark.parametrize("answer", [in_hours, lambda *a: np.float64(in_hours(*a))])
def test_exercise_3_accepts(answer):
    nb09.exercise_3(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda *a: 3600 * in_hours(*a), "Exercise 3, for the input"),
        (lambda *a: in_hours(*a, up=float), "Exercise 3, for the input"),
        (lambda *a: in_hours(*a, log=lambda n: n - 1), "Exercise 3, for the input"),
        (lambda *a: None, "returned None"),
        ("1", "a function is wanted"),
    ],
)
def test_exercise_3_says_what_is_wrong(answer, message):
    with pytest.raises(CheckFailed, match=message):
        nb09.exercise_3(answer)
