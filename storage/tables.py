"""Parquet tables of a run, written whole and atomically; any tool that reads Parquet reads them."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from microtome.storage.errors import RunDamagedError
from microtome.storage.files import write_bytes


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write `frame` without its index; the same frame always gives the same bytes."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, engine="pyarrow", compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_table(path: Path) -> pd.DataFrame:
    """Read a table. Raises RunDamagedError where it is missing or not Parquet."""
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except FileNotFoundError as error:
        raise RunDamagedError(
            f"{path} is missing; the audit that makes it has not finished: run `microtome audit --resume RUN`"
        ) from error
    except (OSError, ValueError) as error:
        raise RunDamagedError(f"{path} cannot be read as Parquet ({error}); resume or repeat the audit") from error
