"""Where a run is, told from what lies in its place alone: from any machine, during the audit or years after."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microtome.dissect.audit.logsummary import Summary, summarise_events
from microtome.storage.lock import STALE, Holder, read_holder
from microtome.storage.places import Place
from microtome.storage.run import Run
from microtome.storage.runlog import read_log
from microtome.storage.schema import SHARDED, STAGES

SHOWN_EVENTS = 5

_RECORD = re.compile(r"commits/(?P<stage>\w+)/\d+\.json")


@dataclass(frozen=True)
class StageStatus:
    """One stage: pending, running or done; shards committed of how many (None where it has none); time spent."""

    name: str
    state: str
    done: int | None
    shards: int | None
    seconds: float


@dataclass(frozen=True)
class RunStatus:
    """All that can be told of a run from afar.

    state: "finished", "running" (its holder gives signs of life), "silent" (held, but without a recent one) or
    "stopped"; rate in shards a second and remaining in seconds are those of the stage at work; disk in bytes.
    """

    url: str
    state: str
    samples: int
    stages: tuple[StageStatus, ...]
    holder: Holder | None
    rate: float | None
    remaining: float | None
    disk: Mapping[str, int]
    skipped: int
    summary: Summary
    events: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """The status as JSON values."""
        holder = self.holder
        return {
            "run": self.url,
            "state": self.state,
            "samples": self.samples,
            "stages": [
                {
                    "name": stage.name,
                    "state": stage.state,
                    "shards_done": stage.done,
                    "shards": stage.shards,
                    "seconds": stage.seconds,
                }
                for stage in self.stages
            ],
            "shards_per_second": None if self.rate is None else round(self.rate, 4),
            "seconds_remaining_in_stage": None if self.remaining is None else round(self.remaining, 1),
            "holder": None
            if holder is None
            else {
                "what": holder.what,
                "host": holder.host,
                "pid": holder.pid,
                "since": holder.since,
                "last_sign_of_life": holder.beat,
                "seconds_silent": round(holder.silent, 1),
                "known_to_be_dead": holder.gone,
            },
            "disk_bytes": dict(self.disk),
            "skipped": self.skipped,
            "log": self.summary.to_dict(),
            "last_events": list(self.events),
        }


def read_status(where: str | Path | Place) -> RunStatus:
    """The status of the run in `where`. Raises UsageError where there is none, RunDamagedError for a damaged one."""
    run = Run.open(where)
    place = run.place
    disk, records = _listing(place)
    holder = read_holder(place)
    events = list(read_log(place))
    summary = summarise_events(events)
    count = run.plan.count
    stages = tuple(
        StageStatus(
            name=name,
            state=info["state"],
            done=min(records[name], count) if name in SHARDED else None,
            shards=count if name in SHARDED else None,
            seconds=info["seconds"],
        )
        for name, info in _in_order(run.info["stages"]).items()
    )
    state = _state(stages, holder)
    rate, remaining = _pace(stages, summary) if state == "running" else (None, None)
    return RunStatus(
        url=place.url,
        state=state,
        samples=run.plan.samples,
        stages=stages,
        holder=holder,
        rate=rate,
        remaining=remaining,
        disk=disk,
        skipped=max(len(summary.skipped), run.info["data"]["unreadable"]),
        summary=summary,
        events=tuple([event for event in events if event["kind"] not in ("memory", "shard")][-SHOWN_EVENTS:]),
    )


def _listing(place: Place) -> tuple[dict[str, int], Counter[str]]:
    """Bytes by kind of file, and the number of commit records of each stage, from one listing of the place."""
    disk = dict.fromkeys(("arrays", "commits", "tables", "report", "log", "other"), 0)
    records: Counter[str] = Counter()
    for key, size in place.list():
        disk[_kind(key)] += size
        if found := _RECORD.fullmatch(key):
            records[found["stage"]] += 1
    disk["total"] = sum(disk.values())
    return disk, records


def _kind(key: str) -> str:
    top = key.partition("/")[0]
    if top == "arrays.zarr":
        return "arrays"
    if top in ("commits", "report", "log"):
        return top
    return "tables" if key.endswith(".parquet") else "other"


def _in_order(stages: Mapping[str, Any]) -> dict[str, Any]:
    known = [name for name in STAGES if name in stages]
    return {name: stages[name] for name in [*known, *(name for name in stages if name not in known)]}


def _state(stages: tuple[StageStatus, ...], holder: Holder | None) -> str:
    if holder is not None and not holder.gone:
        return "running" if holder.here or abs(holder.silent) < STALE else "silent"
    return "finished" if all(stage.state == "done" for stage in stages) else "stopped"


def _pace(stages: tuple[StageStatus, ...], summary: Summary) -> tuple[float | None, float | None]:
    """Shards a second and seconds remaining of the stage at work."""
    rate = summary.rate
    running = [stage for stage in stages if stage.name == summary.current and stage.shards is not None]
    if rate is None or not running or summary.current_last is None:
        return None, None
    (stage,) = running
    left = ((stage.shards or 0) - (stage.done or 0)) / rate
    since = max(0.0, time.time() - summary.current_last)  # work on the next shards has gone on meanwhile
    return rate, max(0.0, left - min(since, 1 / rate))
