"""Which images stand for a class: those that the network is surest of, those that it takes for something else, and
typical ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TYPICAL, BEST, WORST = "typical", "best", "worst"
KINDS = (TYPICAL, BEST, WORST)


def exemplars(probability: NDArray[np.floating], most: int) -> dict[str, list[int]]:
    """For each of KINDS up to `most` places in `probability` (n,), that of the right class, no place twice.

    best: the highest first; worst: the lowest first; typical: the nearest to the median, nearest first. Ties go to the
    lower place. Where there are fewer than 3 * `most` places each kind gets a third: best first, then worst, typical.
    """
    count = len(probability)
    shares = [min(most, (count + late) // 3) for late in (2, 1, 0)]
    order = np.argsort(-probability, kind="stable")
    best = order[: shares[0]].tolist()
    rising = np.argsort(probability, kind="stable")
    worst = [place for place in rising.tolist() if place not in best][: shares[1]]
    distance = np.abs(probability - np.median(probability)) if count else probability
    nearest = np.argsort(distance, kind="stable").tolist()
    typical = [place for place in nearest if place not in best and place not in worst][: shares[2]]
    return {TYPICAL: typical, BEST: best, WORST: worst}
