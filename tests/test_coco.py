"""COCO from a small tree with the official layout, categories and ids."""

import json

import numpy as np
import pytest
from PIL import Image

from piaa_utils.coco import COCO
from piaa_utils.datasets import BACKGROUND, COCO_CLASSES

UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # numbers from 1 to 90 without a category
IDS = [number for number in range(1, 91) if number not in UNUSED]
ID = dict(zip(COCO_CLASSES, IDS, strict=True))


def box(x, y, w, h):
    """A rectangle as COCO's polygon; its pixels are x..x+w-1, y..y+h-1."""
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def write_coco(root, scenes, split="val2014", folder=None):
    """A tree of {image number: [(class, segmentation, iscrowd)]}; images are 12 x 10."""
    folder = folder or root / split
    for path in (folder, root / "annotations"):
        path.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, objects in scenes.items():
        name = f"COCO_{split}_{number:012d}.jpg"
        Image.new("RGB", (12, 10), (number, 0, 0)).save(folder / name, quality=100)
        images.append({"id": number, "file_name": name, "width": 12, "height": 10})
        for name, segmentation, crowd in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": ID[name],
                    "segmentation": segmentation,
                    "iscrowd": crowd,
                }
            )
    categories = [{"id": number, "name": name} for name, number in reversed(ID.items())]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


CROWD = {"counts": [0, 20, 100], "size": [10, 12]}  # column by column: the first two


def names_of(data, row):
    return [data.class_names[c] for c in np.flatnonzero(data.labels[row])]


@pytest.fixture
def tree(tmp_path):
    scenes = {
        42: [("toothbrush", box(0, 0, 2, 2), 0), ("person", box(0, 0, 6, 6), 0)],
        7: [("dog", box(0, 0, 4, 4), 0), ("dog", box(5, 5, 4, 4), 0)],
        9: [],
        11: [("person", CROWD, 1)],
    }
    return write_coco(tmp_path, scenes)


def test_labels_are_in_the_order_of_category_ids(tree, capsys):
    data = COCO(tree, "val2014")
    assert data.ids == [f"COCO_val2014_{n:012d}" for n in (7, 11, 42)]
    assert data.labels.shape == (3, 80) and data.labels.dtype == np.int8
    assert [names_of(data, row) for row in range(3)] == [
        ["dog"],
        ["person"],
        ["person", "toothbrush"],
    ]
    assert data.labels.max() == 1, "two dogs count once"
    assert data.labels[2, 79] == 1, "category 90 is column 79"
    assert not data.difficult.any() and data.difficult.shape == (3, 80)
    assert capsys.readouterr().out == "", "pycocotools is silent"


def test_images_without_a_label_are_left_out_and_named(tree):
    assert COCO(tree, "val2014").unlabelled == ["COCO_val2014_000000000009"]
    data = COCO(tree, "val2014", keep_unlabelled=True)
    assert len(data) == 4 and data.unlabelled == [] and data.labels[1].sum() == 0


def test_items_are_rgb_images(tree):
    data = COCO(tree, "val2014")
    assert data[2].mode == "RGB" and data[2].size == (12, 10)
    assert abs(data[2].getpixel((5, 5))[0] - 42) < 3
    assert data.paths[0] == tree / "val2014/COCO_val2014_000000000007.jpg"


def test_images_in_a_folder_of_that_name(tmp_path):
    write_coco(tmp_path, {1: [("cat", box(0, 0, 2, 2), 0)]}, folder=tmp_path / "images/val2014")
    assert COCO(tmp_path, "val2014").paths[0].parent == tmp_path / "images/val2014"


def test_some_classes_only(tree):
    data = COCO(tree, "val2014", ["toothbrush", "dog"])
    assert [names_of(data, row) for row in range(2)] == [["dog"], ["toothbrush"]]
    assert set(np.unique(data.masks(1))) == {BACKGROUND, 0}
    with pytest.raises(ValueError, match="'dogg' is none of the 80 categories"):
        COCO(tree, "val2014", ["dogg"])
    with pytest.raises(ValueError, match="no image with a label"):
        COCO(tree, "val2014", ["zebra"])


def test_masks_have_the_smaller_object_on_top(tree):
    data = COCO(tree, "val2014")
    person, brush = COCO_CLASSES.index("person"), COCO_CLASSES.index("toothbrush")
    wanted = np.full((10, 12), BACKGROUND)
    wanted[:6, :6] = person
    wanted[:2, :2] = brush
    mask = data.masks(2)
    assert mask.dtype == np.int16
    np.testing.assert_array_equal(mask, wanted)
    crowd = np.full((10, 12), BACKGROUND)
    crowd[:, :2] = person
    np.testing.assert_array_equal(data.masks(1), crowd)


def test_missing_images_are_an_error_or_a_warning(tree):
    (tree / "val2014/COCO_val2014_000000000007.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images.*000000000007.*cocodataset\.org"):
        COCO(tree, "val2014")
    with pytest.warns(UserWarning, match="1 of 3 images are not there"):
        data = COCO(tree, "val2014", allow_missing=True)
    assert data.missing == ["COCO_val2014_000000000007"]
    assert names_of(data, 1) == ["person", "toothbrush"] and data.masks(1)[0, 0] == 79
    for file in (tree / "val2014").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="3 of 3"):
        COCO(tree, "val2014", allow_missing=True)


def test_missing_folder_and_annotations(tree):
    with pytest.raises(FileNotFoundError, match=r"instances_train2014\.json.*layout.*https"):
        COCO(tree, "train2014")
    (tree / "val2014").rename(tree / "gone")
    with pytest.raises(FileNotFoundError, match=r"no folder .*val2014\. COCO's layout"):
        COCO(tree, "val2014")


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [{}]}'])
def test_damaged_annotations(tree, content):
    (tree / "annotations/instances_val2014.json").write_text(content)
    with pytest.raises(ValueError, match=r"instances_val2014\.json cannot be read"):
        COCO(tree, "val2014")


def test_annotations_of_another_kind(tree):
    file = tree / "annotations/instances_val2014.json"
    content = json.loads(file.read_text())
    del content["categories"]  # as in the captions
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no complete instances file"):
        COCO(tree, "val2014")
    content["categories"] = [{"id": 1, "name": "person"}]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no complete instances file"):
        COCO(tree, "val2014")


def test_without_pycocotools(tree, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match="pip install pycocotools"):
        COCO(tree, "val2014")
