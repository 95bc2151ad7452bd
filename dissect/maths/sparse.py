"""Counts that are mostly 0 as gaps between those that are not, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.jit import kernel


@kernel
def gaps_of(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """counts: (N,) -> gaps and counts, both (m + 1,) for m counts that are not 0.

    A gap leads from the place before, or from 0, to the next that is not 0; the last one to N, where it counts 0. So
    gaps and counts of several arrays in a row are those of the arrays put together.
    """
    gaps, found = np.empty(counts.size + 1, np.int64), np.empty(counts.size + 1, np.int64)
    last, k = 0, 0
    for place in range(counts.size):
        if counts[place] != 0:
            gaps[k] = place - last
            found[k] = counts[place]
            last = place
            k += 1
    gaps[k] = counts.size - last
    found[k] = 0
    return gaps[: k + 1], found[: k + 1]


def add_at_gaps(total: NDArray[np.int64], gaps: NDArray[np.generic], counts: NDArray[np.generic]) -> None:
    """Add to total: (N,) what `gaps_of` has found, stored in any type of integer. Raises ValueError beyond the end."""
    if len(gaps) != len(counts) or int(gaps.sum()) > total.size:
        raise ValueError(f"{len(counts)} counts at {len(gaps)} gaps do not fit {total.size} places")
    _add(total, gaps.astype(np.int64), counts.astype(np.int64))


@kernel
def _add(total: NDArray[np.int64], gaps: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    place = 0
    for i in range(gaps.size):
        place += gaps[i]
        if counts[i] != 0:  # else perhaps the end
            total[place] += counts[i]
