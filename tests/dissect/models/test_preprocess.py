"""Preprocessing: reading, flags that win, refusals, and the round trip to JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from microtome.dissect.models.preprocess import INTERPOLATIONS, Preprocess, PreprocessOverrides, of_module, resolve
from microtome.storage.errors import UsageError

STATED = Preprocess((224, 224), 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")


def test_flags_win_one_by_one() -> None:
    assert resolve("m", STATED, None) == STATED
    assert resolve("m", STATED, PreprocessOverrides()) == STATED
    larger = resolve("m", STATED, PreprocessOverrides(size=320, interpolation="Nearest"))
    assert (larger.size, larger.resize, larger.interpolation, larger.mean) == ((320, 320), 320, "nearest", STATED.mean)
    assert resolve("m", STATED, PreprocessOverrides(size=320, resize=366)).resize == 366
    assert resolve("m", STATED, PreprocessOverrides(size=(120, 160))).resize is None
    assert resolve("m", STATED, PreprocessOverrides(mean=0.5)).mean == (0.5, 0.5, 0.5)


def test_the_missing_flags_are_named() -> None:
    with pytest.raises(UsageError, match="give --size --mean --std "):
        resolve("m", None, None)
    with pytest.raises(UsageError, match="give --std "):
        resolve("m", None, PreprocessOverrides(size=8, mean=[0.1, 0.2, 0.3]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 2.5}, "size is 2.5"),
        ({"size": "big"}, "size is 'big'"),
        ({"size": [1, 2, 3]}, "expected one number or"),
        ({"mean": [123.7, 116.3, 103.5]}, "divide by 255"),
        ({"mean": [0.5, 0.5]}, "three finite numbers"),
        ({"std": [0.5, 0.5, 0]}, "above 0"),
        ({"std": float("nan")}, "three finite numbers"),
        ({"mean": "grey"}, "expected numbers"),
        ({"interpolation": "bilinar"}, "did you mean bilinear"),
        ({"crop": 3}, "no key of"),
    ],
)
def test_refusals(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Preprocess.from_dict({"size": 8, "mean": 0.5, "std": 0.5} | change)


def test_the_attribute_of_a_module() -> None:
    module = nn.Module()
    assert of_module(module, "m") is None
    module.preprocess = {"size": [8, 12], "mean": [0.5], "std": 1}
    read = of_module(module, "m")
    assert read is not None
    assert (read.size, read.resize, read.std, read.interpolation) == ((8, 12), None, (1.0, 1.0, 1.0), "bicubic")
    module.preprocess = {"size": 8}
    with pytest.raises(UsageError, match="lacks mean, std"):
        of_module(module, "m")
    module.preprocess = 3
    with pytest.raises(UsageError, match="is a int; expected a dict"):
        of_module(module, "m")
    module.preprocess = lambda image: image
    assert of_module(module, "m") is None


sides = st.integers(1, 4096)
means = st.tuples(*[st.floats(-1, 1)] * 3)
stds = st.tuples(*[st.floats(1e-3, 2)] * 3)


@given(
    st.builds(
        Preprocess,
        size=st.tuples(sides, sides),
        resize=st.none() | sides,
        mean=means,
        std=stds,
        interpolation=st.sampled_from(INTERPOLATIONS),
    )
)
def test_round_trip(preprocess: Preprocess) -> None:
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
