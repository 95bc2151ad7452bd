"""What two runs detect: concepts gained and lost, detectors by layer, from their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from microtome.dissect.query.dissection import Dissection

GAINED, LOST, BOTH, NEITHER = "gained", "lost", "both", "neither"
CLEAR_SHARE, CLEAR_LEAST = 0.5, 0.02
"""A concept is clearly gained or lost where its best IoU moved by this share of the bar, and by so much at least."""

_KEY = ["name", "category"]


@dataclass(frozen=True, slots=True)
class BestUnit:
    """The unit of highest IoU with a concept, and how many detectors have the concept as their label."""

    layer: str
    unit: int
    iou: float
    labelled: int


@dataclass(frozen=True, slots=True)
class ConceptChange:
    """One concept in both runs. a, b: its best unit, None where no mask meets it; images_a, images_b: that have it.

    outcome: GAINED (detected in the second run alone), LOST, BOTH or NEITHER; change: best IoU in the second run less
    that in the first; clear: whether it moved by more than a little, so that GAINED or LOST is more than a concept
    that lies near the bar in both
    """

    concept: str
    category: str
    images_a: int
    images_b: int
    a: BestUnit | None
    b: BestUnit | None
    outcome: str
    change: float
    clear: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def clear_margin(bar: float) -> float:
    """How far a best IoU has to move for a change to be clear."""
    return max(CLEAR_SHARE * bar, CLEAR_LEAST)


def concept_changes(
    a: Dissection, b: Dissection, layers: Sequence[tuple[str, str]], tau: float, bar: float
) -> tuple[list[ConceptChange], dict[str, list[str]]]:
    """Every concept that both runs' data have, those that moved most first; and by run, "a" or "b", the names of those
    that only its data have, which cannot be compared.

    layers: those compared, by pairs; the best unit is that of any of them. bar: a unit detects a concept where its IoU
    is above it, whether or not the concept is its label.
    """
    known_a, known_b = _known(a), _known(b)
    best_a = _best(a, list(dict.fromkeys(one for one, _ in layers)), tau, bar)
    best_b = _best(b, list(dict.fromkeys(other for _, other in layers)), tau, bar)
    changes = []
    for key in [key for key in known_a if key in known_b]:
        one, other = best_a.get(key), best_b.get(key)
        iou_a, iou_b = (0.0 if best is None else best.iou for best in (one, other))
        outcomes = {(False, True): GAINED, (True, False): LOST, (True, True): BOTH, (False, False): NEITHER}
        changes.append(
            ConceptChange(
                concept=key[0],
                category=key[1],
                images_a=known_a[key],
                images_b=known_b[key],
                a=one,
                b=other,
                outcome=outcomes[iou_a > bar, iou_b > bar],
                change=iou_b - iou_a,
                clear=abs(iou_b - iou_a) >= clear_margin(bar),
            )
        )
    changes.sort(key=lambda change: (-abs(change.change), change.concept, change.category))
    only = {
        "a": [key[0] for key in known_a if key not in known_b],
        "b": [key[0] for key in known_b if key not in known_a],
    }
    return changes, only


def layer_detectors(units: pd.DataFrame, bar: float) -> dict[str, int]:
    """units: as Dissection.units gives them. How many there are, detect their label, and distinct labels of these."""
    detectors = units[units["iou"].to_numpy(np.float64) > bar]
    labels = detectors[["concept", "category"]].drop_duplicates()
    return {"units": len(units), "detectors": len(detectors), "unique": len(labels)}


def _known(dissection: Dissection) -> dict[tuple[str, str], int]:
    """How many images have each concept, by name and category, of those that were counted."""
    concepts = dissection.concepts
    counted = concepts["images"] > 0
    if "dropped" in concepts.columns:
        counted &= ~concepts["dropped"].astype(bool)
    found: dict[tuple[str, str], int] = {}
    for name, category, images in concepts.loc[counted, [*_KEY, "images"]].itertuples(index=False, name=None):
        key = (str(name), str(category))
        found[key] = max(found.get(key, 0), int(images))
    return found


def _best(dissection: Dissection, layers: Sequence[str], tau: float, bar: float) -> Mapping[tuple[str, str], BestUnit]:
    """The best unit of each concept over `layers`; of equal ones the first."""
    parts = []
    for layer in layers:
        scores = dissection.scores(layer, tau)
        top = scores.sort_values(["iou", "unit"], ascending=[False, True], kind="stable").drop_duplicates("concept")
        parts.append(top[["concept", "unit", "iou"]].assign(layer=layer))
    top = pd.concat(parts, ignore_index=True).merge(
        dissection.concepts[["id", *_KEY]], left_on="concept", right_on="id", validate="many_to_one"
    )
    top = top.sort_values("iou", ascending=False, kind="stable").drop_duplicates(_KEY)
    labelled = _labelled(dissection, layers, tau, bar)
    found = {}
    for name, category, layer, unit, iou in top[[*_KEY, "layer", "unit", "iou"]].itertuples(index=False, name=None):
        key = (str(name), str(category))
        found[key] = BestUnit(str(layer), int(unit), float(iou), labelled.get(key, 0))
    return found


def _labelled(dissection: Dissection, layers: Sequence[str], tau: float, bar: float) -> dict[tuple[str, str], int]:
    """How many detectors have each concept as their label."""
    counts: dict[tuple[str, str], int] = {}
    for layer in layers:
        units = dissection.units(layer, tau)
        detectors = units[units["iou"].to_numpy(np.float64) > bar]
        for name, category in detectors[["concept", "category"]].itertuples(index=False, name=None):
            key = (str(name), str(category))
            counts[key] = counts.get(key, 0) + 1
    return counts
