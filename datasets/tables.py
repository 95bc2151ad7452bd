"""Tables that come with datasets: CSV files of up to millions of lines, read in a second and kept compactly."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from microtome.datasets.listing import read_bytes
from microtome.storage.errors import UsageError


def is_there(path: Path) -> bool:
    """Whether there is a file that a dataset may lack.

    Raises UsageError for something else under its name, which is no absence: a folder, or a link that leads nowhere.
    """
    if os.path.isfile(path):
        return True
    if os.path.lexists(path):
        found = "a folder" if os.path.isdir(path) else "a link to no file" if path.is_symlink() else "no plain file"
        raise UsageError(f"{path} is {found}; expected a file that can be read, or nothing of that name")
    return False


def read_csv(path: Path, required: Sequence[str], *, delimiter: str = ",") -> pa.Table:
    """Every column of a CSV file with a header as text (missing cells are empty), names stripped.

    Raises UsageError, naming the file, where it is missing, is not UTF-8, lacks one of the `required` columns, names
    a column twice, or has a line with another number of cells.
    """
    if not path.is_file():
        raise UsageError(f"{path} is missing; expected a table with the columns {','.join(required)}")
    if not path.stat().st_size:
        raise UsageError(f"{path} is empty; expected a table with the columns {','.join(required)}")
    names, header_bytes = _header(path, delimiter)
    missing = [name for name in required if name not in names]
    if missing:
        raise UsageError(
            f"{path}, line 1: no column {', '.join(missing)}; expected {','.join(required)}, found {','.join(names)}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{path}, line 1: two columns are called {twice[0]}")
    if path.stat().st_size == header_bytes:  # without a line's end Arrow finds no header to leave out
        return pa.table({name: pa.array([], pa.string()) for name in names})
    try:
        return csv.read_csv(
            path,
            # One thread needs half the work of several here, less memory, and says which row is bad.
            read_options=csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def first_repeated(column: pa.ChunkedArray) -> str | None:
    """A text that stands in a column of texts more than once, or None; 8 bytes a row are needed meanwhile."""
    hashes = np.empty(len(column), np.int64)
    start = 0
    for chunk in column.chunks:
        hashes[start : start + len(chunk)] = np.fromiter(map(hash, chunk.to_pylist()), np.int64, len(chunk))
        start += len(chunk)
    hashes.sort()
    if not (hashes[1:] == hashes[:-1]).any():
        return None
    counts = pc.value_counts(column)
    repeated = counts.field(0).filter(pc.greater(counts.field(1), 1))
    return str(repeated[0]) if len(repeated) else None


def line_of(path: Path, row: int) -> int:
    """The line, from 1, of data row `row`, from 0, of a CSV file with a header; empty lines are no rows."""
    with path.open("rb") as file:
        filled = (number for number, line in enumerate(file, 1) if line.strip(b"\r\n"))
        return next(itertools.islice(filled, row + 1, None), row + 2)


def _header(path: Path, delimiter: str) -> tuple[list[str], int]:
    """The names in the first line, and how many bytes it has."""
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 20)
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}, line 1: not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return [cell.strip().strip('"') for cell in text.rstrip("\r\n").split(delimiter)], len(line)


def read_text(path: Path) -> str:
    """A text file of UTF-8, with or without a byte order mark. Raises UsageError, with file and line."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: not UTF-8 text; save {path.name} as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UsageError(f"{path}, line {line}: not UTF-8 text; save {path.name} as UTF-8")
    return text
