"""Compose scenes from sprites: pictures, labels, pixel masks and captions.

Everything is drawn from one ``numpy.random.Generator``, so a seed gives the same scenes. Objects
are pasted largest first; the owner map says for each pixel which object is seen there.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from concepts import SYNONYMS, VOC

# What goes together, and the ground it stands on: (top, bottom) colours of the background.
THEMES = {
    "street": (
        "car, bus, bicycle, motorbike, person, truck, traffic light, dog, taxi, stop sign, "
        "handbag, backpack, umbrella, bird, tree",
        ((150, 200, 240), (120, 120, 125)),
    ),
    "farm": (
        "cow, sheep, horse, person, dog, cat, tree, chicken, tractor, bird, pig, apple",
        ((150, 205, 250), (110, 175, 80)),
    ),
    "living room": (
        "sofa, chair, tv monitor, potted plant, cat, dog, person, book, clock, teddy bear, "
        "laptop, bottle, guitar",
        ((235, 215, 185), (160, 110, 70)),
    ),
    "kitchen": (
        "dining table, chair, bottle, person, cup, wine glass, pizza, cake, banana, apple, "
        "knife, spoon, bowl, sandwich, orange, cat, potted plant",
        ((240, 235, 220), (190, 170, 150)),
    ),
    "sky": (
        "aeroplane, bird, kite, helicopter, balloon, person, rocket, parachute, boat",
        ((90, 160, 240), (200, 230, 255)),
    ),
    "water": (
        "boat, bird, person, fish, dolphin, duck, dog, ship, whale, bottle",
        ((170, 220, 250), (30, 100, 180)),
    ),
    "station": (
        "train, person, suitcase, bus, backpack, clock, bicycle, mobile phone, handbag, chair, "
        "newspaper",
        ((190, 200, 210), (90, 90, 100)),
    ),
    "office": (
        "chair, tv monitor, laptop, keyboard, computer mouse, potted plant, book, cup, scissors, "
        "pencil, person, mobile phone, tie, printer",
        ((225, 232, 238), (170, 165, 160)),
    ),
    "park": (
        "person, dog, bicycle, bird, horse, tree, football, kite, skateboard, flower, bottle, "
        "tennis racket, cat, sunglasses",
        ((160, 215, 255), (130, 190, 90)),
    ),
}
# What stands behind the objects: a theme's ground, or a colour.
COLOURS = {
    "red": (200, 40, 40),
    "orange": (240, 140, 40),
    "yellow": (235, 220, 70),
    "green": (70, 170, 70),
    "turquoise": (70, 200, 190),
    "blue": (60, 100, 210),
    "purple": (140, 70, 190),
    "pink": (235, 130, 180),
    "brown": (130, 85, 50),
    "black": (35, 35, 35),
    "grey": (130, 130, 130),
    "white": (235, 235, 235),
}
GROUNDS = [*THEMES, *(f"{colour} background" for colour in [*COLOURS, "colourful"])]
MAX_OBJECTS = 6
LEVELS = (160, 80, 40, 20)  # the sprites' sizes in pixels, each half of the one before
MIN_VISIBLE = 25  # pixels at 224 px; an object seen less is not labelled
TEMPLATES = (
    "a photo of a {}",
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "a {}",
    "there is a {}",
    "a scene with a {}",
    "a drawing of a {}",
)


@dataclass
class Art:
    """Sprites with their concepts; `levels[i]` is uint8 [M, 4, s, s], premultiplied."""

    levels: list[torch.Tensor]
    concepts: list[str]  # names, sorted; index = concept id
    of_sprite: np.ndarray  # concept id of each sprite
    styles: np.ndarray  # style name of each sprite

    @classmethod
    def load(cls, folder: Path) -> "Art":
        index = json.loads((Path(folder) / "sprites.json").read_text())
        sprites = torch.from_numpy(np.load(Path(folder) / "sprites.npy")).permute(0, 3, 1, 2)
        levels = []
        for size in LEVELS:
            out = torch.empty(len(sprites), 4, size, size, dtype=torch.uint8)
            for i in range(0, len(sprites), 256):
                x = sprites[i : i + 256].float()
                x[:, :3] *= x[:, 3:] / 255
                out[i : i + 256] = F.adaptive_avg_pool2d(x, size).round().byte()
            levels.append(out)
        concepts = sorted({e["concept"] for e in index})
        of_sprite = np.array([concepts.index(e["concept"]) for e in index])
        return cls(levels, concepts, of_sprite, np.array([e["style"] for e in index]))


@dataclass
class Scenes:
    """A batch of B rendered scenes with K object slots."""

    images: torch.Tensor  # float [B, 3, S, S] in 0..1
    owner: torch.Tensor  # uint8 [B, S, S]: 0 background, k+1 where object k is seen
    concept: np.ndarray  # int [B, K]: concept id, -1 for an empty slot
    visible: np.ndarray  # int [B, K]: pixels of each object that are seen
    ground: np.ndarray  # int [B]: which of GROUNDS is behind them


class SceneMaker:
    """Draws layouts and renders them.

    Parameters: `styles` to draw from; `weights` of each concept outside themes; `themed`, the share
    of scenes whose objects go together; `objects` (fewest, most); `sizes` (smallest, largest object
    as a share of the picture's side); `strong`, the strength of colour and shape changes, 0 to 1;
    `voc`, how many times likelier VOC's classes are than the other things of a theme; `empty`, the
    share of scenes without an object.
    """

    def __init__(
        self, art, rng, styles, weights, themed, objects, sizes, strong=1.0, voc=3.0, empty=0.0
    ):
        self.art, self.rng, self.themed, self.empty = art, rng, themed, empty
        self.objects, self.sizes, self.strong = objects, sizes, strong
        allowed = np.isin(art.styles, styles)
        self.sprites_of = [
            np.flatnonzero(allowed & (art.of_sprite == c)) for c in range(len(art.concepts))
        ]
        weights = np.array(weights, float) * [len(s) > 0 for s in self.sprites_of]
        self.weights = weights / weights.sum()
        self.theme_ids = []
        for names, _ in THEMES.values():
            ids = [art.concepts.index(w) for w in names.split(", ")]
            share = np.array([voc if art.concepts[i] in VOC else 1.0 for i in ids])
            self.theme_ids.append((np.array(ids), share / share.sum()))

    def make(self, n: int, size: int) -> Scenes:
        """`n` scenes of `size` x `size` pixels."""
        theme = np.where(
            self.rng.random(n) < self.themed, self.rng.integers(len(THEMES), size=n), -1
        )
        concept = self._concepts(theme)
        layout = self._layout(concept)
        images, ground = self._backgrounds(theme, size)
        owner = torch.zeros(n, size, size, dtype=torch.uint8)
        self._paste(images, owner, concept, layout, size)
        visible = np.stack([(owner == k + 1).flatten(1).sum(1).numpy() for k in range(MAX_OBJECTS)])
        return Scenes(images.clamp_(0, 1), owner, concept, visible.T, ground)

    def _concepts(self, theme):
        n, rng = len(theme), self.rng
        concept = rng.choice(len(self.weights), size=(n, MAX_OBJECTS), p=self.weights)
        for t, (ids, share) in enumerate(self.theme_ids):
            rows = np.flatnonzero(theme == t)
            themed = rng.choice(ids, size=(len(rows), MAX_OBJECTS), p=share)
            keep = rng.random(themed.shape) < 0.85
            concept[rows] = np.where(keep, themed, concept[rows])
        count = rng.integers(self.objects[0], self.objects[1] + 1, size=n)
        count[rng.random(n) < self.empty] = 0
        return np.where(np.arange(MAX_OBJECTS) < count[:, None], concept, -1)

    def _layout(self, concept):
        """Sizes (largest first) and centres, as shares of the picture's side."""
        (n, slots), rng = concept.shape, self.rng
        low, high = np.log(self.sizes)
        size = np.exp(rng.uniform(low, high, (n, slots))) * (concept >= 0)
        crowd = np.sqrt((size**2).sum(1, keepdims=True) / 1.4)
        size = -np.sort(-np.maximum(size / np.maximum(crowd, 1), (concept >= 0) * self.sizes[0]))
        centre = np.zeros((n, slots, 2))
        for k in range(slots):  # of 12 places take the one with the least overlap
            half = size[:, k, None, None] * 0.42
            places = half + rng.random((n, 12, 2)) * (1 - 2 * half)
            gap = np.linalg.norm(places[:, :, None] - centre[:, None, :k], axis=-1)
            reach = 0.42 * (size[:, None, :k] + size[:, k, None, None])
            overlap = np.maximum(reach - gap, 0).sum(-1)
            centre[:, k] = places[np.arange(n), overlap.argmin(1)]
        return size, centre

    def _backgrounds(self, theme, size):
        """Gradients, horizons or smooth colour noise, plus pixel noise; and what they are called.

        Returns [n, 3, size, size] and int [n], indices into GROUNDS.
        """
        n, rng = len(theme), self.rng
        colours = rng.random((n, 2, 3)) ** 0.8
        for t, (_, ground) in enumerate(THEMES.values()):
            rows = theme == t
            colours[rows] = np.array(ground) / 255 + rng.normal(0, 0.07, (rows.sum(), 2, 3))
        kind = rng.integers(3, size=n)
        kind = np.where((theme >= 0) & (kind == 2), 1, kind)
        angle = np.where(theme >= 0, rng.normal(0, 0.1, n), rng.uniform(0, 2 * np.pi, n))
        y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
        ramp = y * np.cos(angle)[:, None, None] + x * np.sin(angle)[:, None, None]
        horizon = rng.uniform(-0.2, 0.2, n)[:, None, None]
        sharp = np.where(kind == 1, rng.uniform(20, 200, n), 1.0)[:, None, None]
        mix = np.clip(
            (ramp - np.where(kind == 1, 1, 0)[:, None, None] * horizon) * sharp + 0.5, 0, 1
        )
        mix = torch.from_numpy(mix).float()[:, None]
        low, high = torch.from_numpy(colours).float().unbind(1)
        image = low[..., None, None] * (1 - mix) + high[..., None, None] * mix
        coarse = torch.from_numpy(rng.random((n, 3, 5, 5))).float()
        smooth = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
        share = torch.from_numpy(np.where(kind == 2, 0.8, rng.uniform(0, 0.2, n))).float()
        image = image + share.view(-1, 1, 1, 1) * (smooth - image)
        grain = torch.from_numpy(rng.standard_normal((n, 1, size, size), dtype=np.float32))
        level = np.where(rng.random(n) < 0.3, rng.uniform(0, 0.06, n), 0.0)
        image = image + grain * torch.from_numpy(level).float().view(-1, 1, 1, 1)
        named = np.array(list(COLOURS.values())) / 255
        nearest = np.linalg.norm(colours[:, 1, None] - named, axis=-1).argmin(1)
        nearest[kind == 2] = len(COLOURS)
        return image, np.where(theme >= 0, theme, len(THEMES) + nearest)

    def _paste(self, images, owner, concept, layout, size):
        rng, strong = self.rng, self.strong
        scene, slot = np.nonzero(concept >= 0)  # in order of slots within a scene: largest first
        m = len(scene)
        sprite = np.array([rng.choice(self.sprites_of[c]) for c in concept[scene, slot]])
        side = layout[0][scene, slot] * size
        centre = layout[1][scene, slot] * size
        angle = np.deg2rad(rng.uniform(-20, 20, m)) * strong
        flip = rng.choice([-1.0, 1.0], m)
        stretch = np.exp(rng.normal(0, 0.1, m) * strong)
        shear = rng.normal(0, 0.1, m) * strong
        colour = self._colour_changes(m)
        box = (np.ceil(side * 1.25 / 16) * 16).astype(int)  # room for turns, in few sizes
        corner = np.round(centre - box[:, None] / 2).astype(int)
        scale = box / side
        theta = np.zeros((m, 2, 3))  # from the box to the sprite
        cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
        theta[:, 0, 0], theta[:, 0, 1] = flip * cos * stretch, flip * (sin + shear * scale)
        theta[:, 1, 0], theta[:, 1, 1] = -sin, cos / stretch
        theta = torch.from_numpy(theta).float()
        drawn = [None] * m
        for b in np.unique(box):
            rows = np.flatnonzero(box == b)
            level = max(i for i, s in enumerate(LEVELS) if s >= min(0.7 * b, LEVELS[0]))
            pixels = self.art.levels[level][sprite[rows]].float() / 255
            grid = F.affine_grid(theta[rows], [len(rows), 4, int(b), int(b)], align_corners=False)
            pixels = F.grid_sample(pixels, grid, align_corners=False)
            pixels = recolour(pixels, {k: v[rows] for k, v in colour.items()})
            for r, p in zip(rows, pixels, strict=True):
                drawn[r] = p
        for i in range(m):
            (x, y), b = corner[i], box[i]
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + b, size), min(y + b, size)
            if x1 <= x0 or y1 <= y0:
                continue
            p = drawn[i][:, y0 - y : y1 - y, x0 - x : x1 - x]
            target = images[scene[i], :, y0:y1, x0:x1]
            target.mul_(1 - p[3]).add_(p[:3])
            owner[scene[i], y0:y1, x0:x1][p[3] > 0.5] = int(slot[i]) + 1

    def _colour_changes(self, m):
        rng, strong = self.rng, self.strong
        changes = {
            "gain": np.exp(rng.normal(0, 0.15, (m, 1)) * strong),
            "offset": rng.normal(0, 0.08, (m, 1)) * strong,
            "saturation": np.exp(rng.normal(0, 0.3, (m, 1)) * strong)
            * (rng.random((m, 1)) > 0.06 * strong),
            "hue": rng.normal(0, 0.25, (m, 1)) * strong,
            "light": rng.normal(0, 0.2, (m, 2)) * strong,
        }
        return {k: torch.from_numpy(v).float() for k, v in changes.items()}


def recolour(pixels: torch.Tensor, change: dict) -> torch.Tensor:
    """Change hue, saturation, brightness, contrast and light of premultiplied [n, 4, h, w]."""
    red, green, blue, alpha = pixels.unbind(1)
    grey = 0.3 * red + 0.59 * green + 0.11 * blue
    u, v = blue - grey, red - grey
    turn = change["hue"].unsqueeze(-1)
    s = change["saturation"].unsqueeze(-1)
    u, v = s * (u * turn.cos() - v * turn.sin()), s * (u * turn.sin() + v * turn.cos())
    ramp = torch.linspace(-1, 1, pixels.shape[-1])
    light = change["light"]
    shade = 1 + light[:, :1, None] * ramp + light[:, 1:, None] * ramp[:, None]
    gain, offset = change["gain"].unsqueeze(-1), change["offset"].unsqueeze(-1) * alpha
    rgb = torch.stack([grey + v, grey - 0.51 * v - 0.19 * u, grey + u], 1)
    rgb = rgb * (gain * shade).unsqueeze(1) + offset.unsqueeze(1)
    return torch.cat([torch.minimum(rgb.clamp_(min=0), alpha[:, None]), alpha[:, None]], 1)


def captions(
    scenes: Scenes, art: Art, rng, size: int, grounds: float = 0.0
) -> tuple[list[str], np.ndarray]:
    """What a person would say: the biggest thing, the second with probability 1/2, others seldom.

    The ground is added with probability `grounds`, and is all there is to say of an empty scene.
    Returns the captions and the bool matrix [B, concepts + grounds] of what each names.
    """
    least = MIN_VISIBLE * (size / 224) ** 2
    named = np.zeros((len(scenes.concept), len(art.concepts) + len(GROUNDS)), bool)
    texts = []
    for b, (ids, seen) in enumerate(zip(scenes.concept, scenes.visible, strict=True)):
        order = [k for k in np.argsort(-seen) if ids[k] >= 0 and seen[k] >= least]
        chosen = [
            k for i, k in enumerate(order) if i == 0 or rng.random() < (0.5 if i == 1 else 0.12)
        ]
        names = list(dict.fromkeys(art.concepts[ids[k]] for k in chosen))
        named[b, [art.concepts.index(n) for n in names]] = True
        spoken = [
            str(rng.choice(SYNONYMS[n])) if n in SYNONYMS and rng.random() < 0.35 else n
            for n in names
        ]
        text = " and a ".join(spoken)
        if not text or rng.random() < grounds:
            ground = GROUNDS[scenes.ground[b]]
            named[b, len(art.concepts) + scenes.ground[b]] = True
            text = f"{text} on a {ground}" if text else ground
        texts.append(str(rng.choice(TEMPLATES)).format(text))
    return texts, named


def labels(scenes: Scenes, art: Art, size: int) -> np.ndarray:
    """Bool [B, concepts + grounds]: what is seen in each scene."""
    least = MIN_VISIBLE * (size / 224) ** 2
    out = np.zeros((len(scenes.concept), len(art.concepts) + len(GROUNDS)), bool)
    rows, slots = np.nonzero((scenes.concept >= 0) & (scenes.visible >= least))
    out[rows, scenes.concept[rows, slots]] = True
    out[np.arange(len(out)), len(art.concepts) + scenes.ground] = True
    return out
