"""Vectors are the rows they stand for, however they are cut; unreadable samples are left out, damage is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.embedding import run_with_means
from helpers.runs import write_run
from numpy.typing import NDArray

from microtome.dissect.embedding.vectors import (
    NEAR,
    ArrayVectors,
    LayerVectors,
    blocks,
    gather,
    in_memory,
    spans,
)
from microtome.storage.errors import RunDamagedError, UnknownNameError, UsageError


@pytest.mark.parametrize("size", [None, 1, 7, 50, 1000])
def test_blocks_of_an_array_are_its_rows(size: int | None) -> None:
    array = np.random.default_rng(0).normal(size=(50, 6))
    vectors = ArrayVectors(array)
    found = list(blocks(vectors, size))
    assert (vectors.rows, vectors.dims) == (50, 6)
    assert np.array_equal(np.concatenate([block for _, block in found]), array.astype(np.float32))
    assert [start for start, _ in found] == [start for start, _ in spans(vectors, size)]
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for _, block in found)


def test_an_array_of_float32_is_not_copied() -> None:
    array = np.zeros((10, 4), np.float32)
    assert np.shares_memory(in_memory(ArrayVectors(array)), array)
    assert np.shares_memory(ArrayVectors(array).read(2, 5), array)


def test_a_memmap_is_read(tmp_path: Path) -> None:
    array = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(9, 3))
    array[:] = np.arange(27).reshape(9, 3)
    assert ArrayVectors(array).read(4, 6).tolist() == [[12, 13, 14], [15, 16, 17]]


@pytest.mark.parametrize("count", [0, 1, 5, 300, 9000])
def test_rows_are_gathered_in_any_order_near_ones_at_once(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("microtome.dissect.embedding.vectors.BLOCK_BYTES", 2048 * 16)
    array = np.random.default_rng(3).normal(size=(40_000, 4)).astype(np.float32)
    wanted = np.random.default_rng(count).integers(0, len(array), count)
    read = []

    class Watched(ArrayVectors):
        def read(self, start: int, stop: int) -> NDArray[np.float32]:
            read.append((start, stop))
            return super().read(start, stop)

    assert np.array_equal(gather(Watched(array), wanted), array[wanted])
    assert all(stop - start <= 2048 for start, stop in read)
    assert all(before[1] <= after[0] for before, after in pairwise(read))
    assert len(read) <= 2 * len(array) // NEAR


def test_vectors_have_two_axes() -> None:
    with pytest.raises(UsageError, match=r"\(rows, dims\)"):
        ArrayVectors(np.zeros(4))


def test_the_means_of_a_layer_without_unreadable_samples(tmp_path: Path) -> None:
    means = np.random.default_rng(1).normal(size=(90, 5)).astype(np.float32)
    run, layer = run_with_means(tmp_path / "run", means)
    vectors = LayerVectors(run, layer)
    assert (vectors.rows, vectors.dims) == (87, 5)
    assert vectors.samples.tolist() == list(range(87))
    assert vectors.samples.dtype == np.int64
    assert np.array_equal(vectors.read(20, 75), means[20:75])
    assert np.array_equal(in_memory(vectors, threads=2), means[:87])
    assert vectors.read(5, 5).shape == (0, 5)


def test_samples_in_the_middle_may_be_unreadable(tmp_path: Path) -> None:
    means = np.random.default_rng(1).normal(size=(70, 5)).astype(np.float32)
    run, layer = run_with_means(tmp_path / "run", means)
    table = run.table("samples")
    table["status"] = np.where(np.arange(70) % 3 == 1, "error", "ok")
    table.loc[67:, "status"] = "error"
    run.write_table("samples", table)
    vectors = LayerVectors(run, layer)
    good = [index for index in range(67) if index % 3 != 1]
    assert vectors.samples.tolist() == good
    assert np.array_equal(vectors.read(10, 40), means[good][10:40])


def test_holes_are_damage(tmp_path: Path) -> None:
    means = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    means[33, 2] = np.nan
    run, layer = run_with_means(tmp_path / "run", means)
    vectors = LayerVectors(run, layer)
    assert vectors.read(0, 33).shape == (33, 5)
    with pytest.raises(RunDamagedError, match=f"layer {layer} .*sample 33"):
        vectors.read(30, 35)


def test_samples_that_the_network_cannot_take_may_be_left_out(tmp_path: Path) -> None:
    means = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    means[33, 2], means[4, 0] = np.nan, np.inf
    run, layer = run_with_means(tmp_path / "run", means)
    vectors = LayerVectors.finite(run, layer)
    assert vectors.samples.tolist() == [sample for sample in range(37) if sample not in (4, 33)]
    assert vectors.read(0, vectors.rows).shape == (35, 5)


def test_an_unknown_layer(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=24)
    with pytest.raises(UnknownNameError, match="no layer of this run"):
        LayerVectors(run, "nowhere")
