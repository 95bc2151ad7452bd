"""Stage thresholds: exact quantiles, by the second pass of the radix selection over the stored activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.schedule import Advance, ShardTask
from microtome.dissect.audit.stages.merge import (
    ShardedStage,
    State,
    committing,
    part,
    run_stage,
    under,
    whole_state,
)
from microtome.dissect.audit.stages.totals import CaptureTotals, capture_totals
from microtome.dissect.audit.summary import LayerSummary
from microtome.dissect.maths.thresholds import FineHistogram, Thresholds, exact_thresholds, plan_fine
from microtome.storage.arrays import ACTIVATIONS, layer_array

STAGE = "thresholds"


def run_thresholds(job: Job) -> None:
    """Merge the capture's summaries, count finely where each answer lies, and write the samples and thresholds."""
    totals = capture_totals(job)
    _finish_samples(job, totals)
    run_stage(job, THRESHOLDS)
    for number, found in enumerate(merged_thresholds(job)):
        _write(job, number, totals.summaries[number], found)


@contextmanager
def _ready(job: Job, advance: Advance) -> Iterator[ShardTask]:
    """Count finely, shard by shard, where the answers lie."""
    prefixes = _prefixes(job)

    def work(shard: int) -> State:
        state: State = {}
        for number, layer in enumerate(job.layers):
            fine = FineHistogram.empty(prefixes[number])
            fine.update(stored_activations(job, layer["folder"], shard))
            state |= under(str(number), fine.to_arrays())
        return state

    with committing(job, STAGE, work, advance) as task:
        yield task


def _fold(job: Job, states: Iterator[State]) -> State:
    whole: State = {}
    fine = {str(number): FineHistogram.empty(prefixes) for number, prefixes in enumerate(_prefixes(job))}
    for state in states:
        for number, histogram in fine.items():
            histogram.merge(FineHistogram.from_arrays(part(state, number)))
    for number, histogram in fine.items():
        whole |= under(number, histogram.to_arrays())
    return whole


def _prefixes(job: Job) -> list[NDArray[np.int16]]:
    return [plan_fine(summary.coarse, job.taus) for summary in capture_totals(job).summaries]


THRESHOLDS = ShardedStage(STAGE, _ready, _fold)


def stored_activations(job: Job, folder: str, shard: int) -> NDArray[np.float16]:
    """One shard of a layer's activations as they are stored (true value / scale): (n, C, h, w) float16."""
    return np.ascontiguousarray(job.run.arrays.read_shard(layer_array(folder, ACTIVATIONS), shard), np.float16)


def merged_thresholds(job: Job) -> list[Thresholds]:
    """Every layer's exact thresholds, in stored units (true value / scale)."""
    return job.once("thresholds", lambda: _merge(job))


def _merge(job: Job) -> list[Thresholds]:
    coarse = [summary.coarse for summary in capture_totals(job).summaries]
    whole = whole_state(job, STAGE)
    fine = [FineHistogram.from_arrays(part(whole, str(number))) for number in range(len(job.layers))]
    return [exact_thresholds(*pair, job.taus) for pair in zip(coarse, fine, strict=True)]


def _finish_samples(job: Job, totals: CaptureTotals) -> None:
    """Complete samples.parquet and concepts.parquet with what capture learnt."""
    samples = job.run.table("samples")[["index", "key", "split", "label"]]
    samples["height"], samples["width"] = totals.height, totals.width
    samples["status"] = np.where(totals.error == "", "ok", "error")
    samples["error"] = pd.Series(totals.error, dtype="str")
    job.run.write_table("samples", samples)
    concepts = job.dataset.concepts
    job.run.write_table(
        "concepts",
        pd.DataFrame(
            {
                "id": pd.Series([concept.id for concept in concepts], dtype="int64"),
                "name": pd.Series([concept.name for concept in concepts], dtype="str"),
                "category": pd.Series([concept.category for concept in concepts], dtype="str"),
                "images": totals.concept_images.sum(axis=0)[1:],
                "pixels": totals.concept_pixels.sum(axis=0)[1:],
            }
        ),
    )
    job.run.info["data"]["unreadable"] = int((totals.error != "").sum())
    job.run.save()


def _write(job: Job, number: int, summary: LayerSummary, found: Thresholds) -> None:
    """thresholds.parquet and histogram.parquet of one layer, in true values."""
    layer = job.layers[number]
    units, taus = found.value.shape
    for what, counts in (("NaN", found.nan), ("infinite values", summary.infinite)):
        if counts.any():
            say(f"{layer['name']}: {np.count_nonzero(counts)} of {units} units gave {what} ({counts.sum():,} in all)")
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
