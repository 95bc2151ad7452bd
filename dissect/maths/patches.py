"""The samples that excite each unit most, kept while shards pass by.

Order: higher peak first, then lower sample index; at most one patch a sample; NaN never. That order is total, so
any split into shards and any order of merging give the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths import float16
from microtome.dissect.maths.jit import kernel


@dataclass(frozen=True, slots=True)
class TopPatches:
    """The best k of every unit so far, best first; updated in place.

    sample: (C, k) int64, -1 where fewer than k were seen; position: (C, k) int32, flat in the grid, -1 likewise;
    pattern: (C, k) uint16, ordered pattern of the peak (0 likewise)
    """

    sample: NDArray[np.int64]
    position: NDArray[np.int32]
    pattern: NDArray[np.uint16]

    @classmethod
    def empty(cls, units: int, k: int) -> TopPatches:
        """Nothing seen yet."""
        return cls(
            np.full((units, k), -1, np.int64), np.full((units, k), -1, np.int32), np.zeros((units, k), np.uint16)
        )

    @property
    def value(self) -> NDArray[np.float16]:
        """(C, k) float16 peaks, NaN where there is none."""
        return np.where(self.sample < 0, np.float16(np.nan), float16.values_of_patterns(self.pattern)).astype(
            np.float16
        )

    def update(self, peak: NDArray[np.float16], peak_at: NDArray[np.integer], first_sample: int) -> None:
        """Add samples first_sample, first_sample + 1, ...: peak (n, C) float16, peak_at (n, C) flat positions."""
        patterns = np.ascontiguousarray(float16.ordered_patterns(peak))
        samples = np.arange(first_sample, first_sample + len(peak), dtype=np.int64)
        positions = np.ascontiguousarray(peak_at, dtype=np.int32)
        for row, sample in enumerate(samples):
            _insert_row(patterns[row], positions[row], int(sample), self.sample, self.position, self.pattern)

    def merge(self, other: TopPatches) -> None:
        """Add what `other` has kept (the same k, other samples)."""
        for rank in range(other.sample.shape[1]):
            _insert_column(
                other.pattern[:, rank],
                other.position[:, rank],
                other.sample[:, rank],
                self.sample,
                self.position,
                self.pattern,
            )

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The state, as named arrays."""
        return {"sample": self.sample, "position": self.position, "pattern": self.pattern}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> TopPatches:
        """The state again, from copies of `to_arrays`."""
        return cls(
            arrays["sample"].astype(np.int64),
            arrays["position"].astype(np.int32),
            arrays["pattern"].astype(np.uint16),
        )


@kernel
def _insert_row(
    pattern: NDArray[np.uint16],
    position: NDArray[np.int32],
    sample: int,
    samples: NDArray[np.int64],
    positions: NDArray[np.int32],
    patterns: NDArray[np.uint16],
) -> None:
    for unit in range(pattern.size):
        _insert(pattern[unit], position[unit], sample, samples[unit], positions[unit], patterns[unit])


@kernel
def _insert_column(
    pattern: NDArray[np.uint16],
    position: NDArray[np.int32],
    sample: NDArray[np.int64],
    samples: NDArray[np.int64],
    positions: NDArray[np.int32],
    patterns: NDArray[np.uint16],
) -> None:
    for unit in range(pattern.size):
        if sample[unit] >= 0:
            _insert(pattern[unit], position[unit], sample[unit], samples[unit], positions[unit], patterns[unit])


@kernel
def _insert(
    pattern: int,
    position: int,
    sample: int,
    samples: NDArray[np.int64],
    positions: NDArray[np.int32],
    patterns: NDArray[np.uint16],
) -> None:
    """Insert into one unit's list, if it belongs there."""
    if pattern < 0x03FF or pattern > 0xFC00:
        return
    place = samples.size
    while place > 0 and (
        samples[place - 1] < 0
        or patterns[place - 1] < pattern
        or (patterns[place - 1] == pattern and samples[place - 1] > sample)
    ):
        place -= 1
    if place == samples.size:
        return
    for i in range(samples.size - 1, place, -1):
        samples[i], positions[i], patterns[i] = samples[i - 1], positions[i - 1], patterns[i - 1]
    samples[place], positions[place], patterns[place] = sample, position, pattern
