"""What pages ask of a model: explanations and synthesised images, answered with pictures as data URLs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from microtome.datasets.images import decode_image, image_size
from microtome.reports.server.actions import Actions, Picture, Stop, Subject
from microtome.reports.server.jobs import Jobs
from microtome.reports.server.questions import (
    READING,
    Limits,
    RefusedError,
    Work,
    answering,
    data_url,
    whole_number,
)
from microtome.storage.errors import SampleError, UsageError

UPLOAD_BYTES = 10_000_000
UPLOAD_PIXELS = 50_000_000
_BODY_BYTES = UPLOAD_BYTES * 4 // 3 + 100_000
_TOO_LARGE = f"an image may have at most {UPLOAD_BYTES // 1_000_000} MB"
_MOST_METHODS = 20
_FORMATS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")


class Api:
    """The endpoints of one run; a question has `reading` seconds to come in."""

    def __init__(self, actions: Actions, jobs: Jobs, reading: float = READING) -> None:
        self._actions, self._jobs = actions, jobs
        self._limits = Limits(_BODY_BYTES, _TOO_LARGE, "the model could not be explained", reading)

    def routes(self) -> list[Route]:
        """GET hello; POST methods, explain, visualise."""
        posts = {"methods": self._methods, "explain": self._explain, "visualise": self._visualise}
        routes = [
            Route(f"/api/{name}", answering(self._jobs, self._limits, work), methods=["POST"])
            for name, work in posts.items()
        ]
        return [Route("/api/hello", self._hello, methods=["GET"]), *routes]

    async def _hello(self, request: Request) -> Response:
        return JSONResponse({"schema_version": 1, "upload_bytes": UPLOAD_BYTES, **self._actions.hello()})

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
            raise RefusedError(400, "methods is a list of names, such as grad-cam")
        if not 1 <= len(methods) <= _MOST_METHODS:
            raise RefusedError(400, f"name from 1 to {_MOST_METHODS} methods")
        subject, image = _subject(asked), _image(asked)
        return lambda stop: _shown(
            self._actions.explain(subject, methods, image if isinstance(image, int) else _decoded(image), stop)
        )

    def _visualise(self, asked: dict[str, Any]) -> Work:
        subject, seed = _subject(asked), whole_number(asked.get("seed"), "seed") if "seed" in asked else 0
        return lambda stop: _shown(self._actions.visualise(subject, seed, stop))


def _subject(asked: dict[str, Any]) -> Subject:
    if "class" in asked:
        if "unit" in asked or "layer" in asked:
            raise RefusedError(400, "give a class, or a layer and a unit of it, not both")
        return Subject(class_number=whole_number(asked.get("class"), "class"))
    if not isinstance(asked.get("layer"), str):
        raise RefusedError(400, "give a layer and a unit of it, or a class")
    return Subject(layer=asked["layer"], unit=whole_number(asked.get("unit"), "unit"))


def _image(asked: dict[str, Any]) -> int | str:
    """The sample that is asked about, or the image that was sent, in base64."""
    if ("image" in asked) == ("sample" in asked):
        raise RefusedError(400, "give a sample of the run, or an image")
    if "sample" in asked:
        return whole_number(asked.get("sample"), "sample")
    if not isinstance(asked["image"], str):
        raise RefusedError(400, "the image is not base64")
    return asked["image"]


def _decoded(image: str) -> NDArray[np.uint8]:
    """The pixels of an image that was sent."""
    try:
        content = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(400, "the image is not base64") from None
    if len(content) > UPLOAD_BYTES:
        raise RefusedError(413, _TOO_LARGE)
    if not content.startswith(_FORMATS):
        raise RefusedError(400, "the file is no image that is understood here; send JPEG, PNG, WebP, GIF, BMP or TIFF")
    try:
        height, width = image_size(content, "the image")
        if height * width > UPLOAD_PIXELS:
            raise UsageError(f"the image has {height * width:,} pixels; at most {UPLOAD_PIXELS:,} are taken")
        return decode_image(content, "the image")
    except SampleError as error:
        raise RefusedError(400, f"the image cannot be read: {error.reason}") from None


def _shown(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Pictures as JSON values."""
    return {"pictures": [{"caption": one.caption, "src": data_url(one.pixels)} for one in pictures]}
