"""VOC's layout and its odd cases."""

import numpy as np
import pytest
from PIL import Image
from trees import annotation, names_of, write_mask, write_voc

from piaa_utils.images import UnreadableImage, list_images
from piaa_utils.worlds import BACKGROUND, VOC_CLASSES, VOID, VOCLayout


def test_labels_follow_class_names_and_file_order(tmp_path):
    scenes = {"b": [("dog", 0), ("tvmonitor", 0), ("pottedplant", 0)], "a": [("diningtable", 0)]}
    world = VOCLayout(write_voc(tmp_path, scenes), "train")
    assert world.ids == ["b", "a"] and list_images(world) == world.paths
    assert world.paths == [tmp_path / "JPEGImages/b.jpg", tmp_path / "JPEGImages/a.jpg"]
    assert world[1].getpixel((3, 3)) == (40, 40, 40)
    assert world.labels.dtype == np.int8 and world.labels.shape == (2, 20)
    assert names_of(world, 0) == ["dog", "potted plant", "tv monitor"]
    assert names_of(world, 1) == ["dining table"]
    two = VOCLayout(tmp_path, "train", ["dog", "cat"])
    assert two.labels.tolist() == [[1, 0], [0, 0]]
    (tmp_path / "ImageSets/Main/cat_train.txt").write_text("a -1\nb  1\n")
    assert VOCLayout(tmp_path, "cat_train").ids == ["a", "b"], "a list of one class has flags"
    (tmp_path / "Annotations/a.xml").unlink()
    world = VOCLayout(tmp_path, "train")  # learning needs no annotations
    with pytest.raises(FileNotFoundError, match=r"Annotations.a\.xml"):
        _ = world.labels


def test_object_marked_difficult_only_is_absent_and_reported(tmp_path):
    scenes = {
        "only": [("dog", 1)],
        "both": [("dog", 1), ("dog", 0)],
        "both_turned": [("dog", 0), ("dog", 1)],
        "easy": [("dog", 0)],
        "untold": [("dog", None)],
        "other": [("dog", 1), ("cat", 0)],
    }
    world = VOCLayout(write_voc(tmp_path, scenes), "train", ["cat", "dog"])
    assert world.labels[:, 1].tolist() == [0, 1, 1, 1, 1, 0]
    assert world.difficult[:, 1].tolist() == [True, False, False, False, False, True]
    assert world.difficult.dtype == bool
    assert not world.difficult[:, 0].any() and world.labels[:, 0].sum() == 1


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    root = write_voc(tmp_path, {"a": [("cat", 1)], "b": [("dog", 0)]}, newline="\r\n")
    split = root / "ImageSets/Main/train.txt"
    split.write_bytes(b"\xef\xbb\xbf" + split.read_bytes() + b"\r\n")
    (root / "labels.txt").write_bytes(b"cat\r\ndog\r\n")
    world = VOCLayout(root, "train", ["dog", "cat"])
    assert world.ids == ["a", "b"]
    assert world.labels.tolist() == [[0, 0], [1, 0]]
    assert world.difficult.tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("encoding", ["gb18030", "big5"])
def test_annotations_in_other_encodings(tmp_path, encoding):
    root = write_voc(tmp_path, {"a": []})
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + annotation(("\u5c71", 0))
    (root / "Annotations/a.xml").write_bytes(text.encode(encoding))
    assert names_of(VOCLayout(root, "train", ["\u5c71"]), 0) == ["\u5c71"]
    (root / "Annotations/a.xml").write_text(text.replace(encoding, "utf-8-mb4"), "utf-8")
    with pytest.raises(ValueError, match=r"a\.xml: .*utf-8-mb4.*save the file in UTF-8"):
        _ = VOCLayout(root, "train").labels


def test_ids_with_blanks_are_told_from_the_second_column(tmp_path):
    root = write_voc(tmp_path, {"leaf (1)": [], "leaf 1": [], "leaf": []})
    (root / "ImageSets/Main/one.txt").write_text("leaf (1)  1\nleaf 1 -1\n")
    assert VOCLayout(root, "one").ids == ["leaf (1)", "leaf 1"]
    (root / "ImageSets/Main/two.txt").write_text("leaf (1)\nleaf 1\n")
    with pytest.raises(ValueError, match=r"two\.txt, line 2: leaf\.jpg or leaf 1\.jpg\?"):
        VOCLayout(root, "two")


def test_masks_become_indices_into_class_names(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": []})
    (root / "labels.txt").write_text("pizza\ncat\ndog\n")
    write_mask(root, "b", [[0, 1, 2], [3, 255, 0]])
    masks = VOCLayout(root, "train", ["dog", "cat"]).mask(1)
    assert masks.dtype == np.int16
    assert masks.tolist() == [[BACKGROUND, BACKGROUND, 1], [0, VOID, BACKGROUND]]


def test_missing_colour_and_broken_masks(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": [], "c": [], "d": []})
    Image.new("RGB", (2, 2)).save(root / "SegmentationClass/b.png")
    (root / "SegmentationClass/c.png").write_text("no picture")
    write_mask(root, "d", [[0, 21]])
    world = VOCLayout(root, "train")
    assert world.mask(0) is None, "the real VOC has masks of some pictures alone"
    told = r"b\.png: a mask must be a palette", r"c\.png", r"d\.png: .*palette index 21.*20 cl"
    for i, message in enumerate(told, start=1):
        with pytest.raises((ValueError, UnreadableImage), match=message):
            world.mask(i)


SPLIT = "ImageSets/Main/train.txt"
MANY = "".join(f"class {i}\n" for i in range(255))


@pytest.mark.parametrize(
    ("file", "text", "names", "message"),
    [
        (SPLIT, "\r\n\r\n", None, r"train\.txt.*empty"),
        (SPLIT, "\u00e9\n".encode("cp1252"), None, r"train\.txt: this is not in UTF-8"),
        (SPLIT, "a\nx\ny\n", None, r"2 of 3 images.*x, y.*split 'train'"),
        (None, "", None, r"train\.txt.*Splits there: val.*JPEGImages/"),
        ("labels.txt", "cat\n", ["cat", "dogg"], r"labels\.txt: the class 'dogg' is none of the 1"),
        ("labels.txt", "dog\nDog\n", ["dog"], r"labels\.txt holds the same name twice: 'dog' and"),
        ("labels.txt", MANY, ["class 1"], "255 classes.*254"),
        ("other", "", ["cat", "Cat"], "class_names"),
    ],
)
def test_what_is_missing_or_wrong_is_named(tmp_path, file, text, names, message):
    write_voc(tmp_path, {"a": []})
    if file is None:
        (tmp_path / SPLIT).rename(tmp_path / "ImageSets/Main/val.txt")
    else:
        (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        _ = VOCLayout(tmp_path, "train", VOC_CLASSES if names is None else names).labels
