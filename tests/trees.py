"""Small trees in the layouts of PASCAL VOC, COCO and NUS-WIDE."""

import json
import os
import struct
import zlib

import numpy as np
from PIL import Image

from piaa_utils.worlds import COCO_CLASSES, NUS_CLASSES

UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # numbers from 1 to 90 without a category
ID = dict(zip(COCO_CLASSES, sorted({*range(1, 91)} - UNUSED), strict=True))

SCENES = {  # three images of NUS-WIDE, the last without a concept
    r"actor\0001_2124494179.jpg": {"person", "sky"},
    r"actor\0002_174174086.jpg": {"zebra"},
    r"zoo\0003_2278589.jpg": set(),
}
NUS_IDS = [name.replace("\\", "/") for name in SCENES]


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


def names_of(world, row):
    return [world.class_names[c] for c in np.flatnonzero(world.labels[row])]


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
            of = {"image_id": number, "category_id": ID[name], "iscrowd": crowd}
            annotations.append({"id": len(annotations) + 1, "segmentation": segmentation, **of})
    categories = [{"id": number, "name": name} for name, number in reversed(ID.items())]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def write_nus_images(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)
    return root


def write_nus(root, scenes=SCENES, split="Test"):
    labels, lists = root / "Groundtruth/TrainTestLabels", root / "ImageList"
    labels.mkdir(parents=True, exist_ok=True)
    lists.mkdir(exist_ok=True)
    for concept in NUS_CLASSES:
        lines = [f"{int(concept in there)}\r\n" for there in scenes.values()]
        (labels / f"Labels_{concept}_{split}.txt").write_bytes("".join(lines).encode())
    (lists / f"{split}Imagelist.txt").write_bytes("".join(f"{n} \r\n" for n in scenes).encode())
    return root


def write_odd_pictures(folder, *names):
    """Files that end like pictures and cannot be read as such; empty ones of these names, too."""
    folder.mkdir()
    image = Image.fromarray(np.random.RandomState(0).randint(0, 255, (24, 32, 3), np.uint8))
    image.save(folder / "cut.png")
    head = b"IHDR" + struct.pack(">IIBBBBB", 13300, 13300, 8, 2, 0, 0, 0)
    large = b"\x89PNG\r\n\x1a\n\0\0\0\r" + head + struct.pack(">I", zlib.crc32(head))
    odd = {"cut.png": (folder / "cut.png").read_bytes()[:700], "large.png": large + b"\0\0\0\0IDAT"}
    odd["eps.jpg"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    for name, data in (odd | dict.fromkeys(names, b"")).items():
        (folder / name).write_bytes(data)
    Image.fromarray(np.float32([[-1, 70000]])).save(folder / "grey.tif")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "link.jpg").symlink_to("gone.jpg")
    os.mkfifo(folder / "pipe.jpg")
