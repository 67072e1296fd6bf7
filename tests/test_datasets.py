"""VOC's layout, its odd cases, and the class lists of the paper's protocol."""

import re

import numpy as np
import pytest
from PIL import Image

from piaa_utils import datasets
from piaa_utils.datasets import (
    BACKGROUND,
    COCO_CLASSES,
    MINI_CLASSES,
    NUS_CLASSES,
    VOC_CLASSES,
    VOID,
    VOCLayout,
    check_class_names,
    data_dir,
    mini_scenes,
)
from piaa_utils.images import UnreadableImage, list_images


def annotation(*objects):
    """XML of an image with these (name, difficult) objects; difficult None leaves the tag out."""
    items = "".join(
        f"<object><name>{name}</name>"
        + ("" if difficult is None else f"<difficult>{difficult}</difficult>")
        + "<part><name>head</name></part></object>"
        for name, difficult in objects
    )
    return f"<annotation><filename>x.jpg</filename>{items}</annotation>"


def write_voc(root, scenes, split="train", newline="\n"):
    """Make a tree in VOC's layout of {image id: objects}; image k is solid grey of level 40 k."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for k, (image_id, objects) in enumerate(scenes.items()):
        Image.new("RGB", (8, 6), (40 * k,) * 3).save(root / f"JPEGImages/{image_id}.jpg")
        xml = annotation(*objects).replace("><", f">{newline}<")
        (root / f"Annotations/{image_id}.xml").write_bytes(xml.encode())
    lines = "".join(image_id + newline for image_id in scenes)
    (root / f"ImageSets/Main/{split}.txt").write_bytes(lines.encode())
    return root


def write_mask(root, image_id, values):
    mask = Image.fromarray(np.array(values, dtype=np.uint8))
    mask.putpalette(list(range(256)) * 3)
    assert mask.mode == "P"
    mask.save(root / f"SegmentationClass/{image_id}.png")


def names_of(dataset, row):
    return [dataset.class_names[c] for c in np.flatnonzero(dataset.labels[row])]


# Class lists


def test_class_lists_have_the_protocols_lengths_and_order():
    assert [len(names) for names in (VOC_CLASSES, COCO_CLASSES, NUS_CLASSES)] == [20, 80, 81]
    for names in (VOC_CLASSES, COCO_CLASSES, NUS_CLASSES):
        assert check_class_names(names) == names
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert list(NUS_CLASSES) == sorted(NUS_CLASSES)
    assert MINI_CLASSES == VOC_CLASSES
    assert COCO_CLASSES[0] == "person" and COCO_CLASSES[-1] == "toothbrush"
    # category ids 1, 13 (12 is unused), 44, 67 (66 unused) and 90 of COCO's 91
    assert [COCO_CLASSES.index(name) for name in ("stop sign", "bottle", "dining table", "tv")] == [
        11,
        39,
        60,
        62,
    ]


# Labels


def test_labels_follow_class_names_and_file_order(tmp_path):
    scenes = {"b": [("dog", 0), ("cat", 0)], "a": [("person", 0)]}
    dataset = VOCLayout(write_voc(tmp_path, scenes), "train")
    assert len(dataset) == 2 and dataset.ids == ["b", "a"]
    assert dataset.labels.dtype == np.int8 and dataset.labels.shape == (2, 20)
    assert names_of(dataset, 0) == ["cat", "dog"] and names_of(dataset, 1) == ["person"]
    two = VOCLayout(tmp_path, "train", ["dog", "cat"])
    assert two.labels.tolist() == [[1, 1], [0, 0]]


def test_images_are_read_as_rgb_and_listed_by_path(tmp_path):
    dataset = VOCLayout(write_voc(tmp_path, {"a": [], "b": []}), "train")
    assert dataset.paths == [tmp_path / "JPEGImages/a.jpg", tmp_path / "JPEGImages/b.jpg"]
    assert list_images(dataset) == dataset.paths
    assert dataset[1].getpixel((3, 3)) == (40, 40, 40)


def test_object_marked_difficult_only_is_absent_and_reported(tmp_path):
    scenes = {
        "only": [("dog", 1)],
        "both": [("dog", 1), ("dog", 0)],
        "both_turned": [("dog", 0), ("dog", 1)],
        "easy": [("dog", 0)],
        "untold": [("dog", None)],
        "other": [("dog", 1), ("cat", 0)],
    }
    dataset = VOCLayout(write_voc(tmp_path, scenes), "train", ["cat", "dog"])
    assert dataset.labels[:, 1].tolist() == [0, 1, 1, 1, 1, 0]
    assert dataset.difficult[:, 1].tolist() == [True, False, False, False, False, True]
    assert dataset.difficult.dtype == bool
    assert not dataset.difficult[:, 0].any() and dataset.labels[:, 0].sum() == 1


def test_class_twice_in_one_image_counts_once(tmp_path):
    dataset = VOCLayout(write_voc(tmp_path, {"a": [("cat", 0), ("cat", 0)]}), "train")
    assert dataset.labels.sum() == 1 and dataset.labels.max() == 1


def test_image_without_objects_has_no_labels(tmp_path):
    dataset = VOCLayout(write_voc(tmp_path, {"a": []}), "train")
    assert dataset.labels.sum() == 0 and not dataset.difficult.any()


def test_parts_of_objects_are_not_objects(tmp_path):
    dataset = VOCLayout(write_voc(tmp_path, {"a": [("person", 0)]}), "train")
    assert dataset.objects("a") == [("person", False)]


@pytest.mark.parametrize(
    ("in_file", "name"),
    [("diningtable", "dining table"), ("pottedplant", "potted plant"), ("tvmonitor", "tv monitor")],
)
def test_vocs_own_spelling_is_understood(tmp_path, in_file, name):
    dataset = VOCLayout(write_voc(tmp_path, {"a": [(in_file, 0)]}), "train")
    assert names_of(dataset, 0) == [name]


def test_own_aliases(tmp_path):
    root = write_voc(tmp_path, {"a": [("puppy", 0)]})
    assert names_of(VOCLayout(root, "train", aliases={"puppy": "dog"}), 0) == ["dog"]


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    root = write_voc(tmp_path, {"a": [("cat", 1)], "b": [("dog", 0)]}, newline="\r\n")
    split = root / "ImageSets/Main/train.txt"
    split.write_bytes(b"\xef\xbb\xbf" + split.read_bytes() + b"\r\n")
    (root / "labels.txt").write_bytes(b"cat\r\ndog\r\n")
    dataset = VOCLayout(root, "train", ["dog", "cat"])
    assert dataset.ids == ["a", "b"]
    assert dataset.labels.tolist() == [[0, 0], [1, 0]]
    assert dataset.difficult.tolist() == [[False, True], [False, False]]


def test_split_file_of_one_class_gives_its_ids(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": []})
    (root / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\n")
    assert VOCLayout(root, "cat_train").ids == ["a", "b"]


def test_learning_needs_no_annotations(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "Annotations/a.xml").unlink()
    dataset = VOCLayout(root, "train")
    assert len(dataset) == 1
    with pytest.raises(FileNotFoundError, match=r"Annotations.a\.xml"):
        _ = dataset.labels


# What is missing or wrong


def test_unknown_class_names_the_file_and_the_mend(tmp_path):
    dataset = VOCLayout(write_voc(tmp_path, {"a": [("dogg", 0)]}), "train")
    with pytest.raises(ValueError, match=r"a\.xml.*'dogg'.*class_names"):
        _ = dataset.labels


def test_known_class_that_is_not_asked_for_is_ignored(tmp_path):
    root = write_voc(tmp_path, {"a": [("dog", 0), ("pizza", 0)]})
    (root / "labels.txt").write_text("cat\ndog\npizza\n")
    assert VOCLayout(root, "train", ["cat", "dog"]).labels.tolist() == [[0, 1]]


def test_class_that_the_data_set_does_not_know_is_refused(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"'dogg' does not occur.*labels\.txt"):
        VOCLayout(root, "train", ["cat", "dogg"])


def test_own_classes_without_a_labels_file(tmp_path):
    root = write_voc(tmp_path, {"a": [("pizza", 0), ("dog", 0)]})
    assert VOCLayout(root, "train", ["pizza"]).labels.tolist() == [[1]]


def test_missing_split_names_those_that_are_there(tmp_path):
    write_voc(tmp_path, {"a": []})
    with pytest.raises(FileNotFoundError, match=r"test\.txt.*Splits there: train.*JPEGImages/"):
        VOCLayout(tmp_path, "test")


def test_missing_root_shows_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"VOC's layout is JPEGImages/.*VOCdevkit/VOC2007"):
        VOCLayout(tmp_path / "nowhere", "test")


def test_missing_images_are_counted_and_named(tmp_path):
    write_voc(tmp_path, {name: [] for name in "abcdefgh"})
    for name in "bcdefgh":
        (tmp_path / f"JPEGImages/{name}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"7 of 8 images.*b\.jpg, c\.jpg.*and 2 more"):
        VOCLayout(tmp_path, "train")


def test_missing_image_folder(tmp_path):
    write_voc(tmp_path, {"a": []})
    (tmp_path / "JPEGImages/a.jpg").unlink()
    (tmp_path / "JPEGImages").rmdir()
    with pytest.raises(FileNotFoundError, match="There is no folder .*JPEGImages"):
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
    with pytest.raises(ValueError, match=r"train\.txt lists 'a' twice"):
        VOCLayout(root, "train")


def test_broken_xml_names_the_file(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "Annotations/a.xml").write_text("<annotation><object>")
    with pytest.raises(ValueError, match=r"a\.xml is no well-formed XML"):
        _ = VOCLayout(root, "train").labels


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([], "empty"),
        (["cat", ""], "''"),
        (["cat", "  "], "'  '"),
        (["cat", None], "None"),
        (["cat", "dog", "cat"], "'cat' twice"),
        ("cat", "one string 'cat'"),
    ],
)
def test_bad_class_names_are_refused(tmp_path, names, match):
    with pytest.raises(ValueError, match=match):
        check_class_names(names)
    with pytest.raises(ValueError, match=match):
        VOCLayout(write_voc(tmp_path, {"a": []}), "train", names)


# Masks


def test_masks_become_indices_into_class_names(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": []})
    (root / "labels.txt").write_text("pizza\ncat\ndog\n")
    write_mask(root, "b", [[0, 1, 2], [3, 255, 0]])
    masks = VOCLayout(root, "train", ["dog", "cat"]).masks(1)
    assert masks.dtype == np.int16
    assert masks.tolist() == [[BACKGROUND, BACKGROUND, 1], [0, VOID, BACKGROUND]]


def test_masks_of_the_real_voc_use_its_palette(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    write_mask(root, "a", [[0, 1, 8, 20, 255]])
    assert VOCLayout(root, "train").masks(0).tolist() == [[-1, 0, 7, 19, -2]]


def test_mask_with_an_unknown_index_is_refused(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    write_mask(root, "a", [[0, 21]])
    with pytest.raises(ValueError, match=r"a\.png holds palette index 21.*20 classes"):
        VOCLayout(root, "train").masks(0)


def test_missing_colour_and_broken_masks_are_refused(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": [], "c": []})
    Image.new("RGB", (2, 2)).save(root / "SegmentationClass/b.png")
    (root / "SegmentationClass/c.png").write_text("no picture")
    dataset = VOCLayout(root, "train")
    with pytest.raises(FileNotFoundError, match=r"no mask .*a\.png.*ImageSets/Segmentation"):
        dataset.masks(0)
    with pytest.raises(ValueError, match=r"b\.png must be a palette image.*RGB"):
        dataset.masks(1)
    with pytest.raises(UnreadableImage, match=r"c\.png"):
        dataset.masks(2)


def test_more_classes_than_a_palette_holds_are_refused(tmp_path):
    root = write_voc(tmp_path, {"a": []})
    (root / "labels.txt").write_text("".join(f"class {i}\n" for i in range(255)))
    with pytest.raises(ValueError, match="255 classes.*254"):
        VOCLayout(root, "train", ["class 1"])


# The mini world's folder


def test_data_dir_can_be_moved_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PIAA_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    write_voc(tmp_path / "mini_scenes", {"a": [("cat", 0)]}, split="learn")
    assert names_of(mini_scenes("learn"), 0) == ["cat"]
    assert mini_scenes("learn", ["cat"]).labels.tolist() == [[1]]
    (tmp_path / "mini_scenes/labels.txt").write_text("cat\npizza\nother\n")
    assert datasets.mini_long_classes() == ("cat", "pizza")


def test_data_dir_that_does_not_exist_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PIAA_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="PIAA_DATA names .*gone"):
        data_dir()


def test_installed_without_its_data(tmp_path, monkeypatch):
    monkeypatch.delenv("PIAA_DATA", raising=False)
    assert data_dir().name == "data" and (data_dir().parent / "piaa_utils").is_dir()
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "site/piaa_utils/datasets.py"))
    with pytest.raises(FileNotFoundError, match="clone of the repository.*PIAA_DATA"):
        data_dir()


def test_missing_class_list_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PIAA_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=re.escape("labels.txt")):
        datasets.mini_long_classes()
