"""``piaa predict``: tags for your own images, and which of them need a look.

What is typed becomes a :class:`~piaa_utils.vocabulary.Vocabulary` and a list of files; what is
written appears whole, all of it or nothing. The rule of the tags is in ``piaa_utils/tags.py``.
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from piaa_utils.backbone import load_backbone
from piaa_utils.contact_sheet import contact_sheet
from piaa_utils.encoders import ENCODERS
from piaa_utils.files import printable, some, write_all
from piaa_utils.images import list_images
from piaa_utils.pipeline import PIAA
from piaa_utils.settings import PAPER
from piaa_utils.tags import TOP, Tagged, check_rule, needs_a_look, tag_images
from piaa_utils.vocabulary import Vocabulary

FEW = 100  # images to learn from; fewer and the command says so
# Endings of pictures that a folder's search passes over, which is then said.
PASSED_OVER = tuple(".heic .heif .avif .jxl .jp2 .jfif .psd .svg .dng .cr2 .cr3 .nef .arw".split())


# What is typed: classes and images


def read_classes(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """Class names and synonyms, from names between commas, or from a text file, a class a line.

    The first name of a class is the one in the results. In a file (UTF-8), lines that begin with
    ``#`` are left out. An empty name, a ``;`` and a file that is no text are a ValueError.

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
    if not all(every := sum(classes, [])):
        raise ValueError(f"{where} has an empty name: give names between commas.")
    if bad := next((name for name in every if ";" in name), None):
        raise ValueError(f"{where} has {bad!r}: between names of one class goes =, as in a = b.")
    return [names[0] for names in classes], {n[0]: n[1:] for n in classes if n[1:]}


def vocabulary(options: argparse.Namespace, saved: Mapping[str, Any]) -> Vocabulary:
    """The words that the options give; where they give none, those of a saved vocabulary."""
    words, synonyms = dict(saved), dict(saved.get("synonyms", {}))
    for key, text in (("class_names", options.classes), ("background", options.background)):
        if text is not None:
            synonyms = {n: s for n, s in synonyms.items() if n not in words.get(key, ())}
            words[key], more = read_classes(text)
            synonyms |= more
    if options.template:
        words["templates"] = options.template
    return Vocabulary(**words | {"synonyms": synonyms})


def find_images(arguments: Sequence[str | os.PathLike]) -> list[Path]:
    """The image files that files, folders and patterns name; each once, in the order given.

    Patterns are such as ``"holiday/*.jpg"`` and, with sub-folders, ``"**/*.jpg"``. Where nothing
    is called or fits so, it is a FileNotFoundError. A warning names files of a folder that end
    like pictures, but not as those that are searched for, as .heic does.
    """
    found: list[Path] = []
    for argument in [os.fspath(argument) for argument in arguments]:
        if os.path.exists(argument):
            found += list_images(argument)
            passed = [p for p in Path(argument).rglob("*") if p.suffix.lower() in PASSED_OVER]
            if passed:
                warnings.warn(
                    f"Left out, for their endings are not searched for: {len(passed)} files that "
                    f"may be pictures, {some(sorted(passed))}. Save them as JPEG or PNG.",
                    stacklevel=2,
                )
            continue
        files = [Path(p) for p in sorted(glob.glob(argument, recursive=True)) if os.path.isfile(p)]
        if not files:
            raise FileNotFoundError(f"No file or folder is called or fits {argument!r}: check it.")
        found += files
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    return list(once.values())


# What is written


def tags_csv(found: Tagged) -> bytes:
    """One line an image: file, tags (between ``; ``), uncertainty, problem, a score a class.

    The mark at its beginning lets Excel read umlauts; names that are no UTF-8 keep their bytes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [f"score:{name}" for name in found.classes]
    writer.writerow(["file", "tags", "uncertainty", "problem", *scores])
    for i, name in enumerate(found.names):
        values = (found.uncertainty[i], *found.scores[i])
        how_sure, *each = ["" if np.isnan(x) else f"{x:.6g}" for x in values]
        tags = "; ".join(found.tags[i])
        writer.writerow([name, tags, how_sure, found.problems.get(i, ""), *each])
    return text.getvalue().encode("utf-8-sig", "surrogateescape")


# What each file that is written ends in.
ENDINGS = {"out": (".csv",), "html": (".html", ".htm"), "save": (".safetensors",)}


def check_targets(targets: Mapping[str, Path], force: bool, inputs: Iterable[Any] = ()) -> None:
    """Refuse, before any work is done, what cannot or must not be written (option: file).

    With `force`, files that are there may be written over; `inputs` never are.
    """
    read = {Path(path).resolve() for path in inputs}
    for option, path in targets.items():
        if path.suffix.lower() not in ENDINGS[option]:
            raise ValueError(f"--{option} {path} must end in {' or '.join(ENDINGS[option])}.")
        if path.resolve() in read:
            raise ValueError(f"{path} is read here, and is not written over: name another file.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}.")
        if path.is_dir():
            raise FileExistsError(f"{path} is a folder: name a file.")
        if path.exists() and not force:
            raise FileExistsError(f"{path} is there already: choose another name, or add --force.")
    if len({path.resolve() for path in targets.values()}) < len(targets):
        raise ValueError(f"Each result needs a file of its own, not {some([*targets.values()])}.")


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``piaa predict``."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="files, folders or patterns in quotes")
    add("--out", type=Path, help="tags and scores, a .csv file (default: tags are printed)")
    add("--html", type=Path, help="a contact sheet with heat maps, one .html file for any browser")
    add("--review", type=int, default=0, metavar="N", help="list the N images to look at first")
    add("--force", action="store_true", help="write over files that are there")
    add = parser.add_argument_group("what to look for").add_argument
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
    add("--scales", choices=PAPER, help="of the scores (default: the backbone's own)")
    add("--device", help="cpu, cuda or mps (default: a GPU where there is one)")


def run_command(options: argparse.Namespace) -> None:
    """``piaa predict``: learn or load, tag, write, say what was done."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda said, *_: print(f"note: {printable(said)}", file=sys.stderr)
        _predict(options)


def _predict(options: argparse.Namespace) -> None:
    targets = {name: path for name in ENDINGS if (path := getattr(options, name))}
    check_rule(options.top, options.threshold)
    if options.review < 0:
        raise ValueError(f"--review must be 0 or more, not {options.review}.")
    if options.save and options.classifier:
        raise ValueError("--save keeps what was learned: leave it out with --classifier.")
    if not options.classes and not options.classifier:
        raise ValueError('Say what to look for, --classes "dog, cat", or load --classifier.')
    check_targets(targets, options.force)
    words = None if options.classifier else vocabulary(options, {})
    if words and len(words) < 2:
        raise ValueError(
            f"Classes are compared, so there must be two or more, not only {words.names[0]!r}: add "
            f'what else the images may show to --classes, or as --background "grass, sky".'
        )
    images = find_images(options.images)
    source = find_images([options.fit_on]) if options.fit_on else images
    others = (options.classes, options.background, options.classifier, options.pretrained)
    check_targets(targets, options.force, [*images, *source, *filter(None, others)])
    piaa = _learn(options, words, source) if words else _load(options)
    found = tag_images(piaa, images, options.top, options.threshold)
    first = needs_a_look(found, options.review)
    files: dict[Path, Callable[[Path], Any]] = {}
    if options.out:
        files[options.out] = lambda part: part.write_bytes(tags_csv(found))
    if options.html:
        page = contact_sheet(piaa, found, first).encode("utf-8", "replace")
        files[options.html] = lambda part: part.write_bytes(page)
    if options.save:
        files[options.save] = piaa.save
    write_all(files)
    if not options.out:
        for name, of_image in zip(found.names, found.tags, strict=True):
            print(f"{printable(name)}: {', '.join(of_image) or 'no tag'}")
    print(summary(found, first))
    if files:
        print(f"Saved: {some([*files])}")


def summary(found: Tagged, first: Sequence[int] = ()) -> str:
    """How many images there were, how often each tag was given, what to look at first."""
    counts = Counter(tag for tags in found.tags for tag in tags)
    read = len(found.names) - len(found.problems)
    untagged = sum(not tags for tags in found.tags) - len(found.problems)
    names = [printable(name) for name in found.names]
    lines = [
        f"{read} of {len(names)} images read, {len(found.classes)} classes.",
        "Tags: " + (", ".join(f"{tag} {n}" for tag, n in counts.most_common()) or "none") + ".",
    ]
    if untagged:
        lines.append(f"Without a tag: {untagged}.")
    if found.problems:
        lines.append(f"Unreadable: {', '.join(names[i] for i in found.problems)}.")
    if first:
        lines.append("Look at these first:")
    for i in first:
        sure = f"{', '.join(found.tags[i]) or 'no tag'}, uncertainty {found.uncertainty[i]:.4f}"
        lines.append("  " + printable(found.problems.get(i) or f"{found.names[i]}: {sure}"))
    return "\n".join(lines)


def _load(options: argparse.Namespace) -> PIAA:
    """The saved classifier, if it was learned with the words given; with the scales given."""
    backbone = options.backbone or options.pretrained
    if backbone:
        backbone = load_backbone(options.backbone or "mini", options.pretrained, options.device)
    piaa = PIAA.load(
        options.classifier, None, backbone, PAPER.get(options.scales), device=options.device
    )
    asked, there = vocabulary(options, piaa.vocabulary_.to_dict()), piaa.vocabulary_
    if asked != there or options.encoder not in (None, piaa.encoder):
        raise ValueError(
            f"{options.classifier} was learned with other words or another encoder "
            f"({json.dumps(there.to_dict(), ensure_ascii=False)}, {piaa.encoder}): leave "
            f"--classes, --background, --template and --encoder out, or learn without --classifier."
        )
    return piaa


def _learn(options: argparse.Namespace, words: Vocabulary, source: list[Path]) -> PIAA:
    """A classifier learned from the images of `source`."""
    backbone = load_backbone(options.backbone or "mini", options.pretrained, options.device)
    encoder, scales = options.encoder or "scclip", PAPER.get(options.scales)
    if len(source) < FEW:
        warnings.warn(
            f"The classifier is learned from only {len(source)} "
            f"{'image' if len(source) == 1 else 'images'}: a folder of {FEW} or more of the same "
            f"kind, --fit-on, makes it steadier.",
            stacklevel=2,
        )
    return PIAA(words, backbone, encoder, scales=scales).fit(source)
