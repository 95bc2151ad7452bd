"""Writing the map page's files: several threads encode and write, and little waits in memory meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote

from microtome.reports.maps.encode import GZIP_LEVEL, data_file
from microtome.reports.source import Progress

FOLDER = "map"

_WAITING = 2
"""Files for each thread that may wait for it."""


class MapFiles:
    """Writes files below the report folder `root`, by addresses as pages have them: relative, percent-encoded.

    Contents are functions, called in one of `workers` threads. An error of one is raised by what comes after it.
    Whoever reuses what the functions read calls `settle` first.
    """

    def __init__(self, root: Path, workers: int, progress: Progress | None = None, expected: int = 0) -> None:
        self._root = root
        self._progress = progress
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="map")
        self._waiting: deque[Future[int]] = deque()
        self._most = _WAITING * workers
        self._written = self._bytes = 0
        self.expected = expected

    @property
    def size(self) -> int:
        """Bytes of the files that are written."""
        return self._bytes

    def data(self, address: str, content: Callable[[], bytes], level: int = GZIP_LEVEL) -> str:
        """Write a data file, compressed at a level of gzip; returns its address."""
        name = address.removesuffix(".js")
        return self.raw(address, lambda: data_file(name, content(), level).encode("ascii"))

    def raw(self, address: str, content: Callable[[], bytes]) -> str:
        """Write a file as it is; returns its address."""
        while len(self._waiting) >= self._most:
            self._settle_one()
        self._waiting.append(self._pool.submit(self._write, self._root / unquote(address), content))
        return address

    def settle(self) -> None:
        """Wait until everything is written."""
        while self._waiting:
            self._settle_one()

    def _settle_one(self) -> None:
        self._bytes += self._waiting.popleft().result()
        self._written += 1
        if self._progress is not None:
            self._progress(self._written, max(self.expected, self._written))

    @staticmethod
    def _write(path: Path, content: Callable[[], bytes]) -> int:
        made = content()
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.write_bytes(made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.settle()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)


def picture_address(folder: str) -> str:
    """Address of the picture of the map of the layer in `folder`."""
    return f"maps/{quote(folder)}.png"


def layer_address(folder: str, name: str) -> str:
    """Address of a file of the layer in `folder`; name: as it stands in the address."""
    return f"{FOLDER}/{quote(folder)}/{name}"
