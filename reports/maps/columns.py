"""The files of concepts and of units: of each, at which points it is.

Both are stored sample by sample and wanted one at a time: blocks of them are read and turned over, as many as memory
allows at once. Where only the highest peaks of a unit are wanted, the shards pass once, whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.reports.maps.encode import QUICK_LEVEL, encode_all, encode_bits, encode_top
from microtome.reports.maps.files import FOLDER, MapFiles, layer_address
from microtome.reports.maps.highest import Highest
from microtome.reports.maps.points import Points, columns_of, shards_of
from microtome.reports.source import ReportRun
from microtome.reports.summaries import Concepts
from microtome.storage.arrays import PEAKS, PRESENCE, layer_array, presence_bytes
from microtome.storage.schema import LayerEntry

UNIT_BYTES = 96_000_000
"""What the files of a layer's units hold at most, before they are compressed."""
_BYTES_OF_PEAK = 5
"""What one peak takes where only the highest ones are kept."""


def write_concepts(run: ReportRun, points: Points, concepts: Concepts, files: MapFiles) -> list[dict[str, Any]]:
    """Write a file for each concept that occurs at any point; returns the manifest's list of them.

    By category, in the order of the pages, then by how many points have it, most first, then by id. Empty where the run
    does not say which concepts occur in which samples.
    """
    if not run.arrays.exists(PRESENCE):
        return []
    found: list[tuple[int, int, dict[str, Any]]] = []
    last = len(concepts.names) - 1
    for first, block in columns_of(run, PRESENCE, presence_bytes(last), points):
        for number, held in enumerate(block, first):
            for concept in range(max(8 * number, 1), min(8 * number + 8, last + 1)):
                bits = (held >> (concept % 8) & 1).astype(np.bool_)
                if images := int(bits.sum()):
                    address = files.data(f"{FOLDER}/concepts/{concept}.js", partial(encode_bits, bits))
                    category = int(concepts.category[concept])
                    about = {
                        "id": concept,
                        "name": concepts.names[concept],
                        "category": concepts.categories[category] if category >= 0 else "",
                        "images": images,
                        "file": address,
                    }
                    found.append((category, concept, about))
    return [about for *_, about in sorted(found, key=lambda item: (item[0], -item[2]["images"], item[1]))]


@dataclass(frozen=True, slots=True)
class UnitFiles:
    """How the units of a layer are kept: all their peaks, or the `top` highest of each (None: all)."""

    units: int
    top: int | None

    @classmethod
    def of(cls, units: int, points: int, most_bytes: int = UNIT_BYTES) -> UnitFiles:
        """For so many units and points."""
        if units * points <= most_bytes:
            return cls(units, None)
        return cls(units, max(1, most_bytes // (_BYTES_OF_PEAK * units)))


def write_units(
    run: ReportRun, entry: LayerEntry, points: Points, names: Sequence[str], files: MapFiles, how: UnitFiles
) -> dict[str, Any] | None:
    """Write a file for each unit of a layer; returns what the manifest says of them, None where peaks are not kept.

    names: of what each unit detects, "" for nothing.
    """
    array = layer_array(entry["folder"], PEAKS)
    if not run.arrays.exists(array):
        return None
    pattern = layer_address(entry["folder"], "units/{unit}.js")
    write = _write_all if how.top is None else _write_top
    maxima = write(run, array, points, how, float(entry["scale"]), pattern, files)
    return {
        "count": how.units,
        "mode": "all" if how.top is None else "top",
        "top": how.top,
        "file": pattern,
        "names": list(names),
        "maxima": [float(f"{maximum:.5g}") for maximum in maxima.tolist()],
    }


def _write_all(
    run: ReportRun, array: str, points: Points, how: UnitFiles, scale: float, pattern: str, files: MapFiles
) -> NDArray[np.float64]:
    """Write the peak of every point, unit by unit; returns the units' maxima."""
    maxima = np.zeros(how.units)
    for first, block in columns_of(run, array, how.units, points):
        for unit, stored in enumerate(block, first):
            files.data(pattern.format(unit=unit), partial(_all_bytes, stored, np.float32(scale), maxima, unit))
        files.settle()
    return maxima


def _all_bytes(stored: NDArray[np.float16], scale: np.float32, maxima: NDArray[np.float64], unit: int) -> bytes:
    """The content of a unit's file, whose maximum among the points is put into `maxima`."""
    peaks = stored.astype(np.float32) * scale
    maxima[unit] = peaks[np.isfinite(peaks)].max(initial=0)
    return encode_all(peaks, float(maxima[unit]))


def _write_top(
    run: ReportRun, array: str, points: Points, how: UnitFiles, scale: float, pattern: str, files: MapFiles
) -> NDArray[np.float64]:
    """Write the highest peaks, unit by unit; returns the units' maxima."""
    highest = Highest(how.units, min(how.top or 1, len(points.samples)))
    for rows, values in shards_of(run, array):
        highest.update(values, points.place[rows.start : rows.stop])
    maxima = highest.maxima.astype(np.float64) * scale
    for unit, maximum in enumerate(maxima.tolist()):
        content = partial(_top_bytes, highest, unit, np.float32(scale), maximum)
        files.data(pattern.format(unit=unit), content, QUICK_LEVEL)
    files.settle()
    return maxima


def _top_bytes(highest: Highest, unit: int, scale: np.float32, maximum: float) -> bytes:
    at, stored = highest.of_unit(unit)
    return encode_top(at, stored.astype(np.float32) * scale, maximum)
