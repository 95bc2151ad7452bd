"""A method as the checks see it: from images and their classes to one number a pixel, on any model of that form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.attribution.methods import IMAGE, MAP, Method, method_of
from microtome.dissect.attribution.subject import scoring
from microtome.dissect.models.model import Model
from microtome.storage.errors import DoesNotApplyError, UsageError

Explain = Callable[[Model, Tensor, Tensor], Tensor]
"""From a model, images (B, 3, H, W) as it takes them and classes (B,) int64 to (B, H, W) or (B, C, H, W)."""

Floats = NDArray[np.float32]

BATCH = 8

_ADDITIVE = frozenset({"gradient-x-input", "integrated-gradients"})
_CLASS_ACTIVATION = ("grad-cam", "grad-cam++", "guided-grad-cam")


@dataclass(frozen=True)
class Maps:
    """One number a pixel, both (n, H, W) float32.

    evidence: how much it speaks for the class, negative where it speaks against and the method tells;
    magnitudes: how much it weighs either way, not negative: absolute values, summed over channels.
    """

    evidence: Floats
    magnitudes: Floats


@dataclass(frozen=True)
class Candidate:
    """One method with its layer and options.

    additive: whether channels of its answer are parts of a sum, so that a pixel speaks for the class by their signed
    sum; of the others a pixel's weight is the sum of magnitudes.
    """

    name: str
    explain: Explain
    additive: bool = False

    def maps(self, model: Model, images: Tensor, classes: Tensor, batch: int = BATCH) -> Maps:
        """The maps of images (n, 3, H, W) for classes (n,). Raises DoesNotApplyError."""
        evidence, magnitudes = [], []
        for start in range(0, len(images), batch):
            raw = self._answer(model, images[start : start + batch], classes[start : start + batch]).float()
            magnitudes.append(raw.abs() if raw.ndim == 3 else raw.abs().sum(1))
            signed = raw.sum(1) if raw.ndim == 4 and self.additive else raw
            evidence.append(signed if signed.ndim == 3 else magnitudes[-1])
        joined = (np.nan_to_num(torch.cat(each).cpu().numpy()) for each in (evidence, magnitudes))
        return Maps(*joined)

    def _answer(self, model: Model, images: Tensor, classes: Tensor) -> Tensor:
        """As the method answers; an image that it refuses among others gets zeros. Raises DoesNotApplyError where it
        refuses the only one."""
        try:
            return self.explain(model, images, classes)
        except DoesNotApplyError:
            if len(images) == 1:
                raise
        answers = [self._alone(model, images[i : i + 1], classes[i : i + 1]) for i in range(len(images))]
        given = [answer for answer in answers if answer is not None]
        if not given:
            return self.explain(model, images[:1], classes[:1])
        return torch.cat([torch.zeros_like(given[0]) if answer is None else answer for answer in answers])

    def _alone(self, model: Model, image: Tensor, label: Tensor) -> Tensor | None:
        try:
            return self.explain(model, image, label)
        except DoesNotApplyError:
            return None


def candidate_of(
    name: str, model: Model, images: Tensor, layer: str | None = None, options: Mapping[str, Any] | None = None
) -> Candidate:
    """The method `name` for a check on `model`; the layer that it chooses itself is chosen now, with the model as
    trained, and kept for models with other parameters.

    Raises UnknownNameError, and DoesNotApplyError for what gives no map of the image, or does not apply to the model.
    """
    method = method_of(name)
    if method.gives not in (MAP, IMAGE):
        raise DoesNotApplyError(name, f"it gives no weight to each pixel of an image ({method.gives})")
    found = dict(options or {})
    where = layer if method.layer else None
    if name in _CLASS_ACTIVATION:
        found.setdefault("allow_zero", True)
        where = where or _chosen_layer(name, model, images[:1])
    return Candidate(name, partial(_called, method, where, found), name in _ADDITIVE)


def _called(
    method: Method, layer: str | None, options: Mapping[str, Any], model: Model, images: Tensor, classes: Tensor
) -> Tensor:
    raw = method.load()(model, images, classes, layer, **options)
    if raw.ndim not in (3, 4) or raw.shape[-2:] != images.shape[-2:]:
        raise UsageError(f"{method.name} gives {tuple(raw.shape)}; a check needs maps of the size of the images")
    return raw


def _chosen_layer(name: str, model: Model, images: Tensor) -> str:
    from microtome.dissect.attribution.choosing import default_layer

    with scoring(model, images) as score:
        return default_layer(score, name)
