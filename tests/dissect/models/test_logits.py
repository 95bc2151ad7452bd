"""Which tensor of a model's answer holds the logits."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from microtome.dissect.models.logits import NoLogitsError, logits_of
from microtome.storage.errors import UsageError

FEATURES, LOGITS = torch.zeros(2, 32), torch.zeros(2, 10)
NAMES = [str(number) for number in range(10)]


@dataclass
class Answer:
    """A dataclass with features before the scores."""

    features: Tensor
    scores: Tensor


@pytest.mark.parametrize("name", ["logits", "output", "out", "pred", "predictions", "scores"])
def test_names_before_order(name: str) -> None:
    assert logits_of({"features": FEATURES, name: LOGITS}) is LOGITS
    assert logits_of({"outer": {"features": FEATURES, name: LOGITS}}) is LOGITS


def test_the_first_name_wins() -> None:
    assert logits_of({"scores": FEATURES, "output": FEATURES, "logits": LOGITS}) is LOGITS
    assert logits_of({"scores": FEATURES, "output": LOGITS}) is LOGITS
    assert logits_of(Answer(FEATURES, LOGITS)) is LOGITS
    assert logits_of(namedtuple("Outputs", "logits aux")(LOGITS, FEATURES)) is LOGITS


def test_names_of_classes_tell_by_their_number() -> None:
    assert logits_of({"a": FEATURES, "b": LOGITS}, NAMES) is LOGITS
    assert logits_of({"output": FEATURES, "b": LOGITS}, NAMES) is LOGITS
    assert logits_of((FEATURES, LOGITS), NAMES) is LOGITS
    assert logits_of({"logits": FEATURES}, NAMES) is FEATURES


def test_a_plain_tuple_keeps_its_first_and_one_tensor_needs_no_name() -> None:
    assert logits_of((LOGITS, FEATURES)) is LOGITS
    assert logits_of([LOGITS, {"aux": FEATURES}]) is LOGITS
    assert logits_of(({"x": LOGITS}, FEATURES)) is LOGITS
    assert logits_of([None, [[{"x": LOGITS}], {"y": FEATURES}]]) is LOGITS
    assert logits_of({"parts": [LOGITS, FEATURES]}) is LOGITS
    assert logits_of({"pooled": FEATURES, "maps": torch.zeros(2, 3, 4, 4)}) is FEATURES
    assert logits_of({"a": LOGITS, "b": LOGITS}) is LOGITS


def test_what_is_ambiguous_is_listed() -> None:
    with pytest.raises(UsageError, match=r"features \(2, 32\), other \(2, 10\): which are the logits"):
        logits_of({"features": FEATURES, "other": LOGITS})
    with pytest.raises(UsageError, match=r"answers features \(2, 32\), other \(2, 10\): which"):
        logits_of(({"features": FEATURES, "other": LOGITS}, FEATURES.clone()))
    with pytest.raises(UsageError, match="which are the logits"):
        logits_of({"a": LOGITS, "b": LOGITS.clone()}, NAMES)


def test_no_classifier() -> None:
    with pytest.raises(NoLogitsError, match="no classifier"):
        logits_of({"maps": torch.zeros(2, 3, 4, 4), "labels": torch.zeros(2, 3, dtype=torch.long)})
