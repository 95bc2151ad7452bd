"""The units of a generator's layer ranked for a concept: by what they detect, or by what they cause.

    iou     overlap of what the unit responds to with the concept (of all taus of the run, and of the threshold of most
            information where it was counted, the best)
    ace     average causal effect: the concept's area with the unit inserted less that with it ablated (causal.py)
    alpha   the continuous intervention over all units at once that was optimised for the concept (alpha.py)

A ranking by ace or alpha is kept in the run (causal_table.py) once somebody asked for it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.generators.causal_table import concept_numbers, read_causal
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

RANKINGS = {"iou": "IoU", "ace": "average causal effect", "alpha": "optimised alpha"}
"""Names of the rankings, and what they are in words."""


def rankings(run: Run, layer: str, concept: str, by: str = "iou", *, compute: bool = False) -> NDArray[np.int64]:
    """The units of `layer`, (C,), best first for `concept`; of equal alphas the one of higher gain.

    compute: whether a ranking that the run does not hold is computed and kept; the caller holds the run's lock.
    Raises UnknownNameError for a layer, concept or ranking that there is not, UsageError where it is not computed.
    """
    scores = ranked_scores(run, layer, concept, by)
    if scores is None and compute:
        from microtome.dissect.generators.measuring import measure_causes

        measure_causes(run, layer, [concept], by=(by,))
        scores = ranked_scores(run, layer, concept, by)
    if scores is None:
        raise UsageError(
            f"{run.url} has no ranking by {by} of layer {layer} for {concept}; compute it with: "
            f"microtome rank {run.url} --layer {layer} --concept {concept} --by {by}"
        )
    return order_of(scores, gains(run, layer, concept, by))


def order_of(scores: NDArray[np.float64], gained: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """Units by descending score, NaN last; ties by descending `gained`, then by number."""
    keys = [-np.nan_to_num(part, nan=-np.inf) for part in (gained, scores) if part is not None]
    return np.lexsort(keys).astype(np.int64)


def gains(run: Run, layer: str, concept: str, by: str) -> NDArray[np.float64] | None:
    """What tells units of equal scores apart, (C,): the gains of alphas."""
    table = read_causal(run, layer) if by == "alpha" else None
    if table is None:
        return None
    rows = table[table["concept"].isin(concept_numbers(run, concept)) & table["alpha_gain"].notna()]
    return _best(rows, "alpha_gain", run.layer(layer)["units"])


def ranked_scores(run: Run, layer: str, concept: str, by: str) -> NDArray[np.float64] | None:
    """The score (C,) of every unit; None where the run does not hold it. Raises UnknownNameError."""
    if by not in RANKINGS:
        raise UnknownNameError("ranking", by, RANKINGS)
    units, numbers = run.layer(layer)["units"], concept_numbers(run, concept)
    if by == "iou":
        return _overlap(run, layer, units, numbers)
    table = read_causal(run, layer)
    if table is None:
        return None
    rows = table[table["concept"].isin(numbers) & table[by].notna()]
    return _best(rows, by, units) if len(rows) else None


def computed(run: Run, layer: str, concept: str) -> list[str]:
    """The rankings by cause that the run holds of a layer for a concept, the strongest first."""
    return [by for by in ("alpha", "ace") if ranked_scores(run, layer, concept, by) is not None]


def _overlap(run: Run, layer: str, units: int, numbers: list[int]) -> NDArray[np.float64]:
    scores = [_best(table[table["concept"].isin(numbers)], "iou", units) for table in _overlaps(run, layer)]
    found: NDArray[np.float64] = np.max(scores, axis=0)
    return found


def _overlaps(run: Run, layer: str) -> list[pd.DataFrame]:
    """The run's tables of IoU."""
    tables = [run.layer_table(layer, "iou")]
    if run.has_layer_table(layer, "information"):
        tables.append(run.layer_table(layer, "information"))
    return tables


def _best(rows: pd.DataFrame, column: str, units: int) -> NDArray[np.float64]:
    """(C,) the highest value of each unit, 0 of those without a row."""
    found = np.full(units, -np.inf)
    np.maximum.at(found, rows["unit"].to_numpy(np.int64), rows[column].to_numpy(np.float64))
    return np.where(np.isneginf(found), 0.0, found)
