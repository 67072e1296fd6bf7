"""Worlds: pictures with class names, labels and masks, from whatever layout they are stored in."""

from piaa_utils.worlds.catalogue import WORLDS, load_world
from piaa_utils.worlds.class_lists import COCO_CLASSES, NUS_CLASSES, VOC_CLASSES
from piaa_utils.worlds.coco import COCO
from piaa_utils.worlds.folder import LabelledFolder
from piaa_utils.worlds.masks import BACKGROUND, MIXED, VOID, patch_labels, patch_truth
from piaa_utils.worlds.nus_wide import NUSWide
from piaa_utils.worlds.voc import VOCLayout, mini_long_classes, mini_scenes
from piaa_utils.worlds.world import World, first

__all__ = [
    "COCO", "LabelledFolder", "NUSWide", "VOCLayout", "World", "WORLDS", "first", "load_world",
    "COCO_CLASSES", "NUS_CLASSES", "VOC_CLASSES", "mini_long_classes", "mini_scenes",
    "BACKGROUND", "MIXED", "VOID", "patch_labels", "patch_truth",
]  # fmt: skip
