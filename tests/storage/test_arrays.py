"""Zarr arrays of a run: whole shards in, the same values out, holes that show, refusals by name."""

from __future__ import annotations

import errno
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from microtome.storage.arrays import ACTIVATIONS, LABELS, PRESENCE, RunArrays, layer_array, presence_bytes
from microtome.storage.errors import OutOfSpaceError, RunDamagedError
from microtome.storage.files import checksum
from microtome.storage.places import LocalPlace, open_place
from microtome.storage.shards import ShardPlan

FORMS = st.tuples(
    st.sampled_from(["float16", "float32", "uint16", "int32"]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=20),
    st.booleans(),
)


@st.composite
def plans(draw: st.DrawFn) -> ShardPlan:
    chunk = draw(st.integers(1, 4))
    return ShardPlan(draw(st.integers(1, 20)), chunk * draw(st.integers(1, 3)), chunk)


def activations(root: Path, plan: ShardPlan, shape: tuple[int, ...] = (20, 3, 2)) -> RunArrays:
    arrays = RunArrays(LocalPlace(root), plan)
    arrays.create("maps", shape, "float16", channels=True)
    return arrays


def values_of(plan: ShardPlan, shard: int, shape: tuple[int, ...] = (20, 3, 2)) -> np.ndarray:
    rng = np.random.default_rng(shard)
    return rng.normal(size=(len(plan.samples_of(shard)), *shape)).astype(np.float16)


@given(plans(), FORMS, st.integers(0, 2**32))
@settings(max_examples=30)
def test_every_shard_comes_back_as_it_went_the_shorter_last_one_too(
    tmp_path_factory: pytest.TempPathFactory, plan: ShardPlan, form: tuple[str, tuple[int, ...], bool], seed: int
) -> None:
    dtype, shape, channels = form
    root = tmp_path_factory.mktemp("arrays")
    arrays = RunArrays(LocalPlace(root), plan)
    arrays.create("values", shape, dtype, channels=channels)
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 9, size=(plan.samples, *shape)).astype(dtype)
    if np.dtype(dtype).kind == "f":
        whole[rng.random(whole.shape) < 0.2] = np.nan
    for shard in rng.permutation(plan.count).tolist():
        rows = plan.samples_of(shard)
        files = arrays.write_shard("values", shard, whole[rows.start : rows.stop])
        assert all((root / file.key).is_file() and checksum(root / file.key) == file[1:] for file in files)
    again = RunArrays(LocalPlace(root), plan)
    for shard in range(plan.count):
        rows = plan.samples_of(shard)
        back = again.read_shard("values", shard)
        assert back.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(back, whole[rows.start : rows.stop])
    start = int(rng.integers(plan.samples))
    np.testing.assert_array_equal(again.read("values", start, start + 3), whole[start : start + 3])


def test_a_shard_is_one_file_of_its_own(tmp_path: Path) -> None:
    plan = ShardPlan(10, 4, 2)
    arrays = activations(tmp_path, plan)
    written = [arrays.write_shard("maps", shard, values_of(plan, shard)) for shard in range(plan.count)]
    assert [[file.key for file in files] for files in written] == [
        [f"arrays.zarr/maps/c/{shard}/0/0/0"] for shard in range(3)
    ]
    files = [path for path in (tmp_path / "arrays.zarr").rglob("*") if path.is_file()]
    assert len(files) == 3 + 2  # and zarr.json of the array and of the group


def test_any_zarr_reader_reads_it(tmp_path: Path) -> None:
    plan = ShardPlan(10, 4, 2)
    arrays = activations(tmp_path, plan)
    arrays.write_shard("maps", 1, values_of(plan, 1))
    stored = zarr.open_array(store=str(tmp_path / "arrays.zarr" / "maps"), mode="r")
    assert stored.metadata.zarr_format == 3
    assert stored.chunks == (2, 20, 3, 2)
    assert stored.shards == (4, 20, 3, 2)
    np.testing.assert_array_equal(stored[4:8], values_of(plan, 1))


def test_the_whole_store_opens_as_a_group(tmp_path: Path) -> None:
    arrays = RunArrays(LocalPlace(tmp_path), ShardPlan(10, 4, 2))
    arrays.create(LABELS, (2, 3, 3), "uint16")
    arrays.create("layers/one/maps", (4, 3, 2), "float16", channels=True)
    group = zarr.open_group(str(tmp_path / "arrays.zarr"), mode="r")
    assert group["labels"].shape == (10, 2, 3, 3)
    assert group["layers/one/maps"].shape == (10, 4, 3, 2)
    assert sorted(group["layers/one"].array_keys()) == ["maps"]


def test_a_hole_is_nan_where_the_dtype_has_one(tmp_path: Path) -> None:
    plan = ShardPlan(10, 4, 2)
    arrays = activations(tmp_path, plan)
    arrays.create(LABELS, (1, 2, 2), "uint16")
    arrays.write_shard("maps", 1, values_of(plan, 1))
    assert np.isnan(arrays.read_shard("maps", 0)).all()
    assert np.isnan(arrays.read_shard("maps", 2)).all()
    assert not np.isnan(arrays.read_shard("maps", 1)).any()
    assert not arrays.read_shard(LABELS, 0).any()


@pytest.mark.parametrize("fill", [np.nan, 0.0, -0.0])
def test_silence_is_not_a_hole_and_both_are_written(tmp_path: Path, fill: float) -> None:
    plan = ShardPlan(10, 4, 2)
    arrays = activations(tmp_path, plan)
    maps = np.full((4, 20, 3, 2), fill, np.float16)
    files = arrays.write_shard("maps", 0, maps)
    assert len(files) == 1  # a shard that was written is there, whatever it holds
    np.testing.assert_array_equal(arrays.read_shard("maps", 0), maps)


def test_a_shard_written_again_is_replaced_whole(tmp_path: Path) -> None:
    plan = ShardPlan(10, 4, 2)
    arrays = activations(tmp_path, plan)
    arrays.write_shard("maps", 0, values_of(plan, 0))
    arrays.write_shard("maps", 0, values_of(plan, 1))
    np.testing.assert_array_equal(arrays.read_shard("maps", 0), values_of(plan, 1))
    arrays.write_shard("maps", 0, np.full((4, 20, 3, 2), np.nan, np.float16))
    assert np.isnan(arrays.read_shard("maps", 0)).all()


def test_creating_is_idempotent_and_keeps_what_is_written(tmp_path: Path) -> None:
    plan = ShardPlan(10, 4, 2)
    arrays = activations(tmp_path, plan)
    arrays.write_shard("maps", 0, values_of(plan, 0))
    described = (tmp_path / "arrays.zarr" / "maps" / "zarr.json").read_bytes()
    again = activations(tmp_path, plan)
    np.testing.assert_array_equal(again.read_shard("maps", 0), values_of(plan, 0))
    assert (tmp_path / "arrays.zarr" / "maps" / "zarr.json").read_bytes() == described


def test_an_array_of_another_shape_or_dtype_is_refused(tmp_path: Path) -> None:
    plan = ShardPlan(10, 4, 2)
    activations(tmp_path, plan)
    with pytest.raises(RunDamagedError, match=r"has shape \(10, 20, 3, 2\) float16, expected \(10, 21, 3, 2\)"):
        activations(tmp_path, plan, (21, 3, 2))
    with pytest.raises(RunDamagedError, match="expected"):
        RunArrays(LocalPlace(tmp_path), plan).create("maps", (20, 3, 2), "float32")
    with pytest.raises(RunDamagedError, match="expected"):
        activations(tmp_path, ShardPlan(12, 4, 2))


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_part_of_a_shard_is_refused(tmp_path: Path, rows: int) -> None:
    arrays = activations(tmp_path, ShardPlan(10, 4, 2))
    with pytest.raises(ValueError, match="shard 0 of maps"):
        arrays.write_shard("maps", 0, np.zeros((rows, 20, 3, 2), np.float16))
    with pytest.raises(ValueError, match="shard 0 of maps"):
        arrays.write_shard("maps", 0, np.zeros((4, 20, 3, 1), np.float16))
    assert np.isnan(arrays.read_shard("maps", 0)).all()


def test_an_empty_axis_needs_no_array(tmp_path: Path) -> None:
    arrays = RunArrays(LocalPlace(tmp_path), ShardPlan(10, 4, 2))
    arrays.create(LABELS, (0, 8, 8), "uint16")
    assert not arrays.exists(LABELS)
    assert arrays.write_shard(LABELS, 0, np.zeros((4, 0, 8, 8), np.uint16)) == []


def test_threads_write_different_shards_at_once(tmp_path: Path) -> None:
    plan = ShardPlan(50, 4, 2)
    arrays = activations(tmp_path, plan)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda shard: arrays.write_shard("maps", shard, values_of(plan, shard)), range(plan.count)))
        back = list(pool.map(lambda shard: arrays.read_shard("maps", shard), range(plan.count)))
    for shard, values in enumerate(back):
        np.testing.assert_array_equal(values, values_of(plan, shard))


def test_arrays_are_described_by_path(tmp_path: Path) -> None:
    arrays = RunArrays(LocalPlace(tmp_path), ShardPlan(10, 4, 2))
    arrays.create(LABELS, (3, 8, 8), "uint16")
    arrays.create(layer_array("a.b%2Fc", ACTIVATIONS), (20, 3, 2), "float16", channels=True)
    assert arrays.describe() == {LABELS: (10, 3, 8, 8), "layers/a.b%2Fc/activations": (10, 20, 3, 2)}
    assert arrays.exists("layers/a.b%2Fc/activations")
    assert not arrays.exists("layers/other/activations")


@pytest.mark.parametrize("damage", ["missing", "garbage", "group"])
def test_an_array_that_cannot_be_opened_is_named(tmp_path: Path, damage: str) -> None:
    plan = ShardPlan(10, 4, 2)
    activations(tmp_path, plan)
    described = tmp_path / "arrays.zarr" / "maps" / "zarr.json"
    if damage == "missing":
        described.unlink()
    else:
        described.write_text("{" if damage == "garbage" else '{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(RunDamagedError, match="maps cannot be opened as a Zarr array") as caught:
        RunArrays(LocalPlace(tmp_path), plan).read("maps", 0, 1)
    assert "samples" not in str(caught.value)


@pytest.mark.parametrize("keep", [1, 10, -1])
def test_a_truncated_shard_is_named_on_reading_and_can_be_written_again(tmp_path: Path, keep: int) -> None:
    plan = ShardPlan(10, 4, 2)
    arrays = activations(tmp_path, plan)
    (file,) = arrays.write_shard("maps", 0, values_of(plan, 0))
    path = tmp_path / file.key
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunDamagedError, match="maps, samples 0 to 3, cannot be read"):
        arrays.read_shard("maps", 0)
    arrays.write_shard("maps", 0, values_of(plan, 0))
    np.testing.assert_array_equal(arrays.read_shard("maps", 0), values_of(plan, 0))


def test_a_full_disk_is_named_and_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ShardPlan(10, 4, 2)
    arrays = activations(tmp_path, plan)
    arrays.write_shard("maps", 0, values_of(plan, 0))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)  # the last step of a write
    with pytest.raises(OutOfSpaceError, match=f"{tmp_path} is full .*run the same command again"):
        arrays.write_shard("maps", 1, values_of(plan, 1))
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "arrays.zarr" / "maps" / "c").rglob("*") if path.is_file()) == ["0"]
    arrays.write_shard("maps", 1, values_of(plan, 1))
    np.testing.assert_array_equal(arrays.read_shard("maps", 1), values_of(plan, 1))


def test_arrays_arrive_in_another_process(tmp_path: Path) -> None:
    plan = ShardPlan(10, 4, 2)
    arrays = activations(tmp_path, plan)
    arrays.write_shard("maps", 1, values_of(plan, 1))
    again = pickle.loads(pickle.dumps(arrays))
    np.testing.assert_array_equal(again.read_shard("maps", 1), values_of(plan, 1))


def test_what_lies_there_is_not_read_when_a_shorter_shard_is_written(tmp_path: Path) -> None:
    """The last shard is not whole, so Zarr would read it first: in a bucket, where nothing is deleted before."""
    plan = ShardPlan(10, 4, 2)
    place = open_place(f"memory://{tmp_path.name}")
    arrays = RunArrays(place, plan)
    arrays.create("maps", (20, 3, 2), "float16", channels=True)
    (written,) = arrays.write_shard("maps", 2, values_of(plan, 2))
    whole = place.read(written.key)
    place.write(written.key, whole[:-7])
    assert arrays.write_shard("maps", 2, values_of(plan, 2)) == [written]
    assert place.read(written.key) == whole


def test_presence_is_a_bit_a_concept(tmp_path: Path) -> None:
    plan = ShardPlan(samples=5, shard=4, chunk=2)
    arrays = RunArrays(LocalPlace(tmp_path), plan)
    concepts = 19
    there = np.random.default_rng(0).random((5, concepts + 1)) < 0.3
    arrays.create(PRESENCE, (presence_bytes(concepts),), "uint8")
    bits = np.packbits(there, axis=1, bitorder="little")
    assert bits.shape[1] == presence_bytes(concepts)
    for shard, samples in enumerate(plan):
        arrays.write_shard(PRESENCE, shard, bits[samples.start : samples.stop])
    for concept in range(concepts + 1):
        np.testing.assert_array_equal(arrays.presence(1, 5, concept), there[1:, concept])
    assert [presence_bytes(count) for count in (0, 7, 8, 15, 16)] == [1, 1, 2, 2, 3]
