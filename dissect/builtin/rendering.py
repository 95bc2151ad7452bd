"""Scenes painted once into a file, so that training reads them many times."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.scenes import ScenesDataset

PIXELS = 128
_BLOCK = 500


def render(seed: int, count: int, folder: Path, workers: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (count, 128, 128, 3) uint8, memory-mapped, and classes (count,) int64 of `scenes` with this seed.

    The file is kept in `folder` under a name that holds the dataset's fingerprint, and used again.
    """
    dataset = ScenesDataset(count, PIXELS, seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scenes-{dataset.fingerprint()}.npy"
    if not path.exists():
        unfinished = path.with_suffix(".partial")
        shape = (count, PIXELS, PIXELS, 3)
        np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape).flush()
        starts = range(0, count, _BLOCK)
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(partial(_render_block, unfinished, dataset), starts))
        unfinished.replace(path)
    classes = np.array([dataset.entry(index).label for index in range(count)], np.int64)
    return np.load(path, mmap_mode="r"), classes


def _render_block(path: Path, dataset: ScenesDataset, start: int) -> None:
    images = np.load(path, mmap_mode="r+")
    for index in range(start, min(start + _BLOCK, len(dataset))):
        images[index] = dataset.read(index).image
    images.flush()
