"""The logits in what a classifier answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

from torch import Tensor

from microtome.storage.errors import UsageError

LOGITS = "logits"
NAMES = ("output", "outputs", "out", "pred", "preds", "prediction", "predictions", "score", "scores")
"""What logits are called where nothing is called `logits`, the surest first."""


class NoLogitsError(UsageError):
    """Nothing that a model answers is a floating point tensor of two axes: it is no classifier."""


def logits_of(output: object, class_names: Sequence[str] = ()) -> Tensor:
    """The logits (B, K) in a model's output: the tensor itself, or the one called `logits` in a mapping, dataclass or
    named tuple, at any depth.

    Without that name, of the floating point tensors of two axes: those with a column for each of `class_names`, where
    there are any; among them the first of NAMES, the only one, or the first of a plain tuple or list. Raises
    NoLogitsError where there is none, UsageError where several have other names, which it lists.
    """
    found = [(name, tensor) for name, tensor in _named("", output) if tensor.dim() == 2 and tensor.is_floating_point()]
    if not found:
        raise NoLogitsError(
            "the model is no classifier: nothing that it answers is a floating point tensor (images, classes); "
            "what is measured here is which class it answers"
        )
    named = dict(reversed(found))
    if LOGITS in named:
        return named[LOGITS]
    fitting = [(name, tensor) for name, tensor in found if tensor.shape[1] == len(class_names)] or found
    named = dict(reversed(fitting))
    for name in NAMES:
        if name in named:
            return named[name]
    first, tensor = fitting[0]
    beside = [each for _, each in _named("", _part_with(tensor, output))]
    rivals = [(name, each) for name, each in fitting if any(each is other for other in beside)]
    if any(name != first and each is not tensor for name, each in rivals):
        listed = ", ".join(f"{name} {tuple(each.shape)}" for name, each in rivals)
        raise UsageError(f"the model answers {listed}: which are the logits? call them {LOGITS!r} in what it returns")
    return tensor


def _part_with(tensor: Tensor, output: object) -> object:
    """The part of plain tuples and lists, in each other, that holds a tensor; `output` where it is neither."""
    while isinstance(output, list | tuple) and not hasattr(output, "_fields"):
        output = next(part for part in output if any(each is tensor for _, each in _named("", part)))
    return output


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
