"""The outline: the mask against an obvious loop, saturated units, and what is drawn where."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.reports.outlines import axis, draw_patch, draw_strip, mask_of


def value_at(activation: NDArray[np.float32], down: float, across: float) -> float:
    """Bilinear value at a place measured in cells, half-pixel centres, clamped at the border."""
    height, width = activation.shape
    y, x = min(max(down - 0.5, 0), height - 1), min(max(across - 0.5, 0), width - 1)
    i, j = math.floor(y), math.floor(x)
    below, beside = min(i + 1, height - 1), min(j + 1, width - 1)
    upper = activation[i, j] + (x - j) * (activation[i, beside] - activation[i, j])
    lower = activation[below, j] + (x - j) * (activation[below, beside] - activation[below, j])
    return float(upper + (y - i) * (lower - upper))


def mask(
    activation: NDArray[np.float32], threshold: float, saturated: bool, place: tuple[float, ...], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    rows = axis(place[0], place[1], shape[0], activation.shape[0])
    columns = axis(place[2], place[3], shape[1], activation.shape[1])
    return np.asarray(mask_of(activation, np.float32(threshold), saturated, rows, columns), np.uint8)


def draw(
    picture: NDArray[np.uint8],
    place: tuple[float, ...],
    activation: NDArray[np.float32],
    threshold: float,
    saturated: bool = False,
) -> NDArray[np.uint8]:
    """`picture` drawn as the second of two on a strip."""
    rows, columns = picture.shape[:2]
    strip = np.zeros((rows, 6 * columns), np.uint8)
    flat = picture.reshape(rows, -1)
    draw_patch(flat, (rows, columns), np.array(place), activation, threshold, saturated, strip, 3 * columns)
    assert not strip[:, : 3 * columns].any()
    return strip[:, 3 * columns :].reshape(picture.shape)


def spread(size: int) -> tuple[float, float, float, float]:
    """Where `size` x `size` pixels that show the whole map lie."""
    return 0.5 / size, 1 / size, 0.5 / size, 1 / size


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_mask_equals_the_loop(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    activation = rng.normal(size=(height, width)).astype(np.float32)
    y, x = rng.uniform(-0.3, 0.9, 2)
    down, across = rng.uniform(0.0, 0.2, 2)
    found = mask(activation, 0.2, False, (y, down, x, across), (7, 9))
    for i in range(7):
        for j in range(9):
            value = value_at(activation, (y + i * down) * height, (x + j * across) * width)
            assert found[i, j] == (value > 0.2) or abs(value - 0.2) < 1e-4


def test_a_plateau_stays_exact() -> None:
    activation = np.full((3, 3), np.float32(0.1))
    assert not mask(activation, float(np.float32(0.1)), False, spread(29), (29, 29)).any()
    assert mask(activation, float(np.nextafter(np.float32(0.1), np.float32(0))), False, spread(29), (29, 29)).all()


def test_a_saturated_unit_is_masked_where_every_corner_ties() -> None:
    activation = np.array([[6, 6, 1], [6, 6, 1]], np.float32)
    place = (0.25, 0.5, 0.5 / 3, 0.25 / 3)
    found = mask(activation, 6.0, True, place, (2, 9))
    assert found[0].tolist() == [1] * 5 + [0] * 4
    assert not mask(activation, 6.0, False, place, (2, 9)).any()


def test_the_outline_dims_outside_and_leaves_the_inside_alone() -> None:
    thumb = np.full((60, 60, 3), 100, np.uint8)
    activation = np.zeros((3, 3), np.float32)
    activation[1, 1] = 1
    drawn = draw(thumb, spread(60), activation, 0.5)
    assert (drawn[30, 30] == 100).all()
    assert (drawn[5, 5] == 60).all()
    line = drawn[30, 15:25, 0]
    assert line.max() > 180
    assert line.min() < 45
    assert (thumb == 100).all()


def test_no_line_along_the_border_of_the_image() -> None:
    thumb = np.full((20, 20, 3), 100, np.uint8)
    assert (draw(thumb, spread(20), np.ones((2, 2), np.float32), 0.5) == 100).all()


@pytest.mark.parametrize("value", [0.0, 0.5, np.nan])
@pytest.mark.parametrize("saturated", [False, True])
def test_a_map_that_does_not_pass_dims_everything(value: float, saturated: bool) -> None:
    thumb = np.full((10, 10, 3), 100, np.uint8)
    drawn = draw(thumb, spread(10), np.full((4, 4), value, np.float32), 0.6, saturated)
    assert (drawn == 60).all()


def blurred(inside: NDArray[np.uint8]) -> NDArray[np.float64]:
    filled = inside.astype(np.float64) * 255
    return np.asarray(cv2.GaussianBlur(filled, (5, 5), 0.9, borderType=cv2.BORDER_REPLICATE), np.float64)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_line_follows_the_blurred_mask(height: int, width: int, saturated: bool, seed: int) -> None:
    """Drawn only near the cells that reach the threshold, yet as if drawn everywhere."""
    rng = np.random.default_rng(seed)
    activation = rng.integers(0, 7, (height, width)).astype(np.float32)
    activation[rng.random((height, width)) < 0.1] = np.nan
    low, step = rng.uniform(-0.2, 0.9, 2), rng.uniform(0.0, 0.04, 2)
    place = (low[0], step[0], low[1], step[1])
    threshold = 6.0 if saturated else 5.0
    drawn = draw(np.full((30, 24, 3), 100, np.uint8), place, activation, threshold, saturated)[:, :, 0]
    soft = blurred(mask(activation, threshold, saturated, place, (30, 24)))
    assert (drawn[soft > 254.9] == 100).all()
    assert (drawn[soft < 0.1] == 60).all()
    assert (drawn[(soft > 115) & (soft < 145)] > 180).all()
    assert (drawn[(soft > 15) & (soft < 28)] < 60).all()


def test_a_strip_goes_by_rank_and_fills_its_cells() -> None:
    pixels = np.zeros((3, 8, 24), np.uint8)
    pixels[0], pixels[1, :4] = 50, 90
    strip = np.zeros((8, 4 * 24), np.uint8)
    draw_strip(
        np.array([0, 1, 2]),
        np.array([3, 0, 1]),
        np.array([0, 1, 2]),
        np.array([True, False, True]),
        np.array([0.5, 0.5, 0.5]),
        np.array([False, False, False]),
        np.zeros((3, 2, 2), np.float32),
        pixels,
        np.array([[8, 8], [4, 8], [0, 0]]),
        np.zeros((3, 4)),
        strip,
    )
    cells = [np.unique(strip[:, at : at + 24]).tolist() for at in range(0, 96, 24)]
    assert cells == [[90], [128], [0], [30]]


@pytest.mark.parametrize("shape", [(33, 96), (96, 50), (48, 96), (1, 96)])
def test_what_is_blank_does_not_blur_what_is_drawn(shape: tuple[int, int]) -> None:
    rows, columns = shape
    rng = np.random.default_rng(rows)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (96, 96, 3)).astype(np.uint8), (9, 9), 3)
    strip = np.zeros((96, 2 * 288), np.uint8)
    one = (np.array([0]), np.array([1]), np.array([0]), np.array([False]), np.array([0.5]), np.array([False]))
    maps, places = np.zeros((1, 2, 2), np.float32), np.zeros((1, 4))
    draw_strip(*one, maps, picture.reshape(1, 96, 288), np.array([shape]), places, strip)
    cell = strip.reshape(96, 192, 3)[:, 96:]
    np.testing.assert_array_equal(cell[:rows, :columns], picture[:rows, :columns])
    assert (cell[(rows // 16 + 1) * 16 :] == 232).all()
    assert (cell[:, (columns // 16 + 1) * 16 :] == 232).all()

    def packed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(cv2.imdecode(cv2.imencode(".jpg", pixels)[1], cv2.IMREAD_COLOR), np.uint8)

    filled = cell.copy()
    filled[:, columns:] = filled[:, columns - 1 : columns]
    filled[rows:] = filled[rows - 1 : rows]
    np.testing.assert_array_equal(packed(cell)[:rows, :columns], packed(filled)[:rows, :columns])
