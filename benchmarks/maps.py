"""Maps of many points: against openTSNE on the same affinities, repulsion against all pairs, growth, and memory.

The vectors are real: what `block4` of the built-in classifier answers at every position of scenes (or the rows of the
.npy file that EMBEDDINGS names). COUNTS="100000,1000000" chooses the sizes of the growth table, COMPARE=100000 that of
the comparison. openTSNE is given the same affinities, start, phases and threads, and its interpolation by FFT.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from microtome.datasets.specs import open_dataset
from microtome.dissect.audit.images import read_item
from microtome.dissect.embedding.graph import neighbor_graph
from microtome.dissect.embedding.parallel import Pool
from microtome.dissect.embedding.pca import PCA, moments
from microtome.dissect.embedding.search import nearest
from microtome.dissect.embedding.tsne.affinities import Affinities, gaussian_affinities, uniform_affinities
from microtome.dissect.embedding.tsne.layout import MapSettings, lay_out, memory_needed
from microtome.dissect.embedding.tsne.optimise import Phase, descend
from microtome.dissect.embedding.tsne.repulsion import Repulsion
from microtome.dissect.embedding.vectors import ArrayVectors
from microtome.dissect.models import load_model
from microtome.dissect.models.model import normalise

THREADS = os.cpu_count() or 1
PHASES = (Phase(250, 12.0), Phase(500, 1.0))
FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench"
BATCH = 32


def run(quick: bool) -> dict[str, Any]:
    """All tables; the comparison first, while nothing else is in memory."""
    compared = int(os.environ.get("COMPARE", "5000" if quick else "100000"))
    counts = [int(n) for n in os.environ.get("COUNTS", "5000,20000" if quick else "100000,1000000").split(",")]
    path = embeddings(max(compared, *counts))
    vectors = np.load(path, mmap_mode="r")
    picked = np.random.default_rng(0).choice(len(vectors), max(20_000, compared), replace=len(vectors) < 20_000)
    rows = np.ascontiguousarray(vectors[np.sort(picked[:compared])])
    result: dict[str, Any] = {"load before": os.getloadavg()[0], "vectors": f"{path.name}, {vectors.shape}"}
    for name, perplexity in (("perplexity 30", 30.0), ("15 neighbours", None)):
        result[f"{compared} points, {name}"] = against_opentsne(rows, perplexity)
    small = np.ascontiguousarray(vectors[np.sort(picked[:20_000])])
    result["repulsion, 20000 points"] = repulsion_rows(small)
    grown = [json.loads(in_a_process(path, count)) for count in counts]
    for before, after in itertools.pairwise(grown):
        after["exponent"] = math.log(after["seconds"] / before["seconds"]) / math.log(
            after["points"] / before["points"]
        )
    grown[0]["exponent"] = float("nan")
    result["growth"] = grown
    return result


def embeddings(count: int) -> Path:
    """An .npy of at least `count` vectors, in random order."""
    if given := os.environ.get("EMBEDDINGS"):
        return Path(given)
    path = FOLDER / f"embeddings-{count}.npy"
    if path.is_file():
        return path
    model = load_model("builtin:scenes-cnn")
    caught: list[torch.Tensor] = []
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.preprocess.mean, model.preprocess.std))
    model.module.get_submodule("block4").register_forward_hook(lambda module, given, found: caught.append(found))
    item = read_item(open_dataset("scenes:1"), 0, model.preprocess, (8, 8))
    with torch.inference_mode():
        model.module(normalise(torch.from_numpy(item.image[None]), mean, std, torch.contiguous_format))
    _, dims, height, width = caught.pop().shape
    scenes = -(-count // (height * width))
    dataset, order = open_dataset(f"scenes:{scenes}"), np.random.default_rng(0).permutation(scenes * height * width)
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = np.lib.format.open_memmap(path.with_suffix(".part.npy"), "w+", np.float32, (len(order), dims))
    with torch.inference_mode():
        for start in range(0, scenes, BATCH):
            images = [
                read_item(dataset, index, model.preprocess, (8, 8)).image
                for index in range(start, min(start + BATCH, scenes))
            ]
            model.module(normalise(torch.from_numpy(np.stack(images)), mean, std, torch.contiguous_format))
            found = caught.pop().permute(0, 2, 3, 1).reshape(-1, dims).numpy()
            rows[order[start * height * width :][: len(found)]] = found
    rows.flush()
    path.with_suffix(".part.npy").rename(path)
    return path


def against_opentsne(rows: NDArray[np.float32], perplexity: float | None) -> list[dict[str, object]]:
    """Time, divergence (over all pairs) and recall@10 of both, from the same affinities and start."""
    import openTSNE

    vectors = ArrayVectors(rows)
    graph = neighbor_graph(vectors, 15 if perplexity is None else int(3 * perplexity), threads=THREADS)
    start = PCA.fit(moments(vectors, THREADS), 2).transform(rows)
    start *= 1e-4 / start[:, 0].std()
    with Pool(THREADS) as pool:
        if perplexity is None:
            affinities = uniform_affinities(graph.indices, pool)
        else:
            affinities = gaussian_affinities(graph.indices, graph.distances, perplexity, pool)
        descend(affinities, start, (Phase(2, 12.0),), pool)  # compiled, and FFTs planned
        ours = measured("microtome", rows, affinities, lambda: descend(affinities, start, PHASES, pool).positions)
    matrix = csr_matrix((affinities.weights.astype(np.float64), affinities.neighbors, affinities.starts))

    def theirs() -> NDArray[np.float32]:
        given = openTSNE.affinity.PrecomputedAffinities(matrix, normalize=False)
        embedding = openTSNE.TSNEEmbedding(
            start.astype(np.float64), given, negative_gradient_method="fft", n_jobs=THREADS, random_state=0
        )
        for phase in PHASES:
            embedding.optimize(phase.iterations, exaggeration=phase.exaggeration, inplace=True)
        return np.asarray(embedding, dtype=np.float32)

    other = measured("openTSNE", rows, affinities, theirs)
    for row in (ours, other):
        row["of openTSNE's time"] = row["seconds"] / other["seconds"]
        row["divergence against it"] = row["divergence"] / other["divergence"] - 1.0
    return [ours, other]


def measured(name: str, rows: NDArray[np.float32], affinities: Affinities, make: Any) -> dict[str, Any]:
    """Run `make`, and judge its map."""
    begun, cpu = time.perf_counter(), time.process_time()
    positions = make()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "engine": name,
        "seconds": seconds,
        "CPU s": cpu,
        "divergence": divergence(affinities, positions),
        "recall@10": recall(rows, positions),
    }


def divergence(affinities: Affinities, positions: NDArray[np.float32]) -> float:
    """Kullback-Leibler, its normaliser summed over all pairs in float64."""
    points = positions.astype(np.float64)
    total = all_pairs(points)[1]
    row = np.repeat(np.arange(affinities.points), np.diff(affinities.starts))
    p = affinities.weights.astype(np.float64)
    apart = ((points[row] - points[affinities.neighbors]) ** 2).sum(axis=1)
    return float((p * np.log(np.maximum(p, 1e-300) * (1.0 + apart) * total)).sum())


def recall(rows: NDArray[np.float32], positions: NDArray[np.float32], k: int = 10, sample: int = 1000) -> float:
    """Share of the k nearest in the space of the vectors that are among the k nearest on the map."""
    chosen = np.random.default_rng(1).choice(len(rows), min(sample, len(rows)), replace=False)
    exact = nearest(ArrayVectors(rows), rows[chosen], k + 1, threads=THREADS).indices
    near = cKDTree(positions).query(positions[chosen], k + 1)[1]
    hits = [
        len((set(a) - {row}) & set([b for b in theirs if b != row][:k]))
        for a, theirs, row in zip(near.tolist(), exact.tolist(), chosen.tolist(), strict=True)
    ]
    return float(np.mean(hits)) / k


def repulsion_rows(rows: NDArray[np.float32]) -> list[dict[str, object]]:
    """Error of the repulsive forces against the sum over all pairs, at several moments of a map."""
    vectors = ArrayVectors(rows)
    graph = neighbor_graph(vectors, 15, threads=THREADS)
    start = PCA.fit(moments(vectors, THREADS), 2).transform(rows)
    start *= 1e-4 / start[:, 0].std()
    found = []
    with Pool(THREADS) as pool:
        affinities = uniform_affinities(graph.indices, pool)
        for early, late in ((100, 0), (250, 0), (250, 100), (250, 500)):
            positions = descend(affinities, start, (Phase(early, 12.0), Phase(late, 1.0)), pool).positions
            exact, total = all_pairs(positions.astype(np.float64))
            forces = np.empty_like(positions)
            normaliser = Repulsion(pool)(positions, forces)
            apart = np.linalg.norm(forces / normaliser - exact / total, axis=1)
            size = np.linalg.norm(exact / total, axis=1)
            found.append(
                {
                    "iterations": early + late,
                    "width": float(np.ptp(positions, axis=0).max()),
                    "relative error": float(np.linalg.norm(apart) / np.linalg.norm(size)),
                    "median of points": float(np.median(apart / size)),
                    "Z": normaliser / total - 1.0,
                }
            )
    return found


@numba.njit(parallel=True, fastmath=True, cache=True)  # type: ignore[untyped-decorator]
def all_pairs(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """sum_j k² (y_i - y_j) of every point and Z, with k = 1 / (1 + d²)."""
    count = len(points)
    forces, totals = np.zeros((count, 2)), np.zeros(count)
    for i in numba.prange(count):
        fx = fy = total = 0.0
        for j in range(count):
            dx, dy = points[i, 0] - points[j, 0], points[i, 1] - points[j, 1]
            k = 1.0 / (1.0 + dx * dx + dy * dy)
            total += k
            fx += k * k * dx
            fy += k * k * dy
        forces[i, 0], forces[i, 1], totals[i] = fx, fy, total - 1.0
    return forces, totals.sum()


def in_a_process(path: Path, count: int) -> str:
    """One map in a process of its own, for its peak memory; JSON."""
    command = [sys.executable, "-m", "benchmarks.maps", str(path), str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1]


class FileVectors:
    """The first rows of an .npy, read without mapping it, so that memory is the map's own."""

    def __init__(self, path: Path, rows: int) -> None:
        opened = np.load(path, mmap_mode="r")
        self._path, self._offset = path, int(opened.offset)
        self.rows, self.dims = rows, opened.shape[1]

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start ... stop - 1."""
        size = 4 * self.dims
        count = (stop - start) * self.dims
        return np.fromfile(self._path, np.float32, count, offset=self._offset + start * size).reshape(-1, self.dims)


def one_map(path: Path, count: int) -> dict[str, object]:
    """A map of the first `count` vectors, neighbours included."""
    lay_out(ArrayVectors(np.random.default_rng(0).normal(size=(100, 8))), MapSettings(early=2, iterations=4))  # compile
    seconds: dict[str, float] = {}
    clock = {"part": "components", "since": time.perf_counter()}

    def told(part: str, done: int, total: int) -> None:
        if part != clock["part"]:
            now = time.perf_counter()
            seconds[str(clock["part"])] = seconds.get(str(clock["part"]), 0.0) + now - float(clock["since"])
            clock.update(part=part, since=now)

    vectors = FileVectors(path, count)
    begun, cpu = time.perf_counter(), time.process_time()
    layout = lay_out(vectors, MapSettings(), progress=told, threads=THREADS)
    told("", 0, 0)
    return {
        "points": count,
        "seconds": time.perf_counter() - begun,
        "CPU s": time.process_time() - cpu,
        "neighbours s": layout.graph.info["seconds"],
        "map s": seconds["map"],
        "divergence": layout.kl,
        "peak GB": peak_bytes() / 1e9,
        "foretold GB": memory_needed(count, vectors.dims) / 1e9,
    }


def peak_bytes() -> float:
    """The most memory that this process had, without that of the one which began it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


if __name__ == "__main__":
    print(json.dumps(one_map(Path(sys.argv[1]), int(sys.argv[2]))))
