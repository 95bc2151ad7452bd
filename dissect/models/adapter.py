"""The one place where a module's output becomes units with activation maps.

Today: (B, C, h, w) gives C units on a grid of (h, w), and (B, D) gives D units on a grid of (1, 1). Other layouts
(token streams, channels last) are told apart here and refused with their name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from torch import Tensor

from microtome.storage.errors import UsageError


class UnusableOutputError(UsageError):
    """A layer's output holds no units that this version can dissect; the message says what it holds."""


def unit_maps(output: object, batch: int) -> Tensor:
    """The activation maps of a module's output: (B, C, h, w), a view wherever possible, never a copy made for safety.

    The output is a tensor, or a tuple, list, dict or dataclass, nested to any depth: of these the first
    floating-point tensor that has 4 or 2 dimensions and `batch` as the first of them, depth first, in the order of
    the container. Raises UnusableOutputError.
    """
    tensors = list(_tensors(output))
    for tensor in tensors:
        if tensor.ndim in (2, 4) and _fits(tensor, batch) and tensor.is_floating_point():
            return tensor if tensor.ndim == 4 else tensor[:, :, None, None]
    raise UnusableOutputError(_why_not(output, tensors, batch))


def _fits(tensor: Tensor, batch: int) -> bool:
    return tensor.shape[0] == batch and tensor.numel() > 0


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
        return
    parts: list[object] = []
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, tuple | list):
        parts = list(output)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        parts = [getattr(output, field.name) for field in dataclasses.fields(output)]
    for part in parts:
        yield from _tensors(part)


def _why_not(output: object, tensors: list[Tensor], batch: int) -> str:
    if not tensors:
        return f"gives a {type(output).__name__} without tensors"
    first = next((t for t in tensors if t.ndim == 3 and _fits(t, batch)), None)
    if first is not None:
        return f"gives tokens (B, {first.shape[1]}, {first.shape[2]}), which this version does not dissect"
    tensor = tensors[0]
    shape = "(" + ", ".join(map(str, tensor.shape)) + ")"
    if not tensor.is_floating_point():
        return f"gives {str(tensor.dtype).removeprefix('torch.')} values {shape}, not activations"
    if tensor.ndim == 0 or tensor.shape[0] != batch:
        return f"gives {shape} for a batch of {batch}: its first dimension is not the batch"
    return f"gives {shape}; expected (B, C, h, w) or (B, D)"
