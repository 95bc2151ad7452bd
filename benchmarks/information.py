"""Pixels of every concept between candidate thresholds: the kernel of stage information against plainer ones.

Inputs: 64 units after a ReLU, smooth maps and white noise; labels in patches, either 3 planes of 64x64 with 65
concepts over 8x8 maps (as a small generator has) or those of `kernels`: 6 planes of 112x112 with 700 concepts over
14x14 maps. One thread; all ways take turns, and all counts are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.kernels import CATEGORIES, activations, label_planes
from microtome.dissect.maths.information import CodedSamples, InformationCounts, candidates, halves_of
from microtome.dissect.maths.jit import kernel
from microtome.dissect.maths.thresholds import CoarseHistogram
from microtome.dissect.maths.upsample import axis_weights

UNITS, DENSE = 64, 1
"""Units of every way, and images of dense torch, which takes longest."""
SIZES = {
    "64x64, 3 planes, 65 concepts, 8x8 maps": (64, 3, 65, 8),
    "112x112, 6 planes, 700 concepts, 14x14": (112, 6, 700, 14),
}


def run(quick: bool = False) -> dict[str, object]:
    """Milliseconds an image of each way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        inputs = [(name, kind) for name in SIZES for kind in ("smooth", "noise")]
        rows = [row for name, kind in inputs for row in _rows(name, kind, quick)]
        return {"note": "least CPU time of repeats that take turns", "information, 127 candidates": rows}
    finally:
        torch.set_num_threads(threads)


def _rows(name: str, kind: str, quick: bool) -> list[dict[str, object]]:
    size, planes, concepts, grid = SIZES[name]
    n = 8 if quick else 32
    acts = np.ascontiguousarray(activations(kind, n)[:, :UNITS, :grid, :grid])
    labels = np.ascontiguousarray(label_planes("patches", n)[:, :planes, :size, :size])
    labels = np.where(labels > 0, 1 + labels % concepts, 0).astype(np.uint16)
    for plane in range(1, planes):  # a concept counts once a pixel
        labels[:, plane][(labels[:, :plane] == labels[:, plane : plane + 1]).any(axis=1)] = 0
    category_of = np.concatenate([[-1], np.arange(concepts) % CATEGORIES])
    annotated, halves = np.ones((n, CATEGORIES), np.bool_), halves_of(np.arange(n))
    coarse = CoarseHistogram.empty(UNITS)
    coarse.update(acts)
    edges = candidates(coarse)

    def ours(count: int) -> NDArray[np.int64]:
        counts = InformationCounts.empty(UNITS, concepts, CATEGORIES, edges.shape[1])
        none = np.zeros((count, 0), np.uint16)
        samples = CodedSamples.of(labels[:count], none, category_of, annotated[:count], halves[:count])
        counts.update(acts[:count], edges, samples)
        return counts.intersection.sum(axis=1)

    def plain() -> NDArray[np.int64]:
        total = np.zeros((UNITS, concepts + 1, edges.shape[1] + 1), np.int64)
        area = np.zeros((UNITS, edges.shape[1] + 1), np.int64)
        _count_plainly(acts.astype(np.float32), edges, labels, axis_weights(grid, size), total, area)
        total[:, 0] = 0
        return total[:, :, 1:]

    ways: dict[str, tuple[int, Callable[[], NDArray[np.int64]]]] = {
        "stage information": (n, lambda: ours(n)),
        "numba, one increment a plane and pixel": (n, plain),
        "dense torch, searchsorted and bincount": (
            DENSE,
            lambda: _count_densely(acts[:DENSE], edges, labels[:DENSE], concepts + 1),
        ),
    }
    exact = {count: ours(count) for count in (n, DENSE)}
    times = dict.fromkeys(ways, float("inf"))
    for _ in range(2 if quick else 5):
        for way, (count, work) in ways.items():
            start = time.thread_time()
            found = work()
            times[way] = min(times[way], (time.thread_time() - start) / count)
            if not np.array_equal(found, exact[count]):
                raise RuntimeError(f"{way} differs from the kernel")
    least = times["stage information"]
    return [
        {"input": name, "activations": kind, "method": way, "ms/image": seconds * 1e3, "ratio": seconds / least}
        for way, seconds in times.items()
    ]


@kernel
def _count_plainly(
    acts: NDArray[np.float32],
    edges: NDArray[np.float32],
    labels: NDArray[np.uint16],
    weights: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]],
    total: NDArray[np.int64],
    area: NDArray[np.int64],
) -> None:
    """Each value by itself, its bin by bisection, one increment for every plane and one for the area."""
    low, high, share = weights
    size = low.size
    for sample in range(acts.shape[0]):
        for unit in range(acts.shape[1]):
            grid = acts[sample, unit]
            for y in range(size):
                for x in range(size):
                    a = grid[low[y], low[x]] + share[x] * (grid[low[y], high[x]] - grid[low[y], low[x]])
                    b = grid[high[y], low[x]] + share[x] * (grid[high[y], high[x]] - grid[high[y], low[x]])
                    found = np.searchsorted(edges[unit], a + share[y] * (b - a))
                    area[unit, found] += 1
                    for plane in range(labels.shape[1]):
                        total[unit, labels[sample, plane, y, x], found] += 1


def _count_densely(
    acts: NDArray[np.float16], edges: NDArray[np.float32], labels: NDArray[np.uint16], concepts: int
) -> NDArray[np.int64]:
    """(C, K+1, B): whole maps upsampled, sorted between the edges, and counted with every plane of labels."""
    bins = edges.shape[1] + 1
    low, high, share = (torch.from_numpy(part) for part in axis_weights(acts.shape[2], labels.shape[2]))
    limits = torch.from_numpy(edges)
    total = torch.zeros((UNITS, concepts, bins), dtype=torch.int64)
    for sample in range(len(acts)):
        maps = torch.from_numpy(acts[sample]).float()
        dense = maps[:, :, low] + share * (maps[:, :, high] - maps[:, :, low])
        dense = (dense[:, low] + share[:, None] * (dense[:, high] - dense[:, low])).reshape(UNITS, -1)
        found = torch.searchsorted(limits, dense)
        for plane in labels[sample]:
            first = torch.from_numpy(plane.astype(np.int64)).reshape(-1) * bins
            for unit in range(UNITS):
                counted = torch.bincount(first + found[unit], minlength=concepts * bins)
                total[unit] += counted.reshape(concepts, bins)
    total[:, 0] = 0
    return total[:, :, 1:].numpy()
