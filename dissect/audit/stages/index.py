"""Stage index: list the samples, and create every array at its full length.

For a run that grows it does the same over what is there: arrays become longer, shards of the capture that stay are
vouched for under the run's new key, and what was counted over the former samples is forgotten.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from microtome.datasets.base import ImageDataset, MakesRemarks
from microtome.datasets.views.view import sample_fingerprints
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.stages.merge import State, pack_texts
from microtome.storage.arrays import (
    ACTIVATIONS,
    IMAGE_LABELS,
    LABELS,
    MEANS,
    PEAK_AT,
    PEAKS,
    PRESENCE,
    SEGMENTS,
    THUMBNAIL_SIDE,
    THUMBNAILS,
    layer_array,
    presence_bytes,
)
from microtome.storage.order import forget_orders
from microtome.storage.schema import RemarkInfo

STAGE = "index"
NAMED = 3
STAYING = ("segment", "guess", "capture")
ROWS_AT_ONCE = 1 << 16
"""Rows of the table of samples that are Python objects at a time; a million of them would be 200 MB."""


def run_index(job: Job) -> None:
    """Write samples.parquet with what is known before any image is opened, and create the arrays."""
    starts = range(0, job.samples, ROWS_AT_ONCE)
    parts = [_sample_rows(job, range(start, min(start + ROWS_AT_ONCE, job.samples))) for start in starts]
    job.run.write_table("samples", pd.concat(parts, ignore_index=True))
    _note_remarks(job)
    _create_arrays(job)
    _keep_what_stays(job)
    job.commits(STAGE).commit(0, inputs(job))
    job.run.info["data"].pop("growth", None)  # saved with the word that this stage is done


def _note_remarks(job: Job) -> None:
    """Say what the dataset remarks, and note it in run.json (saved with the word that this stage is done)."""
    remarks = job.dataset.remarks() if isinstance(job.dataset, MakesRemarks) else ()
    for remark in remarks:
        examples = f" ({', '.join(remark.examples[:NAMED])}{', ...' if remark.count > NAMED else ''})"
        say(f"note: {remark.count:,} {remark.text}{examples if remark.examples else ''}")
    job.run.info["data"]["remarks"] = [
        RemarkInfo(text=remark.text, count=remark.count, examples=list(remark.examples)) for remark in remarks
    ]


def _sample_rows(job: Job, samples: range) -> pd.DataFrame:
    entries = [job.dataset.entry(index) for index in samples]
    return pd.DataFrame(
        {
            "index": pd.Series(samples, dtype="int64"),
            "key": pd.Series([entry.key for entry in entries], dtype="str"),
            "split": pd.Series([entry.split for entry in entries], dtype="str"),
            "label": pd.Series([entry.label for entry in entries], dtype="Int64"),
        }
    )


def _create_arrays(job: Job) -> None:
    create = partial(job.run.arrays.create, grow="growth" in job.run.info["data"])
    create(LABELS, (len(job.dataset.plane_names), *job.label_size), "uint16")
    if "segmenter" in job.run.info:
        create(SEGMENTS, (job.run.info["segmenter"]["planes"], *job.label_size), "uint16")
    create(IMAGE_LABELS, (job.dataset.image_label_slots,), "uint16")
    if job.run.keeps(THUMBNAILS):
        create(THUMBNAILS, (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), "uint8")
    if job.run.keeps(PRESENCE):
        create(PRESENCE, (presence_bytes(len(job.dataset.concepts)),), "uint8")
    for layer in job.layers:
        units, grid = layer["units"], layer["grid"]
        if job.config.keep_activations:
            create(layer_array(layer["folder"], ACTIVATIONS), (units, *grid), "float16", channels=True)
        create(layer_array(layer["folder"], PEAKS), (units,), "float16")
        create(layer_array(layer["folder"], PEAK_AT), (units,), "int32")
        create(layer_array(layer["folder"], MEANS), (units,), "float32")


def _keep_what_stays(job: Job) -> None:
    """Take over the former capture's shards that are whole, and forget all other results of the smaller run."""
    data = job.run.info["data"]
    growth = data.get("growth")
    if growth is None:
        return
    folders = {key.split("/")[1] for key, _ in job.run.place.list("commits/")}
    for folder in sorted(folders - {STAGE, *STAYING}):
        job.commits(folder).clear()
    for folder in STAYING:
        job.commits(folder).adopt(growth)
    forget_orders(job.run.place, data.get("order"))


def inputs(job: Job) -> State:
    """What the run was made of, so that it can be told whether it has changed: see `extend`."""
    state: State = {
        "count": np.array([job.samples], np.int64),
        "concepts": pack_texts(concept_lines(job.dataset)),
    }
    fingerprints = sample_fingerprints(job.dataset, job.samples)
    if fingerprints is not None:
        state["samples"] = fingerprints
    return state


def concept_lines(dataset: ImageDataset) -> list[str]:
    """A line for each concept of the dataset."""
    return [f"{concept.id} {concept.name} {concept.category}" for concept in dataset.concepts]
