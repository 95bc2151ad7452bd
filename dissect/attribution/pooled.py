"""Find the maps that a network averages over their positions, and the linear layer that turns the means into logits.

By numbers, not by names: every mean and every average pooling of a forward pass is seen, whatever calls it, and the
logits are computed again from what was averaged (Lin et al., 2014; Zhou et al., 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.model import Model
from microtome.dissect.models.trace import trace
from microtome.storage.errors import DoesNotApplyError

TOLERANCE = 1e-4
"""Of the largest value: as far apart two ways to average and multiply float32 may be."""

_ADVICE = "take grad-cam"


def pooled_maps(model: Model, images: Tensor, layer: str | None = None) -> tuple[Tensor, Tensor]:
    """The maps (B, C, h, w) that are averaged, and the weights (K, C): logits = weights mean(maps) + bias.

    layer: whose maps they are to be (default: what the network averages). Raises DoesNotApplyError where the logits
    are not that.
    """
    if layer is None:
        pools, heads, logits = _watched(model, images)
    else:
        _, heads, logits = _watched(model, images)
        with ActivationCapture(model, [layer]) as capture:
            pools = [capture(images.clone())[layer]]
    head = next((each for each in reversed(heads) if _same(each.output, logits)), None)
    if head is None:
        reason = "no linear layer gives this network's logits"
        if heads:
            reason += f": other operations follow the last one, {heads[-1].name}"
        raise DoesNotApplyError("cam", reason, _ADVICE)
    for pool in reversed(pools):
        for maps in _as_maps(model, pool, len(images)):
            if maps.shape[1] == head.weight.shape[1] and _same(head.of(maps.mean((2, 3))), logits):
                return maps, head.weight
    if layer is None:
        found = f"the linear layer {head.name} is not fed by the mean of maps over their positions"
        raise DoesNotApplyError("cam", found, _ADVICE)
    reason = f"the linear layer {head.name} of the mean of layer {layer} over its positions does not give the logits"
    raise DoesNotApplyError("cam", reason, f"{_ADVICE}, or leave the layer out")


class _Head:
    """One call of a linear layer: weight (K, C), bias (K,) or None, and what it gave, (B, K)."""

    def __init__(self, name: str, weight: Tensor, bias: Tensor | None, output: Tensor) -> None:
        self.name, self.output = name, output.detach().flatten(1).clone()
        self.weight = weight.detach().flatten(1)
        self._bias = bias

    def of(self, means: Tensor) -> Tensor:
        """The logits of means (B, C)."""
        return nn.functional.linear(means.to(self.weight), self.weight, self._bias)


def _watched(model: Model, images: Tensor) -> tuple[list[Tensor], list[_Head], Tensor]:
    """What was averaged, the linear layers, and the logits of one pass."""
    heads: list[_Head] = []
    handles = []
    for name, module in model.module.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
            handles.append(module.register_forward_hook(_noting(name, heads)))
    try:
        with torch.no_grad(), _Means(len(images)) as means:
            logits = logits_of(model.module(images.clone()), model.class_names).clone()
    finally:
        for handle in handles:
            handle.remove()
    return means.averaged, means.heads + heads, logits


def _noting(name: str, heads: list[_Head]) -> Any:
    def note(module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor) or not isinstance(module, nn.Linear | nn.Conv2d):
            return
        if isinstance(module, nn.Conv2d) and (module.groups > 1 or output.shape[2:] != (1, 1)):
            return
        if output.ndim == 2 or (output.ndim == 4 and isinstance(module, nn.Conv2d)):
            heads.append(_Head(name, module.weight, module.bias, output))

    return note


class _Means(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps, of the last means over positions in a pass, what was averaged, and the last products of one vector
    an image with a matrix: linear layers that are called as functions."""

    def __init__(self, batch: int, kept: int = 8) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.averaged: list[Tensor] = []
        self.heads: list[_Head] = []
        self._batch = batch
        self._kept = kept

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler to keep it out of here

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = str(func.overloadpacket).removeprefix("aten.")
        if (name in ("mean", "sum") or "avg_pool2d" in name) and args[0].ndim in (3, 4):
            self.averaged.append(args[0].detach().clone())
            del self.averaged[: -self._kept]
        output = func(*args, **(kwargs or {}))
        if name in ("mm", "addmm") and not kwargs and len(output) == self._batch:
            bias = args[0] if name == "addmm" else None
            self.heads.append(_Head("of a function", args[-1].t(), bias, output))
            del self.heads[: -self._kept]
        return output


def _as_maps(model: Model, averaged: Tensor, batch: int) -> list[Tensor]:
    """The readings of a tensor as maps (B, C, h, w): channels first, channels last; of tokens, those with a grid that
    some layer of the model has."""
    if averaged.shape[0] != batch:
        return []
    if averaged.ndim == 4:
        return [averaged, averaged.permute(0, 3, 1, 2)]
    grids = dict.fromkeys(call.place.layout.grid for call in reversed(trace(model)) if call.place is not None)
    return [
        tokens.transpose(1, 2).reshape(batch, -1, *grid)
        for grid in grids
        for tokens in (averaged, averaged.transpose(1, 2))
        if tokens.shape[1] == grid[0] * grid[1] > 1
    ]


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    largest = float(other.abs().max())
    return float((one.to(other) - other).abs().max()) <= TOLERANCE * max(largest, 1e-12)
