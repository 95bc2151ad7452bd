"""A finished run of any size, made up: what a report reads of it, and nothing else.

One layer on a 7x7 grid that keeps no activations: the maps of top patches are there, and so are peaks, thumbnails and
which concepts occur in which samples. Clouds of samples stand for what a network has learned: a cloud lies together on
the map, drives the same units and shows the same concepts. Nearly every unit's mask meets every concept, as in a run of
a million samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.datasets.specs import open_dataset
from microtome.dissect.audit.config import AuditConfig
from microtome.storage.arrays import PEAKS, PRESENCE, THUMBNAIL_SIDE, THUMBNAILS, layer_array, presence_bytes
from microtome.storage.patch_maps import write_patch_maps
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry, RunInfo
from microtome.storage.shards import plan_shards

LAYER, SIDE, TOP, TAU = "layer4", 7, 12, 0.005
IMAGE, SEEN = 256, 224
"""Sides of the square images, and of the crop that the model sees."""
CATEGORIES = {"object": 700, "part": 200, "scene": 120, "material": 80, "texture": 60, "color": 40}
"""Concepts by category, of each 1,200."""
IMAGES, DRAWN = "images", 64
"""Where the images lie in the run; different ones among those of all samples."""
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


@dataclass(frozen=True, slots=True)
class Size:
    """How large a run is made."""

    samples: int
    units: int = 2048
    concepts: int = 1200
    classes: int = 1000
    clouds: int = 100


def write_run(where: Path, size: Size) -> Run:
    """Write such a run into the folder `where`, which is new, and the JPEGs that its samples show into images/."""
    return _Maker(where, size).write()


class _Maker:
    """Writes one run. What is drawn by lot follows from the size alone."""

    def __init__(self, where: Path, size: Size) -> None:
        self._size = size
        self._rng = np.random.default_rng(0)
        self._run = Run.create(where, _info(where, size))
        self._entry = self._run.info["layers"][0]
        self._cloud = self._rng.integers(0, size.clouds, size.samples)
        self._splits = np.where(np.arange(size.samples) % 5 == 4, "val", "train")

    def write(self) -> Run:
        """All tables and arrays."""
        self._samples()
        concept_pixels = self._concepts()
        self._scores(concept_pixels)
        self._histogram()
        self._patches()
        self._map()
        self._arrays(self._images())
        return self._run

    def _images(self) -> NDArray[np.uint8]:
        """Write the images; returns them as thumbnails."""
        folder = self._run.path / IMAGES
        folder.mkdir()
        scenes = open_dataset(f"scenes:{DRAWN}?size={IMAGE}")
        small = []
        for index in range(DRAWN):
            image = scenes.read(index).image
            cv2.imwrite(str(folder / f"{index}.jpg"), image[..., ::-1])
            small.append(cv2.resize(image, (THUMBNAIL_SIDE,) * 2, interpolation=cv2.INTER_AREA))
        return np.stack(small).astype(np.uint8)

    @cached_property
    def _shown(self) -> NDArray[np.int64]:
        """(clouds, 40) concepts that a cloud shows, of which a sample shows a dozen: some common, some its own."""
        clouds, concepts = self._size.clouds, self._size.concepts
        common = np.minimum(self._rng.zipf(1.3, (clouds, 28)), concepts) * 7919
        return np.concatenate([common, np.arange(clouds * 12).reshape(clouds, 12)], axis=1) % concepts + 1

    def _samples(self) -> None:
        size = self._size
        frame = pd.DataFrame(
            {
                "index": np.arange(size.samples),
                "key": [f"train/n{cloud:08d}/{index:08d}.jpg" for index, cloud in enumerate(self._cloud.tolist())],
                "split": self._splits,
                "label": pd.array(self._cloud * (size.classes // size.clouds) + np.arange(size.samples) % 10, "Int64"),
                "height": IMAGE,
                "width": IMAGE,
                "status": "ok",
                "error": "",
            }
        )
        frame.loc[frame["index"] % 10_000 == 77, ["status", "error"]] = ["error", "image file is truncated"]
        self._run.write_table("samples", frame)

    def _concepts(self) -> NDArray[np.int64]:
        """Write the table of concepts; returns the pixels of each."""
        size = self._size
        images = np.maximum(20, (size.samples * 0.3 / (1 + np.arange(size.concepts)) ** 0.8).astype(np.int64))
        pixels = images * self._rng.integers(50, 2000, size.concepts)
        share = size.concepts / sum(CATEGORIES.values())
        categories = np.repeat(list(CATEGORIES), [round(count * share) for count in CATEGORIES.values()])
        frame = {
            "id": np.arange(1, size.concepts + 1),
            "name": [_name(number) for number in range(size.concepts)],
            "category": np.resize(categories, size.concepts),
            "images": images,
            "pixels": pixels,
            "dropped": False,
        }
        self._run.write_table("concepts", pd.DataFrame(frame))
        return np.asarray(pixels)

    def _scores(self, concept_pixels: NDArray[np.int64]) -> None:
        """Tables iou, thresholds and units: most units are detectors, two are silent."""
        size, rng = self._size, self._rng
        area = round(TAU * size.samples * (SEEN // 2) ** 2)
        iou = rng.lognormal(-6, 1, (size.units, size.concepts))
        iou[np.arange(size.units), rng.integers(0, size.concepts, size.units)] = rng.beta(1.5, 20, size.units)
        ceiling = np.minimum(area, concept_pixels) / np.maximum(area, concept_pixels)
        iou = np.minimum(iou, np.maximum(ceiling, 0.2))
        iou[rng.random(iou.shape) < 0.03] = 0
        iou[-2:] = 0
        best = iou.argmax(axis=1)
        unit, concept = np.nonzero(iou)
        score = iou[unit, concept]
        frame = pd.DataFrame(
            {
                "unit": unit,
                "concept": concept + 1,
                "intersection": (score / (1 + score) * (area + concept_pixels[concept])).astype(np.int64),
                "unit_pixels": area,
                "concept_pixels": concept_pixels[concept],
                "iou": score,
                "ceiling": np.maximum(ceiling[concept], score),
                "tau": TAU,
                "iou_train": score * 1.01,
                "iou_val": score * 0.96,
            }
        )
        self._run.write_layer_table(LAYER, "iou", frame)
        self._units(iou[np.arange(size.units), best], best, ceiling)

    def _units(self, iou: NDArray[np.float64], best: NDArray[np.int64], ceiling: NDArray[np.float64]) -> None:
        size = self._size
        silent = np.arange(size.units) >= size.units - 2
        positions = size.samples * SIDE * SIDE
        concepts = self._run.table("concepts")
        threshold = np.where(silent, 0.0, 4.0)
        shared = {"unit": np.arange(size.units), "threshold": threshold, "realised": np.where(silent, 0.0, TAU)}
        units = {
            **shared,
            "state": np.where(silent, "dead", "ok"),
            "minimum": 0.0,
            "maximum": np.where(silent, 0.0, 40.0),
            "mean": np.where(silent, 0.0, 0.4),
            "std": np.where(silent, 0.0, 0.9),
            "dead_share": np.where(silent, 1.0, 0.6),
            "nan": 0,
            "infinite": 0,
            "positions": positions,
            "concept_id": np.where(silent, 0, best + 1),
            "concept": np.where(silent, None, concepts["name"].to_numpy(object)[best]),
            "category": np.where(silent, None, concepts["category"].to_numpy(object)[best]),
            "iou": np.where(silent, np.nan, iou),
            "ceiling": np.where(silent, np.nan, ceiling[best]),
            "iou_train": np.where(silent, np.nan, iou * 1.01),
            "iou_val": np.where(silent, np.nan, iou * 0.96),
            "is_detector": ~silent & (iou > 0.04),
        }
        self._run.write_layer_table(LAYER, "units", pd.DataFrame(units))
        above = np.where(silent, 0, round(TAU * positions))
        thresholds = pd.DataFrame({**shared, "tau": TAU, "count_above": above, "saturated": False})
        self._run.write_layer_table(LAYER, "thresholds", thresholds)

    def _histogram(self) -> None:
        """The coarse histograms: four bins to an octave from 2^-14 to 40, more of it near 0."""
        edges = np.append(0.0, 2.0 ** np.arange(-14, 5.5, 0.25))
        counts = self._size.samples * SIDE * SIDE * np.exp(-edges[:-1]) * self._rng.random((self._size.units, 1))
        unit = np.repeat(np.arange(self._size.units - 2), len(edges) - 1)
        table = {"low": edges[:-1], "high": edges[1:]}
        frame = {name: np.resize(values, len(unit)) for name, values in table.items()}
        frame["count"] = np.maximum(1, counts[:-2].ravel()).astype(np.int64)
        self._run.write_layer_table(LAYER, "histogram", pd.DataFrame({"unit": unit, **frame}))

    def _patches(self) -> None:
        """Top patches from all over the samples, and their maps."""
        size, rng = self._size, self._rng
        count = (size.units - 2) * TOP
        unit, rank = np.repeat(np.arange(size.units - 2), TOP), np.resize(np.arange(TOP), count)
        sample = (rng.integers(0, size.samples // TOP, count) * TOP + rank) % size.samples
        row, column = rng.integers(0, SIDE, (2, count))
        step = IMAGE // SIDE
        box = {"top": (row - 2) * step, "left": (column - 2) * step}
        box |= {"bottom": (row + 3) * step, "right": (column + 3) * step}
        frame = {"unit": unit, "rank": rank, "sample": sample, "row": row, "column": column, "value": 30.0 - rank}
        frame |= {name: np.clip(edge, 0, IMAGE) for name, edge in box.items()}
        self._run.write_layer_table(LAYER, "patches", pd.DataFrame(frame))
        order = np.lexsort((unit, sample))
        maps = rng.gamma(1.0, 2.0, (4096, SIDE, SIDE)).astype(np.float16)
        for shard in range(self._run.plan.count):
            rows = self._run.plan.samples_of(shard)
            low, high = np.searchsorted(sample[order], [rows.start, rows.stop])
            here = order[low:high]
            shown = maps[here % len(maps)]
            write_patch_maps(self._run.place, self._entry["folder"], shard, sample[here], unit[here], shown)

    def _map(self) -> None:
        size, rng = self._size, self._rng
        places = {}
        for names, wide in ((("x", "y"), 100.0), (("pca_x", "pca_y"), 10.0)):
            for name in names:
                centre = rng.uniform(-wide, wide, size.clouds)
                spread = rng.normal(0, wide / 15, size.samples)
                places[name] = (centre[self._cloud] + spread).astype(np.float32)
        table = {"sample": np.arange(size.samples), **places, "cluster": self._cloud.astype(np.int32)}
        self._run.write_layer_table(LAYER, "map", pd.DataFrame(table))
        held = np.bincount(self._cloud, minlength=size.clouds)
        middle = {name: np.bincount(self._cloud, places[name], size.clouds) / held for name in ("x", "y")}
        clusters = {
            "cluster": np.arange(size.clouds, dtype=np.int32),
            "samples": held,
            **middle,
            "name": [_name(concept - 1) for concept in self._shown[:, 0].tolist()],
            "concept": self._shown[:, 0].astype(np.int32),
            "lift": 8.0,
            "class": "",
            "purity": np.nan,
        }
        self._run.write_layer_table(LAYER, "clusters", pd.DataFrame(clusters))
        odd = rng.choice(size.samples, min(200, size.samples), replace=False)
        named = {"class": "zaba", "neighbors_class": "moda", "agreement": 0.1, "share": 0.8}
        self._run.write_layer_table(LAYER, "disagreements", pd.DataFrame({"sample": odd, **named}))

    def _arrays(self, tiles: NDArray[np.uint8]) -> None:
        """Peaks, thumbnails and presence, shard by shard."""
        size, rng, arrays = self._size, self._rng, self._run.arrays
        peaks = layer_array(self._entry["folder"], PEAKS)
        arrays.create(peaks, (size.units,), "float16")
        arrays.create(THUMBNAILS, (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), "uint8")
        arrays.create(PRESENCE, (presence_bytes(size.concepts),), "uint8")
        drive = rng.lognormal(0, 1, (size.clouds, size.units)).astype(np.float16)
        drive[:, -2:] = 0
        noise = rng.gamma(2.0, 1.0, 1 << 21).astype(np.float16)
        for shard in range(self._run.plan.count):
            rows = self._run.plan.samples_of(shard)
            cloud = self._cloud[rows.start : rows.stop]
            grain = noise[rng.integers(0, len(noise) - size.units, len(rows))[:, None] + np.arange(size.units)]
            arrays.write_shard(peaks, shard, np.asarray(drive[cloud] * grain))
            turned = tiles[rng.integers(0, DRAWN, len(rows))]
            arrays.write_shard(THUMBNAILS, shard, turned // 2 + rng.integers(0, 128, (len(rows), 1, 1, 3), np.uint8))
            arrays.write_shard(PRESENCE, shard, self._presence(cloud))

    def _presence(self, cloud: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A dozen concepts of its cloud for each sample, as bits."""
        width = 8 * presence_bytes(self._size.concepts)
        present = np.zeros((len(cloud), width), np.bool_)
        chosen = self._shown[cloud[:, None], self._rng.integers(0, 40, (len(cloud), 12))]
        present[np.arange(len(cloud))[:, None], chosen] = True
        return np.packbits(present, axis=1, bitorder="little")


def _name(number: int) -> str:
    """A word for a concept or a class, another for each number."""
    count = len(_SYLLABLES)
    return _SYLLABLES[number % count] + _SYLLABLES[(number // count * 31 + number) % count]


def _info(where: Path, size: Size) -> RunInfo:
    spec = f"scenes:{size.samples}?size={IMAGE}"
    plan = plan_shards(size.samples, 2 * size.units * SIDE * SIDE)
    axis = {"stride": 32, "offset": -80, "size": 5 * 36, "low": 0, "high": SEEN}
    config = AuditConfig(
        model="builtin:scenes-cnn",
        dataset=spec,
        layers=(LAYER,),
        tau=(TAU,),
        top=TOP,
        keep_activations=False,
        out=where,
    )
    info: dict[str, Any] = {
        "schema_version": 1,
        "microtome": "0.1.0",
        "config": config.identity(),
        "model": {
            "spec": "builtin:scenes-cnn",
            "fingerprint": "0" * 16,
            "trained": True,
            "weights": "made up",
            "class_names": [_name(number) for number in range(size.classes)],
            "parameters": 25_000_000,
            "preprocess": {
                "size": [SEEN, SEEN],
                "resize": IMAGE,
                "mean": [0.5] * 3,
                "std": [0.25] * 3,
                "interpolation": "bilinear",
            },
        },
        "data": {
            "spec": spec,
            "fingerprint": open_dataset(spec).fingerprint(),
            "samples": size.samples,
            "plane_names": ["object", "part", "material", "texture", "color"],
            "image_label_slots": 1,
            "splits": ["train", "val"],
            "categories": list(CATEGORIES),
            "class_names": [_name(number) for number in range(size.classes)],
            "unreadable": len(range(77, size.samples, 10_000)),
            "unknown_ids": {},
            "remarks": [],
        },
        "layers": [
            LayerEntry(
                name=LAYER,
                folder=LAYER,
                kind="Bottleneck",
                units=size.units,
                grid=[SIDE, SIDE],
                scale=1.0,
                receptive_field={"rows": axis, "columns": axis, "note": ""},
            )
        ],
        "label_size": [SEEN // 2, SEEN // 2],
        "shards": {"samples": plan.shard, "chunk": plan.chunk, "count": plan.count},
        "estimate": {"bytes_per_sample": 0.0, "bytes_per_sample_streamed": 0.0, "seconds_per_sample": 0.0},
        "stages": {
            name: {"state": "done", "seconds": 1.0}
            for name in ("index", "capture", "thresholds", "tally", "patches", "map", "report")
        },
        "versions": {},
        "more_arrays": [THUMBNAILS, PRESENCE],
        "map": {LAYER: _map_info(size)},
    }
    return cast("RunInfo", info)


def _map_info(size: Size) -> dict[str, Any]:
    quality = {"sample": 2000, "k": 10, "trustworthiness": 0.95, "recall": 0.3, "purity": None, "purity_features": None}
    return {
        "settings": {"neighbors": 15},
        "engine": "made up",
        "kl": 5.0,
        "iterations": 750,
        "samples": size.samples,
        "seconds": 1.0,
        "neighbors": 15,
        "neighbors_recall": 0.95,
        "quality": {**quality, "warnings": []},
        "aligned_to": "",
    }
