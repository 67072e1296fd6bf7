"""NUS-WIDE from a small tree, in the official layout and in the single files in use."""

import re
import warnings

import numpy as np
import pytest
from trees import NUS_IDS, SCENES, write_nus, write_nus_images

from piaa_utils.worlds import NUS_CLASSES, NUSWide


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
    write_nus_images(write_nus(tmp_path) / "Flickr", NUS_IDS)
    data = NUSWide(tmp_path, "test")
    assert data.ids == NUS_IDS and data.missing == []
    assert data.labels.dtype == np.int8 and data.labels.shape == (3, 81)
    assert found(data) == list(SCENES.values())
    assert data.paths[0] == tmp_path / "Flickr/actor/0001_2124494179.jpg"
    assert data[0].mode == "RGB" and not data.difficult.any()
    assert data.class_names == NUS_CLASSES


@pytest.mark.parametrize(
    "rename",
    [lambda name: name, lambda name: name.split("/")[1], lambda name: name.split("_")[1]],
    ids=["as listed", "flat", "Flickr's number"],
)
def test_images_are_found_wherever_they_lie(tmp_path, rename):
    write_nus(tmp_path / "labels")
    images = write_nus_images(tmp_path / "elsewhere/images", map(rename, NUS_IDS))
    data = NUSWide(tmp_path / "labels", "test", images=images)
    assert data.paths == [images / rename(name) for name in NUS_IDS]


def test_two_images_of_one_name(tmp_path):
    write_nus(tmp_path)
    write_nus_images(tmp_path, [*NUS_IDS, "copy/0001_2124494179.jpg"])
    assert NUSWide(tmp_path, "test").paths[0] == tmp_path / NUS_IDS[0]
    (tmp_path / NUS_IDS[0]).rename(tmp_path / "0001_2124494179.jpg")
    with pytest.raises(ValueError, match=r"Several images may be meant by actor/0001.*keep one"):
        NUSWide(tmp_path, "test")


def test_missing_images_are_named_in_a_warning(tmp_path):
    write_nus_images(write_nus(tmp_path), NUS_IDS[1:])
    with pytest.warns(UserWarning, match=r"1 of 3 images.*actor/0001_2124494179\.jpg.*`missing`"):
        data = NUSWide(tmp_path, "test")
    assert data.missing == NUS_IDS[:1] and data.ids == NUS_IDS[1:]
    assert found(data) == [{"zebra"}, set()]


def test_all_images_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="3 of 3 images"):
        NUSWide(write_nus(tmp_path), "test")


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
    write_nus(tmp_path)
    file = tmp_path / "Groundtruth/TrainTestLabels/Labels_zebra_Test.txt"
    file.write_text("0\n1\n")
    with pytest.raises(ValueError, match=r"Labels_zebra_Test\.txt: there should be 3 lines.*not 2"):
        NUSWide(tmp_path, "test")
    file.write_text("0\n1\n2\n")
    with pytest.raises(ValueError, match="3 lines of 0 or 1"):
        NUSWide(tmp_path, "test")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*Labels_zebra_Test\.txt"):
        NUSWide(tmp_path, "test")


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
    file.write_text("\n".join(rows[:1] + rows[2:]))
    with pytest.raises(ValueError, match="no row has the split 'train', only val"):
        NUSWide(tmp_path, "train")
    file.write_text("\n".join(rows).replace("zebra", "zebras"))
    with pytest.raises(ValueError, match=r"nus_wid_data\.csv, line 3: 'zebras' is none of the 81"):
        NUSWide(tmp_path, "train")


@pytest.mark.parametrize("header", [True, False])
def test_csv_with_81_columns(tmp_path, header):
    write_nus_images(tmp_path, NUS_IDS)
    top = [",".join(["image", *NUS_CLASSES])] if header else []
    rows = [",".join([name, *flags(there)]) for name, there in SCENES.items()]
    (tmp_path / "nus_wide_test.csv").write_text("\r\n".join(top + rows))
    assert found(NUSWide(tmp_path, "test")) == list(SCENES.values())


def test_columns_in_another_order(tmp_path):
    write_nus_images(tmp_path, NUS_IDS)
    order = NUS_CLASSES[::-1]
    rows = [",".join(["image", *map(str.title, order)])]
    rows += [",".join([name, *flags(there)[::-1]]) for name, there in SCENES.items()]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    data = NUSWide(tmp_path, "test", labels=tmp_path / "mine.csv")
    assert found(data) == list(SCENES.values())


def test_text_with_numbers(tmp_path):
    write_nus_images(tmp_path, NUS_IDS)
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


def test_flags_of_fewer_concepts_are_no_numbers(tmp_path):
    """NUS-WIDE-21's lists, and one flag a line."""
    file = tmp_path / "train.txt"
    file.write_text("a.jpg " + "1 " * 4 + "0 " * 17)
    with pytest.raises(ValueError, match=r"train\.txt, line 1: .*different numbers"):
        NUSWide(tmp_path, "train")
    file.write_text("a.jpg 1\nb.jpg 0\n")
    with pytest.raises(ValueError, match="0 and 1 alone may be either"):
        NUSWide(tmp_path, "train")


@pytest.mark.parametrize("again", ["./zoo/a b.jpg", r"zoo\a b.jpg", "zoo//a b.jpg"])
def test_an_image_listed_twice_however_it_is_spelt(tmp_path, again):
    file = tmp_path / "train.txt"
    write_nus_images(tmp_path, ["zoo/a b.jpg"])
    file.write_text("zoo/a b.jpg 3 5\n")
    assert NUSWide(tmp_path, "train").ids == ["zoo/a b.jpg"], "a name may have blanks"
    file.write_text(f"zoo/a b.jpg 3\n{again} 5\n")
    with pytest.raises(ValueError, match=r"line 2: 'zoo/a b\.jpg' is listed twice.*line 1"):
        NUSWide(tmp_path, "train")


def test_some_concepts_only(tmp_path):
    write_nus_images(write_nus(tmp_path), NUS_IDS)
    assert NUSWide(tmp_path, "test", ["zebra", "sky"]).labels.tolist() == [[0, 1], [1, 0], [0, 0]]
    with pytest.raises(ValueError, match="'zebras' is none of the 81"):
        NUSWide(tmp_path, "test", ["zebras"])


def test_images_behind_a_link_are_found(tmp_path):
    disk = write_nus_images(tmp_path / "disk", NUS_IDS)
    (tmp_path / "nus").mkdir()
    (tmp_path / "nus/Flickr").symlink_to(disk, target_is_directory=True)
    data = NUSWide(write_nus(tmp_path / "nus"), "test")
    assert data.ids == NUS_IDS and data.paths[0] == tmp_path / "nus/Flickr" / NUS_IDS[0]
