"""Stage patches: the images that each unit responds to most, with the crop that its receptive field covers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from microtome.datasets.geometry import CropGeometry
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.stages.totals import capture_totals
from microtome.dissect.maths.patches import TopPatches
from microtome.dissect.models import ReceptiveField
from microtome.storage.schema import LayerEntry


def run_patches(job: Job) -> None:
    """Write patches.parquet of every layer, from the top samples that capture kept of each shard."""
    totals = capture_totals(job)
    sizes = np.stack([totals.height, totals.width], axis=1)
    for layer, top in zip(job.layers, totals.patches, strict=True):
        job.run.write_layer_table(layer["name"], "patches", _table(job, layer, top, sizes))


def _table(job: Job, layer: LayerEntry, top: TopPatches, sizes: np.ndarray) -> pd.DataFrame:
    """One row a patch: where the peak is, and the box of its receptive field in pixels of the original image."""
    sample, position, value = top.sample, top.position, top.value
    units, ranks = np.nonzero(sample >= 0)
    chosen = sample[units, ranks].astype(np.int64)
    row, column = np.divmod(position[units, ranks].astype(np.int64), layer["grid"][1])
    field = ReceptiveField.from_dict(layer["receptive_field"])
    preprocess = job.run.info["model"]["preprocess"]
    size = (preprocess["size"][0], preprocess["size"][1])
    boxes = np.empty((len(chosen), 4), np.int64)
    for number, (index, r, c) in enumerate(zip(chosen.tolist(), row.tolist(), column.tolist(), strict=True)):
        height, width = sizes[index].tolist()
        geometry = CropGeometry.of(height, width, size=size, resize=preprocess["resize"])
        boxes[number] = geometry.to_original(*field.box(r, c))
    return pd.DataFrame(
        {
            "unit": units.astype(np.int64),
            "rank": ranks.astype(np.int64),
            "sample": chosen,
            "row": row,
            "column": column,
            "value": value[units, ranks].astype(np.float64) * layer["scale"],
            "top": boxes[:, 0],
            "left": boxes[:, 1],
            "bottom": boxes[:, 2],
            "right": boxes[:, 3],
        }
    )
