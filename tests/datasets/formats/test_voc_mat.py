"""MATLAB files: what is read equals what SciPy reads, and damage never gives anything but SampleError."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.formats.voc import anno, context_numbers, planted_parts
from scipy.io import loadmat, savemat

from microtome.datasets.formats.voc.mat import load_variable
from microtome.datasets.formats.voc.parts import read_parts
from microtome.storage.errors import SampleError

VARIABLES = {
    "LabelMap": context_numbers("2007_000032"),
    "wide": np.arange(24.0).reshape(2, 3, 4),
    "one": np.array([[7]], np.int8),
    "flags": np.eye(3, dtype=np.bool_),
    "name": "Käse, 2008_000002",
    "nothing": np.zeros((0, 0)),
    "anno": anno("2008_000002", planted_parts()),
}


@pytest.fixture(params=[True, False], ids=["compressed", "plain"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    savemat(tmp_path / "a.mat", VARIABLES, do_compression=request.param)
    return tmp_path / "a.mat"


@pytest.mark.parametrize("name", ["LabelMap", "wide", "one", "flags", "nothing"])
def test_numbers_are_those_of_scipy(path: Path, name: str) -> None:
    expected = loadmat(path)[name]
    found = load_variable(path, name, "k").numbers()
    np.testing.assert_array_equal(found, expected)
    assert found.shape == expected.shape


def test_texts_and_structs_are_those_of_scipy(path: Path) -> None:
    assert load_variable(path, "name", "k").text() == "Käse, 2008_000002"
    expected = loadmat(path)["anno"][0, 0]["objects"][0]
    (image,) = load_variable(path, "anno", "k").records()
    things = list(image["objects"].records())
    assert [thing["class"].text() for thing in things] == [str(thing["class"][0]) for thing in expected]
    for thing, wanted in zip(things, expected, strict=True):
        parts = list(thing["parts"].records())
        assert len(parts) == wanted["parts"].size
        for part, other in zip(parts, wanted["parts"].ravel(), strict=True):
            assert part["part_name"].text() == str(other["part_name"][0])
            np.testing.assert_array_equal(part["mask"].numbers(), other["mask"])


def test_what_is_of_another_kind_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="no array of numbers"):
        load_variable(path, "name", "k").numbers()
    with pytest.raises(ValueError, match="no text"):
        load_variable(path, "wide", "k").text()
    with pytest.raises(ValueError, match="no structs"):
        list(load_variable(path, "wide", "k").records())
    assert list(load_variable(path, "nothing", "k").records()) == []
    with pytest.raises(SampleError, match="k: a MATLAB file without the variable gone"):
        load_variable(path, "gone", "k")


def test_any_damage_is_a_sample_error(path: Path) -> None:
    rng = np.random.default_rng(0)
    savemat(path, {"anno": VARIABLES["anno"]}, do_compression=path.read_bytes()[128] == 15)
    whole = path.read_bytes()
    reasons = []
    for turn in range(300):
        damaged = bytearray(whole)
        for _ in range(1 + turn % 3):
            damaged[rng.integers(120, min(len(damaged), 1200))] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(damaged))] if turn % 5 == 0 else damaged)
        try:
            read_parts(path, {}, "k")
        except SampleError as error:
            reasons.append(error.reason)
    assert len(reasons) > 50
    assert max(map(len, reasons)) < 150
