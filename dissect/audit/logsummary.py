"""What a run's log comes to: the short account that an audit ends with and `microtome status` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from microtome.dissect.audit.progress import duration
from microtome.storage.places import Place
from microtome.storage.runlog import read_log, seconds_of

SHOWN_REASONS = 5
BROKEN_OFF = "pending"


@dataclass
class StageAccount:
    """One stage over all sessions: time spent, shards done meanwhile, and how often it broke off."""

    seconds: float = 0.0
    shards: int = 0
    broken_off: int = 0

    @property
    def rate(self) -> float | None:
        """Shards a second."""
        return self.shards / self.seconds if self.shards and self.seconds > 0 else None


@dataclass
class Summary:
    """The log in figures. `skipped` maps a sample's key to its reason, `retries` what failed to how often;
    `current` is the stage that was running when the log ends, since `current_since` (seconds since 1970, as `seen`, the
    time of the last event)."""

    sessions: int = 0
    first: str | None = None
    last: str | None = None
    stages: dict[str, StageAccount] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    retries: Counter[str] = field(default_factory=Counter)
    stops: list[str] = field(default_factory=list)
    peak_memory: int = 0
    finished: bool = False
    last_event: dict[str, Any] | None = None
    current: str | None = None
    current_since: float | None = None
    current_shards: int = 0
    current_last: float | None = None
    seen: float | None = None

    @property
    def reasons(self) -> Counter[str]:
        """How many samples were skipped for each reason."""
        return Counter(self.skipped.values())

    @property
    def rate(self) -> float | None:
        """Shards a second of the stage at work, in its last session."""
        if self.current is None or self.current_since is None or self.current_last is None:
            return None
        elapsed = self.current_last - self.current_since
        return self.current_shards / elapsed if elapsed > 0 and self.current_shards else None

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return {
            "sessions": self.sessions,
            "first": self.first,
            "last": self.last,
            "finished": self.finished,
            "stages": {
                name: {
                    "seconds": round(stage.seconds, 3),
                    "shards": stage.shards,
                    "shards_per_second": None if stage.rate is None else round(stage.rate, 3),
                    "broken_off": stage.broken_off,
                }
                for name, stage in self.stages.items()
            },
            "skipped": len(self.skipped),
            "skipped_reasons": dict(self.reasons.most_common()),
            "retries": dict(self.retries.most_common()),
            "stops": self.stops,
            "peak_memory_bytes": self.peak_memory,
        }


def summarise(place: Place) -> Summary:
    """The account of all sessions in the log of the run in `place`."""
    return summarise_events(read_log(place))


def summarise_events(events: Iterable[Mapping[str, Any]]) -> Summary:
    """The account of `events`, in order, as `read_log` gives them."""
    summary = Summary()
    session: object = None
    for event in events:
        if event.get("session") != session:
            session = event.get("session")
            summary.sessions += 1
            _break_off(summary)
        summary.first = summary.first or event.get("time")
        summary.last = event.get("time", summary.last)
        summary.seen = seconds_of(dict(event)) or summary.seen
        if event["kind"] != "memory":
            summary.last_event = dict(event)
        _ACCOUNTS.get(event["kind"], _ignore)(summary, event)
    if summary.current is not None:  # still at work, or killed
        summary.stages[summary.current].seconds += _seconds_so_far(summary)
    return summary


def _break_off(summary: Summary) -> None:
    """A session has ended without a word on the stage that it was at: it was killed."""
    if summary.current is not None:
        account = summary.stages[summary.current]
        account.seconds += _seconds_so_far(summary)
        account.broken_off += 1
    summary.current = summary.current_since = summary.current_last = None


def _seconds_so_far(summary: Summary) -> float:
    """From the beginning of the stage at work to the last word of its session."""
    if summary.current_since is None or summary.seen is None:
        return 0.0
    return max(0.0, summary.seen - summary.current_since)


def _start(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.finished = False


def _stage(summary: Summary, event: Mapping[str, Any]) -> None:
    name, state = str(event.get("name")), event.get("state")
    account = summary.stages.setdefault(name, StageAccount())
    if state == "running":
        summary.current, summary.current_since = name, seconds_of(dict(event))
        summary.current_last, summary.current_shards = None, 0
        return
    account.seconds += _number(event.get("seconds"))
    account.broken_off += state == BROKEN_OFF
    if summary.current == name:
        summary.current = None


def _shard(summary: Summary, event: Mapping[str, Any]) -> None:
    name = str(event.get("stage"))
    summary.stages.setdefault(name, StageAccount()).shards += 1
    if name == summary.current:
        summary.current_shards += 1
        summary.current_last = seconds_of(dict(event))


def _skipped(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.skipped[str(event.get("key"))] = str(event.get("reason"))


def _retry(summary: Summary, event: Mapping[str, Any]) -> None:
    what = str(event.get("what", "")).split(" ", 1)[0]
    summary.retries[f"{what}: {event.get('error')}"] += 1


def _memory(summary: Summary, event: Mapping[str, Any]) -> None:
    peak = max(_number(event.get("peak")), _number(event.get("rss")))
    summary.peak_memory = max(summary.peak_memory, int(peak + _number(event.get("workers"))))


def _stop(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.stops.append(str(event.get("why")))


def _end(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.finished = True


def _ignore(summary: Summary, event: Mapping[str, Any]) -> None:
    """Kinds that do not count."""


_ACCOUNTS = {
    "start": _start,
    "stage": _stage,
    "shard": _shard,
    "skipped": _skipped,
    "retry": _retry,
    "memory": _memory,
    "stop": _stop,
    "end": _end,
}


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def format_summary(summary: Summary) -> str:
    """The account in a few lines of text; nothing where there is no log."""
    if not summary.sessions:
        return ""
    lines = []
    for name, stage in summary.stages.items():
        rate = "" if stage.rate is None else f", {stage.shards:,} shards, {stage.rate:,.2f} a second"
        times = "once" if stage.broken_off == 1 else f"{stage.broken_off} times"
        again = f", broken off {times}" if stage.broken_off else ""
        lines.append(f"  {name:<11} {duration(stage.seconds):>12}{rate}{again}")
    if summary.skipped:
        lines.append(f"  skipped     {len(summary.skipped):,} samples: {_counted(summary.reasons)}")
    if summary.retries:
        lines.append(f"  retries     {summary.retries.total():,}: {_counted(summary.retries)}")
    if summary.peak_memory:
        lines.append(f"  memory      {summary.peak_memory / 1e9:.2f} GB at most")
    if summary.sessions > 1 or summary.stops:
        lines.append(f"  sessions    {summary.sessions}" + (f"; stopped: {summary.stops[-1]}" if summary.stops else ""))
    return "\n".join(lines)


def _counted(counts: Counter[str]) -> str:
    shown = [f"{reason} ({count:,})" for reason, count in counts.most_common(SHOWN_REASONS)]
    rest = len(counts) - len(shown)
    return "; ".join(shown) + (f"; and {rest} other reasons" if rest > 0 else "")
