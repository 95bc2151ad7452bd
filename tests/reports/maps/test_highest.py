"""The highest peaks of units, as shards pass, against all peaks sorted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from microtome.reports.maps.highest import Highest

PEAKS = arrays(np.float16, array_shapes(min_dims=2, max_dims=2, max_side=60), elements=st.floats(width=16))
TIED = arrays(
    np.float16, array_shapes(min_dims=2, max_dims=2, max_side=90), elements=st.sampled_from([0, 1, 2, np.inf])
)


def sorted_out(peaks: NDArray[np.float16], points: NDArray[np.int64], count: int) -> list[tuple[int, float]]:
    """The slow and obvious way, for one unit: (point, peak), by point."""
    rows = [(float(peak), int(point)) for peak, point in zip(peaks, points, strict=True) if point >= 0 and peak > 0]
    return sorted((point, peak) for peak, point in sorted(rows, key=lambda row: (-row[0], row[1]))[:count])


@given(PEAKS | TIED, st.integers(1, 40), st.integers(1, 30))
def test_it_finds_what_sorting_finds(peaks: NDArray[np.float16], count: int, shard: int) -> None:
    samples, units = peaks.shape
    points = np.random.default_rng(samples).permutation(samples).astype(np.int64)
    points[points % 7 == 3] = -1
    highest = Highest(units, count)
    for start in range(0, samples, shard):
        highest.update(peaks[start : start + shard], points[start : start + shard])
    for unit in range(units):
        for _ in range(2):  # asking twice changes nothing
            at, found = highest.of_unit(unit)
            expected = sorted_out(peaks[:, unit], points, count)
            assert list(zip(at.tolist(), found.astype(float).tolist(), strict=True)) == expected
        mine = peaks[points >= 0, unit].astype(float)
        assert highest.maxima[unit] == mine[np.isfinite(mine)].max(initial=0)


@pytest.mark.parametrize("samples", [2_000, 200_000])
def test_it_holds_no_more_of_many_samples(samples: int) -> None:
    highest = Highest(3, 100)
    peaks = np.random.default_rng(0).gamma(2, 1, (samples, 3)).astype(np.float16)
    points = np.arange(samples)[::-1].copy()
    highest.update(peaks, points)
    for unit in range(3):
        at, found = highest.of_unit(unit)
        assert list(zip(at.tolist(), found.astype(float).tolist(), strict=True)) == sorted_out(
            peaks[:, unit], points, 100
        )
    assert sum(getattr(highest, name).nbytes for name in ("_bits", "_points")) == 3 * 125 * 6
