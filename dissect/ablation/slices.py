"""The tail for one unit at a time: only its slice of a value is carried along, as long as the rest is untouched.

After the layer a value differs from the untouched one in one channel alone. Operations that keep channels apart (an
activation, a norm that has stopped learning, pooling) need that channel only; a convolution or a linear layer adds what
the changed channel contributes, `untouched + w[:, unit] * (slice - untouched slice)`, at one channel's cost. Any other
operation gets the whole value, written out. All of this is exact but for rounding.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from microtome.dissect.ablation.tail import TailBuilder
from microtome.dissect.ablation.trace import Trace, is_constant, scale_and_shift, shape_of, value_of

aten = torch.ops.aten

_ELEMENTWISE = {
    *(aten.relu.default, aten.gelu.default, aten.silu.default, aten.sigmoid.default, aten.tanh.default),
    *(aten.hardtanh.default, aten.hardswish.default, aten.hardsigmoid.default, aten.leaky_relu.default),
    *(aten.elu.default, aten.mish.default, aten.softplus.default, aten.clamp.default, aten.clamp_min.default),
    *(aten.clamp_max.default, aten.neg.default, aten.exp.default, aten.abs.default, aten.sqrt.default),
    *(aten.rsqrt.default, aten.reciprocal.default, aten.pow.Tensor_Scalar, aten.nan_to_num.default),
    *(aten.clone.default, aten._to_copy.default, aten.detach.default, aten.alias.default),
    *(aten.mul.Scalar, aten.add.Scalar, aten.sub.Scalar, aten.div.Scalar),
}
_BINARY = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
_POOLS = {aten.avg_pool2d.default, aten._adaptive_avg_pool2d.default}
_VIEWS = {
    *(aten.reshape.default, aten.unsqueeze.default, aten.flatten.using_ints),
    *(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default),
}


@dataclass(frozen=True)
class Slice:
    """What one unit of each row has become: shaped like the value that it is of, with size 1 at `axis`.

    offset: the place of the layer's first unit along that axis.
    """

    node: fx.Node
    axis: int
    offset: int


class SliceBuilder(TailBuilder):
    """Writes the tail of a trace whose inputs are (rows, units (R,) int64, fill (C,), *values)."""

    def __init__(self, trace: Trace, axis: int) -> None:
        super().__init__(trace)
        self.units = self.removal("units")
        self.fill = self.removal("fill")
        self._axis = axis
        self._slices: dict[fx.Node, Slice] = {}
        self._whole: dict[fx.Node, fx.Node] = {}
        self._shifted: dict[int, fx.Node] = {0: self.units}

    def build(self) -> Callable[..., Tensor]:
        """The tail as a module."""
        for node in self.trace.tail:
            made = self._slice_of(node)
            if made is not None:
                self._slices[node] = made
            elif node not in self._whole:
                self._whole[node] = self.copy(node, self.known)
        return self.finish(self.known(self.trace.logits))

    def known(self, node: fx.Node) -> fx.Node:
        """A value of the trace for the rows, whole."""
        if node in self._slices and node not in self._whole:
            part = self._slices[node]
            whole = self.gathered(node)
            self._whole[node] = self.call(with_part, whole, part.node, self._places(part.offset), part.axis)
        return self._whole[node] if node in self._whole else self.untouched(node)

    def _places(self, offset: int) -> fx.Node:
        """The units' places along an axis where the layer's first unit is at `offset`."""
        if offset not in self._shifted:
            self._shifted[offset] = self.call(operator.add, self.units, offset)
        return self._shifted[offset]

    def _slice_of(self, node: fx.Node) -> Slice | None:
        """The slice that `node` gives; None where it takes no slice, or needs whole values."""
        if node is self.trace.site:
            shape = shape_of(self.trace.raw)
            dtype = self.trace.raw.meta["dtype"]
            return Slice(self.call(filled, self.fill, self.units, shape, self._axis, dtype), self._axis, 0)
        taken = [self._slices[arg] for arg in node.all_input_nodes if arg in self._slices]
        if not taken:
            return None
        part, target = taken[0], node.target
        if target in _ELEMENTWISE and len(node.all_input_nodes) == 1:
            return self._like(node, part)
        rules: dict[Any, Callable[[fx.Node, Slice], Slice | None]] = {
            **dict.fromkeys(_BINARY, self._binary),
            **dict.fromkeys(_POOLS, self._pool),
            **dict.fromkeys(_VIEWS, self._view),
            scale_and_shift: self._scaling,
            aten.max_pool2d_with_indices.default: self._max_pool,
            operator.getitem: lambda node, part: part,
            aten.mean.dim: self._mean,
            aten.permute.default: self._permute,
            aten.cat.default: self._cat,
            aten.convolution.default: self._convolution,
            aten.addmm.default: self._linear,
            aten.mm.default: self._linear,
        }
        return rules[target](node, part) if target in rules else None

    def _like(self, node: fx.Node, part: Slice) -> Slice:
        """The same operation on the slice; the axis stays."""
        return Slice(self.call(node.target, part.node, *node.args[1:], **node.kwargs), part.axis, part.offset)  # type: ignore[arg-type]

    def _is_map(self, node: fx.Node, part: Slice) -> bool:
        """Whether a slice is one of (B, C, h, w) along C."""
        shape = shape_of(cast("fx.Node", node.args[0]))
        return part.axis == 1 and len(shape) == 4 and shape[0] == self.trace.batch

    def _pool(self, node: fx.Node, part: Slice) -> Slice | None:
        return self._like(node, part) if self._is_map(node, part) else None

    def _max_pool(self, node: fx.Node, part: Slice) -> Slice | None:
        if not self._is_map(node, part) or any(user.args[1] != 0 for user in node.users):
            return None
        return Slice(self.call(F.max_pool2d, part.node, *node.args[1:], **node.kwargs), 1, part.offset)

    def _mean(self, node: fx.Node, part: Slice) -> Slice | None:
        source, dims, *rest = node.args
        rank = len(shape_of(cast("fx.Node", source)))
        reduced = [dim % rank for dim in cast("list[int]", dims or [])]
        if not reduced or 0 in reduced or part.axis in reduced:
            return None
        axis = part.axis if rest and rest[0] else part.axis - sum(dim < part.axis for dim in reduced)
        return Slice(self.call(node.target, part.node, reduced, *rest, **node.kwargs), axis, part.offset)  # type: ignore[arg-type]

    def _view(self, node: fx.Node, part: Slice) -> Slice | None:
        """Axes before and after the channels may be joined or split, as long as images stay first."""
        before, after = shape_of(cast("fx.Node", node.args[0])), shape_of(node)
        channels, batch = before[part.axis], self.trace.batch
        for axis in range(1, len(after)):
            if (after[axis], prod(after[:axis])) == (channels, prod(before[: part.axis])) and after[0] % batch == 0:
                shape = [after[0] if i == 0 else 1 if i == axis else size for i, size in enumerate(after)]
                return Slice(self.call(torch.reshape, part.node, shape), axis, part.offset)
        return None

    def _permute(self, node: fx.Node, part: Slice) -> Slice | None:
        order = [dim % len(shape_of(node)) for dim in cast("list[int]", node.args[1])]
        if order[0] != 0:
            return None
        return Slice(self.call(torch.permute, part.node, order), order.index(part.axis), part.offset)

    def _cat(self, node: fx.Node, part: Slice) -> Slice | None:
        """Beside untouched values the unit has another place."""
        parts = cast("list[fx.Node]", node.args[0])
        dim = cast("int", node.args[1]) if len(node.args) > 1 else 0
        changed = [number for number, arg in enumerate(parts) if arg in self._slices]
        tail = any(arg in self._whole for arg in parts)
        if dim % len(shape_of(node)) != part.axis or len(changed) != 1 or tail:
            return None
        before = sum(shape_of(arg)[part.axis] for arg in parts[: changed[0]])
        return Slice(part.node, part.axis, part.offset + before)

    def _scaling(self, node: fx.Node, part: Slice) -> Slice | None:
        if part.axis != 1 or shape_of(node)[0] != self.trace.batch:
            return None
        scale, shift = (self.constant(cast("fx.Node", arg)) for arg in node.args[1:])
        return Slice(self.call(scaled, part.node, scale, shift, self._places(part.offset)), 1, part.offset)

    def _binary(self, node: fx.Node, part: Slice) -> Slice | None:
        """Slices of the same units, and slices of what is untouched, are put together slice by slice."""
        operands = [self._operand(arg, node, part) for arg in node.args[:2]]
        if any(operand is None for operand in operands):
            return None
        return Slice(self.call(node.target, *operands, **node.kwargs), part.axis, part.offset)  # type: ignore[arg-type]

    def _operand(self, arg: object, node: fx.Node, part: Slice) -> fx.Node | float | None:
        if not isinstance(arg, fx.Node):
            return cast("float", arg)
        shape, whole = shape_of(arg), shape_of(node)
        if arg in self._slices:
            mine = self._slices[arg]
            fits = (mine.axis, mine.offset, shape) == (part.axis, part.offset, whole)
            return mine.node if fits else None
        if arg in self._whole or whole[0] != self.trace.batch:
            return None
        if is_constant(arg):
            wide = (1,) * (len(whole) - len(shape)) + shape
            if len(wide) != len(whole) or wide[0] != 1:
                return None
            if wide[part.axis] == 1:
                return self.constant(arg)
            return self.call(part_of_constant, self.constant(arg), self._places(part.offset), part.axis, len(whole))
        if len(shape) != len(whole) or shape[0] != whole[0]:
            return None
        return self.gathered(arg) if shape[part.axis] == 1 else self._untouched_part(arg, part)

    def _untouched_part(self, node: fx.Node, part: Slice) -> fx.Node:
        places = self._places(part.offset)
        return self.call(part_of, self.cached(node), self.rows, places, part.axis, self.trace.batch)

    def _convolution(self, node: fx.Node, part: Slice) -> Slice | None:
        """Of one group: the whole result, from the untouched one; depthwise: the slice. Others need whole values."""
        x, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
        constant = is_constant(weight) and (bias is None or is_constant(bias))
        if not constant or transposed or not self._is_map(node, part):
            return None
        kernel, places = value_of(weight), self._places(part.offset)
        settings = (stride, padding, dilation)
        if groups == 1:
            by_unit = self.own_constant(kernel.transpose(0, 1).flatten(2).contiguous())
            delta = self.call(torch.sub, part.node, self._untouched_part(cast("fx.Node", x), part))
            columns = self.call(columns_of, delta, tuple(kernel.shape[2:]), *settings)
            whole = self.call(added, self.gathered(node), by_unit, places, columns)
            self._whole[node] = whole
        elif groups == kernel.shape[0] == shape_of(cast("fx.Node", x))[1]:
            mine = self.constant(cast("fx.Node", weight))
            shift = bias if bias is None else self.constant(cast("fx.Node", bias))
            return Slice(self.call(depthwise, part.node, mine, shift, places, *settings), 1, part.offset)
        return None

    def _linear(self, node: fx.Node, part: Slice) -> Slice | None:
        """The whole result of a linear layer, from the untouched one."""
        x, weight = cast("list[fx.Node]", node.args[-2:])
        if part.axis == 1 and x in self._slices and is_constant(weight) and not node.kwargs:
            delta = self.call(torch.sub, part.node, self._untouched_part(x, part))
            by_unit = self.constant(weight)
            whole = self.call(added_rows, self.gathered(node), by_unit, self._places(part.offset), delta)
            self._whole[node] = whole
        return None


def filled(fill: Tensor, units: Tensor, shape: tuple[int, ...], axis: int, dtype: torch.dtype) -> Tensor:
    """The slice of removed units: fill (C,) at `units` (R,), shaped as the layer's output with size 1 at `axis`."""
    wanted = [len(units), *(1 if i == axis else size for i, size in enumerate(shape) if i)]
    return fill.to(dtype).index_select(0, units).view(-1, *[1] * (len(shape) - 1)).expand(wanted)


def part_of(values: Tensor, rows: Tensor, units: Tensor, axis: int, batch: int) -> Tensor:
    """The slices of `values` (B * m, ...) at images `rows` and `units` along `axis`: (R * m, ...), 1 at `axis`."""
    grouped = values.view(batch, len(values) // batch, *values.shape[1:]).movedim(axis + 1, 1)
    return grouped[rows, units].flatten(0, 1).unsqueeze(axis)


def with_part(whole: Tensor, part: Tensor, units: Tensor, axis: int) -> Tensor:
    """`whole` (R * m, ...), a copy of its own, with the slices `part` written at `units` along `axis`."""
    count = len(units)
    each = len(whole) // count
    grouped = whole.view(count, each, *whole.shape[1:]).movedim(axis + 1, 1)
    numbers = torch.arange(count, device=units.device)
    grouped[numbers, units] = part.squeeze(axis).unflatten(0, (count, each))  # type: ignore[no-untyped-call]
    return whole


def part_of_constant(values: Tensor, units: Tensor, axis: int, rank: int) -> Tensor:
    """Slices of a constant that broadcasts against a value of `rank` axes: (R, ...), 1 at `axis`."""
    wide = values.reshape(*[1] * (rank - values.dim()), *values.shape)[0]
    return wide.index_select(axis - 1, units).movedim(axis - 1, 0).unsqueeze(axis)


def scaled(part: Tensor, scale: Tensor, shift: Tensor, units: Tensor) -> Tensor:
    """`scale_and_shift` of slices (R, 1, ...)."""
    shape = (-1, *[1] * (part.dim() - 1))
    mine, offset = (values.index_select(0, units).view(shape) for values in (scale, shift))
    return torch.addcmul(offset, part, mine).to(part.dtype)


def columns_of(
    delta: Tensor, kernel: tuple[int, ...], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """The patches of one channel (R, 1, h, w) that a convolution meets: (R, kernel size, positions)."""
    if prod(kernel) == 1 and tuple(stride) == (1, 1) and not any(padding):
        return delta.flatten(2)
    return F.unfold(delta, kernel, tuple(dilation), tuple(padding), tuple(stride))


def added(untouched: Tensor, weight: Tensor, units: Tensor, columns: Tensor) -> Tensor:
    """Untouched results (R, O, h, w) plus what changed channels add; weight: (C, O, kernel size)."""
    flat = untouched.flatten(2)
    return torch.baddbmm(flat, weight.index_select(0, units), columns).view_as(untouched)


def added_rows(untouched: Tensor, weight: Tensor, units: Tensor, delta: Tensor) -> Tensor:
    """Untouched results (R * m, O) plus what changed features add; weight: (C, O), delta: (R * m, 1)."""
    count = len(units)
    each = len(untouched) // count
    flat = untouched.view(count, each, -1)
    return torch.baddbmm(flat, delta.view(count, each, 1), weight.index_select(0, units)[:, None]).view_as(untouched)


def depthwise(
    part: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    units: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """A depthwise convolution of slices (R, 1, h, w), each with its own unit's kernel."""
    count = len(units)
    kernels = weight.index_select(0, units)
    shifts = None if bias is None else bias.index_select(0, units)
    whole = F.conv2d(part.transpose(0, 1), kernels, shifts, stride, padding, dilation, count)
    return whole.transpose(0, 1)
