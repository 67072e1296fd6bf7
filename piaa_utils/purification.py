"""PVCL, Stages I to III: from a bank of patches to the visual classifier W, b.

With W and b from the GDA of ``piaa_utils.gda``:

    Stage I     GDA on the bank, each row weighed by its text probability p of its own class
    Stage II    q_ic = softmax_c(T (x_i.W + b)) on the bank, y_i = argmax; keep the trustworthy rows
    Stage III   GDA again, on the rows kept, each weighed by its q
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.selection import PatchBank

METHODS = ("released", "agree", "margin")


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


def purify(
    logits: Tensor,
    labels: Tensor,
    method: str = "released",
    temperature: float = 100.0,
    keep: float = 0.5,
) -> Purified:
    """Keep the rows of the bank that the Stage I classifier trusts (PIAA, PVCL Stage II).

    ``"released"``
        What the authors' code does: for each *predicted* class the rows with
        q >= mean + (unbiased) standard deviation of that class. Seldom a filter: where T saturates
        q at exactly 1 a class keeps all of its rows, otherwise often none, and never a lone row.
    ``"agree"``
        Ours: the rows for which the prediction agrees with the pseudo-label from the text.
    ``"margin"``
        Ours: of those, for each class, the share ``keep`` with the largest margin (decision value
        of the class minus the best other), rounded up.

    Parameters
    ----------
    logits : [n, C] decision values x.W + b of the bank.
    labels : [n] pseudo-labels of the bank.
    method : one of "released", "agree", "margin".
    temperature : T; in the authors' code 100 for VOC, 0.01 for COCO, 500 for NUS-WIDE.
    keep : share kept by "margin", above 0, at most 1.

    Raises
    ------
    ValueError
        On an unknown method, a share out of range, or shapes that do not fit.

    Examples
    --------
    >>> logits = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    >>> labels = torch.tensor([0, 0, 1, 1])  # the text takes the last for class 1, the GDA does not
    >>> purify(logits, labels, "agree").rows.tolist()
    [0, 1, 2]
    >>> purify(logits, labels, "margin", keep=0.5).rows.tolist()
    [0, 2]
    >>> purify(logits, labels, "released", temperature=1.0).rows.tolist()
    [0]
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be [n, C] and labels [n]: got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    predicted = logits.argmax(dim=1)
    # Float32, as released: how soon q saturates at 1 decides what is kept.
    q = torch.softmax((temperature * logits).float(), dim=1)
    q = q.gather(1, predicted[:, None]).squeeze(1)
    if method == "released":
        kept = _released(q, predicted)
    elif method == "agree":
        kept = predicted == labels
    elif method == "margin":
        kept = _margin(logits, labels, keep)
    else:
        raise ValueError(f"purify must be one of {METHODS} or None: got {method!r}.")
    rows = kept.nonzero().squeeze(1)
    counts = torch.bincount(predicted[rows], minlength=logits.shape[1])
    return Purified(rows, predicted[rows], q[rows], counts)


def _released(q: Tensor, predicted: Tensor) -> Tensor:
    """[n] bool: q >= mean + std of its predicted class."""
    q = q.double()  # sums of float32 numbers are exact: equal q are never above their own mean
    kept = torch.zeros_like(predicted, dtype=torch.bool)
    for c in predicted.unique():
        rows = (predicted == c).nonzero().squeeze(1)
        if len(rows) > 1:  # the deviation of a lone row is NaN: the release drops it
            kept[rows] = q[rows] >= q[rows].mean() + q[rows].std()
    return kept


def _margin(logits: Tensor, labels: Tensor, keep: float) -> Tensor:
    """[n] bool: the share `keep` of each class with the largest margin, of the rows that agree."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep is a share above 0 and at most 1: got {keep}.")
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    margin = own - others
    agree = logits.argmax(dim=1) == labels
    kept = torch.zeros_like(agree)
    for c in labels.unique():
        rows = (agree & (labels == c)).nonzero().squeeze(1)
        best = margin[rows].argsort(descending=True, stable=True)
        kept[rows[best[: math.ceil(keep * len(rows))]]] = True
    return kept


def learn_classifier(
    bank: PatchBank,
    text: Tensor,
    purify: str | None = "released",
    temperature: float = 100.0,
    keep: float = 0.5,
    rounds: int = 1,
    class_names: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The visual classifier of a bank of patches (PIAA, PVCL Stages I to III).

    Parameters
    ----------
    bank : the patches selected in Stage I, at least one.
    text : [C, D] unit text features: the mean of a class for which a stage has no patch.
    purify : Stage II's method, see :func:`purify`; None ends after Stage I.
    temperature, keep : passed to :func:`purify`.
    rounds : how often Stages II and III are run, each time on the whole bank with the newest
        classifier; 1 in the paper.
    class_names : C names for the warnings; None numbers the classes.

    Returns
    -------
    W : [D, C] and b : [C], float32, on the device of `text`; the decision values are x @ W + b.
    report : what happened, ready for JSON. ``selected``: patches of each class in the bank;
        ``text_fallback``: classes (by number) that had none; ``rounds``: for each run of Stages II
        and III ``predicted`` and ``kept`` patches of each class and its ``text_fallback``;
        ``kept_nothing``: True where Stage II kept no patch at all.

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
    >>> W, b, report = learn_classifier(bank, torch.eye(2), purify="agree")
    >>> (patches[0] @ W + b).argmax(dim=1).tolist()
    [0, 0, 1, 1]
    >>> report["selected"], report["rounds"][0]["kept"]
    ([2, 2], [2, 2])
    """
    if len(bank) == 0:
        raise ValueError("The bank is empty: show it images with bank.update before learning.")
    n_classes, width = bank.n_classes, bank.features.shape[1]
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
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more: got {rounds}.")

    weights = bank.probs.gather(1, bank.labels[:, None]).squeeze(1)
    gda = _fit(bank.features, bank.labels, weights, text)
    report: dict[str, Any] = {
        "purify": purify,
        "temperature": temperature,
        "selected": bank.counts.tolist(),
        "text_fallback": _without_rows(bank.counts, names, "Stage I selected"),
        "rounds": [],
        "kept_nothing": False,
    }
    if purify is not None:
        gda = _stages_two_and_three(
            gda, bank, text, purify, temperature, keep, rounds, names, report
        )
    W = torch.as_tensor(gda.coef_.T.copy(), dtype=torch.float32, device=text.device)
    b = torch.as_tensor(gda.intercept_, dtype=torch.float32, device=text.device)
    return W, b, report


def _stages_two_and_three(
    gda: GaussianDiscriminantAnalysis,
    bank: PatchBank,
    text: Tensor,
    method: str,
    temperature: float,
    keep: float,
    rounds: int,
    names: list[str],
    report: dict[str, Any],
) -> GaussianDiscriminantAnalysis:
    features = bank.features.double().cpu()
    labels = bank.labels.cpu()
    for _ in range(rounds):
        logits = features @ torch.as_tensor(gda.coef_.T) + torch.as_tensor(gda.intercept_)
        kept = purify(logits, labels, method, temperature, keep)
        predicted = torch.bincount(logits.argmax(dim=1), minlength=len(names))
        entry = {"predicted": predicted.tolist(), "kept": kept.counts.tolist()}
        report["rounds"].append(entry)
        if len(kept.rows) == 0:
            report["kept_nothing"] = True
            entry["text_fallback"] = []
            warnings.warn(
                f"Stage II ({method}, T={temperature:g}) kept no patch of any class: the "
                f"classifier that was to be purified stays as it is.",
                stacklevel=3,
            )
            return gda
        entry["text_fallback"] = _without_rows(kept.counts, names, "Stage II kept")
        gda = _fit(features[kept.rows], kept.labels, kept.weights, text)
    return gda


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
            f"{what} no patch for {listed}: the text feature stands in for the mean.", stacklevel=4
        )
    return empty
