"""The map of one layer of a run: principal components, t-SNE, how far it is true, its clusters, odd labels.

What it is made of lies in the run: the layer's means, which concepts occur in each sample, the class labels. Nothing is
written before everything is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.embedding.clusters import Clusters, density_clusters
from microtome.dissect.embedding.disagreement import disagreements
from microtome.dissect.embedding.graph import EXACT_ROWS, Graph, Search, neighbor_graph
from microtome.dissect.embedding.naming import Presence, cluster_table
from microtome.dissect.embedding.pca import PCA, PCAVectors, coordinates, moments, whitened_components
from microtome.dissect.embedding.quality import map_quality
from microtome.dissect.embedding.search import nearest
from microtome.dissect.embedding.tsne.layout import Checkpoint, MapSettings, Told, align, lay_out, memory_needed
from microtome.dissect.embedding.vectors import ArrayVectors, LayerVectors, Vectors, gather, in_memory
from microtome.storage.arrays import PRESENCE
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry, MapInfo

ENGINE = "microtome t-SNE"
FLAT = "principal components"
"""What is drawn in place of a t-SNE that there cannot be."""
FEWEST = 5
"""Images that a t-SNE takes."""
FEW = 2000
"""Images up to which threads cost more than they give."""
COMPONENTS = 512
"""Principal components that are kept, at most."""
IN_MEMORY = 2**28
"""Bytes of vectors that are read once and kept; more are read as they are needed, again and again."""
VOTERS = 15
"""Nearest neighbours that vote on a sample's label."""
QUALITY_SEED = 0
RECALL_SAMPLE = 200
ENOUGH_FOUND = 0.9
ROUNDING = 1e-20
"""Variance below this share of the squared mean is that of float32 numbers that are the same."""


@dataclass(frozen=True)
class Wish:
    """The map that is wanted. whiten: of principal components that all count alike; umap: a UMAP beside it."""

    settings: MapSettings = field(default_factory=MapSettings)
    whiten: bool = False
    umap: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, for run.json."""
        return {**asdict(self.settings), "whiten": self.whiten, "umap": self.umap}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Wish:
        """Again; settings that this version does not know are left out."""
        known = {setting.name for setting in fields(MapSettings)}
        settings = MapSettings(**{name: value for name, value in values.items() if name in known})
        return cls(settings, bool(values.get("whiten")), bool(values.get("umap")))


@dataclass(frozen=True)
class Made:
    """A map and all that is stored of it: its entry in run.json, tables by name, and the components' arrays."""

    info: MapInfo
    tables: dict[str, pd.DataFrame]
    pca: dict[str, NDArray[np.generic]] | None

    def write(self, run: Run, layer: str) -> list[str]:
        """Store the tables and arrays of `layer`; returns their keys. Those of a former map are gone."""
        folder = f"layers/{run.layer(layer)['folder']}"
        run.place.delete(map_keys(run.layer(layer)))
        for name, table in self.tables.items():
            run.write_layer_table(layer, name, table)
        keys = [f"{folder}/{name}.parquet" for name in self.tables]
        if self.pca is not None:
            run.write_layer_arrays(layer, PCA_ARRAYS, self.pca)
            keys.append(f"{folder}/{PCA_ARRAYS}.safetensors")
        return keys


TABLES = ("map", "components", "clusters", "disagreements")
PCA_ARRAYS = "pca"


def map_keys(layer: LayerEntry) -> list[str]:
    """Where all that may be stored of the map of `layer` lies."""
    names = [f"{name}.parquet" for name in TABLES] + [f"{PCA_ARRAYS}.safetensors"]
    return [f"layers/{layer['folder']}/{name}" for name in names]


def bytes_needed(run: Run, wishes: Mapping[str, Wish]) -> int:
    """Memory that the most demanding of the maps that layers are to have takes, in bytes."""
    rows = run.plan.samples - run.info["data"]["unreadable"]
    needed = [0]
    for name, wish in wishes.items():
        dims = run.layer(name)["units"]
        needed.append(memory_needed(max(rows, 1), dims, wish.settings) + min(4 * rows * dims, IN_MEMORY))
    return max(needed)


@dataclass(frozen=True)
class How:
    """How the work is done, not what comes out. told: told how far each part of it is; stop: asked now and then;
    search: who looks for the neighbours of very many samples, None = this process."""

    checkpoint: Checkpoint | None = None
    told: Told = lambda part, done, total: None
    stop: Callable[[], bool] | None = None
    threads: int = 1
    search: Search | None = None


def make_map(run: Run, layer: str, wish: Wish, *, onto: str = "", how: How = How()) -> Made:
    """Compute the map of `layer`; nothing is written but the checkpoint.

    onto: the layer whose map it begins from and is turned onto, "" = none. The same result for any number of threads,
    and whether or not it goes on from a checkpoint. Raises InterruptedLayoutError once `how.stop` says so.
    """
    started = time.monotonic()
    vectors: Vectors = (readable := LayerVectors.finite(run, layer))
    samples = readable.samples
    left_out = int((run.table("samples")["status"] == "ok").sum()) - len(samples)
    if 4 * vectors.rows * vectors.dims <= IN_MEMORY:
        vectors = ArrayVectors(in_memory(vectors, how.threads))
    if vectors.rows < FEW:
        how = replace(how, threads=1)
    how.told("components", 0, 1)
    pca = PCA.fit(moments(vectors, how.threads), COMPONENTS) if vectors.rows > 1 else None
    flat = coordinates(vectors, pca)
    before = _former(run, onto, samples) if onto else None
    labels, class_names = classes_of(run, samples)
    plain = vectors
    if wish.whiten and pca is not None:
        vectors = PCAVectors(vectors, pca.first(whitened_components(vectors.rows)), whiten=True)
    drawn = _draw(vectors, wish, pca, flat, before, how)
    how.told("quality", 0, 1)
    clusters = density_clusters(drawn.positions)
    quality = map_quality(
        vectors, drawn.positions, labels, clusters=clusters.labels, seed=QUALITY_SEED, threads=how.threads
    ).info()
    found = graph_recall(vectors, drawn.graph, how.threads)
    quality["warnings"] = [*drawn.warnings, *_left_out(left_out), *_missed(found, drawn.graph), *quality["warnings"]]
    tables = {
        "map": _map_table(run.plan.samples, samples, drawn.positions, flat, clusters),
        "components": _components_table(pca),
        "clusters": _clusters_table(run, clusters, samples, labels, class_names),
    }
    if wish.umap:
        _add_umap(tables["map"], samples, vectors, wish.settings, drawn)
    if labels is not None:
        voters = _voters(plain, drawn.graph, wish, how)
        tables["disagreements"] = disagreements(voters, labels, class_names, samples)
    how.told("quality", 1, 1)
    info = MapInfo(
        settings=wish.to_dict(),
        engine=drawn.engine,
        kl=drawn.kl,
        iterations=drawn.iterations,
        samples=len(samples),
        seconds=round(time.monotonic() - started, 3),
        neighbors=drawn.graph.indices.shape[1],
        neighbors_recall=found,
        quality=quality,
        aligned_to=onto if before is not None else "",
    )
    return Made(info, tables, None if pca is None else pca.to_arrays())


@dataclass(frozen=True)
class _Drawn:
    """Positions (n, 2), the neighbours that they come from, and how they came about."""

    positions: NDArray[np.float32]
    graph: Graph
    engine: str
    kl: float = 0.0
    iterations: int = 0
    warnings: tuple[str, ...] = ()


def _draw(
    vectors: Vectors,
    wish: Wish,
    pca: PCA | None,
    flat: NDArray[np.float32],
    before: NDArray[np.float32] | None,
    how: How,
) -> _Drawn:
    """The t-SNE of `vectors` or, where they are too few or do not differ, their principal components `flat`."""
    if vectors.rows < FEWEST:
        return _flat(vectors, flat, f"Fewer than {FEWEST} images have no neighbourhoods to map", how)
    if pca is None or pca.total <= ROUNDING * float(pca.mean @ pca.mean):
        return _flat(vectors, flat, "The layer answers every image alike, so that there is nothing to map", how)
    layout = lay_out(
        vectors,
        wish.settings,
        initial=flat if before is None else before,
        pca=None if wish.whiten else pca,
        search=how.search,
        checkpoint=how.checkpoint,
        progress=how.told,
        stop=how.stop,
        threads=how.threads,
    )
    positions = layout.positions if before is None else align(layout.positions, before)
    return _Drawn(positions.astype(np.float32), layout.graph, ENGINE, float(layout.kl), layout.iterations)


def _flat(vectors: Vectors, flat: NDArray[np.float32], why: str, how: How) -> _Drawn:
    graph = neighbor_graph(vectors, VOTERS, threads=how.threads)
    return _Drawn(flat, graph, FLAT, warnings=(f"{why}: what is drawn are principal components.",))


def graph_recall(vectors: Vectors, graph: Graph, threads: int) -> float:
    """Share of the nearest neighbours that `graph` has, of some vectors drawn by lot; 1 where it is exact."""
    k = graph.indices.shape[1]
    if vectors.rows <= EXACT_ROWS:
        return 1.0
    rows = np.sort(np.random.default_rng(QUALITY_SEED).choice(vectors.rows, RECALL_SAMPLE, replace=False))
    true = nearest(vectors, gather(vectors, rows), k, without=rows, threads=threads)
    farthest = true.distances[:, -1:] * (1.0 + 1e-4)  # as near as the last of them is as good
    return round(float((graph.distances[rows] <= farthest).mean()), 4)


def _missed(found: float, graph: Graph) -> list[str]:
    if found >= ENOUGH_FOUND:
        return []
    k = graph.indices.shape[1]
    return [
        f"Of the {k} nearest neighbours of a point, which draw it, the search found {100 * found:.0f} % "
        f"(measured on {RECALL_SAMPLE} points)."
    ]


def _voters(plain: Vectors, graph: Graph, wish: Wish, how: How) -> NDArray[np.int32]:
    """(n, k) neighbours by the layer's own distances that vote on a sample's label: those of the map, if they do."""
    k = max(1, min(VOTERS, (plain.rows - 1) // 3))
    if wish.whiten or graph.indices.shape[1] < k:
        graph = neighbor_graph(plain, k, seed=wish.settings.seed, threads=how.threads)
    return graph.indices[:, :k]


def classes_of(run: Run, samples: NDArray[np.int64]) -> tuple[NDArray[np.int64] | None, list[str]]:
    """(n,) class of each of `samples`, -1 for none, and the names of the classes; None where no sample has a class."""
    every = run.table("samples")["label"].astype("Int64").fillna(-1)
    labels = np.asarray(every.to_numpy(np.int64), np.int64)[samples]
    if not (labels >= 0).any():
        return None, []
    names = list(run.info["data"]["class_names"])
    names += [f"class {number}" for number in range(len(names), int(labels.max()) + 1)]
    return labels, names


def _former(run: Run, layer: str, samples: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """(n, 2) where `samples` lie on the map of `layer`, or its middle for those not on it; None where it has no map."""
    if not run.has_layer_table(layer, "map"):
        return None
    found = run.layer_table(layer, "map")[["x", "y"]].to_numpy(np.float32)[samples]
    on_it = np.isfinite(found).all(axis=1)
    if not on_it.any():
        return None
    found[~on_it] = found[on_it].mean(axis=0)
    return found


def _map_table(
    total: int,
    samples: NDArray[np.int64],
    positions: NDArray[np.float32],
    flat: NDArray[np.float32],
    clusters: Clusters,
) -> pd.DataFrame:
    """One row for each of all samples; NaN and cluster -1 for those that are not on the map."""
    columns: dict[str, NDArray[np.generic]] = {"sample": np.arange(total)}
    for names, values in ((("x", "y"), positions), (("pca_x", "pca_y"), flat)):
        for number, name in enumerate(names):
            columns[name] = _spread(total, samples, values[:, number])
    cluster = np.full(total, -1, np.int32)
    cluster[samples] = clusters.labels
    return pd.DataFrame({**columns, "cluster": cluster})


def _spread(total: int, samples: NDArray[np.int64], values: NDArray[np.float32]) -> NDArray[np.float32]:
    column = np.full(total, np.nan, np.float32)
    column[samples] = values
    return column


def _components_table(pca: PCA | None) -> pd.DataFrame:
    none = np.zeros(0)
    variance, ratio = (none, none) if pca is None else (pca.variance, pca.ratio)
    return pd.DataFrame({"component": np.arange(len(variance)), "variance": variance, "ratio": ratio})


def _clusters_table(
    run: Run,
    clusters: Clusters,
    samples: NDArray[np.int64],
    labels: NDArray[np.int64] | None,
    class_names: Sequence[str],
) -> pd.DataFrame:
    concepts = run.table("concepts").sort_values("id")["name"].tolist()
    presence = None
    if run.keeps(PRESENCE) and concepts:
        presence = Presence(clusters.count, len(concepts))
        for shard, within in enumerate(run.plan):
            low, high = np.searchsorted(samples, (within.start, within.stop))
            bits = run.arrays.read_shard(PRESENCE, shard).astype(np.uint8)
            presence.update(clusters.labels[low:high], bits[samples[low:high] - within.start])
    return cluster_table(clusters, presence, concepts, labels, class_names)


def _add_umap(
    table: pd.DataFrame, samples: NDArray[np.int64], vectors: Vectors, settings: MapSettings, drawn: _Drawn
) -> None:
    """Add columns umap_x and umap_y, which begin from the map and take its neighbours."""
    from microtome.dissect.embedding.umap_map import umap_map

    neighbors, graph = settings.neighbors, drawn.graph
    held = (graph.indices, graph.distances) if graph.indices.shape[1] >= neighbors - 1 else None
    found = umap_map(in_memory(vectors), neighbors=neighbors, seed=settings.seed, initial=drawn.positions, graph=held)
    for number, name in enumerate(("umap_x", "umap_y")):
        table[name] = _spread(len(table), samples, found[:, number])


def _left_out(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count:,} images with activations that are not finite (NaN or infinite) are not on the map."]
