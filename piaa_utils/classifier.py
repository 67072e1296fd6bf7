"""PVCL, Stages I to III: from a bank of patches to the visual classifier W, b.

    Stage I     GDA on the bank, each row weighed by its text probability p of its own class
    Stage II    q_ic = softmax_c(T (x_i.W + b)) on the bank, y_i = argmax; keep the trustworthy rows
    Stage III   GDA again, on the rows kept, each weighed by its q

Stage I alone is the default; II and III are as the paper's authors released them.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from piaa_utils.gda import GaussianDiscriminantAnalysis
from piaa_utils.selection import PatchBank
from piaa_utils.settings import BANK_SIZE, PURIFY_TEMPERATURE, check_positive


class Purified(NamedTuple):
    """What Stage II keeps."""

    rows: Tensor  # [m] int64, positions in the bank, ascending
    labels: Tensor  # [m] int64, the class that each row now counts for
    weights: Tensor  # [m] float32, q of that class
    counts: Tensor  # [C] int64, rows kept for each class


class Learned(NamedTuple):
    """W [D, C] and b [C], float32: the decision values of patches x [..., D] are x @ W + b.

    report : ready for JSON: patches of each class ``selected`` for the bank, the ``images`` they
    are from, ``predicted`` and ``kept`` by Stage II, and if it ``kept_nothing``; ``text_fallback``:
    classes (by number) without a patch in the last stage.
    """

    W: Tensor
    b: Tensor
    report: dict[str, Any]


class Recipe(NamedTuple):
    """How the classifier is learned: its bank, and what happens to it (PIAA, PVCL).

    k : patches kept for a class.
    purify : None ends after Stage I. "released": Stages II and III as in the authors' code.
    purify_temperature : T of Stage II, see :data:`piaa_utils.settings.PURIFY_TEMPERATURE`.

    >>> recipe, text = Recipe(k=2), torch.eye(2)
    >>> bank = recipe.bank(n_classes=2)
    >>> patches = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]]])
    >>> bank.update(patches, text, image_ids=[0])
    >>> W, b, report = recipe.learn(bank, text)
    >>> (patches[0] @ W + b).argmax(dim=1).tolist(), report["selected"]
    ([0, 0, 1, 1], [2, 2])
    """

    k: int = BANK_SIZE
    purify: str | None = None
    purify_temperature: float = PURIFY_TEMPERATURE["voc07"]

    def bank(self, n_classes: int) -> PatchBank:
        """An empty bank for the patches of Stage I."""
        return PatchBank(n_classes, self.k)

    def learn(self, bank: PatchBank, text: Tensor, names: Sequence[str] | None = None) -> Learned:
        """The visual classifier of a bank of patches (PIAA, PVCL Stages I to III).

        text : [C, D] unit text features: the mean of a class for which a stage has no patch.
        names : C names for the warning that lists such classes; None numbers them.

        An empty bank or another `purify` is a ValueError. Where Stage II keeps nothing, Stage I's
        classifier stays, with a warning (the authors' code crashes there).
        """
        if self.purify not in (None, "released"):
            raise ValueError(f'purify must be None or "released": got {self.purify!r}.')
        check_positive("Recipe's", purify_temperature=self.purify_temperature)
        if len(bank) == 0:
            raise ValueError("The bank is empty: show it images with bank.update before learning.")
        names = names or [f"class {c}" for c in range(bank.n_classes)]
        p = bank.probs.gather(1, bank.labels[:, None]).squeeze(1)
        gda = fit_gda(bank.features, bank.labels, p, text)
        images = bank.image_id.split(bank.counts.tolist())  # of each class in turn
        report: dict[str, Any] = {
            "purify": self.purify,
            "temperature": self.purify_temperature,
            "selected": bank.counts.tolist(),
            "images": [len(ids.unique()) for ids in images],
            "text_fallback": _without_rows(bank.counts, names, "Stage I selected"),
        }
        if self.purify == "released":
            x = bank.features.double().cpu()
            logits = x @ torch.as_tensor(gda.coef_.T) + torch.as_tensor(gda.intercept_)
            kept = purify_released(logits, self.purify_temperature)
            predicted = torch.bincount(logits.argmax(dim=1), minlength=bank.n_classes)
            report["predicted"], report["kept"] = predicted.tolist(), kept.counts.tolist()
            report["kept_nothing"] = len(kept.rows) == 0
            if report["kept_nothing"]:
                stage = f"Stage II (released, T={self.purify_temperature:g})"
                warnings.warn(f"{stage} kept no patch of any class: Stage I stays.", stacklevel=2)
            else:
                report["text_fallback"] = _without_rows(kept.counts, names, "Stage II kept")
                gda = fit_gda(x[kept.rows], kept.labels, kept.weights, text)
        W = torch.as_tensor(gda.coef_.T.copy(), dtype=torch.float32, device=text.device)
        b = torch.as_tensor(gda.intercept_, dtype=torch.float32, device=text.device)
        return Learned(W, b, report)


def fit_gda(
    features: Tensor, labels: Tensor, weights: Tensor, text: Tensor
) -> GaussianDiscriminantAnalysis:
    """The GDA of the paper: text [C, D] as prototypes, weights [n], p or q, in the means only."""
    rows, y, w, prototypes = (x.detach().cpu().numpy() for x in (features, labels, weights, text))
    gda = GaussianDiscriminantAnalysis(prototypes=prototypes, weigh_covariance=False)
    return gda.fit(rows, y, w)


def purify_released(logits: Tensor, temperature: float = PURIFY_TEMPERATURE["voc07"]) -> Purified:
    """Stage II as the authors' code does it (PIAA, PVCL Stage II).

    q = softmax_c(T (x.W + b)) of [n, C] decision values; for each predicted class the rows with
    q >= mean + (unbiased) standard deviation of that class are kept, and never a lone row. Seldom a
    filter: where T saturates q at exactly 1, a class keeps all of its rows or none.

    >>> logits = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    >>> purify_released(logits, temperature=1.0).rows.tolist()
    [0]
    >>> purify_released(logits, temperature=100.0).rows.tolist()  # q is 1: class 0 keeps all
    [0, 1, 3]
    """
    predicted = logits.argmax(dim=1)
    # Float32, as released: how soon q saturates at 1 decides what is kept.
    q = torch.softmax((temperature * logits).float(), dim=1).amax(dim=1)
    kept = torch.zeros_like(predicted, dtype=torch.bool)
    for c in predicted.unique():
        rows = (predicted == c).nonzero().squeeze(1)
        if len(rows) > 1:  # the deviation of a lone row is NaN: the release drops it
            exact = q[rows].double()  # float32 sums would put equal q above their own mean
            bar = exact.mean() + exact.std()
            kept[rows] = q[rows] >= bar.float()  # rounded, as released: a q of 1 reaches 1 + 1e-8
    rows = kept.nonzero().squeeze(1)
    counts = torch.bincount(predicted[rows], minlength=logits.shape[1])
    return Purified(rows, predicted[rows], q[rows], counts)


def _without_rows(counts: Tensor, names: Sequence[str], what: str) -> list[int]:
    """The classes without a row, by number; one warning names them."""
    empty = (counts == 0).nonzero().squeeze(1).tolist()
    if empty:
        without = f"{what} no patch for {', '.join(names[c] for c in empty)}"
        warnings.warn(f"{without}: the text feature stands in for the mean.", stacklevel=3)
    return empty
