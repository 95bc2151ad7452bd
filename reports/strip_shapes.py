"""How much of its cell each thumbnail of a strip uses, so that a page can show strips without a layer's whole data."""

from __future__ import annotations

import numpy as np

from microtome.reports.thumbnails import LayerPatches, thumb_shape

FIRST = 5
"""How many thumbnails of a unit pages beside its card show."""


def strip_shapes(plan: LayerPatches) -> list[str]:
    """For each unit, in hexadecimal digits, two a number: how many thumbnails its strip has, then columns and rows of
    each of the first FIRST, which begin at the top left of cells of `thumbnails.SIZE` pixels."""
    counts = np.bincount(plan.unit, minlength=plan.units)
    first = np.flatnonzero(plan.rank < FIRST)
    order = first[np.lexsort((plan.rank[first], plan.unit[first]))]
    sides = (plan.box[:, 2:] - plan.box[:, :2])[order].tolist()
    shapes = [f"{count:02x}" for count in counts.tolist()]
    for unit, (height, width) in zip(plan.unit[order].tolist(), sides, strict=True):
        rows, columns = thumb_shape(height, width)
        shapes[unit] += f"{columns:02x}{rows:02x}"
    return shapes
