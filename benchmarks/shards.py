"""Whole shards by Microtome's own encoder and decoder against Zarr's, in one thread, as CPU time is counted."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from microtome.storage.arrays import RunArrays, limit_threads
from microtome.storage.places import LocalPlace
from microtome.storage.shard_files import ShardLayout
from microtome.storage.shards import ShardPlan

SHAPES = {"layer1": (64, 56, 56), "layer2": (128, 28, 28), "layer3": (256, 14, 14), "layer4": (512, 7, 7)}
SAMPLES = 32


def run(quick: bool) -> dict[str, Any]:
    """Milliseconds a shard, and how many times as long Zarr takes for the same values."""
    limit_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [_row(name, shape, Path(folder), 3 if quick else 20) for name, shape in SHAPES.items()]
    return {"shards of the size of a ResNet-18's": rows}


def _row(name: str, shape: tuple[int, ...], folder: Path, repeats: int) -> dict[str, object]:
    """Rectified noise, smoothed a little: half of it zeros."""
    arrays = RunArrays(LocalPlace(folder), ShardPlan(SAMPLES, SAMPLES, SAMPLES))
    arrays.create(name, shape, "float16", channels=True)
    values = np.maximum(np.random.default_rng(0).normal(size=(SAMPLES, *shape)), 0).astype(np.float16)
    arrays.write_shard(name, 0, values)
    array = zarr.open_array(str(folder / "arrays.zarr" / name))
    layout = ShardLayout.of(array)
    assert layout is not None
    if layout is None or not np.array_equal(array[...], values):
        raise AssertionError(f"Zarr does not read {name} as it was written")
    content = layout.content(values)

    def by_zarr() -> None:
        array[...] = values

    took = {
        "encode": _least(lambda: layout.content(values), repeats),
        "encode and write, Zarr": _least(by_zarr, repeats),
        "encode and write": _least(lambda: arrays.write_shard(name, 0, values), repeats),
        "decode": _least(lambda: layout.read(content, values.shape), repeats),
        "read, Zarr": _least(lambda: array[...], repeats),
        "read": _least(lambda: arrays.read_shard(name, 0), repeats),
    }
    return {"layer": name, "MB raw": values.nbytes / 1e6} | {f"{what}, ms": found * 1e3 for what, found in took.items()}


def _least(function: Callable[[], object], repeats: int) -> float:
    """Least CPU time of the whole process: Zarr works in threads of its own."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)
