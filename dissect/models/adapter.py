"""The tensors in a module's output, whatever holds them: a tensor, or tuples, lists, dicts and dataclasses of them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def tensors_of(output: object) -> Iterator[Tensor]:
    """Every tensor in `output`, depth first, in the order of the containers."""
    if isinstance(output, Tensor):
        yield output
        return
    for _, part in _parts(output):
        yield from tensors_of(part)


def with_tensor(output: Any, number: int, tensor: Tensor) -> Any:
    """`output` with its tensor `number` (as `tensors_of` counts) replaced; containers on the way there are copied."""
    if isinstance(output, Tensor):
        return tensor if number == 0 else output
    for key, part in _parts(output):
        count = sum(1 for _ in tensors_of(part))
        if number < count:
            return _with_part(output, key, with_tensor(part, number, tensor))
        number -= count
    return output


def _parts(output: object) -> list[tuple[Any, object]]:
    """What a container holds, by key."""
    if isinstance(output, Mapping):
        return list(output.items())
    if isinstance(output, tuple | list):
        return list(enumerate(output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]
    return []


def _with_part(output: Any, key: Any, part: object) -> Any:
    if isinstance(output, tuple | list):
        parts = [part if number == key else old for number, old in enumerate(output)]
        return output._make(parts) if hasattr(output, "_make") else type(output)(parts)
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        changed[key] = part
        return changed
    return dataclasses.replace(output, **{key: part})
