"""The outline: the bilinear upsampling against an obvious loop, saturated units, and what is drawn where."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.reports.outlines import Axis, Mask, dim, draw_outline, unit_mask, upsample


def value_at(activation: NDArray[np.float32], down: float, across: float) -> float:
    """Bilinear value at a place measured in cells, half-pixel centres, clamped at the border."""
    height, width = activation.shape
    y, x = min(max(down - 0.5, 0), height - 1), min(max(across - 0.5, 0), width - 1)
    i, j = math.floor(y), math.floor(x)
    below, beside = min(i + 1, height - 1), min(j + 1, width - 1)
    upper = activation[i, j] + (x - j) * (activation[i, beside] - activation[i, j])
    lower = activation[below, j] + (x - j) * (activation[below, beside] - activation[below, j])
    return float(upper + (y - i) * (lower - upper))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_upsample_equals_the_loop(height: int, width: int, extent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    activation = rng.normal(size=(height, width)).astype(np.float32)
    down, across = np.sort(rng.uniform(-2, extent + 2, 5)), np.sort(rng.uniform(-2, extent + 2, 7))
    rows, columns = Axis.at(down, extent, height), Axis.at(across, extent, width)
    found = upsample(activation[rows.cells, columns.cells], rows, columns)
    expected = [[value_at(activation, y * height / extent, x * width / extent) for x in across] for y in down]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_plateau_stays_exact() -> None:
    activation = np.full((3, 3), np.float32(0.1))
    axis = Axis.at(np.linspace(0, 7, 29), 7, 3)
    assert (upsample(activation, axis, axis) == np.float32(0.1)).all()
    assert not unit_mask(activation, float(np.float32(0.1)), False, axis, axis).any()


def test_a_saturated_unit_is_masked_where_every_corner_ties() -> None:
    activation = np.array([[6, 6, 1], [6, 6, 1]], np.float32)
    axis = Axis.at(np.arange(0.5, 2), 2, 2)
    fine = Axis.at(np.linspace(0.5, 2.5, 9), 3, 3)
    mask = unit_mask(activation, 6.0, True, axis, fine)
    assert mask[0].tolist() == [True] * 5 + [False] * 4
    assert not unit_mask(activation, 6.0, False, axis, fine).any()


def test_the_outline_dims_outside_and_leaves_the_inside_alone() -> None:
    thumb = np.full((60, 60, 3), 100, np.uint8)
    mask = np.zeros((60, 60), np.bool_)
    mask[20:40, 20:40] = True
    drawn = draw_outline(thumb, mask)
    assert (drawn[30, 30] == 100).all()
    assert (drawn[5, 5] == 60).all()
    line = drawn[30, 15:25, 0]
    assert line.max() > 180
    assert line.min() < 45
    assert (thumb == 100).all()


def test_no_line_along_the_border_of_the_image() -> None:
    thumb = np.full((20, 20, 3), 100, np.uint8)
    assert (draw_outline(thumb, np.ones((20, 20), np.bool_)) == 100).all()


def test_an_empty_mask_dims_everything() -> None:
    thumb = np.full((10, 10, 3), 100, np.uint8)
    assert (draw_outline(thumb, np.zeros((10, 10), np.bool_)) == 60).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 2**32 - 1))
def test_drawing_near_the_mask_equals_drawing_all(height: int, width: int, saturated: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    activation = rng.integers(0, 7, (height, width)).astype(np.float32)
    activation[rng.random((height, width)) < 0.1] = np.nan
    low, high = np.sort(rng.uniform(-10, 60, (2, 2)), axis=0)
    rows = Axis.at(np.linspace(low[0], high[0], 30), 50, height)
    columns = Axis.at(np.linspace(low[1], high[1], 24), 50, width)
    thumb = rng.integers(0, 256, (30, 24, 3), dtype=np.uint8)
    found = dim(thumb)
    Mask.of(activation, 6.0 if saturated else 5.0, saturated, rows, columns).draw(thumb, found)
    whole = unit_mask(activation[rows.cells, columns.cells], 6.0 if saturated else 5.0, saturated, rows, columns)
    np.testing.assert_array_equal(found, draw_outline(thumb, whole))
