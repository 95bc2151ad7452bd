"""The pointing game (Zhang et al., 2016, "Top-down neural attention by excitation backprop").

A map hits where its maximum lies on the object, or no more than 15 pixels beside it; how often it does is compared
with the centre of the image and with a place drawn at random.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.storage.errors import UsageError

TOLERANCE = 15
"""Pixels beside the object that still count, as published."""

Masks = NDArray[np.bool_]
Hits = NDArray[np.float64]


def pointing_game(maps: NDArray[np.floating], masks: Masks, tolerance: float = TOLERANCE) -> Hits:
    """(n,) float64: 1 where the maximum of a map (n, H, W) is within `tolerance` pixels of its mask (n, H, W), else 0.

    Where several pixels share the maximum, the share of them that is, so that a constant map is as good as chance;
    NaN where the mask is empty. Raises UsageError where the shapes differ.
    """
    _check(maps.shape, masks.shape, tolerance)
    hits = np.full(len(maps), np.nan)
    for i, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask.any():
            hits[i] = _near(mask, tolerance)[values == values.max()].mean()
    return hits


def centre_hits(masks: Masks, tolerance: float = TOLERANCE) -> Hits:
    """(n,): whether the centre of the image hits; the mean of the middle pixels where a side is even."""
    hits = np.full(len(masks), np.nan)
    rows, columns = (slice((side - 1) // 2, side // 2 + 1) for side in masks.shape[1:])
    for i, mask in enumerate(masks):
        if mask.any():
            hits[i] = _near(mask, tolerance)[rows, columns].mean()
    return hits


def chance_hits(masks: Masks, tolerance: float = TOLERANCE) -> Hits:
    """(n,): how often a pixel drawn at random hits, exactly."""
    hits = np.full(len(masks), np.nan)
    for i, mask in enumerate(masks):
        if mask.any():
            hits[i] = _near(mask, tolerance).mean()
    return hits


def _near(mask: Masks, tolerance: float) -> Masks:
    """Pixels of a mask (H, W) that is not empty, and those no further than `tolerance` from one of its centres."""
    if not tolerance:
        return mask
    distances = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances <= tolerance + 1e-4)


def _check(maps: tuple[int, ...], masks: tuple[int, ...], tolerance: float) -> None:
    if len(maps) != 3 or maps != masks:
        raise UsageError(f"maps {maps} and masks {masks} differ; both are (images, height, width)")
    if tolerance < 0:
        raise UsageError(f"a tolerance of {tolerance} pixels; give 0 or more")
