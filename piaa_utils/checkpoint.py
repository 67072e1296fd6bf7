"""Weights from a local file, read without running anything that the file holds.

Three formats: safetensors; a state dict (of a training checkpoint); OpenAI's TorchScript archive.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from piaa_utils.files import printable

BOOKKEEPING = {"input_resolution", "context_length", "vocab_size", "attn_mask"}  # no weights
TYPES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Bool")
SAFE: dict[tuple[str, str], Any] = {  # what a pickle of tensors may name
    **{("torch", f"{name}Storage"): getattr(torch, name.lower()) for name in TYPES},
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda x, at, n, step, *_: x.as_strided(n, step, at),
    ("torch.jit._pickle", "restore_type_tag"): lambda value, kind: value,  # a typed attribute
}


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint file, on the CPU, as stored; another file is a ValueError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {printable(path)}.")
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        elif is_torchscript(path):
            state = read_torchscript(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever the three parsers raise on a damaged or foreign file
        what = f"{printable(path)} cannot be read as weights ({type(error).__name__})"
        mend = "holds objects other than tensors; save a plain state dict as .safetensors, name it"
        raise ValueError(f"{what}: it is damaged, or {mend}.") from error
    if isinstance(state, dict) and "state_dict" in state:  # a training checkpoint
        state = state["state_dict"]
    kinds = [(type(n), torch.is_tensor(t)) for n, t in getattr(state, "items", dict)()]
    if not kinds or set(kinds) != {(str, True)}:
        raise ValueError(f"{printable(path)} holds no state dict (names and their tensors).")
    if all(name.startswith("module.") for name in state):  # of torch's data parallel training
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def load_weights(model: nn.Module, path: str | Path, name: str) -> None:
    """Load a file into a CLIP; refuse it, naming the first tensor that does not fit."""
    state = read_state_dict(path)
    state = {n: t for n, t in state.items() if n.split(".")[-1] not in BOOKKEEPING}
    expected = model.state_dict()
    for key in {"logit_scale", "logit_bias"} & state.keys() & expected.keys():
        if state[key].numel() == 1:  # [] or [1]
            state[key] = state[key].reshape(expected[key].shape)
    for key in [*expected, *state]:
        there, wanted = (tuple(d[key].shape) if key in d else None for d in (state, expected))
        if there != wanted:
            found = f"{there or 'missing'} in the file and {wanted or 'missing'} in the model"
            mend = "name the file's architecture as model (names as in open_clip and OpenAI's CLIP)"
            what = f"{printable(path)} was not made for {name}: tensor {key!r} is {found}"
            raise ValueError(f"{what}; {mend}.")
    model.load_state_dict(state)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: only those hold ``constants.pkl``."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # no archive, or a damaged one
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Every tensor of a TorchScript archive by its dotted name; the code stays shut."""
    with zipfile.ZipFile(path) as archive:
        main = min((n for n in archive.namelist() if n.endswith("/data.pkl")), key=len)
        with archive.open(main) as stream:
            module = TensorsOnly(stream, archive, main.removesuffix("data.pkl")).load()
    return dict(named_tensors(module))


class ScriptModule:
    """What a module of an archive is read as: its attributes alone."""


class TensorsOnly(pickle.Unpickler):
    """Unpickle tensors and the modules that hold them; refuse all else that a pickle may name."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str):
        super().__init__(stream)
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return ScriptModule
        if module == "torch.jit._pickle" and name.startswith("build_"):  # a list attribute
            return list
        if (module, name) not in SAFE:
            raise pickle.UnpicklingError(f"{module}.{name} is no tensor")
        return SAFE[module, name]

    def persistent_load(self, saved_id: tuple) -> Tensor:
        _, dtype, key, _, numel = saved_id
        data = bytearray(self.archive.read(f"{self.folder}data/{key}"))
        return torch.frombuffer(data, dtype=dtype, count=numel) if numel else torch.empty(0)


def named_tensors(module: ScriptModule, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield (dotted name, tensor) of a module and of those inside it, as ``state_dict`` does."""
    for name, value in vars(module).items():
        if torch.is_tensor(value):
            yield prefix + name, value
        elif isinstance(value, ScriptModule):
            yield from named_tensors(value, f"{prefix}{name}.")
