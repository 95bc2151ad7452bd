"""Where in a forward pass the units of a layer lie, to change them there.

site = site_of(model, "layer4")
keep = torch.ones(len(images), site.units)
keep[:, 17] = 0
with site.replacing(lambda raw: raw * site.spread(keep)):
    logits = model.module(images)  # as the network answers without unit 17
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from torch import Tensor, nn

from microtome.dissect.models.adapter import tensors_of, with_tensor
from microtome.dissect.models.attention import Fused, Run, Watch
from microtome.dissect.models.layouts import Layout
from microtome.dissect.models.model import Model
from microtome.dissect.models.places import (
    CLASS_TOKEN,
    HEADS,
    KEYS,
    MEAN_HEADS,
    QUERIES,
    ROLLOUT,
    VALUES,
    Inside,
    Place,
)
from microtome.dissect.models.trace import places_of
from microtome.storage.errors import UsageError

Replace = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Site:
    """The place of one layer in its model.

    Of a head, what it adds to its attention's output is there to be changed; of a query, key or value feature that.
    """

    model: Model
    name: str
    place: Place

    @property
    def units(self) -> int:
        """How many units the layer has, C."""
        return self.place.layout.units

    @property
    def layout(self) -> Layout:
        """How the units lie in the raw tensor that `replacing` gives."""
        inside = self.place.inside
        if inside is not None and inside.output is not None and self.place.kind in (HEADS, MEAN_HEADS):
            return inside.output
        return self.place.layout

    def spread(self, values: Tensor) -> Tensor:
        """`values` (B, C), one for each image and unit, in a shape that broadcasts against the raw tensor here."""
        return self.layout.spread(values)

    @contextmanager
    def replacing(self, replace: Replace) -> Iterator[None]:
        """While open, the raw tensor that holds the units goes on as `replace(raw)`, in every forward pass.

        One thread at a time may run the model.
        """
        changer = _Changer(self.place, replace)
        module = self.model.module.get_submodule(self.place.module)
        handles = [
            self.model.module.register_forward_pre_hook(changer.begin, prepend=True),
            module.register_forward_pre_hook(changer.enter),
            module.register_forward_hook(changer.leave),
        ]
        try:
            yield
        finally:
            changer.close()
            for handle in handles:
                handle.remove()


def site_of(model: Model, name: str) -> Site:
    """The site of layer `name` (resolved).

    Raises UnknownNameError for no layer, UsageError for one without units, or whose units are no part of the network.
    """
    place = places_of(model, [name])[name]
    if place.kind == ROLLOUT:
        raise UsageError(
            f"layer {name!r} is computed from several attentions: there is nothing to take away; take :heads"
        )
    if place.kind == CLASS_TOKEN:
        raise UsageError(
            f"layer {name!r} is one token of a layer, whose units are removed from all its tokens; take "
            f"{name.rpartition(':')[0]}"
        )
    if place.kind in (HEADS, MEAN_HEADS) and (place.inside is None or place.inside.output is None):
        raise UsageError(f"layer {name!r}: its heads cannot be told apart in what the attention gives; take :v")
    return Site(model, name, place)


class _Changer:
    """Hooks that replace the raw tensor of a place."""

    def __init__(self, place: Place, replace: Replace) -> None:
        self._place, self._replace = place, replace
        self._calls = 0
        self._watch: Watch | None = None

    def begin(self, module: nn.Module, inputs: object) -> None:
        """Of the whole model: a new forward pass."""
        self._calls = 0
        self.close()

    def enter(self, module: nn.Module, inputs: object) -> None:
        """Before the call."""
        self._calls += 1
        inside = self._place.inside
        if inside is not None and self._calls == self._place.ordinal:
            self._watch = _AttentionChanger(self._place.kind, inside, self._replace)
            self._watch.__enter__()

    def leave(self, module: nn.Module, inputs: object, output: object) -> object:
        """After it."""
        self.close()
        if self._place.inside is not None or self._calls != self._place.ordinal:
            return output
        raw = next(islice(tensors_of(output), self._place.part, None))
        return with_tensor(output, self._place.part, self._replace(raw))

    def close(self) -> None:
        """Stop watching, where an error has kept the call from its end."""
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
        self._watch = None


class _AttentionChanger(Watch):
    """Replaces the queries, keys or values of an attention, or (for its heads) what it gives."""

    def __init__(self, kind: str, inside: Inside, replace: Replace) -> None:
        super().__init__()
        self._inside = inside
        self._changes = {kind: replace}
        if kind == MEAN_HEADS:
            self._changes = {HEADS: replace}

    def on_fused(self, number: int, fused: Fused, run: Callable[[Fused], Tensor]) -> Tensor:
        """All in one."""
        if not self._inside.fused or number != self._inside.scores:
            return run(fused)
        query, key, value = (
            self._changed(kind, tensor)
            for kind, tensor in ((QUERIES, fused.query), (KEYS, fused.key), (VALUES, fused.value))
        )
        return self._changed(HEADS, run(Fused(query, key, value, fused.mask, fused.causal, fused.scale)))

    def on_product(self, number: int, one: Tensor, other: Tensor, run: Run, equation: str) -> Tensor:
        """Queries and keys, or weights and values."""
        if self._inside.fused:
            return run(one, other)
        if number == self._inside.scores:
            return run(self._changed(QUERIES, one), self._changed(KEYS, other))
        if number == self._inside.mix:
            return self._changed(HEADS, run(one, self._changed(VALUES, other)))
        return run(one, other)

    def _changed(self, kind: str, tensor: Tensor) -> Tensor:
        replace = self._changes.get(kind)
        return tensor if replace is None else replace(tensor)
