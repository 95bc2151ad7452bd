"""Stage thresholds: exact quantiles, by the second pass of the radix selection over the stored activations.

A run that keeps no activations has counted during its capture where the answers were guessed to lie (`guess.py`). What
the guess missed is counted in one more pass through the model, over the layers concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from microtome.dissect.audit.stages.stream import second_pass
from microtome.dissect.audit.stages.totals import (
    CaptureTotals,
    capture_totals,
    dropped_concepts,
    pack_fine,
    unpack_fine,
)
from microtome.dissect.audit.summary import LayerSummary
from microtome.dissect.maths.guesses import add_missed, take_guessed
from microtome.dissect.maths.thresholds import NO_PREFIX, FineHistogram, Thresholds, exact_thresholds, plan_fine
from microtome.storage.arrays import ACTIVATIONS, layer_array
from microtome.storage.schema import LayerEntry

STAGE = "thresholds"
NAMED = 8


def run_thresholds(job: Job) -> None:
    """Merge the capture's summaries, count finely where each answer lies, and write the samples and thresholds.

    What follows from the capture alone is written meanwhile: where others count, this process has nothing else to do.
    """
    totals = capture_totals(job)
    with ThreadPoolExecutor(1, thread_name_prefix="tables") as writer:
        written = writer.submit(_write_what_is_known, job, totals)
        run_stage(job, _stage(job))
        written.result()
    for number, found in enumerate(merged_thresholds(job)):
        _write(job, number, totals.summaries[number], found)


def _stage(job: Job) -> ShardedStage:
    """How to count: from what is stored, or where that lacks something and nothing is kept, by the model."""
    if job.config.keep_activations:
        return THRESHOLDS
    missed = {layer["name"]: wanted for layer, wanted in zip(job.layers, _wanted(job), strict=True) if _any(wanted)}
    if not missed:
        return THRESHOLDS
    units = ", ".join(f"{name} ({np.count_nonzero(_unit_wants(wanted))} units)" for name, wanted in missed.items())
    say(f"some thresholds lie elsewhere than guessed, one more pass through the model for {units}")
    return STREAMED_THRESHOLDS


@contextmanager
def _ready(job: Job, advance: Advance) -> Iterator[ShardTask]:
    """Count finely, shard by shard, where the answers lie."""
    wanted = _wanted(job)

    def work(shard: int) -> State:
        return _count(job, wanted, lambda layer: stored_activations(job, layer["folder"], shard))

    with committing(job, STAGE, work, advance) as task:
        yield task


@contextmanager
def _ready_streamed(job: Job, advance: Advance) -> Iterator[ShardTask]:
    """The same over activations that are computed again, of the layers where an answer was missed."""
    wanted, commits = _wanted(job), job.commits(STAGE)
    layers = [layer for layer, prefixes in zip(job.layers, wanted, strict=True) if _any(prefixes)]
    with second_pass(job, layers, advance) as maps_of:

        def task(shard: int) -> None:
            with maps_of(shard) as maps:
                state = _count(job, wanted, lambda layer: maps[layer["name"]])
            commits.commit(shard, state)

        yield task


def _count(job: Job, wanted: list[NDArray[np.int16]], maps_of: Callable[[LayerEntry], NDArray[np.float16]]) -> State:
    state: State = {}
    for number, layer in enumerate(job.layers):
        fine = FineHistogram.empty(wanted[number])
        if _any(wanted[number]):
            fine.update(maps_of(layer))
        state |= under(str(number), pack_fine(fine))
    return state


def _fold(job: Job, states: Iterator[State]) -> State:
    whole: State = {}
    fine = {str(number): FineHistogram.empty(wanted) for number, wanted in enumerate(_wanted(job))}
    for state in states:
        for number, histogram in fine.items():
            histogram.merge(unpack_fine(part(state, number)))
    for number, histogram in fine.items():
        whole |= under(number, pack_fine(histogram))
    return whole


def _planned(job: Job) -> list[NDArray[np.int16]]:
    """(C, T) of each layer: the coarse bins that hold the answers."""
    return [plan_fine(summary.coarse, job.taus) for summary in capture_totals(job).summaries]


def _wanted(job: Job) -> list[NDArray[np.int16]]:
    """Those of them that this stage has to count: all, or those that the capture has not counted."""
    planned = _planned(job)
    if job.config.keep_activations:
        return planned
    pairs = zip(capture_totals(job).guessed, planned, strict=True)
    return [take_guessed(guessed, prefixes)[1] for guessed, prefixes in pairs]


def _unit_wants(wanted: NDArray[np.int16]) -> NDArray[np.bool_]:
    return np.asarray((wanted != NO_PREFIX).any(axis=1), dtype=np.bool_)


def _any(wanted: NDArray[np.int16]) -> bool:
    return bool(_unit_wants(wanted).any())


THRESHOLDS = ShardedStage(STAGE, _ready, _fold)
STREAMED_THRESHOLDS = ShardedStage(
    STAGE,
    _ready_streamed,
    _fold,
    lanes=lambda division: division.lanes,
    unit="images",
    needs_model=True,
    variant=":streamed",
)


def stored_activations(job: Job, folder: str, shard: int) -> NDArray[np.float16]:
    """One shard of a layer's activations as they are stored (true value / scale): (n, C, h, w) float16."""
    return np.ascontiguousarray(job.run.arrays.read_shard(layer_array(folder, ACTIVATIONS), shard), np.float16)


def merged_thresholds(job: Job) -> list[Thresholds]:
    """Every layer's exact thresholds, in stored units (true value / scale)."""
    return job.once("thresholds", lambda: _merge(job))


def _merge(job: Job) -> list[Thresholds]:
    totals, whole = capture_totals(job), whole_state(job, STAGE)
    found = []
    for number, (summary, planned) in enumerate(zip(totals.summaries, _planned(job), strict=True)):
        fine = unpack_fine(part(whole, str(number)))
        if not job.config.keep_activations:
            missed, (fine, _) = fine, take_guessed(totals.guessed[number], planned)
            add_missed(fine, missed)
        found.append(exact_thresholds(summary.coarse, fine, job.taus))
    return found


def _write_what_is_known(job: Job, totals: CaptureTotals) -> None:
    """samples.parquet, concepts.parquet and every layer's histogram.parquet."""
    _finish_samples(job, totals)
    for layer, summary in zip(job.layers, totals.summaries, strict=True):
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


def _finish_samples(job: Job, totals: CaptureTotals) -> None:
    """Complete samples.parquet and concepts.parquet with what capture learnt."""
    samples = job.run.table("samples")[["index", "key", "split", "label"]]
    samples["height"], samples["width"] = totals.height, totals.width
    samples["status"] = np.where(totals.error == "", "ok", "error")
    samples["error"] = pd.Series(totals.error, dtype="str")
    job.run.write_table("samples", samples)
    concepts, dropped = job.dataset.concepts, dropped_concepts(job)[1:]
    if dropped.any():
        names = [concept.name for concept, gone in zip(concepts, dropped, strict=True) if gone]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        few = f"{len(names)} concepts in fewer than {job.config.min_images} images are dropped"
        say(f"{few}: {', '.join(names[:NAMED])}{more}")
    if concepts and not ((totals.concept_images.sum(axis=0)[1:] > 0) & ~dropped).any():
        say("note: no concept is left to compare units with; microtome data shows what the dataset holds")
    job.run.write_table(
        "concepts",
        pd.DataFrame(
            {
                "id": pd.Series([concept.id for concept in concepts], dtype="int64"),
                "name": pd.Series([concept.name for concept in concepts], dtype="str"),
                "category": pd.Series([concept.category for concept in concepts], dtype="str"),
                "images": totals.concept_images.sum(axis=0)[1:],
                "pixels": totals.concept_pixels.sum(axis=0)[1:],
                "dropped": dropped,
            }
        ),
    )
    job.run.info["data"]["unreadable"] = int((totals.error != "").sum())
    job.run.save()


def _write(job: Job, number: int, summary: LayerSummary, found: Thresholds) -> None:
    """thresholds.parquet of one layer, in true values."""
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
