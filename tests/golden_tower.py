"""The seeded CLIP, images and tokens behind golden/encoders.npz, rebuilt number by number.

The arrays of that file are outputs of the PIAA authors' released encoders (MIT licence) on these
weights and images, one image at a time, float32: `clip` [3, 64], `sclip`, `itaclip`, `scclip`
[3, 196, 64] before unit length, `tokens` [5, 16], `text` [5, 64].
"""

import warnings
from functools import cache
from math import log, prod
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent / "golden"
VISION = {"image_size": 224, "patch_size": 16, "layers": 12, "width": 128, "head_width": 64}
TEXT = {"context_length": 16, "vocab_size": 512, "width": 64, "heads": 1, "layers": 2}
SMALL = {"image_size": 32, "layers": 2}  # with VISION: the smallest tower
NORMS = ("ln_1", "ln_2", "ln_pre", "ln_post", "ln_final")


def seeded_weight(name: str, r: np.ndarray) -> np.ndarray:
    """Return a weight from standard normal numbers of its shape, by the first rule that fits."""
    if name == "logit_scale":
        return np.float32(log(100))
    if name.split(".")[-1] == "weight" and name.split(".")[-2] in NORMS:
        return 1 + 0.1 * r
    if name.endswith("bias"):
        return 0.02 * r
    if "conv1" in name:
        return r / np.sqrt(prod(r.shape[1:]))
    if r.ndim == 2:
        return r / np.sqrt(r.shape[1]) * (0.7 if "resblocks" in name else 1)
    return 0.1 * r


def seeded(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give a CLIP the seeded weights, drawn over its state dict in the order of the names."""
    random = np.random.RandomState(seed)
    state = model.state_dict()
    for name in sorted(state):
        r = np.asarray(random.standard_normal(tuple(state[name].shape)), dtype=np.float32)
        state[name] = torch.as_tensor(np.asarray(seeded_weight(name, r), dtype=np.float32))
    model.load_state_dict(state)
    return model


def small_clip(quick_gelu: bool = True, text: dict | None = None, seed: int = 0, **vision):
    """Return a seeded CLIP of the golden tower's shape, but for what is said otherwise."""
    vision, text = {**VISION, **vision}, {**TEXT, **(text or {})}
    return seeded(open_clip.CLIP(64, vision, text, quick_gelu=quick_gelu), seed)


@cache
def golden_clip() -> open_clip.CLIP:
    """Return the golden tower as an open_clip model."""
    return small_clip()


@cache
def golden_images() -> torch.Tensor:
    """Return the three golden images [3, 3, 224, 224], in normalised units."""
    return seeded_images(3, seed=1)


def seeded_images(count: int, seed: int, size: int = 224) -> torch.Tensor:
    """Return images of a coarse (7 x 7) and a fine (28 x 28) random pattern."""
    random = np.random.RandomState(seed)
    low, high = (
        random.standard_normal((count, 3, n, n))
        .astype(np.float32)
        .repeat(size // n, 2)
        .repeat(size // n, 3)
        for n in (7, 28)
    )
    return torch.from_numpy(low + np.float32(0.5) * high)


@cache
def golden_arrays() -> dict[str, np.ndarray]:
    """Return the arrays of golden/encoders.npz."""
    with np.load(GOLDEN / "encoders.npz") as arrays:
        return dict(arrays)


def relative_error(found: torch.Tensor, golden: np.ndarray) -> float:
    """Return the largest difference, as a fraction of the golden array's largest magnitude."""
    return float(np.abs(found.numpy() - golden).max() / np.abs(golden).max())


def save_torchscript(clip, path):
    """Write what OpenAI published: an archive of TorchScript, with three numbers as buffers."""
    tower = torch.nn.Module()
    for name, tensor in clip.state_dict().items():
        *folders, leaf = name.split(".")
        parent = tower
        for folder in folders:
            if not hasattr(parent, folder):
                parent.add_module(folder, torch.nn.Module())
            parent = getattr(parent, folder)
        parent.register_parameter(leaf, torch.nn.Parameter(tensor, requires_grad=False))
    for name in ("input_resolution", "context_length", "vocab_size"):
        tower.register_buffer(name, torch.tensor(7))
    tower.transformer.resblocks.get_submodule("0").attn_mask = torch.zeros(16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch is giving TorchScript up
        torch.jit.script(tower).save(str(path))


def write(clip, path):
    """Write a checkpoint in the format that the file's name asks for."""
    state = clip.state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.name == "torchscript.pt":
        save_torchscript(clip, path)
    elif path.name == "training.pt":
        state["logit_scale"] = state["logit_scale"].reshape(1)  # as some save it
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": wrapped}, path)
    else:
        torch.save(state, path)
    return path
