"""A run behind a real server, in a thread of the test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from microtome.reports.server.actions import Actions
from microtome.reports.server.app import create_app
from microtome.storage.places import Place


@contextmanager
def served(place: Place, actions: Actions, **more: Any) -> Iterator[str]:
    """The report in `place` and the live actions, with whatever else `create_app` takes; gives the address."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        port = listening.getsockname()[1]
        app = create_app(place, actions, host="127.0.0.1", port=port, **more)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()
