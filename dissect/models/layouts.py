"""How the units of a layer, and their positions on a grid, lie in the tensor that holds them.

(B, C, h, w), channels last, tokens behind prefix tokens, windows that were shifted, queries split into heads: all are
one thing, some axes of the tensor numbering the units and the other ones positions, in an order of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from microtome.dissect.models.model import TokenHints
from microtome.dissect.models.positions import (
    LOST,
    MIXED,
    NONE,
    Grids,
    cell_of,
    condensed,
    constant,
    image_of,
    joined,
    only_grid,
)

Pair = tuple[int, int]


class UnresolvedError(Exception):
    """A tensor holds no units on a grid, or nobody knows where; the message says what it holds instead."""


@dataclass(frozen=True)
class Layout:
    """Units and positions in a tensor (B * fold, *shape), seen as (B, fold, *shape).

    features: those of its axes after the first that number the units, in order (0 is `fold`); the others, flattened,
    number positions; order: (h * w,) which of these each cell of the grid is; grid: (h, w); words: the layout in words.
    """

    fold: int
    shape: tuple[int, ...]
    features: tuple[int, ...]
    grid: Pair
    order: tuple[int, ...] = field(repr=False)
    words: str = ""

    @property
    def units(self) -> int:
        """The number of units, C."""
        return math.prod(self._sizes[axis] for axis in self.features)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (self.fold, *self.shape)

    @property
    def _places(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(len(self._sizes)) if axis not in self.features)

    @property
    def positions(self) -> int:
        """How many positions one image has in the tensor, those of no cell (prefix tokens) among them."""
        return math.prod(self._sizes[axis] for axis in self._places)

    @property
    def rows(self) -> int:
        """How many rows of the last axis one image has, those of different units apart."""
        return math.prod(self._sizes[axis] for axis in self._places[:-1])

    @property
    def _start(self) -> int | None:
        """Where the cells begin, if they lie one after the other."""
        first = self.order[0]
        return first if self.order == tuple(range(first, first + len(self.order))) else None

    @property
    def is_plain(self) -> bool:
        """Whether the tensor is (B, C, h, w) as it stands."""
        return self.fold == 1 and self.shape[1:] == self.grid and self.features == (1,) and self._start == 0

    def fits(self, tensor: Tensor, batch: int) -> bool:
        """Whether `tensor` is one of these, for `batch` images. Plain maps may be of any size."""
        if self.is_plain:
            return tensor.ndim == 4 and tensor.shape[0] == batch and tensor.shape[1] == self.shape[0]
        return tuple(tensor.shape) == (batch * self.fold, *self.shape)

    def maps(self, tensor: Tensor, batch: int) -> Tensor:
        """The activation maps (B, C, h, w): a view wherever the cells lie in order."""
        if self.is_plain:
            return tensor
        flat, start = self.vectors(tensor, batch), self._start
        if start is not None:
            cells = flat.narrow(2, start, len(self.order))
        else:
            cells = flat.index_select(2, torch.tensor(self.order, device=tensor.device))
        return cells.reshape(batch, self.units, *self.grid)

    def vectors(self, tensor: Tensor, batch: int) -> Tensor:
        """What the units hold at all N positions, those of no cell (prefix tokens) among them: (B, C, N)."""
        axes = [1 + axis for axis in (*self.features, *self._places)]
        return tensor.reshape(batch, *self._sizes).permute(0, *axes).reshape(batch, self.units, -1)

    def from_vectors(self, vectors: Tensor) -> Tensor:
        """The tensor (B * fold, *shape) that holds `vectors` (B, C, N)."""
        axes = (*self.features, *self._places)
        whole = vectors.reshape(len(vectors), *[self._sizes[axis] for axis in axes])
        return whole.permute(0, *[1 + axes.index(axis) for axis in range(len(axes))]).flatten(0, 1)

    def spread(self, values: Tensor) -> Tensor:
        """`values` (B, C), one for each image and unit, in a shape that broadcasts against the tensor."""
        sizes = [size if axis in self.features else 1 for axis, size in enumerate(self._sizes)]
        spread = values.reshape(len(values), *sizes)
        return spread.expand(-1, self.fold, *sizes[1:]).flatten(0, 1)


def find_layout(ids: Tensor | None, shape: Sequence[int], grids: Grids) -> Layout:
    """The layout of a tensor of `shape` whose elements have `ids`. Raises UnresolvedError."""
    text = _shape_text(shape)
    batch = grids.batch
    if not shape or shape[0] % batch or math.prod(shape) == 0:
        raise UnresolvedError(f"gives {text} for a batch of {batch}: its first dimension is not the batch")
    known = constant(shape, NONE) if ids is None else ids
    known = condensed(known).expand(shape[0], *[-1] * (len(shape) - 1))
    sizes = (shape[0] // batch, *shape[1:])
    local = known.reshape(batch, sizes[0], *known.shape[1:])
    placed = local >= 0
    if not bool(placed.any()):
        return _without_places(local, sizes, text)
    images = torch.arange(batch).view(-1, *[1] * (local.ndim - 1))
    cells = torch.where(placed, cell_of(local), local)
    if bool((placed & (image_of(local) != images)).any()) or bool((cells != cells[:1]).any()):
        raise UnresolvedError(f"gives {text}, in which the images of a batch are not one after the other")
    number = only_grid(local[placed])
    if number is None:
        raise UnresolvedError(f"gives {text}, which holds several grids at once")
    grid = grids.size(number)
    try:
        return _of_cells(cells[0], sizes, grid, text)
    except UnresolvedError:
        if (merged := _merged(known, grids)) is None:
            raise
        return find_layout(merged, shape, grids)


def _merged(ids: Tensor, grids: Grids) -> Tensor | None:
    """The ids of features that come from several positions each (patches that are about to be merged), on the coarser
    grid that these make up; None where they make up none."""
    for axis in dict.fromkeys((ids.ndim - 1, 1)):
        if axis < 1:
            continue
        whole = joined(ids, [axis], grids).unsqueeze(axis).expand(ids.shape)
        if bool((whole >= 0).any()) and bool((whole != ids).any()):
            return whole
    return None


def _of_cells(cells: Tensor, sizes: Sequence[int], grid: Pair, text: str) -> Layout:
    """The layout of one image's cells, negative where there is no place; sizes: of its axes (fold, *shape), of which
    cells has one element where they are all the same."""
    fold, *rest = sizes
    heads = _repeats(cells)
    if 1 < heads < fold:  # (B * windows * heads, ...), windows and heads in one axis
        raise UnresolvedError(f"gives {text}, in which several heads and windows share the first dimension")
    features = tuple(axis for axis in range(cells.ndim) if not _varies(cells, axis) and sizes[axis] > 1)
    if not features and sizes[-1] == 1:
        features = (cells.ndim - 1,)
    line = cells
    for axis in reversed(features):
        line = line.select(axis, 0)
    line = line.reshape(-1)
    where = (line >= 0).nonzero().flatten()
    found, order = line[where].sort(stable=True)
    total = grid[0] * grid[1]
    if not torch.equal(found, torch.arange(total)):
        raise UnresolvedError(
            f"gives {text}, which holds {len(torch.unique(found))} of the {total} positions of a grid of "
            f"{grid[0]}x{grid[1]}, {len(found)} in all"
        )
    at = tuple(where[order].tolist())
    layout = Layout(fold, tuple(rest), features, grid, at)
    return Layout(fold, tuple(rest), features, grid, at, _words(layout, len(line)))


def _without_places(local: Tensor, sizes: Sequence[int], text: str) -> Layout:
    """The layout of what has no positions: one position, where there is but one axis besides the batch."""
    wide = [axis for axis, size in enumerate(sizes) if size > 1]
    if len(sizes) > 1 and sizes[0] == 1 and len(wide) <= 1:
        return Layout(1, tuple(sizes[1:]), (wide[0] if wide else 1,), (1, 1), (0,), "one vector an image")
    if bool((local == LOST).any()):
        raise UnresolvedError(f"gives {text}, whose image positions could not be followed")
    if bool((local == MIXED).any()):
        raise UnresolvedError(f"gives {text}, in which positions of the image are mixed")
    raise UnresolvedError(f"gives {text}, which does not depend on the image")


def hinted_layout(shape: Sequence[int], batch: int, hints: TokenHints) -> Layout | None:
    """The layout of a tensor of `shape` that the user's hints describe; None where there are none for it.

    Raises UnresolvedError where they do not fit: nothing is made up of what was not said.
    """
    if hints.grid is None or not shape or shape[0] != batch:
        return None
    total, rest = hints.grid[0] * hints.grid[1], tuple(shape[1:])
    said = f"{hints.grid[0]}x{hints.grid[1]}"
    if len(rest) == 2:
        prefix = hints.prefix or 0
        if prefix + total != rest[0]:
            behind = f" behind {prefix} prefix tokens" if prefix else ""
            before = rest[0] - total
            more = f"; if {before} prefix tokens stand before them, say --prefix {before}" if before > 0 else ""
            raise UnresolvedError(f"gives {_shape_text(shape)}: {rest[0]} tokens are not {said}{behind}{more}")
        return Layout(1, rest, (2,), hints.grid, tuple(range(prefix, prefix + total)), "tokens as you said")
    if len(rest) == 3 and rest[1:] == hints.grid:
        return Layout(1, rest, (1,), hints.grid, tuple(range(total)), "channels first as you said")
    if len(rest) == 3 and rest[:2] == hints.grid:
        return Layout(1, rest, (3,), hints.grid, tuple(range(total)), "channels last as you said")
    if len(rest) == 3:
        raise UnresolvedError(f"gives {_shape_text(shape)}, which has no axes of {said}")
    return None


def generated_layout(shape: Sequence[int], batch: int, hints: TokenHints) -> Layout:
    """The layout of a tensor of `shape` in a generator: maps (B, C, h, w), one vector (B, C), or tokens as `hints` say.

    Raises UnresolvedError for any other.
    """
    text = _shape_text(shape)
    if not shape or shape[0] != batch or math.prod(shape) == 0:
        raise UnresolvedError(f"gives {text} for a batch of {batch}: its first dimension is not the batch")
    rest = tuple(shape[1:])
    if len(rest) == 1:
        return Layout(1, rest, (1,), (1, 1), (0,), "one vector an image")
    if len(rest) == 3 and (hints.grid is None or rest[1:] == hints.grid or rest[:2] != hints.grid):
        grid = (rest[1], rest[2])
        return Layout(1, rest, (1,), grid, tuple(range(grid[0] * grid[1])), f"{grid[0]}x{grid[1]}")
    said = hinted_layout(shape, batch, hints)
    if said is not None:
        return said
    advice = "; if these are tokens, say where they lie: --grid HxW and --prefix P" if len(rest) == 2 else ""
    raise UnresolvedError(f"gives {text}, which are neither maps (B, C, h, w) nor vectors (B, C){advice}")


def _varies(cells: Tensor, axis: int) -> bool:
    return bool((cells != cells.narrow(axis, 0, 1)).any())


def _repeats(cells: Tensor) -> int:
    """How many rows of the first axis in a row hold the same cells."""
    same = (cells == cells[:1]).reshape(len(cells), -1).all(1)
    return int(same.long().cumprod(0).sum())


def _words(layout: Layout, positions: int) -> str:
    height, width = layout.grid
    size = f"{height}x{width}"
    start = layout._start
    if layout.is_plain:
        return f"{size}"
    if layout.fold > 1 and 0 not in layout.features:
        return f"{size} in {layout.fold} windows"
    if start is None:
        return f"{size} in an order of their own"
    if len(layout.shape) == 3 and layout.features == (3,):
        return f"{size}, channels last"
    prefix = f" after {start} prefix token{'s' * (start > 1)}" if start else ""
    behind = positions - start - height * width
    suffix = f" and {behind} behind" if behind else ""
    return f"{size} tokens{prefix}{suffix}"


def _shape_text(shape: Sequence[int]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
