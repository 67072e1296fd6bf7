"""All worlds by name and through one protocol, the embedded world, and what patches show."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from trees import (
    NUS_IDS,
    SCENES,
    box,
    write_coco,
    write_mask,
    write_nus,
    write_nus_images,
    write_voc,
)

from piaa_utils.files import data_dir
from piaa_utils.metrics import mean_average_precision, patch_accuracy
from piaa_utils.settings import PAPER
from piaa_utils.walk import encoded
from piaa_utils.worlds import (
    BACKGROUND,
    MIXED,
    NUS_CLASSES,
    VOC_CLASSES,
    VOID,
    WORLDS,
    first,
    load_world,
    mini_long_classes,
    mini_scenes,
    patch_labels,
    patch_truth,
)

OBJECTS = [("cat", box(0, 0, 4, 4), 0)]
CAT = VOC_CLASSES.index("cat")


@pytest.fixture
def root(tmp_path):
    """All worlds, with other images in each split, and a folder of one's own."""
    voc07, voc12 = tmp_path / "VOCdevkit/VOC2007", tmp_path / "VOCdevkit/VOC2012"
    write_voc(voc07, {"000005": [("cat", 0)], "000007": []}, "trainval")
    write_voc(voc07, {"000007": []}, "val")
    write_voc(voc07, {"000001": [("dog", 0), ("cat", 1)]}, "test")
    write_voc(voc12, {"2008_000008": [("cat", 0)]}, "train")
    write_voc(voc12, {"2008_000002": [("tvmonitor", 0)]}, "val")
    for split in WORLDS["mini"].splits:
        write_voc(tmp_path / "mini_scenes", {split: [("cat", 0)]}, split)
    write_coco(tmp_path / "coco", {9: OBJECTS, 25: []}, "train2014")
    write_coco(tmp_path / "coco", {42: OBJECTS, 73: OBJECTS}, "val2014")
    nus = write_nus_images(tmp_path / "nus_wide", NUS_IDS)
    write_nus(nus, dict(list(SCENES.items())[:2]), "Train")
    write_nus(nus, SCENES, "Test")
    (tmp_path / "own").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "own/a.png")
    (tmp_path / "own/labels.csv").write_text("file,labels\na.png,cat;sofa\n")
    return tmp_path


SIZES = {
    "mini": {"learn": 1, "val": 1, "test": 1},
    "voc07": {"learn": 2, "val": 1, "test": 1},
    "voc12": {"learn": 1, "val": 1, "test": 1},
    "coco": {"learn": 1, "val": 1, "test": 2},
    "nus": {"learn": 2, "val": 2, "test": 3},
    "own": {"learn": 1, "val": 1, "test": 1},
}


def test_the_catalogue_has_the_papers_numbers():
    assert {name: entry.scales for name, entry in WORLDS.items() if entry.scales} == PAPER
    assert list(WORLDS) == ["mini", *PAPER]
    assert [len(entry.class_names) for entry in WORLDS.values()] == [20, 20, 20, 80, 81]
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES) and list(NUS_CLASSES) == sorted(NUS_CLASSES)


@pytest.mark.parametrize("split", ["learn", "val", "test"])
@pytest.mark.parametrize("name", SIZES)
def test_all_worlds_have_one_shape(root, name, split):
    world = load_world(name, split, root)
    names = WORLDS[name].class_names if name in WORLDS else ("cat", "sofa")
    n = SIZES[name][split]
    assert len(world) == len(world.ids) == len(world.paths) == n and world.name == name
    assert world.class_names == names
    assert world.labels.shape == world.difficult.shape == (n, len(names))
    assert world.labels.dtype == np.int8 and world.difficult.dtype == bool
    assert world[0].mode == "RGB" and all(path.is_file() for path in world.paths)
    assert (world.mask(0) is None) == (name != "coco")
    cut = first(world, 1)
    assert len(cut) == len(cut.paths) == len(cut.labels) == len(cut.difficult) == 1
    assert len(world) == n, "the world itself is as it was"
    plain = load_world(name, f"{split}_unseen", root)
    assert plain.ids == world.ids or name == "mini"


@pytest.mark.parametrize("name", SIZES)
def test_own_class_names(root, name):
    world = load_world(name, "learn", root, ["sofa" if name == "own" else "person", "cat"])
    assert world.labels.shape[1] == 2 and world.class_names[1] == "cat"
    assert world.labels[0].tolist() == {"nus": [1, 0], "own": [1, 1]}.get(name, [0, 1])


@pytest.mark.parametrize("name", WORLDS)
def test_the_folder_itself_will_do(root, name):
    folder = root / WORLDS[name].folder
    assert load_world(name, "test", folder).paths == load_world(name, "test", root).paths
    if name.startswith("voc"):
        assert load_world(name, "test", folder.parent).root == folder
    folder.rename(root / "other")
    assert load_world(name, "test", root / "other").root == root / "other"


def test_one_world_is_not_taken_for_another(root):
    with pytest.raises(ValueError, match="VOC2012 is the folder of another world. VOC07 lies in"):
        load_world("voc07", "learn", root / "VOCdevkit/VOC2012")
    with pytest.raises(ValueError, match="no world 'voc'; there are mini, voc07, .* of your own"):
        load_world("voc", "learn", root)
    with pytest.raises(ValueError, match="no world ''"):
        load_world("", "learn")
    with pytest.raises(ValueError, match="no split 'train'; there are learn, val, test"):
        load_world("voc07", "train", root)
    for nothing in (None, ""):
        with pytest.raises(ValueError, match="'coco' needs data_root.* annotations/, train2014/"):
            load_world("coco", "learn", nothing)


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_missing_is_said_with_where_to_get_it(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        load_world(name, "test", tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message and WORLDS[name].folder.rpartition("/")[2] in message
    assert message.count(WORLDS[name].files) == 1


def test_both_voc_protocols_through_labels_and_difficult(tmp_path):
    """Scores rank an image whose only cat is difficult first, then a cat, then a dog."""
    scenes = {
        "1": [("cat", 1), ("dog", 0)],
        "2": [("cat", 1), ("cat", 0), ("dog", 1)],
        "3": [("dog", 0)],
    }
    write_voc(tmp_path / "VOC2007", scenes, "test")
    world = load_world("voc07", "test", tmp_path)
    scores, dog = np.zeros(world.labels.shape), VOC_CLASSES.index("dog")
    scores[:, [CAT, dog]] = np.array([[3, 2, 1]]).T
    absent = mean_average_precision(world.labels, scores, class_names=VOC_CLASSES)
    ignored = mean_average_precision(world.labels, scores, world.difficult, VOC_CLASSES)
    assert absent.per_class[[CAT, dog]] == pytest.approx([50, 50 * (1 + 2 / 3)])
    assert ignored.per_class[[CAT, dog]] == pytest.approx([100, 100])
    assert len(absent.left_out) == 18 and absent.left_out == ignored.left_out


# What patches show


def test_patch_labels_of_known_masks():
    mask = np.full((8, 8), BACKGROUND)
    mask[:4, :3], mask[4:, 4:], mask[:2, 4:7] = 3, 5, 7
    assert patch_labels(mask, 2).tolist() == [3, BACKGROUND, BACKGROUND, 5]
    assert patch_labels(mask, 2, share=0.8).tolist() == [MIXED, MIXED, BACKGROUND, 5]
    assert patch_labels(mask, 2, share=0.2)[1] == BACKGROUND, "which covers more than class 7"
    mask[:2, 4:] = 7
    assert patch_labels(mask, 2)[1] == 7, "of two that cover as much the object"
    with pytest.raises(ValueError, match="does not divide"):
        patch_labels(mask, 3)
    with pytest.raises(ValueError, match="share"):
        patch_labels(mask, 2, share=0)


def test_patch_truth_is_of_the_square_in_the_middle(tmp_path):
    root = write_voc(tmp_path, {"wide": [], "tall": [], "none": []}, "test")
    wide = np.zeros((4, 8), dtype=int)
    wide[:, :2], wide[:2, 2:4], wide[2:, 4:6] = 1 + CAT, 1, 255  # the first outside the square
    write_mask(root, "wide", wide)
    write_mask(root, "tall", wide.T)
    truth = patch_truth(load_world("voc07", "test", tmp_path), grid=2, image_size=8)
    assert truth.tolist() == [[0, -1, -1, VOID], [0, -1, -1, VOID], [VOID] * 4]


# The embedded world


@pytest.mark.parametrize(("split", "count"), [("learn", 1200), ("val", 150), ("test", 600)])
@pytest.mark.parametrize("style", ["", "_unseen"])
def test_splits_have_their_pictures_and_enough_labels(split, count, style):
    world = load_world("mini", split + style)
    assert len(world) == (1000 if split + style == "learn_unseen" else count)
    assert len(set(world.ids)) == len(world) and world[0].size == (224, 224)
    assert world.labels.sum(1).mean() >= 2.5
    assert (world.labels.sum(0) >= (10 if split == "test" else 1)).all()


def test_the_long_list_begins_with_voc_s_and_each_class_occurs():
    names = mini_long_classes()
    assert names[:20] == VOC_CLASSES and len(names) >= 60
    assert (mini_scenes("test", names).labels.sum(0) > 0).all()


def test_masks_and_annotations_agree():
    world = mini_scenes("test", mini_long_classes())
    for i in range(0, len(world), 25):
        mask = world.mask(i)
        marked = world.labels[i].astype(bool) | world.difficult[i]
        seen = np.bincount(mask[mask >= 0], minlength=len(marked))
        assert set(np.flatnonzero(seen)) == set(np.flatnonzero(marked))
        assert (seen[world.labels[i] == 1] >= 100).all()  # what is seen less is "difficult"


def test_the_mini_clip_has_the_shape_of_vit_b_16():
    folder = data_dir() / "mini_clip"
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    vision, text = config["vision_cfg"], config["text_cfg"]
    assert config["quick_gelu"] and vision["layers"] == 12 and vision["head_width"] == 64
    assert (vision["image_size"], vision["patch_size"]) == (224, 16)
    assert (text["context_length"], text["vocab_size"]) == (77, 49408)
    assert (folder / "model.safetensors").stat().st_size < 25 * 2**20


def test_cls_knows_the_classes_and_scclip_untangles_the_patches(mini):
    world = first(mini_scenes("test"), 100)
    seen = encoded(mini, world, ("vanilla", "scclip"), progress=False)
    text, truth = mini.encode_text(VOC_CLASSES), patch_truth(world, mini.grid, mini.image_size)
    scores = torch.softmax(5 * seen.cls @ text.T, dim=-1).numpy()
    assert mean_average_precision(world.labels, scores).map > 60
    tangled, read = (patch_accuracy((x @ text.T).numpy(), truth) for x in seen.patches.values())
    assert read > 2 * tangled
