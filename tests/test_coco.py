"""COCO from a small tree with the official layout, categories and ids."""

import json
import sys

import numpy as np
import pytest
from trees import box, names_of, write_coco

from piaa_utils.worlds import BACKGROUND, COCO, COCO_CLASSES, VOID

CROWD = {"counts": [0, 20, 100], "size": [10, 12]}  # column by column: the first two


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
    there = [names_of(data, row) for row in range(3)]
    assert there == [["dog"], ["person"], ["person", "toothbrush"]]
    assert data.labels.max() == 1, "two dogs count once"
    assert data.labels[2, 79] == 1, "category 90 is column 79"
    assert capsys.readouterr().out == "", "pycocotools is silent"
    assert data.unlabelled == ["COCO_val2014_000000000009"]
    data = COCO(tree, "val2014", keep_unlabelled=True)
    assert len(data) == 4 and data.unlabelled == [] and data.labels[1].sum() == 0


def test_some_classes_only(tree):
    data = COCO(tree, "val2014", ["toothbrush", "dog"])
    assert [names_of(data, row) for row in range(2)] == [["dog"], ["toothbrush"]]
    assert set(np.unique(data.mask(1))) == {BACKGROUND, 0}
    with pytest.raises(ValueError, match="'dogg' is none of the 80 categories"):
        COCO(tree, "val2014", ["dogg"])
    with pytest.raises(ValueError, match="no image has a label"):
        COCO(tree, "val2014", ["zebra"])


def test_masks_have_the_smaller_object_on_top(tree):
    data = COCO(tree, "val2014")
    person, brush = COCO_CLASSES.index("person"), COCO_CLASSES.index("toothbrush")
    wanted, crowd = (np.full((10, 12), BACKGROUND) for _ in range(2))
    wanted[:6, :6], wanted[:2, :2], crowd[:, :2] = person, brush, person
    assert data.mask(2).dtype == np.int16
    np.testing.assert_array_equal(data.mask(2), wanted)
    np.testing.assert_array_equal(data.mask(1), crowd)


def test_missing_images_are_an_error_or_a_warning(tree):
    (tree / "val2014/COCO_val2014_000000000007.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images.*000000000007.*COCO's layout"):
        COCO(tree, "val2014")
    with pytest.warns(UserWarning, match="1 of 3 images are not there"):
        data = COCO(tree, "val2014", allow_missing=True)
    assert data.missing == ["COCO_val2014_000000000007"]
    assert names_of(data, 1) == ["person", "toothbrush"] and data.mask(1)[0, 0] == 79
    with pytest.raises(FileNotFoundError, match=r"instances_train2014\.json.*layout"):
        COCO(tree, "train2014")
    (tree / "annotations/instances_val2014.json").write_text("{")
    with pytest.raises(ValueError, match=r"instances_val2014\.json: cannot be read"):
        COCO(tree, "val2014")
    (tree / "val2014").rename(tree / "gone")
    with pytest.raises(FileNotFoundError, match=r"no folder .*val2014\. COCO's layout"):
        COCO(tree, "val2014")


def test_without_pycocotools(tree, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    data = COCO(tree, "val2014")
    assert names_of(data, 0) == ["dog"], "labels do without it"
    with pytest.raises(ImportError, match="pip install pycocotools"):
        data.mask(0)


def change(tree, change):
    """Change the instances file's content."""
    file = tree / "annotations/instances_val2014.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("outline", [[], [[]], None, [[1, 1, 5, 5]]])
def test_objects_without_an_outline_are_unknown_not_background(tree, outline):
    item = {"segmentation": outline, "bbox": [1, 2, 3, 4.5]}
    change(tree, lambda c: c["annotations"][2].update(item))  # one of the picture's two dogs
    with pytest.warns(UserWarning, match=r"val2014\.json: the annotation 3 has no outline"):
        mask = COCO(tree, "val2014").mask(0)
    dog = COCO_CLASSES.index("dog")
    assert (mask[2:7, 1:4] == VOID).sum() == 15 and (mask == VOID).sum() == 15
    assert (mask[5:9, 5:9] == dog).all()


def test_a_box_that_begins_outside_and_a_size_in_words(tree):
    item = {"segmentation": None, "bbox": [-2, -3, 4.5, 7]}
    change(tree, lambda c: c["annotations"][2].update(item))
    change(tree, lambda c: c["images"][1].update(width="12", height=10.0))
    with pytest.warns(UserWarning, match="the annotation 3 has no outline"):
        mask = COCO(tree, "val2014").mask(0)
    assert mask.shape == (10, 12) and (mask[:4, :3] == VOID).all() and (mask == VOID).sum() == 12


@pytest.mark.parametrize(
    "odd",
    [
        lambda c: c.clear(),
        lambda c: c.pop("categories"),  # as in the captions
        lambda c: c.update(categories=[{"id": 1, "name": "person"}]),
        lambda c: c.update(images=[]),
        lambda c: c["categories"].append({"id": 200}),
        lambda c: c["images"].append({"id": "2", "file_name": "2.jpg"}),
        lambda c: c["images"].append({**c["images"][0], "file_name": "2.jpg"}),
        lambda c: c["images"].append({**c["images"][0], "id": 200}),
        lambda c: c["images"].append({"id": 200, "file_name": None}),
        lambda c: c["annotations"].append({"id": 200, "image_id": 42, "category_id": 12}),
        lambda c: c["annotations"].append(dict(c["annotations"][0])),
    ],
)
def test_odd_instances_are_refused_with_the_file(tree, odd):
    change(tree, odd)
    with pytest.raises(ValueError, match=r"val2014\.json: cannot be read as COCO instances"):
        COCO(tree, "val2014")
