"""The search for near hashes against comparing each with each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.datasets.survey.pairs import FAR, MOST_DISTANT, neighbours

Hashes = NDArray[np.uint64]


def groups_of(near: NDArray[np.bool_]) -> list[int]:
    """The lowest index that each can be reached from, by walking."""
    group = list(range(len(near)))
    for start in range(len(near)):
        stack = [start]
        while stack:
            i = stack.pop()
            for j in np.flatnonzero(near[i]).tolist():
                if group[j] > group[start]:
                    group[j] = group[start]
                    stack.append(j)
    return group


def check(hashes: Hashes, tags: Hashes, distance: int) -> None:
    found = neighbours(hashes, tags, distance)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None]).astype(np.int64)
    near = apart <= distance
    np.fill_diagonal(near, False)
    assert found.group.tolist() == groups_of(near)
    for i in range(len(hashes)):
        others = np.flatnonzero(near[i]).tolist()
        assert int(found.tags[i]) == int(np.bitwise_or.reduce(tags[others])) if others else found.tags[i] == 0
        within = [(int(apart[i, j]), j) for j in others if tags[i] & tags[j]]
        across = [(int(apart[i, j]), j) for j in others if int(tags[i] | tags[j]).bit_count() > 1]
        assert (found.within_distance[i], found.within[i]) == min(within, default=(FAR, -1))
        assert (found.across_distance[i], found.across[i]) == min(across, default=(FAR, -1))


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 63), max_size=9)), max_size=40),
    st.integers(0, MOST_DISTANT),
    st.data(),
)
def test_equal_to_comparing_each_with_each(
    seeds: list[int], flips: list[tuple[int, set[int]]], distance: int, data: st.DataObject
) -> None:
    changed = [seeds[at % len(seeds)] ^ sum(1 << bit for bit in bits) for at, bits in flips]
    hashes = np.array(sorted({*seeds, *changed}), np.uint64)
    tags = data.draw(st.lists(st.integers(1, 7), min_size=len(hashes), max_size=len(hashes)))
    check(hashes, np.array(tags, np.uint64), distance)


@pytest.mark.parametrize("distance", range(MOST_DISTANT + 1))
def test_every_pair_at_the_very_distance_is_found(distance: int) -> None:
    rng = np.random.default_rng(distance)
    first = rng.integers(0, 2**63, 300, np.uint64)
    flips = [sum(1 << int(bit) for bit in rng.choice(64, distance, replace=False)) for _ in first]
    beyond = [sum(1 << int(bit) for bit in rng.choice(64, distance + 1, replace=False)) for _ in first]
    for bits, joined in ((flips, True), (beyond, False)):
        second = first ^ np.array(bits, np.uint64)
        for a, b in zip(first, second, strict=True):
            pair = np.unique(np.array([a, b]))
            found = neighbours(pair, np.ones(len(pair), np.uint64), distance)
            assert bool((found.group == 0).all()) is (joined or len(pair) == 1)


def test_hashes_that_share_a_band_do_not_spoil_the_others() -> None:
    rng = np.random.default_rng(0)
    crowded = rng.integers(0, 2**48, 2000, np.uint64)
    check(np.unique(crowded), np.ones(len(np.unique(crowded)), np.uint64), 6)


def test_a_chain_is_one_group() -> None:
    chain = np.unique(np.array([(1 << i) - 1 for i in range(0, 65, 5)], np.uint64))
    found = neighbours(chain, np.ones(len(chain), np.uint64), 5)
    assert set(found.group.tolist()) == {0}
    assert set(neighbours(chain, np.ones(len(chain), np.uint64), 4).group.tolist()) == set(range(len(chain)))


def test_nothing_and_too_far() -> None:
    none = np.zeros(0, np.uint64)
    assert len(neighbours(none, none, 6).group) == 0
    with pytest.raises(ValueError, match="expected 0"):
        neighbours(none, none, MOST_DISTANT + 1)
