"""Parquet tables of a run, written whole and atomically; any tool that reads Parquet reads them."""

from __future__ import annotations

import io
import zlib

import pandas as pd
from pyarrow import Table, default_memory_pool, parquet

from microtome.storage.errors import RunDamagedError
from microtome.storage.places import Place, name_of


def write_table(place: Place, key: str, frame: pd.DataFrame) -> tuple[int, int]:
    """Write `frame` without its index; the same frame always gives the same bytes. Returns their number and CRC-32."""
    buffer = io.BytesIO()
    parquet.write_table(Table.from_pandas(frame, preserve_index=False, nthreads=1), buffer, compression="zstd")
    content = buffer.getvalue()
    place.write(key, content)
    return len(content), zlib.crc32(content)


def read_table(place: Place, key: str) -> pd.DataFrame:
    """Read a table. Raises RunDamagedError where it is missing or not Parquet."""
    try:
        content = place.read(key)
    except FileNotFoundError as error:
        raise RunDamagedError(
            f"{name_of(place, key)} is missing; the audit that makes it has not finished: "
            "run `microtome audit --resume RUN`"
        ) from error
    try:
        return pd.read_parquet(io.BytesIO(content), engine="pyarrow")
    except (OSError, ValueError) as error:
        raise RunDamagedError(
            f"{name_of(place, key)} cannot be read as Parquet ({error}); resume or repeat the audit"
        ) from error
    finally:
        default_memory_pool().release_unused()  # as much again as the table takes
