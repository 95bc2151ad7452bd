"""The labels of units from a layer's IoU table: which concept, how well, and whether that makes a detector."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.maths.scoring import best_labels


def split_column(split: str) -> str:
    """Column of iou.parquet and units.parquet that holds the IoU over one split."""
    return f"iou_{split}" if split else "iou_unsplit"


def label_column(splits: list[str]) -> str:
    """The column that chooses a unit's label: IoU on `train` where a `val` split stands beside it, else overall."""
    return split_column("train") if {"train", "val"} <= set(splits) else "iou"


def label_units(
    concepts: pd.DataFrame,
    splits: list[str],
    iou: pd.DataFrame,
    tau: float,
    units: int,
    min_iou: float,
    *,
    by: str | None = None,
) -> pd.DataFrame:
    """The label of every unit at one tau: unit, concept, concept_id, category, iou, ceiling, is_detector, split IoUs.

    With splits `train` and `val` the label is the concept of highest IoU on train; `is_detector` says whether its
    IoU over all samples exceeds `min_iou`. by: the column to choose by in place of that.
    """
    labels = best_labels(columns_of(iou), units, tau, min_iou=min_iou, by=by or label_column(splits))
    labelled = labels.row >= 0
    rows = iou.iloc[labels.row[labelled]]
    names = concepts.set_index("id").loc[labels.concept[labelled]]
    frame = pd.DataFrame({"unit": np.arange(units), "concept_id": labels.concept})
    for column in ("concept", "category"):
        values = np.full(units, None, dtype=object)
        values[labelled] = names["name" if column == "concept" else column].to_numpy()
        frame[column] = pd.Series(values, dtype="str")
    for column in ["iou", "ceiling", *([split_column(name) for name in splits] if len(splits) > 1 else [])]:
        values = np.zeros(units)
        values[labelled] = rows[column].to_numpy()
        frame[column] = values
    frame["is_detector"] = labels.is_detector
    return frame


def columns_of(iou: pd.DataFrame) -> dict[str, NDArray[np.generic]]:
    """The columns of an IoU table as arrays, for the functions of `maths.scoring`."""
    return {str(name): iou[name].to_numpy() for name in iou.columns}
