"""Shards as files: what Zarr writes is read, what is written Zarr reads, and damage never passes for values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from microtome.storage.arrays import limit_threads
from microtome.storage.shard_files import ShardLayout


def array_of(
    root: Path, rows: int, item: tuple[int, ...], chunk: tuple[int, ...], per_shard: tuple[int, ...], dtype: str
) -> zarr.Array[Any]:
    return zarr.create_array(
        store=str(root),
        shape=(rows, *item),
        chunks=chunk,
        shards=tuple(size * times for size, times in zip(chunk, per_shard, strict=True)),
        dtype=dtype,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=np.nan if dtype == "float16" else 0,
        config={"write_empty_chunks": True},
    )


def file_of(root: Path, dimensions: int) -> Path:
    return root.joinpath("c", *"0" * dimensions)


@st.composite
def forms(draw: st.DrawFn) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...], str]:
    """Rows, item, chunk and chunks a shard: all within one shard, which reaches to the end of the array or beyond."""
    dimensions = draw(st.integers(1, 4))
    chunk = tuple(draw(st.integers(1, 3)) for _ in range(dimensions))
    times = tuple(draw(st.integers(1, 3)) for _ in range(dimensions))
    shape = tuple(draw(st.integers(1, size * number)) for size, number in zip(chunk, times, strict=True))
    return shape[0], shape[1:], chunk, times, draw(st.sampled_from(["float16", "uint16", "int32", "uint8"]))


@given(forms(), st.integers(0, 2**32), st.sampled_from([1, 3]))
@settings(max_examples=60)
def test_both_ways_agree_with_zarr(
    tmp_path_factory: pytest.TempPathFactory,
    form: tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...], str],
    seed: int,
    threads: int,
) -> None:
    limit_threads(threads)
    rows, item, chunk, times, dtype = form
    root = tmp_path_factory.mktemp("array")
    array = array_of(root, rows, item, chunk, times, dtype)
    values = np.random.default_rng(seed).integers(0, 200, array.shape).astype(dtype)
    layout = ShardLayout.of(array)
    assert layout is not None
    array[...] = values
    file = file_of(root, array.ndim)
    np.testing.assert_array_equal(layout.read(file.read_bytes(), array.shape), values)
    file.write_bytes(layout.content(values))
    np.testing.assert_array_equal(zarr.open_array(str(root), mode="r")[...], values)
    np.testing.assert_array_equal(layout.read(file.read_bytes(), array.shape), values)


def test_the_same_values_give_the_same_bytes_with_any_number_of_threads(tmp_path: Path) -> None:
    layout = ShardLayout.of(array_of(tmp_path, 8, (40, 5, 5), (4, 16, 5, 5), (2, 3, 1, 1), "float16"))
    assert layout is not None
    values = np.random.default_rng(0).normal(size=(8, 40, 5, 5)).astype(np.float16)
    contents = []
    for threads in (1, 2, 8):
        limit_threads(threads)
        contents += [layout.content(values), layout.content(np.asfortranarray(values))]
    assert len(set(contents)) == 1


def test_chunks_that_zarr_left_out_and_files_that_are_not_there_read_as_holes(tmp_path: Path) -> None:
    array = array_of(tmp_path, 6, (4,), (2, 4), (3, 1), "float16")
    layout = ShardLayout.of(array)
    assert layout is not None
    assert np.isnan(layout.read(None, (6, 4))).all()
    array[2:4] = 7
    read = layout.read(file_of(tmp_path, 2).read_bytes(), (6, 4))
    assert np.isnan(read[:2]).all()
    assert (read[2:4] == 7).all()
    assert np.isnan(read[4:]).all()


def test_no_flipped_bit_and_no_cut_passes_for_values(tmp_path: Path) -> None:
    array = array_of(tmp_path, 4, (6,), (2, 3), (2, 2), "float16")
    layout = ShardLayout.of(array)
    assert layout is not None
    values = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float16)
    content = layout.content(values)
    for position in range(len(content)):
        for bit in range(8):
            altered = bytearray(content)
            altered[position] ^= 1 << bit
            try:
                read = layout.read(bytes(altered), values.shape)
            except (ValueError, RuntimeError):
                continue
            np.testing.assert_array_equal(read, values, err_msg=f"bit {bit} of byte {position}")  # unused bits
    for length in range(len(content)):
        with pytest.raises((ValueError, RuntimeError)):
            layout.read(content[:length], values.shape)


@pytest.mark.parametrize(
    "codecs",
    [
        [BytesCodec(), ZstdCodec()],
        [ShardingCodec(chunk_shape=(2, 3), codecs=[BytesCodec()])],
        [ShardingCodec(chunk_shape=(2, 3), codecs=[BytesCodec(endian="big"), ZstdCodec()])],
        [
            ShardingCodec(
                chunk_shape=(2, 3),
                codecs=[BytesCodec(), ZstdCodec()],
                index_codecs=[BytesCodec(), Crc32cCodec()],
                index_location="start",
            )
        ],
    ],
)
def test_another_layout_is_left_to_zarr(tmp_path: Path, codecs: list[Any]) -> None:
    array = zarr.create(
        shape=(4, 6), chunks=(4, 6), dtype="float16", store=str(tmp_path), zarr_format=3, codecs=codecs, fill_value=0
    )
    assert ShardLayout.of(array) is None
