"""VOC's layout and its odd cases."""

import os

import numpy as np
import pytest
from PIL import Image
from trees import annotation, names_of, write_mask, write_voc

from piaa_utils.images import UnreadableImage, list_images
from piaa_utils.worlds import BACKGROUND, VOID, VOCLayout, mini_long_classes, mini_scenes

# Labels


def test_labels_follow_class_names_and_file_order(tmp_path):
    scenes = {"b": [("dog", 0), ("cat", 0)], "a": [("person", 0)]}
    world = VOCLayout(write_voc(tmp_path, scenes), "train")
    assert len(world) == 2 and world.ids == ["b", "a"]
    assert world.labels.dtype == np.int8 and world.labels.shape == (2, 20)
    assert names_of(world, 0) == ["cat", "dog"] and names_of(world, 1) == ["person"]
    two = VOCLayout(tmp_path, "train", ["dog", "cat"])
    assert two.labels.tolist() == [[1, 1], [0, 0]]


def test_images_are_read_as_rgb_and_listed_by_path(tmp_path):
    world = VOCLayout(write_voc(tmp_path, {"a": [], "b": []}), "train")
    assert world.paths == [tmp_path / "JPEGImages/a.jpg", tmp_path / "JPEGImages/b.jpg"]
    assert list_images(world) == world.paths
    assert world[1].getpixel((3, 3)) == (40, 40, 40)


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


def test_parts_of_objects_are_not_objects(tmp_path):
    world = VOCLayout(write_voc(tmp_path, {"a": [("person", 0)]}), "train")
    assert world.objects("a") == [("person", False)]


@pytest.mark.parametrize(
    ("in_file", "name"),
    [("diningtable", "dining table"), ("pottedplant", "potted plant"), ("tvmonitor", "tv monitor")],
)
def test_vocs_own_spelling_is_understood(tmp_path, in_file, name):
    world = VOCLayout(write_voc(tmp_path, {"a": [(in_file, 0)]}), "train")
    assert names_of(world, 0) == [name]


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    root = write_voc(tmp_path, {"a": [("cat", 1)], "b": [("dog", 0)]}, newline="\r\n")
    split = root / "ImageSets/Main/train.txt"
    split.write_bytes(b"\xef\xbb\xbf" + split.read_bytes() + b"\r\n")
    (root / "labels.txt").write_bytes(b"cat\r\ndog\r\n")
    world = VOCLayout(root, "train", ["dog", "cat"])
    assert world.ids == ["a", "b"]
    assert world.labels.tolist() == [[0, 0], [1, 0]]
    assert world.difficult.tolist() == [[False, True], [False, False]]


def test_split_file_of_one_class_gives_its_ids(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": []})
    (root / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\n")
    assert VOCLayout(root, "cat_train").ids == ["a", "b"]


def test_learning_needs_no_annotations(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "Annotations/a.xml").unlink()
    world = VOCLayout(root, "train")
    assert len(world) == 1
    with pytest.raises(FileNotFoundError, match=r"Annotations.a\.xml"):
        _ = world.labels


# What is missing or wrong


def test_unknown_class_names_the_file_and_the_mend(tmp_path):
    world = VOCLayout(write_voc(tmp_path, {"a": [("dogg", 0)]}), "train")
    with pytest.raises(ValueError, match=r"a\.xml.*'dogg'.*class_names"):
        _ = world.labels


def test_known_class_that_is_not_asked_for_is_ignored(tmp_path):
    root = write_voc(tmp_path, {"a": [("dog", 0), ("pizza", 0)]})
    (root / "labels.txt").write_text("cat\ndog\npizza\n")
    assert VOCLayout(root, "train", ["cat", "dog"]).labels.tolist() == [[0, 1]]


def test_class_that_the_data_set_does_not_know_is_refused(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"labels\.txt: the class 'dogg' is none of the 2"):
        VOCLayout(root, "train", ["cat", "dogg"])


def test_missing_split_names_those_that_are_there(tmp_path):
    write_voc(tmp_path, {"a": []})
    with pytest.raises(FileNotFoundError, match=r"test\.txt.*Splits there: train.*JPEGImages/"):
        VOCLayout(tmp_path, "test")


def test_missing_images_are_counted_and_named(tmp_path):
    write_voc(tmp_path, {name: [] for name in "abcdefgh"})
    for name in "bcdefgh":
        (tmp_path / f"JPEGImages/{name}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"7 of 8 images.*b, c.*and 2 more.*split 'train'"):
        VOCLayout(tmp_path, "train")


@pytest.mark.parametrize("text", ["", "\r\n\r\n"])
def test_empty_split_is_refused(tmp_path, text):
    write_voc(tmp_path, {})
    (tmp_path / "ImageSets/Main/train.txt").write_text(text)
    with pytest.raises(ValueError, match=r"train\.txt.*empty"):
        VOCLayout(tmp_path, "train")


def test_id_listed_twice_is_refused(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": []})
    (root / "ImageSets/Main/train.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match=r"train\.txt, line 3: 'a' is listed twice"):
        VOCLayout(root, "train")


def test_broken_xml_names_the_file(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "Annotations/a.xml").write_text("<annotation><object>")
    with pytest.raises(ValueError, match=r"a\.xml: this is no well-formed XML"):
        _ = VOCLayout(root, "train").labels


@pytest.mark.parametrize("names", [[], ["cat", "Cat"], "cat"])
def test_bad_class_names_are_refused(tmp_path, names):
    root = write_voc(tmp_path, {"a": []})
    with pytest.raises(ValueError, match="class_names"):
        VOCLayout(root, "train", names)
    (root / "labels.txt").write_text("cat\ndog\nDog\n")
    with pytest.raises(ValueError, match=r"labels\.txt holds the same name twice: 'dog' and 'Dog'"):
        VOCLayout(root, "train", ["cat"])


@pytest.mark.parametrize(("encoding", "codec"), [("gb18030", "gb18030"), ("big5", "big5")])
def test_annotations_in_other_encodings(tmp_path, encoding, codec):
    root = write_voc(tmp_path, {"a": []})
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + annotation(("\u5c71", 0))
    (root / "Annotations/a.xml").write_bytes(text.encode(codec))
    assert names_of(VOCLayout(root, "train", ["\u5c71"]), 0) == ["\u5c71"]
    (root / "Annotations/a.xml").write_text(text.replace(encoding, "utf-8-mb4"), "utf-8")
    with pytest.raises(ValueError, match=r"a\.xml: .*utf-8-mb4.*save the file in UTF-8"):
        _ = VOCLayout(root, "train").labels


def test_split_in_another_encoding(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "ImageSets/Main/train.txt").write_bytes("\u00e9\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"train\.txt: this is not in UTF-8"):
        VOCLayout(root, "train")


def test_ids_with_blanks_are_told_from_the_second_column(tmp_path):
    root = write_voc(tmp_path, {"leaf (1)": [], "leaf 1": [], "leaf": []})
    lists = root / "ImageSets/Main"
    (lists / "one.txt").write_text("leaf (1)  1\nleaf 1 -1\n")
    assert VOCLayout(root, "one").ids == ["leaf (1)", "leaf 1"]
    (lists / "two.txt").write_text("leaf (1)\nleaf 1\n")
    with pytest.raises(ValueError, match=r"two\.txt, line 2: leaf\.jpg or leaf 1\.jpg\?"):
        VOCLayout(root, "two")
    (root / "JPEGImages/leaf.jpg").unlink()
    assert VOCLayout(root, "two").ids == ["leaf (1)", "leaf 1"]
    (lists / "three.txt").write_text("leaf (1) 1\nleaf (1)\n")
    with pytest.raises(ValueError, match=r"three\.txt, line 2: 'leaf \(1\)' is listed twice"):
        VOCLayout(root, "three")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_mask_that_is_a_pipe_does_not_hang(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    os.mkfifo(root / "SegmentationClass/a.png")
    with pytest.raises(UnreadableImage, match=r"a\.png: .*no regular file"):
        VOCLayout(root, "train").mask(0)


# Masks


def test_masks_become_indices_into_class_names(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": []})
    (root / "labels.txt").write_text("pizza\ncat\ndog\n")
    write_mask(root, "b", [[0, 1, 2], [3, 255, 0]])
    masks = VOCLayout(root, "train", ["dog", "cat"]).mask(1)
    assert masks.dtype == np.int16
    assert masks.tolist() == [[BACKGROUND, BACKGROUND, 1], [0, VOID, BACKGROUND]]


def test_mask_with_an_unknown_index_is_refused(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    write_mask(root, "a", [[0, 21]])
    with pytest.raises(ValueError, match=r"a\.png: .*palette index 21.*20 classes"):
        VOCLayout(root, "train").mask(0)


def test_missing_colour_and_broken_masks_are_refused(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": [], "c": []})
    Image.new("RGB", (2, 2)).save(root / "SegmentationClass/b.png")
    (root / "SegmentationClass/c.png").write_text("no picture")
    world = VOCLayout(root, "train")
    assert world.mask(0) is None, "the real VOC has masks of some pictures alone"
    with pytest.raises(ValueError, match=r"b\.png: a mask must be a palette image.*RGB"):
        world.mask(1)
    with pytest.raises(UnreadableImage, match=r"c\.png"):
        world.mask(2)


def test_more_classes_than_a_palette_holds_are_refused(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "labels.txt").write_text("".join(f"class {i}\n" for i in range(255)))
    with pytest.raises(ValueError, match="255 classes.*254"):
        VOCLayout(root, "train", ["class 1"])


# The mini world's folder


def test_data_dir_can_be_moved_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PIAA_DATA", str(tmp_path))
    write_voc(tmp_path / "mini_scenes", {"a": [("cat", 0)]}, split="learn")
    assert names_of(mini_scenes("learn"), 0) == ["cat"]
    assert mini_scenes("learn", ["cat"]).labels.tolist() == [[1]]
    (tmp_path / "mini_scenes/labels.txt").write_text("cat\npizza\nother\n")
    assert mini_long_classes() == ("cat", "pizza")
