"""Two layers of two runs in step: what both answered to the same samples, shard by shard."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.comparing.common import Common
from microtome.dissect.comparing.correlation import PairMoments
from microtome.storage.arrays import MEANS, PEAKS, layer_array
from microtome.storage.run import Run

ARRAYS = {"means": MEANS, "peaks": PEAKS}
"""What is compared of a unit and a sample: the spatial mean of its map, or its maximum."""
_KEPT_SHARDS = 4
_KEPT_BYTES = 64 << 20

Block = tuple[NDArray[np.float32], NDArray[np.float32]]


class _Rows:
    """The rows of a layer's array in any order; a few shards are kept, since samples mostly lie in the same order."""

    def __init__(self, run: Run, layer: str, by: str) -> None:
        self._run, self._name = run, layer_array(run.layer(layer)["folder"], ARRAYS[by])
        self._shards: OrderedDict[int, NDArray[np.generic]] = OrderedDict()

    def take(self, samples: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, C) float32, the rows of `samples`."""
        shards = samples // self._run.plan.shard
        found: NDArray[np.float32] | None = None
        for shard in np.unique(shards).tolist():
            rows, here = self._shard(shard), shards == shard
            if found is None:
                found = np.empty((len(samples), rows.shape[1]), np.float32)
            found[here] = rows[samples[here] - shard * self._run.plan.shard]
        return np.empty((0, 0), np.float32) if found is None else found

    def _shard(self, shard: int) -> NDArray[np.generic]:
        rows = self._shards.pop(shard, None)
        if rows is None:
            rows = self._run.arrays.read_shard(self._name, shard)
        self._shards[shard] = rows
        while len(self._shards) > _KEPT_SHARDS:
            self._shards.popitem(last=False)
        return rows


def in_step(a: Run, layer_a: str, b: Run, layer_b: str, common: Common, by: str) -> Iterator[Block]:
    """Blocks of (n, A) and (n, B) float32 over the same n samples, a shard of `a` at a time.

    Samples for which no unit of a layer is finite are left out, as if they could not be read. Where the two runs have
    their samples in another order, shards of `b` are read more than once.
    """
    left, right = _Rows(a, layer_a, by), _Rows(b, layer_b, by)
    shards = common.a // a.plan.shard
    for rows in np.split(np.arange(len(common)), np.flatnonzero(np.diff(shards)) + 1):
        mine, other = left.take(common.a[rows]), right.take(common.b[rows])
        usable = np.isfinite(mine).any(axis=1) & np.isfinite(other).any(axis=1)
        yield mine[usable], other[usable]


def correlate(
    blocks: Iterator[Block], units: tuple[int, int], samples: int, on_block: Callable[[int], None]
) -> tuple[PairMoments, Block]:
    """The moments of all blocks, and a sample of their rows, spread evenly, for what chance would give.

    units: of both layers; samples: about how many there are; on_block: told how many more samples are done.
    """
    moments = PairMoments.empty(*units)
    most = max(_KEPT_BYTES // (4 * max(sum(units), 1)), 1)
    step = max(-(-samples // most), 1)
    kept: list[Block] = []
    seen = 0
    for mine, other in blocks:
        moments.update(mine, other)
        first = -seen % step
        kept.append((mine[first::step].copy(), other[first::step].copy()))
        seen += len(mine)
        on_block(len(mine))
    if not kept:
        return moments, (np.empty((0, units[0]), np.float32), np.empty((0, units[1]), np.float32))
    return moments, (np.concatenate([one for one, _ in kept]), np.concatenate([other for _, other in kept]))
