"""Top patches of one unit as a picture within text: cut from the report's strips, or from the run's thumbnails."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.reports.strips import encode_jpeg
from microtome.reports.thumbnails import SIZE
from microtome.storage.arrays import THUMBNAILS
from microtome.storage.schema import LayerEntry, RunInfo

_BETWEEN = 128
"""The grey between patches, for light pages and dark ones."""
_GAP = 2


class Arrays(Protocol):
    """The arrays of a run."""

    def exists(self, name: str) -> bool:
        """Whether the run has array `name`."""
        ...

    def read(self, name: str, start: int, stop: int) -> NDArray[np.generic]:
        """Samples start ... stop - 1 of array `name`."""
        ...


class PatchRun(Protocol):
    """What is read of a run to show its units in a notebook."""

    @property
    def info(self) -> RunInfo: ...
    @property
    def arrays(self) -> Arrays: ...

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run: "concepts"."""
        ...

    def layer_table(self, layer: str, name: str) -> pd.DataFrame:
        """A table of one layer: "patches", "histogram"."""
        ...

    def report_file(self, name: str) -> bytes | None:
        """A file of the report by its address in it, None where it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class Pictures:
    """data: a picture as a data URL, "" where there is none; alt: what it shows; words: beneath it, or in its place;
    small: whether it is enlarged from few pixels."""

    data: str
    alt: str
    words: str
    small: bool = False


def unit_pictures(run: PatchRun, layer: str, unit: int, count: int, across: int) -> Pictures:
    """The first `count` patches of a unit, `across` beside each other.

    Without a report these are whole images, small, where the run keeps thumbnails; else words say how to get them.
    """
    entry = next(entry for entry in run.info["layers"] if entry["name"] == layer)
    strip = run.report_file(f"patches/{entry['folder']}/{unit}.jpg")
    if strip is not None:
        image = cv2.imdecode(np.frombuffer(strip, np.uint8), cv2.IMREAD_COLOR)
        if image is not None and image.shape[0] == SIZE and image.shape[1] % SIZE == 0:
            pixels = np.asarray(image, np.uint8)
            patches = [pixels[:, at : at + SIZE] for at in range(0, pixels.shape[1], SIZE)][:count]
            return Pictures(_data(sheet(patches, across)), f"top patches of unit {unit}", "")
    return _whole_images(run, entry, unit, count, across)


def sheet(patches: list[NDArray[np.uint8]], across: int) -> NDArray[np.uint8]:
    """Equal squares (side, side, 3) in rows of `across`, with gaps."""
    side = patches[0].shape[0]
    rows = -(-len(patches) // across)
    columns = min(across, len(patches))
    made = np.full((rows * (side + _GAP) - _GAP, columns * (side + _GAP) - _GAP, 3), _BETWEEN, np.uint8)
    for number, patch in enumerate(patches):
        down, right = (place * (side + _GAP) for place in divmod(number, across))
        made[down : down + side, right : right + side] = patch
    return made


def _whole_images(run: PatchRun, entry: LayerEntry, unit: int, count: int, across: int) -> Pictures:
    patches = run.layer_table(entry["name"], "patches")
    mine = patches[patches["unit"] == unit].sort_values("rank")["sample"].head(count).tolist()
    if not mine:
        return Pictures("", "", "No patches: no image drives this unit.")
    if not run.arrays.exists(THUMBNAILS):
        return Pictures("", "", "No pictures yet: microtome report RUN draws the patches of every unit.")
    images = [np.asarray(run.arrays.read(THUMBNAILS, sample, sample + 1)[0], np.uint8)[..., ::-1] for sample in mine]
    small = "The whole images, small: microtome report RUN draws the patches."
    return Pictures(_data(sheet(images, across)), f"images that drive unit {unit} most", small, small=True)


def _data(picture: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) uint8 BGR as a data URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(picture)).decode('ascii')}"
