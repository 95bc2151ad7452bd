"""The class masks of VOC: indexed PNGs, whose numbers count and whose palette does not.

The published masks carry VOC's palette, whose colours are made from the bits of the numbers. A mask in grey, without
a palette or with one of its own is read by its numbers all the same. Two kinds are refused, since what they seem to
say is not what was labelled: masks in colours, and indexed ones that hold VOC's colours at other numbers (what a
program makes of a mask in colours when it saves it with a palette).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.formats.voc.layout import BORDER, CLASSES
from microtome.datasets.images import decode_image, decode_mask
from microtome.storage.errors import SampleError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NAMES = {0: "background", **dict(enumerate(CLASSES, start=1)), BORDER: "border"}


@functools.cache
def voc_palette() -> NDArray[np.uint8]:
    """The colours of VOC's palette: (256, 3) uint8 RGB.

    Bit 3k + c of a number is bit 7 - k of channel c, as `VOClabelcolormap` of the development kit has it.
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    colours.flags.writeable = False
    return colours


def read_class_mask(path: Path, key: str) -> NDArray[np.uint16]:
    """The numbers of a class mask, (h, w). Raises SampleError for `key` where it cannot be used."""
    try:
        mask = decode_mask(path, key)
    except SampleError as error:
        found = _colours(path, key)
        if found:
            reason = f"in colours ({found}); expected the numbers of the classes in an indexed or grey PNG"
            raise SampleError(key, reason) from error
        raise
    _check_palette(_png_palette(path), mask, key)
    return mask


def _colours(path: Path, key: str) -> str:
    """Which of VOC's colours the image at `path` shows; "" where it does not decode."""
    try:
        image = decode_image(path, key)
    except SampleError:
        return ""
    known = {tuple(colour): number for number, colour in enumerate(voc_palette().tolist()) if number in _NAMES}
    colours = [tuple(colour) for colour in np.unique(image.reshape(-1, 3), axis=0).tolist()]
    numbers = sorted(known[colour] for colour in colours if colour in known)
    if not numbers:
        return "none of them of VOC's palette"
    named = f"VOC's palette has them for {', '.join(_NAMES[number] for number in numbers)}"
    others = len(colours) - len(numbers)
    return f"{named}, not for {others} others" if others else named


def _check_palette(palette: NDArray[np.uint8] | None, mask: NDArray[np.uint16], key: str) -> None:
    """Raise SampleError where all colours in use are VOC's, and stand at other numbers than in VOC's palette."""
    if palette is None:
        return
    used = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[:256])
    if mask.max(initial=0) >= len(palette):
        return
    known = {tuple(colour): number for number, colour in enumerate(voc_palette().tolist()) if number in _NAMES}
    means = {int(number): known.get(tuple(palette[number].tolist())) for number in used}
    wrong = [(number, meant) for number, meant in means.items() if meant != number]
    if wrong and None not in means.values():
        number, meant = wrong[0]
        name = _NAMES[meant or 0]
        raise SampleError(key, f"its palette has the colour of {name} at number {number}; expected VOC's own numbers")


def _png_palette(path: Path) -> NDArray[np.uint8] | None:
    """The palette of a PNG, (n, 3); None where it has none."""
    with path.open("rb") as file:
        if file.read(8) != _SIGNATURE:
            return None
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4]), head[4:]
            if kind == b"PLTE":
                return np.frombuffer(file.read(length - length % 3), np.uint8).reshape(-1, 3)
            if kind == b"IDAT":
                return None
            file.seek(length + 4, 1)
    return None
