"""The weights of attentions as tensors that gradients can be taken by, whatever computes the attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from microtome.dissect.models.attention import Fused, Run, Watch
from microtome.dissect.models.model import Model
from microtome.dissect.models.places import Inside, Place
from microtome.storage.errors import UsageError


class Kept:
    """The weights (B, heads, L, L), or (B * heads, L, L), of each attention in the last pass."""

    def __init__(self) -> None:
        self.weights: dict[tuple[str, int], Tensor] = {}

    def of(self, place: Place) -> Tensor:
        """Those of one attention. Raises UsageError where it was not called."""
        if place.call not in self.weights:
            raise UsageError(f"the attention {place.module!r} was not called in the forward pass")
        return self.weights[place.call]


@contextmanager
def keeping_weights(model: Model, places: Sequence[Place]) -> Iterator[Kept]:
    """While open, a forward pass keeps the weights of the attentions at `places`, in the graph of the pass.

    Fused attention is computed as softmax(q k^T) v instead. One thread at a time may run the model.
    """
    kept, counts, watches = Kept(), dict[str, int](), list[Watch]()
    wanted = {place.call: place.inside for place in places if place.inside is not None}

    def begin(module: nn.Module, inputs: object) -> None:
        counts.clear()
        kept.weights.clear()

    def entering(name: str) -> Callable[[nn.Module, object], None]:
        def enter(module: nn.Module, inputs: object) -> None:
            counts[name] = counts.get(name, 0) + 1
            inside = wanted.get((name, counts[name]))
            if inside is not None:
                watches.append(_Keeper(inside, kept.weights, (name, counts[name])).__enter__())

        return enter

    def leaving(name: str) -> Callable[[nn.Module, object, object], None]:
        def leave(module: nn.Module, inputs: object, output: object) -> None:
            if (name, counts[name]) in wanted:
                watches.pop().__exit__(None, None, None)

        return leave

    handles = [model.module.register_forward_pre_hook(begin, prepend=True)]
    try:
        for name in dict.fromkeys(name for name, _ in wanted):
            module = model.module.get_submodule(name)
            handles += [
                module.register_forward_pre_hook(entering(name)),
                module.register_forward_hook(leaving(name)),
            ]
        yield kept
    finally:
        while watches:  # left open by an error inside the module
            watches.pop().__exit__(None, None, None)
        for handle in handles:
            handle.remove()


class _Keeper(Watch):
    """Keeps the weights of one attention of a module's call."""

    def __init__(self, inside: Inside, weights: dict[tuple[str, int], Tensor], call: tuple[str, int]) -> None:
        super().__init__()
        self._inside, self._weights, self._call = inside, weights, call
        self._scores: torch.Size | None = None

    def on_fused(self, number: int, fused: Fused, run: Callable[[Fused], Tensor]) -> Tensor:
        """The same in the open."""
        if not self._inside.fused or number != self._inside.scores:
            return run(fused)
        weights = self._weights[self._call] = fused.weights()
        value = fused.value
        if value.ndim > 2 and value.shape[-3] != weights.shape[-3]:  # grouped queries
            value = value.repeat_interleave(weights.shape[-3] // value.shape[-3], -3)
        return weights.to(value.dtype) @ value

    def on_product(self, number: int, one: Tensor, other: Tensor, run: Run, equation: str) -> Tensor:
        """The product of queries and keys, whose softmax is next."""
        out = run(one, other)
        if not self._inside.fused and number == self._inside.scores:
            self._scores = out.shape
        return out

    def on_softmax(self, scores: Tensor, weights: Tensor) -> None:
        """The weights of an attention that is written out."""
        if self._scores is None or scores.shape[-2:] != self._scores[-2:] or scores.numel() != self._scores.numel():
            return
        self._scores = None
        self._weights[self._call] = weights
