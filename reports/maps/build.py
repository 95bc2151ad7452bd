"""The data of the map page: what a run holds of its maps, as files that a page opened from disk can load.

    map/manifest.js             window.MICROTOME_MAP = {"manifest": ...}: layers, views, concepts, where everything lies
    map/order.js                the sample of each point
    map/LAYER/tsne.js, pca.js   positions;  clusters.js: the cluster of each point;  units/K.js: a unit's peaks
    map/class.js                the class of each point
    map/concepts/ID.js          the points that concept ID occurs at
    map/keys/CHUNK.js           key, class and split of 8,192 points each, as JSON
    map/sprites/SHEET.webp      thumbnails of 1,024 points each

How the contents are encoded: encode.py. All are in page order (points.py). Layers, shards and units pass one by one
or in blocks: memory does not grow with their number, and by a few hundred bytes with each sample. The same run gives
the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from microtome.reports.maps.colours import palette
from microtome.reports.maps.columns import UnitFiles, write_concepts, write_units
from microtome.reports.maps.encode import (
    Box,
    encode_classes,
    encode_clusters,
    encode_json,
    encode_order,
    encode_view,
)
from microtome.reports.maps.files import FOLDER, MapFiles, layer_address, picture_address
from microtome.reports.maps.points import VIEWS, Classes, LayerMap, Points, read_maps, read_places
from microtome.reports.maps.quality import drawn_name, is_flat, shown_quality
from microtome.reports.maps.sprites import sheet_count, write_sprites
from microtome.reports.pages import LayerFiles
from microtome.reports.payload import data_script
from microtome.reports.source import Progress, ReportRun
from microtome.reports.summaries import Concepts, LayerSummary
from microtome.reports.text import without_controls

SCHEMA_VERSION = 1
MANIFEST = f"{FOLDER}/manifest.js"
KEYS_PER_FILE = 8192
DISAGREEMENTS = 200


@dataclass(frozen=True, slots=True)
class MapData:
    """What was written: the points, their classes, the maps of the layers, the manifest, and bytes in all."""

    points: Points
    classes: Classes
    maps: list[LayerMap]
    manifest: dict[str, Any]
    size: int


def write_map(
    run: ReportRun,
    root: Path,
    layers: Sequence[LayerSummary],
    concepts: Concepts,
    samples: pd.DataFrame,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> MapData | None:
    """Write the data of the map page below the report folder `root`; None, and no file, where the run has no map.

    layers: of the whole run, in its order; samples: samples.parquet; progress: in files.
    """
    found = read_maps(run)
    if found is None:
        return None
    points, maps = found
    samples = samples.set_index("index")
    classes = Classes.of(samples["label"].reindex(points.samples), run.info["data"]["class_names"])
    expected = _expected_files(maps, points, concepts)
    with MapFiles(root, workers, progress, expected) as files:
        manifest = {
            "schema": SCHEMA_VERSION,
            "samples": len(points.samples),
            "total": run.plan.samples,
            "order_file": files.data(f"{FOLDER}/order.js", partial(encode_order, points.samples)),
            "classes": classes.names,
            "class_file": _write_classes(classes, files),
            "layers": [_write_layer(run, one, layers[one.number], concepts, points, files) for one in maps],
            "concepts": write_concepts(run, points, concepts, files),
            "keys": _write_keys(samples, points, classes, files),
            "sprites": write_sprites(run, points, files, root),
            "palette": palette(),
        }
        files.settle()
        files.raw(MANIFEST, lambda: data_script("MICROTOME_MAP", {"manifest": _finite(manifest)}).encode("ascii"))
        files.settle()
        return MapData(points, classes, maps, manifest, files.size)


def _expected_files(maps: Sequence[LayerMap], points: Points, concepts: Concepts) -> int:
    """About how many files there will be."""
    n = len(points.samples)
    of_layers = sum(len(VIEWS) + one.entry["units"] for one in maps)
    return of_layers + sheet_count(n) + -(-n // KEYS_PER_FILE) + int((concepts.images > 0).sum()) + 3


def _write_classes(classes: Classes, files: MapFiles) -> str | None:
    if not classes.names:
        return None
    return files.data(f"{FOLDER}/class.js", partial(encode_classes, classes.of_point))


def _write_layer(
    run: ReportRun, one: LayerMap, summary: LayerSummary, concepts: Concepts, points: Points, files: MapFiles
) -> dict[str, Any]:
    """Write the files of one layer; returns its entry in the manifest."""
    folder = one.entry["folder"]
    places = read_places(run, one.entry["name"], points)
    twice = {"pca"} if is_flat(one.info) else set()
    views = {view: positions for view, positions in places.views.items() if view not in twice}
    boxes = {view: Box.around(positions) for view, positions in views.items()}
    names = [concepts.names[concept] for concept in summary.first.concept.tolist()]
    how = UnitFiles.of(one.entry["units"], len(points.samples))
    info = {key: value for key, value in one.info.items() if key != "quality"}
    return {
        "name": one.entry["name"],
        "folder": folder,
        "page": LayerFiles.of(folder).page,
        "picture": picture_address(folder),
        "drawn": drawn_name(one.info),
        "views": list(views),
        "boxes": {view: box.values() for view, box in boxes.items()},
        "files": {
            view: files.data(layer_address(folder, f"{view}.js"), partial(encode_view, positions, boxes[view]))
            for view, positions in views.items()
        },
        "quality": shown_quality(one.info),
        "info": info,
        "clusters": _clusters(one.clusters),
        "cluster_file": files.data(layer_address(folder, "clusters.js"), partial(encode_clusters, places.cluster)),
        "units": write_units(run, one.entry, points, names, files, how),
        "disagreements": _disagreements(one.disagreements, points),
    }


def _clusters(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The clusters of a layer, as clusters.parquet has them."""
    if table.empty:
        return []
    rows = zip(table["cluster"], table["name"], table["x"], table["y"], table["samples"], strict=True)
    return [
        {"id": int(number), "name": str(name), "x": float(x), "y": float(y), "samples": int(samples)}
        for number, name, x, y, samples in rows
    ]


def _disagreements(table: pd.DataFrame, points: Points) -> list[dict[str, Any]]:
    """The first candidates for wrong labels that are points."""
    if table.empty:
        return []
    table = table[table["sample"].between(0, len(points.place) - 1)]
    at = points.place[table["sample"].to_numpy(np.int64)]
    table = table.assign(i=at)[at >= 0].head(DISAGREEMENTS)
    rows = zip(table["i"], table["class"], table["neighbors_class"], table["agreement"], strict=True)
    return [
        {"i": int(i), "class": str(own), "neighbors_class": str(other), "agreement": float(f"{agreement:.4g}")}
        for i, own, other, agreement in rows
    ]


def _write_keys(samples: pd.DataFrame, points: Points, classes: Classes, files: MapFiles) -> dict[str, Any]:
    """Write key, class and split of each point, `samples` being samples.parquet by index; returns what the manifest
    says of them."""
    pattern = f"{FOLDER}/keys/{{chunk}}.js"
    words = samples[["key", "split"]]
    for chunk, start in enumerate(range(0, len(points.samples), KEYS_PER_FILE)):
        part = slice(start, start + KEYS_PER_FILE)
        rows = words.loc[points.samples[part]]
        files.data(pattern.format(chunk=chunk), partial(_keys_bytes, rows, classes.shown(part)))
    return {"per": KEYS_PER_FILE, "file": pattern}


def _keys_bytes(samples: pd.DataFrame, classes: list[str]) -> bytes:
    columns = [samples["key"].astype(str).tolist(), classes, samples["split"].fillna("").astype(str).tolist()]
    clean = [[without_controls(text) for text in column] for column in columns]
    return encode_json([list(row) for row in zip(*clean, strict=True)])


def _finite(value: Any) -> Any:
    """A value of JSON, with null for every number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
