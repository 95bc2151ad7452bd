"""Receptive fields, measured from the model: which input pixels can reach a position of a layer.

A gradient of NaN, set at one position in all channels of a layer and propagated back to the input, marks every pixel
that the position depends on: NaN survives products with tiny weights, where a finite gradient would underflow in a
deep network. ReLU and max pooling block some paths for one input, so the marks are united over random inputs until
they no longer grow. The marks of the first, second, middle and last position of each axis give the law

    start = offset + stride * i,   stop = start + size,   both clipped to the reachable part of the image,

for every position i; where they do not follow one law (upsampling, adaptive pooling, circular padding), all
positions are measured. Convolutions run in plain kernels meanwhile: Winograd and FFT kernels would smear a NaN.

Weights that are exactly zero count as connections. What attends to the whole image (squeeze-and-excitation, global
pooling, attention, linear layers) has the whole image as its field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.model import Model

_CHUNK = 4  # positions measured in one backward pass: one image each
_LEAST_ROUNDS, _MOST_ROUNDS = 2, 6
_DENSE_LIMIT = 32  # positions of an axis that are measured where no law holds

Pair = tuple[int, int]
Span = tuple[int, int]
Spans = dict[int, Span]


@dataclass(frozen=True)
class Axis:
    """The field along one axis, in input pixels. low, high: the pixels [low, high) that reach any position at all.

    spans: (start, stop) of each position where no law holds, else empty.
    """

    stride: int
    offset: int
    size: int
    low: int
    high: int
    spans: tuple[Span, ...] = ()

    def span(self, index: int) -> Span:
        """The pixels [start, stop) that reach position `index`: at least one, within the image."""
        if self.spans:
            return self.spans[index]
        start = self.offset + self.stride * index
        first = min(max(start, self.low), self.high - 1)
        return first, max(min(start + self.size, self.high), first + 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        data: dict[str, Any] = {
            "stride": self.stride,
            "offset": self.offset,
            "size": self.size,
            "low": self.low,
            "high": self.high,
        }
        return data | {"spans": [list(span) for span in self.spans]} if self.spans else data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Axis:
        """The inverse of `to_dict`."""
        spans = tuple((int(start), int(stop)) for start, stop in data.get("spans", ()))
        stride, offset, size, low, high = (int(data[key]) for key in ("stride", "offset", "size", "low", "high"))
        return cls(stride, offset, size, low, high, spans)

    @classmethod
    def constant(cls, low: int, high: int) -> Axis:
        """Every position sees the pixels [low, high)."""
        return cls(0, low, high - low, low, high)


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of every position of a layer. `note` says why it could not be measured, else is empty."""

    rows: Axis
    columns: Axis
    note: str = ""

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right), half-open, in pixels of the model's input, clipped to it."""
        (top, bottom), (left, right) = self.rows.span(row), self.columns.span(column)
        return top, left, bottom, right

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {"rows": self.rows.to_dict(), "columns": self.columns.to_dict(), "note": self.note}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReceptiveField:
        """The inverse of `to_dict`."""
        return cls(Axis.from_dict(data["rows"]), Axis.from_dict(data["columns"]), str(data.get("note", "")))


def measure(model: Model, names: Sequence[str]) -> dict[str, ReceptiveField]:
    """The receptive fields of layers (resolved names), by name. The model and torch's generators are left as they were.

    Takes two to six forward passes and as many backward passes a layer, on four images each. A layer whose field
    cannot be measured gets the whole image and a note. Raises UsageError when a layer is not called.
    """
    length = model.preprocess.size
    try:
        with _exact_kernels(), torch.random.fork_rng(devices=[]):
            seen, grids = _observe(model, names, _few_positions)
            fields = {name: _fit(seen[name], grids[name]) for name in seen}
            irregular = [name for name, field in fields.items() if field is None]
            if irregular:
                seen, grids = _observe(model, irregular, _many_positions)
                fields |= {name: _table(seen[name], grids[name]) for name in irregular}
    except (RuntimeError, NotImplementedError) as error:
        note = f"not measured: {' '.join(str(error).split())}"
        return {name: _whole(length, note) for name in names}
    note = "not measured: no gradient reaches the input"
    return {name: fields.get(name) or _whole(length, note) for name in names}


def fit_law(seen: Spans, count: int) -> Axis | None:
    """The law of an axis of `count` positions from the spans of some of them; the first and last should be among them.

    None if there is no such law, or if more than one fits and they differ at other positions.
    """
    low, high = min(start for start, _ in seen.values()), max(stop for _, stop in seen.values())
    starts = {i: start for i, (start, _) in seen.items() if start > low}
    stops = {i: stop for i, (_, stop) in seen.items() if stop < high}
    if not starts and not stops:
        return Axis.constant(low, high)
    stride = _common_slope(starts, stops)
    if stride is None:
        pinned = all(i - 1 in seen for i in starts) and all(i + 1 in seen for i in stops)
        if not pinned:
            return None
        stride = max(1, round((high - low) / count))
    at, start = next(iter(starts.items()), (count - 1, low))
    offset = start - stride * at
    at, stop = next(iter(stops.items()), (0, high))
    law = Axis(stride, offset, stop - stride * at - offset, low, high)
    return law if all(law.span(i) == span for i, span in seen.items()) else None


def _common_slope(*edges: Mapping[int, int]) -> int | None:
    """The pixels a position that the unclipped edges agree on; None without two edges or without agreement."""
    slopes = set()
    for edge in edges:
        points = sorted(edge.items())
        slopes |= {(y - v) / (x - u) for (u, v), (x, y) in pairwise(points)}
    slope = slopes.pop() if len(slopes) == 1 else 0.5
    return int(slope) if slope == int(slope) else None


def _fit(seen: tuple[Spans, Spans], grid: Pair) -> ReceptiveField | None:
    rows, columns = fit_law(seen[0], grid[0]), fit_law(seen[1], grid[1])
    return None if rows is None or columns is None else ReceptiveField(rows, columns)


def _table(seen: tuple[Spans, Spans], grid: Pair) -> ReceptiveField:
    return ReceptiveField(_axis_of_table(seen[0], grid[0]), _axis_of_table(seen[1], grid[1]))


def _axis_of_table(seen: Spans, count: int) -> Axis:
    """A law where one holds after all, else a span for every position; between measured ones, the union of both."""
    law = fit_law(seen, count)
    if law is not None:
        return law
    every = []
    for i in range(count):
        below = seen[max((j for j in seen if j <= i), default=min(seen))]
        above = seen[min((j for j in seen if j >= i), default=max(seen))]
        every.append((min(below[0], above[0]), max(below[1], above[1])))
    low, high = min(start for start, _ in every), max(stop for _, stop in every)
    return Axis(0, low, high - low, low, high, tuple(every))


def _whole(length: Pair, note: str) -> ReceptiveField:
    return ReceptiveField(Axis.constant(0, length[0]), Axis.constant(0, length[1]), note)


# Which positions to measure: row and column indices, in pairs, of a grid of (h, w)


def _few_positions(grid: Pair) -> list[Pair]:
    return _pairs([sorted({0, min(1, n - 1), n // 2, n - 1}) for n in grid])


def _many_positions(grid: Pair) -> list[Pair]:
    return _pairs([sorted({round(i * (n - 1) / (_DENSE_LIMIT - 1)) for i in range(_DENSE_LIMIT)}) for n in grid])


def _pairs(axes: list[list[int]]) -> list[Pair]:
    rows, columns = axes
    return [(rows[i % len(rows)], columns[i % len(columns)]) for i in range(max(len(rows), len(columns)))]


# Observation


def _observe(
    model: Model, names: Sequence[str], positions_of: Callable[[Pair], list[Pair]]
) -> tuple[dict[str, tuple[Spans, Spans]], dict[str, Pair]]:
    """The pixels that reach chosen positions, for each layer by axis and index, and the layers' grids (h, w).

    Layers that no pixel reaches are left out of the first.
    """
    seen: dict[str, tuple[Spans, Spans]] = {name: ({}, {}) for name in names}
    grids: dict[str, Pair] = {}
    with ActivationCapture(model.module, names, transform=_keep_graph, gradients=True, resolved=True) as capture:
        for round_ in range(_MOST_ROUNDS):
            before = deepcopy(seen)
            start = 0
            while start == 0 or any(start < len(positions_of(grid)) for grid in grids.values()):
                images = _images(model, seed=1000 * round_ + start).requires_grad_()
                maps = capture(images.clone())
                grids = {name: (m.shape[2], m.shape[3]) for name, m in maps.items()}
                for name in names:
                    chunk = positions_of(grids[name])[start : start + _CHUNK]
                    if chunk and not (round_ and _complete(seen[name], model.preprocess.size)):
                        _mark(maps[name], images, chunk, seen[name])
                start += _CHUNK
            if all(_complete(seen[name], model.preprocess.size) for name in names):
                break
            if round_ + 1 >= _LEAST_ROUNDS and seen == before:
                break
    return {name: axes for name, axes in seen.items() if all(axes)}, grids


def _complete(axes: tuple[Spans, Spans], length: Pair) -> bool:
    """Whether every position measured sees the whole image already: it cannot see more."""
    return all(set(spans.values()) == {(0, pixels)} for spans, pixels in zip(axes, length, strict=True))


def _mark(maps: Tensor, images: Tensor, positions: list[Pair], axes: tuple[Spans, Spans]) -> None:
    """Unite the spans of the positions (one image each) with what `axes` hold already."""
    if not maps.requires_grad:
        return
    seed = torch.zeros_like(maps)
    for image, (row, column) in enumerate(positions):
        seed[image, :, row, column] = torch.nan
    (gradient,) = torch.autograd.grad(maps, images, seed, retain_graph=True, allow_unused=True)
    if gradient is None:
        return
    reached = gradient.isnan().any(dim=1)
    for image, position in enumerate(positions):
        for axis, index in enumerate(position):
            hit = reached[image].any(dim=1 - axis).nonzero()
            if len(hit):
                start, stop = axes[axis].get(index, (1 << 30, 0))
                axes[axis][index] = (min(start, int(hit[0])), max(stop, int(hit[-1]) + 1))


def _keep_graph(name: str, maps: Tensor) -> Tensor:
    return maps.clone()


def _images(model: Model, seed: int) -> Tensor:
    """Random inputs (_CHUNK, 3, H, W), between coarse blotches and fine noise, so that they excite various units."""
    fine = model.noise(_CHUNK, seed=seed).float()
    blotches = torch.nn.functional.interpolate(fine[:, :, :5, :5], size=fine.shape[2:], mode="nearest")
    share = torch.linspace(0.2, 0.8, _CHUNK, device=fine.device)[:, None, None, None]
    return (share * fine + (1 - share) * blotches).to(model.placeholder().dtype)


@contextmanager
def _exact_kernels() -> Iterator[None]:
    """Convolutions as plain matrix products, in which a NaN stays in its own positions."""
    backends: tuple[Any, Any] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [backend.enabled for backend in backends]
    try:
        for backend in backends:
            backend.enabled = False
        yield
    finally:
        for backend, enabled in zip(backends, before, strict=True):
            backend.enabled = enabled
