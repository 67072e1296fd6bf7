"""The paper's four data sets by name: folders, splits, both VOC protocols, and the notebooks."""

import shutil

import numpy as np
import pytest
from test_coco import box, write_coco
from test_datasets import write_mask, write_voc
from test_nus_wide import IDS, SCENES, write_images, write_official

from piaa_utils.constants import CONSTANTS
from piaa_utils.datasets import BACKGROUND, COCO_CLASSES, NUS_CLASSES, VOC_CLASSES, VOID
from piaa_utils.labelled import cut_to
from piaa_utils.lessons.config import FAST, Config
from piaa_utils.lessons.features import _key, mask_or_none
from piaa_utils.metrics import mean_average_precision
from piaa_utils.worlds import WORLDS, load_world

OBJECTS = [("cat", box(0, 0, 4, 4), 0)]


@pytest.fixture
def root(tmp_path):
    """All four, with other images in each split."""
    voc07, voc12 = tmp_path / "VOCdevkit/VOC2007", tmp_path / "VOCdevkit/VOC2012"
    write_voc(voc07, {"000005": [("cat", 0)], "000007": []}, "trainval")
    write_voc(voc07, {"000007": []}, "val")
    write_voc(voc07, {"000001": [("dog", 0), ("cat", 1)]}, "test")
    write_voc(voc12, {"2008_000008": [("cat", 0)]}, "train")
    write_voc(voc12, {"2008_000002": [("tvmonitor", 0)]}, "val")
    write_coco(tmp_path / "coco", {9: OBJECTS, 25: []}, "train2014")
    write_coco(tmp_path / "coco", {42: OBJECTS, 73: OBJECTS}, "val2014")
    nus = write_images(tmp_path / "nus_wide", IDS)
    write_official(nus, dict(list(SCENES.items())[:2]), "Train")
    write_official(nus, SCENES, "Test")
    return tmp_path


SIZES = {
    "voc07": {"learn": 2, "val": 1, "test": 1},
    "voc12": {"learn": 1, "val": 1, "test": 1},
    "coco": {"learn": 1, "val": 1, "test": 2},
    "nus": {"learn": 2, "val": 2, "test": 3},
}


def test_the_table_is_that_of_the_paper():
    assert list(WORLDS) == ["voc07", "voc12", "coco", "nus"] and set(WORLDS) <= set(CONSTANTS)
    names = [world.class_names for world in WORLDS.values()]
    assert names == [VOC_CLASSES, VOC_CLASSES, COCO_CLASSES, NUS_CLASSES]


@pytest.mark.parametrize("split", ["learn", "val", "test"])
@pytest.mark.parametrize("name", WORLDS)
def test_all_worlds_have_one_shape(root, name, split):
    data = load_world(name, root, split)
    n, classes = SIZES[name][split], len(WORLDS[name].class_names)
    assert len(data) == len(data.ids) == len(data.paths) == n
    assert data.class_names == WORLDS[name].class_names
    assert data.labels.shape == data.difficult.shape == (n, classes)
    assert data.labels.dtype == np.int8 and data.difficult.dtype == bool
    assert data[0].mode == "RGB" and all(path.is_file() for path in data.paths)


@pytest.mark.parametrize("name", WORLDS)
def test_the_folder_itself_will_do(root, name):
    folder = root / WORLDS[name].folder
    assert load_world(name, folder, "test").paths == load_world(name, root, "test").paths
    if name.startswith("voc"):
        assert load_world(name, folder.parent, "test").root == folder
    folder.rename(root / "other")
    assert load_world(name, root / "other", "test").root == root / "other"


@pytest.mark.parametrize("name", ["voc07", "voc12", "coco"])
def test_a_copy_unpacked_within_hides_nothing(root, name):
    folder = root / WORLDS[name].folder
    shutil.copytree(folder, root / "copy")
    (root / "copy").rename(folder / "copy")
    (folder / WORLDS[name].folder).parent.mkdir(parents=True, exist_ok=True)
    (folder / "copy").rename(folder / WORLDS[name].folder)
    assert load_world(name, folder, "test").root == folder


def test_a_file_of_a_common_name_hides_nothing(root):
    (root / "train.csv").write_text("another data set's")
    assert load_world("nus", root, "test").root == root / "nus_wide"
    assert WORLDS["nus"].root(root / "other") == root / "other" / "nus_wide"
    (root / "nus_wide").rename(root / "moved")
    assert WORLDS["nus"].root(root) == root, "there it says enough"


def test_voc07_is_not_taken_for_voc12(root):
    with pytest.raises(ValueError, match="VOC2012 is the folder of voc12, not of voc07"):
        load_world("voc07", root / "VOCdevkit/VOC2012", "learn")


def test_unknown_world_and_split(root):
    with pytest.raises(ValueError, match="no data set 'voc'; there are voc07, voc12, coco, nus"):
        load_world("voc", root, "learn")
    with pytest.raises(ValueError, match="no split 'train'; there are learn, val, test"):
        load_world("voc07", root, "train")


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_missing_is_said_with_where_to_get_it(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        load_world(name, tmp_path, "test")
    message = str(caught.value)
    assert str(tmp_path) in message and "://" in message
    assert WORLDS[name].folder.rpartition("/")[2] in message
    assert message.count(WORLDS[name].where) == 1


def test_only_voc07s_test_archive_is_missing(root):
    (root / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"Splits there: trainval, val.*VOCtest_06-Nov"):
        load_world("voc07", root, "test")


def test_options_reach_the_loader(root):
    assert len(load_world("coco", root, "learn", keep_unlabelled=True)) == 2
    assert len(load_world("nus", root, "test", keep_unlabelled=False)) == 2


def test_both_voc_protocols_through_labels_and_difficult(tmp_path):
    """Scores rank an image whose only cat is difficult first, then a cat, then a dog."""
    scenes = {
        "1": [("cat", 1), ("dog", 0)],
        "2": [("cat", 1), ("cat", 0), ("dog", 1)],
        "3": [("dog", 0)],
    }
    write_voc(tmp_path / "VOC2007", scenes, "test")
    data = load_world("voc07", tmp_path, "test")
    scores = np.zeros(data.labels.shape)
    cat, dog = VOC_CLASSES.index("cat"), VOC_CLASSES.index("dog")
    scores[:, cat] = 3, 2, 1
    scores[:, dog] = 3, 2, 1
    absent = mean_average_precision(data.labels, scores, class_names=VOC_CLASSES)
    ignored = mean_average_precision(data.labels, scores, data.difficult, VOC_CLASSES)
    assert absent.per_class[[cat, dog]] == pytest.approx([1 / 2, (1 + 2 / 3) / 2])
    assert ignored.per_class[[cat, dog]] == pytest.approx([1, 1])
    assert len(absent.left_out) == 18 and absent.left_out == ignored.left_out


# Notebooks


@pytest.mark.parametrize("name", WORLDS)
def test_notebooks_take_all_worlds(root, name, monkeypatch):
    config = Config(name, data_root=str(root), device="cpu")
    assert config.constants == CONSTANTS[name] and not config.is_default
    assert config.class_names == WORLDS[name].class_names
    assert len(config.dataset("test_unseen")) == SIZES[name]["test"]
    monkeypatch.setitem(FAST, "test", 1)
    fast = Config(name, data_root=str(root), device="cpu", fast=True).dataset("test")
    assert len(fast) == len(fast.labels) == len(fast.difficult) == 1


@pytest.mark.parametrize("name", WORLDS)
def test_masks_where_there_are_any(root, name):
    data = load_world(name, root, "test")
    assert (mask_or_none(data, 0) is None) == (name != "coco")
    if name == "voc07":
        write_mask(data.root, "000001", [[0, 8, 255]])
        assert mask_or_none(data, 0).tolist() == [[BACKGROUND, VOC_CLASSES.index("cat"), VOID]]


class _Backbone:
    """Stands in for the tower: only its identity is asked for."""


@pytest.mark.parametrize("name", WORLDS)
def test_the_cache_of_features_knows_images_and_label_files(root, name, monkeypatch):
    module = __import__("sys").modules[_key.__module__]
    monkeypatch.setattr(module, "identity", lambda backbone: {})
    config = Config(name, data_root=str(root), device="cpu")
    config.__dict__["backbone_"] = _Backbone()

    def key():
        return _key(config, config.dataset("test"))

    keys = [key()]
    assert keys == [key()]
    path = config.dataset("test").paths[0]
    path.write_bytes(path.read_bytes() + b" ")
    keys.append(key())
    if name == "coco":
        file = root / "coco/annotations/instances_val2014.json"
        file.write_text(file.read_text() + " ")
        keys.append(key())
    assert len(set(keys)) == len(keys)
    shutil.rmtree(root / WORLDS[name].folder)
    with pytest.raises(FileNotFoundError):
        key()


def test_cutting_a_voc_world(root):
    data = cut_to(load_world("voc07", root, "learn"), 1)
    assert data.ids == ["000005"] and data.labels.shape == (1, 20)
