"""Take the activation maps of chosen layers out of a forward pass.

with ActivationCapture(model, ["layer3", "layer4.1.relu@2", "blocks.11.attn:heads"]) as capture:
    maps = capture(batch)  # {"layer3": (B, 256, 14, 14) float32, ...}
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from microtome.dissect.models.adapter import tensors_of
from microtome.dissect.models.attention import Fused, Run, Watch
from microtome.dissect.models.model import Model
from microtome.dissect.models.places import HEADS, KEYS, MEAN_HEADS, QUERIES, ROLLOUT, VALUES, Inside, Place
from microtome.dissect.models.trace import places_of
from microtome.storage.errors import UsageError

T = TypeVar("T")

Call = tuple[str, int]  # a module's name, and which of its calls

WEIGHTS_AT_ONCE = 2**22
"""Attention weights of a head that are worked out at a time: 16 MB, for a batch."""


def copy_maps(name: str, maps: Tensor) -> Tensor:
    """The default transform: a contiguous float32 copy, which later in-place operations cannot change."""
    return maps.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


class ActivationCapture(Generic[T]):
    """Hooks on layers of a model, attached while the context is open.

    names: resolved layer names (`resolve_layers`): NAME@2 for the second call of a module in a forward pass, NAME:heads
    for what is inside its attention.
    transform: called within the pass as `transform(name, maps)`, maps (B, C, h, w) in the model's dtype and on its
    device; what it returns must not share memory with `maps`, since the next operation may work in place. Default:
    `copy_maps`.
    early_stop: end the forward pass as soon as the last chosen layer has been captured.
    gradients: record the pass for autograd; a transform that keeps the graph is then needed (`copy_maps` does not).

    Several threads may call one capture at the same time; each sees its own pass. Raises UnknownNameError for names
    that are no layers, UsageError for one whose module is called several times without saying which, or that has no
    units. A call raises UsageError when a layer is not called, or gives something else than the model's trace found.
    """

    @overload
    def __init__(
        self: ActivationCapture[Tensor],
        model: Model,
        names: Sequence[str],
        *,
        early_stop: bool = True,
        gradients: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: ActivationCapture[T],
        model: Model,
        names: Sequence[str],
        *,
        transform: Callable[[str, Tensor], T],
        early_stop: bool = True,
        gradients: bool = False,
    ) -> None: ...
    def __init__(
        self,
        model: Model,
        names: Sequence[str],
        *,
        transform: Callable[[str, Tensor], object] = copy_maps,
        early_stop: bool = True,
        gradients: bool = False,
    ) -> None:
        self._model, self._module = model, model.module
        self._names = tuple(dict.fromkeys(names))
        self._transform = transform
        self._early_stop = early_stop
        self._gradients = gradients
        self._outputs: dict[Call, list[tuple[str, Place]]] = {}
        self._attentions: dict[Call, _Wanted] = {}
        for name, place in places_of(model, self._names).items():
            if place.inside is None:
                self._outputs.setdefault(place.call, []).append((name, place))
                continue
            self._attentions.setdefault(place.call, _Wanted(place.inside)).places.append((name, place))
            if place.kind == ROLLOUT:
                for former in (*place.inside.before, place):
                    wanted = self._attentions.setdefault(former.call, _Wanted(former.inside or place.inside))
                    wanted.rolls = True
        self._local = threading.local()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        modules = dict(self._module.named_modules())
        for name in dict.fromkeys(name for name, _ in (*self._outputs, *self._attentions)):
            self._handles.append(modules[name].register_forward_pre_hook(partial(self._before, name)))
            self._handles.append(modules[name].register_forward_hook(partial(self._after, name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Remove every hook; leaving the context does it too."""
        while self._handles:
            self._handles.pop().remove()

    def __call__(self, batch: Tensor | tuple[Tensor, ...]) -> dict[str, T]:
        """Run `batch` through the module: images (B, 3, H, W), or a generator's latents, each with B rows.

        Gives the captured maps by layer name, in the order of `names`.
        """
        inputs = batch if isinstance(batch, tuple) else (batch,)
        if not self._handles and self._names:
            raise UsageError("the capture is closed: use it inside `with ActivationCapture(...) as capture:`")
        record: _Pass[T] = _Pass(len(inputs[0]))
        self._local.record = record
        try:
            with torch.set_grad_enabled(self._gradients), suppress(_Stop):
                self._model.run(inputs)
        finally:
            self._local.record = None
            while record.watches:
                record.watches.pop().__exit__(None, None, None)
        for name in self._names:
            if name not in record.captured:
                raise UsageError(f"layer {name!r} was not called in the forward pass")
        return {name: record.captured[name] for name in self._names}

    def _before(self, name: str, module: nn.Module, inputs: object) -> None:
        """A forward pre-hook, but for the first argument: from here on, the module's attention is watched."""
        record = self._record()
        if record is None:
            return
        record.calls[name] = ordinal = record.calls.get(name, 0) + 1
        wanted = self._attentions.get((name, ordinal))
        if wanted is not None:
            watch = _Taker(wanted, record, self._take)
            record.watches.append(watch)
            watch.__enter__()

    def _after(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        """A forward hook, but for the first argument."""
        record = self._record()
        if record is None:
            return
        call = (name, record.calls[name])
        if call in self._attentions:
            record.watches.pop().__exit__(None, None, None)
        for layer, place in self._outputs.get(call, ()):
            tensors = list(tensors_of(output))
            if place.part >= len(tensors):
                raise UsageError(f"layer {layer!r} gives other tensors than in the pass that found its units")
            self._take(record, layer, place, tensors[place.part])
        if self._early_stop and len(record.captured) == len(self._names):
            raise _Stop

    def _take(self, record: _Pass[T], name: str, place: Place, tensor: Tensor) -> None:
        if not place.layout.fits(tensor, record.batch):
            shape = "(" + ", ".join(map(str, tensor.shape)) + ")"
            raise UsageError(f"layer {name!r} gives {shape}, another shape than in the pass that found its units")
        maps = place.layout.maps(tensor, record.batch)
        record.captured[name] = self._transform(name, maps)  # type: ignore[assignment]

    def _record(self) -> _Pass[T] | None:
        return getattr(self._local, "record", None)


@dataclass
class _Wanted:
    """What is taken from one call's attention; rolls: it is part of a rollout."""

    inside: Inside
    places: list[tuple[str, Place]] = field(default_factory=list)
    rolls: bool = False


class _Pass(Generic[T]):
    """What one forward pass has given so far. rollouts: (B, L, L) by number of tokens L."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.calls: dict[str, int] = {}
        self.captured: dict[str, T] = {}
        self.watches: list[Watch] = []
        self.rollouts: dict[int, Tensor] = {}


class _Taker(Watch, Generic[T]):
    """Takes what is wanted from one call's attention."""

    def __init__(self, wanted: _Wanted, record: _Pass[T], take: Callable[[_Pass[T], str, Place, Tensor], None]) -> None:
        super().__init__()
        self._wanted, self._record_of, self._take = wanted, record, take
        self._scores: torch.Size | None = None

    def on_fused(self, number: int, fused: Fused, run: Callable[[Fused], Tensor]) -> Tensor:
        """Everything at once."""
        if self._wanted.inside.fused and number == self._wanted.inside.scores:
            self._take_tensor(QUERIES, fused.query)
            self._take_tensor(KEYS, fused.key)
            self._take_tensor(VALUES, fused.value)
            self._take_weights(fused.weights, fused.query.shape[-2], fused.key.shape[-2])
        return run(fused)

    def on_product(self, number: int, one: Tensor, other: Tensor, run: Run, equation: str) -> Tensor:
        """Queries and keys, or values."""
        inside = self._wanted.inside
        out = run(one, other)
        if not inside.fused and number == inside.scores:
            self._take_tensor(QUERIES, one)
            self._take_tensor(KEYS, other)
            self._scores = out.shape
        if not inside.fused and number == inside.mix:
            self._take_tensor(VALUES, other)
        return out

    def on_softmax(self, scores: Tensor, weights: Tensor) -> None:
        """The weights of an attention that is written out."""
        if self._scores is None or scores.shape[-2:] != self._scores[-2:] or scores.numel() != self._scores.numel():
            return
        self._scores = None
        self._take_weights(lambda rows: weights[..., rows, :], *weights.shape[-2:])

    def _take_tensor(self, kind: str, tensor: Tensor) -> None:
        for name, place in self._wanted.places:
            if place.kind == kind:
                self._take(self._record_of, name, place, tensor)

    def _take_weights(self, weights: Callable[[slice], Tensor], queries: int, keys: int) -> None:
        """Take from weights (..., n, Lk) of some queries at a time, so that memory stays flat as tokens grow."""
        kinds = {place.kind for _, place in self._wanted.places}
        row = self._wanted.inside.row
        if HEADS in kinds:
            self._take_tensor(HEADS, weights(slice(row, row + 1)).squeeze(-2))
        if MEAN_HEADS not in kinds and not self._wanted.rolls:
            return
        total, rows = None, []
        at_once = max(1, WEIGHTS_AT_ONCE // (self._record_of.batch * keys))
        for start in range(0, queries, at_once):
            part = weights(slice(start, start + at_once))
            added = part.sum(-2)
            total = added if total is None else total + added
            if self._wanted.rolls:
                rows.append(part.reshape(self._record_of.batch, -1, *part.shape[-2:]).mean(1))
        if total is not None:
            self._take_tensor(MEAN_HEADS, total / queries)
        if rows:
            self._take_tensor(ROLLOUT, self._roll(torch.cat(rows, 1))[:, row])

    def _roll(self, mean: Tensor) -> Tensor:
        """The rollout (B, L, L) up to here, of the heads' mean weights (B, L, L): half of each layer passes by its
        attention (Abnar and Zuidema, 2020)."""
        tokens = mean.shape[-1]
        step = 0.5 * mean + 0.5 * torch.eye(tokens, dtype=mean.dtype, device=mean.device)
        former = self._record_of.rollouts.get(tokens)
        self._record_of.rollouts[tokens] = rolled = step if former is None else step @ former
        return rolled


class _Stop(BaseException):
    """Ends a forward pass early. Not an Exception, so that a model's own `except Exception` lets it through."""
