"""The weights of convolutions, and pictures of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.dissect.attribution.subject import PEAK, At, Target, check_unit
from microtome.dissect.models.model import Model
from microtome.storage.errors import DoesNotApplyError, UnknownNameError, near_names


def filters(
    model: Model | nn.Module,
    images: Tensor | None = None,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
) -> Tensor:
    """The weights of a layer's convolution: (C, D, kh, kw) float32, D input channels of each of C filters, a copy.

    layer: a 2-D convolution, or a module that holds exactly one (default: the network's first convolution; a vision
    transformer's patch embedding is one). unit: of its filters that one alone. `images` and `target` are not looked
    at, but for the device of the result. Raises UnknownNameError for no such layer, UsageError for no such unit,
    DoesNotApplyError for a layer without a convolution.
    """
    module = model.module if isinstance(model, Model) else model
    convolution = _first(module) if layer is None else _of_layer(module, layer)
    weight = convolution.weight.detach().float().clone()
    if isinstance(convolution, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1).contiguous()
    if unit is not None:
        check_unit(layer or "", unit, len(weight))
        weight = weight[unit : unit + 1]
    return weight if images is None else weight.to(images.device)


def filter_images(weights: Tensor | NDArray[np.floating], *, common: bool = False) -> NDArray[np.uint8]:
    """Filters (C, D, kh, kw) as pictures, uint8 (C, kh, kw, 3).

    Three input channels are red, green and blue, and one is grey: a weight of 0 is 128, and the largest magnitude of
    each filter (`common`: of all filters) reaches 1 or 255. Of any other number of input channels the picture is the
    magnitude at each place, their root sum of squares, from black, 0, to white, the largest.
    """
    held = weights.detach().cpu().numpy() if isinstance(weights, Tensor) else np.asarray(weights)
    held = held.astype(np.float64)
    signed = held.shape[1] in (1, 3)
    shown = held if signed else np.sqrt((held**2).sum(1, keepdims=True))
    largest = np.abs(shown).max(None if common else (1, 2, 3), keepdims=True)
    scaled = np.divide(shown, largest, out=np.zeros_like(shown), where=largest > 0)
    pixels = 128 + 127 * scaled if signed else 255 * scaled
    pixels = np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:]))
    return np.ascontiguousarray(np.rint(pixels).astype(np.uint8).transpose(0, 2, 3, 1))


def _first(module: nn.Module) -> nn.Conv2d | nn.ConvTranspose2d:
    found = _convolutions(module)
    if not found:
        raise DoesNotApplyError("filters", "this network has no 2-D convolution", "take activations")
    return next(iter(found.values()))


def _of_layer(module: nn.Module, layer: str) -> nn.Conv2d | nn.ConvTranspose2d:
    modules = {name: each for name, each in module.named_modules(remove_duplicate=False) if name}
    every = _convolutions(module)
    head, _, ordinal = layer.rpartition("@")
    name = head if head and ordinal.isdigit() else layer
    if name not in modules:
        raise UnknownNameError("layer", layer, modules)
    inside = _convolutions(modules[name])
    if len(inside) == 1:
        return next(iter(inside.values()))
    if inside:
        listed = ", ".join(f"{name}.{part}" for part in list(inside)[:4])
        raise DoesNotApplyError("filters", f"layer {layer} holds {len(inside)} convolutions", f"take one, as {listed}")
    near = near_names(name, every) or list(every)[:4]
    advice = f"take one that is, as {', '.join(near[:4])}" if near else "the network has none at all"
    raise DoesNotApplyError("filters", f"layer {layer} is no 2-D convolution", advice)


def _convolutions(module: nn.Module) -> dict[str, nn.Conv2d | nn.ConvTranspose2d]:
    return {name: each for name, each in module.named_modules() if isinstance(each, nn.Conv2d | nn.ConvTranspose2d)}
