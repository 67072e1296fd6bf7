"""Draw every concept in every artist's style into one array of sprites.

Run once, by whoever rebuilds the data (users never need it):

    npm install --ignore-scripts emoji-datasource @lobehub/fluent-emoji-3d @iconify-json/noto \
        @iconify-json/twemoji @iconify-json/noto-v1 @iconify-json/openmoji @iconify-json/emojione \
        @iconify-json/fxemoji
    pip install resvg-py
    python data/build/art.py NODE_MODULES OUT

Writes ``OUT/sprites.npy`` (uint8 [M, 160, 160, 4], straight alpha, each trimmed and centred) and
``OUT/sprites.json`` (for each sprite: concept, variant, style).
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
from concepts import CATEGORIES, MERGED, PEOPLE, SKIN_TONES, SKIPPED, SKIPPED_SUBCATEGORIES
from PIL import Image

SIZE, MARGIN = 160, 4
# Shown in the shipped scenes. Fluent is the one that the mini-CLIP never sees in training.
SHIPPED_STYLES = ("noto", "twemoji", "fluent")
TRAINING_ONLY_STYLES = ("noto-v1", "openmoji", "emojione", "fxemoji")
TABLES = (  # dining table: (top, legs) colours and the things that stand on it
    ("#b5713a", "#7d4a21", ("1f37d", "1f377")),
    ("#d9a066", "#8f563b", ("1f37d", "1fad6")),
    ("#8d6748", "#5a3d28", ("1f355", "1f37d")),
)


def concept_code_points(emoji: list[dict]) -> dict[str, list[str]]:
    """{concept: [code point sequence, ...]} from emoji-datasource's list and our merges."""
    by_short_name = {e["short_name"]: e for e in emoji}
    concepts = {
        name: [by_short_name[s]["unified"].lower() for s in shorts.split()]
        for name, shorts in MERGED.items()
    }
    concepts["person"] = [f"{p}-{tone}" for p in PEOPLE for tone in SKIN_TONES]
    merged = {s for shorts in MERGED.values() for s in shorts.split()}
    for e in emoji:
        keep = e["category"] in CATEGORIES and e["subcategory"] not in SKIPPED_SUBCATEGORIES
        if keep and e["short_name"] not in merged | SKIPPED:
            concepts[e["short_name"]] = [e["unified"].lower()]  # renamed to the CLDR name below
    return concepts


class Style:
    """One artist's drawings, as RGBA images by code point."""

    def __init__(self, name: str, node_modules: Path, names: dict[str, str]):
        self.name, self.names = name, names
        if name == "fluent":
            self.folder = node_modules / "@lobehub/fluent-emoji-3d/assets"
        else:
            package = node_modules / "@iconify-json" / name
            data = json.loads((package / "icons.json").read_text())
            self.icons, self.aliases = data["icons"], data.get("aliases", {})
            self.width, self.height = data.get("width", 16), data.get("height", 16)
            chars = package / "chars.json"
            self.chars = json.loads(chars.read_text()) if chars.exists() else {}
            self.plain = {key.replace("-", ""): key for key in self.icons}

    def draw(self, code: str) -> Image.Image | None:
        """The drawing of one code point sequence, or None where the artist has none."""
        bare = code.replace("-fe0f", "")
        if self.name == "fluent":
            for candidate in (code, bare, bare + "-fe0f"):
                path = self.folder / f"{candidate}.webp"
                if path.exists():
                    return Image.open(path).convert("RGBA")
            return None
        key = self.chars.get(code) or self.chars.get(bare) or self.names.get(bare)
        if key is None:
            return None
        key = self.aliases[key]["parent"] if key in self.aliases else key
        key = key if key in self.icons else self.plain.get(key.replace("-", ""))
        return self._render(self.icons[key]) if key else None

    def _render(self, icon: dict) -> Image.Image:
        import resvg_py

        width, height = icon.get("width", self.width), icon.get("height", self.height)
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}" width="{2 * SIZE}" height="{2 * SIZE}">{icon["body"]}</svg>'
        )
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
        return Image.open(io.BytesIO(png)).convert("RGBA")

    def lay_table(self, top: str, legs: str, things: tuple[str, ...]) -> Image.Image:
        """A table of ours with this artist's plate, glass or food on it."""
        import resvg_py

        round_top = "1f377" not in things
        shape = (
            f'<ellipse cx="160" cy="180" rx="150" ry="48" fill="{top}"/>'
            f'<path d="M10 180a150 48 0 0 0 300 0v12a150 48 0 0 1-300 0z" fill="{legs}"/>'
            f'<rect x="145" y="225" width="30" height="75" fill="{legs}"/>'
            f'<rect x="95" y="290" width="130" height="16" rx="8" fill="{legs}"/>'
            if round_top
            else f'<path d="M60 140h200l50 75H10z" fill="{top}"/>'
            f'<rect x="10" y="215" width="300" height="16" fill="{legs}"/>'
            f'<rect x="22" y="231" width="20" height="80" fill="{legs}"/>'
            f'<rect x="278" y="231" width="20" height="80" fill="{legs}"/>'
        )
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="320" height="320">{shape}</svg>'
        table = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
        for i, code in enumerate(things):
            thing = self.draw(code)
            if thing is None:  # an older set
                continue
            flat = code in ("1f37d", "1f355")
            thing = fit(thing, 130).resize((130, 60) if flat else (100, 100))
            at = (45 + 130 * i, 150) if flat else (60 + 130 * i, 95)
            table.alpha_composite(thing, at)
        return table


def fit(image: Image.Image, size: int, margin: int = 0) -> Image.Image:
    """Trim to what is drawn, then centre in a square of `size` with `margin` pixels around."""
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    scale = (size - 2 * margin) / max(image.size)
    shape = tuple(max(1, round(s * scale)) for s in image.size)
    # resize with premultiplied colours, so that no dark rim appears
    image = image.convert("RGBa").resize(shape, Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (size, size))
    square.paste(image, tuple((size - s) // 2 for s in shape))
    return square


def main(node_modules: Path, out: Path) -> None:
    emoji = json.loads((node_modules / "emoji-datasource/emoji.json").read_text())
    noto = json.loads((node_modules / "@iconify-json/noto/chars.json").read_text())
    concepts = concept_code_points(emoji)
    sprites, index = [], []
    for name in SHIPPED_STYLES + TRAINING_ONLY_STYLES:
        style = Style(name, node_modules, noto)
        for concept, codes in concepts.items():
            single = concept not in MERGED
            title = noto.get(codes[0].replace("-fe0f", ""), concept) if single else concept
            drawings = [style.draw(code) for code in codes]
            if concept == "dining table":
                drawings = [style.lay_table(*table) for table in TABLES if style.draw("1f37d")]
            for variant, drawing in enumerate(drawings):
                if drawing is not None:
                    sprites.append(np.asarray(fit(drawing, SIZE, MARGIN)))
                    entry = {"concept": title.replace("-", " "), "variant": variant, "style": name}
                    index.append(entry)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "sprites.npy", np.stack(sprites))
    (out / "sprites.json").write_text(json.dumps(index))
    styles = {s: sum(e["style"] == s for e in index) for s in SHIPPED_STYLES + TRAINING_ONLY_STYLES}
    print(f"{len(sprites)} sprites of {len({e['concept'] for e in index})} concepts: {styles}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
