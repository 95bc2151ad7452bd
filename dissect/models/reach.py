"""Make a gradient of NaN mark exactly the inputs that an output can depend on.

Backward passes are run operation by operation under a dispatch mode that takes over those that would lose or smear a
NaN; forward passes stay as they are. A convolution joins all channels of a group, so its marks travel as one channel
a group through a kernel of ones: exact, whatever kernel the library picks, and cheaper by the number of channels.
Max pooling passes marks to whole windows, and a ReLU and its kin let them through where their slope is nought.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_KINKED = frozenset(  # their first argument is the gradient, which they set to nought where the slope is
    f"aten.{name}_backward"
    for name in ("threshold", "hardtanh", "hardswish", "hardsigmoid", "hardshrink", "softshrink", "elu", "leaky_relu")
)
# never drop a NaN for the values of a forward pass
_LINEAR_OR_SMOOTH = """
    add add_ sub neg mul mul_ div div_ sum mean mm bmm addmm eq ne gt ge lt le
    clone detach copy_ _to_copy cat stack scalar_tensor new_zeros zeros zeros_like ones_like new_empty_strided
    view _unsafe_view reshape as_strided expand permute transpose t roll flip squeeze unsqueeze
    slice slice_backward select select_backward split narrow alias contiguous constant_pad_nd
    tanh_backward sigmoid_backward gelu_backward silu_backward _softmax_backward_data
    native_batch_norm_backward cudnn_batch_norm_backward native_layer_norm_backward native_group_norm_backward
    _scaled_dot_product_flash_attention_for_cpu_backward avg_pool2d_backward _adaptive_avg_pool2d_backward
    upsample_nearest2d_backward upsample_bilinear2d_backward reflection_pad2d_backward replication_pad2d_backward
"""
_TRANSPARENT = frozenset(f"aten.{name}" for name in _LINEAR_OR_SMOOTH.split())


class Reach(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run a backward pass within it, and NaN gradients reach all that an operation depends on, and nothing else.

    blocked: whether an operation was met that may have dropped marks, for the values of this forward pass; marks of
    passes with other values are then to be united.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.blocked = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler, which takes seconds, to keep it out of here

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = str(func.overloadpacket)
        if name in _KINKED and not kwargs:
            return args[0]
        rule = _RULES.get(name)
        if rule is not None and not kwargs:
            return rule(func, *args)
        self.blocked = self.blocked or name not in _TRANSPARENT
        return func(*args, **(kwargs or {}))


def _marks(reached: Tensor, like: Tensor) -> Tensor:
    """NaN where `reached`, nought elsewhere, in the type of `like`."""
    return torch.zeros_like(reached, dtype=like.dtype).masked_fill_(reached, torch.nan)


def _through_convolution(
    func: Any,
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_sizes: object,
    *geometry: Any,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """convolution_backward. geometry: stride, padding, dilation, transposed, output_padding, groups, output_mask."""
    *shared, groups, (of_input, of_weight, of_bias) = geometry
    _, weights, biases = (
        func(gradient, inputs, weight, bias_sizes, *shared, groups, [False, of_weight, of_bias])
        if of_weight or of_bias
        else (None, None, None)
    )
    if not of_input:
        return None, weights, biases
    marks = gradient.isnan().reshape(len(gradient), groups, -1, *gradient.shape[2:]).any(dim=2).float()
    blank = marks.new_zeros(len(inputs), groups, *inputs.shape[2:])
    ones = marks.new_ones(groups, 1, *weight.shape[2:])
    spread = func(marks, blank, ones, None, *shared, groups, [True, False, False])[0]
    reached = spread > 0.5  # whole numbers, but for the rounding of fast kernels
    joined = reached.repeat_interleave(inputs.shape[1] // groups, dim=1)
    return _marks(joined, gradient), weights, biases


def _through_windows(
    func: Any,
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *_: object,
) -> Tensor:
    """max_pool2d_with_indices_backward and max_pool3d_with_indices_backward: a mark reaches its whole window."""
    reached = gradient.isnan()
    axes = len(kernel)
    for axis in range(axes):
        dim = reached.ndim - axes + axis
        step, border, spacing = (_of_axis(value, axis) for value in (stride or kernel, padding, dilation))
        length, extent = inputs.shape[dim], (reached.shape[dim] - 1) * step + 1
        shape = list(reached.shape)
        shape[dim] = max(2 * border + length, extent + (kernel[axis] - 1) * spacing)  # more with ceil_mode
        wide = reached.new_zeros(shape).movedim(dim, -1)
        for tap in range(kernel[axis]):
            wide[..., tap * spacing : tap * spacing + extent : step] |= reached.movedim(dim, -1)
        reached = wide.narrow(-1, border, length).movedim(-1, dim)
    return _marks(reached, gradient)


def _of_axis(values: Sequence[int], axis: int) -> int:
    return values[axis] if len(values) > 1 else values[0]


_RULES: Mapping[str, Callable[..., Any]] = {
    "aten.convolution_backward": _through_convolution,
    "aten.max_pool2d_with_indices_backward": _through_windows,
    "aten.max_pool3d_with_indices_backward": _through_windows,
}
