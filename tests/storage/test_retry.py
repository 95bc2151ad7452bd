"""What fails in passing is tried again, told, and given up in time; what will not pass is said at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.s3 import KINDS, S3, FaultyS3

from microtome.storage import retry
from microtome.storage.arrays import RunArrays
from microtome.storage.commits import StageCommits
from microtome.storage.errors import OutOfSpaceError, PlaceUnreachableError, UsageError
from microtome.storage.places import Place, open_place
from microtome.storage.shards import ShardPlan

Told = list[tuple[str, str, int, float]]


@pytest.fixture
def told() -> Iterator[Told]:
    """Every retry of this test, as listeners hear of it."""
    heard: Told = []
    end = retry.listen(lambda *what: heard.append(what))
    yield heard
    end()


@pytest.fixture
def place(faulty_s3: FaultyS3) -> Place:
    """A place that was reached once, behind the proxy."""
    place = open_place(f"{faulty_s3.url}/run")
    place.write("there", b"old content")
    faulty_s3.faults.requests = 0
    return place


OPERATIONS: dict[str, Callable[[Place], object]] = {
    "read": lambda place: place.read("there") == b"old content",
    "checksum": lambda place: place.checksum("there")[0] == 11,
    "size": lambda place: place.size("there") == 11,
    "list": lambda place: list(place.list()) == [("there", 11)],
    "write": lambda place: place.write("there", b"new" * 1000) or place.read("there") == b"new" * 1000,
    "create": lambda place: place.create("new", b"x" * 1000) and place.read("new") == b"x" * 1000,
    "replace": lambda place: place.replace("there", b"old content", b"new") and place.read("there") == b"new",
    "delete": lambda place: place.delete(["there", "absent"]) or place.size("there") is None,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_survives_every_fault(
    place: Place, faulty_s3: FaultyS3, told: Told, operation: str, kind: str
) -> None:
    times = 1 if kind == "hang" else 2
    faulty_s3.inject(kind, times=times)
    assert OPERATIONS[operation](place)
    if (operation, kind) == ("size", "cut answer"):
        return  # this answer has no body that could be cut
    assert [met[0] for met in faulty_s3.faults.met] == [kind] * times
    assert len(told) == times or (kind == "cut answer" and operation in ("write", "create"))  # nor do all of these
    assert {attempt for _, _, attempt, _ in told} <= {1, 2}
    assert all(faulty_s3.url in what and error and pause > 0 for what, error, _, pause in told)


def test_a_create_whose_answer_was_lost_knows_that_it_was_first(place: Place, faulty_s3: FaultyS3) -> None:
    faulty_s3.inject("lost answer", method="PUT")
    assert place.create("lock.json", b"mine")
    faulty_s3.inject("lost answer", method="PUT")
    assert not place.create("lock.json", b"yours")
    assert place.read("lock.json") == b"mine"


def test_a_replace_whose_answer_was_lost_knows_that_it_was_done(place: Place, faulty_s3: FaultyS3) -> None:
    faulty_s3.inject("lost answer", method="PUT")
    assert place.replace("there", b"old content", b"mine")
    assert not place.replace("there", b"old content", b"yours")
    assert place.read("there") == b"mine"


def test_two_conditional_writes_at_once_are_judged_again(place: Place, faulty_s3: FaultyS3, told: Told) -> None:
    faulty_s3.inject("409", method="PUT")
    assert place.create("lock.json", b"mine")
    faulty_s3.inject("409", method="PUT")
    assert place.replace("lock.json", b"mine", b"again")
    assert [error for _, error, *_ in told] == ["409 Conflict, ConditionalRequestConflict"] * 2


def test_patience_ends(place: Place, faulty_s3: FaultyS3, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROTOME_PATIENCE", "0.6")
    began = time.monotonic()
    with (
        faulty_s3.faults.outage(),
        pytest.raises(PlaceUnreachableError, match=r"could not read s3://.*/run/there in \d+ attempts .*run the same"),
    ):
        place.read("there")
    assert time.monotonic() - began < 60
    assert [attempt for _, _, attempt, _ in told] == list(range(1, len(told) + 1))
    assert len(told) >= 2
    assert place.read("there") == b"old content"


def test_an_outage_is_sat_out(place: Place, faulty_s3: FaultyS3, told: Told) -> None:
    with ThreadPoolExecutor(1) as pool:
        with faulty_s3.faults.outage():
            reading = pool.submit(place.read, "there")
            while len(told) < 3:
                time.sleep(0.01)
        assert reading.result(30) == b"old content"


def test_a_place_that_was_reached_keeps_its_patience_in_another_process(place: Place, faulty_s3: FaultyS3) -> None:
    import pickle

    faulty_s3.faults.requests = 0
    again = pickle.loads(pickle.dumps(place))
    assert again.read("there") == b"old content"
    assert faulty_s3.faults.requests == 1  # no probing first


@pytest.mark.parametrize("kind", ["503", "hang", "cut request"])
def test_at_first_contact_patience_is_short(faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(retry, "FIRST_PATIENCE", 0.5)
    faulty_s3.inject(kind, times=1000)
    began = time.monotonic()
    with pytest.raises(PlaceUnreachableError, match="could not reach s3://"):
        open_place(f"{faulty_s3.url}/run").size("run.json")
    assert time.monotonic() - began < 15


def test_a_bucket_that_does_not_exist_is_said_at_once(s3: S3, told: Told) -> None:
    with pytest.raises(UsageError, match="s3://no-such-bucket/run: there is no bucket no-such-bucket"):
        open_place("s3://no-such-bucket/run").size("run.json")
    assert told == []


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_of_the_credentials_is_said_at_once(
    s3: S3, told: Told, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(UsageError, match=r"no credentials .*set AWS_ACCESS_KEY_ID"):
        open_place(f"{s3.url}/run").size("run.json")
    assert told == []


def test_a_storage_account_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UsageError, match=r"az://c/run: no credentials .*set AZURE_STORAGE_ACCOUNT_NAME"):
        open_place("az://c/run").size("run.json")


@pytest.mark.parametrize("variable", ["MICROTOME_PATIENCE", "MICROTOME_TIMEOUT"])
def test_seconds_that_are_none_are_refused(faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "soon")
    faulty_s3.inject("503")
    with pytest.raises(UsageError, match=f"{variable} is 'soon'; give seconds"):
        open_place(f"{faulty_s3.url}/run").size("run.json")


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_and_commits_survive_every_fault(place: Place, faulty_s3: FaultyS3, told: Told, kind: str) -> None:
    plan = ShardPlan(10, 4, 2)
    values = np.random.default_rng(0).normal(size=(10, 20, 3, 2)).astype(np.float16)
    arrays = RunArrays(place, plan)
    arrays.create("maps", (20, 3, 2), "float16", channels=True)
    commits = StageCommits(place, "capture", "key")
    for shard in range(plan.count):
        rows = plan.samples_of(shard)
        faulty_s3.inject(kind, match="/c/", method="PUT")
        (written,) = arrays.write_shard("maps", shard, values[rows.start : rows.stop])
        assert place.checksum(written.key) == (written.size, written.crc)
        faulty_s3.inject(kind, match="commits")
        commits.commit(shard, {"a": np.arange(3)}, [written])
    faulty_s3.inject(kind, match="/c/", method="GET")
    np.testing.assert_array_equal(RunArrays(place, plan).read("maps", 0, 10), values)
    faulty_s3.inject(kind, match="commits")
    assert commits.done(plan.count) == {0, 1, 2}
    assert len(faulty_s3.faults.met) == 2 * plan.count + 2
    assert any("/c/" in what for what, *_ in told)


def test_a_full_bucket_is_named(place: Place, faulty_s3: FaultyS3, told: Told) -> None:
    faulty_s3.inject("507")
    with pytest.raises(OutOfSpaceError, match=r"s3://.*/run is full \(507.*make room"):
        place.write("a", b"x")
    faulty_s3.inject("507", match="/c/")
    arrays = RunArrays(place, ShardPlan(2, 2, 2))
    arrays.create("maps", (2,), "float32")
    with pytest.raises(OutOfSpaceError, match="is full"):
        arrays.write_shard("maps", 0, np.ones((2, 2), np.float32))
    assert told == []


def test_a_denied_access_is_said_at_once(place: Place, faulty_s3: FaultyS3, told: Told) -> None:
    for do in (lambda: place.write("a", b"x"), lambda: list(place.list()), lambda: place.delete(["a"])):
        faulty_s3.inject("403")
        with pytest.raises(UsageError, match=r"access denied \(403 Forbidden, AccessDenied\); check AWS_ACCESS_KEY_ID"):
            do()
    assert told == []


# The pauses themselves


def test_pauses_grow_and_are_told(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    left = 12

    def do() -> str:
        nonlocal left
        left -= 1
        if left:
            raise ConnectionError("cut")
        return "done"

    assert retry.call("read it", do, str) == "done"
    assert [pause for *_, pause in told] == slept
    assert [(what, error) for what, error, *_ in told] == [("read it", "cut")] * 11
    for number, pause in enumerate(slept):
        longest = min(retry.LONGEST_PAUSE, retry.FIRST_PAUSE * 2**number)
        assert longest / 2 <= pause <= longest


def test_what_does_not_pass_is_not_tried_again(told: Told) -> None:
    tried = 0

    def do() -> None:
        nonlocal tried
        tried += 1
        raise KeyError("x")

    with pytest.raises(KeyError):
        retry.call("read it", do, lambda error: None)
    assert (tried, told) == (1, [])


def test_coroutines_are_tried_again_as_well(told: Told) -> None:
    left = [1, 2]

    async def do() -> str:
        if left:
            raise ConnectionError(f"cut {left.pop()}")
        return "done"

    assert asyncio.run(retry.call_async("read it", do, str)) == "done"
    assert [attempt for _, _, attempt, _ in told] == [1, 2]


def test_whoever_stopped_listening_hears_nothing() -> None:
    heard: Told = []
    end = retry.listen(lambda *what: heard.append(what))
    end()
    end()
    left = [1]

    def do() -> None:
        if left:
            left.pop()
            raise ConnectionError

    retry.call("read it", do, repr)
    assert heard == []


def test_local_places_never_retry(tmp_path: Path, told: Told) -> None:
    with pytest.raises(FileNotFoundError):
        open_place(tmp_path).read("absent")
    assert told == []
