"""TEACHING.md: what it names exists, its minutes add up, its model answers are right."""

import math
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "notebooks" / "TEACHING.md").read_text(encoding="utf-8")


def part(title):
    """The text under a heading."""
    return TEXT.split(f"\n## {title}")[1].split("\n## ")[0]


def test_a_session_has_90_minutes():
    rows = re.findall(r"^\| (\d+) \|", part("One session of 90 minutes"), re.MULTILINE)
    assert len(rows) > 5 and sum(map(int, rows)) == 90


def test_notebooks_and_commands_that_it_names_exist():
    numbers = {path.name[:2] for path in (ROOT / "notebooks" / "source").glob("*.py")}
    assert set(re.findall(r"\b0\d\b(?!:)", re.sub(r"0\.\d+|1\.0\d+", "", TEXT))) == numbers
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = set(re.findall(r"`make ([\w-]+)", TEXT))
    assert commands == {"student", "test-grade", "grade"}
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in commands)
    config = (ROOT / "course" / "nbgrader_config.py").read_text(encoding="utf-8")
    assert "Execute.timeout = 300" in config and "longer than 300 seconds" in TEXT


def test_the_answer_on_stage_ii():
    q = torch.tensor([1, 1, 1, 1, 0.9], dtype=torch.float64)
    assert q.mean().item() == pytest.approx(0.98)
    assert q.std().item() == pytest.approx(0.045, abs=5e-4)
    assert (q.mean() + q.std()).item() == pytest.approx(1.025, abs=5e-4)
    even = torch.ones(5)
    assert (even >= even.mean() + even.std()).all()


def test_the_answer_on_aggregation():
    e = torch.tensor([[0.40, 0.30, 0.30], [0.45, 0.45, 0.10]], dtype=torch.float64)
    a, b = torch.softmax(10 * e, dim=1)[:, 0].tolist()
    assert (round(a, 2), round(b, 2)) == (0.58, 0.49)
    assert a == pytest.approx(1 / (1 + 2 / math.e))
    assert b == pytest.approx(1 / (2 + math.exp(-3.5)))
