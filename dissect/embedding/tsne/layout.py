"""The map of a whole dataset: t-SNE of all vectors, by way of landmarks where they are very many."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.graph import EXACT_ROWS, Graph, Search, graph_bytes, neighbor_graph
from microtome.dissect.embedding.inverted import FINE
from microtome.dissect.embedding.parallel import Pool
from microtome.dissect.embedding.pca import PCA, coordinates, moments
from microtome.dissect.embedding.seeds import check_seed
from microtome.dissect.embedding.tsne.affinities import (
    NEIGHBORS_PER_PERPLEXITY,
    Affinities,
    gaussian_affinities,
    uniform_affinities,
)
from microtome.dissect.embedding.tsne.kernels import Points
from microtome.dissect.embedding.tsne.landmarks import Chosen, place_others
from microtome.dissect.embedding.tsne.optimise import Arrays, Descended, InterruptedLayoutError, Phase, descend
from microtome.dissect.embedding.vectors import Vectors
from microtome.storage.errors import UsageError

START = 1e-4
"""Standard deviation of the points along the wider direction before the first step (Kobak and Berens 2019)."""

JITTER = 0.01
"""Of that: random shifts, so that points that start at one place can part."""

Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MapSettings:
    """How a map is computed.

    neighbors: of each point that it is drawn to, all alike; perplexity: with Gaussian affinities in their place (and
    three times as many neighbours). iterations: in all, of which `early` with `exaggeration`. landmarks: more points
    than these are placed around a map of so many, after which `refine` iterations move all of them.
    """

    perplexity: float | None = None
    neighbors: int = 15
    iterations: int = 750
    early: int = 250
    exaggeration: float = 12.0
    seed: int = 0
    landmarks: int = 1_000_000
    refine: int = 100

    def __post_init__(self) -> None:
        if self.perplexity is not None and not 1.0 < self.perplexity <= 1000.0:
            raise UsageError(f"perplexity is {self.perplexity:g}; give a number above 1 and at most 1000")
        if not 1 <= self.neighbors <= 1000:
            raise UsageError(f"neighbors is {self.neighbors}; a point is drawn to 1 to 1000 others")
        if not 0 <= self.early <= self.iterations:
            raise UsageError(f"early is {self.early}; it lies within the {self.iterations} iterations of a map")
        check_seed(self.seed)

    def k(self, points: int) -> int:
        """Neighbours that are looked for among so many points; with few points those that are near are fewer."""
        if self.perplexity is not None:
            return int(NEIGHBORS_PER_PERPLEXITY * self.perplexity)
        return max(1, min(self.neighbors, (points - 1) // 3))


@dataclass(frozen=True)
class Layout:
    """positions: (N, 2) float32; graph: the neighbours that drew them together; kl: Kullback-Leibler divergence of the
    map from their affinities, in nats; iterations: over all points."""

    positions: Points
    graph: Graph
    kl: float
    iterations: int
    info: dict[str, Any] = field(default_factory=dict)


class Checkpoint(Protocol):
    """Keeps where a map has got to."""

    def load(self) -> dict[str, NDArray[np.generic]] | None:
        """What was saved last."""
        ...

    def save(self, arrays: Mapping[str, NDArray[np.generic]], /) -> None:
        """Save it."""
        ...


def lay_out(
    vectors: Vectors,
    settings: MapSettings = MapSettings(),
    *,
    initial: Points | None = None,
    pca: PCA | None = None,
    search: Search | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Told | None = None,
    stop: Callable[[], bool] | None = None,
    threads: int = 1,
) -> Layout:
    """A map of `vectors`: t-SNE (van der Maaten and Hinton 2008) on Euclidean distances.

    initial: (N, 2) positions to begin from, another map say, in place of the first two principal components; only
    their shape counts, not their size. pca: of the vectors, where it is known already; search: looks for the
    neighbours of all points, where they are many. The same result for any number of `threads`, and whether or not it
    goes on from a `checkpoint`. Raises InterruptedLayoutError once `stop` says so.
    """
    started = time.monotonic()
    told = progress or (lambda part, done, total: None)
    with Pool(threads) as pool:
        if pca is None and vectors.rows > 1 and (initial is None or vectors.rows > EXACT_ROWS):
            pca = PCA.fit(moments(vectors, threads), FINE)
        work = _Work(vectors, settings, pca, search, pool, checkpoint, told, stop)
        work.resume()
        if initial is None:
            initial = coordinates(vectors, pca)
        done = work.whole(initial) if vectors.rows <= settings.landmarks else work.by_landmarks(initial)
    info = {**asdict(settings), "graph": work.graph.info, "seconds": round(time.monotonic() - started, 2)}
    return Layout(done.positions, work.graph, done.divergence, done.iterations, info)


def align(positions: Points, onto: Points) -> Points:
    """`positions` (N, 2), turned and mirrored, not scaled, such that they lie as near to `onto` as they can.

    The orthogonal Procrustes problem (Schönemann 1966); both are taken about their means, and the result is centred.
    """
    here = positions.astype(np.float64) - positions.mean(axis=0, dtype=np.float64)
    there = onto.astype(np.float64) - onto.mean(axis=0, dtype=np.float64)
    left, _, right = np.linalg.svd(here.T @ there)
    return np.asarray(here @ (left @ right), dtype=np.float32)


def memory_needed(rows: int, dims: int, settings: MapSettings = MapSettings()) -> int:
    """About how many bytes `lay_out` takes at most for `rows` vectors of `dims` numbers, besides the vectors."""
    k = settings.k(rows)
    pairs = rows * k
    searching = graph_bytes(rows, dims, k)
    joining = pairs * 8 + 2 * pairs * 8 + 2 * pairs * 8
    descending = pairs * 8 + 3 * (2 * pairs * 8) + rows * 64 + 2**27
    return max(searching, joining, descending) + 2**27


@dataclass
class _Work:
    """A map in the making, and what of it is kept at a checkpoint."""

    vectors: Vectors
    settings: MapSettings
    pca: PCA | None
    search: Search | None
    pool: Pool
    checkpoint: Checkpoint | None
    told: Told
    stop: Callable[[], bool] | None
    found: dict[str, Graph] = field(default_factory=dict)
    kept: Arrays = field(default_factory=dict)
    state: dict[str, Arrays] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        """Of all points."""
        return self.found["all"]

    def whole(self, initial: Points) -> Descended:
        """All points from the start to the end."""
        settings = self.settings
        phases = (
            Phase(settings.early, settings.exaggeration),
            Phase(settings.iterations - settings.early, 1.0),
        )
        return self.descend("all", self.vectors, self.ready(initial), phases)

    def by_landmarks(self, initial: Points) -> Descended:
        """A map of some points; the others beside those that they are near to; then all move a little."""
        settings = self.settings
        rows = Chosen.draw(self.vectors, settings.landmarks, settings.seed)
        positions = self.kept.get("landmarks")
        if positions is None:
            phases = (
                Phase(settings.early, settings.exaggeration),
                Phase(settings.iterations - settings.early, 1.0),
            )
            positions = self.descend("landmarks", rows, self.ready(initial[rows.chosen]), phases).positions
            self.kept["landmarks"] = positions
            self.found.pop("landmarks")
            self.state.pop("landmarks", None)
        graph = self.graph_of("all", self.vectors)
        placed = place_others(graph.indices, graph.distances, rows.chosen, positions.astype(np.float32))
        return self.descend("all", self.vectors, placed, (Phase(settings.refine, 1.0),))

    def ready(self, initial: Points) -> Points:
        """`initial` at the size that a descent begins with, shifted a little at random."""
        centred = initial.astype(np.float64) - initial.mean(axis=0, dtype=np.float64)
        centred *= START / (float(centred.std(axis=0).max()) or 1.0)
        noise = np.random.default_rng(self.settings.seed).normal(size=centred.shape)
        return np.asarray(centred + JITTER * START * noise, dtype=np.float32)

    def descend(self, name: str, vectors: Vectors, initial: Points, phases: tuple[Phase, ...]) -> Descended:
        """Affinities of `vectors`, and the descent from `initial`."""
        affinities = self.affinities(self.graph_of(name, vectors))

        def save(state: Arrays) -> None:
            self.state[name] = state
            self.save()

        return descend(
            affinities,
            initial,
            phases,
            self.pool,
            resumed=self.state.get(name),
            save=save,
            progress=lambda done, total: self.told("map" if name == "all" else name, done, total),
            stop=self.stop,
        )

    def affinities(self, graph: Graph) -> Affinities:
        """As the settings have them."""
        self.told("affinities", 0, 1)
        perplexity = self.settings.perplexity
        if perplexity is None:
            return uniform_affinities(graph.indices, self.pool)
        k = graph.indices.shape[1]
        return gaussian_affinities(graph.indices, graph.distances, min(perplexity, max(1.0, k / 3)), self.pool)

    def graph_of(self, name: str, vectors: Vectors) -> Graph:
        """The neighbours of `vectors`, looked for once."""
        if name not in self.found:
            self.found[name] = neighbor_graph(
                vectors,
                self.settings.k(vectors.rows),
                pca=self.pca,
                seed=self.settings.seed,
                threads=self.pool.threads,
                search=self.search if name == "all" else None,
                progress=self.searched,
            )
            if vectors.rows > EXACT_ROWS:
                self.save()
        return self.found[name]

    def searched(self, done: int, total: int) -> None:
        """Tell how far the search is. Raises InterruptedLayoutError where it is to go no further."""
        if self.stop is not None and self.stop():
            raise InterruptedLayoutError
        self.told("neighbors", done, total)

    # What a checkpoint holds: NAME/graph and NAME/state of the descents, and the landmarks' positions.

    def save(self) -> None:
        """Save all that there is."""
        if self.checkpoint is None:
            return
        arrays = dict(self.kept)
        for name, graph in self.found.items():
            arrays |= {f"{name}/graph/indices": graph.indices, f"{name}/graph/distances": graph.distances}
        for name, state in self.state.items():
            arrays |= {f"{name}/state/{part}": values for part, values in state.items()}
        self.checkpoint.save(arrays)

    def resume(self) -> None:
        """Take up what was saved."""
        arrays = None if self.checkpoint is None else self.checkpoint.load()
        for key, values in (arrays or {}).items():
            name, _, part = key.partition("/")
            if part.startswith("state/"):
                self.state.setdefault(name, {})[part.removeprefix("state/")] = values
            elif not part:
                self.kept[name] = values
        for name in ("all", "landmarks"):
            if arrays is not None and f"{name}/graph/indices" in arrays:
                indices, distances = (arrays[f"{name}/graph/{part}"] for part in ("indices", "distances"))
                self.found[name] = Graph(np.array(indices, np.int32), np.array(distances, np.float32))
