"""Make a gradient of NaN mark exactly the inputs that an output can depend on.

Convolutions run as plain matrix products, because Winograd and FFT kernels would smear a NaN. Max pooling passes its
gradient to the largest value alone; adding nought times the sum of its window leaves its values as they are and
takes a NaN to the whole window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode


@contextmanager
def exact_reach() -> Iterator[None]:
    """Within it, NaN gradients reach whole pooling windows, and nothing beyond what an operation depends on."""
    backends: tuple[Any, Any] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [backend.enabled for backend in backends]
    try:
        for backend in backends:
            backend.enabled = False
        with _WholeWindows():
            yield
    finally:
        for backend, enabled in zip(backends, before, strict=True):
            backend.enabled = enabled


class _WholeWindows(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "max_pool2d" and isinstance(result, Tensor):
            return result + 0 * _window_sum(result.shape, *args, **(kwargs or {}))
        return result


def _window_sum(
    shape: torch.Size,
    input: Tensor,  # noqa: A002
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *_: object,
    **__: object,
) -> Tensor:
    """The sum over each window of a pooling whose output has `shape`; the arguments are those of max_pool2d."""
    total = input
    for axis in (0, 1):
        kernel, step = _of_axis(kernel_size, axis), _of_axis(stride or kernel_size, axis)
        border, spacing = _of_axis(padding, axis), _of_axis(dilation, axis)
        sides = [border, border + step]  # a window that ceil_mode adds begins at most one step later
        total = pad(total, [0, 0, *sides] if axis == 0 else [*sides, 0, 0])
        dim, extent = total.ndim - 2 + axis, (shape[axis - 2] - 1) * step + 1
        taps = [total.narrow(dim, tap * spacing, extent) for tap in range(kernel)]
        total = _every(torch.stack(taps).sum(dim=0), dim, step)
    return total


def _every(tensor: Tensor, dim: int, step: int) -> Tensor:
    return tensor[..., ::step, :] if dim == tensor.ndim - 2 else tensor[..., ::step]


def _of_axis(value: int | Sequence[int], axis: int) -> int:
    if isinstance(value, int):
        return value
    return value[axis] if len(value) > 1 else value[0]
