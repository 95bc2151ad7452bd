"""Patch strips: one JPEG a unit, its thumbnails side by side by rank.

Images come in the order of the samples, strips are wanted by unit: between the two, memory holds the small pictures
(one for all patches of the same box) and masks of a pass, and a report too large for that takes several passes.
JPEG at quality 82 encodes a strip of twelve in 0.25 ms at 1.6 KB a thumbnail; WebP takes 5 to 12 ms a strip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.reports.outlines import dim
from microtome.reports.source import Progress, ReadImage, ReportRun
from microtome.reports.thumbnails import SIZE, Box, Drawer, LayerPatches, Thumb, sample_blocks
from microtome.storage.errors import SampleError

QUALITY = 82
_HELD_BYTES = 512 << 20
_READ_BYTES = 64 << 20
_EMPTY = Thumb(np.full((SIZE, SIZE, 3), 128, np.uint8), None)

Thumbs: TypeAlias = list[list[Thumb]]
"""The thumbnails of a pass, by layer of the pass and position in that layer's plan."""


@dataclass(frozen=True, slots=True)
class _Drawing:
    """One patch to prepare: its layer within the pass, its position in that layer's plan, and what it shows."""

    layer: int
    position: int
    box: Box
    activation: NDArray[np.float32] | None
    threshold: float
    saturated: bool


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
    passes = list(_passes(plans, _HELD_BYTES))
    total = sum(len(np.unique(_all_samples(group))) for group in passes)
    missing: set[int] = set()
    done = 0
    for plan in plans:
        folder_of(plan.layer).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        for group in passes:
            thumbs: Thumbs = [[_EMPTY] * len(plan.unit) for plan in group]
            for sample, readable in _prepare_all(pool, run, read_image, group, thumbs):
                done += 1
                if not readable:
                    missing.add(sample)
                if progress is not None:
                    progress(done, total)
            for plan, drawn in zip(group, thumbs, strict=True):
                for _ in pool.map(_StripTask(plan, drawn, folder_of(plan.layer)), _by_unit(plan)):
                    pass
    return missing


def _passes(plans: Sequence[LayerPatches], bound: int) -> Iterator[list[LayerPatches]]:
    """Groups of layers, or parts of them, drawn together, so that what waits in memory stays about within `bound`."""
    group: list[LayerPatches] = []
    held = 0
    for plan in plans:
        parts = math.ceil(plan.held_bytes / bound)
        step = math.ceil(plan.units / max(parts, 1))
        for start in range(0, plan.units, max(step, 1)):
            part = plan if parts <= 1 else plan.of_units(start, start + step)
            size = part.held_bytes
            if group and held + size > bound:
                yield group
                group, held = [], 0
            group.append(part)
            held += size
    if group:
        yield group


def _all_samples(group: Sequence[LayerPatches]) -> NDArray[np.int64]:
    return np.concatenate([plan.sample for plan in group])


# By sample


def _prepare_all(
    pool: ThreadPoolExecutor, run: ReportRun, read_image: ReadImage, group: Sequence[LayerPatches], thumbs: Thumbs
) -> Iterator[tuple[int, bool]]:
    """Fill `thumbs` block by block; (sample, whether its image was readable). Reads a block while one is prepared."""
    prepare = _SampleTask(run, read_image, thumbs)
    prepared: Iterator[tuple[int, bool]] = iter(())
    for block in _drawings(run, group):
        started = zip(block, pool.map(prepare, block.items()), strict=True)
        yield from prepared
        prepared = started
    yield from prepared


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
    step = max(1, _READ_BYTES // (2 * plan.units * grid[0] * grid[1]))
    for low in range(start, stop, step):
        part = plan.between(low, min(low + step, stop))
        if part:
            yield part


def _collect(run: ReportRun, plan: LayerPatches, number: int, part: range, block: dict[int, list[_Drawing]]) -> None:
    here = slice(part.start, part.stop)
    outlined = plan.outlined[here]
    maps = iter(run.activation_maps(plan.layer, plan.sample[here][outlined], plan.unit[here][outlined]))
    columns = (plan.sample, plan.box, plan.outlined, plan.threshold, plan.saturated)
    rows = zip(part, *(column[here].tolist() for column in columns), strict=True)
    for position, sample, box, has_mask, threshold, saturated in rows:
        activation = next(maps) if has_mask else None
        drawing = _Drawing(number, position, tuple(box), activation, threshold, saturated)
        block.setdefault(sample, []).append(drawing)


@dataclass(frozen=True, slots=True)
class _SampleTask:
    """Decodes one sample and prepares all of its patches."""

    run: ReportRun
    read_image: ReadImage
    thumbs: Thumbs

    def __call__(self, item: tuple[int, list[_Drawing]]) -> bool:
        sample, drawings = item
        try:
            image = np.ascontiguousarray(self.read_image(sample))
        except SampleError:
            return False
        preprocess = self.run.info["model"]["preprocess"]
        size = (preprocess["size"][0], preprocess["size"][1])
        drawer = Drawer.of(image, size, preprocess["resize"])
        for drawing in drawings:
            thumb = drawer.thumb(drawing.box, drawing.activation, drawing.threshold, drawing.saturated)
            self.thumbs[drawing.layer][drawing.position] = thumb
        return True


# By unit


def _by_unit(plan: LayerPatches) -> list[NDArray[np.int64]]:
    """Positions in `plan` of each unit that has patches."""
    order = np.argsort(plan.unit, kind="stable")
    _, first = np.unique(plan.unit[order], return_index=True)
    return [part for part in np.split(order, first[1:]) if len(part)]


@dataclass(frozen=True, slots=True)
class _StripTask:
    """Draws and writes the strip of one unit, given the positions of its patches."""

    plan: LayerPatches
    thumbs: list[Thumb]
    folder: Path

    def __call__(self, positions: NDArray[np.int64]) -> None:
        unit = int(self.plan.unit[positions[0]])
        ranks = self.plan.rank[positions].tolist()
        strip = draw_strip({rank: self.thumbs[at] for rank, at in zip(ranks, positions.tolist(), strict=True)})
        (self.folder / f"{unit}.jpg").write_bytes(encode_jpeg(strip))


def draw_strip(thumbs: dict[int, Thumb]) -> NDArray[np.uint8]:
    """The thumbnails side by side, by rank: (SIZE, n * SIZE, 3) uint8. Cells are filled up with the nearest pixel."""
    width = (max(thumbs) + 1) * SIZE
    plain = np.zeros((SIZE, width, 3), np.uint8)
    places = {}
    for rank, thumb in thumbs.items():
        rows, columns = thumb.picture.shape[:2]
        places[rank] = np.s_[:rows, rank * SIZE : rank * SIZE + columns]
        plain[places[rank]] = thumb.picture
    strip = dim(plain)
    for rank, thumb in thumbs.items():
        rows, columns = thumb.picture.shape[:2]
        if thumb.mask is None:
            strip[places[rank]] = thumb.picture
        else:
            thumb.mask.draw(thumb.picture, strip[places[rank]])
        cell = strip[:, rank * SIZE : (rank + 1) * SIZE]
        if columns < SIZE:
            cell[:rows, columns:] = cell[:rows, columns - 1 : columns]
        if rows < SIZE:
            cell[rows:] = cell[rows - 1]
    return strip


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """`image` (H, W, 3) uint8 RGB as JPEG."""
    flipped = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded = cast("tuple[bool, Any]", cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]))
    return bytes(encoded[1])
