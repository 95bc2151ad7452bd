"""One job at a time; those who leave are not worked for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from microtome.reports.server.actions import AbandonedError, Stop
from microtome.reports.server.jobs import BusyError, Jobs


async def stays() -> bool:
    return False


async def leaves() -> bool:
    return True


def test_answers_and_errors_come_back() -> None:
    async def ask() -> None:
        jobs = Jobs()
        assert await jobs.run(lambda stop: 7, stays) == 7
        with pytest.raises(ZeroDivisionError):
            await jobs.run(lambda stop: 1 // 0, stays)
        jobs.end()
        with pytest.raises(BusyError):
            await jobs.run(lambda stop: 7, stays)

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
        first = asyncio.ensure_future(jobs.run(long, leaves))
        second = asyncio.ensure_future(jobs.run(lambda stop: touched.set(), leaves))
        for one in (first, second):
            with pytest.raises(AbandonedError):
                await one
        assert await jobs.run(lambda stop: "free again", stays) == "free again"
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
        found = await asyncio.gather(*(jobs.run(work, stays) for _ in range(20)))
        jobs.end()
        return found

    assert asyncio.run(ask()) == [1] * 20
