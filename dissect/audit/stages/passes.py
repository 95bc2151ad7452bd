"""Shards through decoders and model: what they hold, in memory, for whoever captures or counts.

Several shards are in memory, a bounded number: decoders and model serve the first of them first, and those that are
through are dealt with meanwhile. Batches never cross a shard, so a shard comes out the same whenever it is computed.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.views.segmented import insert_segments
from microtome.dissect.audit.forward import Captured, Forward
from microtome.dissect.audit.images import Item, read_item, submit_each
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.stages.merge import State, pack_texts
from microtome.dissect.audit.stopping import Stopped
from microtome.dissect.audit.summary import LayerSummary
from microtome.dissect.audit.turns import Slots, TurnPool
from microtome.dissect.maths.labels import count_labels
from microtome.storage.arrays import MEANS, PEAK_AT, PEAKS, SEGMENTS, THUMBNAIL_SIDE
from microtome.storage.schema import LayerEntry

IN_MODEL = 2  # batches of a shard handed to the model at once: the next one is queued before the last is collected
AHEAD_BYTES = 2**28  # of decoded images and labels that wait for the model, for each shard at work
MEMORY_SHARE = 0.25  # of the machine's memory, for the shards at work
COPIES = 2  # of a shard's activations: as they are, and compressed in the worst case

V = TypeVar("V", bound=np.generic)
Maps: TypeAlias = dict[str, NDArray[np.float16]]


@contextmanager
def open_passage(job: Job, layers: Sequence[LayerEntry], advance: Callable[[int], object]) -> Iterator[Passage]:
    """Everything that one process needs to compute shards of `layers`, open while the context is.

    advance: called from any thread with the number of images that are done.
    """
    scales = {layer["name"]: layer["scale"] for layer in layers}
    with (
        TurnPool(job.division.workers, "decode") as decoders,
        Forward(job.model, list(scales), job.division, scales, readouts=job.readouts) as forward,
    ):
        yield Passage(job, layers, forward, decoders, advance, Slots(shards_at_once(job)))


@dataclass(frozen=True)
class Passage:
    """From the number of a shard to what it holds. Safe to use from several threads.

    The shard's number is its turn with the decoders and with the model, so that the lanes do not march in step: while
    one deals with its shard, those behind it have decoders and model to themselves.
    """

    job: Job
    layers: Sequence[LayerEntry]
    forward: Forward
    decoders: TurnPool
    advance: Callable[[int], object]
    slots: Slots

    @contextmanager
    def shard(self, shard: int) -> Iterator[tuple[Records, Maps]]:
        """What `shard` holds, as `compute` gives it, and a place for it in memory while the context is open."""
        with self.samples(self.job.run.plan.samples_of(shard), shard) as (records, maps):
            if "segmenter" in self.job.run.info:
                records.insert_segments(self.job, shard)
            yield records, maps

    @contextmanager
    def samples(self, samples: Sequence[int], turn: int) -> Iterator[tuple[Records, Maps]]:
        """The same of any samples, no more of them than a shard has."""
        with self.slots.one(self._unless_stopped):
            yield self.compute(samples, turn)

    def compute(self, samples: Sequence[int], turn: int) -> tuple[Records, Maps]:
        """Records of the samples, and {layer: (n, C, h, w) float16, true value / scale}, NaN where unreadable.

        Raises ScaleOverflow where float16 is too small for a layer at its scale, Stopped once `job.stop` is set.
        """
        records = Records.empty(self.job, len(samples))
        maps = {
            layer["name"]: np.empty((len(samples), layer["units"], *layer["grid"]), np.float16) for layer in self.layers
        }
        in_model: deque[tuple[NDArray[np.int64], Captured]] = deque()
        for rows, items in self._batches(turn, samples):
            records.fill(rows, items)
            fed = [item.fed for item in items if item.ok]
            self.advance(len(items) - len(fed))
            if fed:
                in_model.append((rows[[item.ok for item in items]], self.forward.submit(fed, turn)))
            if len(in_model) == IN_MODEL:
                self._collect(*in_model.popleft(), maps)
        while in_model:
            self._collect(*in_model.popleft(), maps)
        if not records.ok.all():
            for values in maps.values():
                values[~records.ok] = np.nan
        return records, maps

    def _collect(self, rows: NDArray[np.int64], captured: Captured, maps: Maps) -> None:
        whole = len(rows) == rows[-1] + 1 - rows[0]
        target = slice(int(rows[0]), int(rows[-1]) + 1) if whole else rows  # numpy copies into a slice without the GIL
        for name, values in captured.wait().items():
            maps[name][target] = values
        self.advance(len(rows))

    def _batches(self, turn: int, samples: Sequence[int]) -> Iterator[tuple[NDArray[np.int64], list[Item]]]:
        """Batches of decoded samples with their rows in the shard; some batches are decoded ahead."""
        starts = iter(range(0, len(samples), self.job.config.batch))
        ahead = deque(self._decode(turn, samples, start) for start in islice(starts, batches_ahead(self.job)))
        while ahead:
            rows, current = ahead.popleft()
            ahead.extend(self._decode(turn, samples, start) for start in islice(starts, 1))
            self._unless_stopped()
            yield rows, [item for future in current for item in future.result()]

    def _unless_stopped(self) -> None:
        if self.job.stop.is_set():
            raise Stopped

    def _decode(
        self, turn: int, samples: Sequence[int], start: int
    ) -> tuple[NDArray[np.int64], list[Future[list[Item]]]]:
        dataset, preprocess, size = self.job.dataset, self.job.model.preprocess, self.job.label_size
        batch = samples[start : start + self.job.config.batch]
        rows = np.arange(start, start + len(batch))
        return rows, submit_each(
            self.decoders, turn, dataset, batch, lambda index: read_item(dataset, index, preprocess, size)
        )


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


@dataclass(frozen=True)
class Summarised:
    """One layer of a shard: statistics and maps (n, C, h, w) of its readable samples, and what is stored of all."""

    summary: LayerSummary
    readable: NDArray[np.float16]
    arrays: dict[str, NDArray[np.generic]]


def summarise(layer: LayerEntry, records: Records, maps: NDArray[np.float16]) -> Summarised:
    """Statistics, peaks, their positions and means of `maps` (n, C, h, w), as `Passage` gives them."""
    summary = LayerSummary.empty(layer["units"])
    readable = maps if records.ok.all() else maps[records.ok]
    peaks = summary.update(readable)
    arrays: dict[str, NDArray[np.generic]] = {
        PEAKS: records.spread(peaks.peak, np.nan),
        PEAK_AT: records.spread(peaks.peak_at, -1),
        MEANS: records.spread(peaks.mean * np.float32(layer["scale"]), np.nan),
    }
    return Summarised(summary, readable, arrays)


@dataclass
class Records:
    """What a shard learns of its samples: labels (n, P, H, W) and (n, Q), thumbnails (n, 32, 32, 3), which are black
    where one was unreadable, sizes, and why it was."""

    labels: NDArray[np.uint16]
    image_labels: NDArray[np.uint16]
    thumbnails: NDArray[np.uint8]
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
            thumbnails=np.zeros((count, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8),
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
                self.thumbnails[row] = item.thumbnail
                self.height[row], self.width[row] = item.height, item.width

    def insert_segments(self, job: Job, shard: int) -> None:
        """Add the labels that stage segment has stored for `shard`; samples that could not be read stay empty."""
        raw = job.run.arrays.read_shard(SEGMENTS, shard).astype(np.uint16)
        raw[~self.ok] = 0
        insert_segments(job.dataset, self.labels, self.image_labels, raw)

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
