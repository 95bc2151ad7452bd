"""Receptive fields, measured from the model: which input pixels can reach a position of a layer.

A gradient of NaN, set at one position in all channels of a layer and propagated back to the input, marks every pixel
that the position depends on: NaN survives products with tiny weights, where a finite gradient would underflow in a
deep network. `reach` sees to it that a ReLU or a max pooling does not block marks for the values of one input; where
other operations might (a comparison, an index), the marks are united over random inputs until they no longer grow.
The marks of the first, second, middle and last position of each axis, and of all positions together, give the law

    start = offset + stride * i,   stop = start + size,   both clipped to the reachable part of the image,

for every position i; where they do not follow one law (upsampling, adaptive pooling, circular padding), all
positions are measured.

A dilated kernel at the border may skip the pixels next to it; the box is then that of the law, which holds them too.
Weights that are exactly zero count as connections. What attends to the whole image (squeeze-and-excitation, global
pooling, attention, linear layers) has the whole image as its field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import allow_mutation_on_saved_tensors

from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.model import Model
from microtome.dissect.models.reach import Reach

CHUNK = 5  # positions measured in one backward pass: one image each
ALL = -1  # stands for every position at once
_LEAST_ROUNDS, _MOST_ROUNDS = 2, 6
_MANY_UNITS = 16  # fewer: paths are more often blocked in all of them, so take twice the rounds
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

    Takes a forward pass, and a backward pass a layer, on five images; up to six times as many where operations may
    block paths. A layer whose field cannot be measured gets the whole image and a note. Raises UsageError when a layer
    is not called.
    """
    length = model.preprocess.size
    try:
        with torch.random.fork_rng(devices=[]), allow_mutation_on_saved_tensors():  # in-place operations do no harm
            seen, grids = _observe(model, names, few_positions)
            fields = {name: fit_field(seen[name], grids[name]) for name in seen}
            irregular = [name for name, field in fields.items() if field is None]
            if irregular:
                seen, grids = _observe(model, irregular, many_positions)
                fields |= {name: table_field(seen[name], grids[name]) for name in irregular}
    except (RuntimeError, NotImplementedError) as error:
        note = f"not measured: {' '.join(str(error).split())}"
        return {name: whole_image(length, note) for name in names}
    note = "not measured: no gradient reaches the input"
    return {name: fields.get(name) or whole_image(length, note) for name in names}


def fit_law(seen: Spans, reach: Span, count: int) -> Axis | None:
    """The law of an axis of `count` positions, from the spans of some of them and of all together (`reach`).

    At the first and last two positions a measured span may be narrower than the law clipped to `reach`, as dilated
    kernels make it. None if no law fits, or if several fit that differ at other positions.
    """
    low, high = reach
    if all(span == reach for span in seen.values()):
        return Axis.constant(low, high)
    starts = {i: start for i, (start, _) in seen.items() if start > low}
    stops = {i: stop for i, (_, stop) in seen.items() if stop < high}
    best: tuple[int, Axis] | None = None
    for stride in sorted(_slopes(starts) | _slopes(stops), reverse=True):
        law = _law(stride, seen, reach)
        support = max(_on_line(starts, stride, law.offset), _on_line(stops, stride, law.offset + law.size))
        if support >= 2 and _agrees(law, seen, count) and (best is None or support > best[0]):
            best = support, law
    if best is not None:
        return best[1]
    law = _law(max(1, round((high - low) / count)), seen, reach)
    pinned = all(i - 1 in seen for i in starts) and all(i + 1 in seen for i in stops)
    return law if pinned and all(law.span(i) == span for i, span in seen.items()) else None


def _law(stride: int, seen: Spans, reach: Span) -> Axis:
    """The narrowest law of this stride that covers every measured span."""
    offset = min(start - stride * i for i, (start, _) in seen.items())
    end = max(stop - stride * i for i, (_, stop) in seen.items())
    return Axis(stride, offset, end - offset, *reach)


def _agrees(law: Axis, seen: Spans, count: int) -> bool:
    for i, (start, stop) in seen.items():
        first = law.offset + law.stride * i
        skips_first = i <= 1 and first < law.low
        skips_last = i >= count - 2 and first + law.size > law.high
        low, high = law.span(i)
        if (start != low and not skips_first) or (stop != high and not skips_last):
            return False
    return True


def _slopes(edge: Mapping[int, int]) -> set[int]:
    """Whole numbers of pixels a position between two of the edges."""
    slopes = {(y - v) / (x - u) for (u, v), (x, y) in combinations(sorted(edge.items()), 2)}
    return {int(slope) for slope in slopes if slope == int(slope) and slope > 0}


def _on_line(edge: Mapping[int, int], stride: int, at_zero: int) -> int:
    return sum(value == at_zero + stride * i for i, value in edge.items())


def fit_field(seen: tuple[Spans, Spans], grid: Pair) -> ReceptiveField | None:
    """The field of a layer from the spans of `few_positions`, by axis; None where no law holds."""
    axes = [fit_law(*_without_reach(spans), count) for spans, count in zip(seen, grid, strict=True)]
    return None if axes[0] is None or axes[1] is None else ReceptiveField(axes[0], axes[1])


def _without_reach(spans: Spans) -> tuple[Spans, Span]:
    every = (min(start for start, _ in spans.values()), max(stop for _, stop in spans.values()))
    return {i: span for i, span in spans.items() if i != ALL} or {0: every}, every


def table_field(seen: tuple[Spans, Spans], grid: Pair) -> ReceptiveField:
    """The field of a layer from the spans of `many_positions`, by axis."""
    return ReceptiveField(_axis_of_table(seen[0], grid[0]), _axis_of_table(seen[1], grid[1]))


def _axis_of_table(spans: Spans, count: int) -> Axis:
    """A law where one holds after all, else a span for every position; between measured ones, the union of both."""
    seen, (low, high) = _without_reach(spans)
    law = fit_law(seen, (low, high), count)
    if law is not None:
        return law
    every = []
    for i in range(count):
        below = seen[max((j for j in seen if j <= i), default=min(seen))]
        above = seen[min((j for j in seen if j >= i), default=max(seen))]
        every.append((min(below[0], above[0]), max(below[1], above[1])))
    return Axis(0, low, high - low, low, high, tuple(every))


def whole_image(length: Pair, note: str) -> ReceptiveField:
    """The whole of an image of (H, W)."""
    return ReceptiveField(Axis.constant(0, length[0]), Axis.constant(0, length[1]), note)


# Which positions to measure: row and column indices, in pairs, of a grid of (h, w); ALL = every position


def few_positions(grid: Pair) -> list[Pair]:
    """The first, second, middle and last position, and all together."""
    return [*_pairs([sorted({0, min(1, n - 1), n // 2, n - 1}) for n in grid]), (ALL, ALL)]


def many_positions(grid: Pair) -> list[Pair]:
    """Every position, but no more than _DENSE_LIMIT along an axis; then all together."""
    spread = [sorted({round(i * (n - 1) / (_DENSE_LIMIT - 1)) for i in range(_DENSE_LIMIT)}) for n in grid]
    return [*_pairs(spread), (ALL, ALL)]


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
    reach = Reach()
    with ActivationCapture(model, names, transform=_keep_graph, gradients=True) as capture:
        for round_ in range(_MOST_ROUNDS):
            before = deepcopy(seen)
            images = _images(model, seed=round_).requires_grad_()
            maps = capture(images.clone())
            grids = {name: (m.shape[2], m.shape[3]) for name, m in maps.items()}
            for name in names:
                if not _complete(seen[name], model.preprocess.size):
                    positions = positions_of(grids[name])
                    for start in range(0, len(positions), CHUNK):
                        _mark(maps[name], images, positions[start : start + CHUNK], seen[name], reach)
            if not reach.blocked or all(_complete(seen[name], model.preprocess.size) for name in names):
                break
            units = min(m.shape[1] for m in maps.values())
            if round_ + 1 >= (_LEAST_ROUNDS if units >= _MANY_UNITS else 2 * _LEAST_ROUNDS) and seen == before:
                break
    return {name: axes for name, axes in seen.items() if all(axes)}, grids


def _complete(axes: tuple[Spans, Spans], length: Pair) -> bool:
    """Whether every position measured sees the whole image already: it cannot see more."""
    return all(set(spans.values()) == {(0, pixels)} for spans, pixels in zip(axes, length, strict=True))


def unite(reached: Tensor, positions: Sequence[Pair], axes: tuple[Spans, Spans]) -> None:
    """Unite what `axes` hold already with the spans of the pixels `reached` (B, H, W), one position an image."""
    for image, position in enumerate(positions):
        for axis, index in enumerate(position):
            hit = reached[image].any(dim=1 - axis).nonzero()
            if len(hit):
                start, stop = axes[axis].get(index, (1 << 30, 0))
                axes[axis][index] = (min(start, int(hit[0])), max(stop, int(hit[-1]) + 1))


def seed_at(maps: Tensor, positions: Sequence[Pair]) -> Tensor:
    """True in all units at one position an image, False elsewhere, in the shape of `maps` (B, C, h, w)."""
    seed = torch.zeros_like(maps, dtype=torch.bool)
    for image, (row, column) in enumerate(positions):
        seed[image, :, slice(None) if row == ALL else row, slice(None) if column == ALL else column] = True
    return seed


def _mark(maps: Tensor, images: Tensor, positions: list[Pair], axes: tuple[Spans, Spans], reach: Reach) -> None:
    """Unite the spans of the positions (one image each) with what `axes` hold already."""
    if not maps.requires_grad:
        return
    seed = torch.zeros_like(maps).masked_fill_(seed_at(maps, positions), torch.nan)
    with reach:
        (gradient,) = torch.autograd.grad(maps, images, seed, retain_graph=True, allow_unused=True)
    if gradient is None:
        return
    unite(gradient.isnan().any(dim=1), positions, axes)


def _keep_graph(name: str, maps: Tensor) -> Tensor:
    return maps.clone()


def _images(model: Model, seed: int) -> Tensor:
    """Random inputs (CHUNK, 3, H, W), between coarse blotches and fine noise, so that they excite various units."""
    fine = model.noise(CHUNK, seed=seed).float()
    blotches = torch.nn.functional.interpolate(fine[:, :, :5, :5], size=fine.shape[2:], mode="nearest")
    share = torch.linspace(0.2, 0.8, CHUNK, device=fine.device)[:, None, None, None]
    return (share * fine + (1 - share) * blotches).to(model.placeholder().dtype)
