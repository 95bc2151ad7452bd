"""What a run's tables say of the units of a generator, for its page: labels, high values, and who is best for what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.generators.causal_table import read_causal
from microtome.dissect.generators.layers import own_layer
from microtome.dissect.generators.quantiles import QUANTILE, high_values
from microtome.dissect.generators.ranking import RANKINGS, gains, order_of, ranked_scores
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

CAUSES = ("alpha", "ace")
"""Rankings by what units cause, the stronger first."""

INFORMATION = "information"
"""The ranking by IoU at each unit's threshold of most information, and the table of it."""


class UnitTables:
    """The units of the layers of a finished run of a generator."""

    def __init__(self, run: Run) -> None:
        self._run = run
        concepts = run.table("concepts")
        self._concepts = {
            int(number): (str(name), str(category))
            for number, name, category in zip(concepts["id"], concepts["name"], concepts["category"], strict=True)
        }

    def units(self, layer: str) -> dict[str, Any]:
        """Of each unit its high value ("top"), best concept ("labels", "" = none) and state ("states"); "concepts": id,
        name, category and the rankings that the run has for it ("by"), the strongest first. Raises UnknownNameError."""
        own_layer(self._run, layer)
        units = self._run.layer_table(layer, "units").sort_values("unit")
        ranked = self._ranked(layer)
        concepts = [
            {"id": number, "name": name, "category": category, "by": [by for by in ranked if number in ranked[by]]}
            for number, (name, category) in self._concepts.items()
            if any(number in having for having in ranked.values())
        ]
        return {
            "layer": layer,
            "top": self._top(layer, units).tolist(),
            "labels": units["concept"].fillna("").astype(str).tolist(),
            "states": units["state"].astype(str).tolist(),
            "concepts": concepts,
        }

    def ranking(self, layer: str, concept: int, by: str) -> list[tuple[int, float]]:
        """Unit and score of those that meet the concept, best first, ties by number.

        Raises UnknownNameError for a layer or ranking that there is not, UsageError for a concept.
        """
        own_layer(self._run, layer)
        if concept not in self._concepts:
            raise UsageError(f"the run has no concept of number {concept}")
        if by not in RANKINGS and by != INFORMATION:
            raise UnknownNameError("ranking", by, [*RANKINGS, INFORMATION])
        scores = self._scores(layer, concept, by)
        meeting = np.isfinite(scores) & ((scores > 0) | (by in CAUSES))
        gained = gains(self._run, layer, self._concepts[concept][0], by)
        return [(unit, float(scores[unit])) for unit in order_of(scores, gained).tolist() if meeting[unit]]

    def _ranked(self, layer: str) -> dict[str, set[int]]:
        """The rankings that the run has of a layer, the strongest first, with the concepts that each has."""
        found: dict[str, set[int]] = {}
        causal = read_causal(self._run, layer)
        if causal is not None:
            found = {by: set(causal.loc[causal[by].notna(), "concept"].tolist()) for by in CAUSES}
        overlap = set(self._run.layer_table(layer, "iou")["concept"].tolist())
        if self._run.has_layer_table(layer, INFORMATION):
            informed = set(self._run.layer_table(layer, INFORMATION)["concept"].tolist())
            return {**found, "iou": overlap | informed, INFORMATION: informed}
        return {**found, "iou": overlap}

    def _scores(self, layer: str, concept: int, by: str) -> NDArray[np.float64]:
        """(C,) of each unit, NaN where it has none."""
        units = self._run.layer(layer)["units"]
        found = np.full(units, np.nan)
        if by != INFORMATION:
            scores = ranked_scores(self._run, layer, self._concepts[concept][0], by)
            return found if scores is None else scores
        if self._run.has_layer_table(layer, INFORMATION):
            table = self._run.layer_table(layer, INFORMATION)
            rows = table[table["concept"] == concept]
            found[rows["unit"].to_numpy()] = rows["iou"].to_numpy()
        return found

    def _top(self, layer: str, units: pd.DataFrame) -> NDArray[np.float64]:
        """(C,) the high value of each unit; its maximum where that is not above 0."""
        maximum = units["maximum"].to_numpy(np.float64)
        try:
            high = high_values(self._run, layer, units["unit"].tolist(), QUANTILE)
        except UsageError:  # no threshold of that tau, and no activations either
            high = np.minimum(self._coarse(layer, len(units)), maximum)
        found: NDArray[np.float64] = np.nan_to_num(np.where(high > 0, high, maximum), posinf=0, neginf=0)
        return found

    def _coarse(self, layer: str, units: int) -> NDArray[np.float64]:
        """The same from the histogram: values lie evenly in the bin that it falls into."""
        found = np.zeros(units)
        for unit, bins in self._run.layer_table(layer, "histogram").sort_values("low").groupby("unit"):
            low, high, counts = (bins[name].to_numpy(np.float64) for name in ("low", "high", "count"))
            reached = counts.cumsum() / counts.sum()
            at = int(np.argmax(reached >= QUANTILE))
            inside = 1 - (reached[at] - QUANTILE) * counts.sum() / counts[at]
            found[int(str(unit))] = low[at] + inside * (high[at] - low[at])
        return found
