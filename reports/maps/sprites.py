"""Sheets of thumbnails in page order, so that what the pointer passes over lies in few sheets.

Thumbnails are stored by sample and wanted by point, which is as good as random: they go through a file without a name,
so that memory stays flat. WebP at quality 75 takes 0.26 KB a thumbnail of photographs, a quarter less than JPEG of the
same fidelity, and about 0.05 s a sheet of 1,024; trying harder saves a twentieth of it in half as much time again.
"""

from __future__ import annotations

import io
import tempfile
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.reports.maps.files import FOLDER, MapFiles
from microtome.reports.maps.points import Points, shards_of
from microtome.reports.source import ReportRun
from microtome.storage.arrays import THUMBNAIL_SIDE, THUMBNAILS

TILE = THUMBNAIL_SIDE
COLUMNS = 32
PER_SHEET = COLUMNS * COLUMNS
QUALITY = 75
_EFFORT = 0
_TILE_BYTES = 3 * TILE * TILE


def sheet_count(points: int) -> int:
    """How many sheets hold the thumbnails of so many points."""
    return -(-points // PER_SHEET)


def write_sprites(run: ReportRun, points: Points, files: MapFiles, spill: Path) -> dict[str, Any] | None:
    """Write the sheets and return what the manifest says of them; None where the run has no thumbnails.

    spill: the folder on whose disk the thumbnails lie meanwhile, 3 KB each.
    """
    if not run.arrays.exists(THUMBNAILS):
        return None
    pattern = f"{FOLDER}/sprites/{{sheet}}.webp"
    with tempfile.TemporaryFile(dir=spill) as turned:
        _turn(run, points, turned)
        turned.seek(0)
        for sheet in range(sheet_count(len(points.samples))):
            tiles = np.frombuffer(turned.read(PER_SHEET * _TILE_BYTES), np.uint8).reshape(-1, TILE, TILE, 3)
            files.raw(pattern.format(sheet=sheet), partial(sheet_bytes, tiles))
    return {"tile": TILE, "columns": COLUMNS, "per": PER_SHEET, "file": pattern}


def _turn(run: ReportRun, points: Points, turned: IO[bytes]) -> None:
    """Write the thumbnails into `turned` in page order."""
    for rows, tiles in shards_of(run, THUMBNAILS):
        place = points.place[rows.start : rows.stop]
        for row in np.argsort(place, kind="stable")[np.count_nonzero(place < 0) :].tolist():
            turned.seek(int(place[row]) * _TILE_BYTES)
            turned.write(tiles[row].tobytes())
    turned.flush()


def sheet_bytes(tiles: NDArray[np.uint8]) -> bytes:
    """A sheet of (n, TILE, TILE, 3) uint8 RGB tiles, row by row, as WebP; the same tiles give the same bytes."""
    rows = -(-len(tiles) // COLUMNS)
    padded = np.zeros((rows * COLUMNS, TILE, TILE, 3), np.uint8)
    padded[: len(tiles)] = tiles
    sheet = padded.reshape(rows, COLUMNS, TILE, TILE, 3).swapaxes(1, 2).reshape(rows * TILE, COLUMNS * TILE, 3)
    written = io.BytesIO()
    Image.fromarray(sheet).save(written, "WEBP", quality=QUALITY, method=_EFFORT)
    return written.getvalue()
