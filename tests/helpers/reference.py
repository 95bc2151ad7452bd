"""Slow, obvious references for the kernels: dense maps, sorted values, loops. They share no code with them."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray


def threshold(values: NDArray[np.float16], tau: float) -> float:
    """The smallest stored value t with mean(values > t) <= tau; NaN where there is no value."""
    kept = values.ravel().astype(np.float64)
    kept = kept[~np.isnan(kept)]
    for candidate in np.unique(kept):
        if np.count_nonzero(kept > candidate) / kept.size <= tau:
            return float(candidate)
    return math.nan


def state(values: NDArray[np.float16], tau: float) -> str:
    """dead, constant, saturated or ok, of one unit's values."""
    kept = values.ravel().astype(np.float64)
    kept = kept[~np.isnan(kept)]
    if kept.size == 0 or kept.max() == 0:
        return "dead"
    if kept.min() == kept.max():
        return "constant"
    if np.count_nonzero(kept == kept.max()) / kept.size > tau:
        return "saturated"
    return "ok"


@cache
def corners(src: int, dst: int, j: int) -> tuple[int, int, np.float32]:
    """Neighbours and weight of output j, by the definition of half-pixel centres."""
    at = (j + Fraction(1, 2)) * Fraction(src, dst) - Fraction(1, 2)
    at = min(max(at, Fraction(0)), Fraction(src - 1))
    low = math.floor(at)
    if low == src - 1:
        return low, low, np.float32(0)
    return low, low + 1, np.float32(float(at - low))


def between(a: np.float32, b: np.float32, share: np.float32) -> np.float32:
    """a + share * (b - a), every step rounded to float32; a alone where the share is 0."""
    return a if share == 0 else np.float32(a + np.float32(share * np.float32(b - a)))


@np.errstate(all="ignore")
def upsampled(grid: NDArray[np.float16], height: int, width: int) -> NDArray[np.float32]:
    """(h, w) -> (height, width) float32, pixel by pixel."""
    out = np.empty((height, width), np.float32)
    values = grid.astype(np.float32)
    for y in range(height):
        y0, y1, down = corners(grid.shape[0], height, y)
        for x in range(width):
            x0, x1, along = corners(grid.shape[1], width, x)
            top = between(values[y0, x0], values[y0, x1], along)
            bottom = between(values[y1, x0], values[y1, x1], along)
            out[y, x] = between(top, bottom, down)
    return out


def mask(grid: NDArray[np.float16], value: np.float16, saturated: bool, height: int, width: int) -> NDArray[np.bool_]:
    """(height, width) mask of one unit in one sample."""
    if not saturated:
        with np.errstate(invalid="ignore"):
            return upsampled(grid, height, width) > np.float32(value)
    out = np.zeros((height, width), np.bool_)
    for y in range(height):
        y0, y1, down = corners(grid.shape[0], height, y)
        for x in range(width):
            x0, x1, along = corners(grid.shape[1], width, x)
            ys = [y0] if down == 0 else [y0, y1]
            xs = [x0] if along == 0 else [x0, x1]
            out[y, x] = all(grid[i, j] == value for i in ys for j in xs)
    return out


def annotated(
    labels: NDArray[np.uint16], image_labels: NDArray[np.uint16], category_of: NDArray[np.int64], categories: int
) -> NDArray[np.bool_]:
    """(n, G): which categories occur in each sample."""
    out = np.zeros((len(labels), categories), np.bool_)
    for sample in range(len(labels)):
        for concept in [*labels[sample].ravel(), *image_labels[sample]]:
            if concept > 0:
                out[sample, category_of[concept]] = True
    return out


def label_counts(
    labels: NDArray[np.uint16], image_labels: NDArray[np.uint16], concepts: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """pixels and images of each concept, (K+1,) each."""
    pixels = np.zeros(concepts + 1, np.int64)
    images = np.zeros(concepts + 1, np.int64)
    area = labels.shape[2] * labels.shape[3]
    for sample in range(len(labels)):
        for concept in range(1, concepts + 1):
            here = int(np.sum(labels[sample] == concept)) + area * int(np.sum(image_labels[sample] == concept))
            pixels[concept] += here
            images[concept] += here > 0
    return pixels, images


def tally(
    acts: NDArray[np.float16],
    thresholds: NDArray[np.float16],
    saturated: NDArray[np.bool_],
    labels: NDArray[np.uint16],
    image_labels: NDArray[np.uint16],
    category_of: NDArray[np.int64],
    annotations: NDArray[np.bool_],
    convention: str,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """intersection (T, C, K+1) and unit_pixels (T, C, G), from full masks."""
    n, units = acts.shape[:2]
    taus, concepts, categories = thresholds.shape[1], len(category_of) - 1, annotations.shape[1]
    height, width = labels.shape[2:]
    intersection = np.zeros((taus, units, concepts + 1), np.int64)
    unit_pixels = np.zeros((taus, units, categories), np.int64)
    for tau in range(taus):
        for unit in range(units):
            for sample in range(n):
                inside = mask(acts[sample, unit], thresholds[unit, tau], bool(saturated[unit, tau]), height, width)
                area = int(inside.sum())
                here = np.zeros(concepts + 1, np.int64)
                for concept in range(1, concepts + 1):
                    here[concept] = sum(int(np.sum(inside & (plane == concept))) for plane in labels[sample])
                    here[concept] += area * int(np.sum(image_labels[sample] == concept))
                intersection[tau, unit] += here
                for category in range(categories):
                    if convention == "image":
                        counts = bool(annotations[sample, category])
                    elif convention == "mask":
                        counts = bool(np.any(here[category_of == category] > 0))
                    else:
                        counts = True
                    unit_pixels[tau, unit, category] += area * counts
    return intersection, unit_pixels
