"""Parquet tables: the frame comes back, the bytes repeat, and what cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from microtome.storage.errors import RunDamagedError
from microtome.storage.places import LocalPlace
from microtome.storage.tables import read_table, write_table


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unit": pd.Series([0, 1, 2], dtype="int64"),
            "concept": pd.Series(["sky", None, "wheel"], dtype="str"),
            "label": pd.Series([3, None, 0], dtype="Int64"),
            "iou": [0.5, 0.0, float("nan")],
            "is_detector": [True, False, False],
        }
    )


def test_a_table_comes_back_as_it_went(tmp_path: Path) -> None:
    write_table(LocalPlace(tmp_path), "a/units.parquet", frame())
    pd.testing.assert_frame_equal(read_table(LocalPlace(tmp_path), "a/units.parquet"), frame())


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    write_table(LocalPlace(tmp_path), "units.parquet", frame().iloc[:0])
    back = read_table(LocalPlace(tmp_path), "units.parquet")
    assert len(back) == 0
    assert list(back.columns) == list(frame().columns)


def test_the_index_is_not_stored(tmp_path: Path) -> None:
    write_table(LocalPlace(tmp_path), "units.parquet", frame().set_index(pd.Index([7, 8, 9], name="row")))
    assert pq.read_schema(tmp_path / "units.parquet").names == list(frame().columns)


def test_the_same_frame_gives_the_same_bytes(tmp_path: Path) -> None:
    write_table(LocalPlace(tmp_path), "a.parquet", frame())
    write_table(LocalPlace(tmp_path), "b.parquet", frame().copy())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_frame_that_cannot_be_stored_leaves_the_old_table(tmp_path: Path) -> None:
    write_table(LocalPlace(tmp_path), "a.parquet", frame())
    with pytest.raises(Exception, match="object"):
        write_table(LocalPlace(tmp_path), "a.parquet", pd.DataFrame({"x": [object()]}))
    pd.testing.assert_frame_equal(read_table(LocalPlace(tmp_path), "a.parquet"), frame())


def test_a_missing_table_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RunDamagedError, match=r"units\.parquet is missing.*--resume"):
        read_table(LocalPlace(tmp_path), "units.parquet")


@pytest.mark.parametrize("keep", [0, 5, -3])
def test_a_truncated_table_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "units.parquet"
    write_table(LocalPlace(tmp_path), path.name, frame())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunDamagedError, match=r"units\.parquet cannot be read as Parquet"):
        read_table(LocalPlace(tmp_path), path.name)
