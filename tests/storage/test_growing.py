"""What storage does for a run that grows: records taken over, arrays made longer, an order kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.storage.arrays import RunArrays
from microtome.storage.commits import StageCommits
from microtome.storage.errors import RunDamagedError
from microtome.storage.order import forget_orders, read_order, write_order
from microtome.storage.places import LocalPlace, open_place
from microtome.storage.shards import ShardPlan

STATE = {"count": np.arange(3)}


def test_records_of_whole_shards_are_taken_over_and_others_forgotten(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    old, new = StageCommits(place, "capture", "old"), StageCommits(place, "capture", "new")
    for shard in range(4):
        old.commit(shard, STATE)
    StageCommits(place, "capture", "older still").commit(4, STATE)
    place.write("commits/capture/000005.json", b"garbled")
    files = {key: place.read(key) for key, _ in place.list("commits/") if key.endswith(".zst")}
    for _ in range(2):  # as often as one likes
        assert new.adopt({"old": 3}) == 3
        assert new.done(9) == {0, 1, 2}
        assert old.done(9) == set()
    assert {key for key, _ in place.list("commits/")} == {
        f"commits/capture/{shard:06d}.{kind}" for shard in range(3) for kind in ("json", "safetensors.zst")
    }
    assert all(place.read(f"commits/capture/{shard:06d}.safetensors.zst") in files.values() for shard in range(3))
    fresh = tmp_path / "fresh"
    StageCommits(LocalPlace(fresh), "capture", "new").commit(0, STATE)
    assert place.read("commits/capture/000000.json") == LocalPlace(fresh).read("commits/capture/000000.json")


def test_a_half_made_take_over_goes_on(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    old, new = StageCommits(place, "capture", "old"), StageCommits(place, "capture", "new")
    for shard in range(3):
        (new if shard == 1 else old).commit(shard, STATE)
    assert new.adopt({"old": 2}) == 2
    assert new.done(3) == {0, 1}


@given(before=st.integers(1, 20), more=st.integers(0, 20), shard=st.integers(1, 6))
def test_a_longer_array_is_the_one_that_would_have_been_made(
    tmp_path_factory: pytest.TempPathFactory, before: int, more: int, shard: int
) -> None:
    root = tmp_path_factory.mktemp("arrays")
    small, large = ShardPlan(before, shard, shard), ShardPlan(before + more, shard, shard)
    values = np.random.default_rng(before).random((before + more, 3, 2)).astype(np.float16)

    def write(arrays: RunArrays, plan: ShardPlan, first: int = 0) -> None:
        for number in range(first, plan.count):
            rows = plan.samples_of(number)
            arrays.write_shard("maps", number, values[rows.start : rows.stop])

    grown, new = LocalPlace(root / "grown"), LocalPlace(root / "new")
    arrays = RunArrays(grown, small)
    arrays.create("maps", (3, 2), "float16", channels=True)
    write(arrays, small)
    arrays = RunArrays(grown, large)
    for _ in range(2):
        arrays.create("maps", (3, 2), "float16", channels=True, grow=True)
    write(arrays, large, before // shard)
    expected = RunArrays(new, large)
    expected.create("maps", (3, 2), "float16", channels=True)
    write(expected, large)
    np.testing.assert_array_equal(arrays.read("maps", 0, before + more), values)
    assert {key: grown.read(key) for key, _ in grown.list()} == {key: new.read(key) for key, _ in new.list()}


@pytest.mark.parametrize(
    ("samples", "item", "dtype"), [(8, (3, 2), "float16"), (12, (3, 3), "float16"), (12, (3, 2), "int32")]
)
def test_only_the_number_of_samples_may_grow(tmp_path: Path, samples: int, item: tuple[int, ...], dtype: str) -> None:
    RunArrays(LocalPlace(tmp_path), ShardPlan(10, 2, 2)).create("maps", (3, 2), "float16")
    with pytest.raises(RunDamagedError, match="maps has shape"):
        RunArrays(LocalPlace(tmp_path), ShardPlan(samples, 2, 2)).create("maps", item, dtype, grow=True)


@pytest.mark.parametrize("where", ["disk", "memory://orders"])
def test_an_order_is_named_by_its_content(tmp_path: Path, where: str) -> None:
    place = open_place(tmp_path if where == "disk" else where)
    orders = [np.array(numbers, np.int64) for numbers in ([2, 0, 1], [1, 0, 2])]
    first, second = (write_order(place, order) for order in orders)
    assert first != second
    assert write_order(place, orders[0]) == first
    assert read_order(place, second).tolist() == [1, 0, 2]
    forget_orders(place, second)
    with pytest.raises(RunDamagedError, match="is missing"):
        read_order(place, first)
    place.write(f"order/{second}.safetensors.zst", b"altered")
    with pytest.raises(RunDamagedError, match="is altered"):
        read_order(place, second)
    forget_orders(place, None)
    assert list(place.list("order/")) == []
