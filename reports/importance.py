"""What each class loses without each unit: importance.parquet as arrays, and the concepts that drive a class.

A unit is removed alone, so falls of several units need not add up when they are removed together. Detectors with the
same label are joined: the drive of a concept is the sum of the falls in probability of its detectors. Units that are
no detectors are joined as well, as what is lost without any concept: a concept is weighed against them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from microtome.reports.source import ReportRun
from microtome.reports.summaries import Concepts, LayerSummary

LEAST_DRIVE = 0.01
"""A contributor (a concept, or the units without one) is said to drive a class where its falls in probability add up
to this, and ..."""

LEAST_SHARE = 0.25
"""... to this share of what those of the strongest contributor add up to."""

_LONGEST_FILE = 100


SCENE = "scene"
"""The category of what a whole image shows, as a class does."""


@dataclass(frozen=True, slots=True)
class Drive:
    """What a class loses without a contributor: the id of the concept (0: the units without one), the sum of its
    units' falls in probability (rises count as none), its units, largest fall first."""

    concept: int
    total: float
    units: list[int]


@dataclass(frozen=True, slots=True)
class Importance:
    """What `classes` (K names) lose without each of the C units of a layer; NaN where it was not measured.

    layer: position among the layers of the run; images: over which; accuracy: untouched, over all of them
    measured: how many of the units
    fall, probability_fall: (C, K) float64; class_accuracy: (K,) float64, untouched; class_images: (K,) int64
    label, iou: (C,) what units detect, as `telling_labels` has it, 0 for those that are no detectors, and how well
    drive: (concepts + 1, K) float64, sums of falls in probability by label
    """

    layer: int
    classes: list[str]
    truth: str
    value: str
    images: int
    accuracy: float
    measured: int
    fall: NDArray[np.float64]
    probability_fall: NDArray[np.float64]
    class_accuracy: NDArray[np.float64]
    class_images: NDArray[np.int64]
    label: NDArray[np.int64]
    iou: NDArray[np.float64]
    drive: NDArray[np.float64]

    def needed(self, number: int, count: int) -> list[int]:
        """The units that class `number` needs most: by fall in accuracy, ties by fall in probability."""
        fall, probability = _known(self.fall[:, number]), _known(self.probability_fall[:, number])
        order = np.lexsort((-probability, -fall))
        kept = (fall > 0) | ((fall == 0) & (probability > 0))
        units: list[int] = order[kept[order]][:count].tolist()
        return units

    def hindering(self, number: int, count: int) -> list[int]:
        """The units without which class `number` is told better, by how much."""
        fall, probability = _known(self.fall[:, number]), _known(self.probability_fall[:, number])
        order = np.lexsort((probability, fall))
        units: list[int] = order[fall[order] < 0][:count].tolist()
        return units

    def others(self, unit: int, number: int) -> tuple[float, int]:
        """What the other classes lose without `unit`: over all their images, and the class (-1: none) that loses most.

        The mean is NaN where there are no other images.
        """
        falls = np.delete(self.fall[unit], number)
        weights = np.delete(self.class_images, number) * np.isfinite(falls)
        if not weights.sum():
            return float("nan"), -1
        most = int(np.where(weights > 0, _known(falls), -np.inf).argmax())
        return float((_known(falls) * weights).sum() / weights.sum()), most + (most >= number)

    def needing(self, unit: int, count: int) -> list[int]:
        """The classes that need `unit` most: those that lose accuracy, by how much."""
        fall, probability = _known(self.fall[unit]), _known(self.probability_fall[unit])
        order = np.lexsort((-probability, -fall))
        classes: list[int] = order[fall[order] > 0][:count].tolist()
        return classes

    def drives(self, number: int, count: int) -> list[Drive]:
        """The concepts without whose detectors class `number` loses, strongest first (ties: lowest id)."""
        totals = self.drive[1:, number]
        concepts = np.argsort(-totals, kind="stable")[:count]
        return [self._contributor(concept + 1, number) for concept in concepts[totals[concepts] > 0].tolist()]

    def without_concept(self, number: int) -> Drive | None:
        """What class `number` loses without units that are no detectors; None where it loses nothing."""
        return self._contributor(0, number) if self.drive[0, number] > 0 else None

    def _contributor(self, label: int, number: int) -> Drive:
        falls = _known(self.probability_fall[:, number])
        mine = np.flatnonzero((self.label == label) & (falls > 0))
        units: list[int] = mine[np.argsort(-falls[mine], kind="stable")].tolist()
        return Drive(label, float(self.drive[label, number]), units)

    def drivers(self) -> NDArray[np.bool_]:
        """(concepts + 1, K) whether a contributor is said to drive a class: see `LEAST_DRIVE` and `LEAST_SHARE`."""
        return np.asarray((self.drive >= LEAST_DRIVE) & (self.drive >= LEAST_SHARE * self.drive.max(axis=0)))


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nan_to_num(values, nan=0.0)


def telling_labels(
    summary: LayerSummary, concepts: Concepts, bar: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What each unit detects, for the joining with classes: concept ids (C,), 0 for none, and their IoU (C,).

    The label of detectors. Where that is a whole scene, the best other concept above the bar stands in its place, if
    there is one: that units which detect parks drive the class "park" would say nothing.
    """
    labels = summary.first
    label = np.where(labels.detector, labels.concept, 0)
    iou = labels.iou.astype(np.float64).copy()
    if SCENE not in concepts.categories:
        return label, iou
    scene = concepts.category == concepts.categories.index(SCENE)
    for unit in np.flatnonzero(scene[label]).tolist():
        best, scores = labels.best[unit], labels.best_iou[unit]
        others = np.flatnonzero((best > 0) & ~scene[best] & (scores > bar))
        if others.size:
            label[unit], iou[unit] = best[others[0]], scores[others[0]]
    return label, iou


def read_importance(run: ReportRun, number: int, summary: LayerSummary, concepts: Concepts) -> Importance | None:
    """The importance of layer `number` of the run for a report with `concepts`; None: not measured."""
    about = run.info.get("importance", {}).get(summary.entry["name"])
    if about is None:
        return None
    classes = [readable(name) for name in about["classes"]]
    table = run.layer_table(summary.entry["name"], "importance")
    table = table[table["class"].between(0, len(classes) - 1) & table["unit"].between(0, len(summary.units) - 1)]
    unit, at = table["unit"].to_numpy(np.int64), table["class"].to_numpy(np.int64)
    fall, probability_fall = np.full((2, len(summary.units), len(classes)), np.nan)
    fall[unit, at] = table["fall"]
    probability_fall[unit, at] = table["probability_fall"]
    accuracy, images = np.full(len(classes), np.nan), np.zeros(len(classes), np.int64)
    accuracy[at], images[at] = table["accuracy"], table["images"]
    label, iou = telling_labels(summary, concepts, float(run.info["config"]["min_iou"]))
    drive = np.zeros((len(concepts.names), len(classes)))
    np.add.at(drive, label, np.clip(_known(probability_fall), 0, None))
    return Importance(
        layer=number,
        classes=classes,
        truth=about["truth"],
        value=about["value"],
        images=about["images"],
        accuracy=about["accuracy"],
        measured=np.unique(unit).size,
        fall=fall,
        probability_fall=probability_fall,
        class_accuracy=accuracy,
        class_images=images,
        label=label,
        iou=iou,
        drive=drive,
    )


def readable(name: object) -> str:
    """A class name as text that any page can hold: what is no Unicode is replaced."""
    return str(name).encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """A class of the model: its name, the file of its page without ".html", its number in each layer's importance."""

    name: str
    file: str
    at: dict[int, int]


def classes_of(measured: Sequence[Importance]) -> list[ClassEntry]:
    """The classes of all layers with importance, in the model's order; equal names are told apart by their order."""
    found: dict[tuple[str, int], dict[int, int]] = {}
    for importance in measured:
        seen: dict[str, int] = {}
        for number, name in enumerate(importance.classes):
            seen[name] = seen.get(name, 0) + 1
            found.setdefault((name, seen[name]), {})[importance.layer] = number
    files = class_files([name for name, _ in found])
    return [ClassEntry(name, file, at) for ((name, _), at), file in zip(found.items(), files, strict=True)]


def class_files(names: Sequence[str]) -> list[str]:
    """A file name for each class, without suffix: percent-encoded, of bounded length, distinct on any file system."""
    taken: set[str] = set()
    files = []
    for name in names:
        base = quote(name.strip() or "class", safe=" ")[:_LONGEST_FILE]
        base = f"%2E{base[1:]}" if base.startswith(".") else base
        file, again = base, 1
        while file.casefold() in taken:
            again += 1
            file = f"{base}~{again}"
        taken.add(file.casefold())
        files.append(file)
    return files
