"""All worlds by name and through one protocol, the embedded world, and what patches show."""

import numpy as np
import pytest
import torch
import trees
from PIL import Image

from piaa_utils import worlds
from piaa_utils.metrics import mean_average_precision, patch_accuracy
from piaa_utils.settings import PAPER
from piaa_utils.walk import encoded
from piaa_utils.worlds import BACKGROUND, MIXED, NUS_CLASSES, VOC_CLASSES, VOID, WORLDS

OBJECTS = [("cat", trees.box(0, 0, 4, 4), 0)]
CAT = VOC_CLASSES.index("cat")


@pytest.fixture
def root(tmp_path):
    """All worlds, with other images in each split, and a folder of one's own."""
    voc07, voc12 = tmp_path / "VOCdevkit/VOC2007", tmp_path / "VOCdevkit/VOC2012"
    trees.write_voc(voc07, {"000005": [("cat", 0)], "000007": []}, "trainval")
    trees.write_voc(voc07, {"000007": []}, "val")
    trees.write_voc(voc07, {"000001": [("dog", 0), ("cat", 1)]}, "test")
    trees.write_voc(voc12, {"2008_000008": [("cat", 0)]}, "train")
    trees.write_voc(voc12, {"2008_000002": [("tvmonitor", 0)]}, "val")
    for split in WORLDS["mini"].splits:
        trees.write_voc(tmp_path / "mini_scenes", {split: [("cat", 0)]}, split)
    trees.write_coco(tmp_path / "coco", {9: OBJECTS, 25: []}, "train2014")
    trees.write_coco(tmp_path / "coco", {42: OBJECTS, 73: OBJECTS}, "val2014")
    nus = trees.write_nus_images(tmp_path / "nus_wide", trees.NUS_IDS)
    trees.write_nus(nus, dict(list(trees.SCENES.items())[:2]), "Train")
    trees.write_nus(nus, trees.SCENES, "Test")
    (tmp_path / "own").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "own/a.png")
    (tmp_path / "own/labels.csv").write_text("file,labels\na.png,cat;sofa\n")
    return tmp_path


# Pictures to learn from, to choose settings on, to test.
SIZES = {"mini": (1, 1, 1), "voc07": (2, 1, 1), "voc12": (1, 1, 1), "coco": (1, 1, 2)}
SIZES |= {"nus": (2, 2, 3), "own": (1, 1, 1)}


def test_the_catalogue_has_the_papers_numbers():
    assert {name: entry.scales for name, entry in WORLDS.items() if entry.scales} == PAPER
    assert list(WORLDS) == ["mini", *PAPER]
    assert [len(entry.class_names) for entry in WORLDS.values()] == [20, 20, 20, 80, 81]
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES) and list(NUS_CLASSES) == sorted(NUS_CLASSES)


@pytest.mark.parametrize("name", SIZES)
def test_all_worlds_have_one_shape(root, name):
    names = WORLDS[name].class_names if name in WORLDS else ("cat", "sofa")
    for split, n in zip(("learn", "val", "test"), SIZES[name], strict=True):
        world = worlds.load_world(name, split, root)
        assert len(world) == len(world.ids) == len(world.paths) == n and world.name == name
        assert world.class_names == names
        assert world.labels.shape == world.difficult.shape == (n, len(names))
        assert world.labels.dtype == np.int8 and world.difficult.dtype == bool
        assert world[0].mode == "RGB" and all(path.is_file() for path in world.paths)
        assert (world.mask(0) is None) == (name != "coco")
        cut = worlds.first(world, 1)
        assert len(cut) == len(cut.paths) == len(cut.labels) == len(cut.difficult) == 1
        assert len(world) == n, "the world itself is as it was"
        plain = worlds.load_world(name, f"{split}_unseen", root)
        assert plain.ids == world.ids or name == "mini"
    world = worlds.load_world(name, "learn", root, ["sofa" if name == "own" else "person", "cat"])
    assert world.labels.shape[1] == 2 and world.class_names[1] == "cat"
    assert world.labels[0].tolist() == {"nus": [1, 0], "own": [1, 1]}.get(name, [0, 1])


@pytest.mark.parametrize("name", WORLDS)
def test_the_folder_itself_will_do(root, name):
    folder = root / WORLDS[name].folder
    assert (
        worlds.load_world(name, "test", folder).paths == worlds.load_world(name, "test", root).paths
    )
    if name.startswith("voc"):
        assert worlds.load_world(name, "test", folder.parent).root == folder
    folder.rename(root / "other")
    assert worlds.load_world(name, "test", root / "other").root == root / "other"


@pytest.mark.parametrize(
    ("name", "split", "folder", "message"),
    [
        ("voc07", "learn", "VOCdevkit/VOC2012", "VOC2012 is the folder of another world. VOC07"),
        ("voc", "learn", ".", "no world 'voc'; there are mini, voc07, .* of your own"),
        ("", "learn", ".", "no world ''"),
        ("voc07", "train", ".", "no split 'train'; there are learn, val, test"),
        ("coco", "learn", None, "'coco' needs data_root.* annotations/, train2014/"),
    ],
)
def test_one_world_is_not_taken_for_another(root, name, split, folder, message):
    with pytest.raises(ValueError, match=message):
        worlds.load_world(name, split, folder and root / folder)


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_missing_is_said_with_where_to_get_it(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        worlds.load_world(name, "test", tmp_path)
    assert str(tmp_path) in str(caught.value) and WORLDS[name].files in str(caught.value)


def test_patch_labels_of_known_masks():
    mask = np.full((8, 8), BACKGROUND)
    mask[:4, :3], mask[4:, 4:], mask[:2, 4:7] = 3, 5, 7
    assert worlds.patch_labels(mask, 2).tolist() == [3, BACKGROUND, BACKGROUND, 5]
    assert worlds.patch_labels(mask, 2, share=0.8).tolist() == [MIXED, MIXED, BACKGROUND, 5]
    assert worlds.patch_labels(mask, 2, share=0.2)[1] == BACKGROUND, (
        "which covers more than class 7"
    )
    mask[:2, 4:] = 7
    assert worlds.patch_labels(mask, 2)[1] == 7, "of two that cover as much the object"
    for grid, share, message in ((3, 0.5, "does not divide"), (2, 0, "share")):
        with pytest.raises(ValueError, match=message):
            worlds.patch_labels(mask, grid, share=share)


def test_patch_truth_is_of_the_square_in_the_middle(tmp_path):
    root = trees.write_voc(tmp_path, {"wide": [], "tall": [], "none": []}, "test")
    wide = np.zeros((4, 8), dtype=int)
    wide[:, :2], wide[:2, 2:4], wide[2:, 4:6] = 1 + CAT, 1, 255  # the first outside the square
    trees.write_mask(root, "wide", wide)
    trees.write_mask(root, "tall", wide.T)
    truth = worlds.patch_truth(worlds.load_world("voc07", "test", tmp_path), grid=2, image_size=8)
    assert truth.tolist() == [[0, -1, -1, VOID], [0, -1, -1, VOID], [VOID] * 4]


@pytest.mark.parametrize(
    "split", ["learn", "val", "test", "learn_unseen", "val_unseen", "test_unseen"]
)
def test_splits_have_their_pictures_and_enough_labels(split):
    world, kind = worlds.load_world("mini", split), split.removesuffix("_unseen")
    counts = {"learn": 1200, "val": 150, "test": 600, "learn_unseen": 1000}
    assert len(world) == counts.get(split, counts[kind])
    assert len(set(world.ids)) == len(world) and world[0].size == (224, 224)
    assert world.labels.sum(1).mean() >= 2.5
    assert (world.labels.sum(0) >= (10 if kind == "test" else 1)).all()


def test_masks_and_annotations_agree():
    names = worlds.mini_long_classes()
    world = worlds.mini_scenes("test", names)
    assert names[:20] == VOC_CLASSES and len(names) >= 60 and (world.labels.sum(0) > 0).all()
    for i in range(0, len(world), 25):
        mask = world.mask(i)
        marked = world.labels[i].astype(bool) | world.difficult[i]
        seen = np.bincount(mask[mask >= 0], minlength=len(marked))
        assert set(np.flatnonzero(seen)) == set(np.flatnonzero(marked))
        assert (seen[world.labels[i] == 1] >= 100).all()  # what is seen less is "difficult"


def test_cls_knows_the_classes_and_scclip_untangles_the_patches(mini):
    world = worlds.first(worlds.mini_scenes("test"), 100)
    seen = encoded(mini, world, ("vanilla", "scclip"), progress=False)
    text, truth = (
        mini.encode_text(VOC_CLASSES),
        worlds.patch_truth(world, mini.grid, mini.image_size),
    )
    scores = torch.softmax(5 * seen.cls @ text.T, dim=-1).numpy()
    assert mean_average_precision(world.labels, scores).map > 60
    tangled, read = (patch_accuracy((x @ text.T).numpy(), truth) for x in seen.patches.values())
    assert read > 2 * tangled
