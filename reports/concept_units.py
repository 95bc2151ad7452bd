"""Concepts across layers: the units that see each concept best, for the pages of concepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.reports.payload import DIGITS, Json, rounded
from microtome.reports.summaries import Concepts, Labels

TOP = 24
"""How many units of a layer the page of a concept lists."""

PER_FILE = 32
"""Concepts whose units are in one data file."""


@dataclass(frozen=True, slots=True)
class ConceptUnits:
    """The units of one layer by concept, at the first tau.

    concept, unit, iou, ceiling, label: the at most TOP units of highest IoU of each concept, all (n,), ordered by
    concept, falling IoU and unit; label: whether the concept is the unit's label. detectors, passing: (K + 1,), units
    whose label the concept is and which are detectors; units with an IoU above the bar, whatever their label.
    """

    concept: NDArray[np.int64]
    unit: NDArray[np.int64]
    iou: NDArray[np.float64]
    ceiling: NDArray[np.float64]
    label: NDArray[np.bool_]
    detectors: NDArray[np.int64]
    passing: NDArray[np.int64]

    @classmethod
    def of(cls, scores: pd.DataFrame, labels: Labels, concepts: Concepts, bar: float) -> ConceptUnits:
        """From iou.parquet of a layer, of which the rows at the tau of `labels` are taken."""
        at = np.isclose(scores["tau"].to_numpy(np.float64), labels.tau, rtol=1e-9, atol=0)
        iou = scores["iou"].to_numpy(np.float64)
        rows = np.flatnonzero(at & (iou > 0))
        unit, concept = (scores[name].to_numpy(np.int64)[rows] for name in ("unit", "concept"))
        iou, ceiling = iou[rows], scores["ceiling"].to_numpy(np.float64)[rows]
        count = len(concepts.names)
        order = np.lexsort((unit, -iou, concept))
        starts = np.searchsorted(concept[order], np.arange(count))
        top = order[np.arange(len(order)) - starts[concept[order]] < TOP]
        return cls(
            concept[top],
            unit[top],
            iou[top],
            ceiling[top],
            labels.concept[unit[top]] == concept[top],
            np.bincount(labels.concept[labels.detector], minlength=count),
            np.bincount(concept[iou > bar], minlength=count),
        )

    def best(self, concept: int) -> tuple[int, float] | None:
        """The unit of highest IoU with a concept, and that IoU; None where no mask meets it."""
        at = int(np.searchsorted(self.concept, concept))
        if at == len(self.concept) or self.concept[at] != concept:
            return None
        return int(self.unit[at]), float(self.iou[at])

    def listed(self, concept: int, shapes: Sequence[str]) -> list[Json]:
        """[unit, IoU, ceiling, 1 where the concept is its label, shape of its strip] of each unit listed, best first.

        shapes: of each unit (`strip_shapes`).
        """
        start, end = np.searchsorted(self.concept, [concept, concept + 1]).tolist()
        part = slice(start, end)
        rows = zip(
            self.unit[part].tolist(),
            rounded(self.iou[part]),
            rounded(self.ceiling[part]),
            self.label[part].astype(int).tolist(),
            (shapes[unit] for unit in self.unit[part].tolist()),
            strict=True,
        )
        return [list(row) for row in rows]


Shapes: TypeAlias = Sequence[Sequence[str]]
"""Of each layer, the shape of each unit's strip."""


def concept_files(
    layers: Sequence[ConceptUnits], shapes: Shapes, concepts: Concepts
) -> Iterator[tuple[int, dict[str, list[Json]]]]:
    """Number and content of each data file: {id: [[layer, detectors, passing, units], ...]} of PER_FILE concepts."""
    count = len(concepts.names)
    for number in range((count + PER_FILE - 1) // PER_FILE):
        ids = range(max(number * PER_FILE, 1), min((number + 1) * PER_FILE, count))
        yield number, {str(concept): _of_concept(layers, shapes, concept) for concept in ids}


def _of_concept(layers: Sequence[ConceptUnits], shapes: Shapes, concept: int) -> list[Json]:
    return [
        [number, int(layer.detectors[concept]), int(layer.passing[concept]), layer.listed(concept, shapes[number])]
        for number, layer in enumerate(layers)
    ]


def depths(layers: Sequence[ConceptUnits], shapes: Shapes, concepts: Concepts) -> Json:
    """By concept, for each layer with a unit that sees any of it: [layer, detectors, best unit, its IoU, its strip]."""
    found: dict[str, list[Json]] = {}
    for concept in range(1, len(concepts.names)):
        rows = []
        for number, layer in enumerate(layers):
            best = layer.best(concept)
            if best is not None:
                score = float(f"{best[1]:.{DIGITS}g}")
                rows.append([number, int(layer.detectors[concept]), best[0], score, shapes[number][best[0]]])
        if rows:
            found[str(concept)] = rows
    return found
