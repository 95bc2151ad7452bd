"""Repulsive forces from the grid against the sum over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import Pool
from microtome.dissect.embedding.tsne import repulsion
from microtome.dissect.embedding.tsne.repulsion import Kernels, Repulsion, padded_size

POINTS = 3000


def exact(positions: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """sum_j k² (y_i - y_j) of every point, and Z, over all pairs."""
    points = positions.astype(np.float64)
    forces, total = np.empty_like(points), 0.0
    for i, point in enumerate(points):
        apart = point - points
        kernel = 1.0 / (1.0 + (apart**2).sum(axis=1))
        forces[i] = (kernel[:, None] ** 2 * apart).sum(axis=0)
        total += kernel.sum() - 1.0
    return forces, total


def scattered(kind: str) -> NDArray[np.float32]:
    """Points as they lie at the beginning of a map, amid it, at its end, and far apart."""
    rng = np.random.default_rng(5)
    if kind == "even":
        found = rng.uniform(-25, 25, size=(POINTS, 2)) * [1.0, 0.3]
    elif kind == "clusters":
        found = np.repeat(rng.normal(size=(30, 2)) * 30, POINTS // 30, axis=0) + rng.normal(size=(POINTS, 2))
    elif kind == "ball":
        found = rng.normal(size=(POINTS, 2))
    else:
        found = rng.normal(size=(POINTS, 2)) * 1e-4
    return found.astype(np.float32)


@pytest.mark.parametrize(("kind", "most"), [("even", 0.02), ("clusters", 0.01), ("ball", 0.001), ("start", 0.06)])
def test_forces_are_those_of_all_pairs(kind: str, most: float) -> None:
    positions = scattered(kind)
    forces, total = exact(positions)
    found = np.empty_like(positions)
    with Pool(1) as pool:
        normaliser = Repulsion(pool)(positions, found)
    assert normaliser == pytest.approx(total, rel=1e-3 if kind != "start" else 1e-2)
    assert np.linalg.norm(found / normaliser - forces / total) < most * np.linalg.norm(forces / total)


def test_a_finer_grid_is_nearer_to_the_truth() -> None:
    positions = scattered("even")
    forces, _ = exact(positions)
    errors = []
    with Pool(1) as pool:
        for spacing in (0.8, 0.4, 0.2):
            found = np.empty_like(positions)
            Repulsion(pool, spacing)(positions, found)
            errors.append(float(np.linalg.norm(found - forces) / np.linalg.norm(forces)))
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


def test_forces_do_not_depend_on_threads_nor_on_what_was_before() -> None:
    positions = np.concatenate([scattered("even")] * 40) + np.arange(120_000)[:, None].astype(np.float32) * 1e-5
    results = []
    for threads in (1, 3):
        with Pool(threads) as pool:
            push, found = Repulsion(pool), np.empty_like(positions)
            if threads == 3:
                push(positions * np.float32(2.0), found)
                push(positions[:500] * np.float32(0.1), found[:500])
            results.append((push(positions, found), found))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("count", [50, 500])
def test_points_on_one_spot_do_not_push_each_other(count: int) -> None:
    positions, found = np.full((count, 2), 3.5, np.float32), np.empty((count, 2), np.float32)
    with Pool(1) as pool:
        normaliser = Repulsion(pool)(positions, found)
    assert normaliser == pytest.approx(count * (count - 1), rel=0.02)
    np.testing.assert_allclose(found / count, 0.0, atol=1e-5)


def test_few_points_are_summed_over_pair_by_pair() -> None:
    positions = scattered("clusters")[: repulsion.EXACT_POINTS]
    forces, total = exact(positions)
    found = np.empty_like(positions)
    with Pool(1) as pool:
        normaliser = Repulsion(pool)(positions, found)
    assert normaliser == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(found, forces, atol=1e-4 * float(np.abs(forces).max()))


def test_a_map_far_too_wide_is_given_a_coarser_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repulsion, "MOST_NODES", 256)
    positions, found = scattered("clusters") * np.float32(1e4), np.empty((POINTS, 2), np.float32)
    with Pool(1) as pool:
        normaliser = Repulsion(pool)(positions, found)
    assert np.isfinite(normaliser)
    assert np.isfinite(found).all()


def test_the_kernels_convolve_as_the_sampled_kernels_do_where_nothing_aliases() -> None:
    fine = Kernels.of(256, 256, 0.05)
    line = np.minimum(np.arange(256), 256 - np.arange(256)) * 0.05
    plain = np.fft.rfft2(1.0 / (1.0 + line[:, None] ** 2 + line[None, :] ** 2)).real
    np.testing.assert_allclose(fine.potential[:4, :4], plain[:4, :4], rtol=2e-2)
    signed = np.where(np.arange(256) < 128, 1.0, -1.0) * line
    force = np.fft.rfft2(signed[:, None] / (1.0 + line[:, None] ** 2 + line[None, :] ** 2) ** 2).imag
    np.testing.assert_allclose(fine.force_y[1:4, :4], force[1:4, :4], rtol=2e-2)
    np.testing.assert_allclose(fine.force_x[:4, 1:4], force[1:4, :4].T, rtol=2e-2)


def test_grids_have_room_for_all_nodes_and_as_many_empty_ones() -> None:
    sizes = [padded_size(nodes) for nodes in range(1, 3000)]
    assert all(size >= 2 * nodes and size % 2 == 0 for nodes, size in enumerate(sizes, 1))
    assert len(set(sizes)) < 60
