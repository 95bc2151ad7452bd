"""Named arrays of a layer come back as they went; a checkpoint appears whole, and only to who asks for its key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from microtome.storage.errors import RunDamagedError
from microtome.storage.layer_arrays import Checkpoint, layer_arrays_key, read_arrays, write_arrays
from microtome.storage.places import LocalPlace

KEY = layer_arrays_key("conv%2F1", "pca")


def arrays() -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    return {"mean": rng.normal(size=5), "components": rng.normal(size=(3, 5))[:, ::-1], "empty": np.zeros((0, 2), "f4")}


def test_arrays_come_back_as_they_went_with_the_same_bytes(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    first = write_arrays(place, KEY, arrays())
    assert first == write_arrays(place, KEY, dict(reversed(arrays().items()))) == place.checksum(KEY)
    back = read_arrays(place, KEY)
    assert back.keys() == arrays().keys()
    for name, values in arrays().items():
        np.testing.assert_array_equal(back[name], values)
        assert back[name].dtype == values.dtype


def test_arrays_that_are_missing_or_garbled_are_named(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    with pytest.raises(RunDamagedError, match=r"pca\.safetensors is missing; .* microtome map"):
        read_arrays(place, KEY)
    place.write(KEY, b"no arrays at all")
    with pytest.raises(RunDamagedError, match=r"pca\.safetensors cannot be read .*--repair"):
        read_arrays(place, KEY)


def test_a_checkpoint_is_what_was_saved_last_under_its_key(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    checkpoint = Checkpoint(place, "conv1", "a")
    assert checkpoint.load() is None
    checkpoint.save({"positions": np.zeros((2, 2))})
    checkpoint.save(arrays())
    found = Checkpoint(place, "conv1", "a").load()
    assert found is not None
    assert found.keys() == arrays().keys()
    np.testing.assert_array_equal(found["components"], arrays()["components"])
    assert Checkpoint(place, "conv1", "b").load() is None
    assert Checkpoint(place, "conv2", "a").load() is None
    checkpoint.delete()
    assert checkpoint.load() is None
    assert list(place.list()) == []


@pytest.mark.parametrize("harm", [slice(0, 20), slice(0, 0)])
def test_a_checkpoint_that_is_cut_short_is_none(tmp_path: Path, harm: slice) -> None:
    place = LocalPlace(tmp_path)
    checkpoint = Checkpoint(place, "conv1", "a")
    checkpoint.save(arrays())
    ((file, _),) = place.list()
    place.write(file, place.read(file)[harm])
    assert checkpoint.load() is None


def test_a_checkpoint_with_an_altered_byte_is_none(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    checkpoint = Checkpoint(place, "conv1", "a")
    checkpoint.save(arrays())
    ((file, _),) = place.list()
    content = bytearray(place.read(file))
    for position in range(0, len(content), 7):
        flipped = content.copy()
        flipped[position] ^= 1
        place.write(file, bytes(flipped))
        found = checkpoint.load()
        assert found is None or found.keys() == arrays().keys()  # where the flipped bit says nothing of the content
        if found is not None:
            np.testing.assert_array_equal(found["components"], arrays()["components"])
