"""A small finished run on disk, made up: drawn images, planted responses, hostile names; nothing is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.datasets.geometry import CropGeometry
from microtome.storage.arrays import ACTIVATIONS, layer_array
from microtome.storage.run import Run, folder_name
from microtome.storage.schema import LayerEntry, RunInfo, StageInfo

HOSTILE = "<script>alert(1)</script>"
HOSTILE_KEY = "images/</script><img src=x onerror=alert(2)>&\u2028\"'.png"

NAMES = (
    ("car", "object"),
    ("tree", "object"),
    ("house", "object"),
    ("wheel", "part"),
    ("roof", "part"),
    ("wood", "material"),
    ("striped", "texture"),
    ("red", "color"),
    ("blue", "color"),
    ("street", "scene"),
    ("sky", "object"),
    (HOSTILE, "object"),
    ("shiny", "lighting"),
)
"""The concepts: name and category, ids from 1."""

Thing = tuple[int, float, float, float]
"""Concept number, centre across and down (shares of the image), radius."""


@dataclass(frozen=True)
class LayerShape:
    """Units and side of the activation grid of a layer to make up, and its receptive field in pixels."""

    units: int
    side: int
    field: int


LAYERS = {"layer1": LayerShape(24, 14, 60), "layer4.0:conv/2": LayerShape(40, 7, 400)}


def things_in(sample: int) -> list[Thing]:
    """What is drawn in the image of a sample."""
    rng = np.random.default_rng(1000 + sample)
    count = int(rng.integers(2, 5))
    kinds = rng.choice(len(NAMES), count, replace=False)
    return [
        (int(kind), float(rng.uniform(0.15, 0.85)), float(rng.uniform(0.25, 0.85)), float(rng.uniform(0.07, 0.17)))
        for kind in kinds
    ]


def draw_image(sample: int, size: tuple[int, int] = (224, 224)) -> NDArray[np.uint8]:
    """The image of a sample: sky, ground and a few shapes; (H, W, 3) uint8."""
    height, width = size
    rng = np.random.default_rng(sample)
    ramp = np.linspace(0, 1, height)[:, None, None]
    sky, ground = rng.uniform(120, 240, 3), rng.uniform(40, 150, 3)
    image = np.where(ramp < 0.55, sky + 40 * ramp, ground + 60 * (1 - ramp)) * np.ones((1, width, 1))
    canvas = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    for kind, x, y, radius in things_in(sample):
        centre = (int(x * width), int(y * height))
        reach = int(radius * min(height, width))
        hue = np.array([[[kind * 180 // len(NAMES), 200, 150 + 70 * (kind % 2)]]], np.uint8)
        color = tuple(int(c) for c in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0])
        if kind % 3 == 0:
            cv2.circle(canvas, centre, reach, color, -1, cv2.LINE_AA)
        elif kind % 3 == 1:
            corner = (centre[0] - reach, centre[1] - reach)
            cv2.rectangle(canvas, corner, (centre[0] + reach, centre[1] + reach), color, -1)
        else:
            points = [(0, -reach), (-reach, reach), (reach, reach)]
            cv2.fillPoly(canvas, [np.array(points, np.int32) + np.array(centre, np.int32)], color, cv2.LINE_AA)
    return canvas


def image_size(sample: int) -> tuple[int, int]:
    """(H, W) of a sample's image: not all are square."""
    return [(224, 224), (240, 320), (300, 224)][sample % 3]


def read_image(sample: int) -> NDArray[np.uint8]:
    """The image of a sample at its own size."""
    return draw_image(sample, image_size(sample))


def responses(units: int, side: int, samples: int, seed: int) -> NDArray[np.float16]:
    """(N, C, side, side) float16: unit k responds to concept k mod K where it is drawn; three odd units at the end."""
    rng = np.random.default_rng(seed)
    maps = np.maximum(rng.normal(-0.6, 0.5, (samples, units, side, side)), 0)
    for sample in range(samples):
        height, width = image_size(sample)
        geometry = CropGeometry.of(height, width, size=(224, 224), resize=224)
        for kind, x, y, radius in things_in(sample):
            across = (x * geometry.resized[1] - geometry.left) / 224 * side - 0.5
            down = (y * geometry.resized[0] - geometry.top) / 224 * side - 0.5
            spread = max(radius * side * 0.8, 0.6)
            rows, columns = np.mgrid[0:side, 0:side]
            blob = np.exp(-((rows - down) ** 2 + (columns - across) ** 2) / (2 * spread**2))
            mine = np.arange(kind, units, len(NAMES))
            maps[sample, mine] += blob * rng.uniform(2, 6, (len(mine), 1, 1))
    if units >= 8:
        maps[:, -3] = 0
        maps[:, -2] = 1.5
        maps[:, -1] = np.minimum(maps[:, -1], 1.0)
    return maps.astype(np.float16)


def write_run(
    path: Path,
    *,
    samples: int = 24,
    layers: dict[str, LayerShape] | None = None,
    taus: Sequence[float] = (0.005,),
    top: int = 9,
    trained: bool = True,
    unreadable: int = 2,
    splits: bool = False,
    seed: int = 0,
    responder: Callable[[int, int, int, int], NDArray[np.float16]] = responses,
) -> Run:
    """Write a finished run into `path`; the last `unreadable` samples have failed."""
    shapes = LAYERS if layers is None else layers
    run = Run.create(path, _info(samples, shapes, taus, top, trained, unreadable, splits))
    run.write_table("samples", _samples(samples, unreadable, splits))
    run.write_table("concepts", _concepts(seed))
    for number, entry in enumerate(run.info["layers"]):
        shape = shapes[entry["name"]]
        stored = responder(shape.units, shape.side, samples, seed + number)
        stored[samples - unreadable :] = np.nan
        name = layer_array(entry["folder"], ACTIVATIONS)
        run.arrays.create(name, stored.shape[1:], "float16", channels=True)
        for shard in range(run.plan.count):
            rows = run.plan.samples_of(shard)
            run.arrays.write_shard(name, shard, stored[rows.start : rows.stop])
        maps = stored[: samples - unreadable].astype(np.float64) * entry["scale"]
        _write_layer(run, entry, shape, maps, taus, top, splits, seed + number)
    return run


def _model(trained: bool) -> Any:
    return {
        "spec": "builtin:scenes-cnn",
        "fingerprint": "c0ffee00c0ffee00",
        "trained": trained,
        "weights": "trained on scenes" if trained else "random weights, seed 0",
        "class_names": ["street", "harbour"],
        "parameters": 1_234_567,
        "preprocess": {
            "size": [224, 224],
            "resize": 224,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "interpolation": "bilinear",
        },
    }


def _entries(shapes: dict[str, LayerShape]) -> list[LayerEntry]:
    return [
        LayerEntry(
            name=name,
            folder=folder_name(name),
            kind="Conv2d",
            units=shape.units,
            grid=[shape.side, shape.side],
            scale=2.0,
            receptive_field={axis: {"stride": 224 // shape.side, "size": shape.field} for axis in ("rows", "columns")},
        )
        for name, shape in shapes.items()
    ]


def _info(
    samples: int,
    shapes: dict[str, LayerShape],
    taus: Sequence[float],
    top: int,
    trained: bool,
    unreadable: int,
    splits: bool,
) -> RunInfo:
    config: dict[str, Any] = {
        "model": "builtin:scenes-cnn",
        "dataset": f"scenes:{samples}",
        "layers": list(shapes),
        "tau": list(taus),
        "iou": "image",
        "top": top,
        "min_iou": 0.04,
    }
    return RunInfo(
        schema_version=1,
        microtome="0.1.0",
        config=config,
        model=_model(trained),
        data={
            "spec": f"scenes:{samples}",
            "fingerprint": "0123456789abcdef",
            "samples": samples,
            "plane_names": ["objects", "parts"],
            "image_label_slots": 1,
            "splits": ["train", "val"] if splits else [],
            "categories": sorted({category for _, category in NAMES}),
            "class_names": ["street", "harbour"],
            "unreadable": unreadable,
            "unknown_ids": {},
        },
        layers=_entries(shapes),
        label_size=[112, 112],
        shards={"samples": 32, "chunk": 32, "count": -(-samples // 32)},
        estimate={"bytes_per_sample": 1000.0, "bytes_per_sample_streamed": 100.0, "seconds_per_sample": 0.1},
        stages={
            name: StageInfo(state="done", seconds=1.5)
            for name in ("index", "capture", "thresholds", "tally", "patches")
        },
        versions={"numpy": "2.4.6"},
    )


def _samples(samples: int, unreadable: int, splits: bool) -> pd.DataFrame:
    bad = np.arange(samples) >= samples - unreadable
    keys = [f"images/{index:06d}.png" for index in range(samples)]
    keys[0] = HOSTILE_KEY
    sizes = [image_size(index) for index in range(samples)]
    return pd.DataFrame(
        {
            "index": np.arange(samples),
            "key": keys,
            "split": ["val" if splits and index % 3 == 0 else "train" if splits else "" for index in range(samples)],
            "height": [height for height, _ in sizes],
            "width": [width for _, width in sizes],
            "label": np.arange(samples) % 2,
            "status": np.where(bad, "error", "ok"),
            "error": [f"truncated file after {HOSTILE}" if is_bad else None for is_bad in bad],
        }
    )


def _concepts(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": np.arange(1, len(NAMES) + 1),
            "name": [name for name, _ in NAMES],
            "category": [category for _, category in NAMES],
            "images": rng.integers(5, 50, len(NAMES)),
            "pixels": rng.integers(2_000, 90_000, len(NAMES)),
        }
    )


def _write_layer(
    run: Run,
    entry: LayerEntry,
    shape: LayerShape,
    maps: NDArray[np.float64],
    taus: Sequence[float],
    top: int,
    splits: bool,
    seed: int,
) -> None:
    thresholds = _thresholds(maps, taus)
    scores = _scores(shape.units, taus, splits, seed)
    units = _units(maps, thresholds, scores, float(taus[0]), splits)
    run.write_layer_table(entry["name"], "thresholds", thresholds)
    run.write_layer_table(entry["name"], "iou", scores)
    run.write_layer_table(entry["name"], "units", units)
    run.write_layer_table(entry["name"], "patches", _patches(maps, shape, top))
    run.write_layer_table(entry["name"], "histogram", _histogram(maps))


def _thresholds(maps: NDArray[np.float64], taus: Sequence[float]) -> pd.DataFrame:
    rows = []
    for unit in range(maps.shape[1]):
        values = np.sort(maps[:, unit], axis=None)
        for tau in taus:
            threshold = float(values[len(values) - 1 - int(tau * len(values))])
            realised = float((values > threshold).mean())
            tied = float((values == values[-1]).mean())
            saturated = bool(values[-1] > values[0] and tied > tau)
            rows.append((unit, float(tau), threshold, realised, saturated))
    return pd.DataFrame(rows, columns=["unit", "tau", "threshold", "realised", "saturated"])


def _scores(units: int, taus: Sequence[float], splits: bool, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    concept_pixels = rng.integers(3_000, 60_000, len(NAMES))
    concept_pixels[[name for name, _ in NAMES].index("sky")] = 2_000_000
    rows = []
    for tau in taus:
        for unit in range(units - 3 if units >= 8 else units):
            mask = int(1_500_000 * tau * rng.uniform(0.8, 1.2))
            for concept in rng.permutation(len(NAMES))[:8].tolist():
                area = int(concept_pixels[concept])
                most = min(mask, area)
                share = rng.beta(6, 4) if concept == unit % len(NAMES) else rng.beta(1, 12)
                both = max(1, int(most * share))
                iou = both / (mask + area - both)
                rows.append((unit, concept + 1, both, mask, area, iou, most / max(mask, area), float(tau)))
    columns = ["unit", "concept", "intersection", "unit_pixels", "concept_pixels", "iou", "ceiling", "tau"]
    frame = pd.DataFrame(rows, columns=columns)
    if splits:
        frame["iou_train"] = frame["iou"] * 1.02
        frame["iou_val"] = frame["iou"] * 0.93
    return frame


def _units(
    maps: NDArray[np.float64], thresholds: pd.DataFrame, scores: pd.DataFrame, tau: float, splits: bool
) -> pd.DataFrame:
    first = thresholds[thresholds["tau"] == tau].set_index("unit")
    ranked = scores[scores["tau"] == tau].sort_values(["unit", "iou", "concept"], ascending=[True, False, True])
    best = ranked.groupby("unit").head(1).set_index("unit")
    rows = []
    for unit in range(maps.shape[1]):
        values = maps[:, unit]
        flat = values.max() == values.min()
        state = "dead" if values.max() == 0 else "constant" if flat else "ok"
        if state == "ok" and first.loc[unit, "saturated"]:
            state = "saturated"
        labelled = unit in best.index
        concept = int(best.loc[unit, "concept"]) if labelled else 0
        iou = float(best.loc[unit, "iou"]) if labelled else np.nan
        row = {
            "unit": unit,
            "state": state,
            "threshold": float(first.loc[unit, "threshold"]),
            "realised": float(first.loc[unit, "realised"]),
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "mean": float(values.mean()),
            "std": float(values.std()),
            "dead_share": float((values <= 0).mean()),
            "nan": 3 if unit == 1 else 0,
            "positions": values.size,
            "concept": NAMES[concept - 1][0] if labelled else None,
            "concept_id": concept,
            "category": NAMES[concept - 1][1] if labelled else None,
            "iou": iou,
            "ceiling": float(best.loc[unit, "ceiling"]) if labelled else np.nan,
            "is_detector": bool(labelled and iou > 0.04),
        }
        if splits:
            row |= {"iou_train": iou * 1.02, "iou_val": iou * 0.93}
        rows.append(row)
    return pd.DataFrame(rows)


def _patches(maps: NDArray[np.float64], shape: LayerShape, top: int) -> pd.DataFrame:
    peaks = maps.max(axis=(2, 3))
    places = maps.reshape(*maps.shape[:2], -1).argmax(axis=2)
    rows = []
    for unit in range(shape.units):
        for rank, sample in enumerate(np.argsort(-peaks[:, unit], kind="stable")[:top].tolist()):
            row, column = divmod(int(places[sample, unit]), shape.side)
            height, width = image_size(sample)
            geometry = CropGeometry.of(height, width, size=(224, 224), resize=224)
            down, across = (row + 0.5) * 224 / shape.side, (column + 0.5) * 224 / shape.side
            half = shape.field / 2
            box = geometry.to_original(
                max(down - half, 0), max(across - half, 0), min(down + half, 224), min(across + half, 224)
            )
            rows.append((unit, rank, sample, row, column, float(peaks[sample, unit]), *box))
    names = ["unit", "rank", "sample", "row", "column", "value", "top", "left", "bottom", "right"]
    return pd.DataFrame(rows, columns=names)


def _histogram(maps: NDArray[np.float64]) -> pd.DataFrame:
    edges = np.r_[0.0, 2.0 ** np.arange(-14, 6, 0.25)]
    rows = []
    for unit in range(maps.shape[1]):
        counts, _ = np.histogram(maps[:, unit], edges)
        filled = np.flatnonzero(counts).tolist()
        rows += [(unit, edges[number], edges[number + 1], int(counts[number])) for number in filled]
    return pd.DataFrame(rows, columns=["unit", "low", "high", "count"])
