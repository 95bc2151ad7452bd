"""Stage information: for every unit and concept the threshold that says most about the concept, and IoU at it.

It stands beside the fixed tau (`dissect/maths/information.py`): where concepts cover much of the images, as in those of
many generators, a mask of tau of the area cannot score high with any of them.

A run that keeps no activations has counted for this in its stage tally, whose second pass holds them anyhow; a shard
that is missing then goes through the model once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.schedule import Advance, ShardTask
from microtome.dissect.audit.stages.merge import ShardedStage, State, part, run_stage, under, whole_state
from microtome.dissect.audit.stages.shard_labels import ShardLabels, convention
from microtome.dissect.audit.stages.stream import second_pass
from microtome.dissect.audit.stages.thresholds import merged_thresholds, stored_activations
from microtome.dissect.audit.stages.totals import capture_totals, dropped_concepts, narrow
from microtome.dissect.maths.information import (
    EVEN,
    OCTAVES,
    STEPS,
    CodedSamples,
    InformationCounts,
    Population,
    candidates,
    halves_of,
    most_informative,
)
from microtome.dissect.maths.sparse import add_at_gaps, gaps_of
from microtome.storage.schema import LayerEntry

STAGE = "information"
TABLE = "information"
MOST_COUNTS = 1 << 27
"""Counts of a run's pairs at all candidates: 1 GB where they are folded. Larger runs have fewer candidates."""
FEWEST_STEPS = 2
"""Steps of candidates in each octave that a run has at least; then its rarest concepts are left out."""
COUNTS_AT_ONCE = 1 << 18
"""Counts of as many units as a shard takes together: 2 MB, which stay in the cache until they are packed."""

MapsOf = Callable[[LayerEntry], NDArray[np.float16]]


def run_information(job: Job) -> None:
    """Count every shard that is not counted yet, merge in shard order, and write information.parquet of every layer."""
    run_stage(job, INFORMATION if job.config.keep_activations else STREAMED_INFORMATION)
    plan = _plan(job)
    if plan.left_out:
        say(f"information: the {plan.left_out:,} rarest concepts are left out, for want of memory")
    counts, population = _unpack(job, plan, whole_state(job, STAGE))
    for layer, edges, found in zip(job.layers, plan.edges, counts, strict=True):
        table = pd.DataFrame(most_informative(found, population, edges, plan.category_of))
        table["concept"] = plan.ids[table["concept"].to_numpy(np.int64)]
        table["threshold"] *= layer["scale"]
        job.run.write_layer_table(layer["name"], TABLE, table)


@dataclass(frozen=True)
class _Plan:
    """What is counted: the concepts that occur, as 1 ... k (ids: (k + 1,) theirs; number_of: (K + 1,) uint16 from
    those, 0 for others; category_of: (k + 1,)), and each layer's candidate thresholds (C, B) in stored units; left_out:
    how many concepts occur and are not counted."""

    ids: NDArray[np.int64]
    number_of: NDArray[np.uint16]
    category_of: NDArray[np.int64]
    edges: list[NDArray[np.float32]]
    left_out: int


def _plan(job: Job) -> _Plan:
    return job.once("information", lambda: _make_plan(job))


def _make_plan(job: Job) -> _Plan:
    totals = capture_totals(job)
    pixels = np.where(dropped_concepts(job), 0, totals.concept_pixels.sum(axis=0))
    units = sum(layer["units"] for layer in job.layers)
    occur = int(np.count_nonzero(pixels))
    steps, kept = _fitting(units, occur, len(job.taus))
    ids = np.sort(np.argsort(-pixels, kind="stable")[:kept])
    number_of = np.zeros(len(pixels), np.uint16)
    number_of[ids] = np.arange(1, kept + 1)
    ids = np.append(0, ids)
    thresholds = merged_thresholds(job)
    edges = [
        candidates(summary.coarse, steps, found.for_masks)
        for summary, found in zip(totals.summaries, thresholds, strict=True)
    ]
    return _Plan(ids, number_of, job.category_of[ids], edges, occur - kept)


def _fitting(units: int, concepts: int, taus: int) -> tuple[int, int]:
    """Steps of candidates an octave, and how many concepts, so that there are no more than MOST_COUNTS counts."""

    def counts(steps: int) -> int:
        return 2 * units * (OCTAVES * steps + EVEN + taus)

    steps = next((n for n in range(STEPS, FEWEST_STEPS, -1) if counts(n) * (concepts + 1) <= MOST_COUNTS), FEWEST_STEPS)
    return steps, min(concepts, max(1, MOST_COUNTS // counts(steps) - 1))


def information_of_shard(job: Job) -> Callable[[int, ShardLabels, MapsOf], None]:
    """What counts and commits a shard for this stage from activations that another one holds; nothing where the run is
    without the stage, or has the shard."""
    if STAGE not in job.run.info["stages"]:
        return lambda shard, labels, maps_of: None
    plan, commits = _plan(job), job.commits(STAGE)
    done = commits.done(job.run.plan.count)

    def count(shard: int, labels: ShardLabels, maps_of: MapsOf) -> None:
        if shard not in done:
            commits.commit(shard, _count(job, plan, shard, labels, maps_of))

    return count


@contextmanager
def _ready(job: Job, advance: Advance) -> Iterator[ShardTask]:
    """Count, shard by shard."""
    plan, commits = _plan(job), job.commits(STAGE)

    def task(shard: int) -> None:
        labels = ShardLabels.read(job, shard)
        state = _count(job, plan, shard, labels, lambda layer: stored_activations(job, layer["folder"], shard))
        commits.commit(shard, state)
        advance(1)

    yield task


@contextmanager
def _ready_streamed(job: Job, advance: Advance) -> Iterator[ShardTask]:
    """The same over activations that are computed again."""
    plan, commits = _plan(job), job.commits(STAGE)
    with second_pass(job, job.layers, advance) as maps_of:

        def task(shard: int) -> None:
            labels = ShardLabels.read(job, shard)
            with maps_of(shard) as maps:
                state = _count(job, plan, shard, labels, lambda layer: maps[layer["name"]])
            commits.commit(shard, state)

        yield task


def _count(job: Job, plan: _Plan, shard: int, labels: ShardLabels, maps_of: MapsOf) -> State:
    rows = labels.rows
    planes, whole = plan.number_of[labels.labels[rows]], plan.number_of[labels.image_labels[rows]]
    annotated = labels.annotated[rows]
    halves = halves_of(np.asarray(job.run.plan.samples_of(shard), np.int64)[rows])
    population = Population.empty(len(plan.ids) - 1, len(job.categories))
    population.update(planes, whole, plan.category_of, annotated, halves, convention(job))
    state: State = {"pixels": population.pixels, "concepts": population.concepts}
    samples = CodedSamples.of(planes, whole, plan.category_of, annotated, halves, convention(job))
    for number, (layer, edges) in enumerate(zip(job.layers, plan.edges, strict=True)):
        maps = maps_of(layer)
        found = []
        at_once = max(1, COUNTS_AT_ONCE // (2 * len(plan.ids) * edges.shape[1]))
        for first in range(0, layer["units"], at_once):
            units = slice(first, first + at_once)
            counts = _empty_counts(job, plan, edges[units])
            counts.update(np.ascontiguousarray(maps[rows, units]), edges[units], samples)
            found.append(_packed(counts))
        state |= under(str(number), {name: np.concatenate([one[name] for one in found]) for name in found[0]})
    return state


def _packed(counts: InformationCounts) -> State:
    """Intersections as gaps and counts, as most pairs of unit and concept never meet within a shard; mask pixels."""
    gaps, found = gaps_of(counts.intersection.reshape(-1))
    packed = (("gap", gaps), ("count", found), ("unit_pixels", counts.unit_pixels))
    return {name: narrow(values) for name, values in packed}


def _fold(job: Job, states: Iterator[State]) -> State:
    plan = _plan(job)
    counts, population = _empty(job, plan)
    for state in states:
        _add(counts, population, state)
    whole: State = {"pixels": population.pixels, "concepts": population.concepts}
    for number, found in enumerate(counts):
        whole |= under(str(number), _packed(found))
    return whole


def _unpack(job: Job, plan: _Plan, state: State) -> tuple[list[InformationCounts], Population]:
    """Counts of each layer, and what there is to find."""
    counts, population = _empty(job, plan)
    _add(counts, population, state)
    return counts, population


def _add(counts: list[InformationCounts], population: Population, state: State) -> None:
    population.pixels[...] += state["pixels"].astype(np.int64)
    population.concepts[...] += state["concepts"].astype(np.int64)
    for number, found in enumerate(counts):
        layer = part(state, str(number))
        add_at_gaps(found.intersection.reshape(-1), layer["gap"], layer["count"])
        found.unit_pixels[...] += layer["unit_pixels"].astype(np.int64)


def _empty(job: Job, plan: _Plan) -> tuple[list[InformationCounts], Population]:
    counts = [_empty_counts(job, plan, edges) for edges in plan.edges]
    return counts, Population.empty(len(plan.ids) - 1, len(job.categories))


def _empty_counts(job: Job, plan: _Plan, edges: NDArray[np.float32]) -> InformationCounts:
    """Nothing counted yet, for as many units and candidates as `edges` has: (C, B)."""
    concepts, categories = len(plan.ids) - 1, len(job.categories)
    return InformationCounts.empty(len(edges), concepts, categories, edges.shape[1], convention(job))


INFORMATION = ShardedStage(STAGE, _ready, _fold)
STREAMED_INFORMATION = ShardedStage(
    STAGE,
    _ready_streamed,
    _fold,
    lanes=lambda division: division.lanes,
    unit="images",
    needs_model=True,
    variant=":streamed",
)
