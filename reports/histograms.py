"""Activation histograms as the pages draw them: equal bins over a unit's range, heights on a log scale.

The run stores counts over bins of the float16 patterns (four to an octave); here they are spread over equal bins,
in proportion to the overlap.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

BINS = 48
LEVELS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The character of height 0 (no position) to 61 (the fullest bin)."""


def spread_counts(
    low: NDArray[np.float64], high: NDArray[np.float64], count: NDArray[np.float64], start: float, stop: float
) -> NDArray[np.float64]:
    """Counts over `BINS` equal bins of [start, stop] from counts over the bins [low, high] (n,), cut to that range."""
    result = np.zeros(BINS)
    if not stop > start:
        result[0] = count.sum()
        return result
    scale = BINS / (stop - start)
    first = np.clip((low - start) * scale, 0, BINS - 1e-9)
    last = np.clip((high - start) * scale, 0, BINS)
    last = np.maximum(last, first + 1e-9)
    edges = np.arange(BINS)
    overlap = np.minimum(last[:, None], edges + 1) - np.maximum(first[:, None], edges)
    share = np.clip(overlap, 0, None) / (last - first)[:, None]
    return np.asarray((share * count[:, None]).sum(axis=0))


def encode_heights(counts: NDArray[np.float64]) -> str:
    """One character a bin, log(1 + count) against the fullest bin; any position at all shows."""
    top = np.log1p(counts.max(initial=0.0))
    if top == 0:
        return LEVELS[0] * len(counts)
    heights = np.ceil(np.log1p(counts) / top * (len(LEVELS) - 1) - 1e-9).astype(np.int64)
    heights[(counts > 1e-6) & (heights < 1)] = 1
    return "".join(LEVELS[height] for height in heights)


def encode_histograms(units: pd.DataFrame, histogram: pd.DataFrame) -> list[str]:
    """The histogram of every unit, each `BINS` characters over [minimum, maximum]; empty where none is stored."""
    table = histogram.sort_values(["unit", "low"], kind="stable")
    unit = table["unit"].to_numpy(np.int64)
    columns = [table[name].to_numpy(np.float64) for name in ("low", "high", "count")]
    bounds = np.searchsorted(unit, np.arange(len(units) + 1))
    minimum, maximum = units["minimum"].to_numpy(np.float64), units["maximum"].to_numpy(np.float64)
    encoded = []
    for number in range(len(units)):
        part = slice(bounds[number], bounds[number + 1])
        low, high, count = (column[part] for column in columns)
        known = len(low) and np.isfinite(minimum[number]) and np.isfinite(maximum[number])
        encoded.append(
            encode_heights(spread_counts(low, high, count, minimum[number], maximum[number])) if known else ""
        )
    return encoded
