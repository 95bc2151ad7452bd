"""Points placed around a map of others."""

from __future__ import annotations

import numpy as np

from microtome.dissect.embedding.tsne.landmarks import Chosen, place_others
from microtome.dissect.embedding.vectors import ArrayVectors


def test_chosen_rows_are_those_of_the_vectors() -> None:
    whole = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    some = Chosen.draw(ArrayVectors(whole), 90, 4)
    assert (some.rows, some.dims) == (90, 3)
    assert len(set(some.chosen.tolist())) == 90
    np.testing.assert_array_equal(some.read(0, 90), whole[some.chosen])
    np.testing.assert_array_equal(some.read(33, 34), whole[some.chosen[33:34]])
    assert some.read(5, 5).shape == (0, 3)


def test_points_are_placed_between_their_nearest_neighbours() -> None:
    indices = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]], np.int32)
    distances = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [2, 1, 1]], np.float32)
    distances[3] = [2, 1, 1]
    positions = np.array([[0, 0], [4, 0], [0, 4]], np.float32)
    found = place_others(indices, distances, np.array([0, 1, 2]), positions)
    spread = np.sqrt(4 / 3)
    np.testing.assert_allclose(found[:3], positions * spread, rtol=1e-6)
    np.testing.assert_allclose(found[3], np.array([4, 4]) * spread / 2.25, rtol=1e-6)


def test_whoever_has_no_neighbour_with_a_place_waits_for_one() -> None:
    indices = np.array([[1], [0], [1], [2], [5], [4]], np.int32)
    found = place_others(indices, np.ones((6, 1), np.float32), np.array([0]), np.array([[3, 1]], np.float32))
    np.testing.assert_allclose(found[:4], np.tile(found[0], (4, 1)))
    assert found[0, 0] > 0
    np.testing.assert_array_equal(found[4:], 0.0)


def test_a_neighbour_at_no_distance_decides() -> None:
    indices, distances = np.array([[1], [0], [0]], np.int32), np.ones((3, 1), np.float32)
    indices = np.concatenate([indices, np.array([[2], [2], [1]], np.int32)], axis=1)
    distances = np.concatenate([np.array([[1], [1], [0]], np.float32), distances], axis=1)
    found = place_others(indices, distances, np.array([0, 1]), np.array([[2, 2], [9, 9]], np.float32))
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)
