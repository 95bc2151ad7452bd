"""What an audit may use: disk, memory and time; known before the start, watched during the work.

Estimates come from the pilot's few images: the measured size of their compressed activations and labels, and the
time to decode and to run them. A limit that is reached while the work goes on stops it between two shards, so that
everything before is kept and `--resume` goes on; nothing is ever killed or deleted for a budget.
"""

from __future__ import annotations

import re
import shutil
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import psutil

from microtome.dissect.audit.stopping import StopSignal
from microtome.storage.errors import UsageError
from microtome.storage.places import Place
from microtome.storage.schema import EstimateInfo

SECONDS_BETWEEN_LOOKS = 1.0
BUFFERS_A_SHARD = 2.5
"""Memory of a shard at work, in its raw bytes: the maps, their compressed form, and what lies between."""

_UNITS = {"": 1, "b": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str, option: str) -> int:
    """`200GB`, `1.5 TiB` or a plain number as bytes. Raises UsageError naming `option`."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?i?)b?\s*", text.lower())
    if not found or found[2] not in _UNITS or float(found[1]) <= 0:
        raise UsageError(f"{option} {text}: give a size such as 200GB, 1.5TB or 64GiB")
    return int(float(found[1]) * _UNITS[found[2]])


def parse_deadline(text: str, now: datetime) -> datetime:
    """The moment that `--time-limit` means: `8h`, `90min`, `2h30m`, `45s` from now, or `07:00`, the next one to come.

    now: with the time zone in which a time of day is meant. Raises UsageError.
    """
    clock = re.fullmatch(r"\s*(\d{1,2}):(\d{2})\s*", text)
    if clock and int(clock[1]) < 24 and int(clock[2]) < 60:
        moment = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        return moment if moment > now else moment + timedelta(days=1)
    span = re.fullmatch(
        r"\s*(?:(\d+(?:\.\d+)?)\s*h)?\s*(?:(\d+(?:\.\d+)?)\s*m(?:in)?)?\s*(?:(\d+(?:\.\d+)?)\s*s)?\s*", text
    )
    if not span or not any(span.groups()):
        raise UsageError(f"--time-limit {text}: give a span such as 8h, 90min or 2h30m, or a time of day such as 07:00")
    hours, minutes, seconds = (float(part or 0) for part in span.groups())
    return now + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def size_text(count: float) -> str:
    """Bytes in words: 512 B, 3.4 MB, 1.20 TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


@dataclass(frozen=True)
class Budget:
    """The limits of one session: bytes of the run on disk, resident bytes, the moment to stop at; None = no limit."""

    disk: int | None = None
    memory: int | None = None
    until: datetime | None = None

    def refuse_disk(self, estimate: EstimateInfo, samples: int, kept: bool) -> None:
        """Raise UsageError where the run as a whole is expected to take more disk than it may."""
        needed = disk_needed(estimate, samples, kept)
        if self.disk is None or needed <= self.disk:
            return
        advice = "fewer --layers or a smaller --limit"
        if kept:
            without = disk_needed(estimate, samples, kept=False)
            advice += f", or --keep-activations no (about {size_text(without)}, for a second pass through the model)"
        raise UsageError(
            f"{samples:,} images need about {size_text(needed)} of disk, --max-disk allows {size_text(self.disk)}; "
            f"{advice}"
        )

    def samples_a_shard(self, bytes_per_sample: int, lanes: int, resident: int) -> int | None:
        """How many samples a shard may hold at most so that memory suffices; None where there is no limit.

        bytes_per_sample: raw, of all layers and labels; lanes: shards at work at once; resident: bytes in use before
        any shard. Raises UsageError where not even one sample fits.
        """
        if self.memory is None:
            return None
        fits = int((self.memory - resident) / (BUFFERS_A_SHARD * lanes * max(1, bytes_per_sample)))
        if fits < 1:
            least = resident + BUFFERS_A_SHARD * lanes * bytes_per_sample
            raise UsageError(
                f"--max-memory {size_text(self.memory)} is too little: model and libraries take {size_text(resident)}, "
                f"and with one sample a shard it would be {size_text(least)}; allow more, or take fewer --layers"
            )
        return fits


NO_LIMITS = Budget()


def disk_needed(estimate: EstimateInfo, samples: int, kept: bool) -> float:
    """Bytes that a run over `samples` is expected to take; kept: whether it keeps the activations."""
    return samples * estimate["bytes_per_sample" if kept else "bytes_per_sample_streamed"]


def free_disk(place: Place) -> int | None:
    """Bytes that are free where the run lies; None where nobody knows (a bucket)."""
    return shutil.disk_usage(place.path).free if place.path is not None and place.path.exists() else None


def resident_bytes() -> int:
    """Resident memory of this process and of the processes that it started."""
    me = psutil.Process()
    total = int(me.memory_info().rss)
    for child in me.children(recursive=True):
        try:
            total += int(child.memory_info().rss)
        except psutil.Error:  # it has ended meanwhile
            continue
    return total


class Watch:
    """Looks at clock, memory and disk once a second while the `with` block runs, and asks for a stop at a limit.

    Disk is counted from what lies there at the start and what shards commit since: `used` by `add`.
    """

    def __init__(self, budget: Budget, stop: StopSignal, place: Place) -> None:
        self._budget, self._stop = budget, stop
        self._lock = threading.Lock()
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None
        self._largest = 0
        self.used = sum(size for _, size in place.list("")) if budget.disk is not None else 0

    def __enter__(self) -> Self:
        self.look()
        if self._budget != NO_LIMITS:
            self._thread = threading.Thread(target=self._keep_looking, name="budget", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        if self._thread is not None:
            self._thread.join()

    def begin_stage(self) -> None:
        """Forget how large the shards of the last stage were."""
        with self._lock:
            self._largest = 0
        self.look()

    def add(self, committed: int) -> None:
        """Count bytes that a shard has written. The next one is expected to be as large as the largest so far."""
        with self._lock:
            self.used += committed
            self._largest = max(self._largest, committed)
        self.look()

    def look(self) -> None:
        """Ask for a stop where a limit is reached."""
        budget = self._budget
        if budget.until is not None and datetime.now(budget.until.tzinfo) >= budget.until:
            self._stop.set(f"the time limit ({budget.until:%H:%M}) is reached")
        if budget.disk is not None and self.used + self._largest > budget.disk:
            self._stop.set(
                f"another shard would pass --max-disk {size_text(budget.disk)} ({size_text(self.used)} used)"
            )
        if budget.memory is not None:
            resident = resident_bytes()
            if resident > budget.memory:
                self._stop.set(
                    f"{size_text(resident)} of memory are in use, --max-memory is {size_text(budget.memory)}"
                )

    def _keep_looking(self) -> None:
        while not self._leave.wait(SECONDS_BETWEEN_LOOKS):
            self.look()
