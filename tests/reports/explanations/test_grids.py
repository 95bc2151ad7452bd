"""Grids of maps and filters: the strongest first, each with its number, none hidden."""

from __future__ import annotations

import numpy as np

from microtome.reports.contact import GAP, MARGIN, PAPER, Tile, draw_grid
from microtome.reports.explanations import filters_grid, maps_grid, mosaic, strongest
from microtome.reports.explanations.colours import HEAT


def test_the_strongest_come_first() -> None:
    maps = np.zeros((5, 2, 2), np.float32)
    maps[3, 0, 1], maps[1, 1, 1], maps[4] = 2, 2, np.nan
    maps[2, 0, 0] = np.inf
    assert strongest(maps).tolist() == [1, 3, 0, 2, 4]
    assert strongest(maps, 2).tolist() == [1, 3]


def test_a_grid_has_a_place_for_each() -> None:
    tiles = [Tile(np.full((4, 4, 3), 10 * i, np.uint8), [str(i)]) for i in range(5)]
    grid = np.asarray(draw_grid(tiles, side=20, per_line=3))
    for i in range(5):
        line, column = divmod(i, 3)
        top, left = MARGIN + line * (20 + GAP + 16), MARGIN + column * (20 + GAP)
        assert (grid[top : top + 20, left : left + 20] == 10 * i).all()
    assert grid.shape[1] == 2 * MARGIN + 3 * 20 + 2 * GAP
    assert draw_grid([], "nothing").size[0] > 0


def test_maps_are_drawn_by_their_own_peaks() -> None:
    maps = np.zeros((3, 2, 2), np.float32)
    maps[0, 0, 0], maps[2, 1, 1] = 1, 100
    grid = np.asarray(maps_grid(maps, [2, 0], "a layer"))
    brightest = (grid == HEAT[-1]).all(axis=2)
    assert brightest.sum() == 2 * 48 * 48, "a quarter of each of the two"


def test_a_mosaic_is_square_and_filled_up_with_white() -> None:
    maps = np.random.default_rng(0).normal(size=(7, 3, 3)).astype(np.float32)
    assert mosaic(maps).shape == (2 * 44, 4 * 44, 3)
    assert (mosaic(maps)[45:, 3 * 44 :] == 255).all()
    assert mosaic(maps[:1]).shape == (44, 44, 3)
    assert mosaic(np.full((20, 2, 2), np.nan, np.float32)).shape == (4 * 42, 4 * 42, 3)


def test_filters_are_colours_or_magnitudes() -> None:
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0, 0], weights[1, 2] = 1, -1
    grid = np.asarray(filters_grid(weights))
    paper = [int(PAPER[at : at + 2], 16) for at in (1, 3, 5)]
    found = {tuple(colour) for colour in grid.reshape(-1, 3).tolist()}
    assert {(255, 128, 128), (128, 128, 0), tuple(paper)} <= found
    deep = np.zeros((2, 4, 1, 1), np.float32)
    deep[0, :, 0, 0] = [3, 0, 4, 0]
    deep[1, 1] = -5
    heat = np.asarray(filters_grid(deep))
    assert (heat == HEAT[-1]).all(axis=2).sum() == 2 * 56 * 56, "the length of (3, 0, 4, 0) is that of (0, -5, 0, 0)"


def test_many_filters_are_the_first_ones() -> None:
    some = filters_grid(np.ones((300, 1, 3, 3), np.float32), "conv1")
    assert some.size == filters_grid(np.ones((256, 1, 3, 3), np.float32), "conv1").size
