"""The points of the map page: which samples they are, in which order, and what the run's tables say of them.

A point is a sample that every map of the run has a place for. Points are numbered in the order of the files, along a
Morton curve over the t-SNE of the last layer, so that neighbours lie together there too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.reports.maps.encode import page_order
from microtome.reports.source import ReportRun
from microtome.storage.errors import RunDamagedError
from microtome.storage.schema import LayerEntry, MapInfo

MOST_POINTS = 2_000_000
"""Points that a page shows at most; of more samples so many are drawn by lot."""
SEED = 0

VIEWS = {"tsne": ("x", "y"), "pca": ("pca_x", "pca_y"), "umap": ("umap_x", "umap_y")}
"""The views of a layer and their columns in map.parquet; the first one, the map itself, is always there."""

BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class LayerMap:
    """The map of one layer. number: of the layer in the run; clusters, disagreements: the run's tables, empty where it
    has none."""

    number: int
    entry: LayerEntry
    info: MapInfo
    clusters: pd.DataFrame
    disagreements: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Points:
    """samples: (n,) int64, the sample of each point in page order; place: (N,) int64, its point or -1."""

    samples: NDArray[np.int64]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, samples: NDArray[np.int64], total: int) -> Points:
        """Of `samples` in page order, out of `total`."""
        place = np.full(total, -1, np.int64)
        place[samples] = np.arange(len(samples))
        return cls(samples, place)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the n points lie in one layer, in page order. views: (n, 2) float32 positions, by name; cluster: (n,)
    int32, -1 = none."""

    views: dict[str, NDArray[np.float32]]
    cluster: NDArray[np.int32]


def read_maps(run: ReportRun, most: int = MOST_POINTS) -> tuple[Points, list[LayerMap]] | None:
    """The points of a run and the maps of its layers, in the network's order; None where it has no map to show."""
    made = run.info.get("map", {})
    entries = [(number, entry) for number, entry in enumerate(run.info["layers"]) if entry["name"] in made]
    shown = np.full(run.plan.samples, bool(entries))
    last = np.zeros((0, 2), np.float32)
    for _, entry in entries:
        last = _positions(_read_table(run, entry["name"]), "tsne")
        shown &= np.isfinite(last).all(axis=1)
    chosen = np.flatnonzero(shown)
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(SEED).choice(chosen, most, replace=False))
    if not len(chosen):
        return None
    maps = [
        LayerMap(
            number=number,
            entry=entry,
            info=made[entry["name"]],
            clusters=_table_or_none(run, entry["name"], "clusters"),
            disagreements=_table_or_none(run, entry["name"], "disagreements"),
        )
        for number, entry in entries
    ]
    return Points.of(chosen[page_order(last[chosen])], run.plan.samples), maps


def read_places(run: ReportRun, layer: str, points: Points) -> Places:
    """Where `points` lie in a layer. Views without a place for every point are left out."""
    table = _read_table(run, layer).iloc[points.samples]
    views = {name: _positions(table, name) for name, columns in VIEWS.items() if set(columns) <= set(table.columns)}
    cluster = table["cluster"].to_numpy(np.int32) if "cluster" in table else np.full(len(table), -1, np.int32)
    return Places({name: at for name, at in views.items() if np.isfinite(at).all()}, cluster)


def _read_table(run: ReportRun, layer: str) -> pd.DataFrame:
    """map.parquet of a layer, row i of which is sample i. Raises RunDamagedError where a sample is missing."""
    table = run.layer_table(layer, "map").sort_values("sample", kind="stable", ignore_index=True)
    if not np.array_equal(table["sample"].to_numpy(np.int64), np.arange(run.plan.samples)):
        raise RunDamagedError(
            f"map.parquet of layer {layer} does not have one row for each of the run's {run.plan.samples:,} samples; "
            "make the map again with: microtome map RUN"
        )
    return table


def _positions(table: pd.DataFrame, view: str) -> NDArray[np.float32]:
    return table[list(VIEWS[view])].to_numpy(np.float32)


def _table_or_none(run: ReportRun, layer: str, name: str) -> pd.DataFrame:
    return run.layer_table(layer, name) if run.has_layer_table(layer, name) else pd.DataFrame()


@dataclass(frozen=True, slots=True)
class Classes:
    """of_point: (n,) int64, each point's class by its number in `names`, -1 = none; no names where none has one."""

    names: list[str]
    of_point: NDArray[np.int64]

    @classmethod
    def of(cls, labels: pd.Series[Any], names: Sequence[str]) -> Classes:
        """labels: the class number of each point, or NA; names: of the classes, which may be fewer than the numbers."""
        numbers: NDArray[np.int64] = np.maximum(labels.astype("Int64").fillna(-1).to_numpy(np.int64), -1)
        count = int(numbers.max(initial=-1)) + 1
        if not count:
            return cls([], numbers)
        more = [f"class {number}" for number in range(len(names), count)]
        return cls([*map(str, names), *more], numbers)

    def shown(self, part: slice) -> list[str]:
        """The classes of some points by name, "" for none."""
        return [self.names[number] if number >= 0 else "" for number in self.of_point[part].tolist()]


def shards_of(run: ReportRun, array: str) -> Iterator[tuple[range, NDArray[Any]]]:
    """(samples, values) of every shard of `array`, in order; the next one is read while one is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="shards") as pool:
        waiting = pool.submit(run.arrays.read_shard, array, 0)
        for shard in range(run.plan.count):
            values = waiting.result()
            if shard + 1 < run.plan.count:
                waiting = pool.submit(run.arrays.read_shard, array, shard + 1)
            yield run.plan.samples_of(shard), values


def columns_of(
    run: ReportRun, array: str, columns: int, points: Points, most_bytes: int | None = None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """`array` (N, columns) turned over, in page order: (first column, block (columns of it, n points)), of about
    `most_bytes`.

    Each block reads every shard, one at a time: what is held at once does not grow with the number of columns. A block
    is overwritten by the next one. most_bytes: None = BLOCK_BYTES.
    """
    most_bytes = most_bytes or BLOCK_BYTES
    step = columns
    block: NDArray[Any] | None = None
    start = 0
    while start < columns:
        for rows, values in shards_of(run, array):
            if block is None:
                step = min(columns, max(1, most_bytes // (len(points.samples) * values.itemsize)))
                block = np.empty((step, len(points.samples)), values.dtype)
            at = points.place[rows.start : rows.stop]
            part = values[at >= 0, start : start + step]
            block[: part.shape[1], at[at >= 0]] = part.T
        if block is None:
            return
        width = min(step, columns - start)
        yield start, block[:width]
        start += width
