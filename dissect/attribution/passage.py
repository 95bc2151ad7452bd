"""What a gradient goes through on its way from a score to the images: found in the graph that autograd has recorded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import BackwardCFunction

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


@dataclass(frozen=True)
class Passage:
    """Operations on the way, each counted once: rectifiers, by the rule that replaces them; escaped, those that it has
    not; others, activation functions that are no rectifiers, by name, the most frequent first; closed, the names of
    operations that compute their gradient in a way of their own, whose insides cannot be seen."""

    rectifiers: int
    escaped: int
    others: dict[str, int]
    closed: tuple[str, ...]


def passage_of(values: Tensor, rule: type[Function]) -> Passage:
    """What lies between `values` (n,) and the leaves of its graph."""
    rectifiers = escaped = 0
    others: Counter[str] = Counter()
    closed: set[str] = set()
    for node in _nodes(values):
        name = re.sub(r"Backward\d*$", "", node.name())
        if isinstance(node, BackwardCFunction):
            if getattr(node, "_forward_cls", None) is rule:
                rectifiers += 1
            else:
                closed.add(name)
        elif "DifferentiableGraph" in name:
            closed.add("TorchScript")
        elif name in _RECTIFIERS and _RECTIFIERS[name](node):
            escaped += 1
        elif name in _ACTIVATIONS:
            others[_ACTIVATIONS[name]] += 1
    return Passage(rectifiers, escaped, dict(others.most_common()), tuple(sorted(closed)))


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
