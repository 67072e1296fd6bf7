"""TEACHING.md: what it names exists, its minutes add up, its model answers are right."""

import math
import re
from pathlib import Path

import pytest
import torch

from piaa_utils.classroom import grade

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
TEXT = (FOLDER / "TEACHING.md").read_text(encoding="utf-8")
SOURCES = {p.stem: p.read_text(encoding="utf-8") for p in FOLDER.glob("source/[0-9][0-9]_*.py")}
TABLED = re.findall(r"^### (\d\d_\w+)$", TEXT, re.M)
FLAT = " ".join(TEXT.split())  # a reference may run over the end of a line
REFERENCE = re.compile(
    r"\b(0\d), (section|exercise)s? ((?:[1-9]\d*(?:, | and )?)+)(?=[;,.):\s|`]|$)"
)


def part(title):
    """The text under a heading, up to the next of the same or a higher rank."""
    rank = len(re.match(r"#+", title)[0])
    start = re.search(rf"^{re.escape(title)}$", TEXT, re.M).end()
    end = re.search(rf"^#{{1,{rank}}} ", TEXT[start:], re.M)
    return TEXT[start : start + end.start()] if end else TEXT[start:]


def rows(text):
    """The cells of the tables in a text, without their heads."""
    body = re.sub(r"^\|.*\n\|[- |]+$", "", text, flags=re.M)
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def headings(source):
    """{"2 · Softmax ...": 2, "Exercise 1 · ...": 3, ...}: the title and its rank."""
    found = re.findall(r"^# (##|###) (.+)$", source, re.M)
    return {title: len(rank) for rank, title in found}


def numbers(stem):
    """The numbers of a notebook's sections and of its exercises."""
    titles = headings(SOURCES[stem])
    return {
        "section": {int(n) for t in titles for n in re.findall(r"^(\d+) · ", t)},
        "exercise": {int(n) for t in titles for n in re.findall(r"^Exercise (\d+) · ", t)},
    }


def test_every_notebook_has_its_minutes():
    assert TABLED == sorted(SOURCES)


@pytest.mark.parametrize("stem", TABLED)
def test_the_parts_of_a_notebook_and_their_minutes(stem):
    text = part(f"### {stem}")
    titles, table = headings(SOURCES[stem]), rows(text)
    assert [row[0] for row in table if row[0] not in titles] == [], "no such part"
    named = [row[0] for row in table]
    assert sorted(named) == sorted(set(named) | set(titles)), "a part is missing, or there twice"
    reading, exercises = map(int, re.search(r"Reading (\d+), exercises (\d+)\.", text).groups())
    minutes = {row[0]: int(row[1]) for row in table}
    asked = {t: m for t, m in minutes.items() if t.startswith("Exercise ")}
    assert sum(asked.values()) == exercises
    assert sum(minutes.values()) - exercises == reading
    assert f"**Time**: {reading} minutes" in SOURCES[stem], "the notebook says otherwise"
    where = [row[2] for row in table if row[0] in asked]
    assert all(w.startswith(("class", "home")) for w in where), "class or home?"


def test_every_reference_leads_somewhere():
    found = REFERENCE.findall(FLAT)
    assert len(found) > 60
    stems = {stem[:2]: stem for stem in SOURCES}
    for notebook, kind, listed in found:
        there = numbers(stems[notebook])[kind]
        asked = {int(n) for n in re.findall(r"\d+", listed)}
        assert asked and asked <= there, f"{notebook}, {kind} {listed}: there are {there}"


def test_no_reference_is_written_in_another_form():
    """So that the test above sees all of them."""
    loose = re.findall(r"\b0\d,? (?:section|exercise)s? \d", FLAT)
    assert len(loose) == len(REFERENCE.findall(FLAT))
    plans = rows(part("## One session of 90 minutes"))
    plans += [row for week in range(1, 5) for row in rows(part(f"### Week {week}"))]
    plans += rows(part("## Misconceptions to expect"))
    assert all(re.search(r"\b\d\d, (section|exercise)s? \d", row[-1]) for row in plans)


@pytest.mark.parametrize(
    "title", ["## One session of 90 minutes", *(f"### Week {n}" for n in range(1, 5))]
)
def test_a_session_has_90_minutes(title):
    assert sum(int(row[0]) for row in rows(part(title))) == 90


def test_the_weeks_are_those_of_the_plan():
    """Home minutes hold at least the exercises for home; every notebook up to 06 has its week."""
    text = part("## A module of four weeks")
    overview = [row for row in rows(text.split("### Week 1")[0]) if row[0].isdigit()]
    assert [row[0] for row in overview] == ["1", "2", "3", "4"]
    named = {stem[:2]: stem for stem in TABLED}
    planned = []
    for _, in_class, home, notebooks, _ in overview:
        assert in_class == "90"
        planned += notebooks.split(", ")
        asked = [r for n in notebooks.split(", ") for r in rows(part(f"### {named[n]}"))]
        assert int(home) >= sum(int(r[1]) for r in asked if r[2].startswith("home"))
    assert planned == sorted(number for number in named if number < "07")


def test_no_measured_numbers_of_the_model():
    assert not re.search(r"\d\.\d ?(%|points)|mAP (of )?\d", TEXT)


def test_five_questions_with_points_and_answers():
    text = part("## Five examination questions")
    assert len(re.findall(r"^\*\*\d\. ", text, re.M)) == 5
    assert len(re.findall(r"^\*Model answer\.\*", text, re.M)) == 5


def test_the_answer_to_question_4():
    q = torch.tensor([1, 1, 1, 1, 0.9], dtype=torch.float64)
    assert q.mean().item() == pytest.approx(0.98)
    assert q.std().item() == pytest.approx(0.045, abs=5e-4)
    threshold = q.mean() + q.std()
    assert threshold.item() == pytest.approx(1.025, abs=5e-4) and not (q >= threshold).any()
    even = torch.ones(5)
    assert (even >= even.mean() + even.std()).all()


def test_the_answer_to_question_5():
    e = torch.tensor([[0.40, 0.30, 0.30], [0.45, 0.45, 0.10]], dtype=torch.float64)
    a, b = torch.softmax(10 * e, dim=1)[:, 0].tolist()
    assert (round(a, 2), round(b, 2)) == (0.58, 0.49)
    assert a == pytest.approx(1 / (1 + 2 / math.e))
    assert b == pytest.approx(1 / (2 + math.exp(-3.5)))


def test_what_it_says_of_the_commands():
    text = part("## Hand out, collect, grade")
    assert "python -m piaa_utils grade handed_in --out grades.csv --jobs 2" in text
    assert "make student OUT=" in text
    assert "\nstudent:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert (grade.Limits().timeout, grade.Limits().memory) == (600, 4096)
