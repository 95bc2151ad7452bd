"""Pascal-Context: the whole scene of VOC's images, in 459 classes or the 59 frequent ones.

R. Mottaghi et al., The Role of Context for Object Detection and Semantic Segmentation in the Wild (CVPR 2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.classes import MAX_ID
from microtome.datasets.formats.voc.layout import first_of, read_text, stems
from microtome.datasets.formats.voc.mat import load_variable
from microtome.datasets.images import decode_mask
from microtome.storage.errors import SampleError, UsageError

_FREQUENT = (
    *("aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle", "building"),
    *("bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow", "cup", "curtain", "dog"),
    *("door", "fence", "floor", "flower", "food", "grass", "ground", "horse", "keyboard", "light", "motorbike"),
    *("mountain", "mouse", "person", "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves"),
    *("sidewalk", "sign", "sky", "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall"),
    *("water", "window", "wood"),
)
_NO_CONCEPT = frozenset({"unknown", "background", "empty"})


@dataclass(frozen=True)
class ContextLabels:
    """Where the maps of one year lie, and what their numbers mean.

    folder: below the year; suffix: of the maps; names: of the numbers, "" for those that are no concept
    """

    folder: str
    suffix: str
    names: Mapping[int, str]

    def find(self, root: Path) -> set[str]:
        """The images of the year at `root` that have a map."""
        return stems(root / self.folder, self.suffix)

    def path(self, root: Path, name: str) -> Path:
        return root / self.folder / f"{name}{self.suffix}"

    def read(self, root: Path, name: str, key: str) -> NDArray[np.uint16]:
        """The map of one image, (h, w) numbers. Raises SampleError for `key` where it cannot be used."""
        path = self.path(root, name)
        return decode_mask(path, key) if self.suffix == ".png" else _label_map(path, key)


def find_context(root: Path) -> ContextLabels | None:
    """The labels of Pascal-Context in one year's folder, in the first of these forms; None where there are none.

    trainval/NAME.mat (variable LabelMap) with labels.txt, as published; 59_context_labels/NAME.png with 59_labels.txt,
    as published; SegmentationClassContext/NAME.png, the 59 classes by name as MMSegmentation writes them. Raises
    UsageError where the text that names the numbers is missing or cannot be used.
    """
    for folders, suffix, text in (
        (("trainval", "Context/trainval"), ".mat", "labels.txt"),
        (("59_context_labels",), ".png", "59_labels.txt"),
    ):
        folder = first_of(root, folders, suffix)
        if folder is not None:
            places = (root / text, root / folder / text, (root / folder).parent / text)
            path = next((place for place in places if place.is_file()), places[0])
            return ContextLabels(folder, suffix, _read_labels(path, root / folder))
    if stems(root / "SegmentationClassContext", ".png"):
        return ContextLabels("SegmentationClassContext", ".png", dict(enumerate(_FREQUENT, start=1)))
    return None


def _read_labels(path: Path, folder: Path) -> dict[int, str]:
    if not path.is_file():
        raise UsageError(f"{path} is missing, so the numbers in {folder} have no names; it comes with Pascal-Context")
    names: dict[int, str] = {}
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        number, colon, name = (part.strip() for part in text.partition(":"))
        if not (colon and name and number.isascii() and number.isdigit() and len(number) < 6 and int(number) <= MAX_ID):
            raise UsageError(f"{path}, line {line}: {text.strip()!r}; expected NUMBER: NAME, such as 1: accordion")
        if int(number) in names:
            raise UsageError(f"{path}, line {line}: the number {number} is there twice; keep one of them")
        names[int(number)] = "" if name in _NO_CONCEPT else name
    if not names:
        raise UsageError(f"{path} is empty; expected lines of NUMBER: NAME, such as 1: accordion")
    return names


def _label_map(path: Path, key: str) -> NDArray[np.uint16]:
    matrix = load_variable(path, "LabelMap", key)
    try:
        values = matrix.numbers()
    except ValueError as error:
        raise SampleError(key, f"LabelMap: {error}; expected whole numbers, height x width") from error
    if values.ndim != 2 or not values.size:
        raise SampleError(key, f"LabelMap is of shape {values.shape}; expected whole numbers, height x width")
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(np.uint16)
    numbers = values.astype(np.float64)
    if not ((numbers >= 0) & (numbers <= MAX_ID) & (numbers == np.floor(numbers))).all():
        raise SampleError(key, f"LabelMap holds values that are no whole number of 0 to {MAX_ID}")
    return values.astype(np.uint16)
