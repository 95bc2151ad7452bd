"""Images like a patch: for each image its nearest position, by a plain comparison in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.runs import write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.embedding.positions import nearest_in, nearest_positions
from microtome.dissect.embedding.search import distances_to
from microtome.storage.errors import UnknownNameError


def plain(maps: NDArray[np.float32], query: NDArray[np.float64], k: int, metric: str) -> NDArray[np.float64]:
    """(k, 3): sample, position, distance; NaN is nobody's neighbour."""
    rows = []
    for sample, image in enumerate(maps):
        distances = distances_to(image.T, query, metric)
        distances[~np.isfinite(distances)] = np.inf
        rows.append((sample, distances.argmin(), distances.min()))
    rows = sorted((row for row in rows if np.isfinite(row[2])), key=lambda row: (row[2], row[0]))
    return np.array(rows[:k], np.float64).reshape(-1, 3)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 12),
    units=st.integers(1, 6),
    positions=st.integers(1, 9),
    k=st.integers(1, 14),
    whole=st.booleans(),
    metric=st.sampled_from(["euclidean", "cosine"]),
)
def test_the_nearest_position_of_each_image(
    seed: int, n: int, units: int, positions: int, k: int, whole: bool, metric: str
) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.normal(3, 1, (n, units, positions)).astype(np.float32)
    query = rng.normal(3, 1, units)
    if whole:
        maps, query = np.rint(maps), np.rint(query)
    found = nearest_in(maps, query, k, metric, None)
    expected = plain(maps, query, k, metric)
    assert np.array_equal(found[:, 0], expected[:, 0])
    assert np.array_equal(found[:, 2], expected[:, 2])
    assert np.array_equal(found[:, 1], expected[:, 1])


def test_positions_of_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=70, unreadable=4)
    layer = run.layer_names[0]
    maps = run.activation_range(layer, 0, 70)
    height, width = maps.shape[2:]
    query = maps[9, :, 2, 3]
    found = nearest_positions(run, layer, query, 8, without=9, threads=2)
    flat = maps.reshape(*maps.shape[:2], height * width).copy()
    flat[9] = np.nan
    expected = plain(flat, query.astype(np.float64), 8, "euclidean")
    assert found.sample.tolist() == expected[:, 0].tolist()
    assert (found.row * width + found.column).tolist() == expected[:, 1].tolist()
    assert np.array_equal(found.distance, expected[:, 2])
    seen: list[int] = []
    itself = nearest_positions(run, layer, query, 1, "cosine", told=seen.append)
    assert (itself.sample[0], itself.row[0], itself.column[0]) == (9, 2, 3)
    assert itself.distance[0] == pytest.approx(0, abs=1e-15)
    assert sum(seen) == 70
    assert len(nearest_positions(run, layer, query, 1000).sample) == 66


def test_an_unknown_metric(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=24)
    with pytest.raises(UnknownNameError, match="manhattan"):
        nearest_positions(run, run.layer_names[0], np.zeros(12), 3, "manhattan")
