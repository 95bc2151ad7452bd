"""What a report is made of: the layers of a run in figures, and what else the run holds that pages show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from microtome.reports.alignment import is_baseline
from microtome.reports.classes import ClassPages
from microtome.reports.concept_units import ConceptUnits
from microtome.reports.explained import Explained
from microtome.reports.heat import is_heat
from microtome.reports.importance import Importance, classes_of, read_importance
from microtome.reports.maps.page import MapPages
from microtome.reports.source import ReportRun
from microtome.reports.summaries import Concepts, LayerSummary, summarise_layer
from microtome.reports.thumbnails import LayerPatches, plan_patches


@dataclass(frozen=True, slots=True)
class ReportLayer:
    """One layer: its labels, the patches that are drawn, what classes need of it, and its units by concept."""

    summary: LayerSummary
    plan: LayerPatches
    importance: Importance | None
    units: ConceptUnits

    @property
    def name(self) -> str:
        """The layer's name in the run."""
        return self.summary.entry["name"]

    @property
    def folder(self) -> str:
        """What its files are called."""
        return self.summary.entry["folder"]


@dataclass(frozen=True, slots=True)
class Contents:
    """All that the pages of a report are written from. samples: samples.parquet; classes, maps, explained: None where
    the run has none of that."""

    run: ReportRun
    concepts: Concepts
    layers: Sequence[ReportLayer]
    samples: pd.DataFrame
    classes: ClassPages | None
    maps: MapPages | None
    explained: Explained | None

    @property
    def summaries(self) -> list[LayerSummary]:
        """The layers in figures, in their order."""
        return [layer.summary for layer in self.layers]

    @property
    def units(self) -> list[ConceptUnits]:
        """The units of each layer by concept, in their order."""
        return [layer.units for layer in self.layers]

    @property
    def bar(self) -> float:
        """The IoU that a detector exceeds."""
        return float(self.run.info["config"]["min_iou"])

    @property
    def own(self) -> list[int]:
        """Numbers of the network's own layers, without rotated baselines."""
        summaries = self.summaries
        return [number for number, layer in enumerate(summaries) if not is_baseline(layer, summaries)]

    @property
    def is_generator(self) -> bool:
        """Whether the run is that of a generator of images."""
        return "generator" in self.run.info["model"]


def read_layer(run: ReportRun, number: int, concepts: Concepts, per_unit: int) -> ReportLayer:
    """Layer `number` of a run; per_unit: how many patches of each unit are drawn."""
    entry = run.info["layers"][number]
    summary = summarise_layer(run, entry, concepts)
    patches = run.layer_table(entry["name"], "patches")
    plan = plan_patches(entry["name"], summary.units, patches, per_unit, heat=is_heat(entry))
    bar = float(run.info["config"]["min_iou"])
    units = ConceptUnits.of(run.layer_table(entry["name"], "iou"), summary.first, concepts, bar)
    return ReportLayer(summary, plan, read_importance(run, number, summary, concepts), units)


def class_pages(layers: Sequence[ReportLayer], concepts: Concepts) -> ClassPages | None:
    """What the pages of classes are made of; None where no layer has importance."""
    measured = [layer.importance for layer in layers if layer.importance is not None]
    if not measured:
        return None
    summaries, plans = [layer.summary for layer in layers], [layer.plan for layer in layers]
    return ClassPages.of(concepts, summaries, plans, measured, classes_of(measured))
