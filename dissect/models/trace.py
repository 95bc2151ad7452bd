"""Watch one forward pass: which modules are called, in what order, how often, and which units each call holds."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from microtome.dissect.models.adapter import tensors_of
from microtome.dissect.models.class_token import base_of, class_token
from microtome.dissect.models.finding import Finder, Found, Frame
from microtome.dissect.models.following import Follow
from microtome.dissect.models.generators import Latents
from microtome.dissect.models.layouts import Layout, UnresolvedError, find_layout, generated_layout, hinted_layout
from microtome.dissect.models.model import Model, TokenHints
from microtome.dissect.models.places import ATTENTION_KINDS, CLASS_TOKEN, ROLLOUT, Inside, Place
from microtome.storage.errors import UnknownNameError, UsageError

_Parts = list[tuple[str, "weakref.ref[nn.Module]"]]
_KEPT: weakref.WeakKeyDictionary[Model, dict[int, tuple[_Parts, list[Call]]]] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()  # also, the hooks of two passes at once would record each other's calls


@dataclass(frozen=True)
class Call:
    """One call of one module, or (where `kind` is set) something inside its attention, or its class token.

    ordinal counts from 1; calls is how many that module had in the whole pass. place: where the units are, None where
    there are none; `note` then says what is there instead.
    """

    module_name: str
    ordinal: int
    calls: int
    place: Place | None
    note: str = ""
    kind: str = ""

    @property
    def name(self) -> str:
        """The layer's name: the module's, with `@ordinal` where it is called more than once, and `:kind`."""
        name = self.module_name if self.calls == 1 else f"{self.module_name}@{self.ordinal}"
        return f"{name}:{self.kind}" if self.kind else name

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(C, h, w), None where there are no units."""
        return None if self.place is None else (self.place.layout.units, *self.place.layout.grid)


def trace(model: Model, batch: int = 2) -> list[Call]:
    """Run noise through the model and list every call in the order in which the outputs are ready.

    Kept for the next request, as long as the model lives and has the same modules; threads wait for each other.
    With a batch of 1 an output whose first dimension is not the batch may pass for one. Raises UsageError if the
    model does not run on an input of its own preprocessing's size.
    """
    parts = [(name, weakref.ref(module)) for name, module in model.module.named_modules()]
    with _LOCK:
        kept = _KEPT.setdefault(model, {})
        if batch not in kept or kept[batch][0] != parts:
            kept[batch] = parts, _run(model, batch)
        return list(kept[batch][1])


def places_of(model: Model, names: Sequence[str]) -> dict[str, Place]:
    """Where the units of layers (resolved names) are, by name.

    Raises UnknownNameError for a name that is no layer, UsageError for one whose module is called several times without
    saying which, is never called, or has no units there.
    """
    calls = {call.name: call for call in trace(model)}
    modules = {name for name, _ in model.module.named_modules()}
    places = {}
    for name in names:
        if (base := base_of(name)) is not None and name not in calls:
            places[name] = _class_token_place(model, name, base)
            continue
        call = calls.get(name)
        if call is None and name not in modules:
            raise UnknownNameError("layer", name, (modules | set(calls)) - {""})
        if call is None:
            count = sum(c.module_name == name and not c.kind for c in calls.values())
            if not count:
                raise UsageError(f"layer {name!r} was not called in the forward pass")
            raise UsageError(
                f"layer {name!r} is called {count} times in a forward pass; choose among {name}@1 to {name}@{count}"
            )
        if call.place is None:
            raise UsageError(f"layer {name!r} {call.note}")
        places[name] = call.place
    return places


def with_class_token(model: Model, call: Call) -> Call:
    """The class token in what a call gives; without a place, and with a note, where there is none."""
    if call.place is None:
        return replace(call, kind=CLASS_TOKEN)
    try:
        return replace(call, place=class_token(call.place, model.module), kind=CLASS_TOKEN)
    except UnresolvedError as error:
        return replace(call, place=None, note=str(error), kind=CLASS_TOKEN)


def _class_token_place(model: Model, name: str, base: str) -> Place:
    try:
        return class_token(places_of(model, [base])[base], model.module)
    except UnresolvedError as error:
        raise UsageError(f"layer {name!r} {error}") from error


def _run(model: Model, batch: int) -> list[Call]:
    inputs = model.inputs(batch)
    follow = Follow(batch)
    recorder = _Recorder(follow, hints_of(model))
    handles = []
    for name, module in model.module.named_modules():
        handles.append(module.register_forward_pre_hook(partial(recorder.enter, name)))
        handles.append(module.register_forward_hook(partial(recorder.leave, name)))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), recorder.watching(model, inputs):
            model.run(inputs)
    except Exception as error:
        what = "images" if model.generator is None else "latents"
        shapes = " and ".join("(B" + "".join(f", {side}" for side in tensor.shape[1:]) + ")" for tensor in inputs)
        text = " ".join(str(error).split())
        raise UsageError(f"{model.spec} does not run on {what} {shapes}: {type(error).__name__}: {text}") from error
    finally:
        for handle in handles:
            handle.remove()
    return recorder.result()


def hints_of(model: Model) -> TokenHints:
    """What the user says of token streams, and else the model: its `num_prefix_tokens`."""
    prefix = model.tokens.prefix
    if prefix is None:
        stated = getattr(model.module, "num_prefix_tokens", None)
        prefix = stated if isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0 else None
    return TokenHints(model.tokens.grid, prefix)


class _Recorder:
    """Hooks that note what every call gives."""

    def __init__(self, follow: Follow, hints: TokenHints) -> None:
        self._finder = Finder(follow)
        self._follow, self._hints = follow, hints
        self._generates = False
        self._calls: list[Call] = []
        self._count: Counter[str] = Counter()
        self._attended: list[tuple[Place, int]] = []  # where a rollout passes, and how many tokens it has there

    @contextmanager
    def watching(self, model: Model, inputs: Latents) -> Iterator[None]:
        """While open, the positions of images are followed, and attention is seen; in a generator neither: its maps lie
        as (B, C, h, w), and no place in them comes from a place in its latents."""
        self._generates = model.generator is not None
        if self._generates:
            yield
            return
        with self._finder, self._follow:
            self._follow.begin(inputs[0])
            yield

    def enter(self, name: str, module: nn.Module, inputs: object) -> None:
        """A forward pre-hook, but for the first argument."""
        self._count[name] += 1
        self._finder.frames.append(Frame(module, name, self._count[name]))

    def leave(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        """A forward hook, but for the first argument."""
        frame = self._finder.frames.pop()
        while frame.name != name:  # left by an exception that the model has caught
            frame = self._finder.frames.pop()
        place, note = None, ""
        try:
            layout, part = self._layout(output)
            place = Place(name, frame.ordinal, layout, part=part)
        except UnresolvedError as error:
            note = str(error)
        self._calls.append(Call(name, frame.ordinal, 1, place, note))
        if len(frame.found) == 1:
            self._calls += self._inside(frame, frame.found[0])
        elif frame.found:
            note = f"has {len(frame.found)} attentions in one call, and a name for none of them"
            self._calls += [Call(name, frame.ordinal, 1, None, note, kind) for kind in ATTENTION_KINDS]

    def result(self) -> list[Call]:
        """Every call so far."""
        return [replace(call, calls=self._count[call.module_name]) for call in self._calls]

    def _layout(self, output: object) -> tuple[Layout, int]:
        """The layout of the first tensor in `output` that has one, and its number."""
        first = ""
        for number, tensor in enumerate(tensors_of(output)):
            try:
                return self._layout_of(tensor), number
            except UnresolvedError as error:
                first = first or str(error)
        raise UnresolvedError(first or f"gives a {type(output).__name__} without tensors")

    def _layout_of(self, tensor: Tensor) -> Layout:
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            words = "(" + ", ".join(map(str, shape)) + ")"
            raise UnresolvedError(f"gives {str(tensor.dtype).removeprefix('torch.')} values {words}, not activations")
        if self._generates:
            return generated_layout(shape, self._follow.grids.batch, self._hints)
        try:
            return find_layout(self._follow.ids_of(tensor), shape, self._follow.grids)
        except UnresolvedError as error:
            said = hinted_layout(shape, self._follow.grids.batch, self._hints)
            if said is not None:
                return said
            advice = ""
            if len(shape) in (3, 4) and shape[0] == self._follow.grids.batch:
                lost = f" (lost at {', '.join(self._follow.lost[:3])})" if self._follow.lost else ""
                advice = f"{lost}; if it holds them all the same, say where: --grid HxW and --prefix P"
            raise UnresolvedError(f"{error}{advice}") from error

    def _inside(self, frame: Frame, found: Found) -> list[Call]:
        """The layers inside a call's attention."""
        calls = []
        for kind in ATTENTION_KINDS:
            place, note = found.places.get(kind), found.notes.get(kind, "has no such units")
            if place is not None and kind == ROLLOUT:
                place = self._with_former(place, found.tokens)
            calls.append(Call(frame.name, frame.ordinal, 1, place, "" if place else note, kind))
        return calls

    def _with_former(self, place: Place, tokens: int) -> Place:
        """A rollout's place, with those that it begins with: all before it with as many tokens."""
        before = tuple(former for former, count in self._attended if count == tokens)
        self._attended.append((place, tokens))
        inside = place.inside
        return place if not isinstance(inside, Inside) else replace(place, inside=replace(inside, before=before))
