"""NUS-WIDE from a small tree, in the official layout and in the single files in use."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image

from piaa_utils.datasets import NUS_CLASSES
from piaa_utils.nus_wide import NUSWide

SCENES = {  # three images to learn from, the last without a concept
    r"actor\0001_2124494179.jpg": {"person", "sky"},
    r"actor\0002_174174086.jpg": {"zebra"},
    r"zoo\0003_2278589.jpg": set(),
}
IDS = [name.replace("\\", "/") for name in SCENES]


def write_images(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)
    return root


def write_official(root, scenes=SCENES, split="Test"):
    labels, lists = root / "Groundtruth/TrainTestLabels", root / "ImageList"
    labels.mkdir(parents=True, exist_ok=True)
    lists.mkdir(exist_ok=True)
    for concept in NUS_CLASSES:
        lines = [f"{int(concept in there)}\r\n" for there in scenes.values()]
        (labels / f"Labels_{concept}_{split}.txt").write_bytes("".join(lines).encode())
    (lists / f"{split}Imagelist.txt").write_bytes("".join(f"{n} \r\n" for n in scenes).encode())
    return root


def found(data):
    """[set of concepts] of each image."""
    return [{NUS_CLASSES[c] for c in np.flatnonzero(row)} for row in data.labels]


def flags(there):
    return [str(int(concept in there)) for concept in NUS_CLASSES]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_official_files(tmp_path):
    write_images(write_official(tmp_path) / "Flickr", IDS)
    data = NUSWide(tmp_path, "test")
    assert data.ids == IDS and data.missing == data.unlabelled == []
    assert data.labels.dtype == np.int8 and data.labels.shape == (3, 81)
    assert found(data) == list(SCENES.values())
    assert data.paths[0] == tmp_path / "Flickr/actor/0001_2124494179.jpg"
    assert data[0].mode == "RGB" and not data.difficult.any()
    assert data.class_names == NUS_CLASSES and len(data.label_files) == 82


def test_images_without_a_label_can_be_left_out(tmp_path):
    write_images(write_official(tmp_path), IDS)
    data = NUSWide(tmp_path, "test", keep_unlabelled=False)
    assert data.ids == IDS[:2] and data.unlabelled == IDS[2:]


@pytest.mark.parametrize(
    "rename",
    [lambda name: name, lambda name: name.split("/")[1], lambda name: name.split("_")[1]],
    ids=["as listed", "flat", "Flickr's number"],
)
def test_images_are_found_wherever_they_lie(tmp_path, rename):
    write_official(tmp_path / "labels")
    images = write_images(tmp_path / "elsewhere/images", map(rename, IDS))
    data = NUSWide(tmp_path / "labels", "test", images=images)
    assert data.paths == [images / rename(name) for name in IDS]


def test_two_images_of_one_name(tmp_path):
    write_official(tmp_path)
    write_images(tmp_path, [*IDS, "copy/0001_2124494179.jpg"])
    assert NUSWide(tmp_path, "test").paths[0] == tmp_path / IDS[0]
    (tmp_path / IDS[0]).rename(tmp_path / "0001_2124494179.jpg")
    with pytest.raises(ValueError, match=r"Several images may be meant by actor/0001.*keep one"):
        NUSWide(tmp_path, "test")


def test_missing_images_are_named_in_a_warning(tmp_path):
    write_images(write_official(tmp_path), IDS[1:])
    with pytest.warns(UserWarning, match=r"1 of 3 images.*actor/0001_2124494179\.jpg.*`missing`"):
        data = NUSWide(tmp_path, "test")
    assert data.missing == IDS[:1] and data.ids == IDS[1:]
    assert found(data) == [{"zebra"}, set()]


def test_all_images_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="3 of 3 images.*cannot be downloaded.*ask"):
        NUSWide(write_official(tmp_path), "test")


def test_no_label_files(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"Groundtruth/TrainTestLabels.*nus_wide_train\.csv"
    ):
        NUSWide(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"no file .*mine\.csv"):
        NUSWide(tmp_path, "train", labels=tmp_path / "mine.csv")
    with pytest.raises(ValueError, match="splits train and test, not 'val'"):
        NUSWide(tmp_path, "val")


def test_official_files_that_do_not_fit(tmp_path):
    write_official(tmp_path)
    file = tmp_path / "Groundtruth/TrainTestLabels/Labels_zebra_Test.txt"
    file.write_text("0\n1\n")
    with pytest.raises(ValueError, match=r"Labels_zebra_Test\.txt should hold 3 lines.*holds 2"):
        NUSWide(tmp_path, "test")
    file.write_text("0\n1\n2\n")
    with pytest.raises(ValueError, match="3 lines of 0 or 1"):
        NUSWide(tmp_path, "test")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 label files.*Labels_zebra_Test\.txt"):
        NUSWide(tmp_path, "test")


def test_csv_with_lists_of_names_and_splits(tmp_path):
    write_images(tmp_path / "images", IDS)
    rows = [
        "filepath,label,split_name",
        f"images/{IDS[0]},\"['sky', 'person']\",train",
        f"images/{IDS[1]},['zebra'],val",
        f"images/{IDS[2]},[],val",
    ]
    file = tmp_path / "nus_wid_data.csv"
    file.write_text("\n".join(rows))
    assert found(NUSWide(tmp_path, "train")) == [{"person", "sky"}]
    assert found(NUSWide(tmp_path, "test")) == [{"zebra"}, set()]
    file.write_text("\n".join(rows).replace("val\n", "test\n"))
    assert found(NUSWide(tmp_path, "test")) == [{"zebra"}]
    file.write_text("\n".join(rows[:1] + rows[2:]))
    with pytest.raises(ValueError, match="no rows of the split 'train': val"):
        NUSWide(tmp_path, "train")
    file.write_text("\n".join(rows).replace("zebra", "zebras"))
    with pytest.raises(ValueError, match=r"nus_wid_data\.csv, line 3: 'zebras' is none of the 81"):
        NUSWide(tmp_path, "train")


@pytest.mark.parametrize("header", [True, False])
def test_csv_with_81_columns(tmp_path, header):
    write_images(tmp_path, IDS)
    top = [",".join(["image", *NUS_CLASSES])] if header else []
    rows = [",".join([name, *flags(there)]) for name, there in SCENES.items()]
    (tmp_path / "nus_wide_test.csv").write_text("\r\n".join(top + rows))
    assert found(NUSWide(tmp_path, "test")) == list(SCENES.values())


def test_columns_in_another_order(tmp_path):
    write_images(tmp_path, IDS)
    order = NUS_CLASSES[::-1]
    rows = [",".join(["image", *map(str.title, order)])]
    rows += [",".join([name, *flags(there)[::-1]]) for name, there in SCENES.items()]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    data = NUSWide(tmp_path, "test", labels=tmp_path / "mine.csv")
    assert found(data) == list(SCENES.values()) and data.label_files == [tmp_path / "mine.csv"]


def test_text_with_numbers(tmp_path):
    write_images(tmp_path, IDS)
    number = {concept: c for c, concept in enumerate(NUS_CLASSES)}
    lines = [" ".join([n, *(str(number[c]) for c in there)]) for n, there in SCENES.items()]
    file = tmp_path / "test.txt"
    file.write_text("\n".join(lines) + "\n\n")
    assert found(NUSWide(tmp_path, "test")) == list(SCENES.values())
    file.write_text("\n".join(" ".join([n, *flags(there)]) for n, there in SCENES.items()))
    assert found(NUSWide(tmp_path, "test")) == list(SCENES.values())


@pytest.mark.parametrize("line", ["a.jpg 3 81", "a.jpg sky", "a.jpg -1"])
def test_text_that_cannot_be_understood(tmp_path, line):
    (tmp_path / "train.txt").write_text(f"b.jpg 1\n{line}\n")
    with pytest.raises(ValueError, match=re.escape("train.txt, line 2: after the image")):
        NUSWide(tmp_path, "train")


def test_empty_text(tmp_path):
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        NUSWide(tmp_path, "train")
