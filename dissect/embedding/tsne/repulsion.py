"""The repulsive forces of t-SNE for all points at once, on a grid, by fast Fourier transforms.

With the kernel k(d) = 1 / (1 + |d|²), the force on point i is 1/Z · sum_j k(y_i - y_j)² (y_i - y_j), and
Z = sum_{i≠j} k(y_i - y_j) (van der Maaten and Hinton 2008, eq. 5). Both are convolutions of the points' density, and
smooth: they are taken from a grid (Linderman et al. 2019, Section 3). Two things differ from that paper. Points are not
interpolated by polynomials in boxes but by cubic B-splines on one grid, and the transformed kernel is the one that
makes the mean square error least (Hockney and Eastwood 1988, eq. 8-22, the influence function of particle-mesh
methods); and the force is convolved as a vector, from one density, in place of differences of moments that cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from microtome.dissect.embedding.parallel import Pool
from microtome.dissect.embedding.tsne.kernels import TAPS, Points, all_pairs, read_field, spread

STEP = 0.4
"""Distance of the grid's nodes, in units of the map (in which the kernel falls to one half at distance 1)."""

MOST_NODES = 4096
"""Along the longer side; a map that is wider than this many steps is given a coarser grid."""

EXACT_POINTS = 300
"""So few points are summed over pair by pair: that is quicker than a grid."""

KEPT_KERNELS = 3
POINTS_A_GRID = 50_000
MOST_GRIDS = 4


@dataclass(frozen=True)
class Kernels:
    """Transforms of k and of k² times the two components of the difference: (rows, columns // 2 + 1) float32.

    Those of the force are purely imaginary; their imaginary parts are kept.
    """

    potential: NDArray[np.float32]
    force_x: NDArray[np.float32]
    force_y: NDArray[np.float32]

    @classmethod
    def of(cls, rows: int, columns: int, spacing: float) -> Kernels:
        """For a periodic grid of `rows` by `columns` nodes (even), of which half in each direction are empty.

        The kernel is sampled twice as finely as the grid. By its symmetry a quarter of it is enough: its transform is
        a cosine transform in the directions in which it is even, minus i times a sine transform where it is odd.
        """
        y, x = np.arange(rows + 1)[:, None] * (spacing / 2), np.arange(columns + 1)[None, :] * (spacing / 2)
        k = 1.0 / (1.0 + y * y + x * x)
        smooth_y, smooth_x = (np.sinc(np.arange(n + 1) / n) ** 8 for n in (rows, columns))
        weight = smooth_y[:, None] * smooth_x[None, :] / 4.0
        total = (_alias(smooth_y, 0, 1)[:, None] * _alias(smooth_x, 0, 1)[None, :]) ** 2

        def folded(values: NDArray[np.float64], sign_y: int, sign_x: int) -> NDArray[np.float32]:
            for axis, sign in ((0, sign_y), (1, sign_x)):
                values = fft.dct(values, type=1, axis=axis) if sign > 0 else _sine(values, axis)
            corner = _alias(_alias(values * weight, 0, sign_y), 1, sign_x) / total
            lower = sign_y * corner[rows // 2 - 1 : 0 : -1]
            return np.concatenate([corner, lower]).astype(np.float32)

        return cls(folded(k, 1, 1), folded(k * k * x, 1, -1), folded(k * k * y, -1, 1))


def _sine(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Imaginary part of the Fourier transform of the odd function whose first half is `values` along `axis`."""
    inner = [slice(None)] * values.ndim
    inner[axis] = slice(1, -1)
    result = np.zeros_like(values)
    result[tuple(inner)] = -fft.dst(values[tuple(inner)], type=1, axis=axis)
    return result


def _alias(values: NDArray[np.float64], axis: int, sign: int) -> NDArray[np.float64]:
    """Add to each frequency 0 ... n/2 of the grid the one above its limit that the grid cannot tell from it.

    values: frequencies 0 ... n of the finer grid along `axis`; sign: 1 where they are even, -1 where they are odd.
    """
    half = (values.shape[axis] - 1) // 2
    low = np.take(values, np.arange(half + 1), axis=axis)
    high = np.take(values, np.arange(2 * half, half - 1, -1), axis=axis)
    return low + sign * high


class Repulsion:
    """Repulsive forces, with what can be kept from one call to the next: kernels of the last grid, and buffers.

    spacing: of the grid's nodes. The result depends on the points alone, not on the number of threads.
    """

    def __init__(self, pool: Pool, spacing: float = STEP) -> None:
        self._pool = pool
        self._spacing = spacing
        self._kernels: dict[tuple[int, int, float], Kernels] = {}
        self._density: NDArray[np.float32] = np.empty((0, 0, 0), np.float32)
        self._field: NDArray[np.float32] = np.empty((0, 0, 4), np.float32)

    def __call__(self, positions: Points, forces: Points) -> float:
        """Write sum_j k² (y_i - y_j) of every point into `forces` (N, 2), and return Z, both unnormalised.

        positions: (N, 2) float32.
        """
        if len(positions) <= EXACT_POINTS:
            return all_pairs(positions, forces) - len(positions)
        low, high = positions.min(axis=0).astype(np.float64), positions.max(axis=0).astype(np.float64)
        spacing = max(self._spacing, float((high - low).max()) / (MOST_NODES - TAPS))
        columns, rows = (int((high - low)[axis] / spacing) + TAPS + 1 for axis in (0, 1))
        kernels, density = self._prepare(rows, columns, spacing, len(positions))
        low_x, low_y, scale = np.float32(low[0]), np.float32(low[1]), np.float32(1.0 / spacing)

        def add(number: int, start: int, stop: int) -> None:
            density[number].fill(0.0)
            spread(positions, start, stop, low_x, low_y, scale, density[number])

        self._pool.parts(add, len(positions), len(density))
        whole = density[0]
        for other in density[1:]:
            whole += other
        field = self._convolve(whole, kernels, rows, columns)
        sums = self._pool.blocks(
            lambda start, stop: read_field(positions, start, stop, low_x, low_y, scale, field, forces), len(positions)
        )
        return float(sum(sums)) - len(positions)

    def _prepare(self, rows: int, columns: int, spacing: float, points: int) -> tuple[Kernels, NDArray[np.float32]]:
        """Kernels for a grid with room for `rows` by `columns` nodes, and buffers of that size."""
        size = (padded_size(rows), padded_size(columns), spacing)
        if size not in self._kernels:
            while len(self._kernels) >= KEPT_KERNELS:
                del self._kernels[next(iter(self._kernels))]
            self._kernels[size] = Kernels.of(*size)
        half = size[0] // 2, size[1] // 2
        if self._field.shape[:2] != half:
            grids = max(1, min(MOST_GRIDS, points // POINTS_A_GRID))
            self._density = np.empty((grids, *half), np.float32)
            self._field = np.empty((*half, 4), np.float32)
        return self._kernels[size], self._density

    def _convolve(self, density: NDArray[np.float32], kernels: Kernels, rows: int, columns: int) -> NDArray[np.float32]:
        """The potential and the force at the nodes: (rows, columns, 4), the last unused."""
        high, wide = len(kernels.potential), 2 * (kernels.potential.shape[1] - 1)
        threads = self._pool.threads
        half = fft.rfft(density[:rows], n=wide, axis=1, workers=threads)
        spectrum = fft.fft(half, n=high, axis=0, workers=threads, overwrite_x=True)
        parts = (kernels.potential, kernels.force_x, kernels.force_y)

        def back(number: int) -> None:
            product = spectrum * parts[number]
            if number:
                product *= np.complex64(1j)
            lines = fft.ifft(product, axis=0, workers=1, overwrite_x=True)[:rows]
            self._field[:rows, :columns, number] = fft.irfft(lines, n=wide, axis=1, workers=1)[:, :columns]

        self._pool.each(back, len(parts))
        return self._field


def padded_size(nodes: int) -> int:
    """The even length, fast to transform, of a grid for `nodes` and as many empty ones.

    One of a few, so that a map that grows seldom needs another; it depends on nothing that was before.
    """
    wanted = 2 * nodes
    size = 32
    while size < wanted:
        size = 2 * int(fft.next_fast_len(size * 27 // 50 + 1, real=True))
    return size
