"""Answers that take long: lines of JSON, how far the work is, and at the end what it has found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from microtome.reports.server.actions import Stop
from microtome.reports.server.jobs import Jobs
from microtome.reports.server.questions import Limits, answered, asked_of, refusal

LINES = "application/x-ndjson"

Told: TypeAlias = Callable[[int, int], None]
"""Told by the work how much of how much is done."""

LongWork: TypeAlias = Callable[[Stop, Told], dict[str, Any]]


def telling(jobs: Jobs, limits: Limits, work_for: Callable[[dict[str, Any]], LongWork]) -> Callable[[Request], Any]:
    """An endpoint like that of `answering`, whose answer comes in lines once the work has said how far it is.

    Each line is a JSON object: {"done": n, "of": m} any number of times, then the answer, or {"error": a sentence}.
    What fails or ends before the first of them is answered as by any other endpoint, with a code.
    """

    async def answer(request: Request) -> Response:
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[dict[str, int] | None] = asyncio.Queue()

        def told(done: int, of: int) -> None:
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(steps.put_nowait, {"done": done, "of": of})

        async def prepare() -> Callable[[Stop], dict[str, Any]]:
            work = work_for(await asked_of(request, limits))
            return lambda stop: work(stop, told)

        finding = asyncio.ensure_future(jobs.run(prepare, request.is_disconnected))
        finding.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            first = await steps.get()
        except BaseException:
            finding.cancel()
            raise
        if first is not None:
            return StreamingResponse(_lines(first, steps, finding, limits), media_type=LINES)
        try:
            return JSONResponse(answered(finding.result()))
        except Exception as error:
            return refusal(error, limits)

    return answer


async def _lines(
    first: dict[str, int],
    steps: asyncio.Queue[dict[str, int] | None],
    finding: asyncio.Future[dict[str, Any]],
    limits: Limits,
) -> AsyncIterator[bytes]:
    """The lines of an answer whose first step is known. Whoever leaves takes the question back."""
    step: dict[str, int] | None = first
    try:
        while step is not None:
            yield _line(step)
            step = await steps.get()
        try:
            yield _line(answered(finding.result()))
        except Exception as error:
            yield bytes(refusal(error, limits).body) + b"\n"
    finally:
        finding.cancel()


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode() + b"\n"
