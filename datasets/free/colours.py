"""The eleven basic colour terms of English from pixels, by a published model of how people name colours.

The terms are those of Berlin and Kay (1969). The model is the triple sigmoid with elliptical centre of R. Benavente,
M. Vanrell and R. Baldrich, "Parametric fuzzy sets for automatic color naming", J. Opt. Soc. Am. A 25(10), 2582-2593
(2008), with the parameters of the authors' program, to two decimals: fuzzy memberships in CIELAB that were fitted to
the names people gave to samples under illuminant D65, the white of sRGB, so that no adaptation to another white is
needed.

On each of six intervals of lightness the chromatic terms share the (a*, b*) plane as sectors around a centre near
the neutral axis. With S(x) = 1 / (1 + exp(-x)), the membership of the term between two borders is

    S(beta_1 * d_1) * S(-beta_2 * d_2) * S(beta_e * (r - 1))

d_1, d_2: distances from the borders, the lines through the centre at the angles where the sector begins and ends,
positive counter-clockwise; r: the squared radius, 1 on an ellipse around the neutral colours. What the chromatic
terms leave of 1 goes to black, gray and white by lightness. A colour has the name of its largest membership; there
are no colours without a name.

One step is ours. The samples were surfaces, and a display shows colours more vivid than surfaces have: there the
model's straight borders run on past what it was fitted to, and make full display red orange and full blue purple.
So a colour of chroma C* above 75 is first mixed with gray light of its own luminance until C* is 75. This renames 2
percent of the sRGB cube. Very dark, saturated blues, such as (0, 0, 128), stay purple, as the model has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

COLOUR_TERMS: Final = (
    "black", "blue", "brown", "gray", "green", "orange", "pink", "purple", "red", "white", "yellow",
)  # fmt: skip
"""The number of a term in label planes is its place here, from 1."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Level:
    """The (a*, b*) plane for lightness up to `top`.

    centre: (a*, b*); axes: semi-axes of the ellipse; tilt: its rotation in degrees; steepness: beta_e.
    sectors: (term, angle in degrees where it begins, beta of that border), counter-clockwise; each ends where the
    next begins.
    """

    top: float
    centre: tuple[float, float]
    axes: tuple[float, float]
    tilt: float
    steepness: float
    sectors: tuple[tuple[str, float, float], ...]


_LEVELS: Final = (
    _Level(
        31, (0.42, 0.25), (5.89, 7.47), 2.32, 9.84,
        (("red", -2.24, 0.90), ("brown", 33.45, 1.72), ("green", 104.56, 0.84), ("blue", 224.59, 1.95),
         ("purple", 302.85, 1.01)),
    ),
    _Level(
        42, (0.23, 0.66), (6.46, 7.87), 17.59, 6.03,
        (("red", 2.21, 0.52), ("brown", 41.19, 5.00), ("green", 96.87, 0.69), ("blue", 210.46, 0.96),
         ("purple", 301.52, 0.92), ("pink", 344.28, 1.10)),
    ),
    _Level(
        51, (-0.12, 0.52), (5.38, 6.98), 19.58, 6.81,
        (("red", 13.57, 1.00), ("orange", 44.45, 0.57), ("brown", 61.24, 0.52), ("green", 96.65, 0.84),
         ("blue", 199.38, 0.60), ("purple", 301.76, 0.80), ("pink", 337.37, 0.62)),
    ),
    _Level(
        66, (-0.44, 1.08), (6.06, 7.50), 24.55, 7.32,
        (("red", 26.52, 0.94), ("orange", 32.99, 0.75), ("yellow", 80.12, 0.48), ("green", 95.67, 0.73),
         ("blue", 198.32, 0.64), ("purple", 301.23, 0.76), ("pink", 326.08, 5.00)),
    ),
    _Level(
        76, (-0.57, 1.16), (5.37, 6.90), 24.75, 100.0,
        (("orange", 25.75, 2.00), ("yellow", 74.15, 0.84), ("green", 102.27, 0.86), ("blue", 188.57, 0.74),
         ("purple", 299.17, 0.47), ("pink", 327.45, 1.74)),
    ),
    _Level(
        np.inf, (-1.26, 1.81), (6.04, 7.39), -1.19, 100.0,
        (("orange", 25.74, 1.03), ("yellow", 72.44, 0.79), ("green", 106.24, 0.96), ("blue", 190.05, 0.90),
         ("purple", 300.57, 0.60), ("pink", 327.63, 1.93)),
    ),
)  # fmt: skip
_BLACK_TO_GRAY: Final = (28.28, 0.71)
_GRAY_TO_WHITE: Final = (79.65, 0.31)
"""Lightness of the border between two achromatic terms, and its steepness."""

_MOST_VIVID: Final = 75.0
"""The largest chroma C* that is named as it is; at most 80 brings display red to red and display blue to blue."""

_BITS: Final = 6
_SRGB_TO_XYZ: Final = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)  # IEC 61966-2-1; the rows' sums are the white, D65


def name_colours(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colour term of every pixel: (H, W) uint8, 1 ... 11 as in COLOUR_TERMS, of an (H, W, 3) uint8 sRGB image.

    Read from a table over 64^3 cells of RGB (see `term_table`).
    """
    cells = (image >> (8 - _BITS)).astype(np.uint32)
    where = (cells[..., 0] << (2 * _BITS)) | (cells[..., 1] << _BITS) | cells[..., 2]
    return np.asarray(np.take(term_table(), where), np.uint8)


@cache
def term_table() -> NDArray[np.uint8]:
    """(262144,) uint8, read-only: the term at the centre of each cell `(r >> 2) << 12 | (g >> 2) << 6 | b >> 2`.

    Computed at the first call, in a fraction of a second; threads that call together may each compute it.
    """
    width = 1 << (8 - _BITS)
    levels = np.arange(1 << _BITS) * width + (width - 1) / 2
    table = name_exactly(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3))
    table.flags.writeable = False
    return table


def name_exactly(rgb: Floats) -> NDArray[np.uint8]:
    """(n,) uint8, 1 ... 11 as in COLOUR_TERMS, of (n, 3) sRGB values in [0, 255]: the formula, not the table."""
    lab = _cielab(_less_vivid(_linear(rgb)))
    return np.asarray(memberships(lab).argmax(axis=1) + 1, np.uint8)


def memberships(lab: Floats) -> Floats:
    """(n, 11) float64 memberships, in the order of COLOUR_TERMS, of (n, 3) CIELAB colours (L*, a*, b*) under D65.

    None is negative; they sum to 1, save near the centre where the chromatic terms overlap.
    """
    found = np.zeros((len(lab), len(COLOUR_TERMS)))
    lightness = lab[:, 0]
    level_of = np.searchsorted([level.top for level in _LEVELS[:-1]], lightness, side="left")
    for number, level in enumerate(_LEVELS):
        rows = np.flatnonzero(level_of == number)
        _name_chromatic(level, lab[rows, 1:], rows, found)
    left = np.clip(1 - found.sum(axis=1), 0, None)
    black = _sigmoid(_BLACK_TO_GRAY[1] * (_BLACK_TO_GRAY[0] - lightness))
    white = _sigmoid(_GRAY_TO_WHITE[1] * (lightness - _GRAY_TO_WHITE[0]))
    for term, share in (("black", black), ("gray", (1 - black) * (1 - white)), ("white", white)):
        found[:, COLOUR_TERMS.index(term)] = left * share
    return found


def _name_chromatic(level: _Level, plane: Floats, rows: NDArray[np.intp], found: Floats) -> None:
    """Write the chromatic memberships of the (m, 2) colours of one interval of lightness into `rows` of `found`."""
    offset = plane - level.centre
    across, along = _rotated(offset, level.tilt)
    radius = (across / level.axes[0]) ** 2 + (along / level.axes[1]) ** 2
    vivid = _sigmoid(level.steepness * (radius - 1))
    borders = [beta * _rotated(offset, angle)[1] for _, angle, beta in level.sectors]
    for (term, _, _), begin, end in zip(level.sectors, borders, [*borders[1:], borders[0]], strict=True):
        found[rows, COLOUR_TERMS.index(term)] = _sigmoid(begin) * _sigmoid(-end) * vivid


def _rotated(plane: Floats, degrees: float) -> tuple[Floats, Floats]:
    """Coordinates of (m, 2) points on axes turned counter-clockwise: along the first axis, and beside it."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return plane[:, 0] * cosine + plane[:, 1] * sine, plane[:, 1] * cosine - plane[:, 0] * sine


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -500, 500))))


def cielab(rgb: Floats) -> Floats:
    """CIELAB (L*, a*, b*) under D65 of (n, 3) sRGB values in [0, 255] (IEC 61966-2-1 and CIE 15)."""
    return _cielab(_linear(rgb))


def _linear(rgb: Floats) -> Floats:
    encoded = rgb / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _cielab(linear: Floats) -> Floats:
    xyz = linear @ (_SRGB_TO_XYZ / _SRGB_TO_XYZ.sum(axis=1, keepdims=True)).T
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * (24389 / 27 / 116) + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def _less_vivid(linear: Floats) -> Floats:
    """(n, 3) linear sRGB, mixed with gray of the same luminance where the chroma is above _MOST_VIVID, until it is not.

    Chroma grows with the share of the colour in the mixture, so the share is found by bisection.
    """
    vivid = np.flatnonzero(_chroma(linear) > _MOST_VIVID)
    colour = linear[vivid]
    gray = np.repeat(colour @ _SRGB_TO_XYZ[1:2].T, 3, axis=1)
    least, most = np.zeros((len(vivid), 1)), np.ones((len(vivid), 1))
    for _ in range(16):
        share = (least + most) / 2
        fits = _chroma(gray + share * (colour - gray))[:, None] <= _MOST_VIVID
        least, most = np.where(fits, share, least), np.where(fits, most, share)
    mixed = linear.copy()
    mixed[vivid] = gray + least * (colour - gray)
    return mixed


def _chroma(linear: Floats) -> Floats:
    lab = _cielab(linear)
    return np.hypot(lab[:, 1], lab[:, 2])
