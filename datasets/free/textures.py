"""Simple textures from pixels, by the structure tensor: smooth, grainy, and lines in four arrangements.

J. Bigun and G. H. Granlund, "Optimal orientation detection of linear symmetry", ICCV 1987, 433-438: gradients are
squared as complex numbers, so that opposite ones agree, and averaged over a neighbourhood; four-fold arrangements
by the fourth power (J. Bigun, "Pattern recognition in images by symmetries and coordinate transformations", CVIU 68,
1997). All is measured at one scale, on the image brought to a shorter side of 224 pixels, so that the answer does not
depend on resolution; a neighbourhood is a Gaussian of 8 of those pixels, a twenty-eighth of the shorter side. With
z = gx + i gy the gradient of the luma in gray levels (0 ... 255) a pixel, and <.> the mean over the neighbourhood:

    energy       sqrt(<|z|^2>)              how steep the picture is, in levels a pixel
    coherence    |<z^2>| / <|z|^2>          1 where all gradients lie on one line, 0 where none is preferred
    cross        |<z^4 / |z|^2>| / <|z|^2>  1 where all lie on two lines at right angles
    imbalance    |<z |z|>| / <|z|^2>        1 where all point one way, as at the lone edge of a thing or a slope
    direction    arg(<z^2>) / 2             of the gradients; lines run at right angles to it

    smooth             energy below 2
    horizontal lines   energy from 3, imbalance to 0.65, coherence from 0.6, lines within 20 degrees of horizontal
    vertical lines     the same, within 20 degrees of vertical
    diagonal lines     the same, within 20 degrees of either diagonal
    crossed lines      energy from 3, imbalance to 0.65, coherence to 0.4, cross from 0.5
    grainy             energy from 4, imbalance to 0.65, coherence to 0.4, cross to 0.35

All else has no name: what lies between two of these, and the outlines of things. Lines have a name from a period of
4 to one of 32 pixels of 224 where the contrast is enough: for a sine of amplitude A and period P, about A > 0.7 P, and
1.1 P at the shortest.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.planes import resize_labels

TEXTURES: Final = (
    "crossed lines", "diagonal lines", "grainy", "horizontal lines", "smooth", "vertical lines",
)  # fmt: skip
"""The number of a texture in label planes is its place here, from 1."""

_SHORT_SIDE: Final = 224
_LONG_SIDE: Final = 8 * _SHORT_SIDE
"""No longer side than this, whatever the aspect ratio; the shorter one is then less than 224."""

_NEIGHBOURHOOD: Final = 8.0
_SMOOTH, _LINES, _GRAINY = 2.0, 3.0, 4.0
_ONE_SIDED: Final = 0.65
_COHERENT, _INCOHERENT = 0.6, 0.4
_CROSSED, _UNCROSSED = 0.5, 0.35
_SECTOR: Final = np.radians(20.0)

Floats = NDArray[np.float32]


def name_textures(image: NDArray[np.uint8], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The texture around every pixel: (H, W) uint8, 1 ... 6 as in TEXTURES, 0 = none, of an (H, W, 3) uint8 RGB image.

    size: (h, w) of the answer, a grid over the same field of view, to the nearest; None for the image's own.
    """
    squares, fourths, sided, total = _averages(_working_luma(image))
    found = _decide(squares, fourths, sided, total)
    height, width = size or (image.shape[0], image.shape[1])
    return np.asarray(resize_labels(found.astype(np.uint16)[None], (height, width))[0], np.uint8)


def _working_luma(image: NDArray[np.uint8]) -> Floats:
    """The luma (h, w) float32 in [0, 255] at the scale at which textures are measured."""
    height, width = image.shape[:2]
    scale = min(_SHORT_SIDE / min(height, width), _LONG_SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    luma = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    if size != (height, width):
        luma = cv2.resize(luma, (size[1], size[0]), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.asarray(luma, np.float32)


def _averages(luma: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """<z^2>, <z^4 / |z|^2>, <z |z|> (each (2, h / 2, w / 2): real and imaginary part) and <|z|^2> (h / 2, w / 2)."""
    gx = cv2.Scharr(luma, cv2.CV_32F, 1, 0, scale=1 / 32)
    gy = cv2.Scharr(luma, cv2.CV_32F, 0, 1, scale=1 / 32)
    xx, yy = gx * gx, gy * gy
    total = xx + yy
    length = np.sqrt(total)
    real, imaginary = xx - yy, 2 * gx * gy
    weight = np.maximum(total, np.float32(1e-6))
    maps = (
        real, imaginary, (real * real - imaginary * imaginary) / weight, 2 * real * imaginary / weight,
        gx * length, gy * length, total,
    )  # fmt: skip
    half = (max(1, luma.shape[1] // 2), max(1, luma.shape[0] // 2))
    small = [cv2.resize(found, half, interpolation=cv2.INTER_AREA) for found in maps]
    smooth = np.empty((len(maps), half[1], half[0]), np.float32)
    for place, found in enumerate(small):
        smooth[place] = cv2.GaussianBlur(found, (0, 0), _NEIGHBOURHOOD / 2)
    return smooth[0:2], smooth[2:4], smooth[4:6], smooth[6]


def _decide(squares: Floats, fourths: Floats, sided: Floats, total: Floats) -> NDArray[np.uint8]:
    """The textures (h, w) uint8 by the definitions above."""
    coherent, crossed, one_sided = (pair[0] ** 2 + pair[1] ** 2 for pair in (squares, fourths, sided))
    whole = total**2  # what the squared means are shares of
    textured = (one_sided <= _ONE_SIDED**2 * whole) & (total >= _LINES**2)
    lines = textured & (coherent >= _COHERENT**2 * whole)
    tangled = textured & (coherent <= _INCOHERENT**2 * whole)
    doubled = np.arctan2(squares[1], squares[0])
    steps = np.abs(doubled)
    found = np.zeros(total.shape, np.uint8)
    for name, where in (
        ("smooth", total < _SMOOTH**2),
        ("vertical lines", lines & (steps <= 2 * _SECTOR)),
        ("horizontal lines", lines & (steps >= np.pi - 2 * _SECTOR)),
        ("diagonal lines", lines & (np.abs(steps - np.pi / 2) <= 2 * _SECTOR)),
        ("crossed lines", tangled & (crossed >= _CROSSED**2 * whole)),
        ("grainy", tangled & (crossed <= _UNCROSSED**2 * whole) & (total >= _GRAINY**2)),
    ):
        found[where] = TEXTURES.index(name) + 1
    return found
