"""The bit operations and vector scans against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from microtome.dissect.maths import float16, jit, scan, vector
from microtome.dissect.maths.jit import kernel

EVERY = np.arange(1 << 16, dtype=np.uint16)


@kernel
def convert(raw: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
    for i in range(raw.size):
        out[i] = jit.half_to_float(raw[i])


@kernel
def masks(raw: NDArray[np.uint16], start: int, stop: int, low: int, high: int) -> np.uint64:
    return jit.block_mask(raw, start, stop, low, high)


@kernel
def differences(raw: NDArray[np.uint16], a: int, b: int, size: int) -> np.uint64:
    return jit.differ_mask(raw, a, b, size)


@kernel
def scanned(raw: NDArray[np.uint16], start: int, size: int) -> tuple[int, int, float, float]:
    return vector.scan_plane(raw, start, size)


@kernel
def rows(upper: NDArray[np.float32], lower: NDArray[np.float32], share: float, threshold: float) -> np.uint64:
    return vector.row_mask(upper, lower, 0, share, threshold)


def bits_of(word: int, size: int) -> list[bool]:
    return [bool(int(word) >> i & 1) for i in range(size)]


def test_every_half_becomes_the_right_float() -> None:
    out = np.empty(1 << 16, np.float32)
    convert(EVERY, out)
    np.testing.assert_array_equal(out, EVERY.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("size", [1, 5, 63, 64])
@pytest.mark.parametrize("room", [0, 100])
def test_block_mask_compares_ordered_patterns(size: int, room: int) -> None:
    raw = np.random.default_rng(size).integers(0, 1 << 16, size + room + 3).astype(np.uint16)
    ordered = np.where(raw & 0x8000, ~raw, raw | 0x8000).astype(np.uint16)
    for low, high in [(0, 0xFFFF), (0x8000, 0xFC00), (0x03FF, 0x7FFF), (int(ordered[3]), int(ordered[3]))]:
        expected = (ordered[3 : 3 + size] >= low) & (ordered[3 : 3 + size] <= high)
        assert bits_of(masks(raw, 3, 3 + size, low, high), 64) == [*expected, *[False] * (64 - size)]


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("room", [0, 70])
def test_differ_mask(size: int, room: int) -> None:
    raw = np.random.default_rng(size).integers(0, 2, size + 9 + room).astype(np.uint16)
    expected = raw[9 : 9 + size] != raw[2 : 2 + size]
    assert bits_of(differences(raw, 9, 2, size), 64) == [*expected, *[False] * (64 - size)]


@pytest.mark.parametrize("size", [1, 31, 32, 33, 196, 8192])
def test_scan_plane_is_exact(size: int) -> None:
    rng = np.random.default_rng(size)
    values = (rng.standard_normal(size + 40) * 10.0 ** rng.integers(-7, 4, size + 40)).astype(np.float16)
    low, high, total, squares = scanned(values.view(np.uint16), 2, size)
    plane = values[2 : 2 + size].astype(np.float64)
    ordered = float16.ordered_patterns(values[2 : 2 + size])
    assert (scan.fold_zero(low), scan.fold_zero(high)) == (ordered.min(), ordered.max())
    assert total == float(np.sum(plane * 2.0**24).astype(np.int64)) * 2.0**-24
    assert squares == pytest.approx(float(np.sum(plane * plane)), rel=1e-13)


def test_careful_scan_leaves_nan_out() -> None:
    values = np.array([np.nan, 2.0, -np.inf, 0.5, -np.nan], np.float16)
    low, high, nans, total, _ = scan.careful_scan(values.view(np.uint16), 0, 5)
    assert (low, high, nans, total) == (0x03FF, int(float16.ordered_patterns(values)[1]), 2, -np.inf)


def test_row_mask_keeps_the_order_of_rounding() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        upper, lower = rng.standard_normal((2, 16)).astype(np.float32)
        lower[3], upper[4], lower[5], upper[6] = np.nan, np.nan, np.inf, np.inf
        share = np.float32(rng.choice([0.0, rng.random()]))
        with np.errstate(invalid="ignore"):
            values = upper if share == 0 else upper + share * (lower - upper)
            threshold = np.float32(values[0]) if rng.random() < 0.5 else np.float32(0.1)
            expected = values > threshold
        assert bits_of(rows(upper, lower, share, threshold), 16) == expected.tolist()
