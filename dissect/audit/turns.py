"""Who goes first, and how many at once: what keeps shards in single file and memory flat."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(order=True)
class _Call:
    turn: int
    number: int
    function: Callable[[], Any] = field(compare=False)
    future: Future[Any] = field(compare=False)


class TurnPool:
    """A pool of threads where the waiting call of the lowest turn starts first, and the oldest among equals.

    With the shard's number as the turn, shards finish one after the other, not all at once: while one is being
    written the next is computed. A context manager; leaving it cancels what has not begun.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._waiting: list[_Call] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            abandoned, self._waiting = self._waiting, []
        for call in abandoned:
            call.future.cancel()
        self._pool.shutdown()

    def submit(self, turn: int, function: Callable[[], T]) -> Future[T]:
        """Have `function()` called by one of the threads when it is its turn."""
        future: Future[T] = Future()
        with self._lock:
            heapq.heappush(self._waiting, _Call(turn, next(self._numbers), function, future))
        self._pool.submit(self._take)
        return future

    def _take(self) -> None:
        with self._lock:
            if not self._waiting:
                return
            call = heapq.heappop(self._waiting)
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            call.future.set_result(call.function())
        except BaseException as error:
            call.future.set_exception(error)


class Slots:
    """Room for so many at once; the others wait."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)

    @contextmanager
    def one(self, look: Callable[[], object]) -> Iterator[None]:
        """Hold a slot while the context is open. `look()` is called now and then while waiting; raising, it ends it."""
        while not self._free.acquire(timeout=SECONDS_BETWEEN_LOOKS):
            look()
        try:
            yield
        finally:
            self._free.release()
