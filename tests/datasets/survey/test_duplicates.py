"""Duplicates within and across splits, against the plain definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from microtome.datasets.survey.duplicates import Duplicates, Repeats, find_duplicates

Item = tuple[int, int, int, bool]
"""Split, pixels, look and whether flat."""


def duplicates_of(items: list[Item], pairs: int = 4, distance: int = 6) -> Duplicates:
    table = np.array([item[:3] for item in items], np.uint64).reshape(-1, 3)
    flat = np.array([item[3] for item in items], np.bool_)
    digest = np.column_stack([table[:, 1], table[:, 1] ^ np.uint64(99)])
    index = 10 * np.arange(len(items))
    return find_duplicates(
        index, table[:, 0].astype(np.int64), digest, table[:, 2], flat, pairs=pairs, distance=distance
    )


def expected(items: list[Item], *, across: bool, alike: bool, distance: int = 6) -> list[int]:
    def repeats(a: Item, b: Item) -> bool:
        if (a[0] != b[0]) != across:
            return False
        if not alike:
            return a[1] == b[1]
        return not a[3] and not b[3] and (a[2] ^ b[2]).bit_count() <= distance

    return [
        10 * i for i, one in enumerate(items) if any(repeats(one, other) for j, other in enumerate(items) if j != i)
    ]


@st.composite
def datasets(draw: st.DrawFn) -> list[Item]:
    """Images of few kinds: equal pixels always look equal."""
    looks = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    kinds = []
    for pixels in range(draw(st.integers(1, 8))):
        bits = draw(st.sets(st.integers(0, 63), max_size=5))
        look = draw(st.sampled_from(looks)) ^ sum(1 << bit for bit in bits)
        kinds.append((pixels, look, draw(st.integers(0, 5)) == 0))
    chosen = draw(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(kinds)), max_size=24))
    return [(split, *kind) for split, kind in chosen]


@given(datasets())
def test_the_samples_concerned_are_exactly_those_of_the_definition(items: list[Item]) -> None:
    found = duplicates_of(items)
    assert found.equal_across.samples.tolist() == expected(items, across=True, alike=False)
    assert found.equal_within.samples.tolist() == expected(items, across=False, alike=False)
    assert found.alike_across.samples.tolist() == expected(items, across=True, alike=True)
    assert found.alike_within.samples.tolist() == expected(items, across=False, alike=True)
    for repeats, across, alike in (
        (found.equal_across, True, False),
        (found.equal_within, False, False),
        (found.alike_across, True, True),
        (found.alike_within, False, True),
    ):
        check_pairs(repeats, items, across=across, alike=alike)


def check_pairs(repeats: Repeats, items: list[Item], *, across: bool, alike: bool) -> None:
    for pair in repeats.pairs:
        assert pair.first < pair.second
        a, b = items[pair.first // 10], items[pair.second // 10]
        assert (a[0] != b[0]) == across
        assert pair.equal == (a[1] == b[1]) == (not alike)
        assert pair.distance == ((a[2] ^ b[2]).bit_count() if alike else 0)


def test_thousands_of_black_images_are_one_group() -> None:
    items: list[Item] = [(i % 2, 7, 0, True) for i in range(20_000)]
    found = duplicates_of(items)
    assert (found.equal_across.groups, found.equal_across.largest) == (1, 20_000)
    assert len(found.equal_across.pairs) == 1
    assert len(found.alike_across.samples) == 0


def test_thousands_of_images_of_one_look_are_one_group() -> None:
    items: list[Item] = [(i % 3, i, 12345 ^ (1 << i % 6), False) for i in range(20_000)]
    found = duplicates_of(items)
    assert (found.alike_across.groups, found.alike_across.largest) == (1, 20_000)
    assert len(found.alike_within.pairs) == 1
    assert not len(found.equal_within.samples)


def test_of_many_groups_some_pairs_from_the_nearest_to_the_farthest() -> None:
    rng = np.random.default_rng(0)
    items: list[Item] = []
    for group, look in enumerate(rng.integers(0, 2**63, 40).tolist()):
        apart = group % 4
        items += [(0, 2 * group, look, False), (1, 2 * group + 1, look ^ ((1 << apart) - 1), False)]
    found = duplicates_of(items, pairs=5).alike_across
    assert found.groups == 40
    distances = [pair.distance for pair in found.pairs]
    assert len(distances) == 5
    assert distances == sorted(distances)
    assert (distances[0], distances[-1]) == (0, 3)


def test_many_splits_are_told_apart_up_to_a_number() -> None:
    items: list[Item] = [(i, 5, 9, False) for i in range(60)]
    assert len(duplicates_of(items).equal_across.samples) == 60
    assert len(duplicates_of(items).equal_within.samples) == 0
    late: list[Item] = [(100, 5, 9, False), (200, 5, 9, False)]
    assert len(duplicates_of(late).equal_within.samples) == 2


def test_nothing_in_nothing() -> None:
    found = duplicates_of([])
    assert [r.groups for r in (found.equal_across, found.equal_within, found.alike_across, found.alike_within)] == [
        0
    ] * 4
