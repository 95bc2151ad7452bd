"""Which seeds there are: those that faiss, which counts in int32 and is given the next one, can take."""

from __future__ import annotations

from microtome.storage.errors import UsageError

SEEDS = 2**31 - 1


def check_seed(seed: object, name: str = "seed") -> None:
    """Raise UsageError, calling it `name`, where `seed` is no whole number with 0 <= seed < `SEEDS`."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
        raise UsageError(f"{name} {seed}: give a whole number from 0 to {SEEDS - 1}")
