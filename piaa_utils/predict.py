"""``piaa predict``: tags for your own images, by the rule of ``piaa_utils/tags.py``."""

import argparse
import glob
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from piaa_utils.backbone import load_backbone
from piaa_utils.contact_sheet import contact_sheet
from piaa_utils.encoders import ENCODERS
from piaa_utils.files import printable, some, write_all
from piaa_utils.images import list_images
from piaa_utils.pipeline import PIAA
from piaa_utils.settings import PAPER, TEMPLATES
from piaa_utils.tags import TOP, Tagged, check_rule, needs_a_look, tag_images
from piaa_utils.vocabulary import Vocabulary
from piaa_utils.worlds.world import read_lines

FEW = 100  # images to learn from; fewer and the command says so
# Endings of pictures that a folder's search passes over, which is then said.
PASSED_OVER = tuple(".heic .heif .avif .jxl .jp2 .jfif .psd .svg .dng .cr2 .cr3 .nef .arw".split())
ENDINGS = {"out": (".csv",), "html": (".html", ".htm"), "save": (".safetensors",)}  # by option


def read_classes(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """Class names and synonyms, from names between commas, or from a text file, a class a line.

    In a file (UTF-8), lines that begin with ``#`` are left out. Other forms are a ValueError.

    >>> read_classes("dog, sofa = couch = settee")
    (['dog', 'sofa'], {'sofa': ['couch', 'settee']})
    """
    where = "The class list"
    if text.lower().endswith(".txt") or os.path.isfile(text):
        where = f"The class list in {text}"
        lines = [line for _, line in read_lines(Path(text), "a text file, a class a line")]
        text = ",".join(line for line in lines if not line.startswith("#"))
    classes = [[name.strip() for name in names.split("=")] for names in text.split(",")]
    if not all(every := sum(classes, [])):
        raise ValueError(f"{where} has an empty name: give names between commas.")
    if bad := next((name for name in every if ";" in name), None):
        raise ValueError(f"{where} has {bad!r}: between names of one class goes =, as in a = b.")
    return [names[0] for names in classes], {n[0]: n[1:] for n in classes if n[1:]}


def vocabulary(options: argparse.Namespace) -> Vocabulary:
    """The words that the options give; two or more, for classes are compared."""
    (classes, synonyms), extra = read_classes(options.classes), options.background
    background, more = ([], {}) if extra is None else read_classes(extra)
    words = Vocabulary(classes, synonyms | more, background, options.template or TEMPLATES)
    if len(words) < 2:
        mend = 'add what else the images may show to --classes, or as --background "grass, sky".'
        raise ValueError(f"Classes are compared, two or more, not only {classes[0]!r}: {mend}")
    return words


def find_images(arguments: Sequence[str | os.PathLike]) -> list[Path]:
    """The image files that files, folders and patterns name; each once, in the order given.

    Where nothing fits, it is a FileNotFoundError; what may be pictures but is left out, a warning.
    """
    once: dict[Path, Path] = {}
    for argument in [os.fspath(argument) for argument in arguments]:
        matches = map(Path, sorted(glob.glob(argument, recursive=True)))
        there = os.path.exists(argument)  # a file's name may look like a pattern
        files = list_images(argument) if there else [path for path in matches if path.is_file()]
        if not files:
            raise FileNotFoundError(f"No file or folder is called or fits {argument!r}: check it.")
        for path in files:
            once.setdefault(path.resolve(), path)
        if passed := [p for p in Path(argument).rglob("*") if p.suffix.lower() in PASSED_OVER]:
            said = f"{len(passed)} files that may be pictures, {some(sorted(passed))}"
            warnings.warn(f"Left out: {said}. Save them as JPEG or PNG.", stacklevel=2)
    return list(once.values())


def tags_csv(found: Tagged) -> bytes:
    """One line an image: file, tags (between ``; ``), uncertainty, problem, a score a class.

    The mark at its beginning lets Excel read umlauts; names that are no UTF-8 keep their bytes.
    """
    about = {
        "file": found.names,
        "tags": ["; ".join(tags) for tags in found.tags],
        "uncertainty": found.uncertainty,
        "problem": [found.problems.get(i, "") for i in range(len(found.names))],
    }
    scores = {f"score:{c}": found.scores[:, i] for i, c in enumerate(found.classes)}
    table = pd.DataFrame(about | scores)
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text.encode("utf-8-sig", "surrogateescape")


def check_targets(targets: Mapping[str, Path], force: bool, inputs: Iterable[Any] = ()) -> None:
    """Refuse, before any work, what cannot or (but for `force`) must not be written, by option."""
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
    check_rule(options.top, options.threshold)
    if options.review < 0:
        raise ValueError(f"--review must be 0 or more, not {options.review}.")
    own = (options.classes, options.background, options.template, options.encoder, options.save)
    if options.classifier and any(own):
        others = "--classes, --background, --template, --encoder and --save"
        what = "--classifier is saved, with words and an encoder of its own"
        raise ValueError(f"{what}: leave it out, or else {others}.")
    if not options.classes and not options.classifier:
        raise ValueError('Say what to look for, --classes "dog, cat", or load --classifier.')
    words = None if options.classifier else vocabulary(options)
    images = find_images(options.images)
    source = find_images([options.fit_on]) if options.fit_on else images
    read = (options.classes, options.background, options.classifier, options.pretrained)
    targets = {name: path for name in ENDINGS if (path := getattr(options, name))}
    check_targets(targets, options.force, [*images, *source, *filter(None, read)])
    piaa = _classifier(options, words, source)
    found = tag_images(piaa, images, options.top, options.threshold)
    first = needs_a_look(found, options.review)
    sheet = contact_sheet(piaa, found, first).encode("utf-8", "replace") if options.html else b""
    contents: dict[str, Callable[[Path], Any]] = {
        "out": lambda part: part.write_bytes(tags_csv(found)),
        "html": lambda part: part.write_bytes(sheet),
        "save": piaa.save,
    }
    write_all({path: contents[name] for name, path in targets.items()})
    if not options.out:
        for name, tags in zip(found.names, found.tags, strict=True):
            print(f"{printable(name)}: {', '.join(tags) or 'no tag'}")
    print(summary(found, first))
    if targets:
        print(f"Saved: {some([*targets.values()])}")


def summary(found: Tagged, first: Sequence[int] = ()) -> str:
    """How many images there were, how often each tag was given, what to look at first."""
    counts = Counter(tag for tags in found.tags for tag in tags).most_common()
    bad = found.problems
    n, given = len(found.names), ", ".join(f"{tag} {count}" for tag, count in counts)
    lines = [f"{n - len(bad)} of {n} images read, {len(found.classes)} classes."]
    lines.append(f"Tags: {given or 'none'}.")
    if untagged := sum(not tags for tags in found.tags) - len(bad):
        lines.append(f"Without a tag: {untagged}.")
    if bad:
        lines.append(f"Unreadable: {', '.join(found.names[i] for i in bad)}.")
    if first:
        lines.append("Look at these first:")
    for i in first:
        sure = f"{', '.join(found.tags[i]) or 'no tag'}, uncertainty {found.uncertainty[i]:.4f}"
        lines.append(f"  {bad.get(i) or f'{found.names[i]}: {sure}'}")
    return "\n".join(map(printable, lines))


def _classifier(options: argparse.Namespace, words: Vocabulary | None, source: list[Path]) -> PIAA:
    """The classifier that is saved, or else learned from the images of `source`."""
    weights, device, scales = options.pretrained, options.device, PAPER.get(options.scales)
    backbone = None
    if words or options.backbone or weights:
        backbone = load_backbone(options.backbone or "mini", weights, device)
    if words is None or backbone is None:
        return PIAA.load(options.classifier, None, backbone, scales, device=device)
    if len(source) < FEW:
        count = f"{len(source)} image{'s' * (len(source) > 1)}"
        said = f"The classifier is learned from only {count}: {FEW} or more, --fit-on, make it"
        warnings.warn(f"{said} steadier.", stacklevel=2)
    return PIAA(words, backbone, options.encoder or "scclip", scales=scales).fit(source)
