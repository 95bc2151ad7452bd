"""The nearest are those of a plain comparison in float64, in order, whatever the blocks, threads, means and ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.embedding import run_with_means
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.embedding import search
from microtome.dissect.embedding.search import ExactSearch, Neighbors, distances_to, nearest
from microtome.dissect.embedding.vectors import ArrayVectors, LayerVectors, gather
from microtome.storage.errors import UnknownNameError, UsageError


def plain(matrix: NDArray[np.floating], query: NDArray[np.floating], metric: str) -> NDArray[np.float64]:
    """Distances in extended precision, one row after another."""
    found = []
    for row in matrix.astype(np.longdouble):
        asked = query.astype(np.longdouble)
        if metric == "cosine":
            lengths = np.sqrt((row**2).sum()), np.sqrt((asked**2).sum())
            cosine = 0.0 if 0 in lengths else (row / lengths[0] * (asked / lengths[1])).sum()
            found.append(1 - cosine)
        else:
            found.append(np.sqrt(((row - asked) ** 2).sum()))
    return np.array(found, np.float64)


def assert_nearest(found: Neighbors, matrix: NDArray[np.floating], queries: NDArray[np.floating], metric: str) -> None:
    for number, query in enumerate(queries):
        expected = plain(matrix, query, metric)
        order = np.lexsort((np.arange(len(matrix)), expected))[: found.indices.shape[1]]
        assert np.allclose(found.distances[number], expected[order], rtol=1e-9, atol=1e-12)
        apart = np.abs(np.diff(np.sort(expected)[: len(order) + 1])).min(initial=1.0)
        if apart > 1e-9:
            assert found.indices[number].tolist() == order.tolist()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BLOCK_ROWS", 100)
    monkeypatch.setattr(search, "QUERIES_AT_ONCE", 3)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("shift", [0.0, 1000.0, 1e5])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_are_those_of_a_plain_comparison(metric: str, shift: float) -> None:
    rng = np.random.default_rng(0)
    away = shift * rng.normal(size=40)
    matrix = (rng.normal(size=(950, 40)) + away).astype(np.float32)
    queries = (rng.normal(size=(7, 40)) + away).astype(np.float32)
    for some in (queries, queries[:1]):
        found = nearest(ArrayVectors(matrix), some, 12, metric, threads=2)
        assert_nearest(found, matrix, some, metric)


@pytest.mark.usefixtures("small_blocks")
@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 350),
    dims=st.integers(1, 5),
    k=st.integers(1, 20),
    seed=st.integers(0, 99),
    cosine=st.booleans(),
)
def test_small_whole_numbers_full_of_ties(rows: int, dims: int, k: int, seed: int, cosine: bool) -> None:
    metric = "cosine" if cosine else "euclidean"
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-2, 3, (rows, dims)).astype(np.float32)
    query = rng.integers(-2, 3, (1, dims)).astype(np.float32)
    found = nearest(ArrayVectors(matrix), query, k, metric)
    exact = distances_to(matrix, query[0].astype(np.float64), metric)
    order = np.lexsort((np.arange(rows), exact))[:k]
    assert found.indices[0].tolist() == order.tolist()
    assert np.allclose(exact, plain(matrix, query[0], metric), rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_among_duplicates_the_lowest_rows_come_first(metric: str) -> None:
    matrix = np.tile(np.float32([[1, 2, 3]]), (1000, 1))
    matrix[::2] = [3, 1, 0.1]
    found = nearest(ArrayVectors(matrix), matrix[[501]], 4, metric, without=np.array([501]), threads=2)
    assert found.indices.tolist() == [[1, 3, 5, 7]]
    assert found.distances.tolist() == [[0, 0, 0, 0]]


def test_oneself_is_left_out_where_asked() -> None:
    matrix = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    rows = np.array([5, 6, -1])
    exact = ExactSearch(ArrayVectors(matrix))
    with_self, without = exact.nearest(matrix[[5, 6, 7]], 4), exact.nearest(matrix[[5, 6, 7]], 3, without=rows)
    assert with_self.indices[:, 0].tolist() == [5, 6, 7]
    assert without.indices[:2].tolist() == with_self.indices[:2, 1:].tolist()
    assert without.indices[2].tolist() == with_self.indices[2, :3].tolist()


def test_fewer_vectors_than_asked_for() -> None:
    matrix = np.float32([[0, 0], [3, 4]])
    found = nearest(ArrayVectors(matrix), matrix[:1], 10)
    assert found.indices.tolist() == [[0, 1]]
    assert found.distances.tolist() == [[0, 5]]
    alone = nearest(ArrayVectors(matrix[:1]), matrix[:1], 10, without=np.array([0]))
    assert alone.indices.tolist() == [[-1]]
    assert nearest(ArrayVectors(matrix[:0]), matrix[:1], 3).indices.tolist() == [[-1]]


def test_a_vector_of_length_0_has_no_direction() -> None:
    matrix = np.float32([[0, 0], [1, 1], [-1, -1], [1, 0]])
    found = nearest(ArrayVectors(matrix), np.float32([[2, 2]]), 4, "cosine")
    assert found.indices.tolist() == [[1, 3, 0, 2]]
    assert np.allclose(found.distances, [[0, 1 - np.sqrt(0.5), 1, 2]])
    assert nearest(ArrayVectors(matrix), np.float32([[0, 0]]), 4, "cosine").distances.tolist() == [[1, 1, 1, 1]]


def test_lengths_far_from_1_keep_their_direction() -> None:
    matrix = np.float32([[1e-30, 0], [1e30, 1e30], [0, 1e-3]])
    found = nearest(ArrayVectors(matrix), np.float32([[0, 1e-25]]), 3, "cosine")
    assert found.indices.tolist() == [[2, 1, 0]]
    assert nearest(ArrayVectors(matrix), np.float32([[1e30, 9e29]]), 1).indices.tolist() == [[1]]


def test_what_is_not_finite_is_nobodys_neighbour() -> None:
    matrix = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    matrix[3, 1], matrix[8, 0], matrix[9, 0] = np.nan, np.inf, -np.inf
    for metric in ("euclidean", "cosine"):
        with np.errstate(invalid="ignore"):
            found = nearest(ArrayVectors(matrix), matrix[:1], 30, metric).indices[0]
        assert set(found[:27].tolist()) == set(range(30)) - {3, 8, 9}
        assert found[27:].tolist() == [-1, -1, -1]
    with pytest.raises(UsageError, match="NaN or infinity"):
        nearest(ArrayVectors(matrix), matrix[3:4], 2)


def test_what_cannot_be_asked() -> None:
    vectors = ArrayVectors(np.zeros((4, 3), np.float32))
    with pytest.raises(UnknownNameError, match="euclidean"):
        ExactSearch(vectors, "euclidian")
    with pytest.raises(UsageError, match="3 numbers"):
        nearest(vectors, np.zeros((1, 2)), 1)
    with pytest.raises(UsageError, match="one neighbour or more"):
        nearest(vectors, np.zeros((1, 3)), 0)


def test_vectors_of_a_run(tmp_path: Path) -> None:
    means = np.random.default_rng(1).normal(size=(90, 5)).astype(np.float32)
    run, layer = run_with_means(tmp_path / "run", means)
    vectors = LayerVectors(run, layer)
    assert_nearest(nearest(vectors, means[:3], 6, threads=2), means[:87], means[:3], "euclidean")
    assert np.array_equal(gather(vectors, np.array([80, 3, 41])), means[[80, 3, 41]])
