"""Notebook 08, your own images: pictures in, figures, the explorer, checks of the exercises."""

from __future__ import annotations

import io
import os
import re
import textwrap
from collections.abc import Callable, Sequence

import ipywidgets as widgets
import numpy as np
import torch
from IPython.display import HTML
from PIL import Image
from torch import Tensor

from piaa_utils.images import UnreadableImage, list_images, open_image
from piaa_utils.lessons.checks import check_choice, check_function
from piaa_utils.lessons.features import Features
from piaa_utils.lessons.nb06 import score_split
from piaa_utils.pipeline import PIAA
from piaa_utils.plots import PALETTE, Figure, centre_square, heat_map, subplots
from piaa_utils.predict import TOP, Tagged, choose_tags, uncertainty
from piaa_utils.selection import PatchBank


def upload_button() -> widgets.FileUpload:
    """A button that takes image files into the notebook."""
    return widgets.FileUpload(accept="image/*", multiple=True, description="Pictures")


def chosen(button: widgets.FileUpload, folder: str | None, default: Sequence) -> list:
    """The pictures to work on: what was uploaded; else those of a folder; else the default.

    Raises
    ------
    UnreadableImage
        An uploaded file is no image.
    FileNotFoundError, ValueError
        There is no such folder, or no image in it.
    """
    if button.value:
        return [_uploaded(file["name"], file["content"]) for file in button.value]
    return list(list_images(folder or default))


def _uploaded(name: str, content: object) -> Image.Image:
    try:
        picture = open_image(Image.open(io.BytesIO(bytes(content))))
    except OSError as error:
        raise UnreadableImage(f"{name} is no image that can be read ({error}).") from None
    picture.filename = name
    return picture


def learned(piaa: PIAA, f: Features) -> PIAA:
    """``piaa.fit`` on pictures whose features are at hand: the same classifier, much sooner."""
    piaa._prepare()
    patches, text = f.patches[piaa.encoder], piaa.text_.cpu()
    bank = PatchBank(len(text), piaa.n_select, per_image=1)
    for start in range(0, len(patches), 64):
        part = patches[start : start + 64]
        bank.update(part, text, range(start, start + len(part)))
    return piaa.fit_bank(bank)


def tagged(piaa: PIAA, f: Features, images: Sequence) -> Tagged:
    """``tag_images`` for pictures whose features are at hand, with its default rule."""
    scores = score_split(piaa, f.cls, f.patches[piaa.encoder])
    share = 1 / (len(piaa.class_names) + len(piaa.background))
    tags = choose_tags(scores, piaa.class_names, TOP, share)
    names = [getattr(image, "name", str(image)) for image in images]
    classes = tuple(piaa.class_names)
    return Tagged(list(images), names, classes, scores, tags, uncertainty(scores), {})


def tag_table(found: Tagged) -> np.ndarray:
    """The tags as a table: bool [n, C]."""
    return np.array([[name in tags for name in found.classes] for tags in found.tags])


def precision_recall(chosen: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Share of tags that are right, and share of the objects that are tagged; bool [n, C] both.

    Precision is NaN where there are no tags.

    Examples
    --------
    >>> right = np.array([[True, False], [True, True]])
    >>> precision_recall(np.array([[True, False], [True, False]]), right)
    (1.0, 0.6666666666666666)
    """
    hits = (chosen & labels).sum()
    return float(hits / chosen.sum()) if chosen.any() else np.nan, float(hits / labels.sum())


def gallery(found: Tagged, indices: Sequence[int], title: str = "") -> Figure:
    """Pictures with their tags, the score of each beside it; four a row."""
    rows = -(-len(indices) // 4)
    columns = min(4, len(indices))
    size = (4 * columns, 4.9 * rows + (0.5 if title else 0))
    figure, axes = subplots(rows, columns, size=size, squeeze=False)
    said = []
    for ax in axes.ravel():
        ax.axis("off")
    for ax, i in zip(axes.ravel(), indices, strict=False):
        ax.imshow(np.asarray(centre_square(open_image(found.images[i]))))
        best = [found.classes.index(tag) for tag in found.tags[i]]
        lines = [f"{found.classes[c]} {found.scores[i, c]:.2f}" for c in best] or ["no tag"]
        ax.set_title("\n".join(lines + [""] * (TOP - len(lines))), fontsize=16)
        said.append(", ".join(lines))
    figure.suptitle(title)
    figure.alt_text = f"{title or 'Pictures'} with their tags: {'; '.join(said)}."
    return figure


def explore(picture: int, class_name: str, *, piaa: PIAA, found: Tagged) -> Figure:
    """A picture, the heat map of a class, and the scores of all classes with the tags in colour.

    A line marks an even share of all classes, background included.

    Raises
    ------
    ValueError
        No such picture or class.
    """
    if not 0 <= picture < len(found.names):
        raise ValueError(f"There is no picture {picture}: they are 0 to {len(found.names) - 1}.")
    if class_name not in found.classes:
        raise ValueError(f"There is no class {class_name!r}: {', '.join(found.classes)}.")
    image, scores = found.images[picture], found.scores[picture]
    heat = piaa.patch_scores(image)[found.classes.index(class_name)]
    figure, axes = subplots(1, 3, size=(17, 5.4), width_ratios=(1, 1, 1.1))
    axes[0].imshow(np.asarray(centre_square(open_image(image))))
    axes[0].set(xticks=[], yticks=[], title=f"picture {picture}")
    axes[0].spines[:].set_visible(False)
    heat_map(axes[1], image, heat, title=f"{class_name}, its own scale")
    order = np.argsort(-scores, kind="stable")[:10]
    tags = found.tags[picture]
    colours = [PALETTE[0] if found.classes[c] in tags else "0.75" for c in order]
    axes[2].barh(range(len(order)), scores[order], color=colours)
    axes[2].set_yticks(range(len(order)), [found.classes[c] for c in order])
    axes[2].invert_yaxis()
    even = 1 / (len(piaa.class_names) + len(piaa.background))
    axes[2].axvline(even, color="black", linestyle="--", label="even share")
    axes[2].legend(loc="lower right")
    axes[2].set(xlabel="score (blue: a tag)")
    axes[2].locator_params(axis="x", nbins=4)
    figure.alt_text = (
        f"Picture {picture}, the heat map of {class_name}, and bars: tags "
        f"{', '.join(tags) or 'none'}; highest score {scores.max():.2f}, of "
        f"{found.classes[order[0]]}; an even share is {even:.2f}; uncertainty "
        f"{found.uncertainty[picture]:.4f}."
    )
    return figure


def by_sureness(unsure: np.ndarray, counts: np.ndarray, groups: int = 5) -> np.ndarray:
    """Mean count of groups of equal size, from the surest pictures to the least sure: [groups].

    Examples
    --------
    >>> by_sureness(np.array([0.9, 0.1, 0.5, 0.2]), np.array([4, 1, 3, 2]), 2).tolist()
    [1.5, 3.5]
    """
    order = np.argsort(unsure, kind="stable")
    return np.array([counts[part].mean() for part in np.array_split(order, groups)])


def look_figure(
    unsure: np.ndarray, wrong: np.ndarray, missing: np.ndarray, groups: int = 5
) -> Figure:
    """Wrong and missing tags of a picture, stacked, by groups from the surest to the least sure.

    Parameters
    ----------
    unsure : [n], the uncertainty; wrong and missing : [n], how many tags of a picture are.
    groups : how many, of equal size.
    """
    means = {
        "missing": by_sureness(unsure, missing, groups),
        "wrong": by_sureness(unsure, wrong, groups),
    }
    figure, ax = subplots(size=(10, 5))
    bottom = np.zeros(groups)
    looks = ({"color": "0.75", "hatch": "//", "edgecolor": "white"}, {"color": PALETTE[1]})
    for (name, heights), look in zip(means.items(), looks, strict=True):
        ax.bar(range(groups), heights, bottom=bottom, label=name, **look)
        bottom += heights
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="upper left", frameon=False)
    names = ["surest", *[""] * (groups - 2), "least sure"]
    ax.set_xticks(range(groups), [f"{n}\n{i + 1} of {groups}" for i, n in enumerate(names)])
    ax.set_ylabel("wrong and missing tags\na picture")
    said = [f"{name} {', '.join(f'{m:.2f}' for m in means[name])}" for name in ("wrong", "missing")]
    figure.alt_text = (
        f"Tags a picture, in {groups} groups from the surest pictures to the least sure: "
        f"{'; '.join(said)}."
    )
    return figure


def wrapped(message: str, folder: str | os.PathLike) -> str:
    """A message in lines of 100 characters, without the folder before names of files in it.

    Examples
    --------
    >>> wrapped("damaged: /tmp/x/mine.txt is no text.", "/tmp/x")
    'damaged: mine.txt is no text.'
    """
    text = message.replace(f"{os.fspath(folder)}{os.sep}", "")
    return textwrap.fill(text, 100, subsequent_indent="    ")


def top_of_sheet(page: str, count: int = 2) -> HTML:
    """The first pictures of a contact sheet, to show in a notebook, which has its own styles."""
    articles = re.findall("<article>.*?</article>", page, re.DOTALL)[:count]
    text = re.sub("(</?)h3>", r"\1p>", "\n".join(articles))
    row = 'style="display: flex; flex-wrap: wrap; gap: 0.8em"'
    text = text.replace('class="row"', row)
    return HTML(text.replace("<figure>", '<figure style="margin: 0; width: 168px">'))


def strangeness(cls: Tensor, known: Tensor) -> np.ndarray:
    """How far pictures lie from all known ones: 1 minus the largest cosine, [n].

    Parameters
    ----------
    cls : [n, D] and known : [m, D], unit [CLS] features.
    """
    return 1 - (cls @ known.T).amax(dim=1).cpu().numpy()


def crops(images: Sequence[Image.Image], count: int, seed: int = 0) -> list[Image.Image]:
    """`count` squares of each picture, at random places, a half to all of its short side."""
    rng, out = np.random.default_rng(seed), []
    for image in images:
        for _ in range(count):
            side = int(rng.integers(min(image.size) // 2, min(image.size) + 1))
            left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
            out.append(image.crop((left, top, left + side, top + side)))
    return out


def strange_figure(groups: dict[str, np.ndarray], limit: float) -> Figure:
    """The strangeness of each group's pictures as points, and a limit.

    Groups of five or more have a line at their median.
    """
    figure, ax = subplots(size=(12, 1.1 * len(groups) + 1.6))
    rng = np.random.default_rng(0)
    said = []
    for y, (name, values) in enumerate(groups.items()):
        spread = y + rng.uniform(-0.28, 0.28, len(values))
        big = len(values) < 5
        ax.plot(
            values,
            np.full(len(values), y) if big else spread,
            "D" if big else "o",
            color=PALETTE[1] if big else PALETTE[0],
            markersize=12 if big else 5,
            alpha=1 if big else 0.5,
        )
        if big:
            said.append(f"{name}: {', '.join(f'{v:.2f}' for v in values)}")
            continue
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        line = {"label": "median"} if "median" not in ax.get_legend_handles_labels()[1] else {}
        ax.plot([middle, middle], [y - 0.38, y + 0.38], color="black", linewidth=3, **line)
        said.append(f"{name}: median {middle:.2f}, nine in ten from {low:.2f} to {high:.2f}")
    ax.axvline(limit, color=PALETTE[3], linestyle="--", linewidth=3, label="limit")
    ax.legend(loc="upper left")
    ax.set_yticks(range(len(groups)), list(groups))
    ax.set_ylim(len(groups) - 0.4, -0.6)
    ax.set_xlabel("strangeness: 1 - cosine to the most similar known scene")
    figure.alt_text = f"Strangeness of pictures. {'; '.join(said)}. A limit at {limit:.2f}."
    return figure


# Exercises


def exercise_1(answer: Callable) -> None:
    """Check the text vector of a class: ``answer(embeddings)``, [n, D] of any length, to unit [D].

    Raises
    ------
    CheckFailed
        With the smallest input that differs.
    """

    def vector(embeddings: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(embeddings, dim=-1)
        return torch.nn.functional.normalize(unit.mean(0), dim=-1)

    cases = [
        (torch.tensor([[0.0, 2.0]]),),
        (torch.tensor([[3.0, 0.0], [0.0, 1.0]]),),
        (torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 5.0], [1.0, 0.0, 0.0]]),),
    ]
    check_function(answer, vector, cases, "Exercise 1")


def exercise_2(answer: Callable) -> None:
    """Check the rule of tags: ``answer(scores, top, threshold)``, [n, C] to bool [n, C].

    Raises
    ------
    CheckFailed
        With the smallest input that differs.
    """

    def rule(scores: np.ndarray, top: int, threshold: float) -> np.ndarray:
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        best = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(best, order, True, axis=1)
        return best & (scores >= threshold)

    cases = [
        (np.array([[0.6, 0.3, 0.1]]), 1, 0.0),
        (np.array([[0.6, 0.3, 0.1]]), 3, 0.3),
        (np.array([[0.2, 0.5, 0.3]]), 1, 0.0),
        (np.array([[0.5, 0.3, 0.2], [0.05, 0.15, 0.8], [0.3, 0.45, 0.25]]), 2, 0.25),
    ]
    check_function(answer, rule, cases, "Exercise 2")


def exercise_3(answer: Callable) -> None:
    """Check the uncertainty: ``answer(scores)``, [n, C] that sum to 1, to [n].

    Raises
    ------
    CheckFailed
        With the smallest input that differs.
    """
    cases = [
        (np.array([[0.5, 0.5]]),),
        (np.array([[0.7, 0.2, 0.1], [0.34, 0.33, 0.33]]),),
        (np.array([[1.0, 0.0, 0.0, 0.0]]),),
    ]
    check_function(answer, uncertainty, cases, "Exercise 3", tolerance=1e-3)


def exercise_4(answer: object) -> None:
    """Check the choice: what may be said of a score of 0.40.

    Raises
    ------
    CheckFailed
        For another letter.
    """
    wrong = {
        "a": "Nobody measured how often a picture with this score has the dog. Scores are shares: "
        "with three classes 0.40 is little, with fifty it is much.",
        "b": "A share says nothing about size. The best patch alone sets a class's evidence.",
        "d": "Of classes that are all absent one still has the largest share: scores of a picture "
        "sum to 1.",
    }
    why = "Scores of one classifier rank pictures for a class, and classes for a picture."
    check_choice(answer, "c", wrong, "Exercise 4", why)
