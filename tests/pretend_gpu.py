"""A GPU for machines without one: its tensors hold CPU numbers, say that they lie on a GPU, and
refuse what a GPU refuses: the company of CPU tensors, NumPy, and on "mps" float64.

What it shows is that the package puts each tensor where it belongs. It says nothing about the
rounding or the speed of a real GPU.
"""

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

CPU = torch.device("cpu")
INDEXED = ("index", "index_put_", "_index_put_impl_")


class OnGPU(torch.Tensor):
    """A tensor on the pretended GPU. C++ is told "meta", a device that it never touches."""

    @staticmethod
    def __new__(cls, held, device):
        how = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        how |= {"dtype": held.dtype, "device": "meta"}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, **how)

    def __init__(self, held, device):
        if device.type == "mps" and held.dtype == torch.float64:
            raise TypeError("MPS has no float64.")
        self.held, self.where = held, device

    device = property(lambda self: self.where)

    def tolist(self):
        return self.held.tolist()

    def __format__(self, how):
        return format(self.held, how)

    def quantile(self, *arguments, **more):
        """PyTorch does without float64 here where its C++ sees "mps"; ours it sees as "meta"."""
        return OnGPU(self.held.quantile(*arguments, **more), self.where)

    def __array__(self, *_, **__):
        raise TypeError("A tensor on a GPU cannot become a NumPy array: call .cpu() first.")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def dispatch(func, args, kwargs):
    """Compute on the CPU what a GPU would, or refuse it."""
    flat, _ = tree_flatten((args, kwargs))
    name = func._schema.name.split("::")[1]
    on_gpu = [t for t in flat if isinstance(t, OnGPU)]
    on_cpu = [t for t in flat if isinstance(t, torch.Tensor) and not isinstance(t, OnGPU)]
    if name in INDEXED and isinstance(args[0], OnGPU):  # indices may come from the CPU
        on_cpu = [t for t in on_cpu if all(t is not index for index in args[1])]
    if on_gpu and name != "copy_" and any(t.dim() for t in on_cpu):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device.")
    wanted = [device for device in flat if isinstance(device, torch.device)]
    device = wanted[0] if wanted else on_gpu[0].device if on_gpu else CPU
    if device.type == "meta":  # that of a tensor of ours, as C++ sees it
        device = on_gpu[0].device if on_gpu else PretendGPU.device
    known = {id(t.held): t for t in on_gpu}  # what works in place returns its argument
    args, kwargs = tree_map_only(OnGPU, lambda t: t.held, (args, kwargs))
    args, kwargs = tree_map_only(torch.device, lambda _: CPU, (args, kwargs))
    out = func(*args, **kwargs)
    if device == CPU or (name == "copy_" and id(out) not in known):
        return out
    return tree_map_only(
        torch.Tensor, lambda t: known[id(t)] if id(t) in known else OnGPU(t, device), out
    )


class PretendGPU(TorchDispatchMode):
    """Inside of it there is one more device, "cuda:0" or "mps:0"."""

    device = None

    def __init__(self, kind):
        super().__init__()
        PretendGPU.device = torch.device(kind, 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    def move(self, backbone):
        """The backbone's weights onto the device. Returns the backbone."""
        for module in backbone.model.modules():
            for tensors in (module._parameters, module._buffers):
                there = {name: self(x.data) for name, x in tensors.items() if x is not None}
                tensors.update(there)
        backbone.device = self.device
        return backbone

    def __call__(self, x):
        return OnGPU(torch.as_tensor(np.asarray(x)), self.device)
