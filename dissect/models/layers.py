"""Layers by name and glob, and what each one gives.

A layer is one call of one module. Its name is the module's in `named_modules()`; a module that a forward pass calls
several times has the layers NAME@1, NAME@2, ..., and NAME stands for them all. Layers are ordered as the forward
pass finishes them, so a block comes after its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules import activation, batchnorm, conv, dropout, normalization, pooling

from microtome.dissect.models.class_token import base_of
from microtome.dissect.models.model import Model
from microtome.dissect.models.places import ATTENTION_KINDS, CLASS_TOKEN
from microtome.dissect.models.trace import Call, trace, with_class_token
from microtome.storage.errors import UnknownNameError, UsageError

_BYTES = 2  # float16
_NEVER = ("identity", "dropout")  # kinds that globs and listings leave out
_NORMS = (
    batchnorm._NormBase,
    *(normalization.LayerNorm, normalization.GroupNorm, normalization.LocalResponseNorm, normalization.RMSNorm),
)
_ACTIVATIONS = tuple(getattr(activation, name) for name in activation.__all__ if name not in ("MultiheadAttention",))
_POOLS = tuple(getattr(pooling, name) for name in pooling.__all__)
_DROPOUTS = (dropout._DropoutNd,)
_KINDS_BY_WORD = (
    ("activation", ("relu", "swish", "silu", "gelu", "sigmoid", "mish", "tanh")),
    ("pool", ("pool",)),
    ("dropout", ("dropout", "droppath", "stochasticdepth")),
    ("norm", ("norm",)),
    ("conv", ("conv",)),
    ("linear", ("linear",)),
)


@dataclass(frozen=True)
class LayerInfo:
    """One layer. shape: (C, h, w) for one image; grid: (h, w); units: C; bytes_per_image: its maps as float16.

    kind: "conv", "norm", "activation", "pool", "linear", "dropout", "identity", "attention", "container" (its
    parts in a row), "block" (any other module with parts) or "other"; inside an attention, one of ATTENTION_KINDS; of a
    class token, CLASS_TOKEN.
    layout: in words, how the units lie in what the module gives. Where `usable` is False, `note` says why and the
    numbers are 0.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    usable: bool = True
    note: str = ""
    layout: str = ""

    @property
    def units(self) -> int:
        """The number of units, C."""
        return self.shape[0]

    @property
    def grid(self) -> tuple[int, int]:
        """The activation map's (h, w)."""
        return self.shape[1:]

    @property
    def bytes_per_image(self) -> int:
        """Size of one image's maps of all units as float16."""
        return self.shape[0] * self.shape[1] * self.shape[2] * _BYTES

    def to_dict(self) -> dict[str, Any]:
        """The layer as `inspect --json` prints it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "grid": list(self.grid),
            "units": self.units,
            "bytes_per_image": self.bytes_per_image,
            "layout": self.layout,
        }


def resolve_layers(model: Model, globs: Iterable[str]) -> list[str]:
    """The layers that names and globs pick, in the order of the network, each once.

    An exact name always wins over its reading as a glob, and may name any module. In globs (`layer[34]`,
    `blocks.*.mlp.fc1`) `*` also matches dots; they never pick the root, Identity or Dropout, nor layers without units,
    and a container (Sequential) only where nothing but containers matches. With `:KIND` at the end (`*.attn:heads`)
    they pick what is inside attentions, without it nothing of that; with `:cls`, the class tokens of what they pick and
    gives tokens. Raises UnknownNameError for a name or glob
    that matches nothing, UsageError for one whose matches cannot be dissected.
    """
    calls = trace(model)
    selector = _Selector(model, calls)
    picked = {call.name for pattern in globs for call in selector.select(pattern)}
    if not picked:
        raise UsageError(f"no layers were named; {selector.hint}")
    names = (name for call in calls for name in (call.name, f"{call.name}:{CLASS_TOKEN}"))
    return [name for name in names if name in picked]


def describe_layers(
    model: Model, names: Sequence[str] | None = None, batch: int = 2, *, include_unusable: bool = False
) -> list[LayerInfo]:
    """The layers of the model in the order of the network, or those of `names` (exact, resolved names) in that order.

    Without `names`: every layer with units but the root, Identity and Dropout; `include_unusable` adds those
    without, and modules that are never called. `batch`: of the one forward pass. Raises UnknownNameError.
    """
    modules = dict(model.module.named_modules())
    calls = trace(model, batch)
    infos = {call.name: _info(call, modules[call.module_name]) for call in calls}
    if names is not None:
        by_name = {call.name: call for call in calls}
        for name in names:
            if (base := base_of(name)) in by_name and name not in infos:
                call = with_class_token(model, by_name[base])
                infos[name] = _info(call, modules[call.module_name])
            if name not in infos:
                raise UnknownNameError("layer", name, infos, _hint(model))
        return [infos[name] for name in names]
    called = {call.module_name for call in calls}
    shown = [info for info in infos.values() if info.name and info.kind not in _NEVER]
    if not include_unusable:
        return [info for info in shown if info.usable]
    silent = [
        LayerInfo(name, kind_of(module), (0, 0, 0), usable=False, note="is never called in a forward pass")
        for name, module in modules.items()
        if name and name not in called
    ]
    return shown + silent


def kind_of(module: nn.Module) -> str:
    """The kind of a module (see LayerInfo), by its type, else by the words in its type's name."""
    if is_container(module):
        return "container"
    types: tuple[tuple[str, tuple[type[nn.Module], ...]], ...] = (
        ("identity", (nn.Identity,)),
        ("dropout", _DROPOUTS),
        ("conv", (conv._ConvNd,)),
        ("norm", _NORMS),
        ("linear", (nn.Linear, nn.Bilinear)),
        ("pool", _POOLS),
        ("activation", _ACTIVATIONS),
        ("attention", (nn.MultiheadAttention,)),
    )
    for kind, members in types:
        if isinstance(module, members):
            return kind
    if next(module.children(), None) is not None:
        return "block"
    word = type(module).__name__.lower()
    return next((kind for kind, words in _KINDS_BY_WORD if any(w in word for w in words)), "other")


def is_container(module: nn.Module) -> bool:
    """A Sequential, ModuleList or ModuleDict, or a subclass that has no forward of its own."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is nn.Sequential.forward
    return isinstance(module, nn.ModuleList | nn.ModuleDict) and type(module).forward is nn.Module.forward


class _Selector:
    """Turns one name or glob into calls of a traced forward pass."""

    def __init__(self, model: Model, calls: Sequence[Call]) -> None:
        self._model = model
        self._calls = calls
        self._usable = [call for call in calls if call.place is not None and call.module_name]
        self._modules = dict(model.module.named_modules())
        first = {module: name for name, module in self._modules.items()}
        everything = model.module.named_modules(remove_duplicate=False)
        self._canonical = {name: first[module] for name, module in everything}
        self.hint = _hint(model)

    def select(self, pattern: str) -> list[Call]:
        if (base := base_of(pattern)) is not None:
            tokens = [with_class_token(self._model, call) for call in self.select(base)]
            self._check_usable(pattern, tokens)
            return [call for call in tokens if call.place is not None]
        module, kinds = split_kinds(pattern)
        if module in self._canonical:
            return self._of_module(pattern, self._canonical[module], kinds)
        exact = [call for call in self._calls if call.name == pattern]
        if exact:
            self._check_usable(pattern, exact)
            return exact
        return self._of_glob(module, kinds)

    def _of_module(self, name: str, canonical: str, inside: Sequence[str]) -> list[Call]:
        whole = [call for call in self._calls if call.module_name == canonical]
        calls = [call for call in whole if call.kind in (inside or [""])]
        if not whole:
            parts = [c.name for c in self._usable if c.module_name.startswith(f"{canonical}.") and not c.kind]
            advice = f"inside it there are {_few(parts)}" if parts else self.hint
            raise UsageError(f"layer {name!r} is never called in a forward pass of the model; {advice}")
        if not calls:
            raise UsageError(f"layer {name!r}: no attention was seen in {canonical}; {self._with_kinds(inside)}")
        self._check_usable(name, calls)
        return [call for call in calls if call.place is not None]

    def _of_glob(self, pattern: str, inside: Sequence[str]) -> list[Call]:
        matches = [c for c in self._calls if c.module_name and _matches(pattern, c)]
        if not matches:
            silent = [name for name in self._modules if name and fnmatchcase(name, pattern)]
            if silent:
                return self._of_module(silent[0], silent[0], inside)  # says that it is never called
            raise UnknownNameError("layer", pattern, (c.name for c in self._calls if c.module_name), self.hint)
        if inside:
            return self._inside(pattern, inside, matches)
        matches = [call for call in matches if not call.kind]
        kinds = {call.module_name: kind_of(self._modules[call.module_name]) for call in matches}
        active = [call for call in matches if kinds[call.module_name] not in _NEVER]
        if not active:
            raise UsageError(
                f"{pattern!r} matches only Identity and Dropout modules ({_few([c.name for c in matches])}), "
                "which a glob never picks; give the exact name"
            )
        chosen = [call for call in active if kinds[call.module_name] != "container"] or active
        self._check_usable(pattern, chosen)
        return [call for call in chosen if call.place is not None]

    def _inside(self, pattern: str, kinds: Sequence[str], matches: Sequence[Call]) -> list[Call]:
        chosen = [call for call in matches if call.kind in kinds]
        name = f"{pattern}:{kinds[0]}"
        if not chosen:
            raise UsageError(f"{name!r}: no attention was seen in what it matches; {self._with_kinds(kinds)}")
        self._check_usable(name, chosen)
        return [call for call in chosen if call.place is not None]

    def _with_kinds(self, kinds: Sequence[str]) -> str:
        known = [call.name for call in self._usable if call.kind in kinds]
        return f"there are {_few(known)}" if known else f"the model has no layers of kind {' or '.join(kinds)}"

    def _check_usable(self, pattern: str, calls: Sequence[Call]) -> None:
        if any(call.place is not None for call in calls):
            return
        if calls[0].kind == CLASS_TOKEN:
            raise UsageError(f"layer {pattern!r} {calls[0].note}")
        near = self._neighbours(calls[0])
        advice = f"near it these can be dissected: {_few(near)}" if near else self.hint
        raise UsageError(f"layer {pattern!r} {calls[0].note}; {advice}")

    def _neighbours(self, call: Call) -> list[str]:
        at = self._calls.index(call)
        plain = [c for c in self._usable if not c.kind and kind_of(self._modules[c.module_name]) not in _NEVER]
        order = sorted(plain, key=lambda c: abs(self._calls.index(c) - at))
        return [c.name for c in order[:4]]


def split_kinds(pattern: str) -> tuple[str, tuple[str, ...]]:
    """A layer's name or glob without the kind of what is inside an attention, and the kinds that it means, if any."""
    module, colon, kind = pattern.rpartition(":")
    kinds = tuple(known for known in ATTENTION_KINDS if colon and fnmatchcase(known, kind))
    return (module, kinds) if kinds else (pattern, ())


def _matches(pattern: str, call: Call) -> bool:
    return fnmatchcase(call.module_name, pattern) or fnmatchcase(split_kinds(call.name)[0], pattern)


def _info(call: Call, module: nn.Module) -> LayerInfo:
    layout = "" if call.place is None else call.place.layout.words
    kind = call.kind or kind_of(module)
    return LayerInfo(call.name, kind, call.shape or (0, 0, 0), call.shape is not None, call.note, layout)


def _few(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _hint(model: Model) -> str:
    return f"`microtome inspect {model.spec}` lists the layers."
