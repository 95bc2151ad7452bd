"""Memory that one shard has used, kept for the next one.

glibc gives large blocks back to the system as soon as they are free, and Dask has its workers give back whatever is
beyond 64 KiB. The same pages are then faulted in again for every shard, which takes almost half of the time of
thresholds and tally, and a fifth of that of a capture whose slowest part is writing.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

KEPT_BYTES = 2**28
"""Free memory at the end of the heap beyond which it is given back."""
LARGEST_KEPT = 2**25
"""Larger blocks are taken from the system and given back each time; glibc allows no more."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of `mallopt` in glibc's malloc.h."""


def keep_memory() -> None:
    """Have malloc keep what a shard has used. Where the system's malloc cannot be told so, nothing happens."""
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
