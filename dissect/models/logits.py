"""The logits in what a classifier answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from torch import Tensor

from microtome.storage.errors import UsageError


def logits_of(output: object) -> Tensor:
    """The logits (B, K) in a model's output: the tensor itself, or the one called `logits` in a mapping or dataclass,
    else the first floating point tensor of two axes, at any depth.

    Raises UsageError where there is none.
    """
    found = [(name, tensor) for name, tensor in _named("", output) if tensor.dim() == 2 and tensor.is_floating_point()]
    if not found:
        raise UsageError(
            "the model is no classifier: nothing that it answers is a floating point tensor (images, classes); "
            "what is measured here is which class it answers"
        )
    return next((tensor for name, tensor in found if name == "logits"), found[0][1])


def _named(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in `value` with the key or attribute that holds it."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _named(str(key), part)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, part in zip(value._fields, value, strict=True):
            yield from _named(key, part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _named(name, part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _named(field.name, getattr(value, field.name))
