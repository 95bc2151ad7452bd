"""Questions are let in before they are read; those that fail on the way give their places back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message

from microtome.reports.server.actions import Picture, Stop, Subject
from microtome.reports.server.app import create_app
from microtome.storage.places import open_place

PORT = 8600
GOOD = json.dumps({"class": 1, "seed": 7}).encode()


class Quick:
    """Actions that answer at once."""

    def visualise(self, subject: Subject, seed: int, stop: Stop) -> list[Picture]:
        return [Picture(f"seed {seed}")]


Receive = Callable[[], Awaitable[Message]]


def sends(*parts: bytes) -> Receive:
    """A client that sends its body in parts, and stays."""
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    return receive


def stalls(begun: list[bool]) -> Receive:
    """A client that sends the beginning of a body and no more; `begun` grows with each attempt to read from it."""

    async def receive() -> Message:
        begun.append(True)
        if len(begun) > 1:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"{", "more_body": True}

    return receive


async def breaks_off() -> Message:
    return {"type": "http.disconnect"}


async def post(
    app: ASGIApp, receive: Receive, sent: list[Message] | None = None
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Code, headers and JSON of the answer to a POST; `sent` gets the messages of the answer as they are sent."""
    sent = [] if sent is None else sent
    headers = {b"host": f"127.0.0.1:{PORT}".encode(), b"content-type": b"application/json"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/visualise",
        "raw_path": b"/api/visualise",
        "root_path": "",
        "query_string": b"",
        "headers": list(headers.items()),
    }

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    given = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], given, json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


def served(place: Path, *, reading: float) -> ASGIApp:
    actions: Any = Quick()
    return create_app(open_place(place), actions, host="127.0.0.1", port=PORT, waiting=8, reading=reading)


async def told_before_read(app: ASGIApp) -> tuple[int, dict[str, str], dict[str, Any]]:
    """The answer to a client that looks whether it has the whole of it before any of its body is read."""
    sent: list[Message] = []
    parts = sends(b" " * 1000, b" " * 1000, GOOD)

    async def receive() -> Message:
        assert json.loads(sent[1]["body"])["error"].endswith(".")
        assert int(dict(sent[0]["headers"])[b"content-length"]) == len(sent[1]["body"])
        return await parts()

    return await post(app, receive, sent)


def test_whoever_finds_no_place_is_told_so_before_anything_is_read(tmp_path: Path) -> None:
    async def ask() -> None:
        app = served(tmp_path, reading=3600)
        begun: list[list[bool]] = [[] for _ in range(9)]
        slow = [asyncio.ensure_future(post(app, stalls(one))) for one in begun]
        while not all(len(one) == 2 for one in begun):
            await asyncio.sleep(0)
        for _ in range(20):
            code, _, answer = await told_before_read(app)
            assert code == 503
            assert "busy" in answer["error"]
        assert (await post(app, breaks_off))[0] == 503
        slow[0].cancel()
        await asyncio.wait({slow[0]})
        assert (await post(app, sends(GOOD)))[0] == 200
        for one in slow:
            one.cancel()
        await asyncio.wait(slow)

    asyncio.run(ask())


def test_who_sends_too_slowly_loses_the_place(tmp_path: Path) -> None:
    async def ask() -> None:
        app = served(tmp_path, reading=0)
        for _ in range(3):
            answers = await asyncio.gather(*(post(app, stalls([])) for _ in range(9)))
            for code, headers, answer in answers:
                assert code == 408
                assert headers["connection"] == "close"
                assert answer["error"] == "The question did not come in within 0 s; ask again."
        assert (await post(app, sends(GOOD)))[0] == 200

    asyncio.run(ask())


def test_failed_questions_give_their_places_back(tmp_path: Path) -> None:
    failing = [(lambda: sends(b"{", b"]"), 400), (lambda: sends(b'{"seed": 1}'), 400), (lambda: breaks_off, 499)]
    failing += [(lambda: sends(*[b" " * 5_000_000] * 3), 413)]

    async def ask() -> None:
        app = served(tmp_path, reading=3600)
        for client, expected in failing:
            for _ in range(12):
                assert (await post(app, client()))[0] == expected
        code, _, answer = await post(app, sends(GOOD[:5], GOOD[5:]))
        assert code == 200
        assert answer["pictures"][0]["caption"] == "seed 7"

    asyncio.run(ask())
