"""For tests of notebooks: functions out of their sources, and what a check must say."""

import ast
import re
from pathlib import Path

import jupytext
import pytest

from piaa_utils.lessons import CheckFailed

SOURCES = Path(__file__).resolve().parents[1] / "notebooks" / "source"


def cell_function(notebook, name, **around):
    """The function that a cell of source/NOTEBOOK.py defines, among the names it reads."""
    cells = jupytext.read(SOURCES / f"{notebook}.py", fmt="py:percent").cells
    texts = (cell.source for cell in cells if cell.cell_type == "code")
    body = ast.parse("\n".join(texts)).body
    (found,) = (node for node in body if getattr(node, "name", "") == name)
    exec(compile(ast.Module([found], []), name, "exec"), around)
    return around[name]


def check_says(check, right, wrong, *rest):
    """A check takes what is right; of each wrong answer it says the words."""
    check(right, *rest)
    for words, answer in wrong.items():
        with pytest.raises(CheckFailed, match=re.escape(words)):
            check(answer, *rest)
