"""One audit at a time on a run: a lock in the run's own place, which survives a crash of its holder.

The lock is a small object, `lock.json`, created only where there is none (so of two who try, one succeeds), and
renewed every few seconds by a thread of the holder (`beat`). Who finds it taken judges whether its holder lives:

- on the same machine (host, boot and process namespace) by the process itself: its number and its time of start;
- elsewhere by the beat. One that is recent by its own record is respected at once. An old one may come from a
  clock that goes wrong, so it is watched: only if it stays the same for `STALE` seconds is the lock taken over.

Taking over, renewing and giving back are compare-and-swap, so a holder that slept learns that its run is no longer
its own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from microtome.storage.errors import MicrotomeError, RunLockedError
from microtome.storage.places import Place

LOCK_KEY = "lock.json"
BEAT = 10.0
STALE = 60.0
_ATTEMPTS = 20  # how often the lock may change hands under our eyes before we give up


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a run: what it does, where, as which process (pid and time of start), since when, last seen when."""

    token: str
    what: str
    host: str
    machine: str
    pid: int
    started: str
    since: str
    beat: str
    beats: int

    @classmethod
    def myself(cls, what: str) -> Holder:
        """This process, now."""
        now = _now()
        pid = os.getpid()
        token = uuid.uuid4().hex
        return cls(token, what, socket.gethostname(), machine_name(), pid, process_start(pid) or "", now, now, 0)

    @classmethod
    def parse(cls, data: bytes) -> Holder | None:
        """The holder that a lock names; None where it is garbled."""
        try:
            values = json.loads(data)
            holder = cls(**{field.name: values[field.name] for field in fields(cls)})
            datetime.fromisoformat(holder.beat)
            return holder if isinstance(holder.pid, int) and isinstance(holder.token, str) else None
        except (ValueError, TypeError, KeyError):
            return None

    def to_bytes(self) -> bytes:
        """The content of the lock."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    def renewed(self) -> Holder:
        """The same holder with a new sign of life."""
        return replace(self, beat=_now(), beats=self.beats + 1)

    @property
    def here(self) -> bool:
        """Whether it is a process of this very machine, so that looking for the process tells whether it lives."""
        return self.machine == machine_name()

    @property
    def gone(self) -> bool:
        """Whether it is known that the process has ended: only ever true of processes of this machine."""
        return self.here and process_start(self.pid) != self.started

    @property
    def silent(self) -> float:
        """Seconds since its last sign of life, by its clock and ours: negative where its clock is ahead."""
        return time.time() - datetime.fromisoformat(self.beat).timestamp()

    def describe(self) -> str:
        """In words: `audit, process 17 on box, since 2026-11-03 22:10:04 UTC, last sign of life 4 s ago`."""
        since = datetime.fromisoformat(self.since).strftime("%Y-%m-%d %H:%M:%S UTC")
        return (
            f"{self.what}, process {self.pid} on {self.host}, since {since}, "
            f"last sign of life {max(0, round(self.silent))} s ago"
        )


class RunLock:
    """Holds the run in `place` while the `with` block runs.

    what: the holder's work, in a word; on_lost: called once, from another thread, when somebody else has taken the
    run over: stop the work there. Leaving the block then raises RunLockedError. say: told when waiting is needed.
    """

    def __init__(
        self,
        place: Place,
        what: str = "audit",
        *,
        on_lost: Callable[[], None] | None = None,
        say: Callable[[str], None] | None = None,
        beat: float = BEAT,
        stale: float = STALE,
    ) -> None:
        self.on_lost = on_lost
        self._place, self._what = place, what
        self._say = say or _say
        self._beat, self._stale = beat, stale
        self._mine: Holder | None = None
        self._lost: str | None = None
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        if self._lost and not isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise RunLockedError(self._lost) from error

    @property
    def lost(self) -> bool:
        """Whether somebody else has taken the run over."""
        return self._lost is not None

    def check(self) -> None:
        """Raise RunLockedError where somebody else has taken the run over."""
        if self._lost:
            raise RunLockedError(self._lost)

    def acquire(self) -> None:
        """Take the lock, or raise RunLockedError that names its holder. Waits `stale` s at most, for an old lock."""
        self._mine = self._take(Holder.myself(self._what))
        self._leave.clear()
        self._thread = threading.Thread(target=self._keep, name="run-lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lock back where it is still ours."""
        self._leave.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._mine is None:
            return
        try:
            # The last beat proves that the lock is ours, and whoever watches it begins to watch anew.
            if not self.lost and self._renew():
                self._place.delete([LOCK_KEY])
        except (OSError, MicrotomeError) as error:
            self._say(f"{self._place.url}: the lock could not be given back ({error}); it falls free by itself")
        self._mine = None

    # Taking

    def _take(self, mine: Holder) -> Holder:
        for _ in range(_ATTEMPTS):
            if self._place.create(LOCK_KEY, mine.to_bytes()):
                return mine
            found = _read(self._place)
            if found is None:
                continue  # given back in this moment
            holder = Holder.parse(found)
            if holder is not None and holder.token == mine.token:
                return holder  # ours did arrive, though we were told that it had not
            if holder is None or not holder.gone:
                self._refuse_or_watch(found, holder)
            mine = mine.renewed()
            if self._place.replace(LOCK_KEY, found, mine.to_bytes()):
                whose = "a lock that nobody can read" if holder is None else f"the lock of a dead {holder.describe()}"
                self._say(f"{self._place.url}: taken over {whose}")
                return mine
        raise RunLockedError(f"{self._place.url}: the lock keeps changing hands; wait, then run the same command again")

    def _refuse_or_watch(self, found: bytes, holder: Holder | None) -> None:
        """Raise RunLockedError where the holder lives; return when its lock may be replaced."""
        if holder is not None and holder.here:
            raise RunLockedError(
                f"{self._place.url} is in use: {holder.describe()}. Wait until it has finished, or end it "
                f"(kill {holder.pid}) and run the same command again"
            )
        if holder is not None and abs(holder.silent) < self._stale:
            raise self._refusal(holder)
        whose = "one that nobody can read" if holder is None else holder.describe()
        self._say(f"{self._place.url} has a lock: {whose}; watching for {self._stale:.0f} s whether its holder lives")
        until = time.monotonic() + self._stale
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, self._stale / 20))
            now = _read(self._place)
            if now == found:
                continue
            seen = None if now is None else Holder.parse(now)
            if seen is not None and not seen.gone:
                raise self._refusal(seen)
            return  # given back, or left behind by somebody who is gone: try again

    def _refusal(self, holder: Holder) -> RunLockedError:
        return RunLockedError(
            f"{self._place.url} is in use: {holder.describe()}. Wait until it has finished, or end it there; if it is "
            f"dead, its lock falls free {self._stale:.0f} s after its last sign of life: run the same command then"
        )

    # Keeping

    def _keep(self) -> None:
        while not self._leave.wait(self._beat):
            try:
                if not self._renew():
                    break
            except (OSError, MicrotomeError):
                continue  # unreachable or full: the work itself will meet it and say so
        if self.lost and self.on_lost is not None:
            self.on_lost()

    def _renew(self) -> bool:
        """One more beat; False where the lock is no longer ours."""
        if self._mine is None:
            return False
        renewed = self._mine.renewed()
        if not self._place.replace(LOCK_KEY, self._mine.to_bytes(), renewed.to_bytes()):
            found = _read(self._place)
            holder = None if found is None else Holder.parse(found)
            if holder is None or holder.token != self._mine.token:
                whom = "nobody: the lock was deleted" if holder is None else holder.describe()
                self._lost = (
                    f"{self._place.url} was taken over while this process ({self._mine.what}, {self._mine.pid} on "
                    f"{self._mine.host}) gave no sign of life; it is now held by {whom}. This process stopped; "
                    "the run is whole, `microtome status RUN` tells where it is"
                )
                return False
            renewed = holder  # an earlier beat did arrive, though we were told that it had not
        self._mine = renewed
        return True


def read_holder(place: Place) -> Holder | None:
    """Who holds the run in `place`, dead or alive; None where nobody does (or the lock is garbled)."""
    found = _read(place)
    return None if found is None else Holder.parse(found)


def refuse_if_held(place: Place) -> None:
    """Raise RunLockedError where somebody who seems to live is at work on the run. Changes nothing."""
    holder = read_holder(place)
    if holder is not None and not holder.gone and (holder.here or abs(holder.silent) < STALE):
        raise RunLockedError(f"{place.url} is in use: {holder.describe()}. Wait until it has finished, or end it")


def machine_name() -> str:
    """Names this machine since its last boot, and the namespace within which process numbers count."""
    return "/".join([socket.gethostname(), _boot(), _namespace()])


def process_start(pid: int) -> str | None:
    """When process `pid` of this machine started, as an opaque word; None where there is no such living process."""
    try:
        if sys.platform == "linux":  # in ticks since boot: a clock that is set does not touch it
            words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return None if words[0] in "ZX" else words[19]
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(round(process.create_time()))
    except (OSError, psutil.Error):
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(round(psutil.boot_time() / 60))


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(place: Place) -> bytes | None:
    try:
        return place.read(LOCK_KEY)
    except FileNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _say(text: str) -> None:
    print(f"microtome: {text}", file=sys.stderr, flush=True)  # noqa: T201
