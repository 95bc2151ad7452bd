"""What pages ask a server for: POST with JSON, answered with pictures as data URLs, or with {"error": a sentence}."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from microtome.datasets.images import decode_image, image_size
from microtome.reports.server.actions import AbandonedError, Actions, Picture, Stop, Subject
from microtome.reports.server.jobs import BusyError, Jobs
from microtome.storage.errors import MicrotomeError, RunMismatchError, SampleError, UsageError

UPLOAD_BYTES = 10_000_000
UPLOAD_PIXELS = 50_000_000
_BODY_BYTES = UPLOAD_BYTES * 4 // 3 + 100_000
_MOST_METHODS = 20
_LARGEST = 2**31 - 1
_FORMATS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")

READING = 30.0
"""Seconds that a question may take to come in, since it holds a place meanwhile."""

Work: TypeAlias = Callable[[Stop], dict[str, Any]]
"""What the model's thread does for a question; it gives JSON values."""


class _RefusedError(Exception):
    """A request that cannot be answered; `code` is that of HTTP."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


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


class Api:
    """The endpoints of one run; a question has `reading` seconds to come in."""

    def __init__(self, actions: Actions, jobs: Jobs, reading: float = READING) -> None:
        self._actions, self._jobs, self._reading = actions, jobs, reading

    def routes(self) -> list[Route]:
        """GET hello; POST methods, explain, visualise."""
        posts = {"methods": self._methods, "explain": self._explain, "visualise": self._visualise}
        routes = [Route(f"/api/{name}", self._answering(work), methods=["POST"]) for name, work in posts.items()]
        return [Route("/api/hello", self._hello, methods=["GET"]), *routes]

    async def _hello(self, request: Request) -> Response:
        return JSONResponse({"schema_version": 1, "upload_bytes": UPLOAD_BYTES, **self._actions.hello()})

    def _answering(self, work_for: Callable[[dict[str, Any]], Work]) -> Callable[[Request], Any]:
        """An endpoint that has the work done that `work_for` makes of the JSON of a request."""

        async def answer(request: Request) -> Response:
            async def prepare() -> Work:
                return work_for(await self._asked(request))

            try:
                found = await self._jobs.run(prepare, request.is_disconnected)
                return JSONResponse({"schema_version": 1, **found})
            except _RefusedError as error:
                return _error(error.code, str(error))
            except BusyError:
                busy = "the server is busy: as many questions wait as may; ask again in a while"
                return _UnreadAnswer(_error(503, busy), self._reading)
            except (AbandonedError, ClientDisconnect):
                return _error(499, "nobody waited for the answer")
            except MicrotomeError as error:
                return _error(409 if isinstance(error, RunMismatchError) else 400, str(error))
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                return _error(500, f"the model could not be explained ({type(error).__name__}: {error})")

        return answer

    async def _asked(self, request: Request) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._reading):
                return await _body(request)
        except TimeoutError:
            raise _RefusedError(408, f"the question did not come in within {self._reading:g} s; ask again") from None

    def _methods(self, asked: dict[str, Any]) -> Work:
        subject = _subject(asked)

        def work(stop: Stop) -> dict[str, Any]:
            found = self._actions.methods(subject, stop)
            refused = [{"name": name, "why": why} for name, why in found.refused]
            return {"methods": list(found.names), "refused": refused}

        return work

    def _explain(self, asked: dict[str, Any]) -> Work:
        methods = asked.get("methods")
        if not isinstance(methods, list) or not all(isinstance(name, str) for name in methods):
            raise _RefusedError(400, "methods is a list of names, such as grad-cam")
        if not 1 <= len(methods) <= _MOST_METHODS:
            raise _RefusedError(400, f"name from 1 to {_MOST_METHODS} methods")
        subject, image = _subject(asked), _image(asked)
        return lambda stop: _shown(
            self._actions.explain(subject, methods, image if isinstance(image, int) else _decoded(image), stop)
        )

    def _visualise(self, asked: dict[str, Any]) -> Work:
        subject, seed = _subject(asked), _number(asked, "seed") if "seed" in asked else 0
        return lambda stop: _shown(self._actions.visualise(subject, seed, stop))


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request, read no further than it may be long."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _RefusedError(415, "send JSON, with Content-Type: application/json")
    too_large = f"an image may have at most {UPLOAD_BYTES // 1_000_000} MB"
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > _BODY_BYTES:
        raise _RefusedError(413, too_large)
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _BODY_BYTES:
            raise _RefusedError(413, too_large)
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError):
        raise _RefusedError(400, "what was sent is no JSON") from None
    if not isinstance(asked, dict):
        raise _RefusedError(400, "what was sent is no JSON object")
    return asked


def _subject(asked: dict[str, Any]) -> Subject:
    if "class" in asked:
        if "unit" in asked or "layer" in asked:
            raise _RefusedError(400, "give a class, or a layer and a unit of it, not both")
        return Subject(class_number=_number(asked, "class"))
    if not isinstance(asked.get("layer"), str):
        raise _RefusedError(400, "give a layer and a unit of it, or a class")
    return Subject(layer=asked["layer"], unit=_number(asked, "unit"))


def _number(asked: dict[str, Any], name: str) -> int:
    value = asked.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise _RefusedError(400, f"{name} is a whole number from 0 on")
    return value


def _image(asked: dict[str, Any]) -> int | str:
    """The sample that is asked about, or the image that was sent, in base64."""
    if ("image" in asked) == ("sample" in asked):
        raise _RefusedError(400, "give a sample of the run, or an image")
    if "sample" in asked:
        return _number(asked, "sample")
    if not isinstance(asked["image"], str):
        raise _RefusedError(400, "the image is not base64")
    return asked["image"]


def _decoded(image: str) -> NDArray[np.uint8]:
    """The pixels of an image that was sent."""
    try:
        content = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        raise _RefusedError(400, "the image is not base64") from None
    if len(content) > UPLOAD_BYTES:
        raise _RefusedError(413, f"an image may have at most {UPLOAD_BYTES // 1_000_000} MB")
    if not content.startswith(_FORMATS):
        raise _RefusedError(400, "the file is no image that is understood here; send JPEG, PNG, WebP, GIF, BMP or TIFF")
    try:
        height, width = image_size(content, "the image")
        if height * width > UPLOAD_PIXELS:
            raise UsageError(f"the image has {height * width:,} pixels; at most {UPLOAD_PIXELS:,} are taken")
        return decode_image(content, "the image")
    except SampleError as error:
        raise _RefusedError(400, f"the image cannot be read: {error.reason}") from None


def _shown(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Pictures as JSON values."""
    return {"pictures": [{"caption": one.caption, "src": _data_url(one.pixels)} for one in pictures]}


def _data_url(pixels: NDArray[np.uint8] | None) -> str:
    if pixels is None:
        return ""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


def _error(code: int, text: str) -> JSONResponse:
    sentence = text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
    # what is still coming in of a question that took too long is not waited for
    return JSONResponse({"error": sentence}, code, {"Connection": "close"} if code == 408 else None)
