"""Render the mini scenes and store them in VOC's layout: pictures, annotations, sets and masks.

    python data/build/render.py ART data/mini_scenes

Each split has its own seed. Masks name the class of every pixel: 0 background, i + 1 the i-th class
of ``labels.txt``, and one number more for objects of no listed class.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import seaborn as sns
from concepts import LISTED, VOC
from PIL import Image
from scenes import MIN_VISIBLE, Art, SceneMaker

SIZE = 224
DIFFICULT = 100  # visible pixels under which an object is marked "difficult"
SIZES = (0.15, 0.95)  # of objects, as a share of the picture's side
SEEN, UNSEEN = ("noto", "twemoji"), ("fluent",)
SPLITS = {  # name: (pictures, styles, seed)
    "learn": (1200, SEEN, 101),
    "learn_unseen": (1000, UNSEEN, 102),
    "val": (150, SEEN, 103),
    "val_unseen": (150, UNSEEN, 104),
    "test": (600, SEEN, 105),
    "test_unseen": (600, UNSEEN, 106),
}
OBJECTS = ((1, 3), (4, 6), (5, 6), (5, 6), (5, 6))  # of five pictures one shows but few objects


def annotation(picture: str, concepts: list[str], slots: list[tuple[int, np.ndarray]]) -> str:
    """PASCAL VOC's XML: one <object> with its visible box for each labelled object."""
    root = ET.Element("annotation")
    ET.SubElement(root, "filename").text = f"{picture}.jpg"
    size = ET.SubElement(root, "size")
    for key, value in (("width", SIZE), ("height", SIZE), ("depth", 3)):
        ET.SubElement(size, key).text = str(value)
    for concept, seen in slots:
        ys, xs = np.nonzero(seen)
        thing = ET.SubElement(root, "object")
        name = concepts[concept]
        ET.SubElement(thing, "name").text = name if name in LISTED else "other"
        ET.SubElement(thing, "difficult").text = str(int(seen.sum() < DIFFICULT))
        box = ET.SubElement(thing, "bndbox")
        edges = (xs.min() + 1, ys.min() + 1, xs.max() + 1, ys.max() + 1)
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True):
            ET.SubElement(box, key).text = str(value)
    ET.indent(root, " ")
    return ET.tostring(root, encoding="unicode") + "\n"


def palette() -> list[int]:
    colours = np.array(sns.husl_palette(len(LISTED) + 1)) * 255
    rng = np.random.default_rng(0)
    return [0, 0, 0] + rng.permutation(colours).astype(int).flatten().tolist()


def render(art: Art, split: str, root: Path) -> float:
    """Render one split; returns the mean number of VOC labels a picture."""
    count, styles, seed = SPLITS[split]
    rng = np.random.default_rng(seed)
    weights = np.array([3.0 if c in VOC else 1.0 if c in LISTED else 0.2 for c in art.concepts])
    makers = [SceneMaker(art, rng, styles, weights, 0.95, n, SIZES, 0.4, 5.0) for n in OBJECTS]
    names, present = [], []
    for start in range(0, count, 50):
        for part, maker in enumerate(makers):
            scenes = maker.make(10, SIZE)
            for b in range(10):
                name = f"{split}_{start + 10 * part + b + 1:05d}"
                names.append(name)
                owner, pixels = scenes.owner[b].numpy(), scenes.images[b].permute(1, 2, 0).numpy()
                image = Image.fromarray((255 * pixels).round().astype(np.uint8))
                image.save(root / "JPEGImages" / f"{name}.jpg", quality=72, optimize=True)
                mask, slots = np.zeros_like(owner), []
                for k, concept in enumerate(scenes.concept[b]):
                    seen = owner == k + 1
                    if concept < 0 or seen.sum() < MIN_VISIBLE:
                        continue
                    word = art.concepts[concept]
                    mask[seen] = 1 + (LISTED.index(word) if word in LISTED else len(LISTED))
                    slots.append((concept, seen))
                png = Image.fromarray(mask, mode="P")
                png.putpalette(palette())
                png.save(root / "SegmentationClass" / f"{name}.png", optimize=True)
                xml = annotation(name, art.concepts, slots)
                (root / "Annotations" / f"{name}.xml").write_text(xml)
                clear = {art.concepts[c] for c, seen in slots if seen.sum() >= DIFFICULT}
                present.append(len(clear & set(VOC)))
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return float(np.mean(present))


def main(art_folder: Path, root: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "labels.txt").write_text("\n".join([*LISTED, "other"]) + "\n")
    art = Art.load(art_folder)
    for split in SPLITS:
        print(split, f"{render(art, split, root):.2f} labels of VOC a picture", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
