"""What the shards of the capture stage add up to, read in one pass and kept for the stages that follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.stages.merge import part, states, unpack_texts
from microtome.dissect.audit.summary import LayerSummary
from microtome.dissect.maths.patches import TopPatches

CAPTURE = "capture"


@dataclass(frozen=True)
class CaptureTotals:
    """Over all N samples: sizes (N,), errors (N,) ("" = readable), annotated categories (N, G), label counts
    (splits, K + 1) int64, and for each layer its units' statistics and top patches, in stored units."""

    height: NDArray[np.int64]
    width: NDArray[np.int64]
    error: NDArray[np.object_]
    annotated: NDArray[np.bool_]
    concept_pixels: NDArray[np.int64]
    concept_images: NDArray[np.int64]
    summaries: list[LayerSummary]
    patches: list[TopPatches]


def capture_totals(job: Job) -> CaptureTotals:
    """The totals of a finished capture, merged in shard order."""
    return job.once("capture totals", lambda: _merge(job))


def _merge(job: Job) -> CaptureTotals:
    counts = (len(job.splits), len(job.dataset.concepts) + 1)
    totals = CaptureTotals(
        height=np.zeros(job.samples, np.int64),
        width=np.zeros(job.samples, np.int64),
        error=np.full(job.samples, "", dtype=object),
        annotated=np.zeros((job.samples, len(job.categories)), np.bool_),
        concept_pixels=np.zeros(counts, np.int64),
        concept_images=np.zeros(counts, np.int64),
        summaries=[LayerSummary.empty(layer["units"]) for layer in job.layers],
        patches=[TopPatches.empty(layer["units"], job.config.top) for layer in job.layers],
    )
    for samples, state in states(job, CAPTURE):
        rows = slice(samples.start, samples.stop)
        for name in ("height", "width", "annotated"):
            getattr(totals, name)[rows] = state[name]
        totals.error[rows] = unpack_texts(state["error"])
        for name in ("concept_pixels", "concept_images"):
            getattr(totals, name)[...] += state[name].astype(np.int64)
        for number in range(len(job.layers)):
            totals.summaries[number].merge(LayerSummary.from_arrays(part(state, f"{number}/summary")))
            totals.patches[number].merge(TopPatches.from_arrays(part(state, f"{number}/patches")))
    return totals
