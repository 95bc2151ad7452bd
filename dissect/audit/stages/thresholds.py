"""Stage thresholds: exact quantiles, by the second pass of the radix selection over the stored activations."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.stages import capture
from microtome.dissect.audit.stages.merge import State, map_shards, part, states
from microtome.dissect.audit.summary import LayerSummary
from microtome.dissect.maths.thresholds import FineHistogram, Thresholds, exact_thresholds, plan_fine
from microtome.storage.arrays import ACTIVATIONS, layer_array

STAGE = "thresholds"


def run_thresholds(job: Job) -> None:
    """Merge the capture's summaries, count finely where each answer lies, and write the samples and thresholds."""
    _finish_samples(job)
    summaries = merged_summaries(job)
    prefixes = [plan_fine(summary.coarse, job.taus) for summary in summaries]

    def work(shard: int) -> State:
        state: State = {}
        for number, layer in enumerate(job.layers):
            fine = FineHistogram.empty(prefixes[number])
            fine.update(stored_activations(job, layer["folder"], shard))
            state |= {f"{number}/{name}": array for name, array in fine.to_arrays().items()}
        return state

    map_shards(job, STAGE, work)
    for number, found in enumerate(merged_thresholds(job, summaries)):
        _write(job, number, summaries[number], found)


def stored_activations(job: Job, folder: str, shard: int) -> NDArray[np.float16]:
    """One shard of a layer's activations as they are stored (true value / scale): (n, C, h, w) float16."""
    return np.ascontiguousarray(job.run.arrays.read_shard(layer_array(folder, ACTIVATIONS), shard), np.float16)


def merged_summaries(job: Job) -> list[LayerSummary]:
    """Every layer's statistics over all samples, merged in shard order."""
    merged = [LayerSummary.empty(layer["units"]) for layer in job.layers]
    for _, state in states(job, capture.STAGE):
        for number, summary in enumerate(merged):
            summary.merge(LayerSummary.from_arrays(part(state, number)))
    return merged


def merged_thresholds(job: Job, summaries: list[LayerSummary]) -> list[Thresholds]:
    """Every layer's exact thresholds, in stored units (true value / scale)."""
    fine = [FineHistogram.empty(plan_fine(summary.coarse, job.taus)) for summary in summaries]
    for _, state in states(job, STAGE):
        for number, histogram in enumerate(fine):
            histogram.merge(FineHistogram.from_arrays(part(state, number)))
    return [
        exact_thresholds(summary.coarse, histogram, job.taus)
        for summary, histogram in zip(summaries, fine, strict=True)
    ]


def _finish_samples(job: Job) -> None:
    """Complete samples.parquet and concepts.parquet with what capture learnt."""
    height, width, error = [], [], []
    pixels = np.zeros(len(job.dataset.concepts) + 1, np.int64)
    images = np.zeros_like(pixels)
    for _, state in states(job, capture.STAGE):
        height.append(state["height"])
        width.append(state["width"])
        error.append(state["error"].astype(object))
        pixels += state["concept_pixels"].sum(axis=0)
        images += state["concept_images"].sum(axis=0)
    errors = np.concatenate(error)
    samples = job.run.table("samples")[["index", "key", "split", "label"]]
    samples["height"] = np.concatenate(height)
    samples["width"] = np.concatenate(width)
    samples["status"] = np.where(errors == "", "ok", "error")
    samples["error"] = pd.Series(errors, dtype="str")
    job.run.write_table("samples", samples)
    concepts = job.dataset.concepts
    job.run.write_table(
        "concepts",
        pd.DataFrame(
            {
                "id": pd.Series([concept.id for concept in concepts], dtype="int64"),
                "name": pd.Series([concept.name for concept in concepts], dtype="str"),
                "category": pd.Series([concept.category for concept in concepts], dtype="str"),
                "images": images[1:],
                "pixels": pixels[1:],
            }
        ),
    )
    job.run.info["data"]["unreadable"] = int((errors != "").sum())
    job.run.save()


def _write(job: Job, number: int, summary: LayerSummary, found: Thresholds) -> None:
    """thresholds.parquet and histogram.parquet of one layer, in true values."""
    layer = job.layers[number]
    units, taus = found.value.shape
    job.run.write_layer_table(
        layer["name"],
        "thresholds",
        pd.DataFrame(
            {
                "unit": np.repeat(np.arange(units), taus),
                "tau": np.tile(np.array(job.taus), units),
                "threshold": found.value.astype(np.float64).ravel() * layer["scale"],
                "realised": found.realised.ravel(),
                "count_above": found.count_above.ravel(),
                "saturated": found.saturated.ravel(),
            }
        ),
    )
    unit, low, high, count = summary.bins()
    job.run.write_layer_table(
        layer["name"],
        "histogram",
        pd.DataFrame(
            {
                "unit": unit,
                "low": low.astype(np.float64) * layer["scale"],
                "high": high.astype(np.float64) * layer["scale"],
                "count": count,
            }
        ),
    )
