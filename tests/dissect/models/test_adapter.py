"""From a module's output to units: which tensor is taken, and what is refused."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch

from microtome.dissect.models.adapter import UnusableOutputError, unit_maps

MAPS, VECTOR = torch.rand(2, 3, 4, 5), torch.rand(2, 6)
TOKENS = torch.rand(2, 7, 8)
Pair = namedtuple("Pair", ["left", "right"])


def test_tensors_are_viewed_not_copied() -> None:
    assert unit_maps(MAPS, 2) is MAPS
    assert unit_maps(VECTOR, 2).shape == (2, 6, 1, 1)
    assert unit_maps(VECTOR, 2).data_ptr() == VECTOR.data_ptr()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ((None, MAPS, VECTOR), MAPS),
        ([TOKENS, {"a": 3, "b": [VECTOR]}, MAPS], VECTOR[:, :, None, None]),
        ({"aux": VECTOR, "out": MAPS}, VECTOR[:, :, None, None]),
        (Pair("text", MAPS), MAPS),
        ((MAPS.long(), MAPS > 0, MAPS[:1], MAPS[:, :0], MAPS), MAPS),
        (MAPS.half(), MAPS.half()),
    ],
)
def test_the_first_tensor_that_fits(output: object, expected: torch.Tensor) -> None:
    assert torch.equal(unit_maps(output, 2), expected)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (TOKENS, r"tokens \(B, 7, 8\)"),
        ((TOKENS, None), r"tokens \(B, 7, 8\)"),
        (MAPS.long(), r"int64 values \(2, 3, 4, 5\)"),
        (torch.rand(6, 3, 4, 5), "for a batch of 2: its first dimension is not the batch"),
        (torch.rand(()), r"gives \(\) for a batch of 2"),
        (torch.rand(2, 3, 4, 5, 6), r"gives \(2, 3, 4, 5, 6\); expected \(B, C, h, w\)"),
        ("text", "a str without tensors"),
        (Pair, "a type without tensors"),
    ],
)
def test_refusals(output: Any, words: str) -> None:
    with pytest.raises(UnusableOutputError, match=words):
        unit_maps(output, 2)
