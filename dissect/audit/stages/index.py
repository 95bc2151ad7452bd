"""Stage index: list the samples, and create every array at its full length."""

from __future__ import annotations

import pandas as pd

from microtome.dissect.audit.job import Job
from microtome.storage.arrays import ACTIVATIONS, IMAGE_LABELS, LABELS, MEANS, PEAK_AT, PEAKS, layer_array


def run_index(job: Job) -> None:
    """Write samples.parquet with what is known before any image is opened, and create the arrays."""
    entries = [job.dataset.entry(index) for index in range(job.samples)]
    job.run.write_table(
        "samples",
        pd.DataFrame(
            {
                "index": pd.Series(range(job.samples), dtype="int64"),
                "key": pd.Series([entry.key for entry in entries], dtype="str"),
                "split": pd.Series([entry.split for entry in entries], dtype="str"),
                "label": pd.Series([entry.label for entry in entries], dtype="Int64"),
            }
        ),
    )
    arrays = job.run.arrays
    arrays.create(LABELS, (len(job.dataset.plane_names), *job.label_size), "uint16")
    arrays.create(IMAGE_LABELS, (job.dataset.image_label_slots,), "uint16")
    for layer in job.layers:
        units, grid = layer["units"], layer["grid"]
        arrays.create(layer_array(layer["folder"], ACTIVATIONS), (units, *grid), "float16", channels=True)
        arrays.create(layer_array(layer["folder"], PEAKS), (units,), "float16")
        arrays.create(layer_array(layer["folder"], PEAK_AT), (units,), "int32")
        arrays.create(layer_array(layer["folder"], MEANS), (units,), "float32")
