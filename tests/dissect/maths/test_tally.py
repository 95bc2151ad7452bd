"""The tally against full masks: equal to the last integer."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.dissect.maths.tally import CONVENTIONS, TallyCounts, count_labels, tally
from microtome.storage.errors import UsageError


def random_case(seed: int, **fixed: int) -> dict[str, np.ndarray]:
    """A small case drawn from a seed: grids, labels, thresholds, holes, plateaus, missing categories."""
    rng = np.random.default_rng(seed)

    def draw(name: str, low: int, high: int) -> int:
        return fixed.get(name, int(rng.integers(low, high + 1)))

    n, units = draw("n", 1, 3), draw("units", 1, 4)
    h, w = draw("h", 1, 12), draw("w", 1, 12)
    height, width = draw("height", 1, 17), draw("width", 1, 17)
    planes, slots = draw("planes", 0, 3), draw("slots", 0, 2)
    concepts, categories, taus = draw("concepts", 1, 9), draw("categories", 1, 4), draw("taus", 1, 3)
    acts = rng.standard_normal((n, units, h, w))
    if rng.random() < 0.5:
        acts = np.maximum(acts, 0)
    if rng.random() < 0.4:
        acts = np.minimum(acts, 0.5)
    if rng.random() < 0.4:
        acts = np.round(acts * 2) / 2
    acts = acts.astype(np.float16)
    for value in (np.nan, np.inf, -np.inf, -0.0):
        if rng.random() < 0.3:
            acts[rng.random(acts.shape) < 0.1] = value
    thresholds = np.empty((units, taus), np.float16)
    for unit in range(units):
        pool = acts[:, unit][~np.isnan(acts[:, unit])]
        for tau in range(taus):
            thresholds[unit, tau] = rng.choice(pool) if pool.size and rng.random() < 0.9 else np.nan
    saturated = rng.random((units, taus)) < 0.3
    category_of = np.concatenate([[-1], rng.integers(0, categories, concepts)]).astype(np.int64)
    labels = rng.integers(0, concepts + 1, (n, planes, height, width)).astype(np.uint16)
    labels[rng.random(labels.shape) < 0.4] = 0
    labels[rng.random(n) < 0.3] = 0
    image_labels = rng.integers(0, concepts + 1, (n, slots)).astype(np.uint16)
    annotated = reference.annotated(labels, image_labels, category_of, categories)
    return {
        "acts": acts,
        "thresholds": thresholds,
        "saturated": saturated,
        "labels": labels,
        "image_labels": image_labels,
        "category_of": category_of,
        "annotated": annotated,
    }


def check(case: dict[str, np.ndarray], convention: str) -> None:
    counts = tally(**case, convention=convention)
    intersection, unit_pixels = reference.tally(*case.values(), convention)
    np.testing.assert_array_equal(counts.intersection, intersection)
    np.testing.assert_array_equal(counts.unit_pixels, unit_pixels)


@settings(deadline=None, max_examples=120)
@given(seed=st.integers(0, 2**32 - 1), convention=st.sampled_from(CONVENTIONS))
def test_equals_the_dense_reference(seed: int, convention: str) -> None:
    check(random_case(seed), convention)
