"""The pointing game, against planted objects."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.dissect.attribution.checks.intervals import bootstrap
from microtome.dissect.attribution.checks.pointing import centre_hits, chance_hits, pointing_game
from microtome.storage.errors import UsageError


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks (4, 20, 20): on the object, three pixels beside it, five beside it, and without an object."""
    masks = np.zeros((4, 20, 20), bool)
    masks[:3, 2:6, 2:6] = True
    maps = np.zeros((4, 20, 20), np.float32)
    for i, place in enumerate(((3, 3), (5, 8), (10, 5), (0, 0))):
        maps[(i, *place)] = 1
    return maps, masks


def test_hits_with_and_without_tolerance() -> None:
    maps, masks = planted()
    np.testing.assert_array_equal(pointing_game(maps, masks, 0), [1, 0, 0, np.nan])
    np.testing.assert_array_equal(pointing_game(maps, masks, 3), [1, 1, 0, np.nan])
    np.testing.assert_array_equal(pointing_game(maps, masks, 5), [1, 1, 1, np.nan])


def test_distance_is_euclidean() -> None:
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 5, 5] = True
    maps = np.zeros((1, 20, 20), np.float32)
    maps[0, 8, 9] = 1  # 3 down, 4 across
    assert pointing_game(maps, mask, 4.9).tolist() == [0]
    assert pointing_game(maps, mask, 5).tolist() == [1]


def test_a_constant_map_is_as_good_as_chance() -> None:
    _, masks = planted()
    assert pointing_game(np.ones(masks.shape), masks, 2)[0] == pytest.approx(chance_hits(masks, 2)[0])
    assert chance_hits(masks, 0)[0] == pytest.approx(16 / 400)
    assert np.isnan(chance_hits(masks)[3])


def test_centre() -> None:
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 3:5, 3] = True  # half of the four middle pixels
    masks[1, 0, 0] = True
    assert centre_hits(masks, 0).tolist() == [0.5, 0]
    assert centre_hits(masks, 7).tolist() == [1, 1]


def test_wrong_shapes_and_tolerances_are_refused() -> None:
    maps, masks = planted()
    with pytest.raises(UsageError, match="differ"):
        pointing_game(maps[:, :10], masks)
    with pytest.raises(UsageError, match="tolerance of -1 pixels"):
        pointing_game(maps, masks, -1)


def test_bootstrap_covers_the_mean_and_is_seeded() -> None:
    values = np.random.default_rng(1).normal(2, 1, 400)
    found = bootstrap(values, seed=3)
    assert found == bootstrap(values, seed=3)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 / 20, rel=0.2)
    assert found.above_zero


def test_bootstrap_of_nothing() -> None:
    found = bootstrap(np.array([np.nan]))
    assert found.count == 0
    assert not found.above_zero
    assert found.to_dict() == {"mean": None, "low": None, "high": None, "images": 0}
