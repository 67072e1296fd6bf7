"""Tags for pictures from PIAA's scores, and which pictures need a look.

Scores are shares of 1, no probabilities; tags are the `top` best classes with an even share.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from piaa_utils.backbone import Backbone
from piaa_utils.files import data_dir
from piaa_utils.images import image_name, list_images
from piaa_utils.pipeline import PIAA

TOP = 3  # tags of an image, at most


class Tagged(NamedTuple):
    """What :func:`tag_images` found in n images."""

    images: Sequence  # n paths or PIL images
    names: list[str]  # what they are called
    classes: tuple[str, ...]  # C
    scores: np.ndarray  # float32 [n, C], of ``PIAA.predict_proba``; NaN where unreadable
    tags: list[tuple[str, ...]]  # n, best first
    uncertainty: np.ndarray  # [n] from 0 to 1; NaN where unreadable
    problems: dict[int, str]  # index: why the image could not be read
    notice: str = ""  # what to know before the tags are believed, see photo_notice


def tag_images(piaa: PIAA, images: Any, top: int = TOP, threshold: float | None = None) -> Tagged:
    """Score images with a fitted classifier and give each its tags.

    images : whatever :func:`piaa_utils.images.list_images` takes.
    top, threshold : see :func:`choose_tags`, but an even share counts the background in.

    >>> from piaa_utils import Recipe, mini_scenes
    >>> images = mini_scenes("val").paths[:8]
    >>> piaa = PIAA(["cat", "dog", "person"], recipe=Recipe(k=32)).fit(images)
    >>> [len(tags) for tags in tag_images(piaa, images, top=1).tags]
    [1, 1, 1, 1, 1, 1, 1, 1]
    """
    images = list_images(images)
    check_rule(top, threshold)
    scores = piaa.predict_proba(images)
    if notice := photo_notice(piaa.backbone_, images):
        warnings.warn(notice, stacklevel=2)
    problems = {index: reason for index, _, reason in piaa.skipped_}
    names, classes = [image_name(x, i) for i, x in enumerate(_known(images))], piaa.classes_
    threshold = 1 / len(piaa.vocabulary_) if threshold is None else threshold
    tags = choose_tags(scores, classes, top, threshold)
    return Tagged(images, names, classes, scores, tags, uncertainty(scores), problems, notice)


def choose_tags(
    scores: np.ndarray, classes: Sequence[str], top: int = TOP, threshold: float | None = None
) -> list[tuple[str, ...]]:
    """The tags of each image: the `top` classes of highest score, of those that reach a threshold.

    scores : [n, C]; an image whose scores are NaN gets no tags.
    threshold : lowest score of a tag, 0 to 1; None is an even share, 1 / C.

    >>> choose_tags(np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4]]), ["cat", "dog", "sofa"])
    [('dog', 'sofa'), ('sofa',)]
    """
    check_rule(top, threshold)
    least = 1 / len(classes) if threshold is None else threshold
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    pairs = zip(best, scores, strict=True)
    return [tuple(classes[c] for c in row if each[c] >= least) for row, each in pairs]


def check_rule(top: int, threshold: float | None) -> None:
    """Refuse a rule that gives no tags."""
    if top < 1:
        raise ValueError(f"The number of tags at most must be 1 or more, not {top}.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"The lowest score of a tag must be from 0 to 1, not {threshold}.")


def uncertainty(scores: np.ndarray) -> np.ndarray:
    """How evenly the scores [n, C] of each image are spread: entropy over its largest value, [n].

    0: one class has all. 1: all have the same. Scores are first brought to sum 1.

    >>> uncertainty(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3] * 3])).round(3).tolist()
    [0.631, 0.0, 1.0]
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape[1] == 1:  # a class against the background
        scores = np.concatenate([scores, 1 - scores], axis=1)
    p = (scores / scores.sum(axis=1, keepdims=True)).clip(1e-12, 1)
    return -(p * np.log(p)).sum(axis=1).clip(max=0) / np.log(p.shape[1])


def needs_a_look(found: Tagged, count: int = 10) -> list[int]:
    """The `count` images to look at first (0 or more): unreadable ones, then the uncertain ones."""
    if count < 0:
        raise ValueError(f"The number of images to look at must be 0 or more, not {count}.")
    order = np.argsort(-found.uncertainty, kind="stable")
    return [*found.problems, *(int(i) for i in order if i not in found.problems)][:count]


def photo_notice(backbone: Backbone, images: Sequence) -> str:
    """What to know before the mini-CLIP is believed; empty for another CLIP or the mini world."""
    if backbone.name.partition("@")[0] != "mini":
        return ""
    home = (data_dir() / "mini_scenes").resolve()
    paths = (Path(image_name(image)).resolve() for image in _known(images))
    outside = sum(home not in path.parents for path in paths)
    said = (
        f"The mini-CLIP has seen drawn scenes only, and {outside} of {len(images)} pictures are "
        f"not from its world, data/mini_scenes. For photographs its tags mean nothing: take a real "
        f"CLIP, --backbone ViT-B-16-quickgelu --pretrained openai (in Python "
        f'load_backbone("ViT-B-16-quickgelu", "openai")).'
    )
    return said if outside else ""


def _known(images: Sequence) -> Sequence:
    """The images as far as they are at hand: those of a Dataset would be fetched again."""
    return images if isinstance(images, list) else [None] * len(images)
