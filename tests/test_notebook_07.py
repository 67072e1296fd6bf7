"""Notebook 07's checks: right answers pass, plausible wrong ones are told what is wrong."""

import re

import numpy as np
import pytest

from piaa_utils.lessons import CheckFailed
from piaa_utils.lessons.exercises import e07


def ap(labels, scores, difficult):
    labels, scores = labels[~difficult], scores[~difficult]
    hits = labels[np.argsort(-scores)]
    return (hits.cumsum() / np.arange(1, len(hits) + 1))[hits == 1].mean()


def prediction(answer):
    e07.check_prediction(answer, "an unfinished run of other settings, batch_size (10, here 8)")


def rule(answer):
    sizes = np.arange(1, 61)[:, None]
    protocols = lambda scores, least: {"ignored": least / 10, "absent": 0.0}  # noqa: E731
    e07.check_rule(answer, protocols, np.zeros((60, 1)), sizes)


GOOD = ((prediction, "c"), (e07.check_ap, ap), (rule, 25), (e07.check_choice_of_run, "c"))
WRONG = (
    (prediction, "a", "other settings"),
    (e07.check_ap, lambda y, s, d: ap(y, s, d & False), "The second picture is gone"),
    (rule, 5, "only 4 labels"),
    (rule, 40, "4.0 points apart"),
    (rule, ..., "one number of patches"),
    (e07.check_choice_of_run, "d", "counts them as absent"),
)


@pytest.mark.parametrize(("check", "answer"), GOOD)
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    assert "is right" in capsys.readouterr().out


@pytest.mark.parametrize(("check", "answer", "message"), WRONG)
def test_wrong_answers_are_told_what_is_wrong(check, answer, message):
    with pytest.raises(CheckFailed, match=re.escape(message)):
        check(answer)
