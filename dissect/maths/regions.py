"""A sample's label planes as regions: pixels with the same labels in every plane, one number each.

A mask then counts each pixel once instead of once a plane, and a run of pixels in one region by one addition.
Regions need not be maximal: two of them may carry the same labels. Where labels change every few pixels (fine
parts, noise), naming costs more than it saves, and is given up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.jit import differ_mask, kernel, trailing_zeros

Regions = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint16], NDArray[np.int64]]
"""Region of each pixel (H, W); a column right of it up to which its row is of the same region (H, W); the concepts
of each region (H*W, P) and how many these are (H*W,), both filled as far as there are regions."""


ROWS_BEFORE_GIVING_UP = 8
PIXELS_A_PLANE = 2
"""Naming is given up where, after so many rows, regions have fewer pixels on average than that for each plane: then
it is cheaper to look up every plane for each pixel of a mask (measured with one plane and with six)."""


@kernel
def find_regions(flat: NDArray[np.uint16], start: int, regions: Regions) -> bool:
    """Fill `regions` from the label planes (P, H, W) that lie in `flat` from `start` on.

    Returns False, with `regions` unusable, where there are too many to be of use.
    """
    region, run_end, _, _ = regions
    height, width = region.shape
    planes = regions[2].shape[1]
    found = 0
    for y in range(height):
        for x0 in range(0, width, 64):
            size = min(64, width - x0)
            new_run = np.uint64(0)
            new_below = np.uint64(0)
            for p in range(planes):
                here = start + (p * height + y) * width + x0
                new_run |= differ_mask(flat, here + 1, here, size - 1) << np.uint64(1)
                if x0 > 0 and flat[here] != flat[here - 1]:
                    new_run |= np.uint64(1)
                if y > 0:
                    new_below |= differ_mask(flat, here, here - width, size)
            starts = new_run | np.uint64(1)
            while starts != np.uint64(0):
                begin = trailing_zeros(starts)
                starts &= starts - np.uint64(1)
                end = trailing_zeros(starts) if starts != np.uint64(0) else size
                same = (~new_below >> np.uint64(begin)) << np.uint64(begin)
                first_same = trailing_zeros(same) if same != np.uint64(0) else 64
                if begin == 0 and x0 > 0 and (new_run & np.uint64(1)) == np.uint64(0):
                    name = int(region[y, x0 - 1])
                elif y > 0 and first_same < end:
                    name = int(region[y - 1, x0 + first_same])
                else:
                    name = found
                    found += 1
                    _name_region(flat, start + y * width + x0 + begin, name, regions)
                for x in range(x0 + begin, x0 + end):
                    region[y, x] = name
                    run_end[y, x] = x0 + end
        if y + 1 >= ROWS_BEFORE_GIVING_UP and found * PIXELS_A_PLANE * planes > (y + 1) * width:
            return False
    return True


@kernel
def _name_region(flat: NDArray[np.uint16], pixel: int, name: int, regions: Regions) -> None:
    """Note the concepts of a new region, from its pixel in the first plane."""
    _, _, labels, size = regions
    area = labels.shape[0]
    count = 0
    for p in range(labels.shape[1]):
        concept = flat[pixel + p * area]
        if concept > 0:
            labels[name, count] = concept
            count += 1
    size[name] = count
