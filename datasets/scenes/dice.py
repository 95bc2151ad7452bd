"""Random numbers that are the same on every machine: a counter hashed by SplitMix64.

Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators", section 4. A scene draws all its
choices from one `Dice`, keyed by the dataset's seed and the scene's index, so that scene 7 is the same whether the
dataset holds ten images or a million, whoever reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_BLOCK = 2048


def mix(*keys: int) -> int:
    """One 64-bit hash of integers, in order."""
    state = 0
    for key in keys:
        state = _finish((state + key + _GOLDEN) & _MASK)
    return state


def _finish(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def uniforms(key: int, count: int, start: int = 0) -> NDArray[np.float64]:
    """(count,) float64 in [0, 1): numbers `start` ... of the stream `key`."""
    counter = np.arange(start + 1, start + 1 + count, dtype=np.uint64)
    z = np.uint64(key) + counter * np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Dice:
    """A stream of choices. Numbers are hashed a block at a time; a draw costs well under a microsecond."""

    def __init__(self, *keys: int) -> None:
        self._key = mix(*keys)
        self._start = 0
        self._values: list[float] = []

    def roll(self) -> float:
        """The next number of the stream, in [0, 1)."""
        if not self._values:
            self._values = uniforms(self._key, _BLOCK, self._start).tolist()[::-1]
            self._start += _BLOCK
        return self._values.pop()

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.roll()

    def count(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int((high - low + 1) * self.roll())

    def chance(self, probability: float) -> bool:
        return self.roll() < probability

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(len(choices) * self.roll())]

    def weighted(self, weights: Mapping[str, float]) -> str:
        """One of the names, in proportion to its weight."""
        left = self.roll() * sum(weights.values())
        for name, weight in weights.items():
            left -= weight
            if left < 0:
                return name
        return name
