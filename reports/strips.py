"""Patch strips: one JPEG a unit, its thumbnails side by side by rank.

Thumbnails come in the order of the samples, strips are wanted by unit: raw thumbnails wait in a scratch file, so
that memory holds one block of samples whatever the size of the run. JPEG at quality 85 encodes a strip of twelve in
0.4 ms at 2.5 KB a thumbnail; WebP takes 5 to 12 ms for 1.2 to 1.5 KB.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.reports.outlines import as_uint8
from microtome.reports.source import Progress, ReadImage, ReportRun
from microtome.reports.thumbnails import SIZE, Drawer, LayerPatches, sample_blocks
from microtome.storage.errors import SampleError

QUALITY = 85
_SCRATCH_BYTES = 1 << 30
_READ_BYTES = 64 << 20
_THUMB_BYTES = SIZE * SIZE * 3
_EMPTY = 128


@dataclass(frozen=True, slots=True)
class _Drawing:
    """One patch to draw: its layer within the pass, its position in that layer's plan, its activation map."""

    layer: int
    position: int
    activation: NDArray[np.float32] | None


def write_strips(
    run: ReportRun,
    read_image: ReadImage,
    plans: Sequence[LayerPatches],
    folder_of: Callable[[str], Path],
    *,
    workers: int,
    progress: Progress | None,
) -> set[int]:
    """Draw all thumbnails of `plans` and write `folder_of(layer)/UNIT.jpg`.

    Returns the samples whose image could not be read any more; their thumbnails are plain grey.
    """
    passes = list(_passes(plans))
    total = sum(len(np.unique(_all_samples(group))) for group in passes)
    missing: set[int] = set()
    done = 0
    for group in passes:
        scratch_path = folder_of(group[0].layer).parent / "thumbnails.scratch"
        # The pool ends before the scratch file closes: no thread may write to a handle that is someone else's by then.
        with _scratch(scratch_path) as scratch, ThreadPoolExecutor(workers) as pool:
            for sample, readable in _draw_all(pool, run, read_image, group, scratch):
                done += 1
                if not readable:
                    missing.add(sample)
                if progress is not None:
                    progress(done, total)
            _encode_all(pool, group, scratch, folder_of)
    return missing


def _draw_all(
    pool: ThreadPoolExecutor, run: ReportRun, read_image: ReadImage, group: Sequence[LayerPatches], scratch: int
) -> Iterator[tuple[int, bool]]:
    """Draw block by block; (sample, whether its image was readable). The next block is read while one is drawn."""
    draw = _SampleTask(run, read_image, group, scratch)
    drawn: Iterator[tuple[int, bool]] = iter(())
    for block in _drawings(run, group):
        started = zip(block, pool.map(draw, block.items()), strict=True)
        yield from drawn
        drawn = started
    yield from drawn


def _passes(plans: Sequence[LayerPatches]) -> Iterator[list[LayerPatches]]:
    """Groups of layers drawn together, so that the scratch file stays bounded."""
    group: list[LayerPatches] = []
    size = 0
    for plan in plans:
        if group and size + plan.scratch_bytes > _SCRATCH_BYTES:
            yield group
            group, size = [], 0
        group.append(plan)
        size += plan.scratch_bytes
    if group:
        yield group


def _all_samples(group: Sequence[LayerPatches]) -> NDArray[np.int64]:
    return np.concatenate([plan.sample for plan in group])


def _drawings(run: ReportRun, group: Sequence[LayerPatches]) -> Iterator[dict[int, list[_Drawing]]]:
    """What to draw, one block of samples at a time, by sample: activations are read once a block and layer."""
    chunk = run.info["shards"]["chunk"]
    for start, stop in sample_blocks(_all_samples(group), chunk):
        block: dict[int, list[_Drawing]] = {}
        for number, plan in enumerate(group):
            for part in _parts(run, plan, start, stop):
                _collect(run, plan, number, part, block)
        yield {sample: block[sample] for sample in sorted(block)}


def _parts(run: ReportRun, plan: LayerPatches, start: int, stop: int) -> Iterator[range]:
    """Patches of samples start ... stop - 1, cut so that no read of activations exceeds a bound."""
    grid = next(entry["grid"] for entry in run.info["layers"] if entry["name"] == plan.layer)
    step = max(1, _READ_BYTES // (4 * plan.units * grid[0] * grid[1]))
    for low in range(start, stop, step):
        part = plan.between(low, min(low + step, stop))
        if part:
            yield part


def _collect(run: ReportRun, plan: LayerPatches, number: int, part: range, block: dict[int, list[_Drawing]]) -> None:
    first, last = int(plan.sample[part[0]]), int(plan.sample[part[-1]])
    maps = run.activation_range(plan.layer, first, last + 1) if plan.outlined[part.start : part.stop].any() else None
    for position in part:
        sample, unit = int(plan.sample[position]), plan.unit[position]
        wanted = maps is not None and plan.outlined[position]
        activation = maps[sample - first, unit].copy() if maps is not None and wanted else None
        block.setdefault(sample, []).append(_Drawing(number, position, activation))


@dataclass(frozen=True, slots=True)
class _SampleTask:
    """Decodes one sample and draws all of its patches into the scratch file."""

    run: ReportRun
    read_image: ReadImage
    group: Sequence[LayerPatches]
    scratch: int

    def __call__(self, item: tuple[int, list[_Drawing]]) -> bool:
        sample, drawings = item
        try:
            image = np.ascontiguousarray(self.read_image(sample))
        except SampleError:
            return self._grey(drawings)
        preprocess = self.run.info["model"]["preprocess"]
        size = (preprocess["size"][0], preprocess["size"][1])
        drawer = Drawer.of(image, size, preprocess["resize"])
        for drawing in drawings:
            plan, position = self.group[drawing.layer], drawing.position
            top, left, bottom, right = plan.box[position].tolist()
            thumb = drawer.draw(
                (top, left, bottom, right),
                drawing.activation,
                float(plan.threshold[position]),
                bool(plan.saturated[position]),
            )
            self._put(drawing, thumb)
        return True

    def _grey(self, drawings: list[_Drawing]) -> bool:
        for drawing in drawings:
            self._put(drawing, np.full((SIZE, SIZE, 3), _EMPTY, np.uint8))
        return False

    def _put(self, drawing: _Drawing, thumb: NDArray[np.uint8]) -> None:
        plan = self.group[drawing.layer]
        cell = thumb
        if thumb.shape != (SIZE, SIZE, 3):
            below, beside = SIZE - thumb.shape[0], SIZE - thumb.shape[1]
            cell = as_uint8(cv2.copyMakeBorder(thumb, 0, below, 0, beside, cv2.BORDER_REPLICATE))
        slot = int(plan.unit[drawing.position]) * plan.per_unit + int(plan.rank[drawing.position])
        offset = _offset(self.group, drawing.layer) + slot * _THUMB_BYTES
        os.pwrite(self.scratch, cell.data, offset)


def _offset(group: Sequence[LayerPatches], number: int) -> int:
    return sum(plan.scratch_bytes for plan in group[:number])


@contextmanager
def _scratch(path: Path) -> Iterator[int]:
    """A file without a name that lives as long as the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        path.unlink()
        yield handle
    finally:
        os.close(handle)


def _encode_all(
    pool: ThreadPoolExecutor,
    group: Sequence[LayerPatches],
    scratch: int,
    folder_of: Callable[[str], Path],
) -> None:
    for number, plan in enumerate(group):
        folder = folder_of(plan.layer)
        folder.mkdir(parents=True, exist_ok=True)
        counts = np.zeros(plan.units, np.int64)
        np.maximum.at(counts, plan.unit, plan.rank + 1)
        start = _offset(group, number)
        task = _StripTask(scratch, start, plan.per_unit, folder)
        drawn = np.flatnonzero(counts).tolist()
        for _ in pool.map(task, drawn, counts[drawn].tolist()):
            pass


@dataclass(frozen=True, slots=True)
class _StripTask:
    """Encodes the strip of one unit."""

    scratch: int
    start: int
    per_unit: int
    folder: Path

    def __call__(self, unit: int, count: int) -> None:
        raw = os.pread(self.scratch, count * _THUMB_BYTES, self.start + unit * self.per_unit * _THUMB_BYTES)
        cells = np.frombuffer(raw, np.uint8).reshape(count, SIZE, SIZE, 3)
        strip = np.ascontiguousarray(cells.transpose(1, 0, 2, 3)).reshape(SIZE, count * SIZE, 3)
        (self.folder / f"{unit}.jpg").write_bytes(encode_jpeg(strip))


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """`image` (H, W, 3) uint8 RGB as JPEG."""
    flipped = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded = cast("tuple[bool, Any]", cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]))
    return bytes(encoded[1])
