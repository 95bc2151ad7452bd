"""Reading every sample of a dataset once, in threads, in order, with no more than a few in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Entry, ImageDataset, Labels, read_labels
from microtome.datasets.survey.look import Look, look_at
from microtome.storage.errors import SampleError

_BLOCK = 8
_BLOCKS_AHEAD = 3  # a thread


def _none() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Record:
    """What a survey keeps of one sample for a moment.

    reason:   why it cannot be read; "" where it can, and all that follows is known then
    size:     (H, W) of the image; None where only its labels were read
    grid:     (h, w) of its planes; None where nothing is labelled in them
    ids:      (n,) int64, the concepts that it has, ascending
    pixels:   (n,) int64, how many pixels of the grid each has; an image label has all of them, and those of the image
              where there is no grid
    area:     pixels of that grid or image; 0 where there is no label
    labelled: share of the grid that some plane labels
    look:     None where only the labels were read
    """

    index: int
    entry: Entry
    reason: str = ""
    size: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    ids: NDArray[np.int64] = field(default_factory=_none)
    pixels: NDArray[np.int64] = field(default_factory=_none)
    area: int = 0
    labelled: float = 0.0
    look: Look | None = None


def read_all(dataset: ImageDataset, count: int, *, images: bool, workers: int) -> Iterator[list[Record]]:
    """The records of samples 0 ... count - 1 in blocks, in order.

    images: decode the images too; else labels alone are read, where the dataset can. workers: threads.
    """
    blocks = (range(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))

    def read(block: range) -> list[Record]:
        return [read_record(dataset, index, images=images) for index in block]

    pool = ThreadPoolExecutor(workers)
    try:
        ahead: deque[Future[list[Record]]] = deque()
        ahead.extend(pool.submit(read, block) for block in islice(blocks, workers * _BLOCKS_AHEAD))
        while ahead:
            done = ahead.popleft().result()
            ahead.extend(pool.submit(read, block) for block in islice(blocks, 1))
            yield done
    finally:
        pool.shutdown(cancel_futures=True)


def read_record(dataset: ImageDataset, index: int, *, images: bool) -> Record:
    """The record of one sample."""
    entry = dataset.entry(index)
    try:
        return _read(dataset, index, entry, images)
    except SampleError as error:
        return Record(index, entry, reason=error.reason)


def _read(dataset: ImageDataset, index: int, entry: Entry, images: bool) -> Record:
    size, look = None, None
    if images:
        sample = dataset.read(index)
        size, look = _size(sample.image), look_at(sample.image)
        labels = Labels(sample.planes, sample.image_labels)
    else:
        labels = read_labels(dataset, index)
    planes, of_image = labels.planes, np.unique(labels.image_labels[labels.image_labels > 0])
    counts = np.bincount(planes.ravel(), minlength=len(dataset.concepts) + 1)
    counts[0] = 0
    grid = (planes.shape[1], planes.shape[2]) if counts.any() else None
    area = grid[0] * grid[1] if grid else 0
    if len(of_image) and not grid:
        height, width = size or _size(dataset.read(index).image)
        area = height * width
    largest = max(len(counts) - 1, int(of_image.max(initial=0)))
    if largest > len(dataset.concepts):
        raise SampleError(entry.key, f"label {largest}, beyond the {len(dataset.concepts)} concepts of the dataset")
    counts[of_image] = area
    ids = np.flatnonzero(counts)
    labelled = np.count_nonzero(planes.any(axis=0)) / area if grid else 0.0
    return Record(index, entry, "", size, grid, ids, counts[ids], area, labelled, look)


def _size(image: NDArray[np.uint8]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
