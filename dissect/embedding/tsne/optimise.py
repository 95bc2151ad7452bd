"""Gradient descent of t-SNE: early exaggeration, then the rest, resumable to the bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import Pool
from microtome.dissect.embedding.tsne.affinities import Affinities
from microtome.dissect.embedding.tsne.kernels import Points, attract, divergence, step
from microtome.dissect.embedding.tsne.order import morton_order
from microtome.dissect.embedding.tsne.repulsion import Repulsion

Arrays = dict[str, NDArray[np.generic]]

MOMENTUM = 0.8
LONGEST_STEP = 5.0
SORT_EVERY = 100
SAVE_SECONDS = 60.0


class InterruptedLayoutError(Exception):
    """Somebody asked to stop; what was reached has been saved."""


@dataclass(frozen=True)
class Phase:
    """`iterations` steps with the attraction multiplied by `exaggeration`."""

    iterations: int
    exaggeration: float


@dataclass
class State:
    """Where the descent is. Row i of all arrays belongs to point order[i].

    positions, velocity, gains: (N, 2) float32; iteration: steps done, over all phases.
    """

    order: NDArray[np.int64]
    positions: Points
    velocity: Points
    gains: Points
    iteration: int = 0

    @classmethod
    def start(cls, initial: Points) -> State:
        """Points at rest."""
        positions = np.array(initial, np.float32)
        order = np.arange(len(positions), dtype=np.int64)
        return cls(order, positions, np.zeros_like(positions), np.ones_like(positions))

    def to_arrays(self) -> Arrays:
        """As named arrays."""
        return {
            "order": self.order,
            "positions": self.positions,
            "velocity": self.velocity,
            "gains": self.gains,
            "iteration": np.array([self.iteration], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> State:
        """Again, from copies of `to_arrays`."""
        positions, velocity, gains = (np.array(arrays[name], np.float32) for name in ("positions", "velocity", "gains"))
        iteration = int(arrays["iteration"].astype(np.int64)[0])
        return cls(np.array(arrays["order"], np.int64), positions, velocity, gains, iteration)

    def sort(self) -> NDArray[np.int64]:
        """Bring neighbours on the map together in memory; returns which row each new one was."""
        moved = morton_order(self.positions)
        self.order = self.order[moved]
        self.positions, self.velocity, self.gains = self.positions[moved], self.velocity[moved], self.gains[moved]
        return moved


@dataclass(frozen=True)
class Descended:
    """positions: (N, 2) float32, in the order of the points; divergence: Kullback-Leibler, in nats."""

    positions: Points
    divergence: float
    iterations: int


def descend(
    affinities: Affinities,
    initial: Points,
    phases: tuple[Phase, ...],
    pool: Pool,
    *,
    resumed: Mapping[str, NDArray[np.generic]] | None = None,
    save: Callable[[Arrays], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Descended:
    """Move the points (N, 2) from `initial` down the gradient of the Kullback-Leibler divergence.

    The learning rate is N / exaggeration (Belkina et al. 2019), momentum 0.8. resumed: what `save` was given by a
    former call with the same arguments; the result is the same to the bit. Raises InterruptedLayoutError once `stop`
    says so, after saving.
    """
    state = State.start(initial) if resumed is None else State.from_arrays(resumed)
    rows = affinities.reordered(state.order, pool)
    repulsion, forces = Repulsion(pool), np.empty_like(state.positions)
    total = sum(phase.iterations for phase in phases)
    normaliser, saved = 0.0, time.monotonic()
    while state.iteration < total:
        if state.iteration % SORT_EVERY == 0:
            state.sort()
            rows = affinities.reordered(state.order, pool)
        _one_step(state, rows, repulsion, forces, _exaggeration(phases, state.iteration), pool)
        state.iteration += 1
        if progress is not None:
            progress(state.iteration, total)
        stopped = stop is not None and stop()
        if save is not None and (stopped or time.monotonic() - saved > SAVE_SECONDS):
            save(state.to_arrays())
            saved = time.monotonic()
        if stopped and state.iteration < total:
            raise InterruptedLayoutError
    normaliser = repulsion(state.positions, forces)
    kl = sum(
        pool.blocks(
            lambda start, end: divergence(
                state.positions, start, end, rows.starts, rows.neighbors, rows.weights, normaliser
            ),
            len(forces),
        )
    )
    positions = np.empty_like(state.positions)
    positions[state.order] = state.positions
    return Descended(positions, float(kl), state.iteration)


def _exaggeration(phases: tuple[Phase, ...], iteration: int) -> float:
    """That of the phase which step number `iteration` is in."""
    for phase in phases:
        if iteration < phase.iterations:
            return phase.exaggeration
        iteration -= phase.iterations
    return 1.0


def _one_step(
    state: State, rows: Affinities, repulsion: Repulsion, forces: Points, exaggeration: float, pool: Pool
) -> None:
    """One step of all points; then the map is centred again."""
    positions, count = state.positions, len(state.positions)
    normaliser = repulsion(positions, forces)
    scale, pull = np.float32(1.0 / max(normaliser, 1e-30)), np.float32(exaggeration)

    def gradient(start: int, end: int) -> None:
        attract(positions, start, end, rows.starts, rows.neighbors, rows.weights, pull, scale, forces)

    pool.blocks(gradient, count)
    rate, momentum, longest = np.float32(count / exaggeration), np.float32(MOMENTUM), np.float32(LONGEST_STEP)

    def move(start: int, end: int) -> tuple[float, float]:
        return step(positions, start, end, forces, state.velocity, state.gains, rate, momentum, longest)

    sums = np.array(pool.blocks(move, count)).sum(axis=0)
    positions -= (sums / count).astype(np.float32)
