"""The descent against t-SNE by the book: dense matrices, float64, one point after the other."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.affinities import dense, dense_divergence, neighbors_of
from numpy.typing import NDArray

from microtome.dissect.embedding.parallel import Pool
from microtome.dissect.embedding.tsne import optimise
from microtome.dissect.embedding.tsne.affinities import Affinities, gaussian_affinities
from microtome.dissect.embedding.tsne.optimise import InterruptedLayoutError, Phase, State, descend

PHASES = (Phase(30, 4.0), Phase(60, 1.0))


def by_the_book(p: NDArray[np.float64], initial: NDArray[np.float32], phases: tuple[Phase, ...]) -> NDArray[np.float64]:
    """Positions after the phases, from the formulas of van der Maaten and Hinton (2008)."""
    y = initial.astype(np.float64)
    velocity, gains, count = np.zeros_like(y), np.ones_like(y), len(y)
    for phase in phases:
        for _ in range(phase.iterations):
            apart = y[:, None] - y[None]
            kernel = 1.0 / (1.0 + (apart**2).sum(axis=2))
            np.fill_diagonal(kernel, 0.0)
            q = kernel / kernel.sum()
            gradient = ((phase.exaggeration * p - q) * kernel)[:, :, None] * apart
            total = gradient.sum(axis=1)
            gains = np.maximum(np.where((total > 0) == (velocity > 0), gains * 0.8, gains + 0.2), 0.01)
            velocity = 0.8 * velocity - count / phase.exaggeration * gains * total
            length = np.linalg.norm(velocity, axis=1, keepdims=True)
            velocity *= np.minimum(1.0, 5.0 / np.maximum(length, 1e-12))
            y = y + velocity
            y -= y.mean(axis=0)
    return y


def problem(count: int = 240) -> tuple[Affinities, NDArray[np.float32]]:
    indices, distances = neighbors_of(count, 15)
    with Pool(1) as pool:
        affinities = gaussian_affinities(indices, distances, 5.0, pool)
    return affinities, np.random.default_rng(1).normal(size=(count, 2)).astype(np.float32) * 0.5


def test_a_few_steps_are_those_by_the_book() -> None:
    affinities, initial = problem()
    for phases, most in (((Phase(1, 1.0),), 0.01), ((Phase(4, 4.0), Phase(4, 1.0)), 0.1)):
        expected = by_the_book(dense(affinities), initial, phases)
        with Pool(2) as pool:
            found = descend(affinities, initial, phases, pool)
        assert found.iterations == sum(phase.iterations for phase in phases)
        assert np.linalg.norm(found.positions - expected) < most * np.linalg.norm(expected)
        assert found.divergence == pytest.approx(dense_divergence(affinities, expected), rel=most)


def test_the_divergence_at_the_end_is_as_low_as_by_the_book() -> None:
    affinities, initial = problem()
    phases = (Phase(100, 12.0), Phase(300, 1.0))
    expected = dense_divergence(affinities, by_the_book(dense(affinities), initial, phases))
    with Pool(1) as pool:
        found = descend(affinities, initial, phases, pool)
    assert found.divergence < 1.05 * expected  # steps at a high rate end in one or another of the valleys
    assert found.divergence == pytest.approx(dense_divergence(affinities, found.positions), rel=2e-3)


def test_the_same_bits_from_any_number_of_threads_and_after_any_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    affinities, initial = problem()
    whole = []
    for threads in (1, 2, 4):
        with Pool(threads) as pool:
            whole.append(descend(affinities, initial, PHASES, pool).positions)
    np.testing.assert_array_equal(whole[0], whole[1])
    np.testing.assert_array_equal(whole[0], whole[2])
    monkeypatch.setattr(optimise, "SAVE_SECONDS", 0.0)
    for cut in (1, 29, 30, 77):
        saved: list[dict[str, NDArray[np.generic]]] = []
        steps = iter(range(1, 1000))
        with Pool(1) as pool:
            with pytest.raises(InterruptedLayoutError):
                descend(
                    affinities,
                    initial,
                    PHASES,
                    pool,
                    save=lambda arrays, saved=saved: saved.append({k: v.copy() for k, v in arrays.items()}),
                    stop=lambda steps=steps, cut=cut: next(steps) >= cut,
                )
            assert State.from_arrays(saved[-1]).iteration == cut
            again = descend(affinities, initial, PHASES, pool, resumed=saved[-1]).positions
        np.testing.assert_array_equal(again, whole[0])
