"""The rest of a network for many pairs of an image and what is removed there: head and tail of a trace as modules.

A row of the tail is an image of the batch that the head saw, by its number, and what is removed in it. The tail takes
the values of the frontier for the rows it needs, so that one batch holds many ablations of few images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from microtome.dissect.ablation.trace import Trace, is_constant, keep_constant, shape_of

Values = tuple[Tensor, ...]


def rows_of(values: Tensor, rows: Tensor, batch: int) -> Tensor:
    """What `values` (B * m, ...) holds of the images `rows` (R,): (R * m, ...)."""
    each = len(values) // batch
    if each == 1:
        return values.index_select(0, rows)
    grouped = values.view(batch, each, *values.shape[1:])
    return grouped.index_select(0, rows).flatten(0, 1)


class TailBuilder:
    """Writes the tail of a trace as a graph of its own, node by node.

    `values` collects the nodes of the trace that the head has to give, in the order of the tail's inputs.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.graph = fx.Graph()
        self.rows = self.graph.placeholder("rows")
        self.values: dict[fx.Node, fx.Node] = {}
        self._gathered: dict[fx.Node, fx.Node] = {}
        self._constants: dict[fx.Node, fx.Node] = {}
        self._again: dict[fx.Node, fx.Node] = {}
        self._first: fx.Node | None = None

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """A call of `target` as the next node."""
        return self.graph.call_function(target, args, kwargs)

    def cached(self, node: fx.Node) -> fx.Node:
        """The whole value of a node of the trace, for all images, as the head gave it."""
        if node not in self.values:
            with self.graph.inserting_after(self._first or self.rows):
                self.values[node] = self._first = self.graph.placeholder(f"value{len(self.values)}")
        return self.values[node]

    def gathered(self, node: fx.Node) -> fx.Node:
        """The value of a node of the trace for the images of the rows."""
        if node not in self._gathered:
            self._gathered[node] = self.call(rows_of, self.cached(node), self.rows, self.trace.batch)
        return self._gathered[node]

    def constant(self, node: fx.Node) -> fx.Node:
        """A constant of the trace."""
        if node not in self._constants:
            self._constants[node] = self.graph.get_attr(str(node.target))
        return self._constants[node]

    def own_constant(self, value: Tensor) -> fx.Node:
        """A constant that the trace does not have."""
        return self.graph.get_attr(keep_constant(self.trace.module, value))

    def untouched(self, node: fx.Node) -> fx.Node:
        """A constant, or what does not depend on the removal, for the images of the rows."""
        if is_constant(node):
            return self.constant(node)
        if node in self._again or not _leads_with_images(node, self.trace.batch):
            if node not in self._again:  # images are not its first axis: done anew, from what it is made of
                self._again[node] = self.copy(node, self.untouched)
            return self._again[node]
        return self.gathered(node)

    def copy(self, node: fx.Node, known: Callable[[fx.Node], fx.Node]) -> fx.Node:
        """The same operation on whole rows; `known` gives what its arguments have become."""
        return self.graph.node_copy(node, known)

    def finish(self, logits: fx.Node) -> Callable[..., Tensor]:
        """The tail as a module."""
        self.graph.output(logits)
        self.graph.lint()
        return _compiled(self.trace, self.graph)

    def removal(self, name: str) -> fx.Node:
        """An input that says what is removed: stands after `rows` and before the values."""
        with self.graph.inserting_after(self._first or self.rows):
            made = self._first = self.graph.placeholder(name)
        return made


class SetBuilder(TailBuilder):
    """Writes the tail for any set of units, whose inputs are (rows, removed (R, C), fill (R, C), *values)."""

    def build(self) -> Callable[..., Tensor]:
        """The tail as a module."""
        trace = self.trace
        made = {trace.removed: self.removal("removed"), trace.fill: self.removal("fill")}
        inside = {*trace.tail, *_between(trace)}
        for node in trace.module.graph.nodes:
            if node in inside:
                made[node] = self.copy(node, lambda arg: made[arg] if arg in made else self.untouched(arg))
        return self.finish(made[trace.logits])


class ReplacementBuilder(TailBuilder):
    """Writes the tail for anything in place of what the layer gave, whose inputs are (rows, replacement (R * m, ...),
    *values)."""

    def build(self) -> Callable[..., Tensor]:
        """The tail as a module."""
        trace = self.trace
        made = {trace.site: self.removal("replacement")}
        for node in trace.tail:
            if node is not trace.site:
                made[node] = self.copy(node, lambda arg: made[arg] if arg in made else self.untouched(arg))
        return self.finish(made[trace.logits])


def _between(trace: Trace) -> set[fx.Node]:
    """The nodes that bring what is removed to the layer's site."""
    found: set[fx.Node] = set()
    waiting = [node for node in trace.site.all_input_nodes if node is not trace.raw]
    while waiting:
        node = waiting.pop()
        if node.op == "call_function" and node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _leads_with_images(node: fx.Node, batch: int) -> bool:
    shape = shape_of(node)
    if node.op == "placeholder":
        return True
    return bool(shape) and shape[0] % batch == 0 and math.prod(shape) > 0


def head_of(trace: Trace, values: list[fx.Node]) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The whole pass with nothing removed, as a module that gives `values`, what the layer gave, and the logits."""
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    unneeded = {*_between(trace), trace.removed, trace.fill, trace.site}
    for node in trace.module.graph.nodes:
        if node is trace.site:
            made[node] = made[trace.raw]
        elif node.op != "output" and node not in unneeded:
            made[node] = graph.node_copy(node, made.__getitem__)
    graph.output(tuple(made[node] for node in (*values, trace.raw, trace.logits)))
    graph.eliminate_dead_code()
    graph.lint()
    return _compiled(trace, graph)


def _compiled(trace: Trace, graph: fx.Graph) -> Callable[..., Any]:
    return torch.no_grad()(fx.GraphModule(trace.module, graph).forward)
