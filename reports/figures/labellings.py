"""The labels that figures show: those at the first tau and, in a run that has them, those by most information."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.reports.figures.text import brief
from microtome.reports.summaries import Concepts, Labels, LayerSummary

NAMED = 12
"""With more layers than this a description says the first, the highest and the last."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """One labelling of every layer. key: what its files' names end in; words: how thresholds were chosen; bar: the IoU
    that makes a detector."""

    key: str
    words: str
    bar: float
    layers: tuple[str, ...]
    labels: tuple[Labels, ...]

    def unique_in(self, concepts: Concepts) -> NDArray[np.int64]:
        """(layers, categories) unique detectors of each category."""
        found = np.zeros((len(self.labels), len(concepts.categories)), np.int64)
        for number, labels in enumerate(self.labels):
            category = concepts.category[labels.unique]
            found[number] = [(category == place).sum() for place in range(len(concepts.categories))]
        return found


def labellings(layers: Sequence[LayerSummary], bar: float) -> list[Labelling]:
    """At the first tau; and by most information, where every layer has it."""
    names = tuple(layer.entry["name"] for layer in layers)
    if not layers:
        return []
    first = tuple(layer.first for layer in layers)
    found = [Labelling("", f"τ = {100 * first[0].tau:.4g}%", bar, names, first)]
    informed = tuple(layer.informed.labels for layer in layers if layer.informed is not None)
    if len(informed) == len(layers):
        found.append(Labelling("information", "thresholds of most information", bar, names, informed))
    return found


def said_of_layers(names: Sequence[str], values: Sequence[str], highest: int) -> str:
    """Values of layers in a sentence: all of them, or of many the first, the one numbered `highest`, and the last."""
    if not names:
        return "There are no layers."
    shown = list(range(len(names)))
    if len(shown) > NAMED:
        shown = sorted({0, highest, len(names) - 1})
    parts = [f"{brief(names[number])} {values[number]}" for number in shown]
    lead = "" if len(shown) == len(names) else f"Of {len(names)} layers: "
    return f"{lead}{'; '.join(parts)}."
