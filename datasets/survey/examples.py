"""Which few samples show the concepts of a dataset best: chosen while samples pass by, a sample a concept in memory."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.survey.reading import Record

VISIBLE = 0.01
"""The share of the pixels from which on a concept is easy to see."""


class Showcase:
    """For each concept the sample that shows it best: visibly, if there is one, with the most others beside it."""

    def __init__(self, concepts: int) -> None:
        self._share = np.zeros(concepts + 1)
        self._beside = np.zeros(concepts + 1, np.int64)
        self._sample = np.full(concepts + 1, -1, np.int64)
        self._shown: dict[int, NDArray[np.int64]] = {}

    def add(self, record: Record) -> None:
        """Consider a sample; of equally good ones the first stays."""
        if not len(record.ids):
            return
        ids, share = record.ids, np.minimum(record.pixels / record.area, VISIBLE)
        visible = ids[share >= VISIBLE]
        beside = len(visible)
        better = (share > self._share[ids]) | ((share == self._share[ids]) & (beside > self._beside[ids]))
        won = ids[better]
        if not len(won):
            return
        self._share[won], self._beside[won], self._sample[won] = share[better], beside, record.index
        self._shown[record.index] = visible
        if len(self._shown) > 2 * len(self._sample) + 100:
            self._forget()

    def choose(self, limit: int) -> list[int]:
        """Up to `limit` samples, ascending, that together show as many concepts as can be had (greedily).

        Once every concept is shown, it begins again with the samples that are left.
        """
        self._forget()
        left = {
            sample: frozenset(visible.tolist()) | frozenset(np.flatnonzero(self._sample == sample).tolist())
            for sample, visible in self._shown.items()
        }
        chosen: list[int] = []
        while left and len(chosen) < limit:
            once = _cover(left, limit - len(chosen))
            chosen += once
            for sample in once:
                del left[sample]
        return sorted(chosen)

    def _forget(self) -> None:
        best = set(self._sample.tolist())
        self._shown = {sample: visible for sample, visible in self._shown.items() if sample in best}


def _cover(sets: dict[int, frozenset[int]], limit: int) -> list[int]:
    """Up to `limit` keys, each of which adds the most elements to those before it, until none adds any."""
    queue = [(-len(held), key) for key, held in sets.items()]
    heapq.heapify(queue)
    covered: set[int] = set()
    chosen: list[int] = []
    while queue and len(chosen) < limit:
        promised, key = heapq.heappop(queue)
        gain = len(sets[key] - covered)
        if not gain:
            continue
        if gain < -promised:
            heapq.heappush(queue, (-gain, key))
            continue
        covered |= sets[key]
        chosen.append(key)
    return chosen
