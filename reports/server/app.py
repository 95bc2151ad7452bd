"""The application: pages, live actions and the guard before both."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from microtome.reports.server.actions import Actions
from microtome.reports.server.api import Api
from microtome.reports.server.exploring import Explorer, ExplorerApi
from microtome.reports.server.generation import GenerationApi, GeneratorActions
from microtome.reports.server.guard import Guard
from microtome.reports.server.jobs import WAITING, Jobs
from microtome.reports.server.pages import Pages
from microtome.reports.server.questions import READING
from microtome.storage.places import Place


def create_app(
    place: Place,
    actions: Actions,
    *,
    host: str,
    port: int,
    token: str | None = None,
    waiting: int = WAITING,
    reading: float = READING,
    generator: GeneratorActions | None = None,
    explorer: Explorer | None = None,
    ending: threading.Event | None = None,
) -> ASGIApp:
    """Serve the report of the run in `place`, at `host` and `port`, to whoever shows `token` (None: everybody).

    waiting: questions to the model that may come in or wait beside the one at work; reading: seconds that one may take
    to come in; generator: live actions on the run's generator, which have threads of their own, where it has one;
    explorer: questions about the run, of which queries have a thread of their own; ending: set once the server is told
    to end, so that it does not wait for what is at work.
    """
    ending = ending or threading.Event()
    model = Jobs(waiting, ending)
    others: list[Jobs] = []
    if explorer is None:
        routes = Api(actions, model, reading).routes()
    else:
        others.append(tables := Jobs(waiting, ending))
        asked = ExplorerApi(explorer, tables, model, reading)
        routes = [*Api(actions, model, reading, asked.about).routes(), *asked.routes()]
    if generator is not None:
        others += [pictures := Jobs(waiting, ending), areas := Jobs(waiting, ending)]
        routes += GenerationApi(generator, pictures, areas, reading).routes()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for one in (model, *others):
            one.end()

    async def no_such(request: Request) -> JSONResponse:
        return JSONResponse({"error": "There is nothing to ask for here."}, 404)

    routes += [
        Route("/api/{rest:path}", no_such, methods=["GET", "POST"]),
        Route("/{rest:path}", Pages(place).answer, methods=["GET"]),
    ]
    return Guard(Starlette(routes=routes, lifespan=lifespan), host=host, port=port, token=token)
