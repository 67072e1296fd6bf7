"""PIAA, the three steps joined: encode patches, learn a classifier from them, aggregate.

fit       unlabelled images -> patches -> bank (selection) -> W, b (Gaussian discriminant)
predict   image -> patches and [CLS] -> x.W + b for each patch -> one score for each class
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from safetensors import SafetensorError, safe_open
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from torch import Tensor

from piaa_utils.aggregation import paa, spatial_softmax
from piaa_utils.backbone import MINI, Backbone, all_names, load_backbone
from piaa_utils.constants import (
    BANK_SIZE,
    CLS_WEIGHT,
    CONSTANTS,
    EVIDENCE_TEMPERATURE,
)
from piaa_utils.datasets import MINI_CLASSES, check_class_names
from piaa_utils.encoders import encode
from piaa_utils.files import write_whole
from piaa_utils.images import batches, image_name, open_image
from piaa_utils.messages import some
from piaa_utils.purification import PER_IMAGE, learn_classifier
from piaa_utils.selection import PatchBank

FORMAT = 2  # of saved classifiers; 1 had neither synonyms nor background


class PIAA(BaseEstimator):
    """Multi-label recognition with a frozen CLIP, learned from unlabelled images (PIAA).

    Parameters
    ----------
    class_names : C different names; they go into the templates. With the background's, two or more.
    backbone : "mini", an open_clip architecture, an open_clip model, or a ``Backbone`` that
        :func:`piaa_utils.backbone.load_backbone` made.
    pretrained : weights of the backbone, as for ``load_backbone``.
    encoder : a patch encoder of ``piaa_utils.encoders.ENCODERS``.
    selector : the encoder whose patches the text reads in Stage I, to say which patches to learn
        from. None, as in the paper, is `encoder` itself. Text reads SC-CLIP's patches best, and a
        learned classifier gains most on CLIP's ordinary ones: for ``encoder="vanilla",
        selector="scclip"`` see README.md.
    templates : prompts with ``{}``; one in the paper.
    n_select : K, patches kept for each class; 512 in the paper.
    purify : "spread" (ours, the default), "released" (the authors' code) or None, see
        :func:`piaa_utils.purification.learn_classifier`.
    purify_temperature : T of "released".
    cls_scale, patch_scale : s and m of the aggregation; by default those for VOC and the mini
        world. ``piaa_utils.constants.CONSTANTS`` has the paper's other data sets.
    cls_weight : share of [CLS] in the score; 0.1 in the paper.
    batch_size : images encoded at once; changes speed and memory, never a result.
    device : None takes a GPU where there is one.
    progress : whether work longer than two seconds shows a bar.
    synonyms : class name -> other names of the class, ``{"sofa": ["couch", "settee"]}``. The text
        feature is the mean over all names and templates, brought back to unit length.
    background : B names of what else the images show, such as "grass". They are classes in every
        softmax and in the learning, and are left out of scores and heat maps.

    Attributes
    ----------
    backbone_ : the ``Backbone``.
    classes_ : the class names, in the order of all scores; encoder_ : the encoder learned with.
    text_ : [C + B, D] unit text features, those of the background last, as in all that follows.
    coef_ : [C + B, D] and intercept_ : [C + B], the visual classifier (W transposed, and b).
    report_ : what each stage kept for each class, see ``learn_classifier``.
    skipped_ : (index, name, reason) of the images that the last call could not read.

    Examples
    --------
    >>> from piaa_utils.datasets import mini_scenes
    >>> images = mini_scenes("val").paths[:8]
    >>> piaa = PIAA(["cat", "dog", "person"], n_select=32).fit(images)
    >>> piaa.predict_proba(images).shape, piaa.patch_scores(images[0]).shape
    ((8, 3), torch.Size([3, 14, 14]))
    """

    def __init__(
        self,
        class_names: Sequence[str] = MINI_CLASSES,
        backbone: Any = MINI,
        pretrained: str | Path | None = None,
        encoder: str = "scclip",
        selector: str | None = None,
        templates: Sequence[str] = ("a photo of a {}",),
        n_select: int = BANK_SIZE,
        purify: str | None = "spread",
        purify_temperature: float = CONSTANTS["mini"]["purify_temperature"],
        cls_scale: float = CONSTANTS["mini"]["cls_scale"],
        patch_scale: float = CONSTANTS["mini"]["patch_scale"],
        cls_weight: float = CLS_WEIGHT,
        batch_size: int = 32,
        device: str | None = None,
        progress: bool = True,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        background: Sequence[str] = (),
    ):
        self.class_names = class_names
        self.backbone = backbone
        self.pretrained = pretrained
        self.encoder = encoder
        self.selector = selector
        self.templates = templates
        self.n_select = n_select
        self.purify = purify
        self.purify_temperature = purify_temperature
        self.cls_scale = cls_scale
        self.patch_scale = patch_scale
        self.cls_weight = cls_weight
        self.batch_size = batch_size
        self.device = device
        self.progress = progress
        self.synonyms = synonyms
        self.background = background

    def fit(self, images: object, y: object = None) -> PIAA:
        """Learn the visual classifier from images without labels (PVCL, Stages I to III).

        Parameters
        ----------
        images : a folder, paths, PIL images or a Dataset, see ``piaa_utils.images.list_images``.
        y : not used; here for scikit-learn's conventions.

        Raises
        ------
        ValueError
            On bad class names, no images, or an option out of range.
        UnreadableImage
            If not one of the images can be read; single ones are skipped, named in a warning and
            listed in ``skipped_``.
        """
        return self.fit_bank(self.select(images))

    def select(self, images: object, first_id: int = 0) -> PatchBank:
        """Stage I's bank of the images' lowest-entropy patches, which ``fit`` learns from.

        The images are numbered from `first_id` on. Banks of the parts of a collection can be merged
        if no number occurs twice: see ``PatchBank.merge``. Errors as in ``fit``.
        """
        self._prepare()
        per_image = PER_IMAGE if self.purify == "spread" else None
        bank = PatchBank(len(self.text_), self.n_select, per_image=per_image)
        read = self.selector or self.encoder
        for indices, features in self._encoded(images, "selecting patches", read):
            ids = [first_id + i for i in indices]
            bank.update(features[read], self.text_, ids, features[self.encoder])
        return bank

    def fit_bank(self, bank: PatchBank) -> PIAA:
        """Learn the visual classifier from a bank of patches (PVCL, Stages I to III)."""
        self._prepare()
        W, b, self.report_ = learn_classifier(
            bank,
            self.text_,
            self.purify,
            self.purify_temperature,
            class_names=[*self.class_names, *self.background],
        )
        self.coef_, self.intercept_ = W.T.contiguous(), b
        self._remember()
        return self

    def predict_proba(self, images: object) -> np.ndarray:
        """Scores of images: float32 [n, C], from 0 to 1, the classes of an image sum to 1 (PAA).

        With background classes, whose scores are left out, they sum to less.
        They rank images for each class, and classes for each image. A row of an unreadable image
        is NaN, and the image is named in a warning and listed in ``skipped_``.
        """
        self._check_fitted()
        rows: dict[int, Tensor] = {}
        for indices, features in self._encoded(images, "recognising"):
            scores = self.score_features(features[self.encoder], features["cls"])
            rows.update(zip(indices, scores.cpu(), strict=True))
        out = np.full((len(rows) + len(self.skipped_), len(self.class_names)), np.nan, np.float32)
        for index, row in rows.items():
            out[index] = row
        return out

    def score_features(self, patches: Tensor, cls: Tensor) -> Tensor:
        """PAA on features: unit patches [n, N, D] and unit [CLS] [n, D] to scores [n, C].

        It is computed on the device of the features, and there the scores are.
        """
        logits = self.decision_function(patches)
        scores = paa(
            logits,
            cls,
            self.text_.to(cls.device),
            self.cls_scale,
            self.patch_scale,
            EVIDENCE_TEMPERATURE,
            self.cls_weight,
        )
        return scores[:, : len(self.class_names)]

    def decision_function(self, patches: Tensor) -> Tensor:
        """x.W + b of unit patches: [..., D] to [..., C + B], on the device of the patches."""
        self._check_fitted()
        coef, intercept = (x.to(patches.device) for x in (self.coef_, self.intercept_))
        return patches @ coef.T + intercept

    def patch_scores(self, image: object) -> Tensor:
        """The heat maps of one image: [C, g, g], each patch's class probabilities g (PAA).

        Raises
        ------
        UnreadableImage
            If the image cannot be read.
        """
        self._check_fitted()
        pixels = self.backbone_.preprocess(open_image(image))[None]
        patches = encode(self.backbone_, pixels, self.encoder)[self.encoder][0]
        g = spatial_softmax(self.decision_function(patches), EVIDENCE_TEMPERATURE)
        return g[:, : len(self.class_names)].T.unflatten(1, (self.backbone_.grid, -1)).cpu()

    def save(self, path: str | os.PathLike) -> None:
        """Write the classifier to one safetensors file, its settings in there as JSON.

        The file appears whole or not at all. It holds the class names and the backbone's name and
        hash, so that ``load`` can refuse what does not fit. The backbone's weights are not in it.

        Raises
        ------
        OSError
            If the file cannot be written (no room, no permission); what was there stays.
        """
        self._check_fitted()
        settings = {k: v for k, v in self.get_params(deep=False).items() if k not in _NOT_SAVED}
        settings = {k: _listed(v) for k, v in settings.items()}
        about = {
            "format": FORMAT,
            "settings": settings,
            "backbone": identity(self.backbone_),
            "report": self.report_,
        }
        tensors = {"text": self.text_, "coef": self.coef_, "intercept": self.intercept_}
        tensors = {name: t.cpu().contiguous() for name, t in tensors.items()}
        metadata = {"piaa": json.dumps(about, default=_plain)}
        write_whole(path, safetensors.torch.save(tensors, metadata))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        class_names: Sequence[str] | None = None,
        backbone: Any = None,
        pretrained: str | Path | None = None,
        **settings: Any,
    ) -> PIAA:
        """Read a saved classifier.

        Parameters
        ----------
        path : a file that ``save`` wrote.
        class_names : the classes you expect; None takes those of the file.
        backbone, pretrained : None loads the backbone that the file names; one that was made from
            a model object or a file must be given again.
        settings : batch_size, device and progress; and those that you expect the file to have,
            such as templates, synonyms and background.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no saved classifier, or is one for other classes, with other settings
            than expected, or of another backbone.
        """
        about, tensors = _read(path)
        saved = {"synonyms": None, "background": []} | about["settings"]
        if class_names is not None and list(class_names) != saved["class_names"]:
            same = sorted(class_names) == sorted(saved["class_names"])
            what, mend = (
                ("the same classes in another order", "give them in its order")
                if same
                else ("other classes", "fit one for these")
            )
            raise ValueError(
                f"{path} was learned for {what} ({some(saved['class_names'])}; here "
                f"{some(class_names)}): {mend}, or load it without class_names."
            )
        for key in settings.keys() & saved.keys():
            expected = _listed(settings.pop(key))
            if (expected or None) != (saved[key] or None):
                raise ValueError(
                    f"{path} was learned with {key}={saved[key]!r}, not {expected!r}: fit one with "
                    f"these, or load it without {key}."
                )
        name = about["backbone"]["name"]
        if backbone is None:
            backbone, _, tag = name.partition("/")
            pretrained = pretrained or tag or None
        piaa = cls(**saved, backbone=backbone, pretrained=pretrained, **settings)
        try:
            piaa.backbone_ = piaa._load_backbone()
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(
                f"{path} was learned with the backbone {name}, which cannot be loaded by that "
                f"name: give it as backbone (and pretrained). {error}"
            ) from error
        if identity(piaa.backbone_) | {"name": name} != about["backbone"]:
            raise ValueError(
                f"{path} was learned with the backbone {name}, and {piaa.backbone_.name} here has "
                f"other weights, activation, image size or preprocessing: load it with that "
                f"backbone, or fit anew."
            )
        device = piaa.backbone_.device
        piaa.text_, piaa.coef_, piaa.intercept_ = (
            tensors[name].to(device) for name in ("text", "coef", "intercept")
        )
        piaa.report_, piaa.skipped_ = about["report"], []
        piaa._remember()
        return piaa

    def _prepare(self) -> None:
        """Load the backbone and the text features, once for the same settings."""
        check_class_names(self.class_names)
        if isinstance(self.background, str):
            raise ValueError(f"background must be a list of names, not {self.background!r}.")
        names, synonyms = [*self.class_names, *self.background], self.synonyms or {}
        check_class_names(sum(all_names(names, synonyms), []))
        if len(names) < 2:
            raise ValueError(
                f"PIAA compares classes and needs two or more, not {names}: add what else the "
                f"images may show to the classes, or as background=['grass', 'sky']."
            )
        key = (self.backbone, self.pretrained, self.device, *self._words())
        if getattr(self, "_prepared", None) != key:
            self.backbone_ = self._load_backbone()
            self.text_ = self.backbone_.encode_text(names, self.templates, synonyms)
            self._prepared = key

    def _words(self) -> tuple:
        """All that the text features depend on, as something that can be compared."""
        synonyms = tuple((name, tuple(others)) for name, others in (self.synonyms or {}).items())
        return tuple(self.class_names), tuple(self.background), tuple(self.templates), synonyms

    def _remember(self) -> None:
        """Note what the classifier was learned for."""
        self.classes_, self.encoder_ = tuple(self.class_names), self.encoder
        self._learned = self._words()

    def _load_backbone(self) -> Backbone:
        if isinstance(self.backbone, Backbone):
            return self.backbone
        return load_backbone(self.backbone, self.pretrained, self.device)

    def _encoded(self, images: object, desc: str, *more: str):
        """(indices, features) of each batch, by this and `more` encoders; fills ``skipped_``."""
        stream = batches(images, self.backbone_.preprocess, self.batch_size, self.progress, desc)
        try:
            for indices, pixels in stream:
                features = encode(self.backbone_, pixels, {self.encoder, *more})
                for i, patches in zip(indices, features[self.encoder], strict=True):
                    if not patches.isfinite().all():
                        raise ValueError(
                            f"The features of {image_name(stream.images[i], i)} are not finite: "
                            f"leave the image out, or check the backbone's weights."
                        )
                yield indices, features
        finally:  # also where not one image can be read
            self.skipped_ = stream.skipped

    def _check_fitted(self) -> None:
        if not hasattr(self, "coef_"):
            raise NotFittedError(
                "This PIAA has no classifier: call fit(images) or PIAA.load(path)."
            )
        words = self._words()
        if (self.encoder, *words) != (self.encoder_, *getattr(self, "_learned", words)):
            raise ValueError(
                "The class names, their synonyms, the background, the templates or the encoder "
                "were changed after the classifier was learned: call fit again."
            )


_NOT_SAVED = ("backbone", "pretrained", "batch_size", "device", "progress")


def identity(backbone: Backbone) -> dict[str, Any]:
    """What must agree for features to be the same."""
    return {
        "name": backbone.name,
        "weights_hash": backbone.weights_hash,
        "quick_gelu": backbone.quick_gelu,
        "image_size": backbone.image_size,
        "mean": backbone.mean,
        "std": backbone.std,
    }


def _listed(value: Any) -> Any:
    """Tuples as lists, also in a mapping: as JSON gives them back."""
    if isinstance(value, Mapping):
        return {key: list(each) for key, each in value.items()}
    return list(value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    """A NumPy number as JSON knows it."""
    return value.item()


def _read(path: str | os.PathLike) -> tuple[dict, dict[str, Tensor]]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no saved classifier {path}: check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["piaa"])
            if about["format"] not in (1, FORMAT):
                raise ValueError(f"it has format {about['format']}, not {FORMAT}")
            return about, {name: file.get_tensor(name) for name in ("text", "coef", "intercept")}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no classifier saved by PIAA.save, or is damaged ({error}): fit and save "
            f"it again."
        ) from error
