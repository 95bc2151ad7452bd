"""Rows of Arrow files by their number, straight from memory maps: nothing is held, and any thread may read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from microtome.storage.errors import UsageError


class ArrowRows:
    """The rows of files in Arrow's stream format, one after another.

    Raises UsageError at once where a file cannot be used. Can be pickled; the files are then opened again.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._files = tuple(files)
        self._opened: tuple[list[pa.RecordBatch], NDArray[np.int64]] | None = None
        self._batches()

    def __len__(self) -> int:
        return int(self._batches()[1][-1])

    def __getstate__(self) -> dict[str, object]:
        return {"_files": self._files, "_opened": None}

    def cell(self, row: int, column: str) -> object:
        """One value as a Python object, None where there is none."""
        batches, starts = self._batches()
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return batches[number].column(column)[row - int(starts[number])].as_py()

    def integers(self, column: str) -> NDArray[np.int64]:
        """A whole column of integers; -1 where there is none."""
        parts = [batch.column(column).cast(pa.int64()).fill_null(-1).to_numpy() for batch in self._batches()[0]]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def missing(self, column: str) -> NDArray[np.bool_]:
        """For every row whether it has no value in `column`."""
        parts = [batch.column(column).is_null().to_numpy(zero_copy_only=False) for batch in self._batches()[0]]
        return np.concatenate([np.zeros(0, np.bool_), *parts])

    def _batches(self) -> tuple[list[pa.RecordBatch], NDArray[np.int64]]:
        """Every batch of rows, and the row that each begins with; last the number of rows. Two threads may do this."""
        if self._opened is None:
            batches = [batch for file in self._files for batch in _read(file)]
            starts = np.zeros(len(batches) + 1, np.int64)
            np.cumsum([batch.num_rows for batch in batches], out=starts[1:])
            self._opened = batches, starts
        return self._opened


def _read(file: str) -> list[pa.RecordBatch]:
    try:
        with pa.ipc.open_stream(pa.memory_map(file)) as reader:
            return [batch for batch in reader if batch.num_rows]
    except (pa.ArrowInvalid, OSError) as error:
        text = " ".join(str(error).split())[:120]
        raise UsageError(f"{file} cannot be read as a file of Arrow's stream format ({text}); save it again") from error
