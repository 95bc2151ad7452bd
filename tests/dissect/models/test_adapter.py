"""The tensors in a module's output: found in order, and replaced where they are."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from microtome.dissect.models.adapter import tensors_of, with_tensor

A, B, C, NEW = (torch.full((2, 3), float(i)) for i in range(4))
Pair = namedtuple("Pair", ["left", "right"])


@dataclass(frozen=True)
class Held:
    name: str
    first: Tensor
    rest: list[Tensor]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (A, [A]),
        ((None, A, B), [A, B]),
        ([A, {"a": 3, "b": [B]}, C], [A, B, C]),
        (OrderedDict(out=B, aux=A), [B, A]),
        (Pair("text", (A, B)), [A, B]),
        (Held("x", A, [B, C]), [A, B, C]),
        ("text", []),
        (Pair, []),
        (None, []),
    ],
)
def test_tensors_depth_first(output: object, expected: list[Tensor]) -> None:
    found = list(tensors_of(output))
    assert len(found) == len(expected)
    assert all(one is other for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "output",
    [
        A,
        (None, A, B),
        [A, {"a": 3, "b": [B]}, C],
        OrderedDict(out=B, aux=A),
        Pair("text", (A, B)),
        Held("x", A, [B, C]),
        {"deep": Held("x", A, [B, {"deeper": C}])},
    ],
)
def test_each_tensor_can_be_replaced(output: Any) -> None:
    before = list(tensors_of(output))
    for number in range(len(before)):
        changed = with_tensor(output, number, NEW)
        assert type(changed) is type(output)
        after = list(tensors_of(changed))
        assert [tensor is NEW for tensor in after] == [i == number for i in range(len(before))]
        assert all(one is other for i, (one, other) in enumerate(zip(after, before, strict=True)) if i != number)
        assert all(one is other for one, other in zip(tensors_of(output), before, strict=True))  # the old is left alone
    assert next(tensors_of(with_tensor(output, len(before), NEW))) is before[0]


def test_what_is_no_tensor_stays() -> None:
    changed = with_tensor(Held("name", A, [B]), 1, NEW)
    assert changed.name == "name"
    assert with_tensor(Pair("text", A), 0, NEW) == Pair("text", NEW)
    assert with_tensor("text", 0, NEW) == "text"
