"""A network's forward pass as a graph of ATen operations, cut at a layer.

The pass is traced with the layer's units replaced, `where(removed, fill, raw)`, for a fixed number of images. What
depends on `removed` and `fill` is the *tail*: the rest of the network, and all that has to be computed anew when units
are switched off. Everything else is the *head*, computed once an image; where the tail takes values from it (the
layer's own output, branches that pass the layer by) is the *frontier*.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.sites import Site
from microtome.storage.errors import MicrotomeError

aten = torch.ops.aten

NORMS = (aten.native_batch_norm.default, aten._native_batch_norm_legit_no_training.default)
VIEWS = (aten.view.default, aten._unsafe_view.default)
_TRAINING, _EPS = 5, 7


class UntraceableError(Exception):
    """The forward pass cannot be had as a graph; the message says why."""


@dataclass(frozen=True)
class Trace:
    """A traced pass over `batch` images; `shape_of` tells the shape that each node has.

    site: the node `where(removed, fill, raw)`; raw: what the layer gave; logits: (batch, K); tail: the nodes that
    depend on what is removed, in order.
    """

    module: fx.GraphModule
    batch: int
    images: fx.Node
    removed: fx.Node
    fill: fx.Node
    site: fx.Node
    raw: fx.Node
    logits: fx.Node
    tail: tuple[fx.Node, ...]


def is_constant(node: object) -> bool:
    """Whether a node is a parameter, a buffer or follows from them alone."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of the tensor that a node gives; () where it gives several."""
    return cast("tuple[int, ...]", node.meta.get("shape", ()))


def value_of(node: object) -> Tensor:
    """The value of a constant."""
    return cast("Tensor", cast("fx.Node", node).meta["value"])


def trace_pass(site: Site, images: Tensor) -> Trace:
    """Trace `site.model` over a batch of normalised images (B, 3, H, W), of which B is kept for good.

    Raises UntraceableError where control flow depends on data, or the layer's units are not replaced exactly once;
    UsageError where the model's output holds no logits.
    """

    def answer(images: Tensor, removed: Tensor, fill: Tensor) -> Tensor:
        with site.replacing(lambda raw: replaced(site, raw, removed, fill)):
            return logits_of(site.model.module(images), site.model.class_names)

    count = len(images)
    blank = images.new_zeros(count, site.units)
    try:
        module = make_fx(functionalize(answer, remove="mutations"))(images, blank, blank.clone())
    except MicrotomeError:
        raise
    except Exception as error:  # whatever a network's own code does that cannot be traced
        raise UntraceableError(str(error).strip().partition("\n")[0]) from error
    for node in module.graph.nodes:
        if node.target in VIEWS:  # rows that are taken out of a value lie otherwise in memory than the value did
            node.target = aten.reshape.default
    module.graph.eliminate_dead_code()
    _fold_constants(module, images, blank)
    _fold_norms(module)
    return _cut(module, count)


def replaced(site: Site, raw: Tensor, removed: Tensor, fill: Tensor) -> Tensor:
    """`raw` with the units that `removed` (B, C) marks at their value in `fill` (B, C)."""
    return torch.where(site.spread(removed) > 0.5, site.spread(fill).to(raw.dtype), raw)


def _fold_constants(module: fx.GraphModule, images: Tensor, blank: Tensor) -> None:
    """Compute once what depends on no input, and note the shape of all else."""

    class Noting(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                n.meta |= {"shape": tuple(result.shape), "dtype": result.dtype}
                if n.op == "get_attr" or (n.op == "call_function" and all(map(_is_known, n.all_input_nodes))):
                    n.meta["value"] = result
            return result

    Noting(module).run(images, blank, blank.clone())
    for node in list(module.graph.nodes):
        if node.op == "call_function" and _is_known(node):
            node.replace_all_uses_with(_constant(module, node, node.meta["value"]))
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()


def _is_known(node: fx.Node) -> bool:
    return "value" in node.meta


def _constant(module: fx.GraphModule, before: fx.Node, value: Tensor) -> fx.Node:
    name = keep_constant(module, value)
    with module.graph.inserting_before(before):
        made = module.graph.get_attr(name)
    made.meta |= {"value": value, "shape": tuple(value.shape)}
    return made


def keep_constant(module: fx.GraphModule, value: Tensor) -> str:
    """Have `value` in the module; returns its name there."""
    name = f"_kept{sum(1 for _ in module.buffers())}"
    module.register_buffer(name, value.detach())
    return name


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """A batch norm that has stopped learning: x (B, C, ...) times scale (C,) plus shift (C,)."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype)


def _fold_norms(module: fx.GraphModule) -> None:
    """Put batch norms into the convolutions before them, where nothing else reads those; else `scale_and_shift`."""
    for node in list(module.graph.nodes):
        if node.target not in NORMS or not all(map(is_constant, node.args[1:5])):
            continue
        legit = node.target is aten._native_batch_norm_legit_no_training.default
        if not legit and node.args[_TRAINING]:
            continue
        firsts = [user for user in node.users if user.target is operator.getitem and user.args[1] == 0]
        if len(firsts) != len(node.users):
            continue
        weight, bias, mean, variance = (value_of(arg) for arg in node.args[1:5])
        scale = weight / torch.sqrt(variance + node.args[-1 if legit else _EPS])
        shift = bias - mean * scale
        folded = _into_convolution(module, node, scale, shift) or _as_scaling(module, node, scale, shift)
        for first in firsts:
            folded.meta |= {name: first.meta[name] for name in ("shape", "dtype")}
            first.replace_all_uses_with(folded)
            module.graph.erase_node(first)
    module.graph.eliminate_dead_code()


def _into_convolution(module: fx.GraphModule, norm: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node | None:
    before = cast("fx.Node", norm.args[0])
    if before.target is not aten.convolution.default or len(before.users) > 1 or before.args[6]:
        return None
    x, weight, bias, *rest = before.args
    if not is_constant(weight) or not (bias is None or is_constant(bias)):
        return None
    had = value_of(weight)
    offset = shift if bias is None else shift + scale * value_of(bias)
    scaled = _constant(module, norm, (had * scale.view(-1, *[1] * (had.dim() - 1))).to(had.dtype))
    shifted = _constant(module, norm, offset.to(had.dtype))
    with module.graph.inserting_before(norm):
        return module.graph.call_function(aten.convolution.default, (x, scaled, shifted, *rest))


def _as_scaling(module: fx.GraphModule, norm: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    scaled, shifted = _constant(module, norm, scale), _constant(module, norm, shift)
    with module.graph.inserting_before(norm):
        return module.graph.call_function(scale_and_shift, (norm.args[0], scaled, shifted))


def _cut(module: fx.GraphModule, batch: int) -> Trace:
    nodes = list(module.graph.nodes)
    images, removed, fill = (node for node in nodes if node.op == "placeholder")
    (output,) = (node for node in nodes if node.op == "output")
    switched = downstream(nodes, [removed, fill])
    untouched = downstream(nodes, [images]) - switched
    mixing = [node for node in nodes if node in switched and not untouched.isdisjoint(node.all_input_nodes)]
    if not mixing:
        raise UntraceableError("what the layer gives does not reach the answer")
    site = mixing[0]
    raw = site.args[2] if site.target is aten.where.self else None
    if not isinstance(raw, fx.Node) or raw not in untouched:
        raise UntraceableError(f"the layer's units are not replaced by where, but by {site.target}")
    replacement = downstream(nodes, [removed, fill], without=site)
    changed = downstream(nodes, [site])
    tail = tuple(node for node in nodes if node in changed and node.op != "output")
    again = [node for node in tail if node is not site and not replacement.isdisjoint({*node.all_input_nodes} - {site})]
    if again:
        raise UntraceableError("the layer is called more than once in a pass")
    logits = output.args[0]
    if not isinstance(logits, fx.Node) or logits not in tail:
        raise UntraceableError("what the layer gives does not reach the answer")
    return Trace(module, batch, images, removed, fill, site, raw, logits, tail)


def downstream(nodes: Iterable[fx.Node], sources: Iterable[fx.Node], without: fx.Node | None = None) -> set[fx.Node]:
    """`sources` and all that depends on them, not by way of `without`."""
    found = set(sources)
    for node in nodes:
        if node is not without and not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found
