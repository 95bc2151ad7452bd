"""How a question of a page is read and answered: POST with JSON, answered with JSON, or with {"error": a sentence}."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from microtome.reports.png import png_bytes
from microtome.reports.server.actions import AbandonedError, Stop
from microtome.reports.server.jobs import BusyError, Jobs
from microtome.storage.errors import MicrotomeError, RunMismatchError

READING = 30.0
"""Seconds that a question may take to come in, since it holds a place meanwhile."""

_LARGEST = 2**31 - 1

Work: TypeAlias = Callable[[Stop], dict[str, Any]]
"""What the model's thread does for a question; it gives JSON values."""


class RefusedError(Exception):
    """A request that cannot be answered; `code` is that of HTTP."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Limits:
    """Of questions. most_bytes: how long one may be, else it is refused as `too_large`; reading: seconds that it may
    take to come in; failed: what an unforeseen error has kept from being done."""

    most_bytes: int
    too_large: str
    failed: str
    reading: float = READING


class _UnreadAnswer(Response):
    """An answer to a question that is not read: what comes in of it after the answer is thrown away, for `seconds` at
    most, since a client that still sends when the connection is closed never sees the answer."""

    def __init__(self, answer: JSONResponse, seconds: float) -> None:
        super().__init__(answer.body, answer.status_code, media_type=answer.media_type)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b""})


def answering(jobs: Jobs, limits: Limits, work_for: Callable[[dict[str, Any]], Work]) -> Callable[[Request], Any]:
    """An endpoint that has the work done by `jobs` that `work_for` makes of the JSON of a request."""

    async def answer(request: Request) -> Response:
        async def prepare() -> Work:
            return work_for(await asked_of(request, limits))

        try:
            return JSONResponse(answered(await jobs.run(prepare, request.is_disconnected)))
        except Exception as error:
            return refusal(error, limits)

    return answer


def answered(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, as an answer has it."""
    return {"schema_version": 1, **found}


def refusal(error: BaseException, limits: Limits) -> Response:
    """The answer to a question whose work, or the way to it, has raised `error`: a code and a sentence."""
    if isinstance(error, RefusedError):
        return _error(error.code, str(error))
    if isinstance(error, BusyError):
        busy = "the server is busy: as many questions wait as may; ask again in a while"
        return _UnreadAnswer(_error(503, busy), limits.reading)
    if isinstance(error, (AbandonedError, ClientDisconnect)):
        return _error(499, "the question was taken back, or the server has ended")
    if isinstance(error, MicrotomeError):
        return _error(409 if isinstance(error, RunMismatchError) else 400, str(error))
    traceback.print_exception(error, file=sys.stderr)
    return _error(500, f"{limits.failed} ({type(error).__name__}: {error})")


async def asked_of(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object that a request sends. Raises RefusedError."""
    try:
        async with asyncio.timeout(limits.reading):
            return await _body(request, limits)
    except TimeoutError:
        raise RefusedError(408, f"the question did not come in within {limits.reading:g} s; ask again") from None


async def _body(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object of a request, read no further than it may be long."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "send JSON, with Content-Type: application/json")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limits.most_bytes:
        raise RefusedError(413, limits.too_large)
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > limits.most_bytes:
            raise RefusedError(413, limits.too_large)
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError):
        raise RefusedError(400, "what was sent is no JSON") from None
    if not isinstance(asked, dict):
        raise RefusedError(400, "what was sent is no JSON object")
    return asked


def whole_number(value: object, name: str, largest: int = _LARGEST) -> int:
    """`value`, which the question calls `name`. Raises RefusedError for what is no whole number from 0 to `largest`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise RefusedError(400, f"{name} is a whole number from 0 to {largest:,}")
    return value


def name_of(asked: Mapping[str, Any], what: str) -> str:
    """The text that a question gives as `what`. Raises RefusedError."""
    value = asked.get(what)
    if not isinstance(value, str):
        raise RefusedError(400, f"{what} is a name")
    return value


def at_most(pixels: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    """(H, W, 3) pixels, shrunk so that the longer side has at most `side` of them; None: as they are."""
    longer = max(pixels.shape[:2])
    if side is None or longer <= side:
        return pixels
    height, width = (max(round(size * side / longer), 1) for size in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def data_url(pixels: NDArray[np.uint8] | None) -> str:
    """A PNG of (H, W, 3) uint8 pixels as an address, "" for None."""
    if pixels is None:
        return ""
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode()


def _error(code: int, text: str) -> JSONResponse:
    sentence = text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
    # what is still coming in of a question that took too long is not waited for
    return JSONResponse({"error": sentence}, code, {"Connection": "close"} if code == 408 else None)
