"""Stage tally: for every unit, concept and tau the exact number of pixels that mask and concept share.

Beside it, which concepts occur in each sample at all (array `presence`), as the labels are read anyhow.

A run that keeps no activations computes them again for this: the model runs a second time over all images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.schedule import Advance, ShardTask
from microtome.dissect.audit.stages.merge import (
    ShardedStage,
    State,
    part,
    run_stage,
    under,
    whole_state,
)
from microtome.dissect.audit.stages.stream import second_pass, write_top_maps
from microtome.dissect.audit.stages.thresholds import merged_thresholds, stored_activations
from microtome.dissect.audit.stages.totals import capture_totals, dropped_concepts, narrow
from microtome.dissect.audit.unit_tables import LayerCounts, write_layer_tables
from microtome.dissect.maths.labels import count_labels, presence_bits
from microtome.dissect.maths.tally import Convention, TallyCounts, tally
from microtome.dissect.maths.thresholds import Thresholds
from microtome.storage.arrays import IMAGE_LABELS, LABELS, PRESENCE
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
    """The same over activations that are computed again; the maps of top patches are kept."""
    thresholds, commits = merged_thresholds(job), job.commits(STAGE)
    with second_pass(job, job.layers, advance) as maps_of:

        def task(shard: int) -> None:
            labels = ShardLabels.read(job, shard)
            with maps_of(shard) as maps:
                state = _count(job, thresholds, labels, lambda layer: maps[layer["name"]])
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
            counts = labels.tally(job, maps, split, found.for_masks, found.saturated)
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


@dataclass(frozen=True)
class ShardLabels:
    """One shard's labels (n, P, H, W) and (n, Q), its readable samples, their splits and annotated categories."""

    labels: NDArray[np.uint16]
    image_labels: NDArray[np.uint16]
    rows: NDArray[np.int64]
    splits: NDArray[np.int8]
    annotated: NDArray[np.bool_]

    @classmethod
    def read(cls, job: Job, shard: int) -> ShardLabels:
        """Read the labels of `shard`; samples that could not be read are left out of `rows`."""
        samples = job.run.plan.samples_of(shard)
        totals = capture_totals(job)
        rows = np.flatnonzero(totals.error[samples.start : samples.stop] == "")
        found = cls(
            labels=_read_or_empty(job, LABELS, shard, (len(job.dataset.plane_names), *job.label_size)),
            image_labels=_read_or_empty(job, IMAGE_LABELS, shard, (job.dataset.image_label_slots,)),
            rows=rows,
            splits=job.split_of[samples.start : samples.stop][rows],
            annotated=totals.annotated[samples.start : samples.stop],
        )
        dropped = dropped_concepts(job)
        return found.without(job, dropped) if dropped.any() else found

    def without(self, job: Job, dropped: NDArray[np.bool_]) -> ShardLabels:
        """The same labels, where some concepts are none."""
        stays = np.where(dropped, 0, np.arange(len(dropped))).astype(np.uint16)
        labels, image_labels = stays[self.labels], stays[self.image_labels]
        concepts, categories = len(job.dataset.concepts), len(job.categories)
        counts = count_labels(labels, image_labels, concepts, job.category_of, categories)
        return replace(self, labels=labels, image_labels=image_labels, annotated=counts.annotated)

    def tally(
        self,
        job: Job,
        maps: NDArray[np.float16],
        split: int,
        thresholds: NDArray[np.float16],
        saturated: NDArray[np.bool_],
    ) -> TallyCounts:
        """Counts over the readable samples of one split."""
        chosen = self.rows[self.splits == split]
        everything = len(chosen) == len(maps)
        pick = slice(None) if everything else chosen
        return tally(
            maps[pick],
            thresholds,
            saturated,
            self.labels[pick],
            self.image_labels[pick],
            job.category_of,
            self.annotated[pick],
            convention=convention(job),
        )


def _read_or_empty(job: Job, name: str, shard: int, item: tuple[int, ...]) -> NDArray[np.uint16]:
    if job.run.arrays.exists(name):
        return np.ascontiguousarray(job.run.arrays.read_shard(name, shard), np.uint16)
    return np.zeros((len(job.run.plan.samples_of(shard)), *item), np.uint16)


def pack(counts: TallyCounts) -> State:
    """Counts with the intersections kept sparse: most pairs of unit and concept never meet within a shard."""
    flat = counts.intersection.ravel()
    where = np.flatnonzero(flat)
    found = {"where": where, "count": flat[where], "unit_pixels": counts.unit_pixels}
    return {name: narrow(values) for name, values in found.items()}


def convention(job: Job) -> Convention:
    """The run's IoU convention."""
    return cast("Convention", job.config.iou)  # checked by AuditConfig


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
