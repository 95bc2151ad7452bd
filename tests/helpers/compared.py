"""Pairs of made-up runs that share their samples: the second is the first with its units in another order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from helpers.runs import LayerShape, write_run
from numpy.typing import NDArray

from microtome.storage.arrays import ACTIVATIONS, MEANS, PEAKS, THUMBNAILS, layer_array
from microtome.storage.run import Run

SHAPES = {"layer1": LayerShape(24, 7, 60), "layer4.0:conv/2": LayerShape(40, 4, 400)}
SAMPLES = 100
ORDERS = {name: np.random.default_rng(5).permutation(shape.units) for name, shape in SHAPES.items()}
"""Unit `i` of the second run is unit ORDERS[layer][i] of the first."""


def write_compared(
    path: Path, *, permuted: bool = False, order: Sequence[int] | None = None, layers: dict[str, LayerShape] = SHAPES
) -> Run:
    """A finished run with means, peaks and thumbnails. permuted: units in the order of ORDERS, scaled and shifted;
    order: the samples of the run, as numbers of the samples that a run without it has."""
    run = write_run(path, samples=SAMPLES, layers=layers, unreadable=0 if order is not None else 2)
    for name in layers:
        run.write_layer_table(name, "units", run.layer_table(name, "units").assign(infinite=0))
        if permuted:
            _permute_tables(run, name, ORDERS[name])
        _write_answers(run, name, ORDERS[name] if permuted else None, order)
    run.info["more_arrays"] = [THUMBNAILS]
    run.save()
    pictures = np.random.default_rng(1).integers(0, 256, (SAMPLES, 32, 32, 3), dtype=np.uint8)
    write_samples(run, THUMBNAILS, pictures if order is None else pictures[list(order)])
    if order is not None:
        samples = run.table("samples")
        columns = ["key", "split", "height", "width", "label", "status", "error"]
        samples[columns] = samples[columns].iloc[list(order)].to_numpy()
        run.write_table("samples", samples)
    return run


def write_samples(run: Run, name: str, values: NDArray[np.generic]) -> None:
    """Create array `name`, a row a sample, and write it."""
    run.arrays.create(name, values.shape[1:], str(values.dtype))
    for shard in range(run.plan.count):
        rows = run.plan.samples_of(shard)
        run.arrays.write_shard(name, shard, values[rows.start : rows.stop])


def answers_of(run: Run, layer: str, name: str = MEANS) -> NDArray[np.float32]:
    """All rows of an array of a layer, as float32."""
    return run.arrays.read(layer_array(run.layer(layer)["folder"], name), 0, run.plan.samples).astype(np.float32)


def rename_concepts(run: Run, names: dict[str, str]) -> None:
    """Call concepts otherwise, in every table."""
    concepts = run.table("concepts")
    concepts["name"] = [names.get(name, name) for name in concepts["name"]]
    run.write_table("concepts", concepts)
    for layer in run.layer_names:
        units = run.layer_table(layer, "units")
        units["concept"] = [names.get(name, name) if isinstance(name, str) else name for name in units["concept"]]
        run.write_layer_table(layer, "units", units)


def set_iou(run: Run, concept: str, best: float) -> None:
    """Scale every IoU of a concept such that the best over all layers is `best`, in every table."""
    number = int(run.table("concepts").set_index("name").loc[concept, "id"])
    tables = {layer: run.layer_table(layer, "iou") for layer in run.layer_names}
    most = max(table.loc[table["concept"] == number, "iou"].max() for table in tables.values())
    for layer, table in tables.items():
        table.loc[table["concept"] == number, "iou"] *= best / most
        run.write_layer_table(layer, "iou", table)
        units = run.layer_table(layer, "units")
        units.loc[units["concept"] == concept, "iou"] *= best / most
        run.write_layer_table(layer, "units", units)


def _permute_tables(run: Run, layer: str, order: NDArray[np.int64]) -> None:
    place = np.argsort(order)
    for name in ("units", "iou", "patches", "thresholds", "histogram"):
        table: pd.DataFrame = run.layer_table(layer, name)
        table["unit"] = place[table["unit"].to_numpy()]
        run.write_layer_table(layer, name, table.sort_values("unit", kind="stable").reset_index(drop=True))


def _write_answers(run: Run, layer: str, units: NDArray[np.int64] | None, order: Sequence[int] | None) -> None:
    folder = run.layer(layer)["folder"]
    maps = run.arrays.read(layer_array(folder, ACTIVATIONS), 0, run.plan.samples).astype(np.float32)
    means, peaks = maps.mean(axis=(2, 3)), maps.max(axis=(2, 3))
    if units is not None:
        means = means[:, units] * np.linspace(0.5, 4, len(units), dtype=np.float32) + 0.25
        peaks = peaks[:, units] * np.float32(2)
    if order is not None:
        means, peaks = means[list(order)], peaks[list(order)]
    write_samples(run, layer_array(folder, MEANS), means.astype(np.float32))
    write_samples(run, layer_array(folder, PEAKS), peaks.astype(np.float16))
