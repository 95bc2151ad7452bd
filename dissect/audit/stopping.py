"""How an audit is told to stop between two shards, and why."""

from __future__ import annotations

import threading

from microtome.storage.errors import MicrotomeError


class Stopped(Exception):  # noqa: N818 - not an error: another task failed, a budget is used up, or Ctrl-C
    """Raised inside a task that notices that the stage is being abandoned."""


class AuditStoppedError(MicrotomeError):
    """The audit stopped on purpose before its end; what is committed is kept, and resuming goes on from there."""

    exit_code = 130


class StopSignal:
    """Set from any thread; tasks look at it before they begin a shard. The first reason given stays."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.reason = ""

    def set(self, reason: str = "") -> None:
        """Ask for a stop. Without a reason it is for this stage's attempt alone, see `clear`."""
        with self._lock:
            self.reason = self.reason or reason
            self._event.set()

    def is_set(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until a stop is asked for, at most `seconds`; returns whether it was."""
        return self._event.wait(seconds)

    def clear(self) -> None:
        """Take the stop back, unless there is a reason for it that lasts."""
        with self._lock:
            if not self.reason:
                self._event.clear()
