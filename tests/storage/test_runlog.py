"""The log of a run: every event a line, whatever happens to the process, the place or the values."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.storage import retry
from microtome.storage.errors import PlaceUnreachableError
from microtome.storage.places import Place, open_place
from microtome.storage.runlog import RunLog, log_keys, memory, read_log

KILLED = """
import sys, time
from microtome.storage.places import open_place
from microtome.storage.runlog import RunLog
with RunLog(open_place(sys.argv[1])) as log:
    log.event("start", host="box")
    log.event("stage", name="capture", state="running")
    print("written", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return open_place(tmp_path / "run" if request.param == "folder" else f"memory://{tmp_path.name}/run")


def kinds(place: Place) -> list[str]:
    return [event["kind"] for event in read_log(place) if event["kind"] != "memory"]


def test_events_come_back_in_order_with_time_and_session(place: Place) -> None:
    with RunLog(place) as log:
        log.event("start", cores=2)
        log.event("skipped", key="ümlaut\u2028\n.png", reason="not an image")
        log.event("end")
    events = list(read_log(place))
    assert [event["kind"] for event in events if event["kind"] != "memory"] == ["start", "skipped", "end"]
    assert {event["session"] for event in events} == {log.session}
    assert events[1]["key"] == "ümlaut\u2028\n.png"
    assert events[0]["time"].endswith("+00:00")
    assert events[-1]["kind"] == "memory"
    assert events[-1]["peak"] >= events[-1]["rss"] > 1_000_000


def test_sessions_follow_each_other(place: Place) -> None:
    for number in range(3):
        with RunLog(place) as log:
            log.event("start", number=number)
    assert [event["number"] for event in read_log(place) if event["kind"] == "start"] == [0, 1, 2]
    assert len(log_keys(place)) == 3


def test_a_run_without_a_log_has_no_events(place: Place) -> None:
    assert list(read_log(place)) == []


def test_an_error_is_the_last_word(place: Place) -> None:
    def work() -> None:
        with RunLog(place) as log:
            log.event("start")
            raise OSError("no space\nleft")

    with pytest.raises(OSError, match="no space"):
        work()
    assert kinds(place) == ["start", "stop"]
    (stop,) = [event for event in read_log(place) if event["kind"] == "stop"]
    assert stop["why"] == "OSError: no space left"


def test_what_a_killed_process_had_to_say_is_there(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert kinds(open_place(tmp_path)) == ["start", "stage"]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    place = open_place(tmp_path)
    with RunLog(place) as log:
        log.event("start")
    with (tmp_path / "log" / f"{log.session}.jsonl").open("ab") as file:
        file.write(b'17\n{"no": "kind"}\n{"time": "2026", "kind": "sta')
    assert kinds(place) == ["start"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@given(JSON)
def test_no_value_breaks_the_log(value: object) -> None:
    place = open_place("memory://any-value/run")
    place.delete(log_keys(place))
    with RunLog(place) as log:
        log.event("odd", value=value)
    (event,) = [event for event in read_log(place) if event["kind"] == "odd"]
    json.dumps(event, allow_nan=False)


def test_numbers_stay_numbers(place: Place) -> None:
    with RunLog(place) as log:
        log.event("stage", seconds=np.float32(0.5), shards=np.int64(7), rate=float("nan"), tau=(0.5,), out=Path("/a"))
        log.event("stage", seconds=np.array([1, 2]), time="never")
    first, second = [event for event in read_log(place) if event["kind"] == "stage"]
    assert (first["seconds"], first["shards"], first["rate"], first["tau"], first["out"]) == (0.5, 7, None, [0.5], "/a")
    assert second["seconds"] == "[1 2]"
    assert second["time"] != "never"


def test_threads_never_mix_their_lines(place: Place) -> None:
    with RunLog(place) as log:
        threads = [
            threading.Thread(target=lambda n=n: [log.event("shard", worker=n, shard=i) for i in range(200)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    shards = [event for event in read_log(place) if event["kind"] == "shard"]
    assert sorted((event["worker"], event["shard"]) for event in shards) == [
        (n, i) for n in range(8) for i in range(200)
    ]
    for n in range(8):
        assert [event["shard"] for event in shards if event["worker"] == n] == list(range(200))


def test_retries_are_logged_while_the_log_is_open(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(answers: list[object]) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    with RunLog(place):
        answers: list[object] = [ValueError("503"), ValueError("503"), 7]
        assert retry.call("read x", lambda: failing(answers), lambda error: str(error)) == 7
    outside: list[object] = [ValueError("500"), 7]
    retry.call("read x", lambda: failing(outside), lambda error: str(error))
    retries = [event for event in read_log(place) if event["kind"] == "retry"]
    assert [(event["what"], event["error"], event["attempt"]) for event in retries] == [
        ("read x", "503", 1),
        ("read x", "503", 2),
    ]


def test_memory_is_sampled(place: Place) -> None:
    with RunLog(place, between_samples=0.01, between_writes=0.01):
        until = time.monotonic() + 20
        while sum(event["kind"] == "memory" for event in read_log(place)) < 3:
            assert time.monotonic() < until
    assert memory()["peak"] >= memory()["rss"]


def test_a_log_that_cannot_be_written_says_so_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("in the way")
    with RunLog(open_place(tmp_path)) as log:
        for _ in range(5):
            log.event("start")
    err = capsys.readouterr().err
    assert err.count("cannot be written") == 1
    assert "without its log" in err


def test_in_a_bucket_lines_appear_while_the_work_goes_on_in_parts(tmp_path: Path) -> None:
    place = open_place(f"memory://{tmp_path.name}/parts")
    with RunLog(place, between_writes=0.01, part_bytes=500) as log:
        log.event("start")
        until = time.monotonic() + 20
        while kinds(place) != ["start"]:
            assert time.monotonic() < until
        for number in range(40):
            log.event("shard", shard=number)
    assert [event["shard"] for event in read_log(place) if event["kind"] == "shard"] == list(range(40))
    sizes = [place.size(key) or 0 for key in log_keys(place)]
    assert len(sizes) > 3
    assert all(400 < size < 700 for size in sizes[:-1])


def test_a_bucket_that_is_away_costs_no_line_until_too_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = open_place(f"memory://{tmp_path.name}/away")
    failed = threading.Event()

    def away(*_: object) -> None:
        failed.set()
        raise PlaceUnreachableError("away")

    with RunLog(place, between_writes=0.01) as log, monkeypatch.context() as patched:
        patched.setattr(type(place), "write", away)
        log.event("shard", shard=0)
        assert failed.wait(20)
        log.event("shard", shard=1)
        patched.setattr("microtome.storage.runlog.MOST_WAITING_BYTES", 1)
        log.event("shard", shard=2)
    events = list(read_log(place))
    assert [event["shard"] for event in events if event["kind"] == "shard"] == [0, 1]
    assert [event["lines"] for event in events if event["kind"] == "dropped"] == [1]
    assert "away" in capsys.readouterr().err
