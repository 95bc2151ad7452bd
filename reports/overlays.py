"""Label planes laid over their image in colours, and where the names of the concepts fit.

The image is grey and shows through; what is labelled is tinted, a line between any two labels; what is not
labelled is darker and has no colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept
from microtome.datasets.planes import resize_labels

LONGER = 480
"""The longer side of a picture in pixels."""

COLOURS = (
    *("#1e78f0", "#ffd200", "#ff0000", "#00e060", "#ff00a5", "#00d8d8", "#ff870f", "#4b00ff", "#b4f02d", "#a51e00"),
    *("#ffb4ff", "#2d7800", "#0fc3ff", "#962dc3", "#ff9687", "#785a00", "#ff005a", "#00875a", "#d2e187", "#962d5a"),
    *("#8ab8ff", "#c8a000", "#694b96", "#7dffb0"),
)
"""Colours as far from each other as so many can be."""

COLOUR_TERMS = {
    "black": "#202020",
    "blue": "#1f5fe0",
    "brown": "#8a5a2b",
    "gray": "#8c8c8c",
    "grey": "#8c8c8c",
    "green": "#1fa03c",
    "orange": "#ff8c1a",
    "pink": "#ff9ecb",
    "purple": "#8a2be2",
    "red": "#e01f1f",
    "white": "#ffffff",
    "yellow": "#ffe020",
}
"""What names of colours are drawn in, so that blue is blue."""

_TINT = 0.55
_DIMMED = 0.62
_SMALLEST_SIDE = 24
_LETTER, _LINE = 12, 27  # of a name, in pixels of the picture, which is shown at about half of its size
_INSIDE = 7  # the least distance, in pixels, from the middle of a name to the border of its region
_MOST_NAMES = 14


@dataclass(frozen=True, slots=True)
class Region:
    """A concept in a picture: its share of the pixels, and where its name stands, in percent, if there is room."""

    concept: int
    share: float
    place: tuple[float, float] | None


def picture_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8, the image with its longer side at `LONGER`."""
    height, width = image.shape[:2]
    scale = LONGER / max(height, width)
    size = (max(_SMALLEST_SIDE, round(width * scale)), max(_SMALLEST_SIDE, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.uint8)


def jpeg(picture: NDArray[np.uint8], quality: int = 85) -> bytes:
    """An RGB picture as the bytes of a JPEG file."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def choose_colours(concepts: Iterable[Concept]) -> dict[int, str]:
    """{id: colour}: the same on every picture where there are few concepts, else different ones on each."""
    chosen: dict[int, str] = {}
    taken: set[int] = set()
    for concept in sorted(concepts, key=lambda concept: concept.id):
        if concept.category == "color" and concept.name in COLOUR_TERMS:
            chosen[concept.id] = COLOUR_TERMS[concept.name]
            continue
        own = (concept.id - 1) % len(COLOURS)
        free = ((own + step) % len(COLOURS) for step in range(len(COLOURS)))
        number = next((candidate for candidate in free if candidate not in taken), own)
        taken.add(number)
        chosen[concept.id] = COLOURS[number]
    return chosen


def overlay(picture: NDArray[np.uint8], plane: NDArray[np.uint16], colours: Mapping[int, str]) -> NDArray[np.uint8]:
    """`picture` (rows, columns, 3) under the concept ids of `plane` (h, w), over the same field of view."""
    labels = _on(picture, plane)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    table = np.zeros((int(labels.max(initial=0)) + 1, 3), np.float32)
    for concept, colour in colours.items():
        if concept < len(table):
            table[concept] = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    tinted = np.where(labels[..., None] > 0, (1 - _TINT) * grey + _TINT * table[labels], _DIMMED * grey)
    tinted[_borders(labels)] *= 0.35
    return tinted.round().astype(np.uint8)


def regions(picture: NDArray[np.uint8], plane: NDArray[np.uint16], names: Mapping[int, str]) -> list[Region]:
    """The concepts of `plane`, largest first, with the places of the `names` that fit without hiding another."""
    labels = _on(picture, plane)
    counts = np.bincount(labels.ravel())
    found = [concept for concept in np.argsort(-counts, kind="stable").tolist() if concept and counts[concept]]
    taken: list[tuple[float, float, float, float]] = []
    placed = []
    for concept in found:
        place = None
        if len(taken) < _MOST_NAMES:
            place = _place(labels == concept, len(names[concept]), taken)
        placed.append(Region(concept, float(counts[concept] / labels.size), place))
    return placed


def _on(picture: NDArray[np.uint8], plane: NDArray[np.uint16]) -> NDArray[np.uint16]:
    labels: NDArray[np.uint16] = resize_labels(plane[None], (picture.shape[0], picture.shape[1]))[0]
    return labels


def _borders(labels: NDArray[np.uint16]) -> NDArray[np.bool_]:
    borders = np.zeros(labels.shape, np.bool_)
    borders[:-1] |= labels[:-1] != labels[1:]
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return borders


def _place(
    region: NDArray[np.bool_], letters: int, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float] | None:
    """Where a name stands, in percent from the left and the top; its box is added to those `taken`."""
    rows, columns = region.shape
    depth = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = divmod(int(depth.argmax()), columns)
    width = (letters + 1) * _LETTER
    if depth[row, column] < _INSIDE or width > columns:
        return None
    left = min(max(column - width / 2, 0), columns - width)
    top = min(max(row - _LINE / 2, 0), rows - _LINE)
    box = (left, top, left + width, top + _LINE)
    if any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in taken):
        return None
    taken.append(box)
    return 100 * (left + width / 2) / columns, 100 * (top + _LINE / 2) / rows
