"""The activation maps of a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from microtome.dissect.attribution.choosing import default_layer
from microtome.dissect.attribution.grids import enlarged
from microtome.dissect.attribution.subject import PEAK, At, Target, at_rest, check_unit, model_of, scoring
from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.model import Model


def activations(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    units: Sequence[int] | None = None,
    upsample: bool = False,
) -> Tensor:
    """The maps of a layer's units: (B, C, h, w) float32 on the layer's own grid, or of the images' size (`upsample`).

    layer: any layer of the model, NAME:heads and the like among them (default: that of Grad-CAM); units: which of its
    units, in this order (default: all, or `unit` alone). `target` is not looked at. Raises UnknownNameError for no such
    layer, UsageError for no such unit.
    """
    if unit is not None:
        units = (*(units or ()), unit)
    model = model_of(model, images)
    if layer is None:
        with scoring(model, images[:1]) as score:
            layer = default_layer(score, "activations")
    given = images.detach().to(model.placeholder())
    with at_rest(model.module), torch.no_grad(), ActivationCapture(model, [layer]) as capture:
        maps = capture(given.clone())[layer]  # which the model may change in place
    if units is not None:
        for each in units:
            check_unit(layer, each, maps.shape[1])
        maps = maps[:, list(units)]
    return enlarged(maps, images, upsample).to(images.device)
