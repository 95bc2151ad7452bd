"""S3 on loopback: moto's server, a bucket a test, and a proxy in front of it that misbehaves on request.

def test_something(s3: S3) -> None:      # s3.url is "s3://BUCKET"; the environment leads there
def test_faults(faulty_s3: FaultyS3) -> None:
    faulty_s3.inject("503", times=2, method="PUT", match="run.json")
"""

from __future__ import annotations

import http.client
import itertools
import logging
import random
import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

KINDS = ("500", "503", "429", "hang", "cut request", "cut answer", "lost answer")
"""What a proxy can do to a request: answer with a status; say nothing; cut the connection in the middle of the
request's body, in the middle of the answer's body, or after the request took effect and before any answer."""

_CODES = {
    "500": "InternalError",
    "503": "SlowDown",
    "429": "TooManyRequests",
    "403": "AccessDenied",
    "409": "ConditionalRequestConflict",
    "507": "InsufficientStorage",
}
_BUCKETS = itertools.count()


@dataclass
class S3:
    """A bucket of its own for one test: `url` is s3://BUCKET, `endpoint` the server's http address."""

    endpoint: str
    bucket: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"


@dataclass
class _Fault:
    kind: str
    times: int
    method: str
    match: str

    def fits(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in ("", method) and self.match in path


@dataclass
class Faults:
    """What a proxy shall do wrong, and what it has done: `met` lists (kind, method, path)."""

    met: list[tuple[str, str, str]] = field(default_factory=list)
    requests: int = 0
    down: bool = False
    hang_seconds: float = 30.0
    _planned: list[_Fault] = field(default_factory=list)
    _chance: tuple[float, tuple[str, ...], random.Random] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    ending: threading.Event = field(default_factory=threading.Event)

    def inject(self, kind: str, *, times: int = 1, method: str = "", match: str = "") -> None:
        """Have the next `times` requests of `method` whose path contains `match` meet `kind`."""
        assert kind in (*KINDS, *_CODES)
        with self._lock:
            self._planned.append(_Fault(kind, times, method, match))

    def at_random(self, rate: float, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> None:
        """From now on, have each request meet one of `kinds` with probability `rate`."""
        with self._lock:
            self._chance = (rate, kinds, random.Random(seed))

    def none(self) -> None:
        """From now on, nothing goes wrong."""
        with self._lock:
            self._planned.clear()
            self._chance = None

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Within the block, every connection is cut at once."""
        self.down = True
        try:
            yield
        finally:
            self.down = False

    def next(self, method: str, path: str) -> str | None:
        """What shall happen to this request."""
        with self._lock:
            self.requests += 1
            kind = "cut request" if self.down else None
            for fault in self._planned:
                if kind is None and fault.fits(method, path):
                    fault.times -= 1
                    kind = fault.kind
            if kind is None and self._chance is not None:
                rate, kinds, rng = self._chance
                kind = rng.choice(kinds) if rng.random() < rate else None
            if kind is not None:
                self.met.append((kind, method, path))
            return kind


@dataclass
class FaultyS3(S3):
    """The same with a proxy in front; `direct` is the server's own address."""

    faults: Faults = field(default_factory=Faults)
    direct: str = ""

    def inject(self, kind: str, *, times: int = 1, method: str = "", match: str = "") -> None:
        """See Faults.inject."""
        self.faults.inject(kind, times=times, method=method, match=match)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    faults: Faults
    upstream: tuple[str, int]

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked may have left."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    _HOP: ClassVar = {"connection", "keep-alive", "transfer-encoding", "content-length"}

    def _handle(self) -> None:
        faults = self.server.faults
        kind = faults.next(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if kind == "cut request":
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self.rfile.read(length)
        if kind == "hang":
            faults.ending.wait(faults.hang_seconds)
            self._cut()
            return
        if kind in _CODES:
            text = (
                f"<?xml version='1.0'?><Error><Code>{_CODES[kind]}</Code><Message>injected</Message></Error>".encode()
            )
            self._answer(int(kind), {"Content-Type": "application/xml"}, text, len(text))
            return
        status, headers, content = self._forward(body)
        if kind == "lost answer":
            self._cut()
            return
        size = int(headers.get("Content-Length", len(content))) if self.command == "HEAD" else len(content)
        if kind == "cut answer":
            self._answer(status, headers, content[: len(content) // 2], max(size, 1))
            self._cut()
            return
        self._answer(status, headers, content, size)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*self.server.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body=body, headers=dict(self.headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, size: int) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in self._HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _cut(self) -> None:
        """Close with a reset, as a machine does that goes down."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def moto_server() -> Iterator[str]:
    """moto's server on a free port of loopback; gives its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[tuple[str, Faults]]:
    """A proxy in front of the http address `upstream`; gives its own address and what it shall do wrong."""
    server = _Server(("127.0.0.1", 0), _Handler)
    host, _, port = upstream.removeprefix("http://").partition(":")
    server.upstream, server.faults = (host, int(port)), Faults()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.faults
    finally:
        server.faults.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()


def make_bucket(endpoint: str) -> str:
    """A new bucket at the server; gives its name."""
    bucket = f"bucket-{next(_BUCKETS)}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")):
        return bucket


def s3_environment(endpoint: str) -> dict[str, str]:
    """The variables by which obstore, and any process started now, finds the server."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """moto's server, one for all tests of this process."""
    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An empty bucket; the environment leads to it."""
    for name, value in s3_environment(s3_server).items():
        monkeypatch.setenv(name, value)
    return S3(s3_server, make_bucket(s3_server))


@pytest.fixture
def faulty_s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """An empty bucket behind a proxy that misbehaves on request; the environment leads to the proxy."""
    with faulty_proxy(s3_server) as (endpoint, faults):
        for name, value in s3_environment(endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MICROTOME_TIMEOUT", "1")
        yield FaultyS3(endpoint, make_bucket(s3_server), faults, s3_server)
