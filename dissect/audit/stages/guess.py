"""Before a capture that keeps no activations: where will the thresholds lie?

Some images, spread over the whole of the data, go through the model first. The coarse bins around their quantiles are
committed under "guess", and every shard of the capture counts finely in just these; where the exact answer turns out to
lie elsewhere, `stream.py` sees to it. The guess decides how much is read twice, never what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import progress
from microtome.dissect.audit.schedule import Advance, ShardedWork, ShardTask
from microtome.dissect.audit.stages.merge import State
from microtome.dissect.audit.stages.passes import open_passage
from microtome.dissect.maths.guesses import guess_fine
from microtome.dissect.maths.thresholds import CoarseHistogram
from microtome.storage.errors import RunDamagedError

STAGE = "guess"

FEWEST, MOST = 128, 1024
SHARE = 16
"""One image in so many is looked at, within these bounds."""


def guess_bins(job: Job) -> None:
    """Commit the guess, unless one is there that can be read."""
    if job.commits(STAGE).is_done(0):
        try:
            guessed_bins(job)
            return
        except RunDamagedError:
            job.commits(STAGE).clear()
    with progress(STAGE, len(sampled(job.samples)), "images") as shown:
        job.executor.run(job, GUESS, [0], shown.advance, lambda done: None)


def guessed_bins(job: Job) -> list[NDArray[np.int16]]:
    """(C, B) int16 of each layer: the coarse bins to count finely, -1 for none."""
    state = job.commits(STAGE).state(0)
    return [state[str(number)].astype(np.int16) for number in range(len(job.layers))]


def sampled(samples: int) -> list[int]:
    """The samples that are looked at: spread evenly, at no regular distance (Knuth's multiplicative hashing)."""
    count = min(samples, max(FEWEST, min(samples // SHARE, MOST)))
    if count == samples:
        return list(range(samples))
    return sorted({(number * 2654435769 % 2**32) * samples >> 32 for number in range(count)})


@contextmanager
def _ready(job: Job, advance: Advance) -> Iterator[ShardTask]:
    """The task of the only "shard", 0, which takes its images in parts of a shard's size, several at once."""
    with open_passage(job, job.layers, advance) as passage:

        def count(samples: list[int], turn: int) -> list[CoarseHistogram]:
            with passage.samples(samples, turn) as (records, maps):
                coarse = [CoarseHistogram.empty(layer["units"]) for layer in job.layers]
                for histogram, layer in zip(coarse, job.layers, strict=True):
                    histogram.update(maps[layer["name"]][records.ok])
                return coarse

        def task(shard: int) -> None:
            chosen, step = sampled(job.samples), job.run.plan.shard
            parts = [chosen[start : start + step] for start in range(0, len(chosen), step)]
            whole = [CoarseHistogram.empty(layer["units"]) for layer in job.layers]
            with ThreadPoolExecutor(job.division.lanes, thread_name_prefix=STAGE) as pool:
                for coarse in pool.map(count, parts, range(len(parts))):
                    for histogram, other in zip(whole, coarse, strict=True):
                        histogram.merge(other)
            state: State = {str(number): guess_fine(histogram, job.taus) for number, histogram in enumerate(whole)}
            job.commits(STAGE).commit(shard, state)

        yield task


GUESS = ShardedWork(
    STAGE,
    _ready,
    lanes=lambda division: 1,
    amount=lambda job, shard: len(sampled(job.samples)),
    needs_model=True,
)
