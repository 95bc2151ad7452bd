"""Stage tally: for every unit, concept and tau the exact number of pixels that mask and concept share.

Beside it, which concepts occur in each sample at all (array `presence`), as the labels are read anyhow.

A run that keeps no activations computes them again for this: the model runs a second time over all images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.schedule import Advance, ShardTask
from microtome.dissect.audit.stages.information import information_of_shard
from microtome.dissect.audit.stages.merge import (
    ShardedStage,
    State,
    part,
    run_stage,
    under,
    whole_state,
)
from microtome.dissect.audit.stages.shard_labels import ShardLabels, convention
from microtome.dissect.audit.stages.stream import second_pass, write_top_maps
from microtome.dissect.audit.stages.thresholds import merged_thresholds, stored_activations
from microtome.dissect.audit.stages.totals import capture_totals, dropped_concepts, narrow
from microtome.dissect.audit.unit_tables import LayerCounts, write_layer_tables
from microtome.dissect.maths.labels import presence_bits
from microtome.dissect.maths.tally import TallyCounts, tally
from microtome.dissect.maths.thresholds import Thresholds
from microtome.storage.arrays import PRESENCE
from microtome.storage.files import Written
from microtome.storage.schema import LayerEntry

STAGE = "tally"
TABLES_AT_ONCE = 2
"""Layers whose tables are written at a time: much of it is waiting for the disk."""


def run_tally(job: Job) -> None:
    """Count every shard, merge in shard order, and write units.parquet and iou.parquet of every layer."""
    totals, thresholds = capture_totals(job), merged_thresholds(job)
    concept_pixels = np.where(dropped_concepts(job), 0, totals.concept_pixels)
    run_stage(job, TALLY if job.config.keep_activations else STREAMED_TALLY)
    merged = _unpack(job, whole_state(job, STAGE))
    job.once("concepts", lambda: job.run.table("concepts"))

    def write(number: int) -> None:
        counts = LayerCounts(merged[number], concept_pixels)
        write_layer_tables(job, number, totals.summaries[number], thresholds[number], counts)

    with ThreadPoolExecutor(TABLES_AT_ONCE, thread_name_prefix="tables") as writers:
        list(writers.map(write, range(len(job.layers))))


@contextmanager
def _ready(job: Job, advance: Advance) -> Iterator[ShardTask]:
    """Count, shard by shard."""
    thresholds, commits = merged_thresholds(job), job.commits(STAGE)

    def task(shard: int) -> None:
        labels = ShardLabels.read(job, shard)
        state = _count(job, thresholds, labels, lambda layer: stored_activations(job, layer["folder"], shard))
        commits.commit(shard, state, _write_presence(job, shard, labels))
        advance(1)

    yield task


@contextmanager
def _ready_streamed(job: Job, advance: Advance) -> Iterator[ShardTask]:
    """The same over activations that are computed again; the maps of top patches are kept.

    What stage information would count in them, where the run has that stage, is counted while they are there.
    """
    thresholds, commits = merged_thresholds(job), job.commits(STAGE)
    inform = information_of_shard(job)
    with second_pass(job, job.layers, advance) as maps_of:

        def task(shard: int) -> None:
            labels = ShardLabels.read(job, shard)
            with maps_of(shard) as maps:
                state = _count(job, thresholds, labels, lambda layer: maps[layer["name"]])
                inform(shard, labels, lambda layer: maps[layer["name"]])
                files = write_top_maps(job, shard, maps)
            commits.commit(shard, state, files + _write_presence(job, shard, labels))

        yield task


def _count(
    job: Job, thresholds: list[Thresholds], labels: ShardLabels, maps_of: Callable[[LayerEntry], NDArray[np.float16]]
) -> State:
    state: State = {}
    for number, (layer, found) in enumerate(zip(job.layers, thresholds, strict=True)):
        maps = maps_of(layer)
        for split in np.unique(labels.splits).tolist():
            counts = _tally_split(job, labels, maps, split, found.for_masks, found.saturated)
            state |= under(f"{number}/{split}", pack(counts))
    return state


def _write_presence(job: Job, shard: int, labels: ShardLabels) -> list[Written]:
    """Store which concepts occur in each sample of `shard`, none in those that could not be read."""
    if not job.run.keeps(PRESENCE):
        return []
    bits = presence_bits(labels.labels, labels.image_labels, len(job.dataset.concepts))
    readable = np.zeros(len(bits), np.bool_)
    readable[labels.rows] = True
    bits[~readable] = 0
    return job.run.arrays.write_shard(PRESENCE, shard, bits)


def _tally_split(
    job: Job,
    labels: ShardLabels,
    maps: NDArray[np.float16],
    split: int,
    thresholds: NDArray[np.float16],
    saturated: NDArray[np.bool_],
) -> TallyCounts:
    """Counts over the readable samples of one split."""
    chosen = labels.of_split(split)
    everything = len(chosen) == len(maps)
    pick = slice(None) if everything else chosen
    return tally(
        maps[pick],
        thresholds,
        saturated,
        labels.labels[pick],
        labels.image_labels[pick],
        job.category_of,
        labels.annotated[pick],
        convention=convention(job),
    )


def pack(counts: TallyCounts) -> State:
    """Counts with the intersections kept sparse: most pairs of unit and concept never meet within a shard."""
    flat = counts.intersection.ravel()
    where = np.flatnonzero(flat)
    found = {"where": where, "count": flat[where], "unit_pixels": counts.unit_pixels}
    return {name: narrow(values) for name, values in found.items()}


def _fold(job: Job, states: Iterator[State]) -> State:
    merged = [[_empty(job, layer["units"]) for _ in job.splits] for layer in job.layers]
    for state in states:
        _add(job, merged, state)
    whole: State = {}
    for number, by_split in enumerate(merged):
        for split, counts in enumerate(by_split):
            whole |= under(f"{number}/{split}", pack(counts))
    return whole


def _unpack(job: Job, state: State) -> list[list[TallyCounts]]:
    """[layer][split] counts."""
    merged = [[_empty(job, layer["units"]) for _ in job.splits] for layer in job.layers]
    _add(job, merged, state)
    return merged


def _add(job: Job, merged: list[list[TallyCounts]], state: State) -> None:
    for number, by_split in enumerate(merged):
        for split, counts in enumerate(by_split):
            found = part(state, f"{number}/{split}")
            if found:
                counts.intersection.reshape(-1)[found["where"]] += found["count"].astype(np.int64)
                counts.unit_pixels[...] += found["unit_pixels"].astype(np.int64)


def _empty(job: Job, units: int) -> TallyCounts:
    taus, concepts, categories = len(job.taus), len(job.dataset.concepts), len(job.categories)
    return TallyCounts.empty(taus, units, concepts, categories, convention(job))


TALLY = ShardedStage(STAGE, _ready, _fold)
STREAMED_TALLY = ShardedStage(
    STAGE,
    _ready_streamed,
    _fold,
    lanes=lambda division: division.lanes,
    unit="images",
    needs_model=True,
    variant=":streamed",
)
