"""A classifier that answers without some directions of a layer: the units of a linear read-out r = W^T x + b.

To remove units S is to bring their read-outs to their fill values f by the smallest change of the layer's vector x at
each position, prefix tokens included: x' = x - pinv(W_S^T) (W_S^T x + b_S - f_S). Of one direction that projects w out,
up to a constant; of axes it sets units. Directions that are not orthogonal are removed together, and what other
directions read changes where these are not orthogonal to the removed ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.ablation.network import (
    Held,
    Network,
    Passes,
    Rows,
    WholeNetwork,
    as_array,
    quick_or_whole,
    traced,
)
from microtome.dissect.ablation.tail import ReplacementBuilder, head_of, rows_of
from microtome.dissect.audit.job import Division
from microtome.dissect.models import Model
from microtome.dissect.models.layouts import Layout
from microtome.dissect.models.readouts import Readout
from microtome.dissect.models.sites import site_of
from microtome.storage.errors import UsageError

LEAST_SINGULAR = 1e-5
"""Of the largest singular value of directions of length 1: below it they count as dependent."""

KEPT_SETS, KEPT_BYTES = 32, 2**28
"""How many sets' subspaces are kept: at least so many, and more where they take no more than this."""

Doubles = NDArray[np.float64]


def open_directions(
    model: Model,
    readout: Readout,
    division: Division,
    fill: NDArray[np.float32],
    batch: int,
    *,
    whole: bool = False,
) -> Network:
    """The network of the layer that `readout` reads; `fill` (U,) is what removed read-outs become, in true values.

    whole: run whole forward passes in any case. Raises UsageError where the model is no classifier, or the read-out is
    not linear.
    """
    model.module.to(division.device)
    site = site_of(model, readout.base)
    if site.units != readout.inputs:
        raise UsageError(f"{readout.source} reads {readout.inputs} units, but layer {readout.base} has {site.units}")
    directions = Directions(readout, fill, division.device)
    passes = DirectionPasses(site, division, torch.from_numpy(fill).to(model.placeholder()), batch, directions)
    slow = WholeNetwork(passes)
    name = f"directions of {readout.base}"
    return slow if whole else quick_or_whole(name, lambda: DirectionNetwork(passes), slow)


class Directions:
    """Moves vectors x (C,) to the nearest ones whose read-outs have their fill values. Safe to call from threads."""

    def __init__(self, readout: Readout, fill: NDArray[np.float32], device: torch.device) -> None:
        """Raises UsageError where the read-out is not linear."""
        if "weight" not in readout.matrices:
            raise UsageError(f"{readout.source} is no linear read-out: no one change of the layer removes its features")
        weight = readout.matrices["weight"].astype(np.float64)
        bias = readout.matrices.get("bias", np.zeros(weight.shape[1])).astype(np.float64)
        length = np.linalg.norm(weight, axis=0)
        scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)  # a column of zeros reads nothing
        self.units = readout.units
        self._weight: Doubles = weight * scale
        self._at: Doubles = (fill - bias) * scale
        self._device = device
        self._rows = torch.from_numpy(np.ascontiguousarray(self._weight.T)).to(device, torch.float32)
        self._places = torch.from_numpy(self._at).to(device, torch.float32)
        kept = max(KEPT_SETS, KEPT_BYTES // (4 * weight.size))
        self._subspace = lru_cache(maxsize=kept)(self._make_subspace)

    def without_units(self, vectors: Tensor, units: Tensor) -> Tensor:
        """Vectors (R, C, N) without direction `units[i]` in row i."""
        basis = self._rows.index_select(0, units).unsqueeze(2)
        return nearest(vectors, basis, self._places.index_select(0, units).view(-1, 1, 1))

    def without_sets(self, vectors: Tensor, removed: NDArray[np.bool_]) -> Tensor:
        """Vectors (R, C, N) without the directions that `removed[i]` (R, U) marks in row i."""
        moved = torch.empty_like(vectors, dtype=_precise(vectors.dtype))
        sets, number = np.unique(removed, axis=0, return_inverse=True)
        for place, marks in enumerate(sets):
            basis, at = self._subspace(marks.tobytes())
            rows = torch.from_numpy(np.flatnonzero(number.reshape(-1) == place)).to(vectors.device)
            mine = vectors.index_select(0, rows)
            moved[rows] = nearest(mine, basis.expand(len(rows), -1, -1), at.expand(len(rows), -1, -1))
        return moved

    def _make_subspace(self, marks: bytes) -> tuple[Tensor, Tensor]:
        """What a set of directions spans, and where in it all have their fill values: basis (C, r), at (r, 1)."""
        chosen = np.frombuffer(marks, np.bool_)
        left, sizes, right = np.linalg.svd(self._weight[:, chosen], full_matrices=False)
        spanned = sizes > LEAST_SINGULAR * sizes.max(initial=0.0)
        at = (right[spanned] @ self._at[chosen]) / sizes[spanned]
        basis, place = (torch.from_numpy(np.ascontiguousarray(part)) for part in (left[:, spanned], at[:, None]))
        return basis.to(self._device, torch.float32), place.to(self._device, torch.float32)


def nearest(vectors: Tensor, basis: Tensor, at: Tensor) -> Tensor:
    """Of vectors x (R, C, N) the nearest x' with Q^T x' = at: x' = x - Q (Q^T x - at).

    basis: Q (R, C, r), orthonormal columns; at: (R, r, 1). In float32 at least, whatever the network computes in.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        dtype = _precise(vectors.dtype)
        x, q = vectors.to(dtype), basis.to(dtype)
        return torch.baddbmm(x, q, q.mT @ x - at.to(dtype), alpha=-1)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True)
class DirectionPasses(Passes):
    """The site of the layer that is read, and the directions to remove there."""

    directions: Directions

    @property
    def units(self) -> int:
        """How many directions can be removed, U."""
        return self.directions.units

    def without(self, raw: Tensor, removed: Tensor) -> Tensor:
        """What the layer gives for a batch, `raw`, without the directions that `removed` (B, U) marks."""
        vectors = self.site.layout.vectors(raw, len(removed))
        moved = self.directions.without_sets(vectors, removed.cpu().numpy() > 0.5)
        return _as_raw(moved, raw, self.site.layout)


def _as_raw(vectors: Tensor, raw: Tensor, layout: Layout) -> Tensor:
    """Vectors (R, C, N) as a tensor like `raw`, which lies in memory as `raw` does."""
    return torch.empty_like(raw).copy_(layout.from_vectors(vectors))


class DirectionNetwork:
    """Head and tail of the traced network; the tail takes what the layer gives, with its vectors moved.

    Raises UntraceableError where there is no such thing.
    """

    def __init__(self, passes: DirectionPasses) -> None:
        self.passes = passes
        self.units, self.batch = passes.units, passes.batch
        trace = traced(passes)
        builder = ReplacementBuilder(trace)
        self._tail = builder.build()
        self._head = head_of(trace, [*builder.values])

    def hold(self, images: Sequence[NDArray[np.uint8]]) -> Held:
        """Run the head."""
        return self.hold_normal(self.passes.normalised(images), len(images))

    def hold_normal(self, normal: Tensor, count: int) -> Held:
        """The same of a normalised batch (B, 3, H, W), of which the first `count` images matter."""
        *values, raw, logits = self._head(normal)
        return Held(as_array(logits[:count]), np.zeros((count, self.units), np.bool_), (raw, *values))

    def without_units(self, held: Held, rows: Rows, units: Rows) -> NDArray[np.float32]:
        """Rows of pairs through the tail."""
        found = np.empty((len(rows), held.logits.shape[1]), np.float32)
        for piece, numbers in self.passes.chunks(len(rows)):
            images, raw, vectors = self._taken(held, rows[numbers])
            moved = self.passes.directions.without_units(vectors, self.passes.tensor(units[numbers]))
            found[piece] = self._answers(held, images, raw, moved)[: piece.stop - piece.start]
        return found

    def without_sets(self, held: Held, rows: Rows, removed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Rows of sets through the tail."""
        found = np.empty((len(rows), held.logits.shape[1]), np.float32)
        for piece, numbers in self.passes.chunks(len(rows)):
            images, raw, vectors = self._taken(held, rows[numbers])
            moved = self.passes.directions.without_sets(vectors, removed[numbers])
            found[piece] = self._answers(held, images, raw, moved)[: piece.stop - piece.start]
        return found

    def _taken(self, held: Held, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Images `rows` of the batch on the device, what the layer gave for them, and their vectors (R, C, N)."""
        images = self.passes.tensor(rows)
        raw = rows_of(held.values[0], images, self.batch)
        return images, raw, self.passes.site.layout.vectors(raw, len(rows))

    def _answers(self, held: Held, images: Tensor, raw: Tensor, moved: Tensor) -> NDArray[np.float32]:
        replacement = _as_raw(moved, raw, self.passes.site.layout)
        logits: NDArray[np.float32] = as_array(self._tail(images, replacement, *held.values[1:]))
        return logits
