"""Bad input of every kind: each ends in one sentence that says what is wrong, and writes nothing.

A row: its name; what is done (Python, given a small backbone, or a command line); what is said.
"""

import faulthandler
import json
import os
import re
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import random_clip
from PIL import Image
from safetensors import safe_open
from trees import annotation, box, write_coco, write_odd_pictures, write_voc

from piaa_utils import (
    PIAA,
    PatchBank,
    Recipe,
    Scales,
    encode,
    interval,
    load_backbone,
    load_world,
    paa,
)
from piaa_utils import GaussianDiscriminantAnalysis as GDA
from piaa_utils.__main__ import main
from piaa_utils.download import unpack
from piaa_utils.files import write_whole
from piaa_utils.images import open_image
from piaa_utils.lessons import Config
from piaa_utils.metrics import f1, mean_average_precision
from piaa_utils.scaling import connect
from piaa_utils.worlds import COCO, NUSWide, VOCLayout, patch_labels
from piaa_utils.worlds.folder import read_table

LIMIT = 300  # seconds for the whole table, of 10: what hangs is ended there, and shown
NAMES, IN = ["cat", "dog", "person"], "good --classes cat,dog"
EYE, Y = torch.eye(3)[None], np.eye(3, dtype=int)
CLEAR, BYTES = "\x1b[2J.jpg", "d\udcfcr.jpg"  # clears the terminal; is no UTF-8
SPLIT, XML = "ImageSets/Main/train.txt", "Annotations/a.xml"
ENTITIES = "".join(f"<!ENTITY e{i + 1} '&e{i};&e{i};'>" for i in range(40))
BOMB = f"<!DOCTYPE a [<!ENTITY e0 'ha'>{ENTITIES}]><a>&e40;</a>"
pytestmark = [
    pytest.mark.filterwarnings("ignore:Stage I selected", "ignore:Image size"),
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny):
    """A working folder of pictures, good and odd, with a saved classifier and other files."""
    here = tmp_path_factory.mktemp("bad") / "here"
    for name in ("good", "one", "hollow"):
        (here / name).mkdir(parents=True)
    for i, pixels in enumerate(np.random.RandomState(0).randint(0, 255, (6, 24, 32, 3), np.uint8)):
        Image.fromarray(pixels).save(here / f"{'good' if i < 3 else 'one'}/{i}.png")
    write_odd_pictures(here / "odd", CLEAR, BYTES, "empty.jpg")
    os.mkfifo(here / "pipe.txt")
    (here / "text").write_text("no folder")
    (here / "latin.txt").write_bytes("Möwe\nKatze\n".encode("latin-1"))
    (here / "one/labels.csv").write_text("file,labels\n3.png,cat\n4.png,cat\n5.png,\n")
    PIAA(NAMES, tiny, recipe=Recipe(k=4)).fit(here / "good").save(here / "saved.safetensors")
    return here


def made(name, content):
    """A new file beside the working folder: of text, of bytes, or of what torch saves."""
    path = Path("../other", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(data) if isinstance(data, bytes) else torch.save(data, path)
    return path


def picture(name):
    return lambda _: open_image(Path("odd", name))


def fit(images="good", **settings):
    return lambda tiny: PIAA(**{"classes": NAMES, "backbone": tiny} | settings).fit(images)


def bank(*given, **settings):
    return lambda _: PatchBank(3, **{"k": 2} | settings).update(*given)


def gda(X, y=(0, 0, 1), weights=None, **options):
    return lambda _: GDA(**options).fit(X, y, weights)


def csv(text):
    return lambda _: read_table(made("labels.csv", text))


def nus(text):
    return lambda _: NUSWide(made("nus/train.txt", text).parent, "train")


def voc(file, text):
    def read(_):
        root = write_voc(Path("../other/voc"), {"a": [("dog", 0)], "b": [("cat", 0)]})
        made(f"voc/{file}", text)
        return VOCLayout(root, "train").annotations

    return read


def coco(text=None, category=None, image=None, **item):
    def read(_):
        root = write_coco(Path(f"../other/{id(read)}"), {1: [("dog", box(1, 1, 4, 4), 0)]})
        file = root / "annotations/instances_val2014.json"
        content = json.loads(file.read_text())
        content["annotations"][0] |= item
        content["categories"] += [category] if category else []
        content["images"] += [image] if image else []
        file.write_text(text or json.dumps(content))
        COCO(root, "val2014").mask(0)

    return read


def saved(change=dict, other=None, **description):
    def load(tiny):
        with safe_open("saved.safetensors", framework="pt") as file:
            about = json.loads(file.metadata()["piaa"]) | description
            tensors = change({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        data = safetensors.torch.save(tensors, {"piaa": json.dumps(about)})
        clip = load_backbone(random_clip(1), device="cpu") if other else tiny
        PIAA.load(made("c.safetensors", data), backbone=clip)

    return load


def weights(content):
    return lambda _: load_backbone(random_clip(), made("w.pt", content), device="cpu")


def outside(_):
    with tarfile.open(made("a.tar", b""), "w") as file:
        file.addfile(tarfile.TarInfo("../evil"))
    unpack("../other/a.tar", "../other/target")


ROWS = {
    # Pictures
    "a pipe": (picture("pipe.jpg"), "pipe.jpg: .*no regular file.*replace"),
    "a device": (picture("zero.png"), "zero.png: .*no regular file.*replace"),
    "PostScript": (picture("eps.jpg"), "eps.jpg: not an image .JPEG.*replace"),
    "too many pixels": (picture("large.png"), "large.png: .*13300 x 13300 pixels.*too large"),
    "half a file": (picture("cut.png"), "cut.png: cannot be decoded .*replace"),
    "an empty file": (picture("empty.jpg"), "empty.jpg: not an image.*replace"),
    "a link to nothing": (picture("link.jpg"), "link.jpg: there is no such file; check the path"),
    "an unknown range": (picture("grey.tif"), "grey.tif: .*outside 0..65535, scale them"),
    "a name that clears": (picture(CLEAR), r"\\x1b\[2J.jpg: not an image.*replace"),
    "a name that is no UTF-8": (picture(BYTES), r"d\\udcfcr.jpg: not an image.*replace"),
    "no path": (fit(""), "path of the images is empty; for the working folder give '.'"),
    "odd pictures alone": (fit("odd"), "None of the 10 images can be read"),
    # Words
    "one class": (fit(classes=["cat"]), "two or more, not only 'cat': add"),
    "a class in capitals too": (fit(classes=["cat", "CAT"]), "same name twice: 'cat' and 'CAT'"),
    "classes read alike": (fit(classes=["R&B", "R&amp;B"]), "'R&B' and 'R&amp;B' alike: remove"),
    "a class that is cut": (fit(classes=["cat " * 20, "dog"]), "has 2. tokens.* 16: shorten"),
    "a class of two lines": (fit(classes=["a\nb", "cow"]), r"'a\\nb'; .* line of text"),
    "a class that is no UTF-8": (fit(classes=["\udcfc", "cow"]), r"'\\udcfc'; .* line of text"),
    # Settings
    "an unknown encoder": (fit(encoder="clip"), "No encoder is 'clip'; there are"),
    "a scale of NaN": (fit(scales=Scales(s=np.nan)), "scale s must be .*above 0.* nan"),
    "a negative scale": (fit(scales=Scales(m=-1)), "scale m must be .*above 0 .* not -1"),
    "a scale of zero": (fit(scales=(80, 200, 0)), "scale T must be .*above 0 .* not 0"),
    "a scale of PAA": (lambda _: paa(EYE, EYE[0, :1], EYE[0], Scales(T=0)), "The scale T must be"),
    "K of 0": (fit(recipe=Recipe(k=0)), "needs a class and a patch for it: .*k=0"),
    "another Stage II": (fit(recipe=Recipe(purify="x")), "None or \"released\": got 'x'"),
    "a temperature of 0": (fit(recipe=Recipe(4, "released", 0)), "purify_temperature must"),
    # The bank, GDA, measures, workers
    "patches of no picture": (bank(EYE[0], EYE[0], [0]), r"patches and features \[B, N, D\]"),
    "patches of another width": (bank(EYE[..., :2], EYE[0], [0]), r"text \[3, D\].*\[1, 3, 2\]"),
    "text of fewer classes": (bank(EYE, EYE[0, :2], [0]), r"bank of 3 classes .*\[2, 3\]"),
    "more ids than pictures": (bank(EYE, EYE[0], [0, 1]), "and B image ids, not"),
    "a picture twice": (bank(EYE.repeat(2, 1, 1), EYE[0], [7, 7]), "id 7 is in the bank already"),
    "patches of NaN": (bank(EYE * np.nan, EYE[0], [0]), "hold NaN: check"),
    "a bank's scale": (bank(scale=np.nan), "scale must be a number above 0"),
    "rows of NaN": (gda(Y * np.nan), "Input X contains NaN"),
    "rows of one class": (gda(Y, [1, 1, 1]), "one class alone, 1: give rows of another"),
    "labels in words": (lambda _: mean_average_precision([["a"]], [[1.0]]), "only 0 and 1"),
    "scores of NaN": (lambda _: f1(Y, Y * np.nan), "scores of image 0 hold NaN"),
    "the best 0 classes": (lambda _: f1(Y, Y, k=0), "k=0: give a number, 1 or more"),
    "no resamples": (lambda _: interval(Y, Y, n=0), "n from 1 .*n=0"),
    "a grid of none": (lambda _: patch_labels(Y, 0), "grid 1 or more: got 0.5, 0"),
    "pixels of another size": (lambda t: encode(t, torch.zeros(1, 3, 9, 9)), "3, 96, 96.*not"),
    "no workers": (lambda _: connect(workers=0).__enter__(), "workers must be 1 or more"),
    # Labels
    "two readings": (csv('file,labels\na.jpg,"cat,dog"'), "labels.csv, line 2: .*separate them"),
    "half a list": (csv("file,labels\na.jpg,['cat'"), "line 2: .*no list of names; write"),
    "pandas' numbers": (csv("file,label\na.jpg,3.0"), "line 2: '3.0' may mean.*give"),
    "flags 1 and -1": (csv("file,cat,dog\na.jpg,1,-1"), "line 2: '-1' is neither 0 nor 1; give"),
    "a cell of two lines": (csv('file,label\na.jpg,"a\nb"'), r"csv holds 'a\\nb'; .* line"),
    "labels in two cases": (csv("file,label\na.jpg,cat\nb.jpg,Cat"), "twice: 'Cat' and"),
    "a file twice": (csv("file,a,b\nx.jpg,1,0\n./x.jpg,0,1"), "line 3: 'x.jpg' is listed twice"),
    "Latin-1": (csv("file,label\na.jpg,Möwe".encode("latin-1")), "not in UTF-8; save it"),
    "21 flags": (nus("a.jpg " + "1 " * 9 + "0 " * 12), "train.txt, line 1: .*or 81 flags"),
    "a flag a line": (nus("a.jpg 1\nb.jpg 0"), "train.txt, line 1: .*0 and 1 alone may be"),
    "a concept too many": (nus("a.jpg 3\nb.jpg 81"), "train.txt, line 2: .*, 0 to 80"),
    "a listed twice": (nus("z/a.jpg 3\nz//a.jpg 5"), "line 2: 'z/a.jpg' is listed twice"),
    "COCO: cut": (coco('{"images": ['), "val2014.json: cannot be read as COCO.*unpack"),
    "COCO: too deep": (coco("[" * 100_000), "val2014.json: cannot be read as COCO.*unpack"),
    "COCO: odd ids": (coco(image={"id": "2", "file_name": "2.jpg"}), "cannot be read as COCO"),
    "COCO: two cases": (coco(category={"id": 200, "name": "Dog"}), "json .*twice: 'Dog' and 'dog'"),
    "COCO: another size": (coco(segmentation={"size": [3, 3], "counts": [9]}), "outline .*size"),
    "COCO: a mask of words": (coco(segmentation=[["a"] * 6]), "outline .* annotation 1 .*unpack"),
    "COCO: a large mask": (coco(segmentation={"size": [10**6] * 2, "counts": "1"}), "outline"),
    "COCO: a box of two": (coco(segmentation=[], bbox=[1, 2]), "json: .*annotation 1 .*unpack"),
    "VOC: an id twice": (voc(SPLIT, "a\nb\na"), "train.txt, line 3: 'a' is listed twice"),
    "VOC: an unknown id": (voc(SPLIT, "a\nc"), "1 of 2 images are not there: c"),
    "VOC: an unknown class": (voc(XML, annotation(("ox", 0))), "a.xml: .*'ox'.*add the name"),
    "VOC: XML cut": (voc(XML, "<annotation>"), "a.xml: .*no well-formed XML.*unpack"),
    "VOC: an encoding": (voc(XML, "<?xml version='1.0' encoding='x'?><a/>"), "a.xml.* in UTF-8"),
    "VOC: an XML bomb": (voc(XML, BOMB), "a.xml: this is no well-formed XML"),
    "an unknown world": (lambda _: load_world("cub", "test"), "no world 'cub'; there are mini"),
    "an unknown split": (lambda _: load_world("mini", "dev"), "no split 'dev'; there are learn"),
    "a notebook's world": (lambda _: Config(world="VOC07"), "no world 'VOC07'; there are mini"),
    # Files
    "another order": (saved(lambda old: {n: x.flip(0) for n, x in old.items()}), "were changed"),
    "a classifier of NaN": (saved(lambda old: old | {"coef": old["coef"] * np.nan}), "not finite"),
    "another description": (saved(scales=[1, 2, 3, "x"]), "were changed.* fit it again"),
    "another backbone": (saved(other=True), "c.safe.*other weights.* load it with that"),
    "no classifier": (lambda _: PIAA.load("text"), "text is no classifier .* fit it again"),
    "weights of garbage": (weights("?"), "w.pt cannot be read as weights .* save"),
    "weights without names": (weights({0: torch.ones(1)}), "w.pt holds no state dict .names"),
    "another model's weights": (weights({"a": torch.ones(1)}), "w.pt was not made for custom/w.pt"),
    "two temperatures": (weights({"logit_scale": torch.ones(2)}), "w.pt was not made for"),
    "no model": (lambda _: load_backbone(Path(CLEAR)), r"^\\x1b\[2J.jpg holds no open_clip_config"),
    "a damaged model": (
        lambda _: load_backbone(made("model/open_clip_config.json", "{}").parent),
        "model has a damaged open_clip_config.json .*take a whole clone",
    ),
    "a tuple": (lambda _: load_backbone((1, 2)), "not a tuple: give its first element"),
    "a member outside": (outside, "a.tar was not unpacked .*remove it"),
    "no place": (lambda _: write_whole("text/a", b""), "text/a could not be saved .*check"),
    # Commands
    "no command": ("", "arguments are required: command"),
    "an unknown command": ("tag good", "invalid choice: 'tag'"),
    "predict: nothing": ("predict --classes cat,dog", "arguments are required: IMAGES"),
    "predict: hollow": ("predict hollow --classes cat,dog", "no images in the folder hollow"),
    "predict: no classes": ("predict good --classes ''", "Say what to look for"),
    "predict: a pipe": ("predict good --classes pipe.txt", "no file pipe.txt"),
    "predict: Latin-1": ("predict good --classes latin.txt", "latin.txt: .*UTF-8; save it"),
    "predict: a template": (f"predict {IN} --template photo", "each with {} where the name goes"),
    "predict: no folder": (f"predict {IN} --out gone/t.csv", "there is no folder gone"),
    "predict: no GPU": (f"predict {IN} --device cuda:77", "No device 'cuda:77' .--device. here"),
    "predict: shapes alone": (f"predict {IN} --device meta", "No device 'meta' .--device. here"),
    "predict: no such torch": (f"predict {IN} --device hpu", "No device 'hpu' .--device. here"),
    "predict: a threshold": (f"predict {IN} --threshold nan", "from 0 to 1, not nan"),
    "predict: garbage": ("predict good --classifier text", "text is no classifier .* fit it again"),
    "predict: a ResNet": (
        f"predict {IN} --backbone RN50 --pretrained openai",
        "RN50 is a ResNet, ",
    ),
    "reproduce: no root": ("reproduce voc07", "needs data_root, the folder"),
    "reproduce: no folder": ("reproduce voc07 --data-root gone", "gone.*piaa download voc07"),
    "reproduce: no labels": ("reproduce good", "no file good/labels.csv.*file,labels"),
    "reproduce: one class": ("reproduce one", "one has but one class.*add one"),
    "reproduce: NaN": ("reproduce mini --scales nan 1 1", "scale s must be .* not nan"),
    "reproduce: a limit": ("reproduce mini --limit 0", "limit must be 1 or more, but is 0"),
    "reproduce: a batch": ("reproduce mini --batch-size -1", "batch_size must be 1 or more"),
    "reproduce: a file": ("reproduce mini --limit 2 --out text", "no folder text .*name another"),
    "run: a file": ("run --out text/results", "no folder text/results .*name another"),
    "download: nus": ("download nus --data-root hollow", "ask for the images"),
}


@pytest.fixture(scope="module", autouse=True)
def time_limit(request):
    """End the process, and show where it is, if the whole table takes longer."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        terminal = os.dup(2)
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=terminal)
    yield
    faulthandler.cancel_dump_traceback_later()
    os.close(terminal)


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ROWS)
def test_it_ends_in_a_sentence_and_writes_nothing(name, place, tiny, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before, (work, message) = tree(place), ROWS[name]
    if isinstance(work, str):
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(work))
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines() if not line.startswith("note: ")]
        assert stop.value.code == 2 and out == "" and "Traceback" not in err
        assert len(said) == 1 or said[0].startswith("usage: "), err
        said = said[-1]
    else:
        with pytest.raises((ValueError, OSError)) as raised:
            work(tiny)
        said = str(raised.value)
        assert "\n" not in said or "does not accept missing values" in said  # scikit-learn's
    assert re.search(message, said), said
    assert "\x1b" not in said and "\udcfc" not in said
    assert tree(place) == before, "something was written"
