"""Tags for one's own images: what is typed, what is written, what needs a look, the command."""

import copy
import csv
import errno
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Subset

from piaa_utils import predict
from piaa_utils.__main__ import COMMANDS, main
from piaa_utils.classifier import Recipe
from piaa_utils.files import data_dir
from piaa_utils.images import UnreadableImage
from piaa_utils.pipeline import PIAA
from piaa_utils.predict import find_images, read_classes, tags_csv
from piaa_utils.settings import PAPER, Scales
from piaa_utils.tags import Tagged, choose_tags, needs_a_look, photo_notice, tag_images, uncertainty
from piaa_utils.vocabulary import Vocabulary

NAMES = ["cat", "dog", "person"]
# Few pictures do not show every class.
pytestmark = pytest.mark.filterwarnings("ignore:Stage I selected no patch")


@pytest.fixture(scope="module")
def backbone(tiny):
    """Random weights that go by the name of the mini-CLIP."""
    other = copy.copy(tiny)
    other.name, other.scales = "mini", Scales(5.0, 300.0, 20.0)
    return other


@pytest.fixture(scope="module")
def paths():
    return sorted((data_dir() / "mini_scenes" / "JPEGImages").glob("*.jpg"))[:6]


@pytest.fixture(scope="module")
def fitted(backbone, paths):
    words = Vocabulary(NAMES, background=["tree"])
    return PIAA(words, backbone, recipe=Recipe(k=16)).fit(paths)


@pytest.fixture
def found():
    """Two images read, one not."""
    scores = np.array([[0.7, 0.2, 0.1], [np.nan] * 3, [0.3, 0.4, 0.3]], dtype=np.float32)
    names = ["a.jpg", "b.jpg", "c, d.jpg"]
    tags = choose_tags(scores, NAMES)
    return Tagged(names, names, tuple(NAMES), scores, tags, uncertainty(scores), {1: "b: cut"})


def test_tags_are_the_best_classes_that_reach_the_threshold():
    scores = np.array([[0.1, 0.6, 0.3], [0.32, 0.33, 0.35], [np.nan] * 3])
    assert choose_tags(scores, NAMES) == [("dog",), ("person",), ()]
    assert choose_tags(scores, NAMES, 2, 0.3) == [("dog", "person"), ("person", "dog"), ()]
    assert choose_tags(scores, NAMES, 1, 0.0) == [("dog",), ("person",), ()]
    assert choose_tags(scores, NAMES, threshold=1.0) == [(), (), ()]


def test_images_are_tagged_by_the_classifier_s_scores(fitted, paths):
    found = tag_images(fitted, paths)
    np.testing.assert_allclose(found.scores, fitted.predict_proba(paths), atol=1e-6)
    assert found.tags == choose_tags(found.scores, NAMES, threshold=1 / 4)  # the background counts
    assert found.names == [str(p) for p in paths] and found.classes == tuple(NAMES)


def test_a_dataset_and_unreadable_images_are_named(fitted, paths, tmp_path):
    dataset = Subset([tmp_path / "gone.jpg", Image.open(paths[0])], [0, 1])
    with pytest.warns(UserWarning, match="1 of 2 images"):
        found = tag_images(fitted, dataset)
    assert found.names == ["image 0", "image 1"] and list(found.problems) == [0]
    assert found.tags[0] == () and np.isnan(found.uncertainty[0])
    with pytest.raises(UnreadableImage):
        tag_images(fitted, [tmp_path / "gone.jpg"])


def test_uncertainty_is_the_entropy_over_its_largest_value():
    p = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [1 / 3] * 3])
    expected = -(p * np.log(np.where(p > 0, p, 1))).sum(1) / np.log(3)
    np.testing.assert_allclose(uncertainty(p), expected, atol=1e-9)
    np.testing.assert_allclose(uncertainty(0.4 * p), expected, atol=1e-9)  # 0.6 is background
    alone = uncertainty(np.array([[1.0], [0.5], [np.nan]]))
    np.testing.assert_allclose(alone, [0, 1, np.nan], atol=1e-9)


def test_unreadable_images_come_first_then_the_uncertain(found):
    assert needs_a_look(found) == [1, 2, 0]
    assert needs_a_look(found, 2) == [1, 2] and needs_a_look(found, 0) == []
    with pytest.raises(ValueError, match="0 or more"):
        needs_a_look(found, -1)


def test_the_mini_clip_says_that_photographs_need_another(backbone, paths):
    photo, other = Image.new("RGB", (8, 8)), copy.copy(backbone)
    other.name = "ViT-B-16-quickgelu/openai"
    assert photo_notice(backbone, paths) == photo_notice(other, [photo, "elsewhere/cat.jpg"]) == ""
    assert photo_notice(backbone, [Image.open(paths[0])]) == "", "PIL knows the file"
    notice = photo_notice(backbone, [*paths, photo, "elsewhere/cat.jpg"])
    assert "2 of 8 pictures" in notice and "ViT-B-16-quickgelu" in notice
    assert "1 of 1" in photo_notice(backbone, range(1)), "a Dataset is not asked again"


def test_classes_from_a_list_and_from_a_file(tmp_path):
    expected = (["dog", "sofa", "tv monitor"], {"sofa": ["couch", "settee"]})
    assert read_classes("dog, sofa = couch= settee ,tv monitor") == expected
    file = tmp_path / "classes.txt"
    file.write_text("\ufeff# mine\ndog\n\nsofa = couch = settee\r\ntv monitor\n", "utf-8")
    assert read_classes(str(file)) == expected
    file.write_bytes(b"\xff\xfe\x00")
    for text, message in (
        (str(file), "UTF-8"),
        ("dog,,cat", "empty name"),
        ("", "empty name"),
        ("dog, sofa =", "empty name"),
        ("cat; kitten", "goes ="),
        ("gone.txt", "no file gone.txt"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_classes(text)


def test_files_folders_and_patterns(tmp_path):
    for name in ("b.jpg", "a.jpg", "deep/c.png", "deep/[d].jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*arguments):
        found = find_images([tmp_path / argument for argument in arguments])
        return [p.relative_to(tmp_path).as_posix() for p in found]

    assert sorted(names(".")) == ["a.jpg", "b.jpg", "deep/[d].jpg", "deep/c.png"]
    assert names("*.jpg") == ["a.jpg", "b.jpg"]
    assert names("**/*.jpg") == ["a.jpg", "b.jpg", "deep/[d].jpg"]
    assert names("b.jpg", "deep/[d].jpg", "?.jpg") == ["b.jpg", "deep/[d].jpg", "a.jpg"]
    with pytest.raises(FileNotFoundError, match="called or fits"):
        names("*.gif")


def rows_of(data):
    """The lines of a CSV file: column: cell."""
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig", "surrogateescape"))))


def test_a_csv_file_has_a_line_for_each_image(found):
    found.names[0] = "a\udcff.jpg"  # no UTF-8: it keeps its bytes
    assert tags_csv(found).startswith(b"\xef\xbb\xbf"), "without it, Excel misreads umlauts"
    assert b"\na\xff.jpg," in tags_csv(found)
    one, broken, other = rows_of(tags_csv(found))
    assert one["tags"] == "cat" and one["uncertainty"] == f"{found.uncertainty[0]:.6g}"
    assert set(broken.values()) == {"b.jpg", "b: cut", ""} and broken["problem"] == "b: cut"
    assert other["file"] == "c, d.jpg" and other["tags"] == "dog"
    assert [other[f"score:{name}"] for name in NAMES] == ["0.3", "0.4", "0.3"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, backbone):
    """Run the command in an empty folder; returns the exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    for module in ("pipeline", "predict"):
        monkeypatch.setattr(f"piaa_utils.{module}.load_backbone", lambda *_: backbone)

    def run(*arguments):
        code = 0
        try:
            main(["predict", *map(str, arguments)])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_the_command_from_classes_to_a_sheet_and_again_from_the_file(run, paths, tmp_path):
    (tmp_path / "broken.png").write_text("no picture")
    Image.new("RGB", (90, 60), "red").save(tmp_path / "red.png")
    code, out, err = run(
        *(*paths[:3], "broken.png", "red.png", "--classes", "cat = kitten, dog, person"),
        *("--background", "tree = bush", "--template", "a photo of a {}", "--template", "{}"),
        *("--out", "tags.csv", "--html", "sheet.html", "--save", "c.safetensors", "--review", 2),
    )
    assert code == 0, err
    assert "4 of 5 images read, 3 classes." in out and "Unreadable: broken.png" in out
    assert "Look at these first:\n  broken.png: not an image" in out
    assert "learned from only 5 images" in err and "2 of 5 pictures are not from its world" in err
    rows = (tmp_path / "tags.csv").read_text("utf-8-sig").splitlines()
    assert len(rows) == 6 and rows[0].endswith("score:cat,score:dog,score:person")
    sheet = (tmp_path / "sheet.html").read_text()
    assert sheet.count("<article>") == 5 and "For photographs its tags mean nothing" in sheet

    saved = PIAA.load("c.safetensors").vocabulary_
    assert saved.synonyms == {"cat": ("kitten",), "tree": ("bush",)}
    assert saved.background == ("tree",) and saved.templates == ("a photo of a {}", "{}")
    code, out, err = run(*paths[:3], "--classifier", "c.safetensors", "--out", "again.csv")
    assert code == 0, err
    before, again = (rows_of((tmp_path / f"{name}.csv").read_bytes()) for name in ("tags", "again"))
    for row, other in zip(before, again, strict=False):
        for name in NAMES:
            score = f"score:{name}"
            assert float(row[score]) == pytest.approx(float(other[score]), rel=1e-3)


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "c.safetensors")
    return "--classifier=c.safetensors"


@pytest.mark.parametrize("option", ["--classes=cat,dog", "--background=tree", "--encoder=sclip"])
def test_a_saved_classifier_keeps_its_words(run, saved, paths, tmp_path, option):
    code, _, err = run(paths[0], saved, option, "--out=x.csv")
    assert code == 2 and "of its own" in err
    assert not (tmp_path / "x.csv").exists()


def test_a_saved_classifier_takes_other_scales(run, saved, fitted, paths, tmp_path):
    assert run(paths[0], saved, "--scales=coco", "--out=x.csv")[0] == 0
    (row,) = rows_of((tmp_path / "x.csv").read_bytes())
    other = PIAA.load("c.safetensors", scales=PAPER["coco"]).predict_proba(paths[:1])[0]
    np.testing.assert_allclose([float(row[f"score:{n}"]) for n in NAMES], other, rtol=1e-4)
    assert np.abs(other - fitted.predict_proba(paths[:1])[0]).max() > 1e-3


OUTPUT = ("--classes=cat,dog", "--out=t.csv", "--html=s.htm", "--save=c.safetensors")


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_full_disk_leaves_nothing(run, paths, tmp_path, monkeypatch, room):
    """The first `room` files fit, the next is cut short: none is there afterwards."""
    write, written = Path.write_bytes, []

    def full(file, data):
        written.append(file)
        if len(written) > room:
            write(file, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    (tmp_path / "t.csv").write_text("mine")
    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = run(paths[0], *OUTPUT, "--force")
    assert code == 2 and "could not be saved" in err and "No space left" in err
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
    assert (tmp_path / "t.csv").read_text() == "mine"


def test_without_out_a_folder_s_tags_are_printed_and_no_name_moves_the_cursor(run, paths, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a\x1b[2Jb.jpg").write_bytes(paths[0].read_bytes())
    for name in ("\x1b]0;c.png", "d.HEIC", "sub/e.dng", "notes.txt"):
        (tmp_path / name).write_bytes(b"no picture")
    code, out, err = run(".", "--classes=cat,dog", "--top=1", "--review=2")
    assert code == 0 and "\x1b" not in out + err
    assert r"a\x1b[2Jb.jpg: " in out and "1 of 2 images read" in out
    assert "2 files that may be pictures, d.HEIC, sub/e.dng." in err  # passed over


@pytest.mark.parametrize("target", ["--html=pic.html", "--out=pic.csv", "--save=c.safetensors"])
def test_what_is_read_is_never_written_over(run, saved, paths, tmp_path, target):
    for name in ("pic.html", "pic.csv"):
        (tmp_path / name).write_bytes(paths[0].read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    options = ["--classes=cat,dog", "--pretrained=c.safetensors", "--out=t.csv", target, "--force"]
    code, _, err = run("pic.html", "pic.csv", *options)
    assert code == 2 and f"{target.partition('=')[2]} is read here" in err
    code, _, err = run("pic.csv", saved, "--out=pic.csv", "--force")
    assert code == 2 and "pic.csv is read here" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_command_learns_from_another_folder(run, paths, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    for path in paths[:2]:
        (tmp_path / "mine" / path.name).write_bytes(path.read_bytes())
    learned, fit = [], PIAA.fit
    monkeypatch.setattr(PIAA, "fit", lambda self, x: learned.extend(x) or fit(self, x))
    options = ["--encoder", "sclip", "--threshold", "1"]
    code, out, err = run(paths[3], "--classes=cat,dog", "--fit-on=mine", "--out=t.csv", *options)
    assert code == 0, err
    assert [p.name for p in learned] == [p.name for p in paths[:2]]
    assert "Tags: none." in out and "Without a tag: 1." in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--classes=cat,dog --out=t.txt", "must end in .csv"),
        ("--classes=cat,dog --html=t.jpg", "--html t.jpg must end in .html or .htm"),
        ("--classes=cat,dog --html=mine.html", "mine.html is there already"),
        ("--classes=cat,dog --html=folder.html --force", "folder.html is a folder"),
        ("--classes=cat", '--background "grass, sky"'),
        ("--classifier=gone.safetensors", "no saved classifier"),
        ("--classifier=a --save=b.safetensors", "leave it out"),
        ("--classifier=a --fit-on=b", "not allowed with"),
    ],
)
def test_mistakes_end_in_one_sentence_and_write_nothing(
    run, paths, tmp_path, options, message, monkeypatch
):
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    monkeypatch.setattr(predict, "load_backbone", lambda *_: pytest.fail("work was begun"))
    code, out, err = run(paths[0], "--out=t.csv", *options.split())
    assert code == 2 and message in err and "Traceback" not in err and out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.html", "mine.html"]
    assert (tmp_path / "mine.html").read_text() == "mine"


@pytest.mark.parametrize("error", [ValueError, KeyError, MemoryError])
def test_whatever_goes_wrong_is_one_sentence_and_debug_shows_more(run, paths, monkeypatch, error):
    def fail(*_):
        raise error("what went\nwrong \x1b[2J")

    monkeypatch.setattr(predict, "load_backbone", fail)
    code, out, err = run(paths[0], "--classes=cat,dog")
    assert code == 2 and out == "" and len(err.splitlines()) == 1 and "\x1b" not in err
    assert err.startswith("piaa predict: ") and "what went" in err
    with pytest.raises(error, match="what went"):
        main(["predict", str(paths[0]), "--classes=cat,dog", "--debug"])


def test_the_commands_are_listed_and_the_package_imports_quickly():
    code = """if True:
        import sys, piaa_utils
        assert not {'torch', 'matplotlib', 'dask'} & set(sys.modules)
        piaa_utils.PIAA
        assert not {'matplotlib', 'dask', 'seaborn'} & set(sys.modules)
        assert all(hasattr(piaa_utils, name) for name in piaa_utils.__all__)
        from piaa_utils.__main__ import main
        main(['--help'])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ["--debug", *COMMANDS])
