"""Many small pictures in one: the maps of a layer's strongest units, and the filters of a layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.reports.contact import Tile, draw_grid
from microtome.reports.explanations.colours import scale_of
from microtome.reports.explanations.overlays import Map, heat_of, picture_of

MOST_MAPS, MOST_FILTERS = 64, 256
_MAP_SIDE, _FILTER_SIDE = 96, 56
_PER_LINE = 16


def strongest(maps: Map, most: int = MOST_MAPS) -> NDArray[np.int64]:
    """The units of maps (C, h, w) with the highest peaks, highest first, the lower number first where they are equal;
    what is not finite is no peak."""
    peaks = np.where(np.isfinite(maps), maps, -np.inf).reshape(len(maps), -1).max(axis=1)
    return np.argsort(-peaks, kind="stable")[:most].astype(np.int64)


def maps_grid(maps: Map, units: Sequence[int] | NDArray[np.int64], title: str = "") -> Image.Image:
    """The maps (C, h, w) of `units`, each in colours scaled by itself, with its number and its peak beneath it."""
    tiles = []
    for unit in (int(unit) for unit in units):
        one = maps[unit]
        known = one[np.isfinite(one)]
        peak = f"{known.max():.3g}" if known.size else "-"
        picture = heat_of(one, signed=bool(known.size and known.min() < 0), scale=float(np.abs(known).max() or 1.0))
        tiles.append(Tile(_enlarged(picture, _MAP_SIDE), (str(unit), peak)))
    return draw_grid(tiles, title, side=_MAP_SIDE, per_line=8)


def filters_grid(weights: Map, title: str = "", most: int = MOST_FILTERS) -> Image.Image:
    """The first `most` filters of weights (C, D, h, w) with their numbers: as colours around grey where D is 3, else as
    heat, on one scale for all, how long the vector of the D weights is at each position."""
    shown = weights[:most]
    if weights.shape[1] == 3:
        pictures = [picture_of(one) for one in shown]
    else:
        sizes = np.sqrt(np.square(shown, dtype=np.float64).sum(axis=1))
        scale = scale_of(sizes, 1.0)
        pictures = [heat_of(one, scale=scale) for one in sizes]
    tiles = [Tile(_enlarged(picture, _FILTER_SIDE), (str(unit),)) for unit, picture in enumerate(pictures)]
    left_out = f" (the first {most} of {len(weights)})" if len(weights) > most else ""
    return draw_grid(tiles, f"{title}{left_out}", side=_FILTER_SIDE, per_line=_PER_LINE)


def _enlarged(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """With every pixel a square, at least `side` pixels long, so that smoothing does not hide what was computed."""
    times = -(-side // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)
