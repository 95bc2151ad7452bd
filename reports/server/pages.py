"""The pages of a run's report, as they lie in its folder or bucket."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from microtome.reports.server.guard import POLICY, POLICY_HEADER
from microtome.storage.places import Place

REPORT = "report/"
API = "/api/"
MAP = "map.html"
"""The one page whose WebGL library compiles its drawing functions from text, all of it made by itself."""

_MARK = b'<meta charset="utf-8">'
_SERVED = _MARK + f'\n<meta name="microtome-server" content="{API}">'.encode()
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def page_key(path: str) -> str | None:
    """The key of what a (decoded) path asks for, None where it can be no file of a report."""
    parts = path.strip("/").split("/") if path.strip("/") else ["index.html"]
    if any(not part or part.startswith(".") or part.endswith(".partial") for part in parts):
        return None
    if "\\" in path or any(ord(character) < 32 for character in path):
        return None
    return REPORT + "/".join(parts)


def _decoded(raw_path: bytes) -> str:
    """The path as names are on disk, decoded once; one that is no UTF-8 becomes one that names nothing."""
    try:
        return unquote_to_bytes(raw_path.partition(b"?")[0]).decode()
    except UnicodeDecodeError:
        return "/."


class Pages:
    """Answers with files of the report in `place`; pages are told that a server gives them out."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def answer(self, request: Request) -> Response:
        """The file that is asked for, or 404."""
        key = page_key(_decoded(request.scope["raw_path"]))
        content = None if key is None else await run_in_threadpool(self._read, key)
        if key is None or content is None:
            return PlainTextResponse("There is no such page in the report of this run.\n", 404)
        kind = _TYPES.get(PurePosixPath(key).suffix.lower(), "application/octet-stream")
        if kind.startswith("text/html"):
            content = content.replace(_MARK, _SERVED, 1)
        headers = {"Content-Type": kind, "Cache-Control": "no-cache"}
        if key == REPORT + MAP:
            headers[POLICY_HEADER] = POLICY.replace("script-src 'self'", "script-src 'self' 'unsafe-eval'")
        return Response(content, media_type=None, headers=headers)

    def _read(self, key: str) -> bytes | None:
        try:
            return self._place.read(key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError:  # a name that the file system does not take
            return None
