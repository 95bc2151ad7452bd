"""Stage capture: every image through the model once; activations, labels and first statistics, shard by shard.

Several shards are in memory, a bounded number: decoders and model serve the first of them first, and those that are
through are summarised, compressed and written meanwhile. Batches never cross a shard.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.folder import FolderDataset
from microtome.dissect.audit.forward import Captured, Forward, ScaleOverflow
from microtome.dissect.audit.images import Item, read_item
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.schedule import Stopped
from microtome.dissect.audit.stages.merge import ShardedStage, State, pack_texts, run_stage, under
from microtome.dissect.audit.stages.totals import CAPTURE as STAGE
from microtome.dissect.audit.stages.totals import fold_capture
from microtome.dissect.audit.summary import LayerSummary
from microtome.dissect.audit.turns import Slots, TurnPool
from microtome.dissect.maths.labels import count_labels
from microtome.dissect.maths.patches import TopPatches
from microtome.storage.arrays import ACTIVATIONS, IMAGE_LABELS, LABELS, MEANS, PEAK_AT, PEAKS, layer_array
from microtome.storage.commits import StageCommits

SCALE_STEP = 16.0
IN_MODEL = 2  # batches of a shard handed to the model at once: the next one is queued before the last is collected
AHEAD_BYTES = 2**28  # of decoded images and labels that wait for the model, for each shard at work
MEMORY_SHARE = 0.25  # of the machine's memory, for the shards at work
COPIES = 2  # of a shard's activations: as they are, and compressed in the worst case

V = TypeVar("V", bound=np.generic)
Maps: TypeAlias = dict[str, NDArray[np.float16]]


def run_capture(job: Job) -> None:
    """Capture every shard that is not committed yet; begin again with a larger scale where float16 overflows."""
    while True:
        try:
            run_stage(job, CAPTURE)
            break
        except ScaleOverflow as overflow:
            _enlarge_scale(job, overflow)
    _record_unknown_ids(job)


def _enlarge_scale(job: Job, overflow: ScaleOverflow) -> None:
    """Multiply the scale of the layer by a fixed step, so that the final scale depends on the data alone."""
    job.commits(STAGE).clear()
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
    scales = {layer["name"]: layer["scale"] for layer in job.layers}
    with (
        TurnPool(job.division.workers, "decode") as decoders,
        Forward(job.model, list(scales), job.division, scales) as forward,
    ):
        yield CaptureShard(job, forward, decoders, job.commits(STAGE), advance, Slots(shards_at_once(job)))


def shards_at_once(job: Job) -> int:
    """How many shards may be in memory: the lanes of the division, fewer where a share of the memory is too small
    for them, but two, so that one is written while another is computed."""
    each = COPIES * job.run.plan.shard * sum(2 * layer["units"] * math.prod(layer["grid"]) for layer in job.layers)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(2, min(job.division.lanes, int(MEMORY_SHARE * memory) // each))


def batches_ahead(job: Job) -> int:
    """How many batches of a shard are decoded before they are due: no decoder ever waits, within `AHEAD_BYTES`."""
    height, width = job.model.preprocess.size
    image = 3 * height * width + 2 * math.prod(job.label_size) * len(job.dataset.plane_names)
    wanted = 1 + math.ceil(job.division.workers / job.config.batch)
    return max(1, min(wanted, AHEAD_BYTES // (image * job.config.batch)))


CAPTURE = ShardedStage(
    STAGE, capture_worker, fold_capture, lanes=lambda division: division.lanes, unit="images", needs_model=True
)


def _record_unknown_ids(job: Job) -> None:
    """Note in run.json which mask ids the dataset does not list (as far as this process has read), and say so."""
    if not isinstance(job.dataset, FolderDataset):
        return
    for plane, counts in job.dataset.unknown_ids().items():
        known = job.run.info["data"]["unknown_ids"].setdefault(plane, {})
        for number, images in counts.items():
            known[str(number)] = max(known.get(str(number), 0), images)
        if counts:
            ids = ", ".join(f"{number} ({images} images)" for number, images in sorted(counts.items())[:8])
            say(f"{plane}: ids that classes.csv does not list are taken as unlabelled: {ids}")
    job.run.save()


@dataclass(frozen=True)
class CaptureShard:
    """The task of one shard: decode, run the model, summarise, write and commit.

    The shard's number is its turn with the decoders and with the model, so that the lanes do not march in step: while
    one writes its shard, those behind it have decoders and model to themselves. `slots` bounds the shards in memory,
    however slow the writing.
    """

    job: Job
    forward: Forward
    decoders: TurnPool
    commits: StageCommits
    advance: Callable[[int], object]
    slots: Slots

    def __call__(self, shard: int) -> None:
        """Capture `shard`; returns when it is committed."""
        with self.slots.one(self._unless_stopped):
            self._commit(shard, *self.compute(shard))

    def compute(self, shard: int) -> tuple[Records, Maps]:
        """What the shard holds: records of its samples, and {layer: (n, C, h, w) float16}, NaN where unreadable."""
        samples = self.job.run.plan.samples_of(shard)
        records = Records.empty(self.job, len(samples))
        maps = {
            layer["name"]: np.full((len(samples), layer["units"], *layer["grid"]), np.nan, np.float16)
            for layer in self.job.layers
        }
        in_model: deque[tuple[NDArray[np.int64], Captured]] = deque()
        for rows, items in self._batches(shard, samples):
            records.fill(rows, items)
            images = [item.image for item in items if item.ok]
            self.advance(len(items) - len(images))
            if images:
                in_model.append((rows[[item.ok for item in items]], self.forward.submit(images, shard)))
            if len(in_model) == IN_MODEL:
                self._collect(*in_model.popleft(), maps)
        while in_model:
            self._collect(*in_model.popleft(), maps)
        return records, maps

    def _collect(self, rows: NDArray[np.int64], captured: Captured, maps: Maps) -> None:
        for name, values in captured.wait().items():
            maps[name][rows] = values
        self.advance(len(rows))

    def _batches(self, shard: int, samples: range) -> Iterator[tuple[NDArray[np.int64], list[Item]]]:
        """Batches of decoded samples with their rows in the shard; some batches are decoded ahead."""
        starts = iter(range(0, len(samples), self.job.config.batch))
        ahead = deque(self._decode(shard, samples, start) for start in islice(starts, batches_ahead(self.job)))
        while ahead:
            rows, current = ahead.popleft()
            ahead.extend(self._decode(shard, samples, start) for start in islice(starts, 1))
            self._unless_stopped()
            yield rows, [future.result() for future in current]

    def _unless_stopped(self) -> None:
        if self.job.stop.is_set():
            raise Stopped

    def _decode(self, shard: int, samples: range, start: int) -> tuple[NDArray[np.int64], list[Future[Item]]]:
        dataset, preprocess, size = self.job.dataset, self.job.model.preprocess, self.job.label_size
        batch = samples[start : start + self.job.config.batch]
        rows = np.arange(start, start + len(batch))
        reading = [partial(read_item, dataset, index, preprocess, size) for index in batch]
        return rows, [self.decoders.submit(shard, read) for read in reading]

    def _commit(self, shard: int, records: Records, maps: Maps) -> None:
        arrays = self.job.run.arrays
        state = records.state(self.job, self.job.run.plan.samples_of(shard))
        files = arrays.write_shard(LABELS, shard, records.labels)
        files += arrays.write_shard(IMAGE_LABELS, shard, records.image_labels)
        for number, layer in enumerate(self.job.layers):
            values = maps.pop(layer["name"])
            summary = LayerSummary.empty(layer["units"])
            readable = values if records.ok.all() else values[records.ok]
            peaks = summary.update(readable)
            peak, peak_at = records.spread(peaks.peak, np.nan), records.spread(peaks.peak_at, -1)
            top = TopPatches.empty(layer["units"], self.job.config.top)
            top.update(peak, peak_at, self.job.run.plan.samples_of(shard).start)
            state |= under(f"{number}/summary", summary.to_arrays()) | under(f"{number}/patches", top.to_arrays())
            written: dict[str, NDArray[np.generic]] = {
                ACTIVATIONS: values,
                PEAKS: peak,
                PEAK_AT: peak_at,
                MEANS: records.spread(peaks.mean * np.float32(layer["scale"]), np.nan),
            }
            for name, array in written.items():
                files += arrays.write_shard(layer_array(layer["folder"], name), shard, array)
        self.commits.commit(shard, state, files)


@dataclass
class Records:
    """What a shard learns of its samples: labels (n, P, H, W) and (n, Q), sizes, and why one was unreadable."""

    labels: NDArray[np.uint16]
    image_labels: NDArray[np.uint16]
    height: NDArray[np.int64]
    width: NDArray[np.int64]
    error: list[str]

    @classmethod
    def empty(cls, job: Job, count: int) -> Records:
        """Room for `count` samples."""
        planes, slots = len(job.dataset.plane_names), job.dataset.image_label_slots
        return cls(
            labels=np.zeros((count, planes, *job.label_size), np.uint16),
            image_labels=np.zeros((count, slots), np.uint16),
            height=np.zeros(count, np.int64),
            width=np.zeros(count, np.int64),
            error=[""] * count,
        )

    @property
    def ok(self) -> NDArray[np.bool_]:
        """(n,) which samples were read."""
        return np.array([not error for error in self.error], dtype=np.bool_)

    def fill(self, rows: NDArray[np.int64], items: list[Item]) -> None:
        """Take over what was decoded."""
        for row, item in zip(rows.tolist(), items, strict=True):
            self.error[row] = item.error
            if item.ok:
                self.labels[row] = item.planes
                self.image_labels[row] = item.image_labels
                self.height[row], self.width[row] = item.height, item.width

    def spread(self, values: NDArray[V], missing: float) -> NDArray[V]:
        """Rows of the readable samples put back among all of the shard; `missing` stands for the others."""
        ok = self.ok
        spread = np.full((len(ok), *values.shape[1:]), missing, dtype=values.dtype)
        spread[ok] = values
        return spread

    def state(self, job: Job, samples: range) -> State:
        """The mergeable state: sizes, errors, and label counts of each split."""
        splits = job.split_of[samples.start : samples.stop]
        concepts, categories = len(job.dataset.concepts), len(job.categories)
        pixels = np.zeros((len(job.splits), concepts + 1), np.int64)
        images = np.zeros_like(pixels)
        annotated = np.zeros((len(samples), categories), np.bool_)
        for split in range(len(job.splits)):
            chosen = np.flatnonzero(self.ok & (splits == split))
            if chosen.size == 0:
                continue
            counts = count_labels(self.labels[chosen], self.image_labels[chosen], concepts, job.category_of, categories)
            pixels[split], images[split] = counts.pixels, counts.images
            annotated[chosen] = counts.annotated
        return {
            "height": self.height,
            "width": self.width,
            "error": pack_texts(self.error),
            "annotated": annotated,
            "concept_pixels": pixels,
            "concept_images": images,
        }
