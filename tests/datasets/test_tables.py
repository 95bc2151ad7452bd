"""CSV tables as text columns: what is read, and how a table that cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from helpers.odd_files import link_to_itself, pipe

from microtome.datasets.tables import first_repeated, line_of, read_csv, read_text
from microtome.storage.errors import UsageError


def table(folder: Path, content: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [b"a,b\n1,\n,x y\n", b'\xef\xbb\xbfa,b\r\n1,\r\n,"x y"\r\n', b' a ,"b"\n1,\n,x y', b"a,b\n\n\n1,\n\n,x y\n\n"],
)
def test_every_cell_is_text(tmp_path: Path, content: bytes) -> None:
    found = read_csv(table(tmp_path, content), ["b"])
    assert found.column_names == ["a", "b"]
    assert found["a"].to_pylist() == ["1", ""]
    assert found["b"].to_pylist() == ["", "x y"]


@pytest.mark.parametrize("content", [b"a,b", b"a,b\n", b"a,b\r\n\r\n"])
def test_a_header_alone_is_a_table_without_rows(tmp_path: Path, content: bytes) -> None:
    assert read_csv(table(tmp_path, content), ["a"]).num_rows == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "table.csv is empty; expected a table with the columns a,b"),
        (b"b,c\n", "table.csv, line 1: no column a; expected a,b, found b,c"),
        (b"a,b,b\n", "table.csv, line 1: two columns are called b"),
        (b"a,\xff\n", "table.csv, line 1: not UTF-8 text"),
        (b"a,b\n1,\xff\n", "table.csv cannot be read: .*Row #2: .*invalid UTF8"),
        (b"a,b\n1,2\n1,2,3\n", "table.csv cannot be read: .*Row #3: Expected 2 columns, got 3"),
    ],
)
def test_a_table_that_cannot_be_read_is_explained(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_csv(table(tmp_path, content), ["a", "b"])
    with pytest.raises(UsageError, match=r"none\.csv is missing; expected a table with the columns a,b"):
        read_csv(tmp_path / "none.csv", ["a", "b"])


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pipe\.csv cannot be read: not a regular file"):
        read_text(pipe(tmp_path / "pipe.csv"))
    with pytest.raises(UsageError, match=r"pipe\.csv is missing; expected a table"):
        read_csv(tmp_path / "pipe.csv", ["a"])
    with pytest.raises(UsageError, match=r"loop\.csv cannot be read: Too many levels of symbolic links"):
        read_text(link_to_itself(tmp_path / "loop.csv"))


def test_a_repeated_text_is_found_across_chunks() -> None:
    assert first_repeated(pa.chunked_array([["x", "y"], ["z", "y"]])) == "y"
    assert first_repeated(pa.chunked_array([["x", "y"], ["z", ""]])) is None
    assert first_repeated(pa.chunked_array([], pa.string())) is None


def test_empty_lines_are_no_rows_and_counted_as_lines(tmp_path: Path) -> None:
    path = table(tmp_path, b"\r\na,b\r\n1,2\r\n\r\n3,4")
    assert [line_of(path, row) for row in range(2)] == [3, 5]
