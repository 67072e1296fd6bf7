"""Notebook 07: its tables, figures, explorer and the checks of the exercises."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from piaa_utils import plots, reproduce
from piaa_utils.encoders import encode
from piaa_utils.images import open_image
from piaa_utils.lessons import CheckFailed, nb07
from piaa_utils.purification import learn_classifier
from piaa_utils.selection import PatchBank


def row(value, per_class=None):
    per_class = per_class or {"cat": value, "dog": value - 10, "bus": None}
    return {"absent": {"map": value, "low": value - 2, "high": value + 1, "per_class": per_class}}


def result(dataset="voc07", encoder="scclip", papers=True, kept_nothing=False, **values):
    values = {"[CLS]": 80.0, "released": 70.25, "ours": 90.0} | values
    return {
        "dataset": dataset,
        "encoder": encoder,
        "papers_setting": papers,
        "differs": [] if papers else ["only the first 3 pictures of each split"],
        "rows": {name: row(value) for name, value in values.items()},
        "stages": {
            "released": {"images": [2, 3, 9], "kept_nothing": kept_nothing},
            "ours": {"images": [20, 30, 40]},
        },
    }


def write(folder, name, what):
    (folder / name).write_text(what if isinstance(what, str) else json.dumps(what))


# The table


def test_without_a_run_every_measured_cell_is_empty_and_every_reported_one_is_full(tmp_path):
    papers, others = nb07.read_results(tmp_path / "no such folder")
    table = nb07.papers_table(papers)
    assert papers == {} and others == [] and len(table) == 12
    assert (table[list(nb07.COLUMNS.values())] == "").all(axis=None)
    for (called, encoder), line in table.iterrows():
        dataset = next(k for k, v in nb07.CALLED.items() if v == called)
        assert line["reported"] == f"{reproduce.REPORTED[dataset][encoder]:.1f}"


def test_only_results_at_the_papers_setting_fill_a_cell(tmp_path, capsys):
    write(tmp_path, "voc07-scclip.json", result())
    write(tmp_path, "voc07-sclip-first3.json", result(encoder="sclip", papers=False))
    write(tmp_path, "mini-scclip.json", result("mini", papers=False))
    write(tmp_path, "mini-itaclip.json", result("mini", "itaclip"))  # whatever it says of itself
    write(tmp_path, "voc07-vanilla.json", result(encoder="vanilla"))
    write(tmp_path, "broken.json", "{")
    write(tmp_path, "list.json", "[]")
    papers, others = nb07.read_results(tmp_path)
    assert set(papers) == {("voc07", "scclip")} and len(others) == 4
    out = capsys.readouterr().out
    assert "broken.json is no result" in out and "list.json is no result" in out
    table = nb07.papers_table(papers)
    assert table.loc[("VOC 2007", "scclip")].tolist() == [
        "92.5", "70.2 [68.2, 71.2]", "90.0 [88.0, 91.0]"
    ]  # fmt: skip
    assert (table["ours"] != "").sum() == 1


def test_the_own_table_reports_nothing():
    table = nb07.own_table({"scclip": result("mini"), "sclip": result("mini", "sclip")})
    assert list(table.columns) == ["[CLS]", "released code's choices", "ours"]
    assert table.loc["sclip", "ours"] == "90.0 [88.0, 91.0]"


def test_a_star_marks_the_released_rows_that_are_stage_ones():
    results = {"scclip": result(), "sclip": result(encoder="sclip", kept_nothing=True)}
    column = nb07.own_table(results)["released code's choices"]
    assert column.tolist() == ["70.2 [68.2, 71.2]", "70.2 [68.2, 71.2] *"]
    table = nb07.papers_table({("voc07", e): r for e, r in results.items()})
    assert [c for c in table.to_numpy().ravel() if "*" in c] == [column["sclip"]]
    names = [r["name"] for r in nb07.rows_of(results)]
    assert [n for n in names if "*" in n] == ["sclip, released *"]
    assert nb07.note(results).startswith("Marked * below: sclip, released. Stage II kept nothing")
    assert "no row is marked" in nb07.note({"scclip": result()})


def test_leads_are_paired_and_leave_out_what_could_not_be_read():
    labels = np.tile([[1, 0], [0, 1]], (20, 1))
    cls = torch.as_tensor(labels + np.random.default_rng(0).normal(size=labels.shape))
    good = torch.as_tensor(labels, dtype=torch.float64)
    for scores in (cls, good):
        scores[3] = torch.nan
    scores = {("[CLS]",): cls, ("scclip", "released"): cls.clone(), ("scclip", "ours"): good}
    table = nb07.leads({"scclip": result()}, scores, labels, n=50)
    assert table.loc["scclip, released"].tolist() == [3, 0, 0, 0]
    pictures, lead, low, high = table.loc["scclip, ours"]
    assert pictures == 30 and 0 < low <= lead <= high


# Figures


def test_rows_of_results_name_cls_once():
    rows = nb07.rows_of({"scclip": result("mini"), "sclip": result("mini", "sclip", ours=91.0)})
    assert [r["name"] for r in rows] == [
        "[CLS]", "scclip, released", "scclip, ours", "sclip, released", "sclip, ours"
    ]  # fmt: skip
    assert rows[-1]["value"] == 91.0
    assert isinstance(plots.ablation_figure(rows), plots.Figure)


def test_the_explorer_shows_what_was_chosen():
    results = {"scclip": result(), "sclip": result(encoder="sclip")}
    results["scclip"]["rows"]["ours"] = row(90.0, {"cat": 85.0, "dog": 60.0, "bus": None})
    figures = [nb07.classes_figure(*c, results) for c in (("scclip", "ours"), ("sclip", "ours"))]
    assert figures[0].alt_text != figures[1].alt_text
    assert "2 classes, scclip (ours)" in figures[0].alt_text
    assert "most gained by cat (+5.0), least by dog (-10.0)" in figures[0].alt_text
    assert [t.get_text() for t in figures[0].axes[0].get_yticklabels()] == ["dog", "cat"]
    with pytest.raises(ValueError, match="no result of 'x': choose one of scclip, sclip"):
        nb07.classes_figure("x", "ours", results)
    with pytest.raises(ValueError, match="no row '.CLS.': choose one of released, ours"):
        nb07.classes_figure("scclip", "[CLS]", results)


@pytest.fixture
def bank():
    generator = torch.Generator().manual_seed(0)
    text = torch.eye(3, 6)
    x = text[torch.arange(12) % 3] + 0.4 * torch.randn(4, 12, 6, generator=generator)
    bank = PatchBank(3, k=10)
    bank.update(F.normalize(x, dim=-1), text, range(4))
    return bank, text


def test_shares_kept_are_those_of_the_released_stage_two(bank):
    bank, text = bank
    shares = nb07.kept_shares(bank, text, (0.01, 1e6))
    for t, share in zip((0.01, 1e6), shares, strict=True):
        _, _, report = learn_classifier(bank, text, "released", t)
        expected = np.array(report["kept"]) / np.array(report["predicted"])
        np.testing.assert_allclose(share, expected)
    kinds = nb07.kinds_of(np.array([[1.0, 0.0, 0.5, np.nan], [1.0, 1.0, 1.0, np.nan]]))
    assert {k: v.tolist() for k, v in kinds.items()} == {
        "whole": [1, 3], "in part": [1, 0], "nothing": [1, 0]
    }  # fmt: skip


def test_the_figure_of_stage_two_says_what_it_shows():
    share = np.array([[0.5, 0.0], [1.0, 1.0]])
    marks = {"COCO": 0.01, "VOC": 100.0}
    figure = nb07.kept_figure({"scclip": share, "sclip": share}, (0.01, 100.0), marks)
    assert "scclip, at T = 0.01 and 100: whole 0 and 2, in part 1 and 0" in figure.alt_text
    assert "Vertical lines at the T of COCO (0.01), VOC (100)." in figure.alt_text
    assert [t.get_text() for t in figure.axes[1].texts] == ["COCO", "VOC"]


def test_the_share_above_the_mean_is_that_of_each_predicted_class(bank):
    bank, text = bank
    W, b, _ = learn_classifier(bank, text, purify=None)
    q, predicted = torch.softmax(0.5 * (bank.features @ W + b), dim=1).max(dim=1)
    for c, share in enumerate(nb07.above_mean(bank, text, 0.5)):
        own = q[predicted == c]
        assert share == pytest.approx(float((own > own.mean()).float().mean()))


# Runs and time


def test_the_first_pictures_are_another_job(tmp_path):
    job = reproduce.load_job("mini", limit=4, device="cpu", out=tmp_path)
    few = nb07.first(job, 2, tmp_path / "few")
    assert (len(few.learn), len(few.test), few.labels.shape) == (2, 2, (2, 20))
    assert few.identity["limit"] == 2 and few.identity != job.identity
    bank = nb07.fill_bank(job, "sclip", 2)
    expected = PatchBank(20)
    pixels = torch.stack([job.backbone.preprocess(open_image(p)) for p in job.learn[:2]])
    text = job.backbone.encode_text(job.class_names)
    expected.update(encode(job.backbone, pixels, "sclip")["sclip"], text, [0, 1])
    assert all(torch.equal(v, expected.state()[k]) for k, v in bank.state().items())
    assert replace(few, limit=None).stem("scclip") == "mini-scclip" and isinstance(few.out, Path)


def test_operations_and_hours():
    # Of the two largest terms by hand: 12 blocks of 12 w^2 weights, once for each token.
    assert nb07.operations(768, 12, 197) > 12 * 12 * 768**2 * 197
    assert nb07.operations(768, 24, 197) > 1.9 * nb07.operations(768, 12, 197)
    table = nb07.hours_table(10.0, 5.0)
    assert table.loc["VOC 2007", "hours, about"] == "0.41"  # (501.1 + 990.4) / 3600
    assert nb07.hours_table(0.5, 0.5).loc["NUS-WIDE", "hours, about"] == "120"  # 116.8
    assert table.loc["NUS-WIDE", "pictures to learn from"] == 150000


# Exercises


def own_ap(labels, scores, difficult):
    return average_precision_score(labels[~difficult], scores[~difficult])


def test_exercise_1():
    nb07.exercise_1(own_ap)
    nb07.exercise_1(lambda *a: torch.tensor(own_ap(*a)))
    wrong = (
        (lambda y, s, d: average_precision_score(y, s), "expected"),  # "absent"
        (lambda y, s, d: average_precision_score(y | d, s), "expected"),  # as if they were there
        (lambda y, s, d: average_precision_score(y, np.where(d, 0, s)), "expected"),  # no score
        (lambda y, s, d: None, "returned None"),
        (0.5, "a function is wanted"),
    )
    for answer, message in wrong:
        with pytest.raises(CheckFailed, match=message):
            nb07.exercise_1(answer)


def rule(q, correction=1):
    if len(q) < 2:
        return torch.zeros_like(q, dtype=torch.bool)
    return q >= q.mean() + q.std(correction=correction)


def test_exercise_2():
    nb07.exercise_2(rule)
    nb07.exercise_2(lambda q: rule(q).numpy())
    wrong = (
        (lambda q: q >= q.mean(), "expected"),
        (lambda q: q > q.mean() + q.std(), "expected"),
        (lambda q: rule(q) if len(q) > 1 else q > 0, "expected"),
        (lambda q: q[rule(q)], "shape"),
    )
    for answer, message in wrong:
        with pytest.raises(CheckFailed, match=message):
            nb07.exercise_2(answer)


@pytest.mark.parametrize("std", [torch.Tensor.std, lambda q: q.numpy().std(ddof=1)])
def test_exercise_2_sees_that_the_lone_patch_was_forgotten(std):
    message = r"input \[0.7\], .* a lone patch has no deviation"
    with pytest.raises(CheckFailed, match=message) as failed:
        nb07.exercise_2(lambda q: q >= q.mean() + std(q))
    assert failed.value.__cause__.__traceback__ is not None
    with pytest.raises(CheckFailed, match="a function is wanted"):
        nb07.exercise_2(...)


def test_exercise_2_sees_the_biased_deviation():
    with pytest.raises(CheckFailed, match="expected"):
        nb07.exercise_2(lambda q: rule(q, correction=0))


def test_exercise_3():
    nb07.exercise_3("C")
    for letter, message in (("a", "another test set"), ("b", "Another CLIP"), ("d", "leaves")):
        with pytest.raises(CheckFailed, match=message):
            nb07.exercise_3(letter)
