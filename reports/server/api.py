"""What pages ask of a model: explanations and synthesised images, answered with pictures as data URLs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from microtome.reports.server.actions import Actions, Picture, Stop, Subject
from microtome.reports.server.jobs import Jobs
from microtome.reports.server.questions import (
    READING,
    Limits,
    RefusedError,
    Work,
    answered,
    answering,
    data_url,
    whole_number,
)
from microtome.reports.server.uploads import BODY_BYTES, TOO_LARGE, UPLOAD_BYTES, asked_image, pixels_of

_MOST_METHODS = 20


class Api:
    """The endpoints of one run; a question has `reading` seconds to come in. more: what else `hello` says."""

    def __init__(
        self,
        actions: Actions,
        jobs: Jobs,
        reading: float = READING,
        more: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._actions, self._jobs, self._more = actions, jobs, more
        self._limits = Limits(BODY_BYTES, TOO_LARGE, "the model could not be explained", reading)

    def routes(self) -> list[Route]:
        """GET hello; POST methods, explain, visualise."""
        posts = {"methods": self._methods, "explain": self._explain, "visualise": self._visualise}
        routes = [
            Route(f"/api/{name}", answering(self._jobs, self._limits, work), methods=["POST"])
            for name, work in posts.items()
        ]
        return [Route("/api/hello", self._hello, methods=["GET"]), *routes]

    async def _hello(self, request: Request) -> Response:
        return JSONResponse(answered({"upload_bytes": UPLOAD_BYTES, **self._actions.hello(), **self._more()}))

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
        subject, image = _subject(asked), asked_image(asked)
        return lambda stop: _shown(self._actions.explain(subject, methods, pixels_of(image), stop))

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


def _shown(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Pictures as JSON values."""
    return {"pictures": [{"caption": one.caption, "src": data_url(one.pixels)} for one in pictures]}
