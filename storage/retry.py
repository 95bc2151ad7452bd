"""Patience with places far away: what fails in passing is tried again, with growing pauses, until patience runs out.

Only the pauses live here; what counts as passing is said by the caller (`storage/buckets.py`). Everything that is
retried can be done twice without harm: whole objects are written, read or deleted. `listen` tells of each retry.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from microtome.storage.errors import PlaceUnreachableError, UsageError

PATIENCE = 600.0
FIRST_PATIENCE = 20.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 20.0

T = TypeVar("T")

Listener: TypeAlias = Callable[[str, str, int, float], None]
"""Called with (what was tried, the error, number of the attempt that failed, seconds until the next)."""

Passing: TypeAlias = Callable[[Exception], str | None]
"""What a passing error says in a few words; None for one that will not pass. May raise a clearer one instead."""

_LISTENERS: list[Listener] = []
_LOCK = threading.Lock()
_JITTER = random.Random()  # its own, so that nobody's seed is touched


def listen(listener: Listener) -> Callable[[], None]:
    """Have every retry of this process told to `listener`, from whatever thread; returns what ends that."""
    with _LOCK:
        _LISTENERS.append(listener)

    def unsubscribe() -> None:
        with _LOCK:
            if listener in _LISTENERS:
                _LISTENERS.remove(listener)

    return unsubscribe


def patience() -> float:
    """Seconds to go on trying: MICROTOME_PATIENCE, or 600."""
    given = os.environ.get("MICROTOME_PATIENCE", "")
    try:
        return max(0.0, float(given)) if given else PATIENCE
    except ValueError as error:
        raise UsageError(f"MICROTOME_PATIENCE is {given!r}; give seconds, such as 600") from error


def call(what: str, do: Callable[[], T], passing: Passing, *, at_most: float | None = None) -> T:
    """What `do()` returns, tried again while it fails with an error that passes.

    what: what is being tried, for messages ("read s3://bucket/run.json"); at_most: bounds the patience, in seconds.
    Raises PlaceUnreachableError after that, and what `do` raises where it will not pass.
    """
    tries = _Tries(what, passing, at_most)
    while True:
        try:
            return do()
        except Exception as error:
            pause = tries.pause(error)
        time.sleep(pause)


async def call_async(what: str, do: Callable[[], Awaitable[T]], passing: Passing, *, at_most: float | None = None) -> T:
    """The same for a coroutine, made anew by `do` for every attempt."""
    tries = _Tries(what, passing, at_most)
    while True:
        try:
            return await do()
        except Exception as error:
            pause = tries.pause(error)
        await asyncio.sleep(pause)


class _Tries:
    """The failed attempts of one operation."""

    def __init__(self, what: str, passing: Passing, at_most: float | None) -> None:
        self._what, self._passing, self._at_most = what, passing, at_most
        self._failed = 0
        self._since = 0.0

    def pause(self, error: Exception) -> float:
        """How long to wait after `error`; raises where there is no point in going on."""
        said = self._passing(error)
        if said is None:
            raise error
        now = time.monotonic()
        self._failed += 1
        self._since = self._since or now
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failed - 1, 16))
        pause = longest * _JITTER.uniform(0.5, 1.0)
        allowed = patience() if self._at_most is None else min(patience(), self._at_most)
        if now - self._since + pause > allowed:
            raise PlaceUnreachableError(
                f"could not {self._what} in {self._failed} attempts over {now - self._since:.0f} s ({said}); "
                "what is committed is safe: run the same command again when the bucket can be reached"
            ) from error
        with _LOCK:
            listeners = list(_LISTENERS)
        for listener in listeners:
            listener(self._what, said, self._failed, pause)
        return pause
