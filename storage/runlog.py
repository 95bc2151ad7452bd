"""The log of a run: one JSON object a line, in the run itself, so that the morning can see what the night did.

`log/SESSION.jsonl` is what one process wrote, SESSION being when it began and a few random letters. In a folder each
line is appended and flushed at once. In a bucket, where nothing can be appended to, lines are collected and written
every 20 seconds; a session that grows goes on in `log/SESSION.001.jsonl` and so on. Every line has `time` (UTC) and
`kind`:

    start     what was begun: versions, settings, host, cores
    stage     a stage begins (state running) or ends (done, or pending where it broke off): seconds, shards, rate
    shard     one shard of a stage is finished: seconds, worker
    skipped   a sample that could not be read: key, reason
    retry     a request to the place of the run failed and is made again: what, error, attempt, pause
    memory    resident bytes of this process (rss, and peak) and of the processes that it started (workers)
    stop      why it ended before its end
    end       it is finished

A log never stops the work that it tells of: where it cannot be written, that is said once on stderr.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from microtome.storage import retry
from microtome.storage.places import Place

LOG_PREFIX = "log/"
SECONDS_BETWEEN_WRITES = 20.0
SECONDS_BETWEEN_SAMPLES = 30.0
PART_BYTES = 1_000_000
MOST_WAITING_BYTES = 8_000_000

_LOG_NAME = re.compile(r"log/(?P<session>[^/.]+)(?:\.(?P<part>\d+))?\.jsonl")


class RunLog:
    """Writes the log of one session while the `with` block runs; `event` may be called from any thread."""

    def __init__(
        self,
        place: Place,
        *,
        between_writes: float = SECONDS_BETWEEN_WRITES,
        between_samples: float = SECONDS_BETWEEN_SAMPLES,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.session = f"{datetime.now(UTC):%Y%m%dT%H%M%S-%fZ}-{secrets.token_hex(3)}"
        self._between_samples = between_samples
        self._sink: _Appending | _Collecting = (
            _Appending(place.path / LOG_PREFIX / f"{self.session}.jsonl")
            if place.path is not None
            else _Collecting(place, self.session, part_bytes)
        )
        self._between_writes = between_writes
        self._where = f"{place.url}/{LOG_PREFIX}{self.session}.jsonl"
        self._complained = False
        self._leave = threading.Event()
        self._threads: list[threading.Thread] = []
        self._unsubscribe: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        self._unsubscribe = retry.listen(self._retried)
        work = [("run-log-memory", self._sample)]
        if isinstance(self._sink, _Collecting):
            work.append(("run-log-write", self._write_now_and_then))
        self._threads = [threading.Thread(target=target, name=name, daemon=True) for name, target in work]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            text = " ".join(str(error).split())
            self.event("stop", why=f"{type(error).__name__}: {text}" if text else type(error).__name__)
        self.close()

    def event(self, kind: str, /, **values: object) -> None:
        """Log one event. Never raises: what JSON cannot hold is written as text."""
        try:
            line: dict[str, object] = {"time": _now(), "kind": kind}
            line |= {name: value for name, value in values.items() if name not in line}
            self._sink.add(_encode(line))
        except Exception as error:  # the work that the log tells of goes on, whatever happens to the log
            self._complain(error)

    def close(self) -> None:
        """Write what is still waiting, and stop sampling."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._memory()
        self._leave.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        try:
            self._sink.close()
        except Exception as error:
            self._complain(error)

    def _retried(self, what: str, error: str, attempt: int, pause: float) -> None:
        self.event("retry", what=what, error=error, attempt=attempt, pause=round(pause, 3))

    def _sample(self) -> None:
        while not self._leave.wait(self._between_samples):
            self._memory()

    def _memory(self) -> None:
        with contextlib.suppress(psutil.Error, OSError):
            self.event("memory", **memory())

    def _write_now_and_then(self) -> None:
        while not self._leave.wait(self._between_writes):
            try:
                self._sink.flush()
            except Exception as error:
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            text = f"microtome: {self._where} cannot be written ({error}); the work goes on without its log"
            print(text, file=sys.stderr, flush=True)  # noqa: T201


class _Appending:
    """Lines go to the end of a file, each at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def add(self, line: bytes) -> None:
        with self._lock:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
            self._file.write(line)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


class _Collecting:
    """Lines are kept, and written as whole objects of about `part_bytes` each: only the last one is ever rewritten."""

    def __init__(self, place: Place, session: str, part_bytes: int) -> None:
        self._place, self._session, self._part_bytes = place, session, part_bytes
        self._part = 0
        self._written = b""  # the content of the last part, as far as it is in the place
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._dropped = 0
        self._lock = threading.Lock()  # of the lines
        self._writing = threading.Lock()

    def add(self, line: bytes) -> None:
        with self._lock:
            if self._waiting_bytes + len(line) > MOST_WAITING_BYTES:  # unreachable for long: memory stays flat
                self._dropped += 1
                return
            self._waiting.append(line)
            self._waiting_bytes += len(line)

    def flush(self) -> None:
        with self._writing:
            with self._lock:
                lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
                if self._dropped:
                    lines.append(_encode({"time": _now(), "kind": "dropped", "lines": self._dropped}))
                    self._dropped = 0
            try:
                while lines:
                    lines = self._write_part(lines)
            except BaseException:
                with self._lock:
                    self._waiting[:0] = lines
                    self._waiting_bytes += sum(map(len, lines))
                raise

    def _write_part(self, lines: list[bytes]) -> list[bytes]:
        """Write the last part with as many of `lines` as it has room for; returns the others."""
        room, count = self._part_bytes - len(self._written), 0
        while count < len(lines) and (room > 0 or (count == 0 and not self._written)):
            room -= len(lines[count])
            count += 1
        if count == 0:
            self._part, self._written = self._part + 1, b""
            return lines
        content = self._written + b"".join(lines[:count])
        part = f".{self._part:03d}" if self._part else ""
        self._place.write(f"{LOG_PREFIX}{self._session}{part}.jsonl", content)
        self._written = content
        return lines[count:]

    def close(self) -> None:
        self.flush()


def memory() -> dict[str, int]:
    """Resident bytes: of this process now (`rss`) and at most so far (`peak`), and of its children now (`workers`)."""
    process = psutil.Process()
    rss = process.memory_info().rss
    workers = 0
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            workers += child.memory_info().rss
    return {"rss": rss, "peak": max(rss, _high_water()), **({"workers": workers} if workers else {})}


def _high_water() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        return 1024 * int(found[1]) if found else 0
    except OSError:  # no Linux
        return 0


def log_keys(place: Place) -> list[str]:
    """The files of the log, in the order in which they were written."""
    found = [(match, key) for key, _ in place.list(LOG_PREFIX) if (match := _LOG_NAME.fullmatch(key))]
    return [key for match, key in sorted(found, key=lambda pair: (pair[0]["session"], int(pair[0]["part"] or 0)))]


def read_log(place: Place) -> Iterator[dict[str, Any]]:
    """Every event of every session, in order, each with its `session`. A line cut off by a crash is left out."""
    for key in log_keys(place):
        match = _LOG_NAME.fullmatch(key)
        try:
            content = place.read(key)
        except FileNotFoundError:
            continue
        for line in content.splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if match and isinstance(event, dict) and isinstance(event.get("kind"), str):
                    yield {**event, "session": match["session"]}


def seconds_of(event: dict[str, Any]) -> float | None:
    """The time of an event, in seconds since 1970; None where it has none that can be read."""
    try:
        return datetime.fromisoformat(event["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _encode(line: dict[str, object]) -> bytes:
    return json.dumps(_jsonable(line), ensure_ascii=False).encode(errors="replace") + b"\n"


def _jsonable(value: object) -> object:
    """The value as JSON has it; what is not a number becomes null, and what JSON does not know its text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(item) for item in value]
    item = getattr(value, "item", None)  # a number of NumPy's
    return _jsonable(item()) if callable(item) and getattr(value, "size", 1) == 1 else str(value)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
