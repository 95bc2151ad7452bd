"""What a run's tables say of the units of a generator, for its page: labels, high values, and who is best for what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.generators.quantiles import QUANTILE, high_values
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

_CAUSAL = ("ace", "alpha")


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
        """ "top": the high value of each unit; "labels": name of its best concept, "" = none; "states"; "concepts": id,
        name, category and the rankings, best known first, that the run has for it. Raises UnknownNameError."""
        self._own(layer)
        units = self._run.layer_table(layer, "units").sort_values("unit")
        ranked = {by: set(frame["concept"].tolist()) for by, frame in self._rankings(layer)}
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
        self._own(layer)
        if concept not in self._concepts:
            raise UsageError(f"the run has no concept of number {concept}")
        found = dict(self._rankings(layer))
        if by not in found:
            raise UnknownNameError("ranking", by, found)
        mine = found[by][found[by]["concept"] == concept].sort_values(["score", "unit"], ascending=[False, True])
        return list(zip(mine["unit"].tolist(), mine["score"].tolist(), strict=True))

    def _own(self, layer: str) -> None:
        """Refuse a layer that the run does not have, or whose units are directions in another."""
        readout = self._run.layer(layer).get("readout")
        if readout is not None:
            raise UsageError(f"layer {layer} holds directions in {readout['base']}, which are no units of the network")

    def _rankings(self, layer: str) -> Iterator[tuple[str, pd.DataFrame]]:
        """Names of the rankings that the run has, the strongest first, each with a table of unit, concept, score."""
        if layer in self._run.info.get("causal", {}) and self._run.has_layer_table(layer, "causal"):
            causal = self._run.layer_table(layer, "causal")
            for by in _CAUSAL:
                if by in causal and causal[by].notna().any():
                    yield by, _scored(causal, by)
        if self._run.has_layer_table(layer, "information"):
            yield "information", _scored(self._run.layer_table(layer, "information"), "iou")  # at its thresholds
        iou = self._run.layer_table(layer, "iou")
        taus = [float(tau) for tau in self._run.info["config"]["tau"]]
        for tau in taus:
            yield "iou" if tau == taus[0] else f"iou at tau {tau:g}", _scored(iou[iou["tau"] == tau], "iou")

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


def _scored(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Unit, concept and score; of IoU what is above 0."""
    found = pd.DataFrame({"unit": table["unit"], "concept": table["concept"], "score": table[by].astype(np.float64)})
    kept = np.isfinite(found["score"].to_numpy()) & ((by in _CAUSAL) | (found["score"].to_numpy() > 0))
    return found.loc[kept]
