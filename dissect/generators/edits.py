"""Units of a generator set to other values while it makes an image: everywhere, or in a region of the image.

    tree = Edit("layer4", (3, 17), (0.0, 0.0))
    door = Edit("layer4", (80,), (2.5,), Region.box(0.5, 0.4, 0.8, 0.6))
    with applied(generator.model, [tree, door]):
        images = generator.images(latents)

An edit is written in the image's own geometry, so that the same region fits a layer of any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.generators.generator import NonFiniteImageError
from microtome.dissect.models import Model
from microtome.dissect.models.layouts import Layout
from microtome.dissect.models.sites import Site, site_of
from microtome.storage.errors import UsageError

MOST = 3.4e38
"""Values beyond that are infinite in float32."""

BOX_CELLS = 256
"""A box is drawn on a grid of so many cells a side."""


class TooFarError(UsageError):
    """Images are not finite under edits. They may be so without them: whoever applies edits first looks there."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the image. grid: (h, w) bool over the whole of it, of any size; true where the edit applies.

    Two are equal where their grids are. Raises UsageError for a grid of another kind.
    """

    grid: NDArray[np.bool_]

    def __post_init__(self) -> None:
        grid = np.array(self.grid)
        if grid.ndim != 2 or not grid.size or grid.dtype != np.bool_:
            raise UsageError(f"a region is a grid (h, w) of true and false, not {grid.dtype} {grid.shape}")
        grid.setflags(write=False)
        object.__setattr__(self, "grid", grid)

    @classmethod
    def box(cls, top: float, left: float, bottom: float, right: float) -> Region:
        """A rectangle in fractions of the image, from 0 to 1. Raises UsageError where it is none, or is empty."""
        sides = (top, left, bottom, right)
        if not all(0 <= side <= 1 for side in sides) or top >= bottom or left >= right:
            shown = ",".join(f"{side:g}" for side in sides)
            raise UsageError(
                f"box {shown}: give top,left,bottom,right as fractions of the image, top before bottom and left before "
                "right, as in 0.1,0.2,0.6,0.8"
            )
        grid = np.zeros((BOX_CELLS, BOX_CELLS), np.bool_)
        grid[_cells(top, bottom), _cells(left, right)] = True
        return cls(grid)

    @property
    def sides(self) -> tuple[float, float, float, float] | None:
        """Top, left, bottom, right of the box that it is; None where `box` did not make it."""
        rows, columns = (np.flatnonzero(self.grid.any(axis=axis)) for axis in (1, 0))
        if self.grid.shape != (BOX_CELLS, BOX_CELLS) or not len(rows):
            return None
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        if not self.grid[top:bottom, left:right].all():
            return None
        return float(top / BOX_CELLS), float(left / BOX_CELLS), float(bottom / BOX_CELLS), float(right / BOX_CELLS)

    @property
    def share(self) -> float:
        """How much of the image it covers, from 0 to 1."""
        return float(self.grid.mean())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and np.array_equal(self.grid, other.grid)

    def __hash__(self) -> int:
        return hash((self.grid.shape, self.grid.tobytes()))


@dataclass(frozen=True)
class Edit:
    """Units of one layer set to values.

    layer: resolved name; units: each once; values: one a unit, in the layer's own numbers; region: None = everywhere;
    strength: how far towards the value a unit goes, 0 = untouched, 1 = all the way. Raises UsageError where units and
    values do not fit each other or a number is not finite in float32.
    """

    layer: str
    units: tuple[int, ...]
    values: tuple[float, ...]
    region: Region | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not self.units or len(set(self.units)) < len(self.units) or min(self.units) < 0:
            raise UsageError(f"edit of {self.layer}: give its units as numbers from 0, at least one, each once")
        if len(self.values) != len(self.units):
            raise UsageError(
                f"edit of {self.layer}: {len(self.values)} values for {len(self.units)} units; give one a unit"
            )
        large = next((value for value in (*self.values, self.strength) if not abs(value) <= MOST), None)
        if large is not None:
            raise UsageError(
                f"edit of {self.layer}: {large:g} is not finite in float32; values and strength have to be finite "
                f"numbers of at most {MOST:.1e}"
            )


def ablation(layer: str, units: Sequence[int], value: float = 0.0, region: Region | None = None) -> Edit:
    """The edit that sets `units` to one value."""
    numbers = tuple(int(unit) for unit in units)
    return Edit(layer, numbers, (float(value),) * len(numbers), region)


@contextmanager
def applied(model: Model, edits: Sequence[Edit], where: NDArray[np.floating] | None = None) -> Iterator[None]:
    """While open, every forward pass of the model is edited, the edits of one layer in their order.

    where: (B, H, W) in [0, 1], for each image of the batch how much of each pixel may be edited at all, besides what
    the edits' own regions say; the batch of the forward pass has to be as large. Gradients pass through. One thread at
    a time may run the model. Raises UnknownNameError for no layer, UsageError for a unit that it does not have,
    TooFarError where images are not finite under the edits.
    """
    sites = sites_of(model, edits)
    with ExitStack() as stack:
        for site, edit in zip(sites, edits, strict=True):
            stack.enter_context(site.replacing(partial(edited, site=site, edit=edit, where=where)))
        try:
            yield
        except NonFiniteImageError as error:
            if not edits:
                raise
            raise TooFarError(_too_far(error.spec, edits)) from None


def sites_of(model: Model, edits: Sequence[Edit]) -> list[Site]:
    """Where each edit applies. Raises UnknownNameError for no layer, UsageError for a unit that it does not have."""
    sites = [site_of(model, edit.layer) for edit in edits]
    for site, edit in zip(sites, edits, strict=True):
        if max(edit.units) >= site.units:
            raise UsageError(f"layer {edit.layer} has units 0 to {site.units - 1}; there is no unit {max(edit.units)}")
    return sites


def _too_far(spec: str, edits: Sequence[Edit]) -> str:
    """What is said of edits that make images that are not finite: of the one that goes furthest."""
    edit = max(edits, key=lambda edit: max(abs(value * edit.strength) for value in edit.values))
    value, unit = max(zip(edit.values, edit.units, strict=True), key=lambda pair: abs(pair[0]))
    return (
        f"edit of {edit.layer}: with unit {unit} set to {value:g} the images of {spec} are not finite; give a value "
        "nearer to those that the unit has by itself"
    )


def edited(raw: Tensor, site: Site, edit: Edit, where: NDArray[np.floating] | None = None) -> Tensor:
    """What the layer gives, `raw`, with the units of `edit` changed: a new tensor of the same shape."""
    if not edit.strength:
        return raw
    layout = site.layout
    batch = len(raw) // layout.fold
    grid = (raw.shape[2], raw.shape[3]) if layout.is_plain else layout.grid
    weights = _weights(edit.region, where, batch, grid)
    units = torch.tensor(edit.units, device=raw.device)
    values = torch.tensor(edit.values, dtype=raw.dtype, device=raw.device)
    share = edit.strength if weights is None else torch.from_numpy(weights * edit.strength).to(raw)
    if layout.is_plain:
        held = raw.index_select(1, units)
        return raw.index_copy(1, units, _blended(held, values.view(1, -1, 1, 1), _over_units(share)))
    vectors = layout.vectors(raw, batch)
    held = vectors.index_select(1, units)
    over = _over_units(_at_positions(share, layout) if isinstance(share, Tensor) else share)
    return layout.from_vectors(vectors.index_copy(1, units, _blended(held, values.view(1, -1, 1), over)))


def _blended(held: Tensor, values: Tensor, share: Tensor | float) -> Tensor:
    """From what is held towards the values; the bits of `held` at a share of 0, of `values` at 1."""
    if not isinstance(share, Tensor):
        return values.expand_as(held) if share == 1 else torch.lerp(held, values.expand_as(held), share)
    blended = torch.lerp(held, values.expand_as(held), share.expand_as(held))
    return torch.where(share == 0, held, torch.where(share == 1, values, blended))


def _over_units(share: Tensor | float) -> Tensor | float:
    """(B, ...) -> (B, 1, ...)."""
    return share.unsqueeze(1) if isinstance(share, Tensor) else share


def _at_positions(share: Tensor, layout: Layout) -> Tensor:
    """(B, h, w) -> (B, N): at positions of no cell (prefix tokens) nothing changes."""
    order = torch.tensor(layout.order, device=share.device)
    return share.new_zeros(len(share), layout.positions).index_copy(1, order, share.flatten(1))


def _weights(
    region: Region | None, where: NDArray[np.floating] | None, batch: int, grid: tuple[int, int]
) -> NDArray[np.float64] | None:
    """(B, h, w) in [0, 1]: how much of each cell is in the region; None = all of every cell."""
    own = None if region is None else np.broadcast_to(at_grid(region.grid[None], grid), (batch, *grid))
    if where is None:
        return own
    if len(where) != batch:
        raise UsageError(f"regions of {len(where)} images for a batch of {batch}; give one an image")
    given = at_grid(where, grid)
    return given if own is None else given * own


def at_grid(masks: NDArray[np.generic], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Masks (n, H, W) in [0, 1] or bool on another grid: the share of each cell's area that they cover, (n, h, w)."""
    rows, columns = _overlaps(masks.shape[1], grid[0]), _overlaps(masks.shape[2], grid[1])
    covered: NDArray[np.float64] = rows @ masks.astype(np.float64) @ columns.T  # whole numbers for masks of 0 and 1
    covered /= masks.shape[1] * masks.shape[2]
    return covered


@lru_cache(maxsize=64)
def _overlaps(size: int, cells: int) -> NDArray[np.float64]:
    """(cells, size): how much of each of `cells` equal parts of a side lies in each of its `size` equal parts, such
    that those of a cell add up to `size`: whole numbers."""
    edges = np.arange(cells + 1)[:, None] * size  # a side is cells * size long
    parts = np.arange(size + 1) * cells
    low = np.maximum(edges[:-1], parts[:-1])
    high = np.minimum(edges[1:], parts[1:])
    overlaps: NDArray[np.float64] = np.maximum(high - low, 0).astype(np.float64)
    return overlaps


def _cells(start: float, stop: float) -> slice:
    first = min(round(start * BOX_CELLS), BOX_CELLS - 1)
    return slice(first, max(round(stop * BOX_CELLS), first + 1))
