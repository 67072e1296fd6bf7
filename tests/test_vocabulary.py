"""The vocabulary: what it holds, how it asks, and what it refuses when it is built."""

import json

import pytest

from piaa_utils.vocabulary import Vocabulary


def test_names_and_prompts():
    words = Vocabulary(["cat", "sofa"], {"sofa": ["couch"]}, ["sky"], ["a {}", "{} or {}"])
    assert words.names == ("cat", "sofa", "sky") and len(words) == 3
    assert words.prompts() == [
        ["a cat", "cat or cat"],
        ["a sofa", "sofa or sofa", "a couch", "couch or couch"],
        ["a sky", "sky or sky"],
    ]
    assert Vocabulary(**json.loads(json.dumps(words.to_dict()))) == words == Vocabulary.of(words)
    for other in (["cat", "sofa"], ["sofa", "cat", "couch", "sky"]):
        assert Vocabulary(other) != words


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(class_names=[]), "class_names is empty"),
        (dict(class_names="cat"), "class_names must be a list of names, not 'cat'"),
        (dict(class_names=["cat", " "]), "class_names holds ' '"),
        (dict(class_names=["cat", 3]), "class_names holds 3"),
        (dict(class_names=["Cat", "dog", "cat"]), "twice: 'Cat' and 'cat'"),
        (dict(class_names=["hot dog", "hot  dog "]), "twice: 'hot dog' and 'hot  dog '"),
        (dict(background="grass"), "background must be a list of names"),
        (dict(background=["dog"]), "The vocabulary holds the same name twice: 'dog'"),
        (dict(synonyms={"cat": "kitty"}), "synonyms of 'cat' must be a list"),
        (dict(synonyms={"cat": [""]}), "synonyms of 'cat' holds ''"),
        (dict(synonyms={"cat": ["Dog"]}), "twice: 'dog' and 'Dog'"),
        (dict(synonyms={"cow": ["calf"]}), "synonyms of 'cow', which is no class"),
        (dict(class_names=["cat", "a\nb"]), r"holds 'a\\nb'; every name .* line of text"),
        (dict(class_names=["cat", "\x1b[2J"]), r"holds '\\x1b\[2J'; every name"),
        (dict(background=["d\udcfcr"]), r"background holds 'd\\udcfcr'; every name"),
        (dict(synonyms=["kitty"]), "synonyms must be a dict"),
        (dict(templates=[3]), "templates must be a list"),
        (dict(templates="a {}"), "templates must be a list"),
        (dict(templates=["a {}", "a cat"]), "with {} where the name goes"),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(**{"class_names": ["cat", "dog"], **given})
