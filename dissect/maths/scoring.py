"""From counts to scores: IoU, its ceiling, the label of each unit, detectors, unique detectors.

IoU(unit, concept c of category g) = I / (A_g + G_c - I): I pixels in both, A_g mask pixels over the samples that
count for g, G_c concept pixels (Network Dissection, 2017, equation 1, over the whole dataset). Every score can be
recomputed from the integers beside it. The ceiling min(A_g, G_c) / max(A_g, G_c) is the most that areas of those
sizes could reach: a small mask cannot score high with a large concept whatever the unit does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Columns = dict[str, NDArray[np.generic]]

MIN_IOU = 0.04
"""A detector's best IoU is above this (Network Dissection, 2017, section 3)."""


def iou_table(
    intersection: NDArray[np.int64],
    unit_pixels: NDArray[np.int64],
    concept_pixels: NDArray[np.int64],
    category_of: ArrayLike,
    taus: Sequence[float],
) -> Columns:
    """One row for every tau, unit and concept with a non-empty intersection, in that order.

    intersection: (T, C, K+1), unit_pixels: (T, C, G), concept_pixels: (K+1,) int64; category_of: (K+1,), -1 = none.
    Columns: unit, concept, intersection, unit_pixels, concept_pixels (int64), iou, ceiling, tau (float64).
    """
    categories = np.asarray(category_of, dtype=np.int64)
    tau, unit, concept = np.nonzero(intersection * (categories >= 0))
    both = intersection[tau, unit, concept]
    area = unit_pixels[tau, unit, categories[concept]]
    truth = np.asarray(concept_pixels, dtype=np.int64)[concept]
    return {
        "unit": unit.astype(np.int64),
        "concept": concept.astype(np.int64),
        "intersection": both,
        "unit_pixels": area,
        "concept_pixels": truth,
        "iou": intersection_over_union(both, area, truth),
        "ceiling": area_ceiling(area, truth),
        "tau": np.asarray(taus, dtype=np.float64)[tau],
    }


def intersection_over_union(
    both: NDArray[np.int64], unit_pixels: NDArray[np.int64], concept_pixels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """I / (A + G - I) in float64, 0 where the union is empty."""
    union = unit_pixels + concept_pixels - both
    return np.where(union > 0, both / np.maximum(union, 1), 0.0)


def area_ceiling(unit_pixels: NDArray[np.int64], concept_pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """min(A, G) / max(A, G) in float64, 0 where both are 0."""
    larger = np.maximum(unit_pixels, concept_pixels)
    return np.minimum(unit_pixels, concept_pixels) / np.maximum(larger, 1)


def iou_for_rows(
    columns: Mapping[str, NDArray[np.generic]],
    intersection: NDArray[np.int64],
    unit_pixels: NDArray[np.int64],
    concept_pixels: NDArray[np.int64],
    category_of: ArrayLike,
    taus: Sequence[float],
) -> NDArray[np.float64]:
    """The IoU of other counts (those of one split, say) for the rows of an `iou_table`; 0 where nothing overlaps."""
    categories = np.asarray(category_of, dtype=np.int64)
    unit = columns["unit"].astype(np.int64)
    concept = columns["concept"].astype(np.int64)
    known, values = np.asarray(taus, dtype=np.float64), columns["tau"].astype(np.float64)
    order = np.argsort(known)
    tau = order[np.minimum(np.searchsorted(known, values, sorter=order), len(known) - 1)]
    if (known[tau] != values).any():
        raise ValueError(f"the rows have other fractions than {list(taus)}")
    both = intersection[tau, unit, concept]
    area = unit_pixels[tau, unit, categories[concept]]
    return intersection_over_union(both, area, np.asarray(concept_pixels, dtype=np.int64)[concept])


@dataclass(frozen=True, slots=True)
class Labels:
    """The label of each of C units at one tau.

    concept: (C,) int64, the concept of highest IoU (ties: lowest id), 0 = none overlaps
    iou, ceiling: (C,) float64 of that pair over all samples, 0 where there is none
    row: (C,) int64, the row of the table, -1 where there is none
    is_detector: (C,) bool, iou > min_iou
    """

    concept: NDArray[np.int64]
    iou: NDArray[np.float64]
    ceiling: NDArray[np.float64]
    row: NDArray[np.int64]
    is_detector: NDArray[np.bool_]


def best_labels(
    columns: Mapping[str, NDArray[np.generic]],
    units: int,
    tau: float,
    *,
    min_iou: float = MIN_IOU,
    by: str = "iou",
    concepts: NDArray[np.bool_] | None = None,
) -> Labels:
    """Label every unit from the rows of an `iou_table` at `tau`.

    by: the column to choose the label by ("iou_train" where the data has splits); whether the unit is a detector
        is judged by the label's IoU over all samples
    concepts: (K+1,) bool, which concepts may be labels; all where None
    A pair whose chosen IoU is 0 labels nothing.
    """
    scores = columns[by].astype(np.float64)
    concept = columns["concept"].astype(np.int64)
    keep = (columns["tau"].astype(np.float64) == tau) & (scores > 0)
    if concepts is not None:
        keep &= concepts[concept]
    rows = np.flatnonzero(keep)
    unit = columns["unit"].astype(np.int64)[rows]
    order = np.lexsort((concept[rows], -scores[rows], unit))
    rows, unit = rows[order], unit[order]
    labelled, first = np.unique(unit, return_index=True)
    best = rows[first]
    result = Labels(
        np.zeros(units, np.int64),
        np.zeros(units, np.float64),
        np.zeros(units, np.float64),
        np.full(units, -1, np.int64),
        np.zeros(units, np.bool_),
    )
    result.concept[labelled] = concept[best]
    result.iou[labelled] = columns["iou"].astype(np.float64)[best]
    result.ceiling[labelled] = columns["ceiling"].astype(np.float64)[best]
    result.row[labelled] = best
    result.is_detector[labelled] = result.iou[labelled] > min_iou
    return result


@dataclass(frozen=True, slots=True)
class DetectorSummary:
    """Detectors of one layer at one tau, and both published meanings of "unique detectors".

    detectors: units whose best label passes
    unique_labels: distinct best labels of detectors (the count in the published HTML reports)
    unique_by_category: distinct top labels within each category that pass, summed (the paper's figures)
    category_detectors: (G,) units whose best label passes and is of the category; sums to `detectors`
    category_unique_labels: (G,) distinct labels among those; sums to `unique_labels`
    category_top_detectors: (G,) units whose best label within the category passes
    category_unique: (G,) distinct labels among those; sums to `unique_by_category`
    """

    detectors: int
    unique_labels: int
    unique_by_category: int
    category_detectors: NDArray[np.int64]
    category_unique_labels: NDArray[np.int64]
    category_top_detectors: NDArray[np.int64]
    category_unique: NDArray[np.int64]


def unique_detectors(
    columns: Mapping[str, NDArray[np.generic]],
    units: int,
    category_of: ArrayLike,
    categories: int,
    tau: float,
    *,
    min_iou: float = MIN_IOU,
    by: str = "iou",
) -> DetectorSummary:
    """Count detectors at `tau`, in all and for each category; arguments as for `best_labels`."""
    category = np.asarray(category_of, dtype=np.int64)
    labels = best_labels(columns, units, tau, min_iou=min_iou, by=by)
    found = labels.concept[labels.is_detector]
    distinct = np.unique(found)
    tops = []
    for index in range(categories):
        top = best_labels(columns, units, tau, min_iou=min_iou, by=by, concepts=category == index)
        tops.append(top.concept[top.is_detector])
    unique = np.array([np.unique(top).size for top in tops], dtype=np.int64)
    return DetectorSummary(
        detectors=int(found.size),
        unique_labels=int(distinct.size),
        unique_by_category=int(unique.sum()),
        category_detectors=np.bincount(category[found], minlength=categories).astype(np.int64),
        category_unique_labels=np.bincount(category[distinct], minlength=categories).astype(np.int64),
        category_top_detectors=np.array([top.size for top in tops], dtype=np.int64),
        category_unique=unique,
    )
