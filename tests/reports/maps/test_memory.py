"""What is held while the files are written grows neither with the number of units nor with the size of thumbnails."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from microtome.reports.maps.columns import UnitFiles, write_units
from microtome.reports.maps.files import MapFiles
from microtome.reports.maps.points import Points
from microtome.reports.maps.sprites import write_sprites
from microtome.storage.schema import LayerEntry
from microtome.storage.shards import ShardPlan

SAMPLES = 8192
PLAN = ShardPlan(SAMPLES, 256, 32)
POINTS = Points.of(np.random.default_rng(0).permutation(SAMPLES).astype(np.int64), SAMPLES)


class Arrays:
    """Arrays that are made up when they are read."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype

    def exists(self, name: str) -> bool:
        return True

    def read_shard(self, name: str, shard: int) -> NDArray[Any]:
        values = np.zeros((len(PLAN.samples_of(shard)), *self.shape), self.dtype)
        values[shard % len(values)] = 7
        return values


def run_with(*shape: int, dtype: str) -> Any:
    return SimpleNamespace(plan=PLAN, arrays=Arrays(shape, dtype))


def most_held(work: Callable[[], object]) -> int:
    """Bytes that Python and NumPy held at most while `work` ran."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def held_by_units(units: int, top: int | None, root: Path) -> int:
    entry = LayerEntry(name="a", folder="a", kind="x", units=units, grid=[1, 1], scale=1.0, receptive_field={})
    run = run_with(units, dtype="float16")
    names = [""] * units
    with MapFiles(root, 1) as files:
        return most_held(lambda: write_units(run, entry, POINTS, names, files, UnitFiles(units, top)))


@pytest.mark.parametrize("top", [None, 10])
def test_units_come_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: int | None) -> None:
    monkeypatch.setattr("microtome.reports.maps.points.BLOCK_BYTES", 1 << 20)
    few, many = held_by_units(64, top, tmp_path), held_by_units(512, top, tmp_path)
    assert many < few + (2 << 20)  # all peaks of 512 units take 8 MiB
    assert len(list((tmp_path / "map" / "a" / "units").iterdir())) == 512


def test_thumbnails_do_not_wait_in_memory(tmp_path: Path) -> None:
    run = run_with(32, 32, 3, dtype="uint8")
    with MapFiles(tmp_path, 1) as files:
        held = most_held(lambda: write_sprites(run, POINTS, files, tmp_path))
    assert held < 18 << 20  # all of them take 24 MiB; a sheet takes 3, and two wait for the thread that encodes
    assert len(list((tmp_path / "map" / "sprites").iterdir())) == SAMPLES // 1024
