"""What a run keeps of the causes in a layer: layers/LAYER/causal.parquet, and the part `causal` of run.json.

One row for each unit and concept: `area` untouched, `ablated` and `inserted` (mean shares of the image), `ace`,
`ace_error` (standard error over latents), and `alpha` with its `alpha_gain` (how much faster the concept would go by
more of it), NaN where it was not optimised for the concept. The rows are those of all units, by concept, then by unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.audit.measured import CAUSAL, vouch_for
from microtome.dissect.generators.alpha import Alpha
from microtome.dissect.generators.causal import UnitEffects
from microtome.dissect.models.segmenters import Segmenter
from microtome.storage.errors import UnknownNameError
from microtome.storage.run import Run
from microtome.storage.schema import CausalInfo, LayerEntry

MEASURES = ("area", "ablated", "inserted", "ace", "ace_error", "alpha", "alpha_gain")


def concept_numbers(run: Run, concept: str) -> list[int]:
    """The run's ids of a concept, in any category. Raises UnknownNameError."""
    concepts = run.table("concepts")
    found = concepts.loc[concepts["name"] == concept, "id"].tolist()
    if not found:
        raise UnknownNameError("concept of this run", concept, concepts["name"].tolist())
    return [int(number) for number in found]


def numbers_of_labels(run: Run, segmenter: Segmenter) -> NDArray[np.int64]:
    """(K,) the run's concept id of each label of its segmenter, 0 where no image of the run has it."""
    concepts = run.table("concepts")
    columns = (concepts["name"], concepts["category"], concepts["id"])
    known = {(name, category): int(number) for name, category, number in zip(*columns, strict=True)}
    named = zip(segmenter.labels, segmenter.categories, strict=True)
    return np.array([known.get(pair, 0) for pair in named], np.int64)


def read_causal(run: Run, layer: str) -> pd.DataFrame | None:
    """The table, None where there is none."""
    if layer not in run.info.get("causal", {}) or not run.has_layer_table(layer, CAUSAL):
        return None
    return run.layer_table(layer, CAUSAL)


def empty_table(units: int, numbers: NDArray[np.int64]) -> pd.DataFrame:
    """The table of all units of a layer, nothing measured yet. numbers: (K,) the concept of each label, 0 = none."""
    concepts = np.unique(numbers[numbers > 0])
    unit, concept = np.tile(np.arange(units), len(concepts)), np.repeat(concepts, units)
    return pd.DataFrame({"unit": unit, "concept": concept, **dict.fromkeys(MEASURES, np.nan)})


def with_effects(table: pd.DataFrame, effects: UnitEffects, numbers: NDArray[np.int64]) -> pd.DataFrame:
    """The table with what was measured of all units."""
    changed = table.copy()
    columns = {
        "area": np.broadcast_to(effects.before.mean(axis=0), effects.ace().shape),
        "ablated": effects.ablated.mean(axis=1),
        "inserted": effects.inserted.mean(axis=1),
        "ace": effects.ace(),
        "ace_error": effects.error(),
    }
    for label in np.flatnonzero(numbers):
        rows = changed["concept"] == numbers[label]
        units = changed.loc[rows, "unit"].to_numpy()
        for name, values in columns.items():
            changed.loc[rows, name] = values[units, label]
    return changed


def with_alpha(table: pd.DataFrame, concepts: Sequence[int], alpha: Alpha) -> pd.DataFrame:
    """The table with the alphas of all units for a concept, in the rows of each of its ids."""
    changed = table.copy()
    for number in concepts:
        rows = changed["concept"] == number
        units = changed.loc[rows, "unit"].to_numpy()
        changed.loc[rows, "alpha"] = alpha.values[units]
        changed.loc[rows, "alpha_gain"] = alpha.gains[units]
    return changed


def write_causal(run: Run, layer: LayerEntry, table: pd.DataFrame, info: CausalInfo) -> None:
    """Store the table, vouch for it, and note it in run.json."""
    run.write_layer_table(layer["name"], CAUSAL, table)
    vouch_for(run, layer, CAUSAL)
    run.info.setdefault("causal", {})[layer["name"]] = info
    run.save()
