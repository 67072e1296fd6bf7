"""Make the two animations, each with a strip of its frames: beta.gif and bank.gif.

    python notebooks/figures/animate.py

beta: a patch finds its neighbours as SC-CLIP's threshold grows. bank: Stage I's bank fills as
pictures stream in. Both from the embedded model and pictures, so they are made anew with it.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from piaa_utils import plots
from piaa_utils.encoders import SCCLIP_MID, cosine_similarity, run_trunk
from piaa_utils.lessons import Config, features, follow
from piaa_utils.selection import PatchBank

FOLDER = Path(__file__).parent
BETAS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
PICTURES = (5, 15, 40, 100, 200, 400, 700, 1000)
CLASSES, TILES = ("dog", "bottle", "car"), 10
GOOD, BAD = "#029e73", "#d55e00"


def save(name: str, figures: list, strip: list[int], down: bool = False) -> None:
    """NAME.gif of all figures, NAME.png of some of them: side by side, or one below the other."""
    frames = [Image.open(io.BytesIO(plots.png_bytes(f))).convert("RGB") for f in figures]
    size = frames[0].size
    frames = [frame.resize(size).quantize(128) for frame in frames]
    durations = [900] * (len(frames) - 1) + [2500]
    options = {"save_all": True, "append_images": frames[1:], "loop": 0, "optimize": True}
    frames[0].save(FOLDER / f"{name}.gif", duration=durations, **options)
    across, below = (1, len(strip)) if down else (len(strip), 1)
    row = Image.new("RGB", (size[0] * across, size[1] * below), "white")
    for place, i in enumerate(strip):
        at = (0, size[1] * place) if down else (size[0] * place, 0)
        row.paste(frames[i].convert("RGB"), at)
    row.quantize(128).save(FOLDER / f"{name}.png", optimize=True)


def beta_frames(config: Config) -> list:
    """One patch of the scene's smallest object, and those as alike as beta asks for."""
    scene, backbone = follow(config), config.backbone_
    picture = config.split(scene.split)[scene.index]
    trunk = run_trunk(backbone, backbone.preprocess(picture)[None], ("scclip",))
    alike = cosine_similarity(trunk.hidden[SCCLIP_MID][:, 1:])[0].cpu().numpy()  # [N, N]
    truth = features(config, scene.split).truth[scene.index]
    g = backbone.grid
    mine = np.flatnonzero(truth == scene.classes[0])
    patch = mine[alike[np.ix_(mine, mine)].mean(1).argmax()]
    out = []
    for beta in BETAS:
        kept = (alike[patch] >= beta).reshape(g, g)
        figure, ax = plots.subplots(1, 1, size=(4.2, 4.7))
        title = f"β = {beta:.2f}: {kept.sum()} patches"
        plots.heat_map(ax, picture, kept.astype(float), 0, 1, None, title)
        row, column = divmod(int(patch), g)
        at = (column + 0.5) / g, (row + 0.5) / g
        ax.plot(*at, "o", markersize=15, mfc="none", mec="black", mew=5)
        ax.plot(*at, "o", markersize=15, mfc="none", mec="white", mew=2.5)
        figure.alt_text = title
        out.append(figure)
    return out


def bank_frames(config: Config) -> list:
    """The surest patches of three classes after more and more pictures of the unseen style."""
    part, data = features(config, "learn_unseen"), config.split("learn_unseen")
    bank, seen, out = PatchBank(len(config.text), k=TILES), 0, []
    for n in (p for p in PICTURES if p <= len(data)):
        x = part.patches["scclip"][seen:n]
        bank.update(x, config.text, range(seen, n))
        seen = n
        figure, axes = plots.subplots(len(CLASSES), TILES, size=(8.4, 3.6), squeeze=False)
        right = 0
        for line, name in zip(axes, CLASSES, strict=True):
            c = config.class_names.index(name)
            rows = np.flatnonzero(bank.labels.numpy() == c)
            line[0].set_ylabel(name)
            for ax in line:
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)  # an empty place has no frame
            for ax, r in zip(line, rows, strict=False):
                image, patch = int(bank.image_id[r]), int(bank.patch_index[r])
                good = part.truth[image, patch] == c
                right += good
                ax.imshow(crop(data[image], patch, config.backbone_.grid))
                for side in ax.spines.values():
                    side.set(color=GOOD if good else BAD, linewidth=4, visible=True)
        total = int(
            np.isin(bank.labels.numpy(), [config.class_names.index(c) for c in CLASSES]).sum()
        )
        figure.suptitle(f"{n} pictures: {right} of {total} patches show their class")
        figure.alt_text = f"The bank after {n} pictures."
        out.append(figure)
    return out


def crop(picture: Image.Image, patch: int, grid: int) -> Image.Image:
    """A patch with one patch around it."""
    side = picture.size[0] // grid
    row, column = divmod(patch, grid)
    x, y = (min(max(k - 1, 0), grid - 3) * side for k in (column, row))
    return picture.crop((x, y, x + 3 * side, y + 3 * side))


if __name__ == "__main__":
    config = Config()
    save("beta", beta_frames(config), [0, 3, 5, 7, 8])
    frames = bank_frames(config)
    save("bank", frames, [0, 3, len(frames) - 1], down=True)
