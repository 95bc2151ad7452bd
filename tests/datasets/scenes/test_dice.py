"""The dice: SplitMix64 as published, the same numbers in bulk and one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.datasets.scenes.dice import Dice, mix, uniforms


def slow_splitmix(state: int, count: int) -> list[int]:
    """The published generator, one 64-bit number at a time."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        numbers.append(z ^ (z >> 31))
    return numbers


def test_published_values_for_seed_1234567() -> None:
    assert slow_splitmix(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(max_examples=30, deadline=None)
@given(key=st.integers(0, 2**64 - 1), start=st.integers(0, 50))
def test_bulk_numbers_are_those_of_the_generator(key: int, start: int) -> None:
    expected = [(z >> 11) * 2.0**-53 for z in slow_splitmix(key, start + 20)][start:]
    np.testing.assert_array_equal(uniforms(key, 20, start), expected)


def test_a_long_stream_crosses_blocks_without_a_seam() -> None:
    dice = Dice(5, 6)
    rolled = [dice.roll() for _ in range(5000)]
    np.testing.assert_array_equal(rolled, uniforms(mix(5, 6), 5000))


def test_choices_stay_in_bounds_and_follow_their_weights() -> None:
    dice = Dice(1)
    assert {dice.count(2, 4) for _ in range(200)} == {2, 3, 4}
    assert {dice.pick("abc") for _ in range(200)} == set("abc")
    assert all(-1 <= dice.between(-1, 2) < 2 for _ in range(200))
    picks = [dice.weighted({"often": 3.0, "never": 0.0, "seldom": 1.0}) for _ in range(2000)]
    assert "never" not in picks
    assert 0.7 < picks.count("often") / 2000 < 0.8
    assert 0.2 < np.mean([dice.chance(0.3) for _ in range(2000)]) < 0.4


def test_mix_depends_on_every_key_and_its_place() -> None:
    assert len({mix(1, 2, 3), mix(1, 2), mix(2, 1, 3), mix(1, 2, 4), mix(0, 1, 2, 3)}) == 5
