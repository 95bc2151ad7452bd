"""Patch strips: one JPEG a unit, its thumbnails side by side by rank.

Images come in the order of the samples, strips are wanted by unit: between the two, memory holds the small pictures
(one for all patches of the same box) and the activation maps of a pass, and a report too large for that takes several
passes. JPEG at quality 82 encodes a strip of twelve in 0.25 ms at 1.6 KB a thumbnail; WebP takes 5 to 12 ms a strip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.reports.heat import COLOURS, draw_heat_strip
from microtome.reports.outlines import draw_strip
from microtome.reports.source import Progress, ReadImage, ReportRun, Together
from microtome.reports.thumbnails import SIZE, Camera, LayerPatches, Pictures, sample_blocks
from microtome.storage.errors import SampleError

QUALITY = 82
_HELD_BYTES = 512 << 20
_READ_BYTES = 192 << 20


def write_strips(
    run: ReportRun,
    read_image: ReadImage,
    plans: Sequence[LayerPatches],
    folder_of: Callable[[str], Path],
    *,
    together: Together | None = None,
    workers: int,
    progress: Progress | None,
) -> set[int]:
    """Draw all thumbnails of `plans` and write `folder_of(layer)/UNIT.jpg`.

    Returns the samples whose image could not be read any more; their thumbnails are plain grey.
    """
    grids = {entry["name"]: (entry["grid"][0], entry["grid"][1]) for entry in run.info["layers"]}
    passes = [_Pass.of(run, read_image, group, grids) for group in _passes(plans, grids, _HELD_BYTES)]
    total = sum(len(one.pictures.samples) for one in passes)
    missing: set[int] = set()
    done = 0
    for plan in plans:
        folder_of(plan.layer).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        while passes:
            one = passes.pop(0)
            for taken in pool.map(_call, one.preparations(_READ_BYTES // workers, together)):
                if taken is None:
                    continue
                done += taken.count
                missing.update(taken.missing)
                if progress is not None:
                    progress(done, total)
            for _ in pool.map(_call, one.strips(folder_of)):
                pass
    return missing


def _passes(
    plans: Sequence[LayerPatches], grids: dict[str, tuple[int, int]], bound: int
) -> Iterator[list[LayerPatches]]:
    """Groups of layers, or parts of them, drawn together, so that what waits in memory stays about within `bound`."""
    group: list[LayerPatches] = []
    held = 0
    for plan in plans:
        cells = math.prod(grids[plan.layer])
        parts = math.ceil(plan.held_bytes(cells) / bound)
        step = math.ceil(plan.units / max(parts, 1))
        for start in range(0, plan.units, max(step, 1)):
            part = plan if parts <= 1 else plan.of_units(start, start + step)
            size = part.held_bytes(cells)
            if group and held + size > bound:
                yield group
                group, held = [], 0
            group.append(part)
            held += size
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class _Layer:
    """The patches of a layer in a pass: their pictures' numbers and, once read, their activation maps (n, h, w)."""

    plan: LayerPatches
    picture: NDArray[np.int64]
    maps: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Taken:
    """So many samples have been dealt with, and which of them could not be read."""

    count: int
    missing: list[int]


@dataclass(frozen=True, slots=True)
class _Pass:
    """What is drawn together. All preparations are independent of each other, and so are all strips after them."""

    run: ReportRun
    read_image: ReadImage
    layers: list[_Layer]
    pictures: Pictures

    @classmethod
    def of(
        cls,
        run: ReportRun,
        read_image: ReadImage,
        group: Sequence[LayerPatches],
        grids: dict[str, tuple[int, int]],
    ) -> _Pass:
        """The pass of the plans in `group`."""
        pictures, numbers = Pictures.plan(group)
        layers = [
            _Layer(plan, number, np.empty((len(number), *grids[plan.layer]), np.float32))
            for plan, number in zip(group, numbers, strict=True)
        ]
        return cls(run, read_image, layers, pictures)

    def preparations(self, read_bytes: int, together: Together | None) -> Iterator[_ReadMaps | _TakePictures]:
        """Reads of at most `read_bytes` of activations each, every chunk once if it fits, and pictures to take."""
        chunk = self.run.info["shards"]["chunk"]
        samples = self.pictures.samples
        step = 1 if together is None else together.count
        for start, stop in sample_blocks(samples, chunk):
            for layer in self.layers:
                for part in _parts(layer, start, stop, read_bytes):
                    yield _ReadMaps(self.run, layer, part)
            low, high = np.searchsorted(samples, [start, stop]).tolist()
            for first in range(low, high, step):
                part = range(first, min(first + step, high))
                yield _TakePictures(self.run, self.read_image, self.pictures, part, together)

    def strips(self, folder_of: Callable[[str], Path]) -> Iterator[_WriteStrip]:
        """A strip for every unit that has patches."""
        for layer in self.layers:
            for positions in _by_unit(layer.plan):
                yield _WriteStrip(layer, self.pictures, positions, folder_of(layer.plan.layer))


def _parts(layer: _Layer, start: int, stop: int, read_bytes: int) -> Iterator[range]:
    """Patches of samples start ... stop - 1, cut so that no read of activations exceeds a bound."""
    step = max(1, read_bytes // (2 * layer.plan.units * math.prod(layer.maps.shape[1:])))
    for low in range(start, stop, step):
        part = layer.plan.between(low, min(low + step, stop))
        if part:
            yield part


def _by_unit(plan: LayerPatches) -> list[NDArray[np.int64]]:
    """Positions in `plan` of each unit that has patches."""
    order = np.argsort(plan.unit, kind="stable")
    _, first = np.unique(plan.unit[order], return_index=True)
    return [part for part in np.split(order, first[1:]) if len(part)]


@dataclass(frozen=True, slots=True)
class _ReadMaps:
    """Reads the activation maps of the patches in `part`, those of one block of samples, that show one."""

    run: ReportRun
    layer: _Layer
    part: range

    def __call__(self) -> None:
        plan = self.layer.plan
        here = slice(self.part.start, self.part.stop)
        wanted = plan.mapped[here]
        maps = self.run.activation_maps(plan.layer, plan.sample[here][wanted], plan.unit[here][wanted])
        self.layer.maps[here][wanted] = maps


@dataclass(frozen=True, slots=True)
class _TakePictures:
    """Decodes samples, by their numbers in the pass, and takes all of their pictures."""

    run: ReportRun
    read_image: ReadImage
    pictures: Pictures
    part: range
    together: Together | None

    def __call__(self) -> _Taken:
        samples = {index: int(self.pictures.samples[index]) for index in self.part}
        opened = nullcontext() if self.together is None else self.together.open(list(samples.values()))
        with opened:
            missing = [sample for index, sample in samples.items() if not self._take(index, sample)]
        return _Taken(len(samples), missing)

    def _take(self, index: int, sample: int) -> bool:
        """Whether the sample could be read."""
        try:
            image = np.ascontiguousarray(self.read_image(sample))
        except SampleError:
            return False
        preprocess = self.run.info["model"]["preprocess"]
        size = (preprocess["size"][0], preprocess["size"][1])
        self.pictures.take(index, Camera.of(image, size, preprocess["resize"]))
        return True


@dataclass(frozen=True, slots=True)
class _WriteStrip:
    """Draws and writes the strip of one unit, given the positions of its patches in the layer."""

    layer: _Layer
    pictures: Pictures
    positions: NDArray[np.int64]
    folder: Path

    def __call__(self) -> None:
        plan, pictures = self.layer.plan, self.pictures
        strip = np.zeros((SIZE, (int(plan.rank[self.positions].max()) + 1) * SIZE * 3), np.uint8)
        draw_strip(
            self.positions,
            plan.rank,
            self.layer.picture,
            np.zeros_like(plan.mapped) if plan.heat else plan.mapped,
            plan.threshold,
            plan.saturated,
            self.layer.maps,
            pictures.pixels.reshape(-1, SIZE, SIZE * 3),
            pictures.shape,
            pictures.place,
            strip,
        )
        if plan.heat:
            maps, at = self.layer.maps, self.positions
            places = (pictures.shape, pictures.place)
            draw_heat_strip(at, plan.rank, self.layer.picture, plan.mapped, maps, *places, COLOURS, strip)
        (self.folder / f"{plan.unit[self.positions[0]]}.jpg").write_bytes(encode_jpeg(strip.reshape(SIZE, -1, 3)))


def _call(task: _ReadMaps | _TakePictures | _WriteStrip) -> _Taken | None:
    return task()


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """`image` (H, W, 3) uint8 BGR as JPEG."""
    encoded = cast("tuple[bool, Any]", cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]))
    return bytes(encoded[1])
