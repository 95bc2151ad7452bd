"""Guessing where thresholds will lie, so that one look at the activations is enough to find them exactly.

`plan_fine` says which coarse bins have to be counted finely once all has been seen, which is a pass too late where
nothing was kept. A sample of the data says nearly the same: the bins around its own answers are counted during the
first pass, and what the plan then asks for is usually among them. What is not is named, to be counted by another pass:
a wrong guess costs time, never a digit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths import float16
from microtome.dissect.maths.thresholds import NO_PREFIX, CoarseHistogram, FineHistogram, check_taus, plan_fine

BINS = 8
"""Coarse bins that are guessed for each unit and tau; a bin spans 14 to 25% of its values."""


def guess_fine(sample: CoarseHistogram, taus: Sequence[float]) -> NDArray[np.int16]:
    """(C, BINS * T) int16: the coarse bins that may hold the thresholds, judged by a sample of the data; else -1.

    For each tau the bin of the sample's own answer with both neighbours, then the fullest of those between the
    answers for twice and for half of tau.
    """
    levels = check_taus(taus)
    looser = _answers(sample, np.minimum(2 * levels, (1 + levels) / 2)) - 1
    centre, stricter = _answers(sample, levels), _answers(sample, levels / 2) + 1
    units, bins = len(sample.nan), np.arange(256)
    guessed = np.full((units, BINS * levels.size), NO_PREFIX, np.int16)
    for column in range(levels.size):
        distance = np.abs(bins - centre[:, column, None])
        inside = (bins >= looser[:, column, None]) & (bins <= stricter[:, column, None])
        score = np.where(inside, 256 * sample.counts + 255 - distance, -1)
        score = np.where(distance <= 1, np.iinfo(np.int64).max - distance, score)
        score[:, bins < float16.LOWEST >> 8] = -1
        score[:, bins > float16.HIGHEST >> 8] = -1
        best = np.argsort(-score, axis=1, kind="stable")[:, :BINS]
        known = (guessed[:, None, : BINS * column] == best[:, :, None]).any(axis=2)  # for an earlier tau
        chosen = np.where((np.take_along_axis(score, best, axis=1) >= 0) & ~known, best, NO_PREFIX)
        guessed[:, BINS * column : BINS * (column + 1)] = chosen
    return guessed


def _answers(sample: CoarseHistogram, taus: NDArray[np.float64]) -> NDArray[np.int64]:
    """(C, T) int64: the coarse bin of each answer, also where a unit has one value only (0 where it has none)."""
    only = np.where(sample.positions == 0, float16.ZERO, sample.highest).astype(np.int64) >> 8
    planned = plan_fine(sample, taus.tolist()).astype(np.int64)
    answers: NDArray[np.int64] = np.where(planned == NO_PREFIX, only[:, None], planned)
    return answers


def merge_common(one: FineHistogram, other: FineHistogram) -> FineHistogram:
    """Both together, for other samples each: the bins that both have counted; -1 in place of the others.

    Shards of one capture have the same guess; those that a run grows by may have another.
    """
    if np.array_equal(one.prefixes, other.prefixes):
        return FineHistogram(one.prefixes, one.counts + other.counts)
    both = FineHistogram.empty(np.full_like(one.prefixes, NO_PREFIX))
    for column in range(one.prefixes.shape[1]):
        found = (other.prefixes == one.prefixes[:, column, None]) & (one.prefixes[:, column, None] != NO_PREFIX)
        unit = np.flatnonzero(found.any(axis=1))
        both.prefixes[unit, column] = one.prefixes[unit, column]
        both.counts[unit, column] = one.counts[unit, column] + other.counts[unit, np.argmax(found[unit], axis=1)]
    return both


def take_guessed(guessed: FineHistogram, planned: NDArray[np.int16]) -> tuple[FineHistogram, NDArray[np.int16]]:
    """The fine histogram of the plan, (C, T), as far as it was guessed, and the plan of what was not.

    `add_missed` completes it with the counts of the latter.
    """
    fine, missed = FineHistogram.empty(planned), np.full_like(planned, NO_PREFIX)
    for column in range(planned.shape[1]):
        wanted = planned[:, column]
        first = (wanted != NO_PREFIX) & ~(planned[:, :column] == wanted[:, None]).any(axis=1)
        found = guessed.prefixes == wanted[:, None]
        hit = first & found.any(axis=1)
        fine.counts[hit, column] = guessed.counts[hit, np.argmax(found[hit], axis=1)]
        missed[:, column] = np.where(first & ~hit, wanted, NO_PREFIX)
    return fine, missed


def add_missed(fine: FineHistogram, missed: FineHistogram) -> None:
    """Add to `fine` what was counted later, by the second plan that `take_guessed` gave."""
    fine.counts[...] += missed.counts
