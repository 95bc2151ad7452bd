"""Principal components from merged moments are those that numpy finds in the whole matrix."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.embedding.pca import PCA, Moments, PCAVectors, moments
from microtome.dissect.embedding.vectors import ArrayVectors, in_memory
from microtome.storage.errors import UsageError

CLOSE = 1e-6


def cloud(rows: int = 3000, dims: int = 24, shift: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """Turned at random, with variances that halve from one direction to the next; the mean is `shift` spreads away."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(dims, dims)))[0]
    spread = 2.0 ** (-np.arange(dims) / 2)
    away = shift * rng.normal(size=dims)
    return (rng.normal(size=(rows, dims)) * spread @ turned + away).astype(np.float32)


def by_svd(matrix: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, components and variances, by numpy on the whole matrix in float64."""
    whole = matrix.astype(np.float64)
    mean = whole.mean(axis=0)
    _, values, rows = np.linalg.svd(whole - mean, full_matrices=False)
    signs = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
    return mean, rows * signs[:, None], values**2 / (len(whole) - 1)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_variance_components_and_transform_are_those_of_the_whole_matrix(shift: float) -> None:
    matrix = cloud(shift=shift)
    mean, components, variance = by_svd(matrix)
    pca = PCA.fit(moments(ArrayVectors(matrix), threads=2))
    assert np.allclose(pca.mean, mean, rtol=1e-12, atol=0)
    assert np.allclose(pca.variance, variance, rtol=CLOSE, atol=0)
    assert np.abs(pca.components - components).max() < CLOSE
    assert pca.total == pytest.approx(variance.sum(), rel=CLOSE)
    assert np.allclose(pca.ratio, variance / variance.sum(), rtol=CLOSE, atol=0)
    expected = (matrix.astype(np.float64) - mean) @ components.T
    assert np.abs(pca.transform(matrix) - expected).max() < CLOSE * np.sqrt(variance[0])
    whitened = expected / np.sqrt(variance)
    assert np.abs(pca.transform(matrix, whiten=True) - whitened).max() < 5 * CLOSE


@given(cuts=st.lists(st.integers(0, 300), max_size=6), order=st.randoms(use_true_random=False))
def test_moments_merge_in_any_split_and_order(cuts: list[int], order: random.Random) -> None:
    matrix = cloud(rows=300, dims=6, shift=1000.0)
    edges = [0, *sorted(cuts), 300]
    parts = [matrix[low:high] for low, high in itertools.pairwise(edges)]
    order.shuffle(parts)
    whole = Moments.empty(6)
    for part in parts:
        some = Moments.empty(6)
        some.update(part)
        whole.merge(some)
    exact = matrix.astype(np.float64)
    assert whole.count == 300
    assert np.allclose(whole.mean, exact.mean(axis=0), rtol=1e-12, atol=0)
    centred = exact - exact.mean(axis=0)
    assert np.abs(whole.scatter - centred.T @ centred).max() < 1e-9 * np.abs(whole.scatter).max()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    matrix = cloud(rows=60_000, dims=300)
    once, again = moments(ArrayVectors(matrix), threads=1), moments(ArrayVectors(matrix), threads=3)
    assert once.scatter.tobytes() == again.scatter.tobytes()
    assert PCA.fit(once).components.tobytes() == PCA.fit(again).components.tobytes()


def test_a_few_components_are_the_first_of_all() -> None:
    matrix = cloud()
    seen = moments(ArrayVectors(matrix))
    all_of_them, few = PCA.fit(seen), PCA.fit(seen, components=5)
    assert few.components.shape == (5, 24)
    assert few.total == all_of_them.total
    assert np.allclose(few.variance, all_of_them.variance[:5], rtol=1e-9)
    assert np.allclose(few.components, all_of_them.components[:5], atol=1e-9)
    assert PCA.fit(seen, components=99).components.shape == (24, 24)


def test_the_largest_entry_of_a_component_is_positive() -> None:
    components = PCA.fit(moments(ArrayVectors(cloud(seed=4)))).components
    assert (components[np.arange(24), np.abs(components).argmax(axis=1)] > 0).all()


def test_fewer_vectors_than_dimensions() -> None:
    matrix = cloud(rows=5, dims=24)
    pca = PCA.fit(moments(ArrayVectors(matrix)))
    _, _, variance = by_svd(matrix)
    assert pca.components.shape == (4, 24)
    assert np.allclose(pca.variance, variance[:4], rtol=CLOSE)


def test_what_does_not_vary_whitens_to_zero() -> None:
    matrix = cloud(dims=6)
    matrix[:, 3:] = matrix[:, :3] * 2
    pca = PCA.fit(moments(ArrayVectors(matrix)))
    whitened = pca.transform(matrix, whiten=True)
    assert np.allclose(whitened[:, :3].std(axis=0, ddof=1), 1, rtol=1e-5)
    assert (whitened[:, 3:] == 0).all()
    constant = PCA.fit(moments(ArrayVectors(np.ones((8, 3), np.float32))))
    assert (constant.transform(np.ones((2, 3)), whiten=True) == 0).all()
    assert constant.ratio.tolist() == [0, 0, 0]


def test_states_and_components_come_back_from_arrays() -> None:
    seen = moments(ArrayVectors(cloud()))
    again = Moments.from_arrays(seen.to_arrays())
    again.update(cloud(seed=1))
    assert (seen.count, again.count) == (3000, 6000)
    pca = PCA.fit(seen)
    same = PCA.from_arrays(pca.to_arrays())
    assert same.total == pca.total
    assert np.array_equal(same.components, pca.components)


def test_vectors_along_components() -> None:
    matrix = cloud()
    pca = PCA.fit(moments(ArrayVectors(matrix)), components=7)
    vectors = PCAVectors(ArrayVectors(matrix), pca, whiten=True)
    assert (vectors.rows, vectors.dims) == (3000, 7)
    assert np.array_equal(in_memory(vectors), pca.transform(matrix, whiten=True))


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_vectors(rows: int) -> None:
    with pytest.raises(UsageError, match="two vectors or more"):
        PCA.fit(moments(ArrayVectors(cloud(rows=rows))))


def test_vectors_that_are_not_finite() -> None:
    matrix = cloud()
    matrix[7, 3] = np.nan
    with pytest.raises(UsageError, match="finite"):
        PCA.fit(moments(ArrayVectors(matrix)))
