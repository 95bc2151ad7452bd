"""Planted units whose answers are known: the whole way from activations to labels."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import reference
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from microtome.dissect.maths.labels import count_labels
from microtome.dissect.maths.scoring import best_labels, iou_table
from microtome.dissect.maths.tally import CONVENTIONS, tally
from microtome.dissect.maths.thresholds import CoarseHistogram, FineHistogram, exact_thresholds, plan_fine

CAR, SKY, RED, STREET = 1, 2, 3, 4
CATEGORY_OF = np.array([-1, 0, 0, 1, 2])
SAMPLES, SIZE, GRID = 8, 28, 14
PLANTED, BLURRED, DEAD, CLIPPED, NOISE, CONSTANT, SILENT = range(7)


def planted() -> tuple[NDArray[np.float16], NDArray[np.uint16], NDArray[np.uint16]]:
    """Cars that fill whole grid cells, sky above them, a red plane, streets; and seven units that look at them."""
    rng = np.random.default_rng(1)
    labels = np.zeros((SAMPLES, 2, SIZE, SIZE), np.uint16)
    image_labels = np.zeros((SAMPLES, 1), np.uint16)
    acts = np.zeros((SAMPLES, 7, GRID, GRID))
    labels[:, 0, :6] = SKY
    for sample in range(0, SAMPLES, 2):
        top, left = rng.integers(4, 9, 2)
        labels[sample, 0, 2 * top : 2 * top + 10, 2 * left : 2 * left + 10] = CAR
        acts[sample, PLANTED, top : top + 5, left : left + 5] = 1
        image_labels[sample] = STREET if sample % 4 else 0
    labels[::3, 1, 10:20, 5:15] = RED
    cars = labels[:, 0] == CAR
    blurred = np.stack([gaussian_filter(car.astype(np.float64), 1.5) for car in cars])
    acts[:, BLURRED] = blurred.reshape(SAMPLES, GRID, 2, GRID, 2).mean(axis=(2, 4))
    acts[:, NOISE] = rng.standard_normal((SAMPLES, GRID, GRID))
    acts[:, CLIPPED] = np.minimum(np.maximum(acts[:, NOISE], 0) * 9, 6)
    acts[:, CONSTANT] = 0.3
    acts[:, SILENT] = np.nan
    return acts.astype(np.float16), labels, image_labels


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("taus", [[0.03], [0.005, 0.06, 0.2]])
def test_labels_thresholds_and_scores_are_exactly_right(convention: str, taus: list[float]) -> None:
    acts, labels, image_labels = planted()
    coarse = CoarseHistogram.empty(7)
    coarse.update(acts)
    fine = FineHistogram.empty(plan_fine(coarse, taus))
    fine.update(acts)
    found = exact_thresholds(coarse, fine, taus)
    assert found.state[[DEAD, CLIPPED, NOISE, CONSTANT, SILENT]].tolist() == [
        "dead",
        "saturated",
        "ok",
        "constant",
        "dead",
    ]
    for unit in range(7):
        for column, tau in enumerate(taus):
            np.testing.assert_array_equal(found.value[unit, column], reference.threshold(acts[:, unit], tau))
    truth = count_labels(labels, image_labels, 4, CATEGORY_OF, 3)
    counts = tally(
        acts,
        found.for_masks,
        found.saturated,
        labels,
        image_labels,
        CATEGORY_OF,
        truth.annotated,
        convention=convention,
    )
    intersection, unit_pixels = reference.tally(
        acts, found.for_masks, found.saturated, labels, image_labels, CATEGORY_OF, truth.annotated, convention
    )
    np.testing.assert_array_equal(counts.intersection, intersection)
    np.testing.assert_array_equal(counts.unit_pixels, unit_pixels)
    table = iou_table(counts.intersection, counts.unit_pixels, truth.pixels, CATEGORY_OF, taus)
    named = best_labels(table, 7, taus[0])
    assert named.concept[[DEAD, CONSTANT, SILENT]].tolist() == [0, 0, 0]
    if taus[0] == 0.03:
        assert named.concept[[PLANTED, BLURRED]].tolist() == [CAR, CAR]
        assert named.iou[PLANTED] > 0.5
        assert named.iou[BLURRED] > 0.3
        assert named.iou[NOISE] < 0.1


def test_the_unit_that_is_the_mask_scores_one() -> None:
    """On the label grid itself a saturated unit's mask is its plateau, pixel for pixel."""
    _, labels, image_labels = planted()
    acts = (labels[:, :1] == CAR).astype(np.float16)
    coarse = CoarseHistogram.empty(1)
    coarse.update(acts)
    fine = FineHistogram.empty(plan_fine(coarse, [0.005]))
    fine.update(acts)
    found = exact_thresholds(coarse, fine, [0.005])
    assert found.state.tolist() == ["saturated"]
    truth = count_labels(labels, image_labels, 4, CATEGORY_OF, 3)
    counts = tally(acts, found.for_masks, found.saturated, labels, image_labels, CATEGORY_OF, truth.annotated)
    table = iou_table(counts.intersection, counts.unit_pixels, truth.pixels, CATEGORY_OF, [0.005])
    named = best_labels(table, 1, 0.005)
    assert (named.concept[0], named.iou[0], named.ceiling[0]) == (CAR, 1.0, 1.0)
