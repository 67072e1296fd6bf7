"""PVCL, Stage I: entropy-driven selection of patches.

For each class the K patches of which the text is surest are kept, while the images stream by:

    p_ic = softmax_c(60 x_i.t_c)        H_i = -sum_c p_ic log p_ic        y_i = argmax_c x_i.t_c
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from piaa_utils.settings import BANK_SIZE, SELECTION_SCALE, check_positive


def patch_probabilities(patches: Tensor, text: Tensor, scale: float = SELECTION_SCALE) -> Tensor:
    """Text probabilities of patches, p_ic = softmax_c(scale * x_i.t_c) (PIAA, PVCL Stage I).

    [..., D] unit patch features and [C, D] unit text features to [..., C].

    >>> patches = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> patch_probabilities(patches, torch.eye(2), scale=1.0).round(decimals=2)
    tensor([[0.7300, 0.2700],
            [0.4500, 0.5500]])
    """
    return torch.softmax(scale * patches @ text.T, dim=-1)


def entropy(p: Tensor) -> Tensor:
    """Entropy of each row of probabilities, in nats, from 0 to log C (PIAA, PVCL Stage I).

    [..., C] probabilities to [...] entropies; 0 log 0 counts as 0.

    >>> entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).round(decimals=4)
    tensor([0.0000, 0.6931])
    """
    return torch.special.entr(p).sum(dim=-1)


class Rows(NamedTuple):
    """Patches of a :class:`PatchBank`, one a row. The first four columns order them."""

    labels: Tensor  # [n] int64, the class y of each
    entropy: Tensor  # [n] float32, nats
    image_id: Tensor  # [n] int64, where it came from, likewise patch_index
    patch_index: Tensor
    features: Tensor  # [n, D] unit, in the dtype they came in; another encoder's if so given
    probs: Tensor  # [n, C] float32, the text probabilities p


class PatchBank:
    """The K lowest-entropy patches of each class, while images stream by (PIAA, PVCL Stage I).

    However the images are cut into batches, and however banks are merged, the bank holds exactly
    what a sort of all patches by (class, entropy, image id, patch index) would keep. Rows that may
    enter wait until C K have come together: memory is a few C K rows and a batch.

    n_classes : C.    k : patches kept for a class; 512 in the paper. With fewer, all are kept.
    scale : factor on the cosines; 60 in the paper.

    Each column of :class:`Rows` is an attribute; ``counts``, int64 [C], are the rows of each class.

    >>> bank = PatchBank(n_classes=2, k=1)
    >>> patches = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]])
    >>> bank.update(patches, text=torch.eye(2), image_ids=[7])
    >>> bank.labels.tolist(), bank.image_id.tolist(), bank.patch_index.tolist()
    ([0, 1], [7, 7], [0, 2])
    """

    def __init__(self, n_classes: int, k: int = BANK_SIZE, scale: float = SELECTION_SCALE) -> None:
        if n_classes < 1 or k < 1:
            raise ValueError(f"A bank needs a class and a patch for it: got {n_classes=}, {k=}.")
        check_positive("A bank's", scale=scale)
        self.n_classes, self.k, self.scale = n_classes, k, scale
        none, wide = torch.empty(0, dtype=torch.int64), torch.empty(0, n_classes)
        self._kept = Rows(none, wide.sum(1), none, none, wide, wide)  # the first K of each class
        self._waiting: list[Rows] = []
        self._limits = torch.full((n_classes,), torch.inf)  # entropies above these cannot enter
        self._ids: set[int] = set()  # of the images that have rows here

    def __len__(self) -> int:
        return len(self._sorted().labels)

    labels = property(lambda self: self._sorted().labels)
    entropy = property(lambda self: self._sorted().entropy)
    image_id = property(lambda self: self._sorted().image_id)
    patch_index = property(lambda self: self._sorted().patch_index)
    features = property(lambda self: self._sorted().features)
    probs = property(lambda self: self._sorted().probs)

    @property
    def counts(self) -> Tensor:
        return torch.bincount(self.labels, minlength=self.n_classes)

    @torch.no_grad()
    def update(
        self,
        patches: Tensor,
        text: Tensor,
        image_ids: Sequence[int] | Tensor,
        features: Tensor | None = None,
    ) -> None:
        """Show the bank one batch of images.

        patches, text : [B, N, D] and [C, D] unit features, which decide which patches are kept.
        image_ids : B integers; every image of the whole set has its own.
        features : [B, N, D] unit features of the same patches by another encoder, to be kept in
            place of `patches`; None, as in the paper, keeps `patches` themselves.

        An image id that was given before, shapes that do not fit and NaN are a ValueError.
        """
        # Float64, for which Apple's GPU has no support; the bank lives where this is computed.
        device = torch.device("cpu") if patches.device.type == "mps" else patches.device
        ids = torch.as_tensor(image_ids, dtype=torch.int64)
        self._check_new(ids)
        kept = patches if features is None else features
        shapes = [list(x.shape) for x in (patches, kept, text, ids)]
        (B, N, D), C = patches.shape if patches.ndim == 3 else (0, 0, 0), self.n_classes
        if shapes[:1] != [[B, N, D]] or shapes[1][:2] != [B, N] or shapes[2:] != [[C, D], [B]]:
            wanted = f"patches and features [B, N, D], text [{C}, D] and B image ids"
            raise ValueError(f"A bank of {C} classes takes {wanted}, not {shapes}.")
        if patches.numel() == 0:
            return
        # One image at a time, so that no bit of an entropy depends on the batch around the image;
        # entropies rounded to float32, so that equal patches tie wherever in the image they are.
        text, images = text.to(device, torch.float64), patches.to(device)
        p = torch.cat([patch_probabilities(x.double(), text, self.scale) for x in images])
        H, y = entropy(p).float(), p.argmax(dim=-1)  # p: [B N, C]
        if H.isnan().any():
            raise ValueError("Patches or text features hold NaN: check where they come from.")
        rows = (H <= self._limits.to(device)[y]).nonzero().squeeze(1)  # most of a batch ends here
        n = patches.shape[1]
        kept, where = kept.to(device).flatten(0, 1)[rows], (ids.to(device)[rows // n], rows % n)
        self._add(Rows(y[rows], H[rows], *where, kept, p[rows].float()))

    def merge(self, other: PatchBank) -> PatchBank:
        """A new bank of what this one and another, of other images, have seen together.

        Exact, associative and commutative: the bank that one pass over all the images would give.
        Banks that differ in classes, K or scale, or share an image id, are a ValueError.
        """
        mine, theirs = ((b.n_classes, b.k, b.scale) for b in (self, other))
        if mine != theirs:
            same = "Only banks of the same (n_classes, k, scale) can be merged"
            raise ValueError(f"{same}: {mine}, {theirs}.")
        merged = PatchBank(*mine)
        for bank in (self, other):
            merged._check_new(bank.image_id.unique())
            merged._add(bank._sorted())
        return merged

    def state(self) -> dict[str, Tensor]:
        """All rows on the CPU, by the names of the attributes: what ``restore`` takes."""
        return {k: v.cpu().contiguous() for k, v in self._sorted()._asdict().items()}

    def restore(self, state: dict[str, Tensor], device: torch.device | str = "cpu") -> PatchBank:
        """Fill an empty bank with the rows of another of the same settings, to go on from there."""
        self._add(Rows(**{name: column.to(device) for name, column in state.items()}))
        return self

    def _check_new(self, ids: Tensor) -> None:
        if again := [i for i, n in Counter(ids.tolist()).items() if n > 1 or i in self._ids]:
            mend = "count the images over the whole set, and show each of them once"
            raise ValueError(f"Image id {again[0]} is in the bank already: {mend}.")

    def _add(self, rows: Rows) -> None:
        """Let rows wait, and sort them in where C K wait."""
        if len(rows.labels):
            self._waiting.append(rows)
            self._ids.update(rows.image_id.unique().tolist())
        if sum(len(r.labels) for r in self._waiting) >= self.n_classes * self.k:
            self._sorted()

    def _sorted(self) -> Rows:
        """The rows of the bank, those that waited among them."""
        if self._waiting:
            chunks = [r for r in (self._kept, *self._waiting) if len(r.labels)]
            device = chunks[0].labels.device
            columns = [torch.cat([x.to(device) for x in c]) for c in zip(*chunks, strict=True)]
            keep = _first_of_each_class(columns[:4], self.k)
            self._kept, self._waiting = Rows(*(column[keep] for column in columns)), []
            self._ids = set(self._kept.image_id.unique().tolist())
            worst = self._kept.entropy[(self.counts.cumsum(0) - 1).clamp(min=0)]
            self._limits = torch.where(self.counts == self.k, worst, torch.inf)
        return self._kept


def _first_of_each_class(keys: list[Tensor], k: int) -> Tensor:
    """Positions of the first k rows of each class, in the order of keys: the class, then others."""
    order = torch.arange(len(keys[0]), device=keys[0].device)
    for key in reversed(keys):  # stable sorts, the last one decides first
        order = order[torch.argsort(key[order], stable=True)]
    ranked = keys[0][order]
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(ranked, ranked)
    return order[rank < k]
