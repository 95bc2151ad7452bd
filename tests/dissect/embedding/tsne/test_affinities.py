"""Affinities against dense matrices that are filled by the book."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.affinities import dense, neighbors_of
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.dissect.embedding.parallel import Pool
from microtome.dissect.embedding.tsne.affinities import gaussian_affinities, symmetric, uniform_affinities


@settings(deadline=None, max_examples=25)
@given(count=st.integers(2, 40), k=st.integers(1, 12), seed=st.integers(0, 99))
def test_symmetric_sums_both_directions(count: int, k: int, seed: int) -> None:
    k = min(k, count - 1)
    indices, _ = neighbors_of(count, k, seed)
    conditional = np.random.default_rng(seed).uniform(size=indices.shape).astype(np.float32)
    expected = np.zeros((count, count))
    np.put_along_axis(expected, indices.astype(np.int64), conditional, axis=1)
    expected = (expected + expected.T) / (2 * count)
    with Pool(2) as pool:
        np.testing.assert_allclose(dense(symmetric(indices, conditional, pool)), expected, rtol=1e-5)
        found = dense(uniform_affinities(indices, pool))
    assert found.sum() == pytest.approx(1.0, rel=1e-5)
    assert set(np.unique(np.round(found * 2 * count * k)).tolist()) <= {0.0, 1.0, 2.0}


@pytest.mark.parametrize("perplexity", [2.0, 10.0, 30.0])
def test_every_row_of_gaussian_affinities_has_the_perplexity(perplexity: float) -> None:
    indices, distances = neighbors_of(200, int(3 * perplexity), 1)
    conditional = np.zeros((200, 200))
    for row in range(200):
        low, high = 1e-6, 1e6
        for _ in range(200):
            beta = (low * high) ** 0.5
            p = np.exp(-beta * (distances[row].astype(np.float64) ** 2 - np.float64(distances[row, 0]) ** 2))
            p /= p.sum()
            entropy = -(p * np.log(np.maximum(p, 1e-300))).sum()
            low, high = (beta, high) if entropy > np.log(perplexity) else (low, beta)
        conditional[row, indices[row]] = p
    with Pool(1) as pool:
        found = dense(gaussian_affinities(indices, distances, perplexity, pool))
    np.testing.assert_allclose(found, (conditional + conditional.T) / 400, rtol=2e-4, atol=1e-9)


def test_duplicates_and_ties_have_finite_affinities() -> None:
    indices = np.array([[1, 2], [0, 2], [0, 1]], np.int32)
    with Pool(1) as pool:
        for distances in (np.zeros((3, 2), np.float32), np.array([[0, 1], [0, 1], [1, 1]], np.float32)):
            found = gaussian_affinities(indices, distances, 1.5, pool)
            assert found.weights.sum() == pytest.approx(1.0)
            assert (found.weights >= 0).all()


def test_reordered_is_the_same_matrix_of_points_in_another_order() -> None:
    indices, distances = neighbors_of(60, 9, 3)
    order = np.random.default_rng(0).permutation(60)
    with Pool(2) as pool:
        affinities = gaussian_affinities(indices, distances, 3.0, pool)
        moved = affinities.reordered(order, pool)
    whole = dense(affinities)
    columns = [moved.neighbors[moved.starts[row] : moved.starts[row + 1]] for row in range(60)]
    values = [moved.weights[moved.starts[row] : moved.starts[row + 1]] for row in range(60)]
    again = np.zeros_like(whole)
    for row in range(60):
        again[row, columns[row]] = values[row]
    np.testing.assert_array_equal(again, whole[np.ix_(order, order)])
