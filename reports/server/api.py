"""What pages ask a server for: POST with JSON, answered with pictures as data URLs, or with {"error": a sentence}."""

from __future__ import annotations

import base64
import binascii
import io
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

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

T = TypeVar("T")


class _RefusedError(Exception):
    """A request that cannot be answered; `code` is that of HTTP."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Api:
    """The endpoints of one run."""

    def __init__(self, actions: Actions, jobs: Jobs) -> None:
        self._actions, self._jobs = actions, jobs

    def routes(self) -> list[Route]:
        """GET hello; POST methods, explain, visualise."""
        posts = {"methods": self._methods, "explain": self._explain, "visualise": self._visualise}
        routes = [Route(f"/api/{name}", self._answering(work), methods=["POST"]) for name, work in posts.items()]
        return [Route("/api/hello", self._hello, methods=["GET"]), *routes]

    async def _hello(self, request: Request) -> Response:
        return JSONResponse({"schema_version": 1, "upload_bytes": UPLOAD_BYTES, **self._actions.hello()})

    def _answering(self, work: Callable[[dict[str, Any], Stop], dict[str, Any]]) -> Callable[[Request], Any]:
        """An endpoint that has `work` done for the JSON of a request."""

        async def answer(request: Request) -> Response:
            try:
                asked = await _body(request)
                found = await self._jobs.run(lambda stop: work(asked, stop), request.is_disconnected)
                return JSONResponse({"schema_version": 1, **found})
            except _RefusedError as error:
                return _error(error.code, str(error))
            except BusyError:
                return _error(503, "the server is busy: as many questions wait as may; ask again in a while")
            except AbandonedError:
                return _error(499, "nobody waited for the answer")
            except MicrotomeError as error:
                return _error(409 if isinstance(error, RunMismatchError) else 400, str(error))
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                return _error(500, f"the model could not be explained ({type(error).__name__}: {error})")

        return answer

    def _methods(self, asked: dict[str, Any], stop: Stop) -> dict[str, Any]:
        found = self._actions.methods(_subject(asked), stop)
        return {"methods": list(found.names), "refused": [{"name": name, "why": why} for name, why in found.refused]}

    def _explain(self, asked: dict[str, Any], stop: Stop) -> dict[str, Any]:
        methods = asked.get("methods")
        if not isinstance(methods, list) or not all(isinstance(name, str) for name in methods):
            raise _RefusedError(400, "methods is a list of names, such as grad-cam")
        if not 1 <= len(methods) <= _MOST_METHODS:
            raise _RefusedError(400, f"name from 1 to {_MOST_METHODS} methods")
        return _shown(self._actions.explain(_subject(asked), methods, _image(asked), stop))

    def _visualise(self, asked: dict[str, Any], stop: Stop) -> dict[str, Any]:
        seed = _number(asked, "seed") if "seed" in asked else 0
        return _shown(self._actions.visualise(_subject(asked), seed, stop))


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


def _image(asked: dict[str, Any]) -> int | NDArray[np.uint8]:
    """The sample that is asked about, or the image that was sent."""
    if ("image" in asked) == ("sample" in asked):
        raise _RefusedError(400, "give a sample of the run, or an image")
    if "sample" in asked:
        return _number(asked, "sample")
    try:
        content = base64.b64decode(asked["image"], validate=True)
    except (binascii.Error, TypeError, ValueError):
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
    return JSONResponse({"error": text[:1].upper() + text[1:] + ("" if text.endswith((".", "!")) else ".")}, code)
