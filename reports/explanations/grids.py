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


def maps_grid(maps: Map, units: Sequence[int] | NDArray[np.int64], title: str = "", *, first: int = 0) -> Image.Image:
    """The maps (C, h, w) of `units`, each in colours scaled by itself, with its number and its peak beneath it.

    first: the number of map 0.
    """
    tiles = []
    for unit in (int(unit) for unit in units):
        one = maps[unit]
        known = one[np.isfinite(one)]
        peak = f"{known.max():.3g}" if known.size else "-"
        picture = heat_of(one, signed=bool(known.size and known.min() < 0), scale=float(np.abs(known).max() or 1.0))
        tiles.append(Tile(_enlarged(picture, _MAP_SIDE), (str(first + unit), peak)))
    return draw_grid(tiles, title, side=_MAP_SIDE, per_line=8)


def mosaic(maps: Map, across: int = 4) -> NDArray[np.uint8]:
    """The strongest maps of (C, h, w), `across` beside each other and as many lines, without words: (n, m, 3) uint8."""
    pictures = []
    for unit in strongest(maps, across * across):
        known = maps[unit][np.isfinite(maps[unit])]
        scale = float(np.abs(known).max(initial=0)) or 1.0
        pictures.append(_enlarged(heat_of(maps[unit], signed=bool(known.min(initial=0) < 0), scale=scale), 40))
    side_by_side = max(1, min(across, len(pictures)))
    blank = np.full_like(pictures[0], 255)
    pictures += [blank] * (-len(pictures) % side_by_side)
    framed = [np.pad(picture, ((1, 1), (1, 1), (0, 0)), constant_values=255) for picture in pictures]
    lines = [np.concatenate(framed[at : at + side_by_side], axis=1) for at in range(0, len(framed), side_by_side)]
    return np.concatenate(lines)


def filters_grid(weights: Map, title: str = "", *, first: int = 0, most: int = MOST_FILTERS) -> Image.Image:
    """The first `most` filters of weights (C, D, h, w) with their numbers: as colours around grey where D is 3, else as
    heat, on one scale for all, how long the vector of the D weights is at each position.

    first: the number of filter 0.
    """
    shown = weights[:most]
    if weights.shape[1] == 3:
        pictures = [picture_of(one) for one in shown]
    else:
        sizes = np.sqrt(np.square(shown, dtype=np.float64).sum(axis=1))
        scale = scale_of(sizes, 1.0)
        pictures = [heat_of(one, scale=scale) for one in sizes]
    tiles = [Tile(_enlarged(picture, _FILTER_SIDE), (str(first + unit),)) for unit, picture in enumerate(pictures)]
    left_out = f" (the first {most} of {len(weights)})" if len(weights) > most else ""
    return draw_grid(tiles, f"{title}{left_out}", side=_FILTER_SIDE, per_line=_PER_LINE)


def _enlarged(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """With every pixel a square, at least `side` pixels long, so that smoothing does not hide what was computed."""
    times = -(-side // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)
