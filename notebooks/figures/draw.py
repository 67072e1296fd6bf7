"""Draw the series' diagrams: six SVG files of one style, each with words for who can't see them.

    python notebooks/figures/draw.py

Type is at least 22 units high in a width of 1200, so that it can be read from the back of a room.
"""

from html import escape
from pathlib import Path

import numpy as np

BLUE, ORANGE, GREEN, RED, GREY, INK = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#b5440b",
    "#8c8c8c",
    "#222222",
)
PALE = {BLUE: "#dcebf5", ORANGE: "#fbeed8", GREEN: "#d9f0e9", RED: "#f6e2d8", GREY: "#eeeeee"}


class Drawing:
    """SVG, one shape a call."""

    def __init__(self, height: int, title: str, words: str):
        self.height, self.title, self.words = height, title, words
        self.parts: list[str] = []

    def add(self, tag: str, inside: str = "", **attributes):
        named = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in attributes.items())
        self.parts.append(f"<{tag}{named}>{inside}</{tag}>")

    def text(self, x, y, words, size=24, colour=INK, anchor="middle", weight="normal"):
        for i, line in enumerate(words.split("\n")):
            self.add(
                "text",
                escape(line),
                x=x,
                y=y + i * size * 1.2,
                font_size=size,
                fill=colour,
                text_anchor=anchor,
                font_weight=weight,
            )

    def box(self, x, y, w, h, words="", colour=BLUE, size=24):
        self.add(
            "rect",
            x=x,
            y=y,
            width=w,
            height=h,
            rx=10,
            fill=PALE[colour],
            stroke=colour,
            stroke_width=2.5,
        )
        lines = words.count("\n") + 1
        self.text(x + w / 2, y + h / 2 + size * (0.36 - 0.6 * (lines - 1)), words, size)

    def arrow(self, *points, colour=INK, words="", at=None, dash=""):
        path = "M" + " L".join(f"{x},{y}" for x, y in points)
        self.add(
            "path",
            d=path,
            fill="none",
            stroke=colour,
            stroke_width=3,
            marker_end="url(#head)",
            stroke_dasharray=dash,
        )
        if words:
            self.text(*at, words, 22)

    def grid(self, x, y, n, side, fills, stroke="#ffffff"):
        for i in range(n * n):
            self.add(
                "rect",
                x=x + i % n * side,
                y=y + i // n * side,
                width=side,
                height=side,
                fill=fills.get(i, "#e6e6e6"),
                stroke=stroke,
                stroke_width=1.5,
            )

    def bars(self, x, y, values, width=20, height=80, colour=BLUE, strong=None):
        for i, v in enumerate(values):
            self.add(
                "rect",
                x=x + i * (width + 5),
                y=y - height * v,
                width=width,
                height=height * v,
                fill=colour if strong is None or i == strong else "#bdbdbd",
            )

    def save(self, name: str):
        head = (
            '<marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="5" '
            f'markerHeight="5" orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{INK}"/></marker>'
        )
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1200 {self.height}" '
            f'width="100%" style="max-width:1200px;background:#ffffff" role="img" '
            f'font-family="sans-serif" aria-label="{escape(self.title)}">\n'
            f"<title>{escape(self.title)}</title>\n"
            f"<desc>{escape(self.words)}</desc>\n<defs>{head}</defs>\n"
            f'<rect width="1200" height="{self.height}" fill="#ffffff"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )
        (Path(__file__).parent / f"{name}.svg").write_text(svg, encoding="utf-8")


def picture(d: Drawing, x, y, side=150):
    """A person, a dog and, small in a corner, a bottle: the picture of the series."""
    s = side / 7
    cells = dict.fromkeys((9, 10, 16, 17, 23, 24, 30, 31, 37, 38), BLUE)
    cells |= dict.fromkeys((26, 27, 32, 33, 34, 40, 41), ORANGE) | {5: GREEN}
    d.grid(x, y, 7, s, cells)


def two_towers():
    d = Drawing(
        560,
        "Two towers and the gap between them",
        "A picture goes through the frozen image tower and becomes one CLS token and many "
        "patch tokens; the sentence a photo of a dog goes through the frozen text tower and "
        "becomes one vector. Both land on one sphere, but in two narrow cones: image vectors "
        "in one, text vectors in the other. The distance between them is the modality gap.",
    )
    picture(d, 40, 50)
    d.box(250, 65, 200, 120, "image tower\n(frozen)")
    d.arrow((195, 125), (244, 125))
    d.arrow((450, 100), (540, 100))
    d.arrow((450, 155), (540, 155))
    d.box(546, 76, 130, 46, "[CLS]", RED)
    d.box(546, 134, 130, 46, "196 patches", BLUE, 22)
    d.text(120, 395, "“a photo of\na dog”", 26)
    d.box(250, 345, 200, 120, "text tower\n(frozen)", ORANGE)
    d.arrow((190, 405), (244, 405))
    d.arrow((450, 405), (540, 405))
    d.box(546, 382, 130, 46, "text t", ORANGE)
    d.add("circle", cx=950, cy=270, r=200, fill="#fafafa", stroke=GREY, stroke_width=2.5)
    for angle, spread, colour, label, place in (
        (-52, 17, BLUE, "images", (1115, 40)),
        (38, 13, ORANGE, "texts", (1150, 455)),
    ):
        a, b = (np.deg2rad(angle + s) for s in (-spread, spread))
        points = [(950 + 200 * np.cos(t), 270 + 200 * np.sin(t)) for t in np.linspace(a, b, 20)]
        path = "M950,270 L" + " L".join(f"{x:.0f},{y:.0f}" for x, y in points) + " Z"
        d.add("path", d=path, fill=PALE[colour], stroke=colour, stroke_width=2.5)
        rng = np.random.default_rng(1)
        for t in rng.uniform(a, b, 12):
            d.add(
                "circle",
                cx=f"{950 + 200 * np.cos(t):.0f}",
                cy=f"{270 + 200 * np.sin(t):.0f}",
                r=6,
                fill=colour,
            )
        d.text(*place, label, 26, colour, weight="bold")
    d.arrow((1098, 160), (1122, 350), colour=RED)
    d.text(930, 280, "modality gap", 24, RED, "end", "bold")
    d.arrow((680, 130), (760, 200), dash="8 6")
    d.arrow((680, 400), (760, 350), dash="8 6")
    d.text(950, 520, "one sphere of unit vectors", 24, GREY)
    d.save("two_towers")


def last_block():
    d = Drawing(
        640,
        "The last block, and what each encoder keeps of it",
        "The patches x that enter the last block become queries q, keys k and values v. "
        "Attention mixes the values, an output projection follows, x is added again (the "
        "residual), then the MLP. Vanilla CLIP mixes by q and k, keeps residual and MLP. "
        "MaskCLIP mixes nothing. ClearCLIP mixes by S(q) and keeps neither residual nor MLP. "
        "SCLIP mixes by S(q) + S(k). ITACLIP adds maps of earlier blocks and drops the MLP. "
        "SC-CLIP mixes by similarity in the middle of the tower and S(k), without residual "
        "and MLP.",
    )
    d.box(30, 60, 90, 70, "x", BLUE, 28)
    for i, letter in enumerate("qkv"):
        d.box(190, 20 + 60 * i, 70, 48, letter, ORANGE, 28)
        d.arrow((122, 95), (184, 44 + 60 * i))
    d.box(330, 30, 240, 130, "who looks at whom:\nan N × N map\ntimes v", GREEN)
    for i in range(3):
        d.arrow((262, 44 + 60 * i), (324, 70 + 25 * i))
    d.box(630, 60, 90, 70, "out", GREEN)
    d.arrow((572, 95), (624, 95))
    d.box(780, 60, 70, 70, "+", RED, 34)
    d.arrow((722, 95), (774, 95))
    d.arrow((75, 134), (75, 205), (815, 205), (815, 136), colour=RED)
    d.text(450, 198, "residual: x itself", 22, RED)
    d.box(910, 60, 110, 70, "+ MLP", RED)
    d.arrow((852, 95), (904, 95))
    d.arrow((1022, 95), (1075, 95))
    d.text(1130, 92, "patch\nembedding", 22)
    columns = (60, 330, 720, 900, 1050)
    rows = (
        ("", "who looks at whom", "", "residual", "MLP"),
        ("vanilla", "softmax(q·k / √d): everybody at a few", "", "yes", "yes"),
        ("MaskCLIP", "each patch at itself alone", "", "yes", "yes"),
        ("ClearCLIP", "S(q): those alike", "", "no", "no"),
        ("SCLIP", "S(q) + S(k)", "", "yes", "yes"),
        ("ITACLIP", "S(q) + S(k), also of blocks 7, 8, 10", "", "yes", "no"),
        ("SC-CLIP", "S(k) + likeness in block 9", "", "no", "no"),
    )
    for i, row in enumerate(rows):
        y = 270 + 52 * i
        if i % 2:
            d.add("rect", x=30, y=y - 34, width=1140, height=50, fill="#f4f4f4")
        for x, cell in zip(columns, row, strict=True):
            colour = {"yes": RED, "no": GREEN}.get(cell, INK)
            weight = "bold" if i == 0 or x == 60 else "normal"
            d.text(x, y, cell, 24, colour, "start", weight)
    d.text(600, 630, "S(a) = softmax(a·a / √d): who resembles whom", 24, GREY)
    d.save("last_block")


def sieve():
    d = Drawing(
        560,
        "Entropy selection is a sieve over all pictures",
        "Patches of many unlabelled pictures stream in. The text gives each patch "
        "probabilities of the classes. Flat probabilities, high entropy, fall through the "
        "sieve. Peaked ones, low entropy, stay: for each class the K surest patches of the "
        "whole set form the bank.",
    )
    for i in range(4):
        d.grid(
            40 + 14 * i,
            60 + 26 * i,
            7,
            17,
            {
                k: c
                for k, c in zip(
                    (8 + i, 9 + i, 15 + i, 30 - i, 31 - i),
                    (BLUE, BLUE, BLUE, ORANGE, ORANGE),
                    strict=True,
                )
            },
        )
    d.text(125, 310, "patches of all\npictures, no labels", 24)
    d.arrow((230, 150), (300, 150))
    d.box(306, 100, 240, 100, "text reads each:\np = softmax(60 x·t)", BLUE)
    d.arrow((548, 125), (630, 95))
    d.arrow((548, 175), (630, 305))
    d.bars(645, 120, (0.08, 1.0, 0.06, 0.05), 24, 80, GREEN, 1)
    d.text(700, 152, "peaked: low entropy", 22, GREEN)
    d.bars(645, 340, (0.45, 0.55, 0.5, 0.42), 24, 80, GREY)
    d.text(700, 372, "flat: high entropy", 22, GREY)
    d.arrow((700, 390), (700, 440), colour=GREY)
    d.text(700, 475, "falls through", 24, GREY)
    d.arrow((810, 95), (890, 95))
    for i, (name, colour) in enumerate((("dog", ORANGE), ("person", BLUE), ("bottle", GREEN))):
        y = 60 + 130 * i
        d.add(
            "rect",
            x=900,
            y=y,
            width=260,
            height=90,
            rx=10,
            fill="#ffffff",
            stroke=colour,
            stroke_width=2.5,
        )
        for k in range(18):
            d.add(
                "rect", x=912 + k % 9 * 27, y=y + 12 + k // 9 * 35, width=22, height=28, fill=colour
            )
        d.text(1030, y + 118, name, 24, colour, weight="bold")
    d.text(1030, 470, "the bank: the K surest\npatches of each class", 24)
    d.save("sieve")


def shared_covariance():
    d = Drawing(
        520,
        "A shared covariance turns circles into ellipses",
        "Left, three classes whose patches lie in long parallel ellipses are cut by the "
        "nearest mean, as if they were circles: many points fall on the wrong side. Right, one "
        "covariance shared by all classes gives the ellipses their shape, and the straight "
        "borders tilt to run between them.",
    )
    rng = np.random.default_rng(3)
    shape = np.array([[70.0, 0.0], [38.0, 22.0]])
    means = np.array([[150.0, 150.0], [320.0, 150.0], [250.0, 330.0]])
    for panel, x0 in enumerate((40, 640)):
        d.add(
            "rect", x=x0, y=50, width=520, height=400, fill="#fafafa", stroke=GREY, stroke_width=2
        )
        for m, colour in zip(means, (BLUE, ORANGE, GREEN), strict=True):
            for p in m + rng.standard_normal((26, 2)) @ shape.T * 0.62:
                x, y = np.clip(p, 6, (514, 394))
                d.add(
                    "circle", cx=f"{x0 + x:.0f}", cy=f"{50 + y:.0f}", r=5, fill=colour, opacity=0.75
                )
            t = np.linspace(0, 2 * np.pi, 60)
            ring = np.stack([np.cos(t), np.sin(t)])
            edge = (m[:, None] + (shape @ ring * 1.0 if panel else 62 * ring)).T
            d.add(
                "path",
                d="M" + " L".join(f"{x0 + x:.0f},{50 + y:.0f}" for x, y in edge) + " Z",
                fill="none",
                stroke=colour,
                stroke_width=4,
            )
            d.add("circle", cx=x0 + m[0], cy=50 + m[1], r=9, fill=INK)
        omega = np.linalg.inv(shape @ shape.T) if panel else np.eye(2)
        a, b = means[:2]
        normal, middle = omega @ (b - a), (a + b) / 2
        along = np.array([-normal[1], normal[0]])
        along = along / np.abs(along).max() * 400
        ends = [
            p
            for s in np.linspace(-1, 1, 801)
            if 0 <= (p := middle + s * along)[1] <= 215 and 0 <= p[0] <= 520
        ]
        (x1, y1), (x2, y2) = ends[0], ends[-1]
        d.add(
            "line",
            x1=x0 + x1,
            y1=50 + y1,
            x2=x0 + x2,
            y2=50 + y2,
            stroke=RED,
            stroke_width=4,
            stroke_dasharray="12 8",
        )
    d.text(300, 490, "nearest mean: every class a circle", 24)
    d.text(900, 490, "one shared Σ: the border (red) tilts", 24)
    d.save("shared_covariance")


def max_and_cls():
    d = Drawing(
        560,
        "The largest patch joined with CLS",
        "Each patch has a posterior over the classes. For each class the largest value over "
        "all patches counts: a bottle of one patch is enough. A softmax with scale m makes "
        "patch scores of it. CLS gives scores of its own, with scale s. Nine tenths of the "
        "first and one tenth of the second are the score.",
    )
    for i, (name, colour, cells) in enumerate(
        (
            ("person", BLUE, (9, 10, 16, 17, 23, 24, 30, 31, 37, 38)),
            ("dog", ORANGE, (26, 27, 32, 33, 34, 40, 41)),
            ("bottle", GREEN, (5,)),
        )
    ):
        d.grid(40 + 170 * i, 60, 7, 21, dict.fromkeys(cells, colour))
        d.text(113 + 170 * i, 40, name, 24, colour, weight="bold")
        d.arrow((113 + 170 * i, 212), (113 + 170 * i, 262))
        d.text(113 + 170 * i, 292, "max", 24)
    d.text(290, 345, "e: the largest posterior of each class", 24, GREY)
    d.arrow((555, 135), (620, 135))
    d.box(626, 90, 190, 90, "softmax(m e)", BLUE)
    d.arrow((818, 135), (905, 190), words="0.9", at=(880, 140))
    d.box(40, 420, 130, 70, "[CLS]", RED)
    d.arrow((172, 455), (300, 455))
    d.box(306, 410, 240, 90, "cos(CLS, t)\nof each class", RED)
    d.arrow((548, 455), (620, 455))
    d.box(626, 410, 190, 90, "softmax(s cos)", RED)
    d.arrow((818, 455), (905, 320), words="0.1", at=(885, 420))
    d.box(910, 180, 60, 150, "+", GREY, 34)
    d.arrow((972, 255), (1010, 255))
    d.bars(1025, 320, (0.9, 0.8, 0.6, 0.12, 0.08), 24, 150, GREY)
    for i, colour in enumerate((BLUE, ORANGE, GREEN)):
        d.add(
            "rect",
            x=1025 + 29 * i,
            y=320 - 150 * (0.9, 0.8, 0.6)[i],
            width=24,
            height=150 * (0.9, 0.8, 0.6)[i],
            fill=colour,
        )
    d.text(1095, 355, "score", 26)
    d.save("max_and_cls")


def whole_piaa():
    d = Drawing(
        600,
        "The whole of PIAA",
        "Above, learning: unlabelled pictures go through the frozen CLIP, an encoder gives "
        "patches that show themselves, entropy selects the surest of each class, Gaussian "
        "discriminant analysis makes a visual classifier W and b of them. Below, predicting: "
        "a new picture goes through the same CLIP and encoder, each patch is classified, the "
        "largest posterior of each class is joined with CLS into one score.",
    )
    d.text(40, 40, "learn, without labels", 24, GREY, "start", "bold")
    d.text(40, 580, "predict", 24, GREY, "start", "bold")
    for i in range(3):
        picture(d, 40 + 12 * i, 70 + 12 * i, 98)
    picture(d, 52, 420, 110)
    d.box(215, 70, 180, 470, "frozen CLIP:\nblocks 1 to 11,\nrun once", GREY)
    d.arrow((168, 135), (209, 135))
    d.arrow((165, 475), (209, 475))
    d.box(440, 70, 170, 330, "encoder:\nthe last block\nmade anew\n(02)", BLUE)
    d.arrow((397, 135), (434, 135))
    d.arrow((397, 350), (434, 350))
    d.box(660, 90, 190, 100, "entropy selection\n(03)", ORANGE, 22)
    d.box(905, 90, 240, 100, "Gaussian discriminant\nanalysis: W, b (04)", ORANGE, 22)
    d.arrow((612, 140), (654, 140))
    d.arrow((852, 140), (899, 140))
    d.box(660, 300, 190, 100, "x W + b\nfor each patch", GREEN, 22)
    d.arrow((612, 350), (654, 350))
    d.arrow(
        (1025, 192),
        (1025, 245),
        (755, 245),
        (755, 294),
        words="the visual classifier",
        at=(890, 237),
    )
    d.box(905, 300, 240, 100, "largest patch\nof each class (05)", GREEN, 22)
    d.arrow((852, 350), (899, 350))
    d.box(440, 450, 170, 80, "[CLS]", RED)
    d.arrow((397, 490), (434, 490))
    d.box(905, 450, 240, 80, "0.9 patches + 0.1 [CLS]", GREEN, 22)
    d.arrow((612, 490), (899, 490))
    d.arrow((1025, 402), (1025, 444))
    d.arrow((1025, 532), (1025, 562))
    d.text(1025, 590, "a score for each class", 24)
    d.save("whole_piaa")


if __name__ == "__main__":
    for draw in (two_towers, last_block, sieve, shared_covariance, max_and_cls, whole_piaa):
        draw()
