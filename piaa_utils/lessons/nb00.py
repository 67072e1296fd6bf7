"""Notebook 00, Start here: figures, the explorer's callback and the checks of the exercises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score

from piaa_utils.datasets import VOCLayout
from piaa_utils.lessons.checks import CheckFailed, check_choice, check_function, check_number
from piaa_utils.lessons.features import mask_or_none
from piaa_utils.plots import PALETTE, Figure, centre_square, subplots

IN_PICTURE, NOT_IN_PICTURE = PALETTE[0], "0.7"


def class_pixels(data: VOCLayout) -> np.ndarray:
    """How many pixels of each class are seen in each picture: int [n, C].

    A row is 0 throughout where a picture has no mask.

    Examples
    --------
    >>> from piaa_utils.datasets import mini_scenes
    >>> data = mini_scenes("val")
    >>> pixels = class_pixels(data)
    >>> pixels.shape, bool((pixels[data.labels == 1] >= 25).all())
    ((150, 20), True)
    """
    out = np.zeros((len(data), len(data.class_names)), dtype=int)
    for i in range(len(data)):
        mask = mask_or_none(data, i)
        if mask is not None:
            seen = centre_square(mask)  # as the model sees it
            out[i] = np.bincount(seen[seen >= 0], minlength=out.shape[1])
    return out


def named(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which true classes are among the k highest scores of a picture that shows k classes.

    Parameters
    ----------
    scores : [n, C] scores.
    labels : [n, C] of 0 and 1.

    Returns
    -------
    bool [n, C], True where the class is there and was named.

    Examples
    --------
    >>> named(np.array([[0.5, 0.1, 0.4]]), np.array([[1, 1, 0]])).tolist()
    [[True, False, False]]
    """
    rank = (-scores).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return (rank < labels.sum(axis=1, keepdims=True)) & (labels == 1)


def scores_figure(
    image: object,
    class_names: Sequence[str],
    methods: Mapping[str, ArrayLike],
    truth: ArrayLike,
    show: int = 8,
) -> Figure:
    """A picture, and for each method its highest scores; classes in the picture are coloured.

    Parameters
    ----------
    image : a path or PIL image.
    class_names : C names.
    methods : {name: [C] scores}.
    truth : [C] of 0 and 1.
    show : how many classes, the highest first.

    Raises
    ------
    ValueError
        `show` is not from 1 to C.
    """
    from piaa_utils.images import open_image

    if not 1 <= show <= len(class_names):
        raise ValueError(f"show must be from 1 to the {len(class_names)} classes: got {show}.")
    truth = np.asarray(truth) == 1
    size = (3.9 + 4.5 * len(methods), 1.2 + 0.5 * max(show, 6))
    figure, axes = subplots(1, 1 + len(methods), size=size)
    axes[0].imshow(np.asarray(centre_square(open_image(image))))
    axes[0].axis("off")
    words = []
    for ax, (method, scores) in zip(axes[1:], methods.items(), strict=True):
        scores = np.asarray(scores)
        best = np.argsort(-scores, kind="stable")[:show]
        colours = [IN_PICTURE if truth[c] else NOT_IN_PICTURE for c in best]
        ax.barh(range(show), scores[best], color=colours)
        ax.set_yticks(range(show), [class_names[c] for c in best])
        ax.invert_yaxis()
        ax.set(title=method, xlabel="score")
        named = ", ".join(class_names[c] + ("" if truth[c] else " (wrong)") for c in best[:4])
        words.append(f"{method} ranks highest {named}")
    shown = ", ".join(np.array(class_names)[truth])
    figure.suptitle(f"blue: in the picture ({shown})", fontsize="small", fontweight="normal")
    figure.alt_text = f"A picture that shows {shown}. {'; '.join(words)}."
    return figure


def explore(
    picture: int,
    show: int,
    data: VOCLayout,
    methods: Mapping[str, np.ndarray],
) -> Figure:
    """The explorer: the scores of one picture by each method.

    Parameters
    ----------
    picture : index into the data set.
    show : how many classes.
    data : the pictures and their labels.
    methods : {name: [n, C] scores}.

    Raises
    ------
    ValueError
        There is no such picture, or `show` is out of range.
    """
    if not 0 <= picture < len(data):
        raise ValueError(f"There are pictures 0 to {len(data) - 1}, and no picture {picture}.")
    rows = {name: scores[picture] for name, scores in methods.items()}
    return scores_figure(data.paths[picture], data.class_names, rows, data.labels[picture], show)


# Exercises


def exercise_1(top_classes: Callable) -> None:
    """Check ``top_classes(scores, names, k)``: the k names with the highest scores, best first."""
    what = "Exercise 1"
    cases = (
        ([0.1, 0.7, 0.2], ["cat", "dog", "bus"], 1),
        ([0.1, 0.7, 0.2], ["cat", "dog", "bus"], 2),
        ([0.4, 0.1, 0.3, 0.2], ["cat", "dog", "bus", "car"], 4),
    )
    for scores, names, k in cases:
        wanted = [names[i] for i in np.argsort(scores)[::-1][:k]]
        answer = top_classes(np.array(scores), list(names), k)
        if answer is None:
            raise CheckFailed(f"{what}: the function returned None; is there a return?")
        if not isinstance(answer, list | tuple | np.ndarray) or list(answer) != wanted:
            raise CheckFailed(
                f"{what}: for scores {scores} of {names} and k = {k} it gave {answer}, "
                f"expected {wanted}."
            )
    print(f"✓ {what} is right.")


def exercise_2(average_precision: Callable) -> None:
    """Check ``average_precision(y, scores)`` of one class against scikit-learn's."""
    rng = np.random.default_rng(0)
    cases = [
        (np.array([1, 0]), np.array([0.9, 0.1])),
        (np.array([0, 1]), np.array([0.9, 0.1])),
        (np.array([1, 0, 1, 0, 0]), np.array([0.2, 0.9, 0.8, 0.1, 0.4])),
        (rng.integers(0, 2, 30), rng.permutation(30) / 30),
    ]
    check_function(average_precision, average_precision_score, cases, "Exercise 2")


def exercise_3(answer: object) -> None:
    """Check the choice of why a softmax cannot say yes to two classes."""
    wrong = {
        "a": "It can: scores are compared within each picture, whatever the number of classes.",
        "c": "The text features do differ: the two cosines were given, and they are equal.",
        "d": "A larger scale makes the winner's share larger, so the second loses still more.",
    }
    why = "Shares sum to 1: what one class gains the others lose."
    check_choice(answer, "b", wrong, "Exercise 3", why)


def exercise_4(answer: object, scores: np.ndarray, labels: np.ndarray) -> None:
    """Check the share of pictures whose highest score is a class that is really there."""
    expected = np.asarray(labels)[np.arange(len(labels)), np.asarray(scores).argmax(1)].mean()
    hint = "Take argmax over classes, look up its label, and average: a share, 0 to 1."
    check_number(answer, float(expected), "Exercise 4", hint=hint)
