"""What is asked of the methods: a class by name or number, and options for those that have them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from microtome.dissect.attribution.methods import METHODS, Method, method_of
from microtome.dissect.models import Model, resolve_layers
from microtome.storage.errors import UsageError

ALL = "all"

_OF_ALL = frozenset({"model", "images", "target", "layer", "unit", "at"})


def methods_named(names: str | Iterable[str]) -> tuple[Method, ...]:
    """The methods called so, each once; "all" stands for every one. Raises UnknownNameError, UsageError for none."""
    asked = [names] if isinstance(names, str) else list(names)
    if ALL in asked:
        return tuple(METHODS.values())
    if not asked:
        raise UsageError(f"by which methods? give some of {', '.join(METHODS)}, or {ALL}")
    return tuple(method_of(name) for name in dict.fromkeys(asked))


def check_layer(model: Model, layer: str) -> None:
    """Raise UnknownNameError where no module and nothing inside an attention is called `layer`, UsageError for a glob
    of several."""
    if layer in dict(model.module.named_modules(remove_duplicate=False)):
        return
    found = resolve_layers(model, [layer])
    if found != [layer]:
        raise UsageError(f"layer {layer} stands for {', '.join(found[:4])}; give the name of one")


@cache
def options_of(method: Method) -> frozenset[str]:
    """What options a method has of its own."""
    return frozenset(inspect.signature(method.load()).parameters) - _OF_ALL


def check_options(methods: Sequence[Method], options: Mapping[str, Any], flags: Mapping[str, str]) -> None:
    """Raise UsageError for an option that none of the methods has; flags: what the user calls it, where not so."""
    for name in options:
        if not any(name in options_of(method) for method in methods):
            having = [each.name for each in METHODS.values() if name in options_of(each)]
            said = flags.get(name, name)
            raise UsageError(f"{said} is an option of {', '.join(having) or 'no method'}, which was not asked for")
