"""The backbone: a frozen CLIP whose image tower is a plain ViT.

PIAA trains nothing in CLIP. It needs the patch tokens, so the tower must be a plain vision
transformer with a class token, and it must compute the activation that its weights were trained
with: QuickGELU for OpenAI's. GELU in its place runs without a murmur and gives wrong features.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import (
    LayerScale,
    QuickGELU,
    ResidualAttentionBlock,
    VisionTransformer,
)
from torch import Tensor, nn

from piaa_utils.checkpoint import is_torchscript, read_state_dict
from piaa_utils.constants import Calibration
from piaa_utils.datasets import data_dir

MINI = "mini"  # the mini-CLIP in data/mini_clip
CLIP_VOCABULARY = 49408  # tokens of CLIP's byte-pair encoding
BOOKKEEPING = {"input_resolution", "context_length", "vocab_size", "attn_mask"}  # no weights
PRECISIONS = ("fp32", "amp")


class Backbone:
    """A frozen CLIP and what the method asks of it. Made by :func:`load_backbone`.

    Attributes
    ----------
    model : the open_clip model; evaluation mode, float32, no gradients.
    name : "mini", or architecture/weights, such as "ViT-B-16-quickgelu/openai".
    image_size : S, the side of the square image in pixels.
    grid : g, patches along a side; N = g * g patches.
    depth : L, blocks of the image tower.
    width : D_v, channels of its tokens.
    dim : D, channels of the joint embedding.
    quick_gelu : True where the model computes QuickGELU, False for GELU.
    device : where the model is and where features come out.
    precision : "fp32" or "amp", how :func:`piaa_utils.encoders.encode` computes features.
    mean, std : 3 numbers each, of the colours, that ``preprocess`` normalises with.
    preprocess : PIL image -> float tensor [3, S, S]: short side to S (bicubic), centre crop,
        RGB in [0, 1], then minus mean, over standard deviation.
    calibration : SC-CLIP's constants for this tower: the paper's, or those that lie beside the
        weights of a model of ours.
    tokenizer : list of strings -> tokens [n, context], or None for a vocabulary not CLIP's.
    """

    def __init__(self, model: nn.Module, name: str, tokenizer=None, device=None, precision="fp32"):
        check_plain_vit(model.visual, name)
        self.quick_gelu = activation(model, name) is QuickGELU
        self.device = torch.device(device or best_device())
        self.precision = check_precision(precision, self.device)
        self.model = model.to(self.device).float().eval().requires_grad_(False)
        self.name = name
        self.tokenizer = tokenizer
        self.calibration = Calibration()
        visual = model.visual
        self.image_size = visual.image_size[0]
        self.grid = visual.grid_size[0]
        self.depth = len(self.blocks)
        self.width, self.dim = visual.proj.shape
        looks = {**open_clip.get_model_preprocess_cfg(model), "size": self.image_size}
        looks = PreprocessCfg(**looks)
        self.mean, self.std = list(looks.mean), list(looks.std)
        self.preprocess = image_transform_v2(looks, is_train=False)

    @property
    def blocks(self) -> nn.ModuleList:
        """The L blocks of the image tower; ``blocks[l - 1]`` computes h_l."""
        return self.model.visual.transformer.resblocks

    def autocast(self, enabled: bool = True) -> AbstractContextManager:
        """Matrix products in float16 where ``precision`` is "amp"; otherwise nothing.

        ``enabled=False`` inside of it brings float32 back.
        """
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

    @torch.no_grad()
    def encode_text(
        self,
        class_names: Sequence[str],
        templates: Sequence[str] = ("a photo of a {}",),
        synonyms: Mapping[str, Sequence[str]] | None = None,
    ) -> Tensor:
        """The text embeddings t_c of classes: [C, D], unit rows.

        Of several templates and names: the mean of their unit embeddings, brought back to unit
        length.

        Parameters
        ----------
        class_names : C names, none empty.
        templates : sentences with ``{}`` where the name goes.
        synonyms : class name -> other names of the class.

        Raises
        ------
        ValueError
            No names, an empty one, synonyms of a class that is not there, a template without
            ``{}``, or no tokenizer.
        """
        if isinstance(class_names, str) or isinstance(templates, str):
            raise ValueError("Class names and templates are lists of strings, not one string.")
        if not class_names or not all(name.strip() for name in class_names):
            raise ValueError(f"Class names must be non-empty, and at least one: {class_names!r}.")
        if not templates or not all("{}" in template for template in templates):
            raise ValueError(f"Each template needs {{}} where the class name goes: {templates!r}.")
        if self.tokenizer is None:
            raise ValueError(
                f"{self.name} has another vocabulary than CLIP's; set backbone.tokenizer to a "
                "function from a list of strings to a tensor of tokens."
            )
        names = all_names(class_names, synonyms or {})
        prompts = [[t.replace("{}", n) for n in each for t in templates] for each in names]
        tokens = self.tokenizer(sum(prompts, [])).to(self.device)
        text = torch.cat([self.model.encode_text(part) for part in tokens.split(256)])
        parts = F.normalize(text, dim=-1).split([len(each) for each in prompts])
        return F.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)


def all_names(class_names: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Each class's name followed by its synonyms.

    Raises
    ------
    ValueError
        Synonyms that are no lists of names, or belong to no class.

    Examples
    --------
    >>> all_names(["cat", "sofa"], {"sofa": ["couch"]})
    [['cat'], ['sofa', 'couch']]
    """
    for name, others in synonyms.items():
        if name not in class_names:
            raise ValueError(f"There are synonyms for {name!r}, which is no class: add the class.")
        if isinstance(others, str) or not all(isinstance(n, str) and n.strip() for n in others):
            raise ValueError(
                f"The synonyms of {name!r} must be a list of non-empty names, not {others!r}."
            )
    return [[name, *synonyms.get(name, ())] for name in class_names]


def load_backbone(
    model: str | nn.Module = MINI,
    pretrained: str | Path | None = None,
    device: str | torch.device | None = None,
    image_size: int | None = None,
    precision: str = "fp32",
) -> Backbone:
    """Load a CLIP with a plain-ViT image tower.

    Parameters
    ----------
    model : "mini", the CLIP embedded in this repository (no network); or the name of an
        open_clip architecture, such as "ViT-B-16-quickgelu"; or an open_clip model that you
        built (it is copied, yours stays as it is).
    pretrained : the weights: a tag of open_clip such as "openai" (downloaded once), or a
        checkpoint file: OpenAI's TorchScript ``.pt``, a state dict, ``.safetensors``. Nothing
        in a file is run. None for "mini" and, if it has its weights, for your own model.
    device : None takes CUDA or MPS where there is one, else the CPU.
    image_size : None keeps the tower's own; another multiple of the patch size interpolates
        the position embeddings (bicubic).
    precision : "fp32" computes features in float32. "amp" takes PyTorch's automatic mixed
        precision (float16), meant for GPUs: on a CPU without arithmetic in float16 it is far
        slower. Text features, and the comparisons of patches in scclip, stay float32, and all
        features come out as float32. What it changes, ``benchmarks/precision.py`` measures: on
        the mini world's `test` and `test_unseen`, 600 pictures each, on a CPU, 0.025 points of
        mAP at most for [CLS], sclip, itaclip and scclip read by the text, 0.004 for PIAA. On few
        pictures two neighbours out of order count for more: 0.2 points on the 150 of `val`.

    Raises
    ------
    ValueError
        An unknown name; a tower that is no plain ViT; no weights, weights of another architecture
        or trained with the other activation; an unreadable file; an unknown precision, or one that
        the device does not have.
    FileNotFoundError
        Neither a tag nor a checkpoint file of that name, or no embedded mini-CLIP.
    ConnectionError
        The weights of a tag could not be downloaded.

    Examples
    --------
    >>> tower = {"image_size": 96, "patch_size": 16, "layers": 12, "width": 64}
    >>> text = {"context_length": 16, "width": 64, "heads": 1, "layers": 1}
    >>> backbone = load_backbone(open_clip.CLIP(32, tower, text, quick_gelu=True), device="cpu")
    >>> backbone.grid, backbone.depth, backbone.width, backbone.dim, backbone.quick_gelu
    (6, 12, 64, 32, True)
    >>> backbone.encode_text(["cat", "tv monitor"]).shape
    torch.Size([2, 32])
    """
    if model == MINI:
        if pretrained is not None:
            raise ValueError(
                f'The backbone "{MINI}" brings its own weights: leave out '
                f"pretrained={str(pretrained)!r}, or name the architecture that it belongs to."
            )
        clip, name = mini_clip(), MINI
    elif isinstance(model, str):
        clip, name = named_clip(model.replace("/", "-"), pretrained)
    elif isinstance(getattr(model, "visual", None), nn.Module):
        clip, name = copy.deepcopy(model), "custom"
        if pretrained is not None:
            name = f"custom/{Path(pretrained).name}"
            load_weights(clip, pretrained, name)
    else:
        raise ValueError(f"model is a name or an open_clip model, not a {type(model).__name__}.")
    check_plain_vit(clip.visual, name)
    if image_size not in (None, clip.visual.image_size[0]):
        resize_positions(clip.visual, image_size)
        name = f"{name}@{image_size}"
    return Backbone(clip, name, tokenizer(clip, model), device, precision)


def mini_clip() -> nn.Module:
    """The mini-CLIP of data/mini_clip."""
    folder = data_dir() / "mini_clip"
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise FileNotFoundError(f"The mini-CLIP is missing: no {config}; take a whole clone.")
    config = json.loads(config.read_text(encoding="utf-8"))
    clip = open_clip.CLIP(**config["model_cfg"])
    load_weights(clip, folder / "model.safetensors", MINI)
    clip.visual.preprocess_cfg = config["preprocess_cfg"]
    return clip


def named_clip(name: str, pretrained: str | Path | None) -> tuple[nn.Module, str]:
    """An open_clip architecture with weights of a tag or a file, and its full name."""
    config = plain_config(name)
    if pretrained is None:
        raise ValueError(f"{name} needs weights: pretrained='openai', or a checkpoint file.")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained in tags:
        demands = open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False)
        check_activation(name, config, demands, pretrained)
        return download(name, pretrained), f"{name}/{pretrained}"
    path = Path(pretrained)
    if not path.is_file():
        raise FileNotFoundError(
            f"pretrained={str(pretrained)!r} is neither a file nor a tag of {name} in open_clip, "
            f"which are {', '.join(tags) or 'none'}."
        )
    if is_torchscript(path):
        check_activation(name, config, True, path)
    clip = open_clip.CLIP(**config)
    load_weights(clip, path, name)
    return clip, f"{name}/{path.name}"


def plain_config(name: str) -> dict:
    """The open_clip configuration of an architecture; refuse those that are no plain ViT."""
    if name not in open_clip.list_models():
        raise ValueError(
            f"open_clip knows no architecture {name!r}; open_clip.list_models() names them, "
            "'ViT-B-16-quickgelu' is the paper's."
        )
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        refuse(name, f"a timm trunk ({vision['timm_model_name']})")
    if isinstance(vision["layers"], list):
        refuse(name, "a ResNet")
    if "multimodal_cfg" in config:
        refuse(name, "a CoCa model, whose image embedding comes from an attentional pool")
    if "hf_model_name" in text:
        raise ValueError(
            f"The text tower of {name} comes from the transformers library; build that model "
            "with open_clip, pass the object as model, and set backbone.tokenizer."
        )
    return config


def download(name: str, tag: str) -> nn.Module:
    """An architecture with the weights of an open_clip tag, downloaded or from cache."""
    try:
        return open_clip.create_model(name, pretrained=tag)
    except Exception as error:  # open_clip, the hub and the network raise many kinds
        raise ConnectionError(
            f"The weights {tag!r} of {name} could not be had ({error}); fetch the checkpoint "
            "where there is a network, and give the file as pretrained."
        ) from error


def check_activation(name: str, config: dict, demands_quick_gelu: bool, weights: object) -> None:
    """Refuse weights that were trained with the other activation than the architecture's."""
    if config.get("quick_gelu", False) == demands_quick_gelu:
        return
    plain = name.removesuffix("-quickgelu")
    trained, computes = ("QuickGELU", "GELU") if demands_quick_gelu else ("GELU", "QuickGELU")
    right = f"{plain}-quickgelu" if demands_quick_gelu else plain
    raise ValueError(
        f"The weights {str(weights)!r} were trained with {trained}, but {name} computes "
        f"{computes}, and all features would be wrong: use model={right!r}."
    )


def load_weights(clip: nn.Module, path: str | Path, name: str) -> None:
    """Load a checkpoint file into a model of the same architecture (float32 from any precision).

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`piaa_utils.checkpoint.read_state_dict`.
    ValueError
        Naming the first tensor that is missing, unknown or of another shape.
    """
    state = read_state_dict(path)
    state = {n: t for n, t in state.items() if n.split(".")[-1] not in BOOKKEEPING}
    expected = clip.state_dict()
    for key in {"logit_scale", "logit_bias"} & state.keys() & expected.keys():
        state[key] = state[key].reshape(expected[key].shape)  # [] or [1]
    for key in [*expected, *state]:
        there, wanted = (tuple(d[key].shape) if key in d else None for d in (state, expected))
        if there != wanted:
            raise ValueError(
                f"{path} was not made for {name}: tensor {key!r} is {there or 'missing'} in the "
                f"file and {wanted or 'missing'} in the model; name the architecture of the file "
                "as model (names as in open_clip and OpenAI's CLIP)."
            )
    clip.load_state_dict(state)
    conv = state["visual.conv1.weight"].float()
    if f"{name}-quickgelu" in open_clip.list_models() and torch.equal(conv, conv.half().float()):
        warnings.warn(
            f"{path} holds half-precision values, as OpenAI's weights do: if they are OpenAI's, "
            f"all features will be wrong, and the model must be '{name}-quickgelu'.",
            stacklevel=4,
        )


def tokenizer(clip: nn.Module, model: str | nn.Module):
    """The tokenizer of a model, or None where the vocabulary is not CLIP's."""
    if isinstance(model, str) and model != MINI:
        return open_clip.get_tokenizer(model.replace("/", "-"))
    if getattr(clip, "vocab_size", None) != CLIP_VOCABULARY:
        return None
    return SimpleTokenizer(context_length=clip.context_length)


def resize_positions(visual: VisionTransformer, image_size: int) -> None:
    """Give a tower another image size: its position embeddings, bicubic on the new grid."""
    patch = visual.patch_size[0]
    if image_size <= 0 or image_size % patch:
        raise ValueError(f"image_size={image_size} must be a multiple of the patch size, {patch}.")
    grid = image_size // patch
    positions = visual.positional_embedding.detach().float()
    cls, patches = positions[:1], positions[1:]
    patches = patches.T.unflatten(1, visual.grid_size)[None]  # [1, D_v, g, g]
    patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", antialias=True)
    visual.positional_embedding = nn.Parameter(torch.cat([cls, patches[0].flatten(1).T]))
    visual.image_size, visual.grid_size = (image_size, image_size), (grid, grid)


def check_plain_vit(visual: nn.Module, name: str) -> None:
    """Refuse an image tower that is not a plain ViT with a class token and a square grid."""
    if isinstance(visual, ModifiedResNet):
        refuse(name, "a ResNet")
    if isinstance(visual, TimmModel):
        refuse(name, "a timm trunk")
    if not isinstance(visual, VisionTransformer):
        refuse(name, f"a {type(visual).__name__}")
    blocks = visual.transformer.resblocks
    if visual.attn_pool is not None:
        refuse(name, "a ViT with an attentional pool")
    if visual.pool_type != "tok":
        refuse(name, f"a ViT with {visual.pool_type!r} pooling in place of the class token")
    if not all(type(block) is ResidualAttentionBlock for block in blocks):
        refuse(name, f"a ViT of {type(blocks[0]).__name__}s")
    if isinstance(blocks[0].ls_1, LayerScale):
        refuse(name, "a ViT with layer scale")
    if len(set(visual.image_size)) > 1 or len(set(visual.grid_size)) > 1:
        refuse(name, f"a ViT for images of {visual.image_size} pixels, not square")
    if len(blocks) < 2:
        refuse(name, f"a ViT of {len(blocks)} block")


def refuse(name: str, found: str) -> None:
    """Raise the error for a tower that the patch encoders cannot use."""
    raise ValueError(
        f"The image tower of {name} is {found}, and the patch encoders need a plain ViT with a "
        "class token: use one such as 'ViT-B-16-quickgelu'."
    )


def activation(model: nn.Module, name: str) -> type[nn.Module]:
    """The activation that all blocks of both towers compute: QuickGELU or ``nn.GELU``."""
    found = {type(m) for n, m in model.named_modules() if n.endswith("mlp.gelu")}
    if len(found) != 1 or not found <= {QuickGELU, nn.GELU}:
        names = " and ".join(sorted(kind.__name__ for kind in found))
        raise ValueError(f"{name} computes {names}; CLIP needs QuickGELU or GELU throughout.")
    return found.pop()


def check_precision(precision: str, device: torch.device) -> str:
    """The precision, if there is one of that name and the device has it."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}.")
    if precision == "amp" and not torch.amp.is_autocast_available(device.type):
        raise ValueError(
            f"PyTorch {torch.__version__} has no mixed precision on the device {device}: use "
            "precision='fp32'."
        )
    return precision


def best_device() -> str:
    """The first device that there is: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
