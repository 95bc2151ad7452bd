"""What a gradient goes through on its way from a score to the images: found in the graph that autograd has recorded.

What is known to be no activation function is listed, and nothing else passes: a rectifier may be written in more ways
than anybody can foresee (`t * (t > 0)`, `(t + t.abs()) / 2`, `t[t < 0] = 0`).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import BackwardCFunction

from microtome.storage.errors import DoesNotApplyError

_RECTIFIERS: Mapping[str, Callable[[Any], bool]] = {
    "Relu": lambda node: True,
    "Threshold": lambda node: _is_zero(node._saved_threshold),
    "Hardtanh": lambda node: _is_zero(node._saved_min_val),
    "Clamp": lambda node: _is_zero(node._saved_min),
    "ClampMin": lambda node: _is_zero(node._saved_min),
}
"""The nodes of rectifiers, where what is said of the node holds."""

_ACTIVATIONS = {
    "Gelu": "GELU",
    "Silu": "SiLU",
    "Hardswish": "Hardswish",
    "Mish": "Mish",
    "Elu": "ELU",
    "Celu": "CELU",
    "LeakyRelu": "leaky ReLU",
    "PreluKernel": "PReLU",
    "RreluWithNoise": "RReLU",
    "Softplus": "Softplus",
    "Tanh": "tanh",
    "Hardtanh": "hard tanh",
    "LogSigmoid": "log-sigmoid",
    "Softshrink": "Softshrink",
    "Hardshrink": "Hardshrink",
    "Threshold": "threshold",
}
"""The nodes of activation functions that are none, and what they are called."""


def _named(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VIEWS = _named(
    "View ReshapeAlias UnsafeView Permute Transpose T Expand Unsqueeze Squeeze Clone Alias ToCopy "
    "torch::autograd::CopyBackwards Contiguous Flip Roll"
)
"""The same values in another shape, order or type."""

_LINEAR = _named(
    "torch::autograd::AccumulateGrad Convolution ConvolutionOverrideable Mm Addmm Bmm Baddbmm Addbmm Mv Addmv Dot "
    "Linear MkldnnLinear Add Sub Rsub Neg AsStrided Slice Select Split SplitWithSizes SafeSplit Unbind Cat Stack "
    "Repeat Unfold Im2Col Col2Im Diagonal Tril Triu Index IndexSelect Gather Take Cumsum PixelShuffle PixelUnshuffle "
    "ChannelShuffle GridSampler2D GridSampler3D"
)
_NORMS = _named("NativeBatchNorm CudnnBatchNorm MiopenBatchNorm BatchNorm NativeLayerNorm NativeGroupNorm FusedRmsNorm")
_STATISTICS = _named(
    "Mean Sum Var VarMean Std StdMean LinalgVectorNorm Norm AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D"
)
_GATES = _named("Sigmoid Hardsigmoid Softmax")
_OTHERS = _named(
    "LogSoftmax Glu MkldnnMaxPool2D MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D AdaptiveMaxPool3D "
    "FractionalMaxPool2D FractionalMaxPool3D ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D "
    "ReplicationPad2D ReplicationPad3D ConstantPadNd NativeDropout FusedDropout"
)
_KNOWN = _VIEWS | _LINEAR | _NORMS | _STATISTICS | _GATES | _OTHERS
_PREFIXES = ("Upsample", "ScaledDotProduct")

_AFFINE = _VIEWS | {"Add", "Sub", "Rsub", "Neg", "Mul", "Div"}
_OF_STATISTICS = _AFFINE | {"Sqrt", "Rsqrt", "Reciprocal", "Pow", "ClampMin", "ConstantPadNd"}
_ELEMENTWISE = _AFFINE | _NORMS | {"Sigmoid", "Hardsigmoid", "Pow"}
_READS = {"Slice": ("dim", "start", "end", "step"), "Select": ("dim", "index")}


@dataclass(frozen=True)
class Passage:
    """Operations on the way, each counted once: rectifiers, by the rule that replaces them; escaped, those that it has
    not; others, activation functions that are no rectifiers, by name, the most frequent first; unknown, operations that
    may be rectifiers or activation functions written otherwise, likewise; closed, the names of operations that compute
    their gradient in a way of their own, whose insides cannot be seen."""

    rectifiers: int
    escaped: int
    others: dict[str, int]
    unknown: dict[str, int]
    closed: tuple[str, ...]


def passage_of(values: Tensor, rule: type[Function]) -> Passage:
    """What lies between `values` (n,) and the leaves of its graph."""
    rectifiers = escaped = 0
    others, unknown = Counter[str](), Counter[str]()
    closed: set[str] = set()
    graph = _Graph(values, rule)
    for node in graph.nodes:
        name = _name(node)
        if isinstance(node, BackwardCFunction):
            if graph.is_rule(node):
                rectifiers += 1
            else:
                closed.add(name)
        elif "DifferentiableGraph" in name:
            closed.add("TorchScript")
        elif name in _RECTIFIERS and _RECTIFIERS[name](node):
            escaped += 1
        elif name in _ACTIVATIONS:
            others[_ACTIVATIONS[name]] += 1
        elif not graph.is_harmless(node):
            unknown[_spoken(name)] += 1
    return Passage(rectifiers, escaped, dict(others.most_common()), dict(unknown.most_common()), tuple(sorted(closed)))


_Edge = tuple[Any, int]


class _Graph:
    """What autograd has recorded of a score."""

    def __init__(self, values: Tensor, rule: type[Function]) -> None:
        self.nodes = list(_nodes(values))
        self._rule = rule
        self._consumers: dict[Any, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for before, _ in node.next_functions:
                self._consumers[before].append(node)

    def is_rule(self, node: Any) -> bool:
        """Whether it is a rectifier by the rule."""
        return getattr(node, "_forward_cls", None) is self._rule

    def is_harmless(self, node: Any) -> bool:
        """Whether the operation is surely no activation function."""
        name = _name(node)
        if name in _KNOWN or name.startswith(_PREFIXES):
            return True
        if name in ("Mul", "Div", "Addcmul"):
            return self._is_scaling(node, name)
        if name in ("Amax", "Max"):  # of the values and something else it is no pooling
            return _name(self._origin(node.next_functions[0], _VIEWS)[0]) not in ("Stack", "Cat", "ConstantPadNd")
        if name in ("Sqrt", "Rsqrt", "Reciprocal", "ClampMin"):
            return self._is_statistic(node.next_functions[0])
        if name == "Pow":
            return self._is_statistic(node.next_functions[0]) or self._is_for_statistics(node)
        if name == "torch::autograd::CopySlices":  # what is done there cannot be seen, but for a copy of other values
            return len(node.next_functions) == 2 and node.next_functions[1][0] is not None
        return False

    def _is_scaling(self, node: Any, name: str) -> bool:
        """Of a product or quotient: whether it is by a constant that is no mask, by a gate, or by a statistic."""
        one, other = node.next_functions[-2:]
        if one[0] is None and other[0] is None:
            return True
        if one[0] is None or other[0] is None:
            saved = ("_saved_tensor1", "_saved_tensor2") if name == "Addcmul" else ("_saved_self", "_saved_other")
            constant = getattr(node, saved[0 if one[0] is None else 1], None)
            if name == "Div" and one[0] is None:
                return self._is_statistic(other)
            return not _is_mask(constant, node)
        if self._is_same(one, other):
            return name == "Mul" and self._is_for_statistics(node)
        return self._is_weight(other) or (name != "Div" and self._is_weight(one))

    def _is_weight(self, edge: _Edge) -> bool:
        origin = self._origin(edge, _AFFINE)[0]
        gate = _name(origin) in _GATES or (self.is_rule(origin) and not math.isinf(origin.ceiling))
        return gate or self._is_statistic(edge)

    def _is_statistic(self, edge: _Edge) -> bool:
        return _name(self._origin(edge, _OF_STATISTICS)[0]) in _STATISTICS

    def _is_for_statistics(self, node: Any) -> bool:
        """Whether sums and means are all that is made of it."""
        return all(
            _name(each) in _STATISTICS or (_name(each) in _VIEWS | {"ConstantPadNd"} and self._is_for_statistics(each))
            for each in self._consumers[node]
        )

    def _is_same(self, one: _Edge, other: _Edge) -> bool:
        """Whether both are made, element by element, of the same values."""
        one, other = self._origin(one, _ELEMENTWISE), self._origin(other, _ELEMENTWISE)
        if one[0] is other[0]:
            return one[1] == other[1]
        name = _name(one[0])
        if name not in _READS or name != _name(other[0]):
            return False
        part, another = (tuple(getattr(each, f"_saved_{key}") for key in _READS[name]) for each in (one[0], other[0]))
        return part == another and self._is_same(one[0].next_functions[0], other[0].next_functions[0])

    def _origin(self, edge: _Edge, through: frozenset[str]) -> _Edge:
        """The first operation that is none of `through`, or that joins several."""
        node, index = edge
        while node is not None and (_name(node) in through or (through is _ELEMENTWISE and self.is_rule(node))):
            before = [each for each in node.next_functions if each[0] is not None]
            if len(before) != 1:
                break
            node, index = before[0]
        return node, index


def _is_mask(constant: Any, node: Any) -> bool:
    """Whether a factor tells some values of the activation from others, rather than scaling it."""
    if (
        not isinstance(constant, Tensor)
        or constant.shape != tuple(node._input_metadata[0].shape)
        or constant.numel() < 2
    ):
        return False
    low, high = constant.min(), constant.max()
    return bool(((constant == low) | (constant == high)).all())


def _name(node: Any) -> str:
    return "" if node is None else re.sub(r"Backward\d*$", "", node.name())


def _spoken(name: str) -> str:
    """As torch calls the function: masked_fill."""
    if name == "torch::autograd::CopySlices":
        return "in-place operation on a part"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rpartition("::")[2]).lower()


def refuse_reentrant(values: Tensor, method: str, spec: str) -> None:
    """Raise DoesNotApplyError where parts on the way are checkpointed in the form that knows of no gradients by inputs
    (torch.utils.checkpoint with use_reentrant=True)."""
    if any(node.name().startswith("CheckpointFunction") for node in _nodes(values)):
        raise DoesNotApplyError(
            method,
            f"{spec} uses reentrant activation checkpointing, through which no gradients can be taken",
            "load it without checkpointing, or with use_reentrant=False",
        )


def reaches(values: Tensor, origin: Tensor) -> bool:
    """Whether the gradient of `values` comes to `origin`, which asks for it."""
    if origin.grad_fn is not None:
        return any(node is origin.grad_fn for node in _nodes(values))
    return any(getattr(node, "variable", None) is origin for node in _nodes(values))


def _nodes(values: Tensor) -> Iterator[Any]:
    """Every node of the graph once."""
    seen, open_nodes = {values.grad_fn}, [values.grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        if node is None:
            continue
        yield node
        for before, _ in node.next_functions:
            if before not in seen:
                seen.add(before)
                open_nodes.append(before)


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not bool(value.any())
    return value is not None and value == 0
