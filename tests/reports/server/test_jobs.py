"""One job at a time; those who leave are not worked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from microtome.reports.server.actions import AbandonedError, Stop
from microtome.reports.server.jobs import BusyError, Jobs

T = TypeVar("T")


def ready(work: Callable[[Stop], T]) -> Callable[[], Awaitable[Callable[[Stop], T]]]:
    async def prepare() -> Callable[[Stop], T]:
        return work

    return prepare


async def stays() -> bool:
    return False


async def leaves() -> bool:
    return True


def test_answers_and_errors_come_back() -> None:
    async def ask() -> None:
        jobs = Jobs()
        assert await jobs.run(ready(lambda stop: 7), stays) == 7
        with pytest.raises(ZeroDivisionError):
            await jobs.run(ready(lambda stop: 1 // 0), stays)
        jobs.end()
        with pytest.raises(BusyError):
            await jobs.run(ready(lambda stop: 7), stays)

    asyncio.run(ask())


def test_who_leaves_stops_the_job_at_work_and_is_not_begun_for() -> None:
    begun, noticed, touched = threading.Event(), threading.Event(), threading.Event()

    def long(stop: Stop) -> None:
        begun.set()
        while not stop():
            pass
        noticed.set()

    async def ask() -> None:
        jobs = Jobs()
        first = asyncio.ensure_future(jobs.run(ready(long), leaves))
        second = asyncio.ensure_future(jobs.run(ready(lambda stop: touched.set()), leaves))
        for one in (first, second):
            with pytest.raises(AbandonedError):
                await one
        assert await jobs.run(ready(lambda stop: "free again"), stays) == "free again"
        jobs.end()

    asyncio.run(ask())
    assert begun.is_set() == noticed.is_set()
    assert not touched.is_set()


def test_jobs_do_not_overlap() -> None:
    inside = []

    def work(stop: Stop) -> int:
        inside.append(1)
        count = len(inside)
        inside.pop()
        return count

    async def ask() -> list[int]:
        jobs = Jobs(waiting=20)
        found = await asyncio.gather(*(jobs.run(ready(work), stays) for _ in range(20)))
        jobs.end()
        return found

    assert asyncio.run(ask()) == [1] * 20


def test_a_place_is_taken_before_anything_is_prepared_and_given_back_when_that_fails() -> None:
    async def fails() -> Callable[[Stop], int]:
        raise ZeroDivisionError

    async def never() -> Callable[[Stop], int]:
        await asyncio.Event().wait()
        raise AssertionError

    async def not_called() -> Callable[[Stop], int]:
        raise AssertionError

    async def ask() -> None:
        jobs = Jobs(waiting=1)
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                await jobs.run(fails, stays)
        slow = [asyncio.ensure_future(jobs.run(never, stays)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await jobs.run(not_called, stays)
        for one in slow:
            one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one
        assert await asyncio.gather(*(jobs.run(ready(lambda stop: 7), stays) for _ in range(2))) == [7, 7]
        jobs.end()

    asyncio.run(ask())


def test_what_is_prepared_when_the_server_has_ended_is_not_waited_for() -> None:
    async def ask() -> None:
        jobs = Jobs()

        async def prepare() -> Callable[[Stop], int]:
            jobs.end()
            return lambda stop: 7

        with pytest.raises(AbandonedError):
            await jobs.run(prepare, stays)

    asyncio.run(ask())


def test_a_server_that_is_told_to_end_stops_what_is_at_work_and_what_waits() -> None:
    ending, begun = threading.Event(), threading.Event()

    def long(stop: Stop) -> None:
        begun.set()
        while not stop():
            pass
        raise AbandonedError

    async def ask() -> None:
        jobs = Jobs(ending=ending)
        asked = [asyncio.ensure_future(jobs.run(ready(long), stays)) for _ in range(3)]
        while not begun.is_set():
            await asyncio.sleep(0)
        ending.set()
        for one in asked:
            with pytest.raises(AbandonedError):
                await one
        jobs.end()

    asyncio.run(ask())
