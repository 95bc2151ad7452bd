"""Stage capture: every image through the model; activations, labels and first statistics, shard by shard.

A run that keeps no activations (`guess.py`) counts finely here, while they are in memory, where thresholds are likely
to lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import CountsUnknownIds
from microtome.dissect.audit.forward import ScaleOverflow
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.stages.guess import guess_bins, guessed_bins
from microtome.dissect.audit.stages.merge import ShardedStage, run_stage, under
from microtome.dissect.audit.stages.passes import Maps, Passage, Records, open_passage, summarise
from microtome.dissect.audit.stages.totals import CAPTURE as STAGE
from microtome.dissect.audit.stages.totals import fold_capture, pack_fine
from microtome.dissect.maths.patches import TopPatches
from microtome.dissect.maths.thresholds import FineHistogram
from microtome.storage.arrays import ACTIVATIONS, IMAGE_LABELS, LABELS, PEAK_AT, PEAKS, THUMBNAILS, layer_array
from microtome.storage.commits import StageCommits

SCALE_STEP = 16.0


def run_capture(job: Job) -> None:
    """Capture every shard that is not committed yet; begin again with a larger scale where float16 overflows."""
    while True:
        try:
            if not job.config.keep_activations:
                guess_bins(job)
            run_stage(job, CAPTURE)
            break
        except ScaleOverflow as overflow:
            _enlarge_scale(job, overflow)
    _record_unknown_ids(job)


def _enlarge_scale(job: Job, overflow: ScaleOverflow) -> None:
    """Multiply the scale of the layer by a fixed step, so that the final scale depends on the data alone."""
    job.commits(STAGE).clear()
    job.stop.clear()
    for layer in job.layers:
        if layer["name"] == overflow.layer:
            layer["scale"] *= SCALE_STEP
            say(f"{overflow}, beyond float16: capturing again with scale {layer['scale']:g}")
    job.run.save()


@contextmanager
def capture_worker(job: Job, advance: Callable[[int], object]) -> Iterator[Callable[[int], None]]:
    """Everything that one process needs to capture shards, open while the context is.

    Gives `capture(shard)`, safe to call from several threads, which returns when the shard is committed; it raises
    ScaleOverflow where float16 is too small for a layer at its scale, Stopped once `job.stop` is set.
    advance: called from any thread with the number of images that are done.
    """
    guessed = None if job.config.keep_activations else guessed_bins(job)
    with open_passage(job, job.layers, advance) as passage:
        yield CaptureShard(job, passage, job.commits(STAGE), guessed)


CAPTURE = ShardedStage(
    STAGE, capture_worker, fold_capture, lanes=lambda division: division.lanes, unit="images", needs_model=True
)


def _record_unknown_ids(job: Job) -> None:
    """Note in run.json which mask ids the dataset does not list (as far as this process has read), and say so."""
    dataset = job.dataset
    if not isinstance(dataset, CountsUnknownIds):
        return
    for plane, counts in dataset.unknown_ids().items():
        known = job.run.info["data"]["unknown_ids"].setdefault(plane, {})
        for number, images in counts.items():
            known[str(number)] = max(known.get(str(number), 0), images)
        if counts:
            ids = ", ".join(f"{number} ({images} images)" for number, images in sorted(counts.items())[:8])
            say(f"{plane}: ids that nothing lists are taken as unlabelled: {ids}")
    job.run.save()


@dataclass(frozen=True)
class CaptureShard:
    """The task of one shard: decode, run the model, summarise, write and commit.

    guessed: for each layer the coarse bins to count finely, in a run that keeps no activations; else None.
    """

    job: Job
    passage: Passage
    commits: StageCommits
    guessed: list[NDArray[np.int16]] | None

    def __call__(self, shard: int) -> None:
        """Capture `shard`; returns when it is committed."""
        with self.passage.shard(shard) as (records, maps):
            self._commit(shard, records, maps)

    def _commit(self, shard: int, records: Records, maps: Maps) -> None:
        arrays = self.job.run.arrays
        state = records.state(self.job, self.job.run.plan.samples_of(shard))
        files = arrays.write_shard(LABELS, shard, records.labels)
        files += arrays.write_shard(IMAGE_LABELS, shard, records.image_labels)
        if self.job.run.keeps(THUMBNAILS):
            files += arrays.write_shard(THUMBNAILS, shard, records.thumbnails)
        for number, layer in enumerate(self.job.layers):
            values = maps.pop(layer["name"])
            found = summarise(layer, records, values)
            top = TopPatches.empty(layer["units"], self.job.config.top)
            peak, peak_at = found.arrays[PEAKS].astype(np.float16), found.arrays[PEAK_AT].astype(np.int32)
            top.update(peak, peak_at, self.job.run.plan.samples_of(shard).start)
            state |= under(f"{number}/summary", found.summary.to_arrays()) | under(f"{number}/patches", top.to_arrays())
            written = found.arrays
            if self.guessed is None:
                written = {ACTIVATIONS: values, **written}
            else:
                fine = FineHistogram.empty(self.guessed[number])
                fine.update(found.readable)
                state |= under(f"{number}/fine", pack_fine(fine))
            for name, array in written.items():
                files += arrays.write_shard(layer_array(layer["folder"], name), shard, array)
        self.commits.commit(shard, state, files)
