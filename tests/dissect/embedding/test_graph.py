"""The graph of nearest neighbours, exact and by the inverted file."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from microtome.dissect.embedding import graph as graphs
from microtome.dissect.embedding import inverted
from microtome.dissect.embedding.graph import neighbor_graph
from microtome.dissect.embedding.inverted import InvertedFile, without_oneself
from microtome.dissect.embedding.pca import PCA, moments
from microtome.dissect.embedding.vectors import ArrayVectors


def truth(points: NDArray[np.generic], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    apart = cdist(points.astype(np.float64), points.astype(np.float64))
    np.fill_diagonal(apart, np.inf)
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(apart, order, axis=1)


def points_of(count: int, dims: int, mean: float = 0.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(count)
    centres = rng.normal(size=(max(2, count // 50), dims))
    chosen = centres[rng.integers(len(centres), size=count)]
    return (chosen + 0.5 * rng.normal(size=(count, dims)) + mean).astype(np.float32)


@pytest.mark.parametrize(("count", "dims", "mean"), [(300, 5, 0.0), (300, 40, 1000.0), (3, 2, 0.0), (2, 1, 0.0)])
def test_exact_neighbours_are_those_of_all_pairs(count: int, dims: int, mean: float) -> None:
    points = points_of(count, dims, mean)
    found = neighbor_graph(ArrayVectors(points), 10, threads=2)
    indices, distances = truth(points, min(10, count - 1))
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5, atol=1e-5)
    assert found.info["method"] == "exact"


@pytest.mark.parametrize("count", [0, 1])
def test_without_others_there_are_no_neighbours(count: int) -> None:
    assert neighbor_graph(ArrayVectors(np.zeros((count, 3), np.float32)), 5).indices.shape == (count, 0)


def test_duplicates_are_each_others_neighbours_never_their_own() -> None:
    points = np.repeat(points_of(20, 4), 3, axis=0)
    found = neighbor_graph(ArrayVectors(points), 2)
    assert (found.indices // 3 == np.arange(60)[:, None] // 3).all()
    assert (found.indices != np.arange(60)[:, None]).all()
    np.testing.assert_array_equal(found.distances, 0.0)


@pytest.mark.parametrize("full", [0, inverted.FULL_BYTES])
@pytest.mark.parametrize("dims", [24, 160])
def test_the_inverted_file_finds_nearly_all_of_them(monkeypatch: pytest.MonkeyPatch, dims: int, full: int) -> None:
    monkeypatch.setattr(inverted, "FULL_BYTES", full)
    monkeypatch.setattr(inverted, "SCANNED", 1000)
    points = points_of(6000, dims, 30.0)
    expected, apart = truth(points, 15)
    monkeypatch.setattr(graphs, "EXACT_ROWS", 1000)
    heard: list[tuple[int, int]] = []
    found = neighbor_graph(ArrayVectors(points), 15, threads=2, progress=lambda *seen: heard.append(seen))
    assert found.info["method"] == "ivf"
    assert heard[-1] == (6000, 6000)
    assert (found.indices != np.arange(6000)[:, None]).all()
    right = [len(set(a) & set(b)) / 15 for a, b in zip(found.indices.tolist(), expected.tolist(), strict=True)]
    assert np.mean(right) > 0.95
    np.testing.assert_allclose(found.distances[:, 0], apart[:, 0], rtol=0.02)
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_the_inverted_file_gives_the_same_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "EXACT_ROWS", 1000)
    points = ArrayVectors(points_of(5000, 130))
    one, three = (neighbor_graph(points, 8, seed=3, threads=threads) for threads in (1, 3))
    np.testing.assert_array_equal(one.indices, three.indices)
    np.testing.assert_array_equal(one.distances, three.distances)


@pytest.mark.parametrize("most", [1000, 10_000])
@pytest.mark.parametrize("kind", ["gauss", "tight clusters", "duplicate pairs"])
def test_neighbours_are_found_where_it_is_hard(monkeypatch: pytest.MonkeyPatch, kind: str, most: int) -> None:
    monkeypatch.setattr(graphs, "EXACT_ROWS", most)
    rng = np.random.default_rng(2)
    points = rng.normal(size=(4000, 48))
    if kind == "tight clusters":
        points = 20.0 * points[rng.integers(30, size=4000)] + 1e-3 * rng.normal(size=(4000, 48))
    elif kind == "duplicate pairs":
        points[2000:] = points[:2000] + 1e-4 * rng.normal(size=(2000, 48))
    vectors = points.astype(np.float32)
    found = neighbor_graph(ArrayVectors(vectors), 10)
    expected, _ = truth(vectors, 10)
    right = [len(set(a) & set(b)) / 10 for a, b in zip(found.indices.tolist(), expected.tolist(), strict=True)]
    assert np.mean(right) > (0.9 if most == 1000 else 0.9999)


@pytest.mark.parametrize("most", [1000, 10_000])
def test_a_vector_far_away_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(graphs, "EXACT_ROWS", most)
    points = points_of(3000, 30)
    points[17] = 1e7
    points[5] = -3e4
    found = neighbor_graph(ArrayVectors(points), 10)
    expected, _ = truth(points, 10)
    right = [len(set(a) & set(b)) / 10 for a, b in zip(found.indices.tolist(), expected.tolist(), strict=True)]
    assert np.mean(np.delete(right, [5, 17])) > (0.95 if most == 1000 else 0.9999)
    assert (found.indices >= 0).all()


def test_more_duplicates_than_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "EXACT_ROWS", 1000)
    points = np.repeat(points_of(50, 6), 40, axis=0)
    found = neighbor_graph(ArrayVectors(points), 15)
    assert (found.indices != np.arange(2000)[:, None]).all()
    assert (found.indices >= 0).all()
    assert (found.distances < 1e-3).all()


def test_oneself_is_left_out_wherever_it_stands() -> None:
    found = np.array([[5, 1, 2], [1, 6, 3], [4, 8, -1], [7, -1, -1]])
    values = np.array([[0, 1, 2], [0, 0, 3], [1, 2, 9], [0, 9, 9]], np.float32)
    indices, kept = without_oneself(found, values, np.array([5, 6, 9, 7]))
    np.testing.assert_array_equal(indices[:3], [[1, 2], [1, 3], [4, 8]])
    np.testing.assert_array_equal(kept[:3], [[1, 2], [0, 3], [1, 2]])


def test_a_file_that_was_stored_finds_the_same_in_any_portions() -> None:
    vectors = ArrayVectors(points_of(4000, 120))
    built = InvertedFile.build(vectors, PCA.fit(moments(vectors)), 0, 2)
    whole = built.search(np.arange(4000), 9, 2)
    again = InvertedFile.from_arrays({name: array.copy() for name, array in built.to_arrays().items()})
    parts = [again.search(np.arange(start, min(start + 1300, 4000)), 9, 1) for start in range(0, 4000, 1300)]
    for number in (0, 1):
        np.testing.assert_array_equal(np.concatenate([part[number] for part in parts]), whole[number])
