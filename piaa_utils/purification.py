"""PVCL, Stages I to III: from a bank of patches to the visual classifier W, b.

With W and b from the GDA of ``piaa_utils.gda``:

    Stage I     GDA on the bank, each row weighed by its text probability p of its own class
    Stage II    q_ic = softmax_c(T (x_i.W + b)) on the bank, y_i = argmax; keep the trustworthy rows
    Stage III   GDA again, on the rows kept, each weighed by its q
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from piaa_utils.constants import CONSTANTS
from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.selection import PatchBank

METHODS = ("released", "spread")
PER_IMAGE = 1  # "spread": the patches that one image gives a class


class Purified(NamedTuple):
    """What Stage II keeps.

    rows : [m] int64, positions in the bank, ascending.
    labels : [m] int64, the class that each row now counts for.
    weights : [m] float32, q of that class.
    counts : [C] int64, rows kept for each class.
    """

    rows: Tensor
    labels: Tensor
    weights: Tensor
    counts: Tensor


def purify_released(
    logits: Tensor, temperature: float = CONSTANTS["voc07"]["purify_temperature"]
) -> Purified:
    """Stage II as the authors' code does it (PIAA, PVCL Stage II).

    q = softmax_c(T (x.W + b)); for each predicted class the rows with q >= mean + (unbiased)
    standard deviation of that class are kept. Seldom a filter: where T saturates q at exactly 1 a
    class keeps all of its rows, otherwise often none, and never a lone row.

    Parameters
    ----------
    logits : [n, C] decision values x.W + b of the bank.
    temperature : T; in the authors' code 100 for VOC, 0.01 for COCO, 500 for NUS-WIDE.

    Raises
    ------
    ValueError
        If the logits are no matrix.

    Examples
    --------
    >>> logits = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    >>> purify_released(logits, temperature=1.0).rows.tolist()
    [0]
    >>> purify_released(logits, temperature=100.0).rows.tolist()  # q is 1: class 0 keeps all
    [0, 1, 3]
    """
    if logits.ndim != 2:
        raise ValueError(f"logits must be [n, C]: got shape {tuple(logits.shape)}.")
    predicted = logits.argmax(dim=1)
    # Float32, as released: how soon q saturates at 1 decides what is kept.
    q = torch.softmax((temperature * logits).float(), dim=1)
    q = q.gather(1, predicted[:, None]).squeeze(1)
    exact = q.double()  # sums of float32 numbers are exact: equal q are never above their own mean
    kept = torch.zeros_like(predicted, dtype=torch.bool)
    for c in predicted.unique():
        rows = (predicted == c).nonzero().squeeze(1)
        if len(rows) > 1:  # the deviation of a lone row is NaN: the release drops it
            kept[rows] = exact[rows] >= exact[rows].mean() + exact[rows].std()
    rows = kept.nonzero().squeeze(1)
    counts = torch.bincount(predicted[rows], minlength=logits.shape[1])
    return Purified(rows, predicted[rows], q[rows], counts)


def learn_classifier(
    bank: PatchBank,
    text: Tensor,
    purify: str | None = "released",
    temperature: float = CONSTANTS["voc07"]["purify_temperature"],
    class_names: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The visual classifier of a bank of patches (PIAA, PVCL Stages I to III).

    Parameters
    ----------
    bank : the patches selected in Stage I, at least one.
    text : [C, D] unit text features: the mean of a class for which a stage has no patch.
    purify : None ends after Stage I. "released": Stages II and III as in the authors' code, see
        :func:`purify_released`. "spread", ours, acts while the bank is filled: of each
        image it takes only the surest patch for a class, so the bank must be made with
        ``per_image=PER_IMAGE``, and there is no Stage III. What it gained on the mini world's
        `val` and `val_unseen`, at K = 512: the patches of an image are so much alike that whole
        banks came from 4 images a class, now from 64; patches read right rose from 40 to 53 %,
        the mAP of their maximum from 44.7 to 61.7 (text: 59.3). Purity fell, from 25 to 22 %:
        variety is what was missing. Not measured on photographs.
    temperature : T of "released".
    class_names : C names for the warnings; None numbers the classes.

    Returns
    -------
    W : [D, C] and b : [C], float32, on the device of `text`; the decision values are x @ W + b.
    report : what happened, ready for JSON. ``selected``: patches of each class in the bank;
        ``text_fallback``: classes (by number) without a patch in the last stage; ``images``:
        how many images the patches of each class come from; after "released" also ``predicted``
        and ``kept`` patches of each class, and ``kept_nothing``: True where it kept no patch at
        all.

    Raises
    ------
    ValueError
        If the bank is empty or does not fit the text, or on a wrong option.

    Warns
    -----
    UserWarning
        Naming the classes without a patch, whose text feature stands in for their mean; and if
        Stage II keeps nothing at all (the authors' code crashes there; here the classifier that was
        to be purified stays).

    Examples
    --------
    >>> bank = PatchBank(n_classes=2, k=2)
    >>> patches = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]]])
    >>> bank.update(patches, torch.eye(2), image_ids=[0])
    >>> W, b, report = learn_classifier(bank, torch.eye(2), purify=None)
    >>> (patches[0] @ W + b).argmax(dim=1).tolist()
    [0, 0, 1, 1]
    >>> report["selected"], report["images"]
    ([2, 2], [1, 1])
    """
    if len(bank) == 0:
        raise ValueError("The bank is empty: show it images with bank.update before learning.")
    features, labels = bank.features, bank.labels
    n_classes, width = bank.n_classes, features.shape[1]
    if text.shape != (n_classes, width):
        raise ValueError(
            f"text must be [C, D] = [{n_classes}, {width}] to fit the bank: "
            f"got shape {tuple(text.shape)}."
        )
    names = [f"class {c}" for c in range(n_classes)] if class_names is None else list(class_names)
    if len(names) != n_classes:
        raise ValueError(f"class_names must be {n_classes} names: got {len(names)}.")
    if purify not in (None, *METHODS):
        raise ValueError(f"purify must be one of {METHODS} or None: got {purify!r}.")
    limit = PER_IMAGE if purify == "spread" else None
    if bank.per_image != limit:
        raise ValueError(
            f"purify={purify!r} needs a bank made with per_image={limit}, and this one was made "
            f"with per_image={bank.per_image}."
        )

    weights = bank.probs.gather(1, labels[:, None]).squeeze(1)
    images = bank.image_id.split(bank.counts.tolist())  # of each class in turn
    report: dict[str, Any] = {
        "purify": purify,
        "temperature": temperature,
        "selected": bank.counts.tolist(),
        "images": [len(ids.unique()) for ids in images],
        "text_fallback": _without_rows(bank.counts, names, "Stage I selected"),
    }
    gda = _fit(features, labels, weights, text)
    if purify == "released":
        features = features.double().cpu()
        logits = features @ torch.as_tensor(gda.coef_.T) + torch.as_tensor(gda.intercept_)
        kept = purify_released(logits, temperature)
        predicted = torch.bincount(logits.argmax(dim=1), minlength=n_classes)
        report["predicted"], report["kept"] = predicted.tolist(), kept.counts.tolist()
        report["kept_nothing"] = len(kept.rows) == 0
        if report["kept_nothing"]:
            warnings.warn(
                f"Stage II (released, T={temperature:g}) kept no patch of any class: the "
                f"classifier of Stage I stays as it is.",
                stacklevel=2,
            )
        else:
            report["text_fallback"] = _without_rows(kept.counts, names, "Stage II kept")
            gda = _fit(features[kept.rows], kept.labels, kept.weights, text)
    W = torch.as_tensor(gda.coef_.T.copy(), dtype=torch.float32, device=text.device)
    b = torch.as_tensor(gda.intercept_, dtype=torch.float32, device=text.device)
    return W, b, report


def _fit(
    features: Tensor, labels: Tensor, weights: Tensor, text: Tensor
) -> GaussianDiscriminantAnalysis:
    """The GDA of the paper: text features as prototypes, weights in the class means only."""
    gda = GaussianDiscriminantAnalysis(prototypes=_array(text), weigh_covariance=False)
    return gda.fit(_array(features), _array(labels), _array(weights))


def _array(tensor: Tensor):
    return tensor.detach().cpu().numpy()


def _without_rows(counts: Tensor, names: list[str], what: str) -> list[int]:
    """The classes without a row, by number; one warning names them."""
    empty = (counts == 0).nonzero().squeeze(1).tolist()
    if empty:
        listed = ", ".join(names[c] for c in empty)
        warnings.warn(
            f"{what} no patch for {listed}: the text feature stands in for the mean.", stacklevel=3
        )
    return empty
