"""``python -m piaa_utils predict``: tags for your own images, and which of them need a look.

A score of PIAA ranks: images for a class, and classes for an image. It is no probability that the
class is there. Scores of an image are shares of 1, so they shrink as classes are added, and how far
they lie apart depends on the scales of the aggregation. Tags are therefore taken by a rule, the
`top` best classes that have an even share or more, and the rule is yours to change.
"""

from __future__ import annotations

import argparse
import csv
import glob
import io
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from piaa_utils.backbone import MINI, Backbone
from piaa_utils.constants import CONSTANTS
from piaa_utils.contact_sheet import contact_sheet
from piaa_utils.datasets import data_dir
from piaa_utils.encoders import ENCODERS
from piaa_utils.files import no_formula, write_whole
from piaa_utils.images import image_name, list_images
from piaa_utils.messages import some
from piaa_utils.pipeline import PIAA

TOP = 3  # tags of an image, at most
FEW = 100  # images to learn from; fewer and the command says so
# Endings of pictures that a folder's search passes over.
PASSED_OVER = tuple(
    ".heic .heif .hif .avif .jxl .jp2 .jpe .jfif .tga .psd .svg .raw .dng .cr2 .cr3 .nef .arw .orf "
    ".raf .rw2".split()
)


@dataclass(frozen=True)
class Tagged:
    """What :func:`tag_images` found in n images.

    Attributes
    ----------
    images : the n paths or PIL images; names : what they are called.
    classes : the C class names.
    scores : float32 [n, C], see ``PIAA.predict_proba``; NaN for an unreadable image.
    tags : n tuples of class names, best first.
    uncertainty : [n] from 0 to 1, see :func:`uncertainty`; NaN for an unreadable image.
    problems : {index: why the image could not be read}.
    notice : what to know before the tags are believed, see :func:`photo_notice`.
    """

    images: Sequence
    names: list[str]
    classes: tuple[str, ...]
    scores: np.ndarray
    tags: list[tuple[str, ...]]
    uncertainty: np.ndarray
    problems: dict[int, str]
    notice: str = ""


def tag_images(
    piaa: PIAA, images: object, top: int = TOP, threshold: float | None = None
) -> Tagged:
    """Score images with a fitted classifier and give each its tags.

    Parameters
    ----------
    piaa : fitted or loaded.
    images : a folder, paths, PIL images or a Dataset.
    top, threshold : see :func:`choose_tags`.

    Raises
    ------
    ValueError
        No classifier, no images, or a bad `top` or `threshold`.
    UnreadableImage
        If not one of the images can be read.

    Warns
    -----
    UserWarning
        Naming unreadable images; and if the mini-CLIP is asked about other pictures than its own.

    Examples
    --------
    >>> from piaa_utils.datasets import mini_scenes
    >>> images = mini_scenes("val").paths[:8]
    >>> found = tag_images(PIAA(["cat", "dog", "person"], n_select=32).fit(images), images, top=1)
    >>> found.scores.shape, [len(tags) for tags in found.tags]
    ((8, 3), [1, 1, 1, 1, 1, 1, 1, 1])
    """
    images = list_images(images)
    _check_rule(top, threshold)
    scores = piaa.predict_proba(images)
    notice = photo_notice(piaa.backbone_, images)
    if notice:
        warnings.warn(notice, stacklevel=2)
    problems = {index: reason for index, _, reason in piaa.skipped_}
    plain = isinstance(images, list)  # a Dataset would fetch each image again for its name
    names = [image_name(images[i], i) if plain else f"image {i}" for i in range(len(images))]
    if threshold is None:
        threshold = 1 / (len(piaa.class_names) + len(piaa.background))
    tags = choose_tags(scores, piaa.class_names, top, threshold)
    classes = tuple(piaa.class_names)
    return Tagged(images, names, classes, scores, tags, uncertainty(scores), problems, notice)


def choose_tags(
    scores: np.ndarray,
    classes: Sequence[str],
    top: int = TOP,
    threshold: float | None = None,
) -> list[tuple[str, ...]]:
    """The tags of each image: the `top` classes of highest score, of those that reach a threshold.

    Parameters
    ----------
    scores : [n, C]; an image whose scores are NaN gets no tags.
    classes : C names.
    top : tags of an image at most, 1 or more.
    threshold : lowest score of a tag, 0 to 1; None is an even share, 1 / C. (:func:`tag_images`
        counts the background classes in.) Twice an even share gives few tags, and surer ones.

    Examples
    --------
    >>> choose_tags(np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4]]), ["cat", "dog", "sofa"])
    [('dog', 'sofa'), ('sofa',)]
    """
    _check_rule(top, threshold)
    least = 1 / len(classes) if threshold is None else threshold
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        tuple(classes[c] for c in row if each[c] >= least)
        for row, each in zip(best, scores, strict=True)
    ]


def uncertainty(scores: np.ndarray) -> np.ndarray:
    """How evenly the scores of an image are spread: their entropy over its largest value, [n].

    0: one class has all. 1: all have the same. Scores of an image are first brought to sum 1, so
    what background classes took does not count. Where scores lie close to even, all values lie
    close to 1, and their order is what counts. It goes with the errors of the default rule, as
    notebook 08 measures, in the mini world more with few classes than with many.

    Examples
    --------
    >>> uncertainty(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3] * 3])).round(3).tolist()
    [0.631, 0.0, 1.0]
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape[1] == 1:  # a class against the background
        scores = np.concatenate([scores, 1 - scores], axis=1)
    p = (scores / scores.sum(axis=1, keepdims=True)).clip(1e-12, 1)
    return -(p * np.log(p)).sum(axis=1).clip(max=0) / np.log(p.shape[1])


def needs_a_look(found: Tagged, count: int = 10) -> list[int]:
    """The images to look at first: unreadable ones, then by falling uncertainty; `count` indices.

    Raises
    ------
    ValueError
        `count` is below 0.
    """
    if count < 0:
        raise ValueError(f"The number of images to look at must be 0 or more, not {count}.")
    order = np.argsort(-found.uncertainty, kind="stable")
    unread = list(found.problems)
    return [*unread, *(int(i) for i in order if i not in found.problems)][:count]


def photo_notice(backbone: Backbone, images: Sequence) -> str:
    """What to know before the mini-CLIP is believed; empty for another CLIP or the mini world.

    It knows drawn scenes only. Whether a picture is a photograph cannot be told dependably from
    its features or flat areas: many pieces of photographs look no stranger than drawn scenes in
    the unseen style (notebook 08 shows it). So all pictures from outside ``data/mini_scenes`` get
    the notice.
    """
    if backbone.name.partition("@")[0] != MINI:
        return ""
    home = (data_dir() / "mini_scenes").resolve()
    plain = images if isinstance(images, list) else [None] * len(images)
    paths = [getattr(image, "filename", None) or image for image in plain]
    outside = sum(
        not isinstance(path, str | os.PathLike) or home not in Path(path).resolve().parents
        for path in paths
    )
    if not outside:
        return ""
    return (
        f"The mini-CLIP has seen drawn scenes only, and {outside} of {len(images)} pictures are "
        f"not from its world, data/mini_scenes. For photographs its tags mean nothing: take a real "
        f"CLIP, --backbone ViT-B-16-quickgelu --pretrained openai (in Python "
        f'PIAA(names, "ViT-B-16-quickgelu", "openai")).'
    )


# What is typed: classes and images


def read_classes(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """Class names and synonyms, from a list or from a file.

    Parameters
    ----------
    text : names between commas, ``"dog, sofa = couch = settee"``; or a text file (UTF-8) with one
        class a line, where lines that begin with ``#`` are left out. The first name of a class
        is the one in the results.

    Returns
    -------
    The names, and for those that have some, their synonyms.

    Raises
    ------
    FileNotFoundError
        `text` ends in .txt and there is no such file.
    ValueError
        An empty name, a ``;``, a name given twice, or a file that is no UTF-8.

    Examples
    --------
    >>> read_classes("dog, sofa = couch = settee")
    (['dog', 'sofa'], {'sofa': ['couch', 'settee']})
    """
    where = "The class list"
    if text.lower().endswith(".txt") or os.path.isfile(text):
        where = f"The class list in {text}"
        try:
            text = Path(text).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise FileNotFoundError(f"There is no file {text}: check the path.") from None
        except UnicodeDecodeError:
            raise ValueError(f"{text} is no UTF-8 text: save it as UTF-8.") from None
        lines = [line for line in text.splitlines() if line.strip()]
        text = ",".join(line for line in lines if not line.lstrip().startswith("#"))
    classes = [[name.strip() for name in names.split("=")] for names in text.split(",")]
    every = sum(classes, [])
    if not all(every):
        raise ValueError(f"{where} has an empty name: give names between commas.")
    if bad := next((name for name in every if ";" in name), None):
        raise ValueError(f"{where} has {bad!r}: between names of one class goes =, as in a = b.")
    if twice := next((name for name, n in Counter(every).items() if n > 1), None):
        raise ValueError(f"{where} has {twice!r} twice: remove one.")
    return [names[0] for names in classes], {n[0]: n[1:] for n in classes if n[1:]}


def find_images(arguments: Sequence[str | os.PathLike]) -> list[Path]:
    """The image files that files, folders and patterns name; each once, in the order given.

    Parameters
    ----------
    arguments : files; folders, searched with their sub-folders for files with an image suffix; or
        patterns of files such as ``"holiday/*.jpg"`` and, with sub-folders, ``"**/*.jpg"``.

    Raises
    ------
    FileNotFoundError
        There is no such file, or none fits the pattern.
    ValueError
        There is no image in a folder, or no argument.

    Warns
    -----
    UserWarning
        A folder has files that end like pictures, but not with an image suffix, as .heic.
    """
    found: list[Path] = []
    for argument in map(os.fspath, arguments):
        if os.path.exists(argument):
            if os.path.isdir(argument):
                _name_passed_over(Path(argument))
            found += list_images(argument)
            continue
        matches = sorted(glob.glob(argument, recursive=True))
        files = [Path(path) for path in matches if os.path.isfile(path)]
        if not files:
            raise FileNotFoundError(f"No file or folder is called or fits {argument}: check it.")
        found += files
    if not found:
        raise ValueError("There are no images: name files, folders or patterns.")
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def _name_passed_over(folder: Path) -> None:
    passed = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in PASSED_OVER and not path.name.startswith(".") and path.is_file()
    )
    if passed:
        warnings.warn(
            f"Left out in {folder}, for their endings are not searched for: {len(passed)} that may "
            f"be pictures, {some(passed)}. Save them as JPEG or PNG.",
            stacklevel=3,
        )


# What is written


def tags_csv(found: Tagged) -> str:
    """One line an image: file, tags (between ``; ``), uncertainty, problem, a score a class.

    Text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [f"score:{name}" for name in found.classes]
    writer.writerow(["file", "tags", "uncertainty", "problem", *scores])
    for i, name in enumerate(found.names):
        tags = "; ".join(map(no_formula, found.tags[i]))
        problem = no_formula(found.problems.get(i, ""))
        numbers = [
            "" if np.isnan(x) else f"{x:.6g}" for x in (found.uncertainty[i], *found.scores[i])
        ]
        writer.writerow([no_formula(name), tags, numbers[0], problem, *numbers[1:]])
    return text.getvalue()


def tags_json(found: Tagged) -> str:
    """The same as JSON: ``classes``, and ``images`` with their tags and scores."""
    images = []
    for i, name in enumerate(found.names):
        entry = {"file": name, "tags": list(found.tags[i])}
        if i in found.problems:
            entry["problem"] = found.problems[i]
        else:
            entry["uncertainty"] = _rounded(found.uncertainty[i])
            pairs = zip(found.classes, found.scores[i], strict=True)
            entry["scores"] = {c: _rounded(x) for c, x in pairs}
        images.append(entry)
    about = {"classes": list(found.classes), "images": images}
    return json.dumps(about, indent=1, ensure_ascii=False) + "\n"


# Without the mark at the beginning of "utf-8-sig", Excel misreads a CSV file's umlauts.
FORMATS = {".csv": (tags_csv, "utf-8-sig"), ".json": (tags_json, "utf-8")}


def save_tags(path: str | os.PathLike, found: Tagged, force: bool = False) -> None:
    """Write tags and scores as CSV or JSON, by the ending of `path`; whole or not at all.

    Raises
    ------
    ValueError
        Another ending.
    FileExistsError
        The file is there and `force` is not given.
    OSError
        It cannot be written.
    """
    check_targets([path], force)
    check_ending(path, FORMATS)
    write, encoding = FORMATS[Path(path).suffix.lower()]
    # File names that are no UTF-8 keep their bytes.
    write_whole(path, write(found).encode(encoding, "surrogateescape"))


def check_ending(path: str | os.PathLike, endings: Iterable[str], option: str = "") -> None:
    """Refuse a file that does not end as its kind does.

    Raises
    ------
    ValueError
        Another ending; capitals are the same.
    """
    if Path(path).suffix.lower() not in endings:
        raise ValueError(f"{option} {path} must end in {' or '.join(endings)}.".lstrip())


def check_targets(
    paths: Sequence[str | os.PathLike],
    force: bool,
    inputs: Iterable[str | os.PathLike] = (),
) -> None:
    """Refuse to write over what is there, and always over `inputs`, before any work is done.

    Raises
    ------
    FileExistsError
        A file is there and `force` is not given.
    FileNotFoundError
        There is no folder to write into.
    ValueError
        Two results would go into one file, or one into a file of `inputs`.
    """
    read = {Path(path).resolve() for path in inputs}
    for path in map(Path, paths):
        if path.resolve() in read:
            raise ValueError(f"{path} is read here, and is not written over: name another file.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}.")
        if path.is_dir():
            raise FileExistsError(f"{path} is a folder: name a file.")
        if path.exists() and not force:
            raise FileExistsError(f"{path} is there already: choose another name, or add --force.")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise ValueError(f"Each result needs a file of its own, not {some(list(paths))}.")


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m piaa_utils predict``."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="files, folders or patterns in quotes")
    add("--out", type=Path, required=True, help="tags and scores, a .csv or .json file")
    add("--html", type=Path, help="a contact sheet with heat maps, one .html file for any browser")
    add("--review", type=int, default=0, metavar="N", help="list the N images to look at first")
    add("--force", action="store_true", help="write over files that are there")
    words = parser.add_argument_group("what to look for")
    add = words.add_argument
    add("--classes", help='"dog, sofa = couch = settee", or a .txt file, a class a line')
    add("--background", help="what else the images show: competes, is left out of the results")
    add("--template", action="append", help='a sentence with {}, "a photo of a {}"; repeatable')
    add("--top", type=int, default=TOP, help="tags of an image, at most (default: %(default)s)")
    add("--threshold", type=float, help="lowest score of a tag (default: an even share)")
    how = parser.add_argument_group("what to learn from, and with what")
    source = how.add_mutually_exclusive_group()
    source.add_argument("--fit-on", metavar="FOLDER", help="unlabelled images (default: IMAGES)")
    source.add_argument("--classifier", type=Path, help="a saved classifier, in place of learning")
    add = how.add_argument
    add("--save", type=Path, help="keep the classifier that was learned, .safetensors")
    add("--backbone", help="an open_clip architecture; photographs need ViT-B-16-quickgelu")
    add("--pretrained", help="its weights: a tag such as openai, or a file")
    add("--encoder", choices=ENCODERS, help="how patches are read (default: scclip)")
    add("--scales", choices=CONSTANTS, help="of the scores (default: mini, with a real CLIP voc07)")
    add("--device", help="cpu, cuda or mps (default: a GPU where there is one)")


# What each file that is written ends in.
ENDINGS = {"out": tuple(FORMATS), "html": (".html", ".htm"), "save": (".safetensors",)}

# What the package says of arguments, and what they are called here.
_SHELL = {
    "pretrained=": "--pretrained ",
    "model=": "--backbone ",
    "the model must be": "--backbone must be",
    "as backbone (and pretrained)": "as --backbone (and --pretrained)",
    "as pretrained": "as --pretrained",
}


def run_command(options: argparse.Namespace) -> None:
    """``python -m piaa_utils predict``: learn or load, tag, write, say what was done."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda said, *_: print(f"note: {_shell(said)}", file=sys.stderr)
        try:
            _predict(options)
        except (ValueError, OSError) as error:
            if _shell(error) == str(error):
                raise
            raise ValueError(_shell(error)) from error


def _shell(said: object) -> str:
    """A message with the names of options for those of Python's arguments."""
    text = str(said)
    for words, option in _SHELL.items():
        text = text.replace(words, option)
    return text


def _predict(options: argparse.Namespace) -> None:
    targets = {name: path for name in ENDINGS if (path := getattr(options, name))}
    for name, path in targets.items():
        check_ending(path, ENDINGS[name], f"--{name}")
    _check_rule(options.top, options.threshold)
    if options.review < 0:
        raise ValueError(f"--review must be 0 or more, not {options.review}.")
    learn = options.classifier is None
    if options.save and not learn:
        raise ValueError("--save keeps what was learned: leave it out with --classifier.")
    words = _words(options)
    if learn:
        _check_classes(words)
    images = find_images(options.images)
    source = find_images([options.fit_on]) if options.fit_on else images
    others = (options.classes, options.background, options.classifier, options.pretrained)
    check_targets([*targets.values()], options.force, [*images, *source, *filter(None, others)])
    piaa = _learn(options, words, source) if learn else _load(options, words)
    found = tag_images(piaa, images, options.top, options.threshold)
    first = needs_a_look(found, options.review)
    page = contact_sheet(piaa, found, first) if options.html else ""
    # Written once all is done: what was written would stop the next attempt.
    save_tags(options.out, found, options.force)
    if options.html:
        write_whole(options.html, page.encode("utf-8", "replace"))
    if options.save:
        piaa.save(options.save)
    print(summary(found))
    if first:
        print("Look at these first:")
    for i in first:
        why = found.problems.get(i) or (
            f"{found.names[i]}: {', '.join(found.tags[i]) or 'no tag'}, "
            f"uncertainty {found.uncertainty[i]:.4f}"
        )
        print(f"  {why}")
    print(f"Saved: {', '.join(map(str, targets.values()))}")


def summary(found: Tagged) -> str:
    """How many images there were, how often each tag was given, and what could not be read."""
    counts = Counter(tag for tags in found.tags for tag in tags)
    read = len(found.names) - len(found.problems)
    untagged = sum(not tags for tags in found.tags) - len(found.problems)
    lines = [
        f"{read} of {len(found.names)} images read, {len(found.classes)} classes.",
        "Tags: " + (", ".join(f"{tag} {n}" for tag, n in counts.most_common()) or "none") + ".",
    ]
    if untagged:
        lines.append(f"Without a tag: {untagged}.")
    if found.problems:
        lines.append(f"Unreadable: {', '.join(found.names[i] for i in found.problems)}.")
    return "\n".join(lines)


def _words(options: argparse.Namespace) -> dict:
    """The classes and how they are read, as arguments of PIAA: those that were given."""
    words = {}
    if options.classes is not None:
        words["class_names"], words["synonyms"] = read_classes(options.classes)
    if options.background is not None:
        words["background"], others = read_classes(options.background)
        words["synonyms"] = words.get("synonyms", {}) | others
    if options.template is not None:
        words["templates"] = options.template
    if options.encoder is not None:
        words["encoder"] = options.encoder
    return words


def _check_classes(words: dict) -> None:
    """Refuse classes that nothing can be learned for, before any work is done."""
    if "class_names" not in words:
        raise ValueError('Say what to look for, --classes "dog, cat", or load --classifier.')
    classes, background = words["class_names"], words.get("background", [])
    synonyms = words["synonyms"]
    every = [n for name in (*classes, *background) for n in (name, *synonyms.get(name, ()))]
    if twice := next((name for name, n in Counter(every).items() if n > 1), None):
        raise ValueError(f"{twice!r} is in --classes and in --background: remove one.")
    if len(classes) + len(background) < 2:
        raise ValueError(
            f"Classes are compared, so there must be two or more, not only {classes[0]!r}: add what"
            f' else the images may show to --classes, or as --background "grass, sky".'
        )


_ASKED = {
    "--classes": "class_names",
    "--background": "background",
    "--template": "templates",
    "--encoder": "encoder",
}


def _load(options: argparse.Namespace, words: dict) -> PIAA:
    """The saved classifier, if it was learned with the words given; with the scales given."""
    given = {"backbone": options.backbone, "pretrained": options.pretrained}
    piaa = PIAA.load(options.classifier, **given, device=options.device)
    saved = piaa.get_params(deep=False)
    for option, name in _ASKED.items():
        there, here = _typed(saved, name), _typed(words, name)
        if name in words and there != here:
            raise ValueError(
                f'{options.classifier} was learned with {option} "{there}", not "{here}": leave '
                f"{option} out, or learn another without --classifier."
            )
    if options.scales:
        scales = CONSTANTS[options.scales]
        piaa.set_params(cls_scale=scales["cls_scale"], patch_scale=scales["patch_scale"])
    return piaa


def _typed(settings: dict, name: str) -> str:
    """A setting as it is typed: ``cat = kitten, dog``."""
    value, synonyms = settings.get(name) or (), settings.get("synonyms") or {}
    if isinstance(value, str):
        return value
    return ", ".join(" = ".join([each, *synonyms.get(each, ())]) for each in value)


def _learn(options: argparse.Namespace, words: dict, source: list[Path]) -> PIAA:
    """A classifier learned from the images of `source`."""
    backbone = options.backbone or MINI
    words |= CONSTANTS[options.scales or ("mini" if backbone == MINI else "voc07")]
    piaa = PIAA(backbone=backbone, pretrained=options.pretrained, device=options.device, **words)
    if len(source) < FEW:
        warnings.warn(
            f"The classifier is learned from only {len(source)} "
            f"{'image' if len(source) == 1 else 'images'}: a folder of {FEW} or more of the same "
            f"kind, --fit-on, makes it steadier.",
            stacklevel=2,
        )
    return piaa.fit(source)


def _check_rule(top: int, threshold: float | None) -> None:
    if top < 1:
        raise ValueError(f"The number of tags at most must be 1 or more, not {top}.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"The lowest score of a tag must be from 0 to 1, not {threshold}.")


def _rounded(x: float) -> float:
    return float(f"{x:.6g}")
