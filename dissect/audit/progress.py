"""How far a long stage is: a bar on a terminal, log lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts units of work of one stage; safe to call from several threads."""

    def __init__(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._start_done = self._done = done
        self._lock = threading.Lock()
        self._started = self._last = time.monotonic()
        self._bar: tqdm[Never] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, desc=f"{stage:<10}", unit=f" {unit}", file=sys.stderr, smoothing=0.05
            )

    def advance(self, amount: int = 1) -> None:
        """Record that `amount` more is done."""
        with self._lock:
            self._show(self._done + amount)

    def move_to(self, done: int, total: int) -> None:
        """Record that `done` of `total` is done, where the total was not known before."""
        with self._lock:
            self._total = total
            if self._bar is not None:
                self._bar.total = total
            self._show(done)

    def _show(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._done)
        self._done = done
        if self._bar is None and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._line()

    def close(self) -> None:
        """End the bar, or print the last line."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
            else:
                self._line()

    def _line(self) -> None:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (self._done - self._start_done) / elapsed
        left = self._total - self._done
        text = f"{self._stage}: {self._done:,}/{self._total:,} {self._unit}, {rate:,.1f}/s"
        if left and rate > 0:
            text += f", {duration(left / rate)} left"
        say(text if left else f"{text}, took {duration(elapsed)}")


@contextmanager
def progress(stage: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """A Progress that is closed at the end, whatever happens."""
    shown = Progress(stage, total, unit, done)
    try:
        yield shown
    finally:
        shown.close()


def say(text: str) -> None:
    """One log line on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def duration(seconds: float) -> str:
    """Seconds in words: 0.4 s, 42 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
