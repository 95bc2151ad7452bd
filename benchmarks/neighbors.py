"""Neighbours of one image among a million: exact, by an index, and whether they are of the same class in real images.

The vectors of the first table are made up: clouds of a hundred in 40 dimensions, turned into 512, with noise in all of
them, rectified. Where the real inputs lie beside the project (tests/helpers/real.py), those of the second are what
MobileNet-V1 has at the positions of its layer pointwise.10 over photo cut-outs (1,000 images, about 200,000 vectors of
512; `IMAGES=5100` makes it a million), and the third compares features and pixels: precision@10 is the share of the ten
nearest that show the class that covers most of the query.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import decode_image, resize_crop
from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.forward import Forward
from microtome.dissect.audit.job import choose_device, load_configured
from microtome.dissect.audit.prepare import divide
from microtome.dissect.embedding.crops import pixel_vectors
from microtome.dissect.embedding.index import K, build_index
from microtome.dissect.embedding.pca import PCA, PCAVectors, moments, whitened_components
from microtome.dissect.embedding.search import ExactSearch, nearest
from microtome.dissect.embedding.spaces import open_space
from microtome.dissect.embedding.vectors import ArrayVectors, Floats, LayerVectors, Vectors, in_memory
from microtome.storage.arrays import LABELS, MEANS, layer_array
from microtome.storage.run import Run
from microtome.storage.schema import RunInfo
from microtome.storage.shards import plan_shards

KIT = Path(__file__).resolve().parents[2] / "shared" / "real"
DIMS, INSIDE, CLOUD, BLOCK = 512, 40, 100, 50_000
LAYER = "layer"
REAL_LAYER, FEATURES = "pointwise.10", "_swish@2"
THREADS = available_cores()


def run(quick: bool) -> dict[str, Any]:
    """Seconds of one query in each way, recall, and precision@10."""
    rows = 20_000 if quick else 1_000_000
    images = int(os.environ.get("IMAGES", "100" if quick else "1000"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matrix = made_up(rows)
        result: dict[str, Any] = {
            "load before": os.getloadavg()[0],
            f"made-up vectors of {DIMS}, {THREADS} threads": [
                _compared(metric, ArrayVectors(matrix)) for metric in ("euclidean", "cosine")
            ],
            "from a run on disk": _from_disk(folder / "run", matrix),
        }
        del matrix
        if (KIT / "README.md").is_file():
            found = _stamps(folder / "many", images)
            vectors = ArrayVectors(positions(found))
            result["real vectors"] = [_compared(metric, vectors) for metric in ("euclidean", "cosine")]
            result["precision@10 on the stamps"] = _precision(_stamps(folder / "stamps", 60 if quick else 600), folder)
    return result


def made_up(rows: int) -> Floats:
    """(rows, 512) float32, as the module's docstring has it."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(10, rows // CLOUD), INSIDE)).astype(np.float32)
    turned = rng.normal(size=(INSIDE, DIMS)).astype(np.float32)
    matrix = np.empty((rows, DIMS), np.float32)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        inside = centres[rng.integers(0, len(centres), count)]
        inside = inside + np.float32(0.4) * rng.standard_normal((count, INSIDE), np.float32)
        noise = 2 * rng.standard_normal((count, DIMS), np.float32)
        matrix[start : start + count] = np.maximum(inside @ turned + noise, 0)
    return matrix


def _compared(metric: str, vectors: Vectors) -> dict[str, object]:
    """Vectors in memory: one query exactly, the first and the later ones, and by an index."""
    rows = np.random.default_rng(1).permutation(vectors.rows)[:200]
    queries = np.concatenate([vectors.read(row, row + 1) for row in rows.tolist()])
    exact = ExactSearch(vectors, metric, threads=THREADS)
    first = _seconds(lambda: exact.nearest(queries[:1], K))
    warm = min(_seconds(lambda query=query: exact.nearest(query[None], K)) for query in queries[:20])
    start = time.perf_counter()
    index = build_index(vectors, metric, threads=THREADS)
    built = time.perf_counter() - start
    fast = float(np.median([_seconds(lambda query=query: index.nearest(vectors, query, K)) for query in queries]))
    return {
        "vectors": vectors.rows,
        "metric": metric,
        "exact, first s": first,
        "exact s": warm,
        "index s": fast,
        "ratio": warm / fast,
        "recall@10": index.info.recall,
        "of": index.info.sample,
        "build s": built,
        "MB": len(index.pack()[0]) / 1e6,
    }


def _from_disk(path: Path, matrix: Floats) -> list[dict[str, object]]:
    """A run whose files the system has in its cache, opened anew for each."""
    write_run(path, matrix)
    query = matrix[7]
    opened = lambda method: open_space(Run.open(path), LAYER, "euclidean", whiten=False, method=method, threads=THREADS)  # noqa: E731
    opened("approximate")
    return [
        {
            "vectors": len(matrix),
            "all into memory s": _seconds(lambda: in_memory(LayerVectors(Run.open(path), LAYER), THREADS)),
            "exact s": _seconds(lambda: opened("exact").nearest(query, K)),
            "index s": _seconds(lambda: opened("approximate").nearest(query, K)),
        }
    ]


def write_run(path: Path, matrix: Floats) -> None:
    """A run of one layer that holds nothing but its means."""
    rows, dims = matrix.shape
    plan = plan_shards(rows, 4 * dims)
    info = {
        "schema_version": 1,
        "microtome": "",
        "config": {},
        "model": {"fingerprint": ""},
        "data": {"samples": rows, "fingerprint": ""},
        "layers": [{"name": LAYER, "folder": LAYER, "units": dims, "grid": [1, 1], "scale": 1.0}],
        "label_size": [1, 1],
        "shards": {"samples": plan.shard, "chunk": plan.chunk, "count": plan.count},
        "stages": {},
        "versions": {},
    }
    made = Run.create(path, cast("RunInfo", info))
    made.write_table("samples", pd.DataFrame({"status": np.full(rows, "ok")}))
    name = layer_array(LAYER, MEANS)
    made.arrays.create(name, (dims,), "float32")
    for shard, samples in enumerate(plan):
        made.arrays.write_shard(name, shard, matrix[samples.start : samples.stop])


def _stamps(folder: Path, count: int) -> Path:
    """Photo cut-outs on photos, made by the kit."""
    command = [
        sys.executable,
        str(KIT / "stamps.py"),
        str(folder),
        "--count",
        str(count),
        "--size",
        "224",
        "--seed",
        "0",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def positions(folder: Path) -> Floats:
    """What MobileNet-V1 has at every position of every image: (images * 196, 512) float32."""
    config = AuditConfig(
        model=f"{KIT}/classifiers.py:mobilenet_v1", dataset=f"folder:{folder}", layers=(REAL_LAYER,), out=folder / "no"
    )
    choose_device(config.device)
    model = load_configured(config)
    files = sorted((folder / "images").rglob("*.jpg"))
    parts = []
    with Forward(model, [REAL_LAYER], divide(config)) as forward:
        for start in range(0, len(files), 16):
            crops = []
            for file in files[start : start + 16]:
                image = decode_image(file, file.name)
                geometry = CropGeometry.of(*image.shape[:2], size=model.preprocess.size, resize=model.preprocess.resize)
                crops.append(resize_crop(image, geometry))
            maps = forward.submit(crops).wait()[REAL_LAYER]
            parts.append(maps.reshape(*maps.shape[:2], -1).transpose(0, 2, 1).reshape(-1, maps.shape[1]))
    return np.concatenate(parts).astype(np.float32)


def _precision(folder: Path, out: Path) -> list[dict[str, object]]:
    """The share of the ten nearest that show the class covering most of the query, by features and by pixels."""
    done = run_audit(
        AuditConfig(
            model=f"{KIT}/classifiers.py:efficientnet_lite0",
            dataset=f"folder:{folder}",
            layers=(FEATURES, "_blocks.10", "_blocks.4"),
            out=out / "audited",
            map=False,
        )
    ).run
    labels = np.concatenate([done.arrays.read_shard(LABELS, shard) for shard in range(done.plan.count)])
    concepts = len(done.table("concepts"))
    areas = np.stack([np.bincount(sample.ravel(), minlength=concepts + 1) for sample in labels])
    areas[:, 0] = 0
    rows = [
        {"by": f"{layer}, {metric}", **share_of_class(LayerVectors(done, layer), areas, metric)}
        for layer in done.layer_names
        for metric in ("euclidean", "cosine")
    ]
    deep = LayerVectors(done, done.layer_names[-1])
    white = PCAVectors(deep, PCA.fit(moments(deep), whitened_components(deep.rows)), whiten=True)
    rows.append({"by": f"{done.layer_names[-1]}, whitened, euclidean", **share_of_class(white, areas, "euclidean")})
    pixels = pixel_vectors(done, np.arange(done.plan.samples), THREADS)
    return [*rows, {"by": "pixels, euclidean", **share_of_class(pixels, areas, "euclidean")}]


def share_of_class(vectors: Vectors, areas: NDArray[np.int64], metric: str) -> dict[str, object]:
    """areas: (N, K + 1) labelled pixels of each class. Queries without a label are left out."""
    asked = np.flatnonzero(areas.any(axis=1))
    matrix = in_memory(vectors, THREADS)
    found = nearest(vectors, matrix[asked], K, metric, without=asked, threads=THREADS)
    largest = areas[asked].argmax(axis=1)
    hits = areas[found.indices, largest[:, None]] > 0
    chance = (areas > 0).mean(axis=0)[largest].mean()
    return {"queries": len(asked), "precision@10": float(hits.mean()), "by chance": float(chance)}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
