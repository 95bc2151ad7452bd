"""What the shards of the capture stage add up to, folded shard by shard and kept for the stages that follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.stages.merge import State, pack_texts, part, under, unpack_texts, whole_state
from microtome.dissect.audit.summary import LayerSummary
from microtome.dissect.maths.guesses import merge_common
from microtome.dissect.maths.patches import TopPatches
from microtome.dissect.maths.thresholds import FineHistogram

CAPTURE = "capture"

PER_SAMPLE = ("height", "width", "annotated")
COUNTS = ("concept_pixels", "concept_images")


@dataclass(frozen=True)
class CaptureTotals:
    """Over n samples: sizes (n,), errors ("" = readable), annotated categories (n, G), label counts
    (splits, K + 1) int64, and for each layer its units' statistics and top patches, in stored units; guessed: in a
    run that keeps no activations, for each layer the fine counts of the bins that the thresholds were guessed to be in.
    """

    height: NDArray[np.int64]
    width: NDArray[np.int64]
    error: NDArray[np.object_]
    annotated: NDArray[np.bool_]
    concept_pixels: NDArray[np.int64]
    concept_images: NDArray[np.int64]
    summaries: list[LayerSummary]
    patches: list[TopPatches]
    guessed: list[FineHistogram]


def capture_totals(job: Job) -> CaptureTotals:
    """The totals of a finished capture over all samples."""
    return job.once("capture totals", lambda: _unpack(job, whole_state(job, CAPTURE)))


def dropped_concepts(job: Job) -> NDArray[np.bool_]:
    """(K + 1,) which concepts occur, but in fewer images than the run asks for: they count as unlabelled."""
    images = capture_totals(job).concept_images.sum(axis=0)
    return np.asarray((images > 0) & (images < job.config.min_images), dtype=np.bool_)


def fold_capture(job: Job, states: Iterator[State]) -> State:
    """The state of neighbouring shards together, in the form of one shard's."""
    rows: dict[str, list[NDArray[np.generic]]] = {name: [] for name in PER_SAMPLE}
    errors: list[str] = []
    counts = {name: np.zeros((len(job.splits), len(job.dataset.concepts) + 1), np.int64) for name in COUNTS}
    summaries = [LayerSummary.empty(layer["units"]) for layer in job.layers]
    patches = [TopPatches.empty(layer["units"], job.config.top) for layer in job.layers]
    guessed: dict[int, FineHistogram] = {}
    for state in states:
        for name, parts in rows.items():
            parts.append(state[name])
        errors += unpack_texts(state["error"])
        for name, count in counts.items():
            count[: len(state[name])] += state[name].astype(np.int64)  # splits may have come in after a shard was made
        for number in range(len(job.layers)):
            summaries[number].merge(LayerSummary.from_arrays(part(state, f"{number}/summary")))
            patches[number].merge(TopPatches.from_arrays(part(state, f"{number}/patches")))
            if not job.config.keep_activations:
                fine = unpack_fine(part(state, f"{number}/fine"))
                guessed[number] = merge_common(guessed[number], fine) if number in guessed else fine
    whole: State = {name: np.concatenate(parts) for name, parts in rows.items()}
    whole |= {"error": pack_texts(errors), **counts}
    for number, (summary, top) in enumerate(zip(summaries, patches, strict=True)):
        whole |= under(f"{number}/summary", summary.to_arrays()) | under(f"{number}/patches", top.to_arrays())
    for number, fine in guessed.items():
        whole |= under(f"{number}/fine", pack_fine(fine))
    return whole


def _unpack(job: Job, state: State) -> CaptureTotals:
    layers = range(len(job.layers))
    return CaptureTotals(
        height=state["height"].astype(np.int64),
        width=state["width"].astype(np.int64),
        error=np.array(unpack_texts(state["error"]), dtype=object),
        annotated=state["annotated"].astype(np.bool_),
        concept_pixels=state["concept_pixels"].astype(np.int64),
        concept_images=state["concept_images"].astype(np.int64),
        summaries=[LayerSummary.from_arrays(part(state, f"{number}/summary")) for number in layers],
        patches=[TopPatches.from_arrays(part(state, f"{number}/patches")) for number in layers],
        guessed=[]
        if job.config.keep_activations
        else [unpack_fine(part(state, f"{number}/fine")) for number in layers],
    )


def pack_fine(fine: FineHistogram) -> State:
    """A fine histogram with its counts kept sparse, as gaps and counts: most bins of a shard are empty."""
    flat = fine.counts.ravel()
    where = np.flatnonzero(flat)
    counts = {"gap": np.diff(where, prepend=0), "count": flat[where]}
    return {"prefixes": fine.prefixes, **{name: narrow(values) for name, values in counts.items()}}


def unpack_fine(state: State) -> FineHistogram:
    """The inverse of `pack_fine`."""
    fine = FineHistogram.empty(state["prefixes"].astype(np.int16))
    fine.counts.reshape(-1)[np.cumsum(state["gap"].astype(np.int64))] = state["count"]
    return fine


def narrow(values: NDArray[np.int64]) -> NDArray[np.generic]:
    """The same numbers, none below 0, in the fewest bytes that hold them all."""
    return values.astype(np.min_scalar_type(values.max(initial=0)))
