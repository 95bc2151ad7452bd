"""Class activation maps: a layer's maps, weighted by what each unit is worth to the score.

Zhou et al., 2016 (CAM); Selvaraju et al., 2017 (Grad-CAM, guided Grad-CAM); Chattopadhyay et al., 2018 (Grad-CAM++).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from microtome.dissect.attribution.choosing import default_layer, last_layer
from microtome.dissect.attribution.grids import (
    Taken,
    ZeroMapError,
    enlarged,
    listed,
    maps_and_gradients,
    refuse_unit,
    zero_maps,
)
from microtome.dissect.attribution.passage import refuse_reentrant
from microtome.dissect.attribution.pooled import pooled_maps
from microtome.dissect.attribution.subject import PEAK, At, Score, Target, model_of, scoring
from microtome.dissect.models.model import Model
from microtome.dissect.models.sites import site_of
from microtome.storage.errors import DoesNotApplyError, UsageError

__all__ = ["ZeroMapError", "cam", "grad_cam", "grad_cam_plus_plus", "guided_grad_cam", "zero_maps"]

Combine = Callable[[Tensor, Tensor], Tensor]


def cam(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    upsample: bool = True,
) -> Tensor:
    """CAM (Zhou et al., 2016, eq. 2): sum over k of w[c, k] f_k(x, y), signed, without the bias: (B, H, W) float32.

    For a network whose logits are one linear layer (or 1 x 1 convolution) of the mean of its last maps over their
    positions; found, and verified, in the numbers of a forward pass. `layer`: whose maps these are, where it is given.
    Raises DoesNotApplyError for any other network, and for a unit.
    """
    refuse_unit("cam", unit, "it explains the classes of a linear layer")
    with scoring(model, images, target) as score, torch.no_grad():
        maps, weight = pooled_maps(score.model, score.images, layer)
        if score.classes is None:
            raise UsageError("cam explains a class")
        rows = weight[score.classes].to(maps.dtype)
        return enlarged(torch.einsum("bk,bkhw->bhw", rows, maps), images, upsample).to(images.device)


def grad_cam(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    maps_layer: str | None = None,
    upsample: bool = True,
    allow_zero: bool = False,
) -> Tensor:
    """Grad-CAM (Selvaraju et al., 2017, eq. 1 and 2): the maps of a layer, each times the mean of the score's gradient
    over its positions, summed, and what is negative set to zero: (B, H, W) float32, or on the grid of the layer.

    layer: whose maps they are, for a class (default: `choosing.default_layer`). A unit is `unit` of `layer`; the maps
    are then those of `maps_layer`, before it. Prefix tokens have no place in maps, and no part in the means.

    A map that is zero everywhere is refused, with a layer that works: ZeroMapError, whose `images` tells which of the
    batch they are, each as it would be alone. allow_zero: images whose gradients are not zero, but whose weighted
    sum is nowhere positive, get a map of zeros instead; `zero_maps` finds them.
    """
    return _explained("grad-cam", _grad_cam, model, images, target, layer, unit, at, maps_layer, upsample, allow_zero)


def grad_cam_plus_plus(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    maps_layer: str | None = None,
    upsample: bool = True,
    allow_zero: bool = False,
) -> Tensor:
    """Grad-CAM++ (Chattopadhyay et al., 2018): as Grad-CAM, but each unit weighs the sum over its positions of
    alpha relu(gradient), alpha = g^2 / (2 g^2 + (sum of the unit's map) g^3) (eq. 19).

    These alphas are of Y = exp(score), g the gradient of the score. The gradient of Y would be exp(score) g: one
    positive factor an image, which is left out since it changes the scale of a map alone, and overflows. Where the
    gradient is 0, so is alpha. Options, result and errors as `grad_cam`.
    """
    return _explained(
        "grad-cam++", _plus_plus, model, images, target, layer, unit, at, maps_layer, upsample, allow_zero
    )


def guided_grad_cam(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    maps_layer: str | None = None,
    allow_zero: bool = False,
) -> Tensor:
    """Guided Grad-CAM (Selvaraju et al., 2017, section 3.2): guided backpropagation times Grad-CAM at the size of the
    images, (B, 3, H, W) float32, signed. Raises DoesNotApplyError where either does not apply."""
    from microtome.dissect.attribution.rectifiers import guided_backprop

    model = model_of(model, images)
    where = layer if unit is not None else None
    fine = guided_backprop(model, images, target, where, unit=unit, at=at)
    coarse = grad_cam(model, images, target, layer, unit=unit, at=at, maps_layer=maps_layer, allow_zero=allow_zero)
    return fine * coarse.unsqueeze(1)


def _explained(
    method: str,
    combine: Combine,
    model: Model | nn.Module,
    images: Tensor,
    target: Target,
    layer: str | None,
    unit: int | None,
    at: At,
    maps_layer: str | None,
    upsample: bool,
    allow_zero: bool,
) -> Tensor:
    if unit is None and maps_layer is not None:
        raise UsageError(f"maps layer {maps_layer} goes with a unit; for a class, give it as the layer")
    with scoring(model, images, target, layer if unit is not None else None, unit=unit, at=at) as score:
        name = (maps_layer if unit is not None else layer) or default_layer(score, method)
        site = site_of(score.model, name)
        if site.layout.grid == (1, 1):
            raise DoesNotApplyError(
                method, f"layer {name} has one position and no map", f"take layer {default_layer(score, method)}"
            )
        taken = maps_and_gradients(score, site)
        maps = combine(taken.maps, taken.gradients)
        _refuse_zeros(method, combine, score, taken, maps, allow_zero)
        return enlarged(maps, images, upsample).to(images.device)


def _grad_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    """(B, h, w) of maps and gradients (B, C, h, w)."""
    return torch.einsum("bk,bkhw->bhw", gradients.mean((2, 3)), maps).relu()


def _plus_plus(maps: Tensor, gradients: Tensor) -> Tensor:
    """Likewise; alpha is divided by g^2 above and below, which underflows."""
    below = 2 + maps.sum((2, 3), keepdim=True) * gradients
    alphas = torch.where(below != 0, 1 / below, torch.zeros_like(below))
    weights = (alphas * gradients.relu()).sum((2, 3))
    return torch.einsum("bk,bkhw->bhw", weights, maps).relu()


def _refuse_zeros(method: str, combine: Combine, score: Score, taken: Taken, maps: Tensor, allow_zero: bool) -> None:
    flat, empty = zero_maps(taken.gradients), zero_maps(maps)
    refused = flat if allow_zero else empty
    if not refused:
        return
    refuse_reentrant(score(score.images.detach().clone().requires_grad_()), method, score.model.spec)
    rows = torch.tensor(refused, device=score.images.device)
    works = last_layer(
        score, score.images[rows], rows, lambda found: not zero_maps(combine(found.maps, found.gradients))
    )
    some = listed(refused, len(maps))
    if set(refused) <= set(flat):
        reason = f"the gradients at layer {taken.name} are zero everywhere{some}, and so is the map"
    else:
        reason = f"the map of layer {taken.name} is zero everywhere{some}: its weighted sum is nowhere positive"
    raise ZeroMapError(method, taken.name, refused, reason, works)
