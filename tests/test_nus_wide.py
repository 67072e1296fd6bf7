"""NUS-WIDE from a small tree, in the official layout and in the single files in use."""

import shutil

import numpy as np
import pytest
from trees import NUS_IDS, SCENES, write_nus, write_nus_images

from piaa_utils.worlds import NUS_CLASSES, NUSWide

pytestmark = pytest.mark.filterwarnings("error")


def found(data):
    """[set of concepts] of each image."""
    return [{NUS_CLASSES[c] for c in np.flatnonzero(row)} for row in data.labels]


def flags(there):
    return [str(int(concept in there)) for concept in NUS_CLASSES]


def test_official_files(tmp_path):
    disk = write_nus_images(tmp_path / "disk", NUS_IDS)
    (root := tmp_path / "nus").mkdir()
    (root / "Flickr").symlink_to(disk, target_is_directory=True)
    data = NUSWide(write_nus(root), "test")
    assert data.ids == NUS_IDS and data.missing == []
    assert data.labels.dtype == np.int8 and data.labels.shape == (3, 81)
    assert found(data) == list(SCENES.values())
    assert data.paths[0] == root / "Flickr/actor/0001_2124494179.jpg"
    assert data[0].mode == "RGB" and not data.difficult.any()
    assert data.class_names == NUS_CLASSES
    assert NUSWide(root, "test", ["zebra", "sky"]).labels.tolist() == [[0, 1], [1, 0], [0, 0]]
    with pytest.raises(ValueError, match="'zebras' is none of the 81"):
        NUSWide(root, "test", ["zebras"])
    with pytest.raises(ValueError, match="splits train and test, not 'val'"):
        NUSWide(root, "val")
    with pytest.raises(FileNotFoundError, match=r"TrainTestLabels.*nus_wide_train\.csv"):
        NUSWide(disk, "train")


@pytest.mark.parametrize("cut", ["", "/", "_"], ids=["as listed", "flat", "Flickr's number"])
def test_images_are_found_wherever_they_lie(tmp_path, cut):
    write_nus(tmp_path / "labels")
    names = [name.split(cut)[1] if cut else name for name in NUS_IDS]
    images = write_nus_images(tmp_path / "elsewhere/images", names)
    data = NUSWide(tmp_path / "labels", "test", images=images)
    assert data.paths == [images / name for name in names]


def test_images_of_one_name_and_missing_ones(tmp_path):
    write_nus(tmp_path)
    write_nus_images(tmp_path, [*NUS_IDS, "copy/0001_2124494179.jpg"])
    assert NUSWide(tmp_path, "test").paths[0] == tmp_path / NUS_IDS[0]
    (tmp_path / NUS_IDS[0]).rename(tmp_path / "0001_2124494179.jpg")
    with pytest.raises(ValueError, match=r"Several images may be meant by actor/0001.*keep one"):
        NUSWide(tmp_path, "test")
    for copy in (tmp_path / "0001_2124494179.jpg", tmp_path / "copy/0001_2124494179.jpg"):
        copy.unlink()
    with pytest.warns(UserWarning, match=r"1 of 3 images.*actor/0001_2124494179\.jpg.*`missing`"):
        data = NUSWide(tmp_path, "test")
    assert data.missing == NUS_IDS[:1] and data.ids == NUS_IDS[1:]
    assert found(data) == [{"zebra"}, set()]


FILE = "Groundtruth/TrainTestLabels/Labels_zebra_Test.txt"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (FILE, "0\n1\n", r"Labels_zebra_Test\.txt: there should be 3 lines.*not 2"),
        (FILE, "0\n1\n2\n", "3 lines of 0 or 1"),
        (FILE, None, r"no file .*Labels_zebra_Test\.txt"),
        (None, "", "3 of 3 images"),
        ("test.txt", "b.jpg 1\na.jpg sky\n", "test.txt, line 2: after the image"),
        ("test.txt", "b.jpg 1\na.jpg -1\n", "test.txt, line 2: after the image"),
        ("test.txt", "zoo/a b.jpg 3\nzoo\\a b.jpg 5\n", "line 2: 'zoo/a b.jpg' is listed twice"),
    ],
)
def test_label_files_that_cannot_be_understood(tmp_path, file, text, message):
    write_nus(tmp_path)
    if file == "test.txt":
        shutil.rmtree(tmp_path / "Groundtruth")
    if text is None:
        (tmp_path / file).unlink()
    elif text:
        (tmp_path / file).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        NUSWide(tmp_path, "test")


ORDER = NUS_CLASSES[::-1]
HEAD = ",".join(["image", *map(str.title, ORDER)])


def numbers(there):
    return [str(NUS_CLASSES.index(concept)) for concept in there]


@pytest.mark.parametrize(
    ("file", "head", "cells", "between"),
    [
        ("test.csv", [HEAD], lambda there: flags(there)[::-1], ","),
        ("test.txt", [], flags, " "),
        ("test.txt", [], numbers, " "),
    ],
)
def test_tables_of_81_concepts(tmp_path, file, head, cells, between):
    write_nus_images(tmp_path, NUS_IDS)
    rows = [between.join([name, *cells(there)]) for name, there in SCENES.items()]
    (tmp_path / file).write_text("\r\n".join(head + rows))
    for labels in (None, tmp_path / file):
        assert found(NUSWide(tmp_path, "test", labels=labels)) == list(SCENES.values())


def test_csv_with_lists_of_names_and_splits(tmp_path):
    write_nus_images(tmp_path / "images", NUS_IDS)
    rows = [
        "filepath,label,split_name",
        f"images/{NUS_IDS[0]},\"['sky', 'person']\",train",
        f"images/{NUS_IDS[1]},['zebra'],val",
        f"images/{NUS_IDS[2]},[],val",
    ]
    file = tmp_path / "nus_wid_data.csv"
    file.write_text("\n".join(rows))
    assert found(NUSWide(tmp_path, "train")) == [{"person", "sky"}]
    assert found(NUSWide(tmp_path, "test")) == [{"zebra"}, set()]
    file.write_text("\n".join(rows).replace("val\n", "test\n"))
    assert found(NUSWide(tmp_path, "test")) == [{"zebra"}]
    file.write_text("\n".join(rows).replace("zebra", "zebras"))
    with pytest.raises(ValueError, match=r"nus_wid_data\.csv, line 3: 'zebras' is none of the 81"):
        NUSWide(tmp_path, "train")
