"""From merged counts to a layer's tables: iou.parquet (rows: tau, unit, concept) and units.parquet (rows: unit)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.summary import LayerSummary
from microtome.dissect.labelling import label_units, split_column
from microtome.dissect.maths.scoring import iou_for_rows, iou_table
from microtome.dissect.maths.tally import TallyCounts
from microtome.dissect.maths.thresholds import Thresholds


@dataclass(frozen=True)
class LayerCounts:
    """Counts of one layer by split, and (splits, K + 1) concept pixels."""

    by_split: list[TallyCounts]
    concept_pixels: NDArray[np.int64]


def write_layer_tables(
    job: Job, number: int, summary: LayerSummary, thresholds: Thresholds, counts: LayerCounts
) -> None:
    """Write iou.parquet and units.parquet of layer `number`."""
    name = job.layers[number]["name"]
    iou = _iou_frame(job, counts)
    job.run.write_layer_table(name, "iou", iou)
    job.run.write_layer_table(name, "units", _units_frame(job, number, summary, thresholds, iou))


def _iou_frame(job: Job, counts: LayerCounts) -> pd.DataFrame:
    """One row for every tau and pair with a non-empty intersection over all samples; splits are further columns."""
    intersection = np.sum([split.intersection for split in counts.by_split], axis=0)
    unit_pixels = np.sum([split.unit_pixels for split in counts.by_split], axis=0)
    columns = iou_table(intersection, unit_pixels, counts.concept_pixels.sum(axis=0), job.category_of, job.taus)
    frame = pd.DataFrame(columns)
    for split, name in enumerate(job.splits if len(job.splits) > 1 else []):
        found = counts.by_split[split]
        frame[split_column(name)] = iou_for_rows(
            columns,
            found.intersection,
            found.unit_pixels,
            counts.concept_pixels[split],
            job.category_of,
            job.taus,
        )
    return frame


def _units_frame(
    job: Job, number: int, summary: LayerSummary, thresholds: Thresholds, iou: pd.DataFrame
) -> pd.DataFrame:
    """One row a unit, labelled at the first tau."""
    layer = job.layers[number]
    scale, units = layer["scale"], layer["units"]
    moments = summary.moments.result()
    frame = pd.DataFrame(
        {
            "unit": np.arange(units),
            "state": pd.Series(thresholds.state.tolist(), dtype="str"),
            "threshold": thresholds.value[:, 0].astype(np.float64) * scale,
            "realised": thresholds.realised[:, 0],
            "minimum": thresholds.minimum.astype(np.float64) * scale,
            "maximum": thresholds.maximum.astype(np.float64) * scale,
            "mean": moments.mean * scale,
            "std": moments.std * scale,
            "dead_share": moments.dead_share,
            "nan": moments.nan,
            "infinite": summary.infinite,
            "positions": thresholds.positions,
        }
    )
    concepts = job.once("concepts", lambda: job.run.table("concepts"))
    labels = label_units(concepts, job.splits, iou, job.taus[0], units, job.config.min_iou)
    return pd.concat([frame, labels.drop(columns="unit")], axis=1)  # both have a row for every unit, in order
