"""Plans of shards: every sample once, whole chunks, enough shards, none too large."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.storage.shards import (
    CHUNK_BYTES,
    CHUNK_SAMPLES,
    MAX_BYTES,
    MIN_SHARDS,
    ShardPlan,
    chunk_channels,
    plan_shards,
)

samples = st.one_of(st.integers(1, 5_000), st.integers(1, 3_000_000))
sizes = st.integers(0, 2 * MAX_BYTES)


@given(samples, sizes, st.none() | st.integers(1, 5_000))
def test_every_sample_lies_in_exactly_one_shard(count: int, size: int, by_hand: int | None) -> None:
    plan = plan_shards(count, size, by_hand)
    ends = [(rows.start, rows.stop) for rows in plan] if plan.count < 2_000 else []
    if ends:
        assert [start for start, _ in ends] == [0, *(stop for _, stop in ends[:-1])]
        assert ends[-1][1] == count
        assert all(0 < stop - start <= plan.shard for start, stop in ends)
        assert all(stop - start == plan.shard for start, stop in ends[:-1])
    assert plan.samples_of(0).start == 0
    assert plan.samples_of(plan.count - 1).stop == count
    assert (plan.count - 1) * plan.shard < count <= plan.count * plan.shard


@given(samples, sizes, st.none() | st.integers(1, 5_000))
def test_a_shard_holds_whole_chunks(count: int, size: int, by_hand: int | None) -> None:
    plan = plan_shards(count, size, by_hand)
    assert plan.shard % plan.chunk == 0
    assert 1 <= plan.chunk <= CHUNK_SAMPLES


@given(samples, sizes)
def test_a_run_has_at_least_32_shards_where_it_has_as_many_samples(count: int, size: int) -> None:
    plan = plan_shards(count, size)
    assert plan.count >= min(MIN_SHARDS, count)


@given(samples, sizes)
def test_no_shard_exceeds_the_largest_size_unless_one_sample_does(count: int, size: int) -> None:
    plan = plan_shards(count, size)
    assert plan.shard * size <= MAX_BYTES or plan.shard == 1


@given(samples, st.integers(1, 5_000))
def test_a_size_by_hand_is_kept_up_to_whole_chunks(count: int, by_hand: int) -> None:
    plan = plan_shards(count, 1, by_hand)
    wanted = min(count, by_hand)
    assert wanted <= plan.shard < wanted + CHUNK_SAMPLES
    assert wanted > CHUNK_SAMPLES or plan.shard == wanted


def test_memory_stays_flat_as_samples_grow() -> None:
    shards = [plan_shards(count, 100_000).shard for count in (2_048, 4_000, 20_000, 32_000)]
    assert shards == [32, 32, 32, 32]
    assert plan_shards(1_000_000, 10_000).count <= 520


def test_a_plan_counts_and_bounds() -> None:
    plan = ShardPlan(samples=10, shard=4, chunk=2)
    assert plan.count == 3
    assert list(plan) == [range(4), range(4, 8), range(8, 10)]
    for outside in (-1, 3):
        with pytest.raises(IndexError, match=f"shard {outside} of 3"):
            plan.samples_of(outside)


@pytest.mark.parametrize("values", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (10, 5, 2)])
def test_an_impossible_plan_is_refused(values: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="whole chunks"):
        ShardPlan(*values)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        plan_shards(0, 1)
    with pytest.raises(ValueError, match="at least one sample"):
        plan_shards(10, 1, 0)


@given(
    channels=st.integers(1, 4096),
    map_bytes=st.integers(2, 2_000_000),
    samples=st.integers(1, 32),
)
def test_chunks_hold_at_least_16_channels_and_few_bytes_beyond(channels: int, map_bytes: int, samples: int) -> None:
    together = chunk_channels(channels, map_bytes, samples)
    assert 1 <= together <= channels
    assert together >= min(channels, 16)
    assert together <= 16 or together * map_bytes * samples <= CHUNK_BYTES
