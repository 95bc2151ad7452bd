"""Labels by thresholds of most information: information.parquet of a run, asked for by `tau=information`.

A label is chosen on the half of the samples that chose the thresholds (`iou_half`), and judged on the other (`iou`).
"""

from __future__ import annotations

import pandas as pd

from microtome.dissect.labelling import label_units
from microtome.storage.errors import UsageError
from microtome.storage.run import Run

INFORMATION = "information"
"""The stage, its table, and what stands in place of a fraction in queries."""
CHOSEN_BY = "iou_half"

Tau = float | str
"""A fraction of the run, or INFORMATION."""


def has_information(run: Run) -> bool:
    """Whether the run has these tables."""
    return run.info["stages"].get(INFORMATION, {"state": "absent"})["state"] == "done"


def refuse_uninformed(run: Run) -> None:
    """Raise UsageError where the run has no such tables."""
    if has_information(run):
        return
    where = run.place.path or run.url
    if INFORMATION in run.info["stages"]:
        raise UsageError(f"the thresholds of most information are not there yet: microtome audit --resume {where}")
    raise UsageError(
        f"{where} was made without thresholds of most information; audit with --information into another --out for them"
    )


def read_information(run: Run, layer: str) -> pd.DataFrame:
    """information.parquet of `layer`, with a column `tau` that says INFORMATION."""
    return run.layer_table(layer, INFORMATION).assign(tau=INFORMATION)


def label_by_information(
    concepts: pd.DataFrame, table: pd.DataFrame, units: pd.DataFrame, min_iou: float
) -> pd.DataFrame:
    """units.parquet with label, threshold and `realised` as information.parquet has them, and without splits.

    threshold, realised (share of the pixels above it) and information are those of the label, NaN where there is none.
    """
    labels = label_units(concepts, [], table.assign(tau=0.0), 0.0, len(units), min_iou, by=CHOSEN_BY)
    splits = [column for column in units.columns if column.startswith("iou_")]
    kept = units.drop(columns=[*splits, *(column for column in labels.columns if column != "unit")])
    frame = kept.merge(labels, on="unit", validate="one_to_one")
    rows = table.set_index(["unit", "concept"])
    pairs = pd.MultiIndex.from_frame(frame[["unit", "concept_id"]])
    for column, source in {"threshold": "threshold", "realised": "share", INFORMATION: INFORMATION}.items():
        frame[column] = rows[source].reindex(pairs).to_numpy()
    frame[CHOSEN_BY] = rows[CHOSEN_BY].reindex(pairs).fillna(0.0).to_numpy()
    return frame
