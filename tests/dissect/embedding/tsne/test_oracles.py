"""Whole maps against openTSNE on the same affinities, and of digits against their labels."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.affinities import dense_divergence
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from sklearn.datasets import load_digits

from microtome.dissect.embedding.graph import neighbor_graph
from microtome.dissect.embedding.parallel import Pool
from microtome.dissect.embedding.pca import PCA, moments
from microtome.dissect.embedding.tsne.affinities import gaussian_affinities
from microtome.dissect.embedding.tsne.layout import MapSettings, align, lay_out
from microtome.dissect.embedding.tsne.optimise import Phase, descend
from microtome.dissect.embedding.vectors import ArrayVectors


def accuracy(points: NDArray[np.generic], labels: NDArray[np.generic], k: int = 10) -> float:
    """Share of the points whose k nearest others mostly have their label."""
    near = labels[cKDTree(points).query(points, k + 1)[1][:, 1:]]
    votes = np.array([np.bincount(row, minlength=10).argmax() for row in near])
    return float((votes == labels).mean())


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    images, labels = load_digits(return_X_y=True)
    return images.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize(
    "settings", [MapSettings(), MapSettings(seed=7), MapSettings(perplexity=30.0), MapSettings(landmarks=900)]
)
def test_digits_part_on_the_map_as_they_do_in_feature_space(
    digits: tuple[NDArray[np.float32], NDArray[np.int64]], settings: MapSettings
) -> None:
    images, labels = digits
    found = lay_out(ArrayVectors(images), settings)
    assert accuracy(found.positions, labels) >= 0.97 * accuracy(images, labels)
    assert found.positions.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-2)


def test_a_map_begun_from_another_stays_like_it(digits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    images, labels = digits
    first = lay_out(ArrayVectors(images), MapSettings()).positions
    other = images + 2.0 * np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    second = align(lay_out(ArrayVectors(other), MapSettings(), initial=first).positions, first)
    middles = [np.stack([points[labels == digit].mean(axis=0) for digit in range(10)]) for points in (first, second)]
    width = float(first.std())
    assert np.linalg.norm(middles[0] - middles[1], axis=1).mean() < 0.5 * width


def test_divergence_and_recall_are_those_of_opentsne(digits: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    openTSNE = pytest.importorskip("openTSNE")
    vectors = ArrayVectors(digits[0])
    graph = neighbor_graph(vectors, 90)
    start = PCA.fit(moments(vectors), 2).transform(digits[0])
    start *= 1e-4 / start[:, 0].std()
    phases = (Phase(250, 12.0), Phase(500, 1.0))
    with Pool(1) as pool:
        affinities = gaussian_affinities(graph.indices, graph.distances, 30.0, pool)
        ours = descend(affinities, start, phases, pool)
    matrix = csr_matrix((affinities.weights.astype(np.float64), affinities.neighbors, affinities.starts))
    given = openTSNE.affinity.PrecomputedAffinities(matrix, normalize=False)
    theirs = openTSNE.TSNEEmbedding(start.astype(np.float64), given, negative_gradient_method="bh", random_state=0)
    for phase in phases:
        theirs.optimize(phase.iterations, exaggeration=phase.exaggeration, inplace=True)
    divergences = [dense_divergence(affinities, np.asarray(found)) for found in (ours.positions, theirs)]
    assert divergences[0] < 1.02 * divergences[1]
    assert ours.divergence == pytest.approx(divergences[0], rel=1e-3)
    recalls = [recall(graph.indices, np.asarray(found)) for found in (ours.positions, theirs)]
    assert recalls[0] > recalls[1] - 0.01


def recall(neighbors: NDArray[np.int32], positions: NDArray[np.generic]) -> float:
    """Share of the ten nearest in feature space that are among the ten nearest on the map."""
    near = cKDTree(positions).query(positions, 11)[1][:, 1:]
    return float(np.mean([len(set(a) & set(b)) for a, b in zip(near, neighbors[:, :10], strict=True)])) / 10
