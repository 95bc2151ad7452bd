"""What values become colours: two tables that those who do not tell red from green read as well, and the scale.

Along HEAT the lightness rises all the way, so that it may be read in grey, too. SIGNED goes from blue (against) by a
light grey to orange (for), as light at one end as at the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOP_SHARE = 0.99
"""The magnitude that this share of the values does not exceed gets the last colour: a few extremes dim nothing else."""

_HEAT = ("#140f3d", "#4a1a7a", "#8e2585", "#cc4470", "#f2794f", "#fcb74f", "#fdf6b0")
_SIGNED = ("#08479b", "#2f86d6", "#8fc3ee", "#eeeeee", "#f6b684", "#e07622", "#a54600")


def _table(colours: tuple[str, ...]) -> NDArray[np.uint8]:
    """(256, 3) uint8 RGB: the colours at equal distances, linear in between."""
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in colours], np.float64)
    places = np.linspace(0, len(colours) - 1, 256)
    ramps = [np.interp(places, np.arange(len(colours)), stops[:, channel]) for channel in range(3)]
    return np.rint(np.stack(ramps, axis=1)).astype(np.uint8)


HEAT = _table(_HEAT)
"""(256, 3) uint8 RGB, from nothing to most."""

SIGNED = _table(_SIGNED)
"""(256, 3) uint8 RGB, from most against to most for; nothing lies in the middle."""


def scale_of(values: NDArray[np.floating], share: float = TOP_SHARE) -> float:
    """The magnitude that gets the last colour, above 0: that which `share` of the magnitudes do not exceed, the largest
    where that is 0, and 1 where there is nothing but 0. What is not finite does not count."""
    magnitudes = np.abs(values[np.isfinite(values)], dtype=np.float64)
    if not magnitudes.size or not magnitudes.max():
        return 1.0
    return float(np.quantile(magnitudes, share) or magnitudes.max())


def colours_of(values: NDArray[np.floating], *, signed: bool) -> NDArray[np.uint8]:
    """The colours (..., 3) uint8 of values already scaled: [0, 1], or [-1, 1] where signed."""
    table = SIGNED if signed else HEAT
    places = (values + 1) / 2 if signed else values
    return np.asarray(table[np.rint(255 * np.clip(places, 0, 1)).astype(np.intp)], np.uint8)
