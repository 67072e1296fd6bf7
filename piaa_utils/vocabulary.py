"""Words of the classes: names, other names for them, a background, and the prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from piaa_utils.settings import TEMPLATES

NO_TEXT = "[\0-\x1f\x7f-\x9f\ud800-\udfff]"  # what steers a terminal, and bytes that are no UTF-8


class Vocabulary:
    """What the classes are called and how CLIP is asked for them.

    class_names : C names.
    synonyms : name -> other names of the same thing; its embedding is the mean of all.
    background : B names of what else a picture may show: they compete, and are no answers.
    templates : sentences with ``{}`` where the name goes; the mean of all is taken.

    Attributes: the same as tuples, and names = class_names + background. What is empty or occurs
    twice, also in lower case, is a ValueError.

    >>> words = Vocabulary(["cat", "sofa"], {"sofa": ["couch"]}, background=["grass"])
    >>> len(words), words.prompts()[1]
    (3, ['a photo of a sofa', 'a photo of a couch'])
    >>> Vocabulary(**words.to_dict()) == words
    True
    """

    def __init__(
        self,
        class_names: Sequence[str],
        synonyms: Mapping[str, Sequence[str]] | None = None,
        background: Sequence[str] = (),
        templates: Sequence[str] = TEMPLATES,
    ):
        self.class_names = check_class_names(class_names)
        if not isinstance(synonyms or {}, Mapping):
            raise ValueError(f"synonyms must be a dict, name: other names, not {synonyms!r}.")
        self.background = check_class_names(background, "background") if len(background) else ()
        self.names = self.class_names + self.background
        self.synonyms = {
            name: check_class_names(others, f"The list of synonyms of {name!r}")
            for name, others in (synonyms or {}).items()
        }
        for name in self.synonyms.keys() - set(self.names):
            raise ValueError(f"There are synonyms of {name!r}, which is no class: add it.")
        check_class_names([*self.names, *sum(self.synonyms.values(), ())], "The vocabulary")
        self.templates = tuple(templates)
        if isinstance(templates, str) or not all("{}" in str(t) for t in templates or [""]):
            wanted = "a list of sentences, each with {} where the name goes"
            raise ValueError(f"templates must be {wanted}, not {templates!r}.")

    @classmethod
    def of(cls, words: Vocabulary | Sequence[str]) -> Vocabulary:
        """A vocabulary as it is, or one of plain names."""
        return words if isinstance(words, Vocabulary) else cls(words)

    def prompts(self) -> list[list[str]]:
        """For each of the C + B names: its prompts, template by template of each of its words."""
        words = ([name, *self.synonyms.get(name, ())] for name in self.names)
        return [[t.replace("{}", word) for word in each for t in self.templates] for each in words]

    def to_dict(self) -> dict[str, Any]:
        """The arguments that build it again, as JSON gives them back."""
        lists = {n: list(getattr(self, n)) for n in ("class_names", "background", "templates")}
        return {**lists, "synonyms": {name: list(s) for name, s in self.synonyms.items()}}

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Vocabulary) and self.to_dict() == other.to_dict()


def check_class_names(names: Sequence[str], what: str = "class_names") -> tuple[str, ...]:
    """The names as a tuple; refuse what is no list of different, non-empty names."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(f"{what} must be a list of names, not {names!r}.")
    if not (names := tuple(names)):
        raise ValueError(f"{what} is empty; give at least one name.")
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not name.strip() or re.search(NO_TEXT, name):
            raise ValueError(f"{what} holds {name!r}; every name must be a non-empty line of text.")
        read = " ".join(name.split()).casefold()  # as CLIP's tokenizer reads it
        if read in seen:
            raise ValueError(f"{what} holds the same name twice: {seen[read]!r} and {name!r}.")
        seen[read] = name
    return names
