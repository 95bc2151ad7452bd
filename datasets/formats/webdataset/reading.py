"""Members of tars by offset and size, through a few open files."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from microtome.datasets.formats.webdataset.shards import Shards
from microtome.storage.errors import SampleError

MOST_OPEN = 64
_LARGEST = (1 << 31) - 4096


class _Descriptor:
    """An open file that is closed when nobody holds it any more: not under the feet of a thread that reads."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class TarFiles:
    """Reads pieces of tars; at most MOST_OPEN stay open. Safe among threads; can be pickled (files are opened anew)."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._open: OrderedDict[int, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, tar: int, offset: int, size: int, key: str, what: str) -> bytes:
        """`size` bytes at `offset` of tar number `tar`: the content of `what` of sample `key`.

        Raises SampleError where the tar ends before, is missing, or is not what it was when it was indexed.
        """
        missing = offset + size - self._shards.states[tar][0]
        if missing > 0:
            raise SampleError(key, f"{what}: truncated, the tar ends {missing} bytes before it does")
        if size > _LARGEST:
            raise SampleError(key, f"{what}: too large: {size:,} bytes")
        try:
            opened = self._descriptor(tar, key)
            content = os.pread(opened.number, size, offset)
        except FileNotFoundError:
            raise SampleError(key, f"{what}: the tar is missing") from None
        except OSError as error:
            raise SampleError(key, f"{what}: the tar cannot be read ({error.strerror})") from error
        if len(content) < size:
            raise SampleError(key, f"{what}: truncated, the tar has become shorter")
        return content

    def _descriptor(self, tar: int, key: str) -> _Descriptor:
        with self._lock:
            found = self._open.get(tar)
            if found is not None:
                self._open.move_to_end(tar)
                return found
        opened = _Descriptor(os.open(self._shards.path(tar), os.O_RDONLY | os.O_CLOEXEC))
        status = os.fstat(opened.number)
        if (status.st_size, status.st_mtime_ns) != self._shards.states[tar]:
            raise SampleError(key, "the tar has changed since the dataset was opened")
        with self._lock:
            self._open[tar] = opened
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return opened

    def __getstate__(self) -> Shards:
        return self._shards

    def __setstate__(self, shards: Shards) -> None:
        self.__init__(shards)  # type: ignore[misc]
