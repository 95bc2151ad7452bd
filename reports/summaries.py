"""A layer in figures: labels at every tau, the best concepts of each unit, detectors and unique detectors.

Everything is read from the tables of the run; nothing is scored again. Concept ids are 1 ... K, 0 = no concept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.reports.source import ReportRun
from microtome.storage.schema import LayerEntry

BEST = 5
"""How many concepts of each unit the pages list."""

STATES = ("ok", "dead", "constant", "saturated")
CATEGORIES = ("object", "part", "material", "texture", "color", "scene")


@dataclass(frozen=True, slots=True)
class Concepts:
    """Names and categories by concept id. `names[0]` and `category[0]` stand for no concept.

    names: (K + 1,); category: (K + 1,) int64 position in `categories`, -1 for none; pixels, images: (K + 1,) int64
    """

    names: list[str]
    category: NDArray[np.int64]
    categories: list[str]
    pixels: NDArray[np.int64]
    images: NDArray[np.int64]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Concepts:
        """From concepts.parquet; dropped ones have no images. Categories in their usual order, others after by name."""
        present = {str(category) for category in table["category"]}
        categories = [c for c in CATEGORIES if c in present] + sorted(present.difference(CATEGORIES))
        count = int(table["id"].max()) + 1 if len(table) else 1
        ids = table["id"].to_numpy(np.int64)
        names = [""] * count
        for concept, name in zip(ids.tolist(), table["name"], strict=True):
            names[concept] = str(name)
        category = np.full(count, -1, np.int64)
        category[ids] = [categories.index(str(c)) for c in table["category"]]
        pixels, images = np.zeros(count, np.int64), np.zeros(count, np.int64)
        counted = ~table["dropped"].to_numpy(np.bool_) if "dropped" in table else np.ones(len(table), np.bool_)
        pixels[ids], images[ids] = table["pixels"] * counted, table["images"] * counted
        return cls(names, category, categories, pixels, images)


@dataclass(frozen=True, slots=True)
class Labels:
    """The units of a layer at one tau; all arrays are (C, ...).

    concept: int64 id of the label; iou, ceiling, iou_val (NaN without splits): float64; detector: bool;
    best: (C, BEST) int64 ids of the concepts of highest IoU; best_iou, best_ceiling: (C, BEST) float64;
    threshold, realised: float64; by_category: per category, distinct best concepts within it that pass the bar;
    reach: (K + 1,) float64, the highest ceiling of each concept with any unit, NaN where no mask meets it
    """

    tau: float
    concept: NDArray[np.int64]
    iou: NDArray[np.float64]
    ceiling: NDArray[np.float64]
    iou_val: NDArray[np.float64]
    detector: NDArray[np.bool_]
    best: NDArray[np.int64]
    best_iou: NDArray[np.float64]
    best_ceiling: NDArray[np.float64]
    threshold: NDArray[np.float64]
    realised: NDArray[np.float64]
    by_category: list[int]
    reach: NDArray[np.float64]

    @property
    def detectors(self) -> int:
        """How many units are detectors."""
        return int(self.detector.sum())

    @property
    def unique(self) -> NDArray[np.int64]:
        """Ids of the distinct labels of detectors, ascending."""
        return np.unique(self.concept[self.detector])

    @property
    def unique_by_category_sum(self) -> int:
        """The other published meaning of unique detectors: distinct top labels of each category, summed."""
        return sum(self.by_category)


@dataclass(frozen=True, slots=True)
class Informed:
    """The units of a layer labelled by thresholds of most information, chosen on one half of the samples.

    labels: as at a tau (which is NaN), by IoU on the other half; threshold and realised are those of each label
    information, half: (C,) float64, of the label the ratio and the IoU on the half that chose, NaN where there is none
    """

    labels: Labels
    information: NDArray[np.float64]
    half: NDArray[np.float64]

    @classmethod
    def of(cls, table: pd.DataFrame, units: int, concepts: Concepts, bar: float) -> Informed:
        """From information.parquet of a layer; the label is the concept of highest IoU on the half that chose."""
        none = pd.DataFrame({"unit": [], "threshold": [], "realised": []})
        labels = _labels(units, table, none, concepts, np.nan, bar, deciding="iou_half")
        pairs = pd.MultiIndex.from_arrays([np.arange(units), labels.concept])
        rows = table.set_index(["unit", "concept"]).reindex(pairs)
        threshold, share, information, half = (
            rows[name].to_numpy(np.float64) for name in ("threshold", "share", "information", "iou_half")
        )
        return cls(replace(labels, threshold=threshold, realised=share), information, half)


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One layer: its entry in run.json, units.parquet ordered by unit, its labels at every tau (first labels), and
    those by most information, where the run has them."""

    entry: LayerEntry
    units: pd.DataFrame
    labels: list[Labels]
    informed: Informed | None = None

    @property
    def first(self) -> Labels:
        """The labels at the first tau."""
        return self.labels[0]

    @property
    def states(self) -> dict[str, int]:
        """Number of units in each state."""
        found = self.units["state"].astype(str).value_counts()
        return {state: int(found.get(state, 0)) for state in STATES}

    def unique_in(self, concepts: Concepts, number: int = 0) -> list[int]:
        """Unique detectors (distinct labels) in each category, at tau `number`."""
        categories = concepts.category[self.labels[number].unique]
        return [int((categories == c).sum()) for c in range(len(concepts.categories))]


def summarise_layer(run: ReportRun, entry: LayerEntry, concepts: Concepts) -> LayerSummary:
    """Read the tables of a layer and summarise it at every tau of the run."""
    name = entry["name"]
    taus = [float(tau) for tau in run.info["config"]["tau"]]
    bar = float(run.info["config"]["min_iou"])
    units = run.layer_table(name, "units").sort_values("unit", kind="stable").reset_index(drop=True)
    scores = run.layer_table(name, "iou")
    thresholds = run.layer_table(name, "thresholds")
    labels = [
        _first_labels(units, _at(scores, tau), _at(thresholds, tau), concepts, tau, bar)
        if number == 0
        else _labels(len(units), _at(scores, tau), _at(thresholds, tau), concepts, tau, bar)
        for number, tau in enumerate(taus)
    ]
    informed = None
    if run.has_layer_table(name, "information"):
        informed = Informed.of(run.layer_table(name, "information"), len(units), concepts, bar)
    return LayerSummary(entry, units, labels, informed)


def _at(table: pd.DataFrame, tau: float) -> pd.DataFrame:
    chosen: pd.DataFrame = table[np.isclose(table["tau"].to_numpy(np.float64), tau, rtol=1e-9, atol=0)]
    return chosen


def _labels(
    units: int,
    scores: pd.DataFrame,
    thresholds: pd.DataFrame,
    concepts: Concepts,
    tau: float,
    bar: float,
    deciding: str | None = None,
) -> Labels:
    """Labels from the scores alone: highest IoU (on the train split where there is one), ties to the lowest id.

    deciding: the column to choose by in place of that.
    """
    deciding = deciding or ("iou_train" if {"iou_train", "iou_val"} <= set(scores.columns) else "iou")
    reach = np.full(len(concepts.names), np.nan)
    np.fmax.at(reach, scores["concept"].to_numpy(np.int64), scores["ceiling"].to_numpy(np.float64))
    scores = scores[scores[deciding].to_numpy(np.float64) > 0]
    unit, concept = scores["unit"].to_numpy(np.int64), scores["concept"].to_numpy(np.int64)
    decider, overall = scores[deciding].to_numpy(np.float64), scores["iou"].to_numpy(np.float64)
    order = np.lexsort((concept, -decider, unit))
    place = _place_in_group(unit[order])
    top = order[place < BEST]
    where = (unit[top], place[place < BEST])
    best = np.zeros((units, BEST), np.int64)
    best_iou, best_ceiling = np.full((units, BEST), np.nan), np.full((units, BEST), np.nan)
    best_val, best_decider = np.full((units, BEST), np.nan), np.full((units, BEST), np.nan)
    best[where] = concept[top]
    best_decider[where] = decider[top]
    best_iou[where] = overall[top]
    best_ceiling[where] = scores["ceiling"].to_numpy(np.float64)[top]
    if "iou_val" in scores.columns:
        best_val[where] = scores["iou_val"].to_numpy(np.float64)[top]
    threshold, realised = np.full(units, np.nan), np.full(units, np.nan)
    threshold[thresholds["unit"].to_numpy(np.int64)] = thresholds["threshold"]
    realised[thresholds["unit"].to_numpy(np.int64)] = thresholds["realised"]
    return Labels(
        tau=tau,
        concept=best[:, 0],
        iou=best_iou[:, 0],
        ceiling=best_ceiling[:, 0],
        iou_val=best_val[:, 0],
        detector=best_iou[:, 0] > bar,
        best=best,
        best_iou=best_iou,
        best_ceiling=best_ceiling,
        threshold=threshold,
        realised=realised,
        by_category=_best_in_categories(unit, concept, decider, overall > bar, concepts),
        reach=reach,
    )


def _first_labels(
    table: pd.DataFrame,
    scores: pd.DataFrame,
    thresholds: pd.DataFrame,
    concepts: Concepts,
    tau: float,
    bar: float,
) -> Labels:
    """Labels at the first tau: units.parquet decides, the scores give the runners-up."""
    derived = _labels(len(table), scores, thresholds, concepts, tau, bar)
    val = table["iou_val"].to_numpy(np.float64) if "iou_val" in table.columns else derived.iou_val
    return Labels(
        tau=tau,
        concept=table["concept_id"].fillna(0).to_numpy(np.int64),
        iou=table["iou"].to_numpy(np.float64),
        ceiling=table["ceiling"].to_numpy(np.float64),
        iou_val=val,
        detector=table["is_detector"].to_numpy(np.bool_),
        best=derived.best,
        best_iou=derived.best_iou,
        best_ceiling=derived.best_ceiling,
        threshold=table["threshold"].to_numpy(np.float64),
        realised=table["realised"].to_numpy(np.float64),
        by_category=derived.by_category,
        reach=derived.reach,
    )


def _best_in_categories(
    unit: NDArray[np.int64],
    concept: NDArray[np.int64],
    decider: NDArray[np.float64],
    passes: NDArray[np.bool_],
    concepts: Concepts,
) -> list[int]:
    """For each category, how many distinct concepts are the best of that category for a unit and pass."""
    category = concepts.category[concept]
    order = np.lexsort((concept, -decider, category, unit))
    group = unit[order] * (len(concepts.categories) + 1) + category[order]
    top = order[_place_in_group(group) == 0]
    top = top[passes[top]]
    found = np.unique(concept[top])
    return [int((concepts.category[found] == c).sum()) for c in range(len(concepts.categories))]


def _place_in_group(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2 ... within each stretch of equal values."""
    places = np.arange(len(group))
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(group) else places
    return places - np.repeat(starts, np.diff(np.r_[starts, len(group)]))


@dataclass(frozen=True, slots=True)
class Found:
    """A concept with a detector: where it is seen best, and how many units of each layer detect it."""

    concept: int
    layer: int
    unit: int
    iou: float
    counts: list[int]


def concepts_found(layers: Sequence[LayerSummary]) -> list[Found]:
    """Every concept with a detector at the first tau, best IoU first."""
    best: dict[int, tuple[float, int, int]] = {}
    counts: dict[int, list[int]] = {}
    for number, layer in enumerate(layers):
        labels = layer.first
        for unit in np.flatnonzero(labels.detector).tolist():
            concept, iou = int(labels.concept[unit]), float(labels.iou[unit])
            counts.setdefault(concept, [0] * len(layers))[number] += 1
            if concept not in best or iou > best[concept][0]:
                best[concept] = (iou, number, unit)
    found = [Found(c, layer, unit, iou, counts[c]) for c, (iou, layer, unit) in best.items()]
    return sorted(found, key=lambda f: (-f.iou, f.concept))
