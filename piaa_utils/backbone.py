"""The backbone: a frozen CLIP whose image tower is a plain ViT, for PIAA needs its patch tokens.

It must compute the activation that its weights were trained with: QuickGELU for OpenAI's. GELU in
its place runs without a murmur and gives wrong features.
"""

import copy
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import LayerScale, QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from piaa_utils.checkpoint import is_torchscript, load_weights
from piaa_utils.files import data_dir, printable
from piaa_utils.settings import TEMPLATES, Calibration, Scales
from piaa_utils.vocabulary import Vocabulary

MINI = "mini"  # the mini-CLIP in data/mini_clip
CLIP_VOCABULARY = 49408  # tokens of CLIP's byte-pair encoding
PRECISIONS = ("fp32", "amp")


class Backbone:
    """A frozen CLIP and what the method asks of it. Made by :func:`load_backbone`.

    model : the open_clip model; evaluation mode, float32, no gradients.
    name : "mini", or architecture/weights, such as "ViT-B-16-quickgelu/openai".
    image_size, grid : S, side of the image in pixels; g, patches along it; N = g * g patches.
    depth, width, dim : L blocks of the image tower; D_v channels of its tokens; D of embeddings.
    preprocess : PIL image -> float tensor [3, S, S]: short side to S (bicubic), centre crop,
        RGB in [0, 1], then minus ``mean``, over ``std`` (3 numbers each).
    tokenizer : list of strings -> tokens [n, context], or None for a vocabulary not CLIP's.
    calibration, scales : SC-CLIP's sizes and PAA's scales for this tower, or else the paper's.
    """

    def __init__(self, model: open_clip.CLIP, name: str, tokenizer, device, precision, constants):
        self.quick_gelu = computes_quick_gelu(model, name)
        self.device, self.precision = torch.device(device), precision
        self.model = model.to(self.device).float().eval().requires_grad_(False)
        self.name, self.tokenizer, self.constants = name, tokenizer, constants
        self.calibration = Calibration(**constants.get("scclip", {}))
        own = constants.get("scales")
        self.scales = (
            Scales(**own, source=f"chosen for {name.partition('@')[0]}") if own else Scales()
        )
        visual = model.visual
        self.image_size, self.grid = visual.image_size[0], visual.grid_size[0]
        self.blocks: Sequence[ResidualAttentionBlock] = visual.transformer.resblocks
        self.depth, (self.width, self.dim) = len(self.blocks), visual.proj.shape
        own_looks = open_clip.get_model_preprocess_cfg(model)
        looks = PreprocessCfg(**own_looks | {"size": self.image_size})
        self.mean, self.std = list(looks.mean), list(looks.std)
        self.preprocess = image_transform_v2(looks, is_train=False)

    def autocast(self, enabled: bool = True) -> AbstractContextManager:
        """Products in float16 where ``precision`` is "amp"; inside, False brings float32 back."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.float16, enabled)

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 (hex) over the names in order and the float32 bytes of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.float().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """What must agree for features to be the same."""
        names = ("name", "weights_hash", "quick_gelu", "image_size", "mean", "std")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def encode_text(
        self, words: Vocabulary | Sequence[str], templates: Sequence[str] = TEMPLATES
    ) -> Tensor:
        """The text embeddings t_c: [C + B, D], unit rows, in the order of the vocabulary's names.

        Of several prompts of a name: the mean of their unit embeddings, brought to unit length.
        Words that a vocabulary or CLIP cannot tell apart or read whole are a ValueError.
        """
        if not isinstance(words, Vocabulary):
            words = Vocabulary(words, templates=templates)
        if self.tokenizer is None:
            wanted = "set backbone.tokenizer, a function from a list of strings to tokens"
            raise ValueError(f"{self.name} has another vocabulary than CLIP's: {wanted}.")
        prompts = sum(of_each := words.prompts(), [])
        check_lengths(prompts, self.tokenizer)
        tokens = self.tokenizer(prompts).to(self.device)
        text = torch.cat([self.model.encode_text(part) for part in tokens.split(256)])
        parts = F.normalize(text, dim=-1).split([len(each) for each in of_each])
        text = F.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)
        check_distinct(text.cpu(), words.names)
        return text


def load_backbone(
    model: str | Path | open_clip.CLIP = MINI,
    pretrained: str | Path | None = None,
    device: str | torch.device | None = None,
    image_size: int | None = None,
    precision: str = "fp32",
) -> Backbone:
    """Load a CLIP with a plain-ViT image tower.

    model : "mini", the CLIP embedded in this repository; the name of an open_clip architecture,
        such as "ViT-B-16-quickgelu"; a folder (Path) laid out as data/mini_clip; or an open_clip
        model that you built (it is copied).
    pretrained : a tag of open_clip such as "openai" (downloaded once), or a checkpoint file, in
        which nothing is run: OpenAI's TorchScript ``.pt``, a state dict, ``.safetensors``. None for
        what has its weights: "mini", a folder, your own model.
    device : None takes CUDA or MPS where there is one, else the CPU.
    image_size : None, or another multiple of the patch size (positions are interpolated, bicubic).
    precision : "fp32", or "amp", PyTorch's automatic mixed precision (float16), for GPUs; text
        features and scclip's comparisons stay float32, and all come out as float32.

    What will not do is a ValueError, no file a FileNotFoundError, no download a ConnectionError.

    >>> backbone = load_backbone("mini", device="cpu")
    >>> backbone.grid, backbone.depth, backbone.width, backbone.dim, backbone.quick_gelu
    (14, 12, 128, 128, True)
    """
    device = check_device(device or best_device(), precision)
    constants: dict[str, Any] = {}
    if model == MINI or isinstance(model, Path):
        clip, name, constants = embedded_clip(model, pretrained)
    elif isinstance(model, str):
        clip, name = named_clip(model.replace("/", "-"), pretrained)
    else:
        clip, name = own_clip(model, pretrained)
    check_plain_vit(clip.visual, name)
    if image_size not in (None, clip.visual.image_size[0]):
        resize_positions(clip, image_size)
        name = f"{name}@{image_size}"
    return Backbone(clip, name, tokenizer(clip, model), device, precision, constants)


def embedded_clip(model: str | Path, pretrained: Any) -> tuple[open_clip.CLIP, str, dict]:
    """The CLIP of a folder as data/mini_clip, its name, and the constants beside it, if any."""
    folder, name = Path(model) if model != MINI else data_dir() / "mini_clip", Path(model).name
    if pretrained is not None:
        raise ValueError(f'"{name}" brings its own weights: leave out pretrained={pretrained!r}.')
    shown, paths = printable(folder), (folder / "open_clip_config.json", folder / "constants.json")
    if not paths[0].is_file():
        raise FileNotFoundError(f"{shown} holds no {paths[0].name}: take a whole clone.")
    try:
        about, own = (json.loads(p.read_text("utf-8")) if p.is_file() else {} for p in paths)
        clip, looks = open_clip.CLIP(**about["model_cfg"]), about["preprocess_cfg"]
    except Exception as error:  # json's, and what open_clip makes of other settings
        what = f"has a damaged open_clip_config.json or constants.json ({error!r})"
        raise ValueError(f"{shown} {what}: take a whole clone.") from error
    load_weights(clip, folder / "model.safetensors", name)
    clip.visual.preprocess_cfg = looks
    return clip, name, own


def own_clip(model: Any, pretrained: str | Path | None) -> tuple[open_clip.CLIP, str]:
    """A copy of an open_clip model that the caller built, and its weights if a file is named."""
    if not isinstance(getattr(model, "visual", None), nn.Module):
        kind = "tuple: give its first element" if isinstance(model, tuple) else type(model).__name__
        raise ValueError(f"model is a name or an open_clip model, not a {kind}.")
    clip = copy.deepcopy(model)
    if pretrained is None:
        return clip, "custom"
    load_weights(clip, pretrained, name := f"custom/{Path(pretrained).name}")
    return clip, name


def named_clip(name: str, pretrained: str | Path | None) -> tuple[open_clip.CLIP, str]:
    """An open_clip architecture with weights of a tag or a file, and its full name."""
    config = plain_config(name)
    if pretrained is None:
        raise ValueError(f"{name} needs weights: pretrained='openai', or a checkpoint file.")
    tags, path = open_clip.list_pretrained_tags_by_model(name), Path(pretrained)
    if pretrained in tags:
        demands = open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False)
        check_activation(name, config, demands, pretrained)
        try:  # from cache, or downloaded
            clip = open_clip.create_model(name, pretrained=str(pretrained))
        except Exception as error:  # open_clip, the hub and the network raise many kinds
            mend = "fetch the file where there is a network, and give the file as pretrained"
            what = f"No weights {pretrained!r} of {name} came ({error})"
            raise ConnectionError(f"{what}: {mend}.") from error
        return clip, f"{name}/{pretrained}"
    if not path.is_file():
        known = f"a tag of {name} in open_clip, which are {', '.join(tags) or 'none'}"
        raise FileNotFoundError(f"pretrained={str(pretrained)!r} is neither a file nor {known}.")
    if is_torchscript(path):
        check_activation(name, config, True, path)
    clip = open_clip.CLIP(**config)
    load_weights(clip, path, name)
    warn_of_gelu(name, path, clip.visual.conv1.weight)
    return clip, f"{name}/{path.name}"


def plain_config(name: str) -> dict[str, Any]:
    """The open_clip configuration of an architecture; refuse those that are no plain ViT."""
    if name not in open_clip.list_models():
        known = "open_clip.list_models() names them, 'ViT-B-16-quickgelu' is the paper's"
        raise ValueError(f"open_clip knows no architecture {name!r}; {known}.")
    config = open_clip.get_model_config(name)
    vision, hf = config["vision_cfg"], "a model with a text tower of transformers (pass the object)"
    faults = {
        f"a timm trunk ({vision.get('timm_model_name')})": "timm_model_name" in vision,
        "a ResNet": isinstance(vision.get("layers"), list),
        "a CoCa model, which embeds images by an attentional pool": "multimodal_cfg" in config,
        hf: "hf_model_name" in config["text_cfg"],
    }
    refuse_any(name, faults)
    return config


def tokenizer(clip: open_clip.CLIP, model: Any) -> Callable[[list[str]], Tensor] | None:
    """The tokenizer of a model, or None where the vocabulary is not CLIP's."""
    if isinstance(model, str) and model != MINI:
        return open_clip.get_tokenizer(model.replace("/", "-"))
    known = getattr(clip, "vocab_size", None) == CLIP_VOCABULARY
    return SimpleTokenizer(context_length=clip.context_length) if known else None


def resize_positions(clip: open_clip.CLIP, image_size: int) -> None:
    """Give a tower another image size: its position embeddings, bicubic on the new grid."""
    visual, patch = clip.visual, clip.visual.patch_size[0]
    if image_size <= 0 or image_size % patch:
        raise ValueError(f"image_size={image_size} must be a multiple of the patch size, {patch}.")
    visual.image_size, visual.grid_size = (image_size,) * 2, (image_size // patch,) * 2
    state = {"visual.positional_embedding": visual.positional_embedding.detach().float()}
    resize_pos_embed(state, clip)  # to visual.grid_size
    visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"])


def check_activation(name: str, config: dict[str, Any], quick: bool, weights: Any) -> None:
    """Refuse weights that were trained with the other activation than the architecture's."""
    if config.get("quick_gelu", False) != quick:
        trained, computes = ("QuickGELU", "GELU") if quick else ("GELU", "QuickGELU")
        right = name.removesuffix("-quickgelu") + "-quickgelu" * quick
        what = f"The weights {str(weights)!r} were trained with {trained}, but {name} computes"
        mend = f"{computes}, and all features would be wrong: use model={right!r}."
        raise ValueError(f"{what} {mend}")


def warn_of_gelu(name: str, path: Path, conv: Tensor) -> None:
    """Say that GELU was taken where the file does not tell, and the name could be another."""
    if f"{name}-quickgelu" in open_clip.list_models():
        openai = torch.equal(conv, conv.half().float())
        found = "half-precision values, as OpenAI's weights do" if openai else "nothing that tells"
        what = f"{printable(path)} holds {found}; {name} computes GELU: if its weights were trained"
        mend = f"with QuickGELU, all features are wrong, and the model must be '{name}-quickgelu'."
        warnings.warn(f"{what} {mend}", stacklevel=4)


def check_plain_vit(visual: Any, name: str) -> None:
    """Refuse an image tower that is not a plain ViT with a class token and a square grid."""
    kinds = {"a ResNet": ModifiedResNet, "a timm trunk": TimmModel}
    refuse_any(name, {found: isinstance(visual, kind) for found, kind in kinds.items()})
    if not isinstance(visual, VisionTransformer):
        kind = f"{type(visual).__module__}.{type(visual).__name__}"
        mend = "name the architecture, such as 'ViT-B-16-quickgelu', and its .pt file as pretrained"
        raise ValueError(f"{name} is no open_clip model, its tower is a {kind}: {mend}.")
    blocks = visual.transformer.resblocks
    faults = {
        "a ViT with an attentional pool": visual.attn_pool is not None,
        f"a ViT with {visual.pool_type!r} pooling, not the class token": visual.pool_type != "tok",
        f"a ViT of {type(blocks[0]).__name__}s": {*map(type, blocks)} != {ResidualAttentionBlock},
        "a ViT with layer scale": isinstance(getattr(blocks[0], "ls_1", None), LayerScale),
        f"a ViT for images of {visual.image_size} pixels": len({*visual.image_size}) > 1,
        f"a ViT of {len(blocks)} block": len(blocks) < 2,
    }
    refuse_any(name, faults)


def refuse_any(name: str, faults: dict[str, bool]) -> None:
    """Raise the error for the first fault that a tower has."""
    if found := next((found for found, has in faults.items() if has), None):
        wanted = "a plain ViT for square images, with a class token, such as 'ViT-B-16-quickgelu'"
        raise ValueError(f"{name} is {found}, and the patch encoders need {wanted}.")


def computes_quick_gelu(model: nn.Module, name: str) -> bool:
    """Tell which activation all blocks of both towers compute: QuickGELU, or ``nn.GELU``."""
    found = {type(m) for n, m in model.named_modules() if n.endswith("mlp.gelu")}
    if found not in ({QuickGELU}, {nn.GELU}):
        names = " and ".join(sorted(kind.__name__ for kind in found))
        raise ValueError(f"{name} computes {names}; CLIP needs QuickGELU or GELU throughout.")
    return found == {QuickGELU}


def check_lengths(prompts: list[str], tokenizer: Any) -> None:
    """Refuse a prompt that open_clip's tokenizer would cut without a word."""
    for prompt in prompts if isinstance(tokenizer, SimpleTokenizer) else ():
        count, room = len(tokenizer.encode(prompt)) + 2, tokenizer.context_length  # start, end
        if count > room:
            shown = prompt if len(prompt) < 80 else f"{prompt[:40]}...{prompt[-30:]}"
            mend = f"the text tower reads {room}: shorten the class name or the template"
            raise ValueError(f"The prompt {shown!r} has {count} tokens, and {mend}.")


def check_distinct(text: Tensor, names: Sequence[str]) -> None:
    """Refuse names with the same embedding: no classifier could tell them apart."""
    apart = torch.cdist(text, text, compute_mode="donot_use_mm_for_euclid_dist")
    one, other = divmod(int(apart.fill_diagonal_(torch.inf).argmin()), len(names))
    if apart[one, other] < 1e-5:
        raise ValueError(f"CLIP reads {names[one]!r} and {names[other]!r} alike: remove one.")


def check_device(name: str | torch.device, precision: str) -> torch.device:
    """The device, if this machine has it, with that precision."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # "meta" is no device that computes
    except (RuntimeError, AssertionError, ImportError) as error:
        has = " and ".join(dict.fromkeys([best_device(), "cpu"]))
        raise ValueError(f"No device {str(name)!r} (--device) here: there is {has}.") from error
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}.")
    if precision == "amp" and not torch.amp.is_autocast_available(device.type):
        raise ValueError(f"There is no mixed precision on the device {device}: use 'fp32'.")
    return device


def best_device() -> str:
    """The first device that there is: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
