"""Where a run is, told from what lies there; and what a night's log comes to."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from microtome.dissect.audit.logsummary import format_summary, summarise, summarise_events
from microtome.dissect.audit.status import read_status
from microtome.storage.lock import LOCK_KEY, Holder, RunLock
from microtome.storage.places import open_place
from microtome.storage.run import Run
from microtome.storage.runlog import RunLog


@pytest.fixture
def run(planted_run: Path, tmp_path: Path) -> Path:
    """A finished run without a log and a holder."""
    shutil.copytree(planted_run, tmp_path / "run", ignore=shutil.ignore_patterns("log", "lock.json"))
    return tmp_path / "run"


def at(second: float) -> str:
    return datetime.fromtimestamp(1_790_000_000 + second, UTC).isoformat()


def event(second: float, kind: str, session: str = "a", **values: object) -> dict[str, Any]:
    return {"time": at(second), "kind": kind, "session": session, **values}


NIGHT = [
    event(0, "start", host="box"),
    event(0, "stage", name="index", state="running"),
    event(1, "stage", name="index", state="done", seconds=1.0),
    event(1, "stage", name="capture", state="running"),
    event(3, "skipped", sample=4, key="four.png", reason="not an image"),
    event(4, "memory", rss=10, peak=2_000_000_000, workers=500_000_000),
    event(5, "shard", stage="capture", shard=0, seconds=4.0),
    event(9, "retry", what="write s3://b/x", error="503", attempt=1, pause=0.1),
    event(9, "retry", what="write s3://b/y", error="503", attempt=1, pause=0.1),
    event(9, "retry", what="read s3://b/y", error="timed out", attempt=1, pause=0.1),
    event(11, "stage", name="capture", state="pending", seconds=10.0),
    event(11, "stop", why="KeyboardInterrupt"),
    event(100, "start", "b"),
    event(100, "stage", "b", name="capture", state="running"),
    event(103, "skipped", "b", sample=4, key="four.png", reason="not an image"),
    event(103, "skipped", "b", sample=9, key="nine.png", reason="truncated"),
    event(105, "shard", "b", stage="capture", shard=1),
    event(110, "shard", "b", stage="capture", shard=2),
]


def test_the_account_of_a_night() -> None:
    summary = summarise_events(NIGHT)
    assert summary.sessions == 2
    assert (summary.first, summary.last) == (at(0), at(110))
    assert summary.skipped == {"four.png": "not an image", "nine.png": "truncated"}
    assert dict(summary.retries) == {"write: 503": 2, "read: timed out": 1}
    assert summary.stops == ["KeyboardInterrupt"]
    assert summary.peak_memory == 2_500_000_000
    assert summary.current == "capture"
    assert summary.rate == pytest.approx(2 / 10)
    assert not summary.finished
    account = summary.stages["capture"]
    assert (account.seconds, account.shards, account.broken_off) == (20.0, 3, 1)
    text = format_summary(summary)
    for said in (
        "capture",
        "2 samples: not an image (1); truncated (1)",
        "3: write: 503 (2)",
        "2.50 GB",
        "sessions    2",
    ):
        assert said in text
    json.dumps(summary.to_dict(), allow_nan=False)
    whole = summarise_events(
        [*NIGHT, event(120, "stage", "b", name="capture", state="done", seconds=20.0), event(121, "end", "b")]
    )
    assert whole.finished
    assert whole.rate is None
    assert whole.stages["capture"].rate == pytest.approx(3 / 30)


def test_the_time_of_a_session_that_was_killed_counts() -> None:
    summary = summarise_events(
        [*NIGHT, event(500, "start", "c"), event(500, "stage", "c", name="capture", state="running")]
    )
    account = summary.stages["capture"]
    assert (account.seconds, account.shards, account.broken_off) == (20.0, 3, 2)
    assert account.rate == pytest.approx(3 / 20)


def test_events_that_make_no_sense_do_no_harm() -> None:
    odd = [
        {"kind": kind, "session": "a"}
        for kind in ("start", "stage", "shard", "skipped", "retry", "memory", "stop", "end", "?")
    ]
    assert summarise_events(odd).sessions == 1
    assert format_summary(summarise_events([])) == ""
    format_summary(summarise_events(odd))


def test_many_reasons_are_counted_and_the_most_frequent_told() -> None:
    events = [event(0, "skipped", key=f"{i}-{j}", reason=f"reason {i}") for i in range(9) for j in range(9 - i)]
    assert "45 samples: reason 0 (9); reason 1 (8)" in format_summary(summarise_events(events))
    assert "and 4 other reasons" in format_summary(summarise_events(events))


def test_a_finished_run(run: Path) -> None:
    status = read_status(run)
    assert status.state == "finished"
    names = ["index", "capture", "thresholds", "tally", "patches", "map", "report"]
    assert [stage.name for stage in status.stages] == names
    count = Run.open(run).plan.count
    assert [(stage.done, stage.shards) for stage in status.stages[1:4]] == [(count, count)] * 3
    files = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert status.disk["total"] == sum(path.stat().st_size for path in files)
    assert sum(size for kind, size in status.disk.items() if kind != "total") == status.disk["total"]
    assert min(status.disk[kind] for kind in ("arrays", "commits", "tables", "report")) > 0
    assert status.skipped == 5
    assert status.holder is None
    assert status.remaining is None


def unfinished(run: Path, missing: int) -> int:
    info = json.loads((run / "run.json").read_text())
    info["stages"]["capture"]["state"] = "running"
    info["data"]["unreadable"] = 0
    (run / "run.json").write_text(json.dumps(info))
    records = sorted((run / "commits" / "capture").glob("0*.json"))
    for record in records[len(records) - missing :]:
        record.unlink()
    return len(records) - missing


def test_a_run_at_work_has_a_pace_and_time_left(run: Path) -> None:
    done = unfinished(run, 10)
    place = open_place(run)
    with RunLock(place), RunLog(place) as log:
        log.event("start")
        log.event("stage", name="capture", state="running")
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            pass
        log.event("shard", stage="capture", shard=0)
        log.event("skipped", key="a.png", reason="no")
        status = read_status(place)
    assert status.state == "running"
    assert status.holder is not None
    capture = status.stages[1]
    assert (capture.state, capture.done) == ("running", done)
    assert status.rate is not None
    assert 0 < status.rate <= 5.1
    assert status.remaining is not None
    assert 9 / status.rate - 1 <= status.remaining <= 10 / status.rate
    assert status.skipped == 1
    assert [event["kind"] for event in status.events] == ["start", "stage", "skipped"]
    json.dumps(status.to_dict(), allow_nan=False)


def test_a_holder_that_is_dead_silent_or_elsewhere(run: Path) -> None:
    unfinished(run, 1)
    place = open_place(run)
    assert read_status(run).state == "stopped"
    me = Holder.myself("audit")
    elsewhere = replace(me, host="elsewhere", machine="elsewhere/boot/ns")
    for holder, state in [
        (me, "running"),
        (replace(me, started="1"), "stopped"),
        (elsewhere, "running"),
        (replace(elsewhere, beat=at(0)), "silent"),
    ]:
        place.write(LOCK_KEY, holder.to_bytes())
        status = read_status(run)
        assert status.state == state
        assert status.holder == holder


def test_status_reads_a_log_that_was_cut_off(run: Path) -> None:
    (run / "log").mkdir()
    (run / "log" / "20260101T000000Z-abc.jsonl").write_text(json.dumps(NIGHT[0]) + "\n" + '{"time": "20')
    assert read_status(run).summary.sessions == 1
    assert summarise(open_place(run)).sessions == 1


def test_status_never_waits_for_torch() -> None:
    code = (
        "import sys, microtome.dissect.audit.status, microtome.dissect.cli.status\n"
        "assert not {'torch', 'torchvision', 'numba', 'dask', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")
