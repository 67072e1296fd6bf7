"""PVCL, Stage I: entropy-driven selection of patches.

A patch whose text probabilities have low entropy is one that the text classifier is sure of. For
each class the K surest patches of the whole image set are kept, while the images stream by:

    p_ic = softmax_c(60 x_i.t_c)        H_i = -sum_c p_ic log p_ic        y_i = argmax_c x_i.t_c
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from piaa_utils.constants import BANK_SIZE, SELECTION_TEMPERATURE
from piaa_utils.messages import some


def patch_probabilities(
    patches: Tensor, text: Tensor, temperature: float = SELECTION_TEMPERATURE
) -> Tensor:
    """Text probabilities of patches, p_ic = softmax_c(temperature * x_i.t_c) (PIAA, PVCL Stage I).

    Parameters
    ----------
    patches : [..., D] unit patch features.
    text : [C, D] unit text features.
    temperature : factor on the cosines; 60 in the paper.

    Returns
    -------
    [..., C] probabilities; each row sums to 1.

    Examples
    --------
    >>> patches = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> patch_probabilities(patches, torch.eye(2), temperature=1.0).round(decimals=2)
    tensor([[0.7300, 0.2700],
            [0.4500, 0.5500]])
    """
    return torch.softmax(temperature * patches @ text.T, dim=-1)


def entropy(p: Tensor) -> Tensor:
    """Entropy of each row of probabilities, in nats, from 0 to log C (PIAA, PVCL Stage I).

    Parameters
    ----------
    p : [..., C] probabilities.

    Returns
    -------
    [...] entropies; 0 log 0 counts as 0.

    Examples
    --------
    >>> entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).round(decimals=4)
    tensor([0.0000, 0.6931])
    """
    return torch.special.entr(p).sum(dim=-1)


COLUMNS = ("labels", "entropy", "image_id", "patch_index", "features", "probs")  # of a bank


class PatchBank:
    """The K lowest-entropy patches of each class, while images stream by (PIAA, PVCL Stage I).

    However the images are cut into batches, and however banks are merged, the bank holds exactly
    what a sort of all patches would keep. Ties of the entropy go to the smaller image id, then to
    the smaller patch index. Memory is at most C K rows and one batch, whatever the number of
    images.

    Parameters
    ----------
    n_classes : C.
    k : patches kept for a class; 512 in the paper. A class with fewer keeps all of them.
    temperature : factor on the cosines; 60 in the paper.
    per_image : the most patches that one image may give a class; None, as in the paper, sets no
        limit. See ``purify="spread"`` of :func:`piaa_utils.purification.learn_classifier`.

    Attributes
    ----------
    All rows are ordered by (class, entropy, image id, patch index).

    features : [n, D] unit patch features, in the dtype they came in (of another encoder where
        ``update`` was given its features).
    probs : [n, C] float32 text probabilities p.
    labels : [n] int64, the class y of each row.
    entropy : [n] float32, nats.
    image_id, patch_index : [n] int64, where each row came from.
    counts : [C] int64, rows of each class.

    Raises
    ------
    ValueError
        On n_classes, k or per_image below 1.

    Examples
    --------
    >>> bank = PatchBank(n_classes=2, k=1)
    >>> patches = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]])
    >>> bank.update(patches, text=torch.eye(2), image_ids=[7])
    >>> bank.labels.tolist(), bank.image_id.tolist(), bank.patch_index.tolist()
    ([0, 1], [7, 7], [0, 2])
    """

    def __init__(
        self,
        n_classes: int,
        k: int = BANK_SIZE,
        temperature: float = SELECTION_TEMPERATURE,
        per_image: int | None = None,
    ) -> None:
        if n_classes < 1 or k < 1 or (per_image is not None and per_image < 1):
            raise ValueError(
                f"A bank needs at least one class, one patch a class and one an image: "
                f"got n_classes={n_classes}, k={k}, per_image={per_image}."
            )
        self.n_classes, self.k, self.temperature = n_classes, k, temperature
        self.per_image = per_image
        self.labels = torch.empty(0, dtype=torch.int64)
        self.entropy = torch.empty(0)
        self.image_id = torch.empty(0, dtype=torch.int64)
        self.patch_index = torch.empty(0, dtype=torch.int64)
        # The wide columns stay in place and unordered; row i of the bank is row _slot[i] of them.
        self._slot = torch.empty(0, dtype=torch.int64)
        self._features = torch.empty(0, 0)
        self._probs = torch.empty(0, n_classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def features(self) -> Tensor:
        return self._features[self._slot]

    @property
    def probs(self) -> Tensor:
        return self._probs[self._slot]

    @property
    def counts(self) -> Tensor:
        return torch.bincount(self.labels, minlength=self.n_classes)

    @torch.inference_mode(False)  # the bank is written to later, which inference tensors forbid
    @torch.no_grad()
    def update(
        self,
        patches: Tensor,
        text: Tensor,
        image_ids: Sequence[int] | Tensor,
        features: Tensor | None = None,
    ) -> None:
        """Show the bank one batch of images.

        Parameters
        ----------
        patches : [B, N, D] unit patch features of B images; the text reads them, and so decides
            what is kept.
        text : [C, D] unit text features, the same ones at every call.
        image_ids : B integers; every image of the whole set has its own.
        features : [B, N, D] unit features of the same patches by another encoder, to be kept in
            place of `patches`; None, as in the paper, keeps `patches` themselves.

        Raises
        ------
        ValueError
            On a wrong shape, features that are not finite or not of unit length, or an image id
            that was given before.
        """
        ids = torch.as_tensor(image_ids)
        self._check(patches, text, ids)
        if features is None:
            features = patches
        else:
            if features.shape[:2] != patches.shape[:2]:
                raise ValueError(
                    f"features must be those of the same {tuple(patches.shape[:2])} patches: got "
                    f"shape {tuple(features.shape)}."
                )
            _check_unit(features, ids)
        self._check_new(features.shape[2], ids)
        if patches.numel() == 0:
            return
        # Float64, for which Apple's GPU has no support; the bank lives where this is computed.
        device = torch.device("cpu") if patches.device.type == "mps" else patches.device
        patches, ids = patches.to(device), ids.to(device)
        text = text.to(device, torch.float64)

        # One image at a time, so that no bit of an entropy depends on the batch around the image;
        # entropies rounded to float32, so that equal patches tie wherever in the image they are.
        probs = torch.stack(
            [patch_probabilities(x.double(), text, self.temperature) for x in patches]
        )
        entropies = entropy(probs).float().flatten()
        labels = probs.argmax(dim=-1).flatten()

        # A patch above the K-th entropy of a full class cannot enter: most of the batch ends here.
        rows = (entropies <= self._limits().to(device)[labels]).nonzero().squeeze(1)
        n_patches = patches.shape[1]
        keys = labels[rows], entropies[rows], ids[rows // n_patches].long(), rows % n_patches
        if self.per_image is not None:
            best = _first_of_each_image(*keys, self.per_image)
            rows, keys = rows[best], tuple(key[best] for key in keys)
        if len(rows) == 0:
            return
        kept = features.to(device).flatten(0, 1)[rows]
        self._absorb(keys, kept, probs.flatten(0, 1)[rows].float())

    @torch.inference_mode(False)
    @torch.no_grad()
    def merge(self, other: PatchBank) -> PatchBank:
        """A new bank of what this one and another, of other images, have seen together.

        Exact, associative and commutative: the result is the bank that one pass over all the images
        would have given. The two banks stay as they are.

        Parameters
        ----------
        other : a bank of the same settings that has seen other images.

        Raises
        ------
        ValueError
            If the banks differ in classes, K, temperature or feature width, or share an image id.

        Examples
        --------
        >>> left, right = PatchBank(2, k=1), PatchBank(2, k=1)
        >>> left.update(torch.tensor([[[0.8, 0.6]]]), torch.eye(2), [0])
        >>> right.update(torch.tensor([[[1.0, 0.0]]]), torch.eye(2), [1])
        >>> left.merge(right).image_id.tolist()
        [1]
        """
        mine = (self.n_classes, self.k, self.temperature, self.per_image)
        theirs = (other.n_classes, other.k, other.temperature, other.per_image)
        if mine != theirs:
            raise ValueError(
                f"Only banks with the same (n_classes, k, temperature, per_image) can be merged: "
                f"{mine} and {theirs}."
            )
        merged = PatchBank(*mine)
        for bank in (self, other):
            if len(bank) == 0:
                continue
            merged._check_new(bank._features.shape[1], bank.image_id.unique())
            merged._absorb(bank._keys(), bank.features, bank.probs)
        return merged

    def state(self) -> dict[str, Tensor]:
        """All rows on the CPU, by the names of the attributes: what ``restore`` takes."""
        return {name: getattr(self, name).cpu().contiguous() for name in COLUMNS}

    @torch.inference_mode(False)
    @torch.no_grad()
    def restore(self, state: dict[str, Tensor], device: torch.device | str = "cpu") -> PatchBank:
        """Fill an empty bank with the rows of another of the same settings, to go on from there.

        Raises
        ------
        ValueError
            If the bank is not empty.

        Examples
        --------
        >>> bank = PatchBank(2, k=1)
        >>> bank.update(torch.tensor([[[0.8, 0.6]]]), torch.eye(2), [3])
        >>> PatchBank(2, k=1).restore(bank.state()).image_id.tolist()
        [3]
        """
        if len(self):
            raise ValueError("Only an empty bank can be filled from saved rows: make a new one.")
        if len(state["labels"]):
            *keys, features, probs = (state[name].to(device) for name in COLUMNS)
            self._absorb(tuple(keys), features, probs)
        return self

    def _keys(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.labels, self.entropy, self.image_id, self.patch_index

    def _absorb(self, keys: tuple[Tensor, ...], features: Tensor, probs: Tensor) -> None:
        """Add rows and keep the first K of each class; who enters takes the place of who leaves."""
        n = len(self)
        if n == 0:
            self._slot = self._slot.to(features.device)
            self._features, self._probs = features[:0], probs[:0]
        else:
            features, probs = features.to(self._features), probs.to(self._probs)
            both = zip(self._keys(), keys, strict=True)
            keys = tuple(torch.cat([old, new.to(old.device)]) for old, new in both)
        keep = _first_of_each_class(*keys, self.k)
        self.labels, self.entropy, self.image_id, self.patch_index = (key[keep] for key in keys)

        old = keep < n
        free = torch.ones(len(keep), dtype=torch.bool, device=keep.device)
        free[self._slot[keep[old]]] = False
        slot = torch.empty_like(keep)
        slot[old] = self._slot[keep[old]]
        slot[~old] = free.nonzero().squeeze(1)
        self._slot = slot
        most, new = self.n_classes * self.k, keep[~old] - n
        self._features = _put(self._features, slot[~old], features[new], len(keep), most)
        self._probs = _put(self._probs, slot[~old], probs[new], len(keep), most)

    def _limits(self) -> Tensor:
        """[C] the entropy above which nothing can enter a class: infinite while it has room."""
        counts = self.counts
        last = counts.cumsum(0) - 1
        limits = torch.full((self.n_classes,), torch.inf, device=counts.device)
        full = counts == self.k
        limits[full] = self.entropy[last[full]]
        return limits

    def _check(self, patches: Tensor, text: Tensor, ids: Tensor) -> None:
        if patches.ndim != 3:
            raise ValueError(
                f"patches must be [B, N, D]: got shape {tuple(patches.shape)}; "
                f"one image needs a leading axis, patches[None]."
            )
        if text.shape != (self.n_classes, patches.shape[2]):
            raise ValueError(
                f"text must be [C, D] = [{self.n_classes}, {patches.shape[2]}] to fit this bank "
                f"and these patches: got shape {tuple(text.shape)}."
            )
        if ids.shape != patches.shape[:1] or (len(ids) and ids.is_floating_point()):
            raise ValueError(
                f"image_ids must be {len(patches)} integers, one for each image of the batch: "
                f"got shape {tuple(ids.shape)} of {ids.dtype}."
            )
        if len(ids.unique()) < len(ids):
            raise ValueError("image_ids repeat within a batch: give every image its own.")
        _check_unit(patches, ids)
        if not text.isfinite().all():
            raise ValueError("The text features hold NaN or infinite values: check the backbone.")

    def _check_new(self, width: int, ids: Tensor) -> None:
        if len(self) and self._features.shape[1] != width:
            raise ValueError(
                f"The bank holds features of width {self._features.shape[1]}, the new ones have "
                f"{width}: use one backbone for all images."
            )
        known = torch.isin(ids.to(self.image_id), self.image_id)
        if known.any():
            raise ValueError(
                f"Image id {some(ids.to(known.device)[known].tolist())} is in the bank already: "
                f"count the images over the whole set, and show each of them once."
            )


def _check_unit(patches: Tensor, ids: Tensor) -> None:
    """Refuse features [B, N, D] that are not finite, naming the images, or not of unit length."""
    norms = torch.linalg.vector_norm(patches.float(), dim=-1)
    bad = ~norms.isfinite().all(dim=1)
    if bad.any():
        names = some(ids.to(bad.device)[bad].tolist())
        raise ValueError(
            f"The patch features of image {names} hold NaN or infinite values: "
            f"leave the image out, or check the backbone's weights and precision."
        )
    if ((norms - 1).abs() > 0.01).any():
        raise ValueError(
            "Patch features must be of unit length: divide each by its norm "
            "(encode(..., normalize=True) does)."
        )


def _put(column: Tensor, slots: Tensor, rows: Tensor, length: int, most: int) -> Tensor:
    """The column with rows written to the slots, made longer first where it is too short.

    It then doubles, up to `most`, so that a bank that fills up is copied a few times only.
    """
    if len(column) < length:
        longer = column.new_empty(min(most, max(length, 2 * len(column))), column.shape[1])
        longer[: len(column)] = column
        column = longer
    column[slots] = rows
    return column


def _first_of_each_class(
    labels: Tensor, entropies: Tensor, ids: Tensor, index: Tensor, k: int
) -> Tensor:
    """Positions of the first k rows of each class, ordered by (class, entropy, image id, index)."""
    order = torch.arange(len(labels), device=labels.device)
    for key in (index, ids, entropies, labels):  # stable sorts, the last key decides first
        order = order[torch.argsort(key[order], stable=True)]
    sorted_labels = labels[order]
    start_of_class = torch.searchsorted(sorted_labels, sorted_labels)
    rank = torch.arange(len(order), device=order.device) - start_of_class
    return order[rank < k]


def _first_of_each_image(
    labels: Tensor, entropies: Tensor, ids: Tensor, index: Tensor, m: int
) -> Tensor:
    """Positions of the first m rows of each class and image, by (entropy, index)."""
    pair = torch.unique(torch.stack([labels, ids]), dim=1, return_inverse=True)[1]
    return _first_of_each_class(pair, entropies, ids, index, m)
