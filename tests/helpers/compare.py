"""Whether two runs hold the same results, to the last byte, wherever they lie."""

from __future__ import annotations

from pathlib import Path

from microtome.storage.places import open_place


def results(run: Path | str) -> dict[str, bytes]:
    """Every table, every array and all components of a run, by key. Times, pages and commit records are left out."""
    place = open_place(run)
    ends = (".parquet", "/pca.safetensors")
    return place.read_many(key for key, _ in place.list() if key.endswith(ends) or key.startswith("arrays.zarr/"))


def differences(one: Path | str, other: Path | str) -> list[str]:
    """Names of results that are missing from, or not the same in, one of two runs."""
    left, right = results(one), results(other)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
