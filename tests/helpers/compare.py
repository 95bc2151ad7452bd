"""Whether two runs hold the same results, to the last byte."""

from __future__ import annotations

from pathlib import Path


def results(run: Path) -> dict[str, bytes]:
    """Every table and every array of a run, by relative path. Times, pages and commit records are left out."""
    tables = list(run.glob("*.parquet")) + list(run.glob("layers/**/*.parquet"))
    arrays = [path for path in run.glob("arrays.zarr/**/*") if path.is_file()]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in tables + arrays}


def differences(one: Path, other: Path) -> list[str]:
    """Names of results that are missing from, or not the same in, one of two runs."""
    left, right = results(one), results(other)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
