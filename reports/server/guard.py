"""Who may ask a server for anything: checks before every request, headers on every answer.

A server of one's own machine is within reach of every page that its owner opens. So: requests under a foreign name are
refused (DNS rebinding), a POST from another origin is refused, nobody is granted cross-origin reading, and where others
on the network can connect, a token is asked for.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
EVERYWHERE = ("0.0.0.0", "::", "")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
POLICY_HEADER = "Content-Security-Policy"
HEADERS = {
    POLICY_HEADER: POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can connect to `host`."""
    return host in ("localhost", "::1") or host.startswith("127.")


class Guard:
    """An ASGI application that lets through what it should to `app`.

    host, port: what the server listens at; token: to be shown by whoever asks, None = nobody has to.
    """

    def __init__(self, app: ASGIApp, *, host: str, port: int, token: str | None) -> None:
        self._app = app
        self._host, self._port, self._token = host, port, token
        names = {*LOOPBACK, f"[{host}]" if ":" in host else host.lower()}
        self._names = (names | {socket.gethostname().lower()} if host in EVERYWHERE else names) - {*EVERYWHERE, "[::]"}
        self._cookie = f"microtome-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if "Cache-Control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        refused = self._refusal(scope)
        await (refused or self._app)(scope, receive, sending)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is not let through."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return PlainTextResponse("This server does not answer under that name.\n", 421)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("Only GET and POST are answered.\n", 405, {"Allow": "GET, HEAD, POST"})
        if scope["method"] == "POST" and not _is_same_origin(headers, hosts[0]):
            return PlainTextResponse("Only pages of this server may ask for this.\n", 403)
        return None if self._token is None else self._without_token(scope, headers)

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this server: one of its names, or an address where it listens at all of them."""
        name, _, port = host.lower().rpartition(":")
        if not port.isdigit():
            name, port = host.lower(), "80"
        if port != str(self._port):
            return False
        return name in self._names or (self._host in EVERYWHERE and _is_address(name))

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given and self._is_token(given):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            path = "/" + scope.get("raw_path", b"/").decode("latin-1").lstrip("/")
            answer = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            answer.set_cookie(self._cookie, self._token or "", httponly=True, samesite="lax", path="/")
            return answer
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        shown = [cookie_parser(headers.get("cookie", "")).get(self._cookie, "")]
        shown += [bearer.strip()] if kind.lower() == "bearer" else []
        if self._is_token(shown):
            return None
        words = "A token is needed: open the address that microtome serve has printed.\n"
        return PlainTextResponse(words, 401, {"WWW-Authenticate": "Bearer"})

    def _is_token(self, given: Iterable[str]) -> bool:
        token = (self._token or "").encode()
        return any(secrets.compare_digest(one.encode("utf-8", "surrogateescape"), token) for one in given)


def _is_same_origin(headers: Headers, host: str) -> bool:
    """Whether a POST comes from a page of this server, or from no page at all: browsers say where theirs come from."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None:
        return urlsplit(origin).scheme in ("http", "https") and urlsplit(origin).netloc.lower() == host.lower()
    return site in (None, "same-origin", "none")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
