"""Work for the model: one job at a time, few waiting, none for those who have left."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from microtome.reports.server.actions import AbandonedError, Stop

T = TypeVar("T")

WAITING = 8
_LOOKS = 0.2
"""Seconds between two looks at whether somebody still waits."""

_LAST_PASS = 10.0
"""Seconds that the job at work gets to notice that the server ends."""


class BusyError(Exception):
    """As many jobs are prepared, wait or are done as may."""


class Jobs:
    """A thread that does jobs one after the other; at most `waiting` are prepared or wait beside the one at work.

    ending: once it is set, the job at work is told to stop, and none is begun any more.
    """

    def __init__(self, waiting: int = WAITING, ending: threading.Event | None = None) -> None:
        self._most = waiting + 1
        self._open = 0
        self._lock = threading.Lock()
        self._ended = ending or threading.Event()
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[Stop], Any], Stop] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    async def run(
        self, prepare: Callable[[], Awaitable[Callable[[Stop], T]]], has_left: Callable[[], Awaitable[bool]]
    ) -> T:
        """What the work that `prepare` gives gives; the work is told to stop when who asked has left.

        A place is taken before anything is prepared, so that no more is read than may wait; it is given back when the
        work has ended, or when there is none.

        Raises BusyError where no place is free (nothing is prepared then), AbandonedError where who asked has left or
        the server has ended meanwhile, and whatever the preparation and the work raise.
        """
        self._enter()
        try:
            work = await prepare()
            if self._ended.is_set():
                raise AbandonedError
        except BaseException:
            self._leave()
            raise
        return await self._done(work, has_left)

    async def _done(self, work: Callable[[Stop], T], has_left: Callable[[], Awaitable[bool]]) -> T:
        stop = threading.Event()
        future: Future[T] = Future()
        self._queue.put((future, work, lambda: stop.is_set() or self._ended.is_set()))
        waiting = asyncio.ensure_future(asyncio.wrap_future(future))
        try:
            while not (await asyncio.wait({waiting}, timeout=_LOOKS))[0]:
                if await has_left():
                    raise AbandonedError
            return waiting.result()
        finally:
            stop.set()
            if not waiting.done():
                waiting.cancel()

    def _enter(self) -> None:
        with self._lock:
            if self._open >= self._most or self._ended.is_set():
                raise BusyError
            self._open += 1

    def _leave(self) -> None:
        with self._lock:
            self._open -= 1

    def end(self) -> None:
        """Tell the job at work to stop, drop those that wait, and let the thread end."""
        self._ended.set()
        self._queue.put(None)
        self._thread.join(_LAST_PASS)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            future, work, stop = item
            try:
                self._do(future, work, stop)
            finally:
                self._leave()

    @staticmethod
    def _do(future: Future[Any], work: Callable[[Stop], Any], stop: Stop) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            if stop():
                raise AbandonedError
            answer = work(stop)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(answer)
