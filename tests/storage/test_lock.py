"""The lock of a run: one holder at a time, whatever happens to it, and a holder that lost it learns so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers.s3 import S3, FaultyS3

from microtome.storage.errors import RunLockedError
from microtome.storage.lock import LOCK_KEY, Holder, RunLock, machine_name, process_start, read_holder, refuse_if_held
from microtome.storage.places import Place, open_place

HOLD = """
import sys, time
from microtome.storage.lock import RunLock
from microtome.storage.places import open_place
with RunLock(open_place(sys.argv[1]), beat=0.1):
    print("held", flush=True)
    time.sleep(600)
"""
RACE = """
import sys
from microtome.storage.errors import RunLockedError
from microtome.storage.lock import RunLock
from microtome.storage.places import open_place
place = open_place(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with RunLock(place, stale=0.5):
        print("held", flush=True)
        sys.stdin.readline()
except RunLockedError as error:
    print("refused", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder, or a prefix of a bucket that behaves like S3."""
    if request.param == "bucket":
        bucket: S3 = request.getfixturevalue("s3")
        return open_place(f"{bucket.url}/run")
    return open_place(tmp_path / "run")


def foreign(**changes: object) -> Holder:
    """A holder on another machine."""
    values = {"host": "elsewhere", "machine": "elsewhere/boot/ns", "pid": 1, **changes}
    return replace(Holder.myself("audit"), **values)  # type: ignore[arg-type]


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() - seconds, UTC).isoformat()


def holding(place: Place) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, place.url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def wait_for(true: threading.Event) -> None:
    assert true.wait(20)


def test_a_lock_is_there_while_held_and_gone_afterwards(place: Place) -> None:
    with RunLock(place, "audit"):
        holder = read_holder(place)
        assert holder is not None
        assert (holder.pid, holder.what, holder.machine) == (os.getpid(), "audit", machine_name())
        assert not holder.gone
    assert read_holder(place) is None
    assert place.size(LOCK_KEY) is None
    with RunLock(place):
        pass


def test_the_second_of_one_process_is_refused_and_the_first_goes_on(place: Place) -> None:
    with RunLock(place) as first:
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} on") as caught, RunLock(place):
            pass
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)
        assert "last sign of life" in str(caught.value)
        first.check()
        assert read_holder(place) is not None


def test_it_is_given_back_after_an_error(place: Place) -> None:
    with pytest.raises(ZeroDivisionError), RunLock(place):
        raise ZeroDivisionError
    assert read_holder(place) is None


def test_another_process_is_refused_while_it_lives_and_taken_over_at_once_when_killed(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    process = holding(place)
    try:
        with pytest.raises(RunLockedError, match=f"kill {process.pid}"), RunLock(place):
            pass
        with pytest.raises(RunLockedError, match=f"process {process.pid}"):
            refuse_if_held(place)
        process.send_signal(signal.SIGSTOP)  # it gives no sign of life, but it is known to live
        with pytest.raises(RunLockedError), RunLock(place, stale=0.0):
            pass
    finally:
        process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie, which is dead as well
    began = time.monotonic()
    with RunLock(place):
        assert time.monotonic() - began < 50
        refuse = read_holder(place)
        assert refuse is not None
        assert refuse.pid == os.getpid()
    process.communicate()
    assert f"dead audit, process {process.pid}" in capsys.readouterr().err


def test_a_number_that_another_process_has_now_is_not_the_holder(place: Place) -> None:
    earlier = replace(Holder.myself("audit"), started="1")
    assert place.create(LOCK_KEY, earlier.to_bytes())
    assert earlier.gone
    refuse_if_held(place)
    with RunLock(place):
        pass


def test_a_recent_beat_from_elsewhere_is_respected_at_once(place: Place) -> None:
    place.write(LOCK_KEY, foreign(beat=ago(20)).to_bytes())
    began = time.monotonic()
    with pytest.raises(RunLockedError, match=r"on elsewhere, since .* 20 s ago.*falls free 60 s after"), RunLock(place):
        pass
    assert time.monotonic() - began < 30
    with pytest.raises(RunLockedError):
        refuse_if_held(place)


@pytest.mark.parametrize("seconds", [100.0, 7200.0, -7200.0], ids=["old", "clock slow", "clock fast"])
def test_an_old_beat_from_elsewhere_is_watched_and_then_taken_over(
    place: Place, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write(LOCK_KEY, foreign(beat=ago(seconds)).to_bytes())
    began = time.monotonic()
    with RunLock(place, stale=0.4):
        assert time.monotonic() - began >= 0.4
    assert "watching" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [7200.0, -7200.0], ids=["clock slow", "clock fast"])
def test_a_living_holder_whose_clock_is_wrong_is_not_robbed(place: Place, seconds: float) -> None:
    holder = foreign(beat=ago(seconds))
    place.write(LOCK_KEY, holder.to_bytes())
    renewed = replace(holder, beat=ago(seconds - 1), beats=1)
    timer = threading.Timer(0.3, place.write, (LOCK_KEY, renewed.to_bytes()))
    timer.start()
    with pytest.raises(RunLockedError, match="elsewhere"), RunLock(place, stale=20.0):
        pass
    timer.join()
    assert read_holder(place) == renewed


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"{}", b"\xff", b'{"token": 1}'])
def test_a_garbled_lock_is_watched_and_then_taken_over(place: Place, content: bytes) -> None:
    place.write(LOCK_KEY, content)
    assert read_holder(place) is None
    with RunLock(place, stale=0.1):
        assert read_holder(place) is not None


def test_a_lock_given_back_while_it_is_watched_is_taken(place: Place) -> None:
    place.write(LOCK_KEY, foreign(beat=ago(7200)).to_bytes())
    timer = threading.Timer(0.2, place.delete, ([LOCK_KEY],))
    timer.start()
    with RunLock(place, stale=20.0):
        pass
    timer.join()


def test_the_beat_goes_on(place: Place) -> None:
    with RunLock(place, beat=0.02):
        until = time.monotonic() + 20
        while (holder := read_holder(place)) is None or holder.beats < 3:
            assert time.monotonic() < until
        assert holder.silent < 20


@pytest.mark.parametrize("how", ["taken", "deleted"])
def test_a_holder_that_lost_its_run_is_told_and_stops(place: Place, how: str) -> None:
    lost = threading.Event()
    other = foreign()

    def work() -> None:
        with RunLock(place, on_lost=lost.set, beat=0.02) as lock:
            if how == "taken":
                place.write(LOCK_KEY, other.to_bytes())
            else:
                place.delete([LOCK_KEY])
            wait_for(lost)
            assert lock.lost
            with pytest.raises(RunLockedError):
                lock.check()
            raise ValueError("a task that left")

    with pytest.raises(RunLockedError, match="elsewhere" if how == "taken" else "was deleted") as caught:
        work()
    assert isinstance(caught.value.__cause__, ValueError)
    assert read_holder(place) == (other if how == "taken" else None)


def test_a_holder_that_slept_finds_out_at_the_end_at_the_latest(place: Place) -> None:
    other = foreign()
    with pytest.raises(RunLockedError, match="taken over while this process"), RunLock(place, beat=600.0):
        place.write(LOCK_KEY, other.to_bytes())
    assert read_holder(place) == other


def test_a_beat_that_arrived_though_its_answer_was_lost_is_no_loss(place: Place) -> None:
    with RunLock(place, beat=600.0) as lock:
        mine = read_holder(place)
        assert mine is not None
        place.write(LOCK_KEY, mine.renewed().to_bytes())
    assert not lock.lost
    assert read_holder(place) is None


def test_a_place_that_fails_for_a_while_does_not_cost_the_lock(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(*_: object) -> bool:
        failed.set()
        raise OSError("away")

    lost = threading.Event()
    with RunLock(place, beat=0.02, on_lost=lost.set) as lock:
        before = read_holder(place)
        assert before is not None
        with monkeypatch.context() as patched:
            patched.setattr(type(place), "replace", fail)
            wait_for(failed)
        until = time.monotonic() + 20
        while (holder := read_holder(place)) is None or holder.beats < before.beats + 3:
            assert time.monotonic() < until
        assert not lock.lost
    assert not lost.is_set()


@pytest.mark.parametrize("left_behind", [False, True], ids=["new", "left by a dead process"])
def test_of_many_processes_that_try_at_once_one_wins(place: Place, left_behind: bool) -> None:
    if left_behind:
        process = holding(place)
        process.kill()
        process.communicate()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, place.url], text=True, **pipes)  # type: ignore[call-overload]
        for _ in range(5)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.stdout.readline() for racer in racers]
    for racer in racers:
        racer.communicate("\n")
    assert sorted(answers) == ["held\n"] + ["refused\n"] * 4
    assert read_holder(place) is None


def test_a_process_that_is_not_there_has_no_start() -> None:
    assert process_start(os.getpid()) == process_start(os.getpid()) is not None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert process_start(ended.pid) is None


def test_a_lock_is_plain_json(place: Place) -> None:
    with RunLock(place, "verify"):
        values = json.loads(place.read(LOCK_KEY))
    assert values["what"] == "verify"
    assert {"host", "pid", "since", "beat", "token"} <= values.keys()


def test_answers_that_are_lost_on_the_way_do_not_cost_the_lock(faulty_s3: FaultyS3) -> None:
    """A request that arrived, and whose answer did not, is repeated: it then finds what it wrote itself."""
    place = open_place(f"{faulty_s3.url}/run")
    faulty_s3.inject("lost answer", method="PUT", match="lock.json", times=1)
    with RunLock(place, beat=600.0) as lock:
        faulty_s3.inject("lost answer", method="PUT", match="lock.json", times=1)
        assert lock._renew()
        with pytest.raises(RunLockedError, match=f"process {os.getpid()}"), RunLock(open_place(place.url)):
            pass
    assert not lock.lost
    assert read_holder(place) is None
