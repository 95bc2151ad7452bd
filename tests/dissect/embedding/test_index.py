"""The approximate index finds nearly all of the nearest, says how many, and gives true distances."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from microtome.dissect.embedding.index import GOOD_RECALL, ApproximateIndex, build_index
from microtome.dissect.embedding.search import nearest
from microtome.dissect.embedding.vectors import ArrayVectors

ROWS, DIMS = 12_000, 96


def clouds(shift: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """Clouds of about a hundred vectors in a space of 20 dimensions, a little noise in the others."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(ROWS // 100, 20))
    inside = centres[rng.integers(0, len(centres), ROWS)] + 0.3 * rng.normal(size=(ROWS, 20))
    noise = 0.1 * rng.normal(size=(ROWS, DIMS))
    return (inside @ rng.normal(size=(20, DIMS)) + noise + shift).astype(np.float32)


@pytest.fixture(scope="module", params=["euclidean", "cosine"])
def indexed(request: pytest.FixtureRequest) -> tuple[NDArray[np.float32], ApproximateIndex]:
    matrix = clouds()
    return matrix, build_index(ArrayVectors(matrix), request.param, threads=2)


def test_recall_is_what_is_measured_on_other_vectors(indexed: tuple[NDArray[np.float32], ApproximateIndex]) -> None:
    matrix, index = indexed
    rows = np.random.default_rng(7).permutation(ROWS)[:150]
    vectors = ArrayVectors(matrix)
    true = nearest(vectors, matrix[rows], 10, index.info.metric, without=rows)
    found = index.nearest(vectors, matrix[rows], 10, without=rows)
    hits = [len(np.intersect1d(one, other)) / 10 for one, other in zip(true.indices, found.indices, strict=True)]
    assert index.info.is_good
    assert index.info.recall >= GOOD_RECALL
    assert abs(np.mean(hits) - index.info.recall) < 0.02
    same = true.indices == found.indices
    assert np.array_equal(true.distances[same], found.distances[same])
    assert not (found.indices == rows[:, None]).any()


def test_an_index_comes_back_from_its_file(indexed: tuple[NDArray[np.float32], ApproximateIndex]) -> None:
    matrix, index = indexed
    content, info = index.pack()
    again = ApproximateIndex.unpack(content, info)
    assert again.info == index.info
    assert len(content) < matrix.nbytes / 2
    one, other = (each.nearest(ArrayVectors(matrix), matrix[:20], 15) for each in (index, again))
    assert np.array_equal(one.indices, other.indices)


def test_a_mean_far_away_costs_no_recall() -> None:
    assert build_index(ArrayVectors(clouds(shift=1000.0)), threads=2).info.recall >= GOOD_RECALL


def test_duplicates_count_as_found() -> None:
    matrix = np.repeat(clouds()[:200], 60, axis=0)
    assert build_index(ArrayVectors(matrix), threads=2).info.recall >= GOOD_RECALL


def test_vectors_without_structure_are_known_to_be_hard() -> None:
    matrix = np.random.default_rng(0).normal(size=(4000, 512)).astype(np.float32)
    index = build_index(ArrayVectors(matrix), threads=2)
    assert index.info.is_good == (index.info.recall >= GOOD_RECALL)
    assert index.info.sample == 200


def test_more_neighbours_than_candidates(indexed: tuple[NDArray[np.float32], ApproximateIndex]) -> None:
    matrix, index = indexed
    found = index.nearest(ArrayVectors(matrix), matrix[:1], 300)
    assert found.indices.shape == (1, 300)
    assert (np.diff(found.distances[0][found.indices[0] >= 0]) >= 0).all()


def test_as_many_as_are_asked_for_are_found(indexed: tuple[NDArray[np.float32], ApproximateIndex]) -> None:
    matrix, index = indexed
    vectors, rows = ArrayVectors(matrix), np.arange(3)
    for k in (1000, ROWS - 1):
        found = index.nearest(vectors, matrix[:3], k, without=rows)
        assert found.indices.shape == (3, k)
        assert (found.indices >= 0).all()
    true = nearest(vectors, matrix[:3], ROWS - 1, index.info.metric, without=rows)
    np.testing.assert_array_equal(true.distances, found.distances)


def test_what_is_no_index_is_refused(indexed: tuple[NDArray[np.float32], ApproximateIndex]) -> None:
    _, index = indexed
    content, info = index.pack()
    with pytest.raises(ValueError, match="no index of neighbours"):
        ApproximateIndex.unpack(b"something else", info)
    with pytest.raises(ValueError, match="not 5 of"):
        ApproximateIndex.unpack(content, info | {"rows": 5})
    with pytest.raises(ValueError, match="no index of neighbours"):
        ApproximateIndex.unpack(content, {"rows": 5})
