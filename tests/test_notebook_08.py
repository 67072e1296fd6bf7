"""Notebook 08's checks: right answers pass, plausible wrong ones are told what is wrong."""

import re

import pytest
from torch.nn.functional import normalize

from piaa_utils.lessons import CheckFailed
from piaa_utils.lessons.exercises import e08


def rule(scores, top, threshold):
    return ((-scores).argsort(axis=1).argsort(axis=1) < top) & (scores >= threshold)


def prediction(answer):
    e08.check_prediction(answer, 8.0, 1.0)


def limit(answer):
    e08.check_limit(answer, [1.0, 1.1, 1.2, 1.3], lambda t: (t - 0.45, 1.5 - t))


def vector(u):
    return normalize(normalize(u, dim=-1).mean(0), dim=-1)


GOOD = ((e08.check_vector, vector), (e08.check_rule, rule), (prediction, "b"), (limit, 1.2))
WRONG = (
    (e08.check_vector, lambda u: u.mean(0), "length 1"),
    (e08.check_vector, lambda u: normalize(u.mean(0), dim=-1), "Normalise each sentence first"),
    (e08.check_rule, lambda s, top, t: rule(s, top, t) & (s > t), "exactly the threshold"),
    (prediction, "a", "gave +1.0 points, the others +8.0"),
    (limit, 1.0, "go up"),
    (limit, 1.3, "go down"),
)


@pytest.mark.parametrize(("check", "answer"), GOOD)
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    assert "is right" in capsys.readouterr().out


@pytest.mark.parametrize(("check", "answer", "message"), WRONG)
def test_wrong_answers_are_told_what_is_wrong(check, answer, message):
    with pytest.raises(CheckFailed, match=re.escape(message)):
        check(answer)
