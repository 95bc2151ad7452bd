"""The loops of t-SNE over points, compiled: spreading onto a grid, reading from it, attraction, one step.

Every kernel works on the points start ... stop - 1, so that threads share the points; a point's result does not
depend on how they are divided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.jit import inlined_kernel

F = TypeVar("F", bound=Callable[..., Any])

Points = NDArray[np.float32]

TAPS = 4
"""Grid nodes in each direction that a point touches: those of a cubic B-spline."""


def fast_kernel(function: F) -> F:
    """Compile `function` without the GIL; sums may be taken in another order, divisions by reciprocals."""
    fastmath = {"reassoc", "contract", "arcp", "nsz"}
    return cast(F, numba.njit(nogil=True, cache=True, fastmath=fastmath, error_model="numpy")(function))


@inlined_kernel
def _spline(t: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Weights of the four nodes around a point that lies `t` in [0, 1) beyond the second of them; they sum to 1."""
    sixth = np.float32(1.0 / 6.0)
    one, three, four = np.float32(1.0), np.float32(3.0), np.float32(4.0)
    s = one - t
    t2, s2 = t * t, s * s
    return (
        s2 * s * sixth,
        (four + three * t2 * (t - np.float32(2.0))) * sixth,
        (four + three * s2 * (s - np.float32(2.0))) * sixth,
        t2 * t * sixth,
    )


@fast_kernel
def spread(
    positions: Points, start: int, stop: int, low_x: np.float32, low_y: np.float32, scale: np.float32, grid: Points
) -> None:
    """Add each point, spread over 4x4 nodes, to `grid` (rows, columns) float32; node (0, 0) lies at (low_x, low_y)."""
    for i in range(start, stop):
        x = (positions[i, 0] - low_x) * scale
        y = (positions[i, 1] - low_y) * scale
        column, row = np.int64(x), np.int64(y)
        a0, a1, a2, a3 = _spline(x - np.float32(column))
        b = _spline(y - np.float32(row))
        for k in range(TAPS):
            weight = b[k]
            grid[row + k, column] += weight * a0
            grid[row + k, column + 1] += weight * a1
            grid[row + k, column + 2] += weight * a2
            grid[row + k, column + 3] += weight * a3


@fast_kernel
def read_field(
    positions: Points,
    start: int,
    stop: int,
    low_x: np.float32,
    low_y: np.float32,
    scale: np.float32,
    field: NDArray[np.float32],
    forces: Points,
) -> float:
    """Interpolate `field` (rows, columns, 4), the potential and the two components of the force, at each point.

    Writes the forces, and returns the sum of the potential.
    """
    total = 0.0
    for i in range(start, stop):
        x = (positions[i, 0] - low_x) * scale
        y = (positions[i, 1] - low_y) * scale
        column, row = np.int64(x), np.int64(y)
        a0, a1, a2, a3 = _spline(x - np.float32(column))
        b = _spline(y - np.float32(row))
        potential = np.float32(0.0)
        fx = np.float32(0.0)
        fy = np.float32(0.0)
        for k in range(TAPS):
            line = field[row + k]
            weight = b[k]
            potential += weight * (
                a0 * line[column, 0] + a1 * line[column + 1, 0] + a2 * line[column + 2, 0] + a3 * line[column + 3, 0]
            )
            fx += weight * (
                a0 * line[column, 1] + a1 * line[column + 1, 1] + a2 * line[column + 2, 1] + a3 * line[column + 3, 1]
            )
            fy += weight * (
                a0 * line[column, 2] + a1 * line[column + 1, 2] + a2 * line[column + 2, 2] + a3 * line[column + 3, 2]
            )
        total += float(potential)
        forces[i, 0] = fx
        forces[i, 1] = fy
    return total


@fast_kernel
def all_pairs(positions: Points, forces: Points) -> float:
    """Write sum_j k² (y_i - y_j) of every point into `forces`, k = 1 / (1 + d²), and return the sum of k, i = j too."""
    one = np.float32(1.0)
    total = 0.0
    for i in range(positions.shape[0]):
        x, y = positions[i, 0], positions[i, 1]
        near = np.float32(0.0)
        fx = np.float32(0.0)
        fy = np.float32(0.0)
        for j in range(positions.shape[0]):
            dx = x - positions[j, 0]
            dy = y - positions[j, 1]
            k = one / (one + dx * dx + dy * dy)
            near += k
            fx += k * k * dx
            fy += k * k * dy
        total += float(near)
        forces[i, 0] = fx
        forces[i, 1] = fy
    return total


@fast_kernel
def attract(
    positions: Points,
    start: int,
    stop: int,
    starts: NDArray[np.int64],
    neighbors: NDArray[np.int32],
    weights: NDArray[np.float32],
    exaggeration: np.float32,
    repulsion: np.float32,
    forces: Points,
) -> None:
    """Turn `forces` (repulsion, not yet normalised) into the gradient: exaggeration · attraction - repulsion · forces.

    The neighbours of point i are neighbors[starts[i]:starts[i + 1]], with affinities `weights`.
    """
    one = np.float32(1.0)
    for i in range(start, stop):
        x, y = positions[i, 0], positions[i, 1]
        ax = np.float32(0.0)
        ay = np.float32(0.0)
        for at in range(starts[i], starts[i + 1]):
            j = neighbors[at]
            dx = x - positions[j, 0]
            dy = y - positions[j, 1]
            pull = weights[at] / (one + dx * dx + dy * dy)
            ax += pull * dx
            ay += pull * dy
        forces[i, 0] = exaggeration * ax - repulsion * forces[i, 0]
        forces[i, 1] = exaggeration * ay - repulsion * forces[i, 1]


@fast_kernel
def step(
    positions: Points,
    start: int,
    stop: int,
    gradient: Points,
    velocity: Points,
    gains: Points,
    rate: np.float32,
    momentum: np.float32,
    longest: np.float32,
) -> tuple[float, float]:
    """Move each point against its gradient, with gains (Jacobs 1988) and momentum, at most `longest` at once.

    Returns the sums of the new x and y.
    """
    sum_x = 0.0
    sum_y = 0.0
    for i in range(start, stop):
        for axis in range(2):
            g, v, gain = gradient[i, axis], velocity[i, axis], gains[i, axis]
            gain = gain * np.float32(0.8) if (g > 0) == (v > 0) else gain + np.float32(0.2)
            gain = max(gain, np.float32(0.01))
            gains[i, axis] = gain
            velocity[i, axis] = momentum * v - rate * gain * g
        length = velocity[i, 0] * velocity[i, 0] + velocity[i, 1] * velocity[i, 1]
        if length > longest * longest:
            shorter = longest / np.sqrt(length)
            velocity[i, 0] *= shorter
            velocity[i, 1] *= shorter
        positions[i, 0] += velocity[i, 0]
        positions[i, 1] += velocity[i, 1]
        sum_x += positions[i, 0]
        sum_y += positions[i, 1]
    return sum_x, sum_y


@fast_kernel
def divergence(
    positions: Points,
    start: int,
    stop: int,
    starts: NDArray[np.int64],
    neighbors: NDArray[np.int32],
    weights: NDArray[np.float32],
    normaliser: float,
) -> float:
    """The rows' part of the Kullback-Leibler divergence sum p log(p / q), with q = 1 / (1 + d²) / normaliser."""
    total = 0.0
    one = np.float32(1.0)
    for i in range(start, stop):
        x, y = positions[i, 0], positions[i, 1]
        for at in range(starts[i], starts[i + 1]):
            j = neighbors[at]
            dx = x - positions[j, 0]
            dy = y - positions[j, 1]
            p = weights[at]
            if p > 0:
                total += p * np.log(p * (one + dx * dx + dy * dy) * normaliser)
    return total
