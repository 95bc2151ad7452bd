"""Tables that come with datasets: CSV files of up to millions of lines, read in a second and kept compactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from microtome.storage.errors import UsageError


def read_csv(path: Path, required: Sequence[str], *, delimiter: str = ",") -> pa.Table:
    """Every column of a CSV file with a header as text (missing cells are empty), names stripped.

    Raises UsageError, naming the file, where it is missing, is not UTF-8, lacks one of the `required` columns, names
    a column twice, or has a line with another number of cells.
    """
    if not path.is_file():
        raise UsageError(f"{path} is missing; expected a table with the columns {','.join(required)}")
    if not path.stat().st_size:
        raise UsageError(f"{path} is empty; expected a table with the columns {','.join(required)}")
    names = _header(path, delimiter)
    missing = [name for name in required if name not in names]
    if missing:
        raise UsageError(
            f"{path}, line 1: no column {', '.join(missing)}; expected {','.join(required)}, found {','.join(names)}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{path}, line 1: two columns are called {twice[0]}")
    try:
        return csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _header(path: Path, delimiter: str) -> list[str]:
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}, line 1: not UTF-8 text; save it as UTF-8") from error
    return [cell.strip().strip('"') for cell in text.rstrip("\r\n").split(delimiter)]
