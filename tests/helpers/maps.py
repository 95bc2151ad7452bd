"""Maps for a made-up run (helpers/runs.py): what stage map and the arrays beside it would leave, planted."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from helpers.runs import HOSTILE, NAMES, read_image, things_in
from numpy.typing import NDArray

from microtome.storage.arrays import ACTIVATIONS, PEAKS, PRESENCE, THUMBNAIL_SIDE, THUMBNAILS, layer_array
from microtome.storage.arrays import presence_bytes as bytes_of
from microtome.storage.run import Run
from microtome.storage.schema import MapInfo

CLASSES = ("street", "harbour")
WARNING = f"At a recall of 0.12 neighbours on this map are rarely neighbours in the layer {HOSTILE}."


def plant_maps(
    run: Run,
    layers: Sequence[str] | None = None,
    *,
    arrays: bool = True,
    classes: bool = True,
    umap: bool = False,
    seed: int = 0,
) -> None:
    """Give `run` maps of `layers` (None: all).

    arrays: also thumbnails and presence; classes: also disagreements, else no sample keeps its label.
    """
    samples = run.table("samples")
    bad = (samples["status"] != "ok").to_numpy()
    if not classes:
        run.write_table("samples", samples.assign(label=pd.array([pd.NA] * len(samples), dtype="Int64")))
    for entry in run.info["layers"]:
        _plant_peaks(run, entry["name"], entry["folder"])
    if arrays:
        _plant(run, THUMBNAILS, thumbnails(len(samples), bad))
        _plant(run, PRESENCE, presence(len(samples), bad))
    run.info["map"] = {}
    for number, layer in enumerate(run.layer_names if layers is None else layers):
        rng = np.random.default_rng([seed, number])
        run.info["map"][layer] = map_info(int((~bad).sum()), classes)
        run.write_layer_table(layer, "map", map_table(bad, rng, umap))
        run.write_layer_table(layer, "components", _components(rng))
        run.write_layer_table(layer, "clusters", _clusters(classes))
        if classes:
            run.write_layer_table(layer, "disagreements", _disagreements(bad))
    run.save()


def map_table(bad: NDArray[np.bool_], rng: np.random.Generator, umap: bool) -> pd.DataFrame:
    """map.parquet: four clouds, a few points in none of them."""
    n = len(bad)
    cluster = np.where(rng.random(n) < 0.1, -1, np.arange(n) % 4).astype(np.int32)
    centres = np.array([[-20, -15], [18, -12], [-14, 22], [25, 19]])[np.arange(n) % 4]
    table = pd.DataFrame({"sample": np.arange(n)})
    names = ["x", "y", "pca_x", "pca_y"] + (["umap_x", "umap_y"] if umap else [])
    for number, name in enumerate(names):
        values = (centres[:, number % 2] / (1 + number // 2) + rng.normal(0, 4, n)).astype(np.float32)
        table[name] = np.where(bad, np.float32(np.nan), values)
    return table.assign(cluster=np.where(bad, -1, cluster).astype(np.int32))


def map_info(samples: int, classes: bool = True) -> MapInfo:
    """What run.json would say of a map."""
    return MapInfo(
        settings={"neighbors": 15, "perplexity": None, "seed": 0},
        engine="interpolation",
        kl=1.25,
        iterations=750,
        samples=samples,
        seconds=2.5,
        neighbors=15,
        quality={
            "sample": samples,
            "k": 10,
            "trustworthiness": 0.9731,
            "recall": 0.42,
            "purity": 0.81 if classes else None,
            "purity_features": 0.86 if classes else None,
            "warnings": [WARNING],
        },
        aligned_to="",
    )


def _components(rng: np.random.Generator) -> pd.DataFrame:
    variance = np.sort(rng.exponential(1, 12))[::-1]
    return pd.DataFrame({"component": np.arange(12), "variance": variance, "ratio": variance / variance.sum()})


def _clusters(classes: bool) -> pd.DataFrame:
    rows = [
        (0, 9, -20.0, -15.0, "street, car", 1, 3.5, "street", 0.9),
        (1, 8, 18.0, -12.0, HOSTILE, 12, 2.0, "", 0.5),
        (2, 7, -14.0, 22.0, "tree", 2, 4.25, "harbour", 0.75),
        (3, 6, 25.0, 19.0, "cluster 3", -1, float("nan"), "", float("nan")),
    ]
    columns = ["cluster", "samples", "x", "y", "name", "concept", "lift", "class", "purity"]
    table = pd.DataFrame(rows, columns=columns)
    return table if classes else table.assign(purity=np.nan, **{"class": ""})


def _disagreements(bad: NDArray[np.bool_]) -> pd.DataFrame:
    good = np.flatnonzero(~bad)[:5]
    own = [CLASSES[sample % 2] for sample in good]
    other = [HOSTILE if sample == 0 else CLASSES[(sample + 1) % 2] for sample in good]
    agreement = np.linspace(0.0, 0.4, len(good))
    return pd.DataFrame(
        {"sample": good, "class": own, "neighbors_class": other, "agreement": agreement, "share": 1 - agreement}
    )


def thumbnails(samples: int, bad: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(N, 32, 32, 3) uint8: the middle square of every image, 0 where it is unreadable."""
    tiles = np.zeros((samples, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
    for sample in np.flatnonzero(~bad).tolist():
        image = read_image(sample)
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        crop = image[top : top + side, left : left + side]
        tiles[sample] = cv2.resize(crop, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    return tiles


def present(samples: int, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N, K + 1): whether each concept is drawn in each sample."""
    found = np.zeros((samples, len(NAMES) + 1), np.bool_)
    for sample in np.flatnonzero(~bad).tolist():
        found[sample, [1 + kind for kind, *_ in things_in(sample)]] = True
    found[:, 5] = False  # one concept never occurs
    return found


def presence(samples: int, bad: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Array `presence` of those samples."""
    packed = np.packbits(present(samples, bad), axis=1, bitorder="little")
    return packed[:, : bytes_of(len(NAMES))]


def _plant_peaks(run: Run, layer: str, folder: str) -> None:
    shards = [run.arrays.read_shard(layer_array(folder, ACTIVATIONS), shard) for shard in range(run.plan.count)]
    _plant(run, layer_array(folder, PEAKS), np.concatenate(shards).max(axis=(2, 3)))


def _plant(run: Run, name: str, values: NDArray[np.generic]) -> None:
    run.arrays.create(name, values.shape[1:], str(values.dtype))
    for shard in range(run.plan.count):
        rows = run.plan.samples_of(shard)
        run.arrays.write_shard(name, shard, values[rows.start : rows.stop])
