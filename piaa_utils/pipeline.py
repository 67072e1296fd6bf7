"""PIAA, the three steps joined: encode patches, learn a classifier from them, aggregate.

fit       unlabelled images -> patches -> bank (selection) -> W, b (Gaussian discriminant)
predict   image -> patches and [CLS] -> x.W + b for each patch -> one score for each class
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from torch import Tensor

from piaa_utils.aggregation import paa, posterior
from piaa_utils.backbone import Backbone, load_backbone
from piaa_utils.classifier import Recipe
from piaa_utils.encoders import ENCODERS
from piaa_utils.files import printable, some, write_whole
from piaa_utils.images import list_images
from piaa_utils.selection import PatchBank
from piaa_utils.settings import CLS_WEIGHT, Scales, check_positive
from piaa_utils.vocabulary import Vocabulary
from piaa_utils.walk import Encoded, digest, walk

FORMAT, PARTS = 3, ("text", "coef", "intercept")  # of saved classifiers
KINDS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class PIAA(BaseEstimator):
    """Multi-label recognition with a frozen CLIP, learned from unlabelled images (PIAA).

    classes : C different names, or a ``Vocabulary``, whose B background names are classes in every
        softmax and in the learning, and are left out of scores and heat maps; C + B is 2 or more.
    backbone : "mini", or a ``Backbone`` of :func:`piaa_utils.backbone.load_backbone`.
    encoder : one of ``piaa_utils.encoders.ENCODERS``.    recipe : how Stages I to III learn.
    scales : s, m and T of the aggregation; None takes the backbone's own.
    cls_weight : share of [CLS] in the score, 0 to 1; 0.1 in the paper.
    batch_size : images encoded at once.    progress : whether long work shows a bar.

    Attributes: text_ [C + B, D], unit text features, the background's last; coef_ [C + B, D] and
    intercept_ [C + B], the visual classifier (W transposed, and b); report_, what each stage kept;
    skipped_, (index, name, reason) of the images that the last call could not read.

    >>> from piaa_utils.worlds import mini_scenes
    >>> images = mini_scenes("val").paths[:8]
    >>> piaa = PIAA(["cat", "dog", "person"], recipe=Recipe(k=32)).fit(images)
    >>> piaa.predict_proba(images).shape, piaa.heat_maps(images[0]).shape
    ((8, 3), torch.Size([3, 14, 14]))
    """

    def __init__(
        self,
        classes: Vocabulary | Sequence[str],
        backbone: str | Backbone = "mini",
        encoder: str = "scclip",
        recipe: Recipe = Recipe(),  # noqa: B008
        scales: Scales | None = None,
        cls_weight: float = CLS_WEIGHT,
        batch_size: int = 32,
        progress: bool = True,
    ):
        self.classes, self.backbone, self.encoder = classes, backbone, encoder
        self.recipe, self.scales, self.cls_weight = recipe, scales, cls_weight
        self.batch_size, self.progress = batch_size, progress

    @property
    def classes_(self) -> tuple[str, ...]:
        """The C class names, in the order of all scores."""
        return self.vocabulary_.class_names

    @property
    def scales_(self) -> Scales:
        """The scales given, else the backbone's."""
        return Scales(*self.scales) if self.scales else self.backbone_.scales

    def fit(self, images: Any, y: None = None) -> PIAA:
        """Learn from whatever :func:`list_images` takes, without labels (PVCL, Stages I to III).

        What cannot be learned from is a ValueError. Unreadable images are named in a warning and
        listed in ``skipped_``; if all are, it is an UnreadableImage.
        """
        return self.fit_bank(self.select(images))

    def select(self, images: Any, first_id: int = 0) -> PatchBank:
        """Stage I's bank, which ``fit`` learns from, of images numbered from `first_id` on."""
        self._prepare()
        bank = self.recipe.bank(len(self.text_))
        for ids, _, patches in self._walk(images, "selecting patches"):
            bank.update(patches[self.encoder], self.text_, [first_id + i for i in ids])
        return bank

    def fit_bank(self, bank: PatchBank) -> PIAA:
        """Learn the visual classifier from a bank of patches (PVCL, Stages I to III)."""
        self._prepare()
        learned = self.recipe.learn(bank, self.text_, self.vocabulary_.names)
        self.coef_, self.intercept_ = learned.W.T.contiguous(), learned.b
        self.report_, self.encoder_ = learned.report, self.encoder
        return self

    def predict_proba(self, images: Any) -> np.ndarray:
        """Scores of images: float32 [n, C], from 0 to 1, the classes of an image sum to 1 (PAA).

        With a background, they sum to less. The row of an unreadable image is NaN.
        """
        self._check_fitted()
        images = list_images(images)
        out = np.full((len(images), len(self.classes_)), np.nan, np.float32)
        for ids, cls, patches in self._walk(images, "recognising"):
            out[ids] = self.score_features(patches[self.encoder], cls).cpu()
        return out

    def score_features(self, patches: Tensor, cls: Tensor) -> Tensor:
        """PAA on unit patches [n, N, D] and unit [CLS] [n, D]: scores [n, C], on their device."""
        logits, text = self.decision_function(patches), self.text_.to(cls.device)
        return paa(logits, cls, text, self.scales_, self.cls_weight)[:, : len(self.classes_)]

    def decision_function(self, patches: Tensor) -> Tensor:
        """x.W + b of unit patches: [..., D] to [..., C + B], on the device of the patches."""
        self._check_fitted()
        return patches @ self.coef_.T.to(patches.device) + self.intercept_.to(patches.device)

    def heat_maps(self, image: Any) -> Tensor:
        """Where each class is in one image: [C, row, column], each patch's posterior g (PAA)."""
        self._check_fitted()
        (found,) = self._walk([image], "")
        g = posterior(self.decision_function(found.patches[self.encoder][0]), self.scales_.T)
        return g[:, : len(self.classes_)].T.unflatten(1, (self.backbone_.grid, -1)).cpu()

    def save(self, path: str | os.PathLike) -> None:
        """Write the classifier to one safetensors file, whole or not at all (then an OSError)."""
        self._check_fitted()
        values = (self.text_, self.coef_, self.intercept_)
        tensors = {n: x.float().cpu().contiguous() for n, x in zip(PARTS, values, strict=True)}
        about = {
            "format": FORMAT,
            "vocabulary": self.vocabulary_.to_dict(),
            "backbone": self.backbone_.identity(),
            "calibration": self.backbone_.calibration,
            "encoder": self.encoder,
            "recipe": self.recipe,
            "scales": self.scales_,
            "cls_weight": self.cls_weight,
            "report": self.report_,
            "shapes": {name: list(x.shape) for name, x in tensors.items()},
        }
        text = json.dumps(about, default=lambda number: number.item())
        digests = {kind: _digest(tensors, text, kind) for kind in KINDS}
        # One entry: safetensors puts several in any order, and a run's files could not be compared.
        metadata = {"piaa": json.dumps(json.loads(text) | {"digests": digests})}
        write_whole(Path(path), safetensors.torch.save(tensors, metadata))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        classes: Vocabulary | Sequence[str] | None = None,
        backbone: str | Backbone | None = None,
        scales: Scales | None = None,
        batch_size: int = 32,
        progress: bool = True,
        device: str | None = None,
    ) -> PIAA:
        """Read a classifier that ``save`` wrote, in any precision that it was brought to since.

        classes : the names, or the vocabulary, that you expect; None takes the file's.
        backbone : None loads the one that the file names, unless it came from an object or a file.
        scales : in place of the file's; device : where a backbone that is loaded here goes.

        A damaged or other file, and one for other classes or another backbone, is a ValueError.
        """
        about, tensors = _read(path)
        vocabulary = Vocabulary(**about["vocabulary"])
        names = vocabulary.class_names
        words = classes if isinstance(classes, Vocabulary | None) else tuple(classes)
        if words not in (None, vocabulary, names):
            what = f"was learned for other classes, words or another order ({some(names, 9)})"
            mend = "fit one for yours, or load it without classes"
            raise ValueError(f"{printable(path)} {what}: {mend}.")
        backbone = _backbone(path, about, backbone, device)
        recipe, scales = Recipe(*about["recipe"]), scales or Scales(*about["scales"])
        encoder, weight = about["encoder"], about["cls_weight"]
        piaa = cls(vocabulary, backbone, encoder, recipe, scales, weight, batch_size, progress)
        piaa._check_settings()
        piaa.backbone_, piaa.vocabulary_, piaa.encoder_ = backbone, vocabulary, encoder
        piaa.text_, piaa.coef_, piaa.intercept_ = (t.float().to(backbone.device) for t in tensors)
        piaa.report_, piaa.skipped_ = about["report"], []
        return piaa

    def _prepare(self) -> None:
        """Check the settings; load the backbone and the text features, once for the same ones."""
        self._check_settings()
        key = (self.backbone, vocabulary := Vocabulary.of(self.classes))
        if len(vocabulary) < 2:
            what = f"PIAA compares classes and needs two or more, not only {vocabulary.names[0]!r}"
            mend = "add what else the images may show, as classes or as the background"
            raise ValueError(f"{what}: {mend}.")
        if getattr(self, "_prepared", None) != key:
            backbone = self.backbone
            self.backbone_ = load_backbone(backbone) if isinstance(backbone, str) else backbone
            self.text_ = self.backbone_.encode_text(vocabulary)
            self.vocabulary_, self._prepared = vocabulary, key
            self.__dict__.pop("coef_", None)  # what was learned for others does no longer hold

    def _check_settings(self) -> None:
        """Refuse numbers that no score can be computed with, and unknown encoders."""
        if self.encoder not in ENCODERS:
            raise ValueError(f"No encoder is {self.encoder!r}; there are {some(ENCODERS, 9)}.")
        check_positive("The scale", **dict(zip("smT", self.scales or (), strict=False)))
        if not 0 <= self.cls_weight <= 1:
            raise ValueError(f"cls_weight must be from 0 to 1, not {self.cls_weight}.")

    def _walk(self, images: Any, desc: str) -> Iterator[Encoded]:
        """The batches of :func:`piaa_utils.walk.walk`; fills ``skipped_``."""
        self.skipped_: list[tuple[int, str, str]] = []
        size, progress = self.batch_size, self.progress
        return walk(self.backbone_, images, [self.encoder], size, 0, desc, progress, self.skipped_)

    def _check_fitted(self) -> None:
        if not hasattr(self, "coef_"):
            raise NotFittedError("There is no classifier: call fit(images) or PIAA.load(path).")
        if (Vocabulary.of(self.classes), self.encoder) != (self.vocabulary_, self.encoder_):
            what = "Words or encoder were changed after the classifier was learned"
            raise ValueError(f"{what}: fit it.")


def _digest(tensors: dict[str, Tensor], text: str, kind: str) -> str:
    """Of a classifier's description and its numbers, rounded to a kind of float."""
    rounded = {name: t.to(KINDS[kind]).float() for name, t in tensors.items()}
    return digest(rounded | {"about": torch.tensor(list(text.encode()))})


def _read(path: str | os.PathLike) -> tuple[dict[str, Any], list[Tensor]]:
    """The description of a saved classifier and its text, W and b, if they are what was saved."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no saved classifier {printable(path)}: check it.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["piaa"])
            tensors = {name: file.get_tensor(name) for name in PARTS}
        digests = about.pop("digests")
        if about["format"] != FORMAT:
            raise ValueError(f"it has format {about['format']}, not {FORMAT}")
        for name, x in tensors.items():
            if not x.isfinite().all():
                raise ValueError(f"{name} holds numbers that are not finite")
            if list(x.shape) != about["shapes"][name]:
                raise ValueError(f"{name} is {list(x.shape)}, not {about['shapes'][name]}")
        kind = str(tensors["coef"].dtype).removeprefix("torch.").replace("float64", "float32")
        if digests[kind] != _digest(tensors, json.dumps(about), kind):
            raise ValueError("its numbers or its description were changed")
        return about, [*tensors.values()]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        what = f"is no classifier saved by PIAA.save, or is damaged ({error}): fit it again."
        raise ValueError(f"{printable(path)} {what}") from error


def _backbone(path: Any, about: dict[str, Any], backbone: Any, device: str | None) -> Backbone:
    """The backbone that a classifier was learned with: the one given, or loaded by its name."""
    name = about["backbone"]["name"]
    learned = f"{printable(path)} was learned with the backbone {name}"
    if not isinstance(backbone, Backbone):
        plain, _, size = (backbone or name).partition("@")
        model, _, tag = plain.partition("/")
        try:
            backbone = load_backbone(model, tag or None, device, int(size) if size else None)
        except (ValueError, FileNotFoundError) as error:
            mend = f"which cannot be loaded by that name: give it as backbone. {error}"
            raise ValueError(f"{learned}, {mend}") from error
    here = backbone.identity() | {"name": name, "calibration": list(backbone.calibration)}
    if here != about["backbone"] | {"calibration": about["calibration"]}:
        what = f"{backbone.name} here has other weights, activation, sizes or calibration"
        raise ValueError(f"{learned}, and {what}: load it with that one, or fit anew.")
    return backbone
