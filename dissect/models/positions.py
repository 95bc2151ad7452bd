"""Which place of the image each element of a tensor stands for, as integer arithmetic on *ids*.

An id names an image of the batch, a grid (h, w) and a cell in it. A tensor of ids (int64, on the CPU) has the shape of
the tensor that it describes; negative values say why an element has no place: NONE (it depends on no place: a
parameter, a class token), MIXED (on many) or LOST (an operation was met that nobody follows).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NONE, MIXED, LOST = -1, -2, -3

_CELL_BITS = 32
_CELLS = (1 << _CELL_BITS) - 1
_GRIDS = 1 << 12  # of one forward pass; image * _GRIDS + grid stays exact in float64 too

Pair = tuple[int, int]


class Grids:
    """The grids of one forward pass over `batch` images: numbers for their sizes, and their ids."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._sizes: list[Pair] = []
        self._fresh: dict[Pair, Tensor] = {}

    def number(self, size: Pair) -> int:
        """The number of the grid of `size` (h, w); grids of one size are one grid."""
        if size not in self._sizes:
            self._sizes.append(size)
        return self._sizes.index(size)

    def size(self, number: int) -> Pair:
        """The (h, w) of a grid."""
        return self._sizes[number]

    def fresh(self, size: Pair) -> Tensor:
        """Ids of every image and cell: (batch, 1, h, w), always the same tensor for a size. One cell is no place."""
        if size not in self._fresh:
            cells = torch.arange(size[0] * size[1]).view(1, 1, *size)
            images = torch.arange(self.batch).view(-1, 1, 1, 1)
            single = size == (1, 1)
            self._fresh[size] = torch.full_like(images, MIXED) if single else self.ids(images, size, cells)
        return self._fresh[size]

    def ids(self, images: Tensor, size: Pair, cells: Tensor) -> Tensor:
        """Ids from the numbers of images and of cells in the grid of `size`."""
        return ((images * _GRIDS + self.number(size)) << _CELL_BITS) | cells


def image_of(ids: Tensor) -> Tensor:
    """The number of the image (where there is a place)."""
    return (ids >> _CELL_BITS) // _GRIDS


def grid_of(ids: Tensor) -> Tensor:
    """The number of the grid (where there is a place)."""
    return (ids >> _CELL_BITS) % _GRIDS


def cell_of(ids: Tensor) -> Tensor:
    """The cell, row by row (where there is a place)."""
    return ids & _CELLS


def constant(shape: Sequence[int], code: int) -> Tensor:
    """The same code everywhere, in no memory."""
    return torch.tensor(code).expand(tuple(shape))


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of ids are the same view of the same memory."""
    return bool(
        one.shape == other.shape
        and one.stride() == other.stride()
        and one.data_ptr() == other.data_ptr()
        and one.storage_offset() == other.storage_offset()
    )


def condensed(ids: Tensor) -> Tensor:
    """A view with one element along every axis along which all are the same because they share memory."""
    for axis in range(ids.ndim):
        if ids.shape[axis] > 1 and ids.stride(axis) == 0:
            ids = ids.narrow(axis, 0, 1)
    return ids


def only_grid(ids: Tensor) -> int | None:
    """The number of the grid of places (n,), at least one; None where they are of several grids."""
    low, high = grid_of(ids).aminmax()
    return int(low) if bool(low == high) else None


def united(tensors: Sequence[Tensor], shape: Sequence[int], grids: Grids) -> Tensor:
    """The ids of an operation that works element by element on tensors that broadcast to `shape`.

    Where several have a place, the one that is there in full wins over one that is broadcast, and the finer grid over
    the coarser: a gate or a mixed branch never moves the stream that it is applied to. Different places of one grid
    that are added are lost.
    """
    full = sum(tuple(t.shape) == tuple(shape) for t in tensors)
    wide = [t.expand(tuple(shape)) for t in sorted(tensors, key=lambda t: tuple(t.shape) != tuple(shape))]
    if all(same(wide[0], t) for t in wide):
        return wide[0]
    for axis in range(len(shape)):
        if all(t.stride(axis) == 0 for t in wide):  # worked out once for all
            wide = [t.narrow(axis, 0, 1) for t in wide]
    out, *others = wide
    for other in others:
        out = _united(out, other, first_wins=full == 1, grids=grids)
    return out.expand(tuple(shape))


def _united(one: Tensor, other: Tensor, *, first_wins: bool, grids: Grids) -> Tensor:
    placed, also = one >= 0, other >= 0
    out = torch.where(placed, one, torch.where(also, other, torch.minimum(one, other)))
    clash = placed & also & (one != other)
    if first_wins or not bool(clash.any()):
        return out
    sizes = torch.tensor([h * w for h, w in map(grids.size, range(len(grids._sizes)))])
    finer = sizes[torch.where(also, grid_of(other), 0)] - sizes[torch.where(placed, grid_of(one), 0)]
    lost = torch.full_like(out, LOST)
    return torch.where(clash, torch.where(finer > 0, other, torch.where(finer < 0, one, lost)), out)


def joined(ids: Tensor, dims: Sequence[int], grids: Grids) -> Tensor:
    """The ids of an operation that mixes all elements along `dims`, which are taken away.

    What mixes one place has that place. What mixes several places has their centre of gravity, if the centres make up a
    grid of their own (patches that are embedded or merged); all the same centre, or none in order, is MIXED.
    """
    axes = sorted(dim % ids.ndim for dim in dims)
    rest = [size for axis, size in enumerate(ids.shape) if axis not in axes]
    if any(ids.shape[axis] == 0 for axis in axes):
        return constant(rest, NONE)
    ids = condensed(ids)
    rows = ids.movedim(axes, list(range(-len(axes), 0))).flatten(-len(axes))
    return (rows.squeeze(-1) if rows.shape[-1] == 1 else _joined(rows, grids)).expand(rest)


def _joined(rows: Tensor, grids: Grids) -> Tensor:
    """The ids of what mixes each row of `rows` (..., m)."""
    placed = rows >= 0
    has = placed.any(-1)
    highest = rows.amax(-1)  # a place, where there is one
    lowest = torch.where(placed, rows, torch.iinfo(torch.int64).max).amin(-1)
    if bool((~has | (highest == lowest)).all()):
        return torch.where(has, highest, rows.amin(-1))
    single = torch.where(highest == lowest, highest, MIXED)
    return torch.where(has, _centred(rows, placed, single, grids), rows.amin(-1))


def _centred(rows: Tensor, placed: Tensor, single: Tensor, grids: Grids) -> Tensor:
    """The ids of rows (..., m) of places on the grid that their centres of gravity make up; `single` (the place of
    those that have but one, else MIXED) if they make none. What sees its whole grid (a class token) is MIXED."""
    number = only_grid(rows[placed])
    images = torch.where(placed, image_of(rows), -1).amax(-1)
    if number is None or bool((placed & (image_of(rows) != images[..., None])).any()):
        return single
    height, width = grids.size(number)
    cells = torch.where(placed, cell_of(rows), 0)
    count = placed.sum(-1).clamp(min=1)
    whole = (torch.where(placed, cells, height * width).amin(-1) == 0) & (cells.amax(-1) == height * width - 1)
    has = placed.any(-1) & ~(whole & (count >= height * width))
    row = torch.where(placed, cells // width, 0).sum(-1) / count
    column = torch.where(placed, cells % width, 0).sum(-1) / count
    found = on_own_grid(row[has], column[has]) if bool(has.any()) else None
    if found is None:
        return single
    out = torch.full_like(single, MIXED)
    out[has] = grids.ids(images[has], *found)
    return out


def thinned(ids: Tensor, grids: Grids) -> Tensor:
    """Ids of what a strided slice has left, on the smaller grid that the rest makes up, where it makes up one."""
    left = condensed(ids)
    placed = left >= 0
    number = only_grid(left[placed]) if bool(placed.any()) else None
    if number is None:
        return ids
    size = grids.size(number)
    cells = cell_of(left[placed])
    found = on_own_grid((cells // size[1]).double(), (cells % size[1]).double())
    if found is None or found[0] == size:
        return ids
    out = left.clone(memory_format=torch.contiguous_format)
    out[placed] = grids.ids(image_of(left[placed]), *found)
    return out.expand(ids.shape)


def on_own_grid(rows: Tensor, columns: Tensor) -> tuple[Pair, Tensor] | None:
    """The grid that points (n,) make up, if each row of it meets each column: its size, and each point's cell."""
    heights, row = torch.unique((rows * 4096).round().long(), return_inverse=True)
    widths, column = torch.unique((columns * 4096).round().long(), return_inverse=True)
    size = (len(heights), len(widths))
    cell = row * size[1] + column
    if size == (1, 1) or len(torch.unique(cell)) < size[0] * size[1]:
        return None
    return size, cell
