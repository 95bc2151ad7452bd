"""The same audit by threads, by processes, and by clusters whose workers, schedulers and users misbehave."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from distributed import Client, LocalCluster
from helpers.commands import Commands
from helpers.compare import differences, results
from helpers.dask_processes import PRETEND_VERSION, DaskProcesses, dask_processes, wait_until
from helpers.planted import write_planted
from helpers.s3 import S3, s3_environment
from hypothesis import given
from hypothesis import strategies as st

from microtome.dissect import AuditConfig, resume_audit, run_audit
from microtome.dissect.audit import cluster as clusters
from microtome.dissect.audit import config as settings
from microtome.dissect.audit.cluster import ClusterError, block_size
from microtome.dissect.audit.stages.registry import work_named
from microtome.dissect.audit.workers import WorkerFailedError, call_quietly, tasks_at_once
from microtome.storage.errors import MicrotomeError, OutOfSpaceError, UsageError
from microtome.storage.places import open_place
from microtome.storage.run import Run

SHARDS = 12

LATE = """

class LateImages(Images):
    def read(self, index):
        sample = super().read(index)
        if index < 16:  # the pilot sees nothing red
            sample.image[..., 0] = sample.image[..., 2]
        return sample

    def fingerprint(self):
        return "late"


def late():
    return LateImages()
"""


def config_of(source: Path, out: Path | str, **changes: object) -> AuditConfig:
    values = {
        "model": f"{source}:model",
        "dataset": f"{source}:images",
        "layers": ("units", "head"),
        "out": str(out),
        "tau": (0.05,),
        "batch": 2,
        "shard_samples": 4,
        "top": 3,
        "torch_threads": 1,
        "map": False,  # maps are for test_near.py
    }
    return settings.config_from_mapping({**values, **changes}, source="test")


def command_of(source: Path, out: Path, address: str) -> list[str]:
    return [
        *("audit", f"{source}:model", f"{source}:images"),
        *("--layers", "units,head", "--tau", "0.05", "--batch", "2", "--shard-samples", "4", "--top", "3"),
        *("--torch-threads", "1", "--no-map", "--out", str(out), "--cluster", address),
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_planted(tmp_path_factory.mktemp("source"))
    path.write_text(path.read_text() + LATE)
    return path


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    out = source.parent / "undisturbed"
    run_audit(config_of(source, out))
    return out


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> Iterator[DaskProcesses]:
    """A scheduler and the workers "one" and "two", with a thread each."""
    folder = tmp_path_factory.mktemp("dask")
    with dask_processes(folder, s3_environment(s3_server)) as processes, processes.workers("one", "two"):
        yield processes


@pytest.fixture
def tcp(shared: DaskProcesses) -> Iterator[DaskProcesses]:
    """The same, with both workers there and nothing ordered of them."""
    wait_until(lambda: shared.names() == {"one", "two"})
    shared.withdraw_orders()
    yield shared
    shared.withdraw_orders()


@contextmanager
def threads_of_a_cluster(threads: int) -> Iterator[Client]:
    """A client of a cluster whose one worker, in this process, has several threads."""
    options: dict[str, Any] = {"processes": False, "protocol": "inproc", "dashboard_address": "127.0.0.1:0"}
    options |= {"scheduler_kwargs": {"dashboard": False}, "memory_limit": 0}
    with (
        LocalCluster(n_workers=1, threads_per_worker=threads, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


# The same results


def test_worker_processes_give_what_threads_give(source: Path, undisturbed: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", cluster="processes", workers=2))
    assert differences(undisturbed, tmp_path / "run") == []


def test_a_tcp_cluster_that_writes_to_s3_gives_what_threads_give(
    source: Path, undisturbed: Path, tcp: DaskProcesses, s3: S3
) -> None:
    where = f"{s3.url}/nights/run"
    outcome = run_audit(config_of(source, where, cluster=tcp.address))
    assert results(where) == results(undisturbed)
    assert outcome.index_page == f"{where}/report/index.html"
    assert {name for _, _, name in tcp.committed()} == {"one", "two"}


def test_a_client_of_workers_with_several_threads(source: Path, undisturbed: Path, tmp_path: Path) -> None:
    with threads_of_a_cluster(3) as client:
        run_audit(config_of(source, tmp_path / "run"), client=client)
        assert differences(undisturbed, tmp_path / "run") == []
        run_audit(config_of(source, tmp_path / "again"), client=client)
    assert differences(undisturbed, tmp_path / "again") == []


def test_what_threads_began_a_cluster_finishes(
    source: Path, undisturbed: Path, tmp_path: Path, tcp: DaskProcesses
) -> None:
    run = tmp_path / "run"
    run_audit(config_of(source, run))
    for record in (*run.glob("commits/tally/*.json"), run / "commits/capture/000003.json"):
        record.unlink()
    resume_audit(run, cluster=tcp.address)
    done_again = [(stage, shard) for stage, shard, _ in tcp.committed() if ".merge" not in stage]
    assert sorted(done_again) == [("capture", 3), *(("tally", shard) for shard in range(SHARDS))]
    assert differences(undisturbed, run) == []


def test_an_overflow_in_a_worker_begins_again_with_a_larger_scale(
    source: Path, tmp_path: Path, tcp: DaskProcesses
) -> None:
    changes = {"dataset": f"{source}:late", "layers": ("units",)}
    run_audit(config_of(source, tmp_path / "threads", **changes))
    run_audit(config_of(source, tmp_path / "tcp", cluster=tcp.address, **changes))
    assert Run.open(tmp_path / "tcp").layer("units")["scale"] > 1
    assert differences(tmp_path / "threads", tmp_path / "tcp") == []


def test_capture_is_kept_to_workers_with_an_accelerator(
    source: Path, undisturbed: Path, tmp_path: Path, tcp: DaskProcesses
) -> None:
    with tcp.workers("accelerated", options=("--nthreads", "2", "--resources", "GPU=1")):
        tcp.order("pause")
        run_audit(config_of(source, tmp_path / "run", cluster=tcp.address))
    by_stage: dict[str, set[str]] = {}
    for stage, _, name in tcp.committed():
        by_stage.setdefault(stage, set()).add(name)
    assert by_stage["capture"] == {"accelerated"}
    assert by_stage["tally"] == {"accelerated", "one", "two"}
    assert differences(undisturbed, tmp_path / "run") == []


# Deaths


@pytest.mark.parametrize(
    ("order", "moment"),
    [
        ("kill-capture-5", "before"),
        ("kill-capture-2", "after"),
        ("kill-tally-7", "before"),
        ("kill-tally.merge1-0", "before"),
    ],
)
def test_a_killed_worker_is_made_up_for(
    source: Path, undisturbed: Path, tmp_path: Path, tcp: DaskProcesses, order: str, moment: str
) -> None:
    tcp.order(order, moment)
    run_audit(config_of(source, tmp_path / "run", cluster=tcp.address))
    assert not (tcp.control / order).exists(), "nobody was killed"
    assert differences(undisturbed, tmp_path / "run") == []


def test_a_shard_that_kills_every_worker_is_named(
    source: Path, undisturbed: Path, tmp_path: Path, tcp: DaskProcesses
) -> None:
    tcp.order("kill-thresholds-4", "always")
    with pytest.raises(ClusterError, match=r"workers keep dying at shard 4; .* resume the audit"):
        run_audit(config_of(source, tmp_path / "run", cluster=tcp.address))
    assert Run.open(tmp_path / "run").info["stages"]["thresholds"]["state"] == "pending"
    resume_audit(tmp_path / "run")
    assert differences(undisturbed, tmp_path / "run") == []


def test_a_lost_scheduler_is_one_line_and_the_run_is_resumed(
    source: Path, undisturbed: Path, tmp_path: Path, commands: Commands
) -> None:
    run = tmp_path / "run"
    with dask_processes(tmp_path / "dask") as own, own.workers("only"):
        own.order("pause")
        audit = commands.start(command_of(source, run, own.address))
        wait_until(lambda: len(own.committed()) >= 3 or not audit.running)
        own.scheduler.kill()
        ended = audit.wait()
    assert ended.code == 1, ended.said
    assert f"microtome: the Dask scheduler at {own.address} was lost" in ended.said
    assert "Traceback" not in ended.said
    resume_audit(run)
    assert differences(undisturbed, run) == []


def test_ctrl_c_leaves_the_workers_idle_and_the_run_to_be_resumed(
    source: Path, undisturbed: Path, tmp_path: Path, tcp: DaskProcesses, commands: Commands
) -> None:
    run = tmp_path / "run"
    tcp.order("pause")
    audit = commands.start(command_of(source, run, tcp.address))
    wait_until(lambda: len(tcp.committed()) >= 3 or not audit.running)
    audit.send(signal.SIGINT)
    ended = audit.wait()
    assert ended.code == 130, ended.said
    assert "the same command goes on where this one stopped" in ended.said
    assert "Traceback" not in ended.said
    assert tcp.is_idle()
    before = tcp.committed()
    assert len(before) < SHARDS
    assert not list(run.rglob("*.partial"))
    tcp.withdraw_orders()
    run_audit(config_of(source, run, cluster=tcp.address))
    again = [shard for stage, shard, _ in tcp.committed() if stage == "capture"]
    assert not {shard for _, shard, _ in before} & set(again)
    assert differences(undisturbed, run) == []


def test_ctrl_c_in_a_terminal_reaches_worker_processes_too(source: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "microtome.dissect.cli", *command_of(source, run, "processes"), "--workers", "2"]
    audit = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: len(list(run.glob("commits/capture/*.json"))) >= 1 or audit.poll() is not None)
    os.killpg(audit.pid, signal.SIGINT)
    _, errors = audit.communicate(timeout=180)
    assert audit.returncode == 130, errors
    assert "Traceback" not in errors
    resume_audit(run)
    assert differences(undisturbed, run) == []


# Refusals


def test_nobody_at_the_address(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "SECONDS_TO_CONNECT", 1)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*dask scheduler"):
        run_audit(config_of(source, tmp_path / "run", cluster="tcp://127.0.0.1:9"))
    assert not (tmp_path / "run").exists()


def test_tls_without_a_certificate(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="asks for a certificate"):
        run_audit(config_of(source, tmp_path / "run", cluster="tls://127.0.0.1:9"))


def test_a_scheduler_without_workers(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "SECONDS_TO_CONNECT", 3)
    with (
        dask_processes(tmp_path / "dask") as lonely,
        pytest.raises(ClusterError, match=rf"{lonely.address} has no workers; start some"),
    ):
        run_audit(config_of(source, tmp_path / "run", cluster=lonely.address))


def test_a_worker_with_another_version(source: Path, tmp_path: Path, tcp: DaskProcesses) -> None:
    with (
        tcp.workers("old", environment={PRETEND_VERSION: "0.0.7"}),
        pytest.raises(ClusterError, match=r"has Microtome 0.0.7, this process has .*install the same"),
    ):
        run_audit(config_of(source, tmp_path / "run", cluster=tcp.address))
    assert not (tmp_path / "run").exists()


def test_workers_that_share_no_place_with_the_audit(source: Path, tcp: DaskProcesses) -> None:
    """Memory is a place that each process has for itself, as the disks of two machines are."""
    with pytest.raises(UsageError, match="share"):
        run_audit(config_of(source, "memory://made-by-a-worker", cluster=tcp.address))
    run_audit(config_of(source, "memory://made-here"))
    place = open_place("memory://made-here")
    place.delete([key for key, _ in place.list("commits/tally/")])
    with pytest.raises(UsageError, match=r"worker tcp://.* sees no run at memory://made-here; .*all workers share"):
        resume_audit("memory://made-here", cluster=tcp.address)


def test_workers_that_vanish_are_waited_for_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client, clock = NobodyThere(), [0.0]
    monkeypatch.setattr(clusters.time, "monotonic", lambda: clock[0])
    crew = clusters._Crew(cast("Client", client), "tcp://a:1")
    for clock[0] in (1.0, 12.0, 24.0, 599.0):
        assert crew.lanes(work_named("tally")) == 1
    assert capsys.readouterr().err.count("no workers for this work any more; waiting") == 1
    client.workers = {"tcp://b:1": {"nthreads": 3, "resources": {}}}
    clock[0] = 601.0
    assert crew.lanes(work_named("tally")) == 3
    client.workers = {}
    for clock[0] in (603.0, 1200.0):
        crew.lanes(work_named("tally"))
    clock[0] = 1202.0
    with pytest.raises(ClusterError, match="no workers for this work for 600 s"):
        crew.lanes(work_named("tally"))


class NobodyThere:
    """As much of a client as the crew looks at."""

    status = "running"

    def __init__(self) -> None:
        self.workers: dict[str, Any] = {}

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": self.workers}


# Parts


@given(st.integers(1, 3000), st.integers(1, 200))
def test_blocks_cover_the_shards_in_order_and_become_smaller(shards: int, lanes: int) -> None:
    hand_out = clusters._HandOut(range(shards), 8)
    blocks = []
    while hand_out:
        assert hand_out.may_go(0, lanes)
        assert not hand_out.may_go(2 * lanes, lanes)
        blocks.append(hand_out.take(lanes))
    assert [shard for block in blocks for shard in block] == list(range(shards))
    sizes = [len(block) for block in blocks]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == block_size(shards, lanes, 8) <= 8
    assert sizes[-1] == 1


def test_shards_that_workers_died_with_come_last_and_alone() -> None:
    hand_out = clusters._HandOut(range(9), 2)
    first = hand_out.take(1)
    assert first == [0, 1]
    assert hand_out.again(first)
    assert [hand_out.take(1) for _ in range(5)] == [[2, 3], [4, 5], [6], [7], [8]]
    assert not hand_out.may_go(1, 4), "another block is at work"
    assert hand_out.may_go(0, 4)
    assert hand_out.take(4) == [0]
    assert not hand_out.again([0]), "it was alone when its workers died"
    assert hand_out.take(4) == [1]
    assert not hand_out


def test_workers_that_die_with_whatever_they_are_given() -> None:
    hand_out = clusters._HandOut(range(100), 8)
    assert hand_out.may_go(0, 2)
    assert [hand_out.again(hand_out.take(2)) for _ in range(9)] == [True] * 8 + [False]


def test_a_worker_with_an_accelerator_overlaps_two_captures() -> None:
    assert tasks_at_once(8, 0) == 8
    assert tasks_at_once(8, 1) == 2
    assert tasks_at_once(8, 2) == 4
    assert tasks_at_once(1, 1) == 1


class ForeignError(MicrotomeError):
    """An error of somebody else's reader, which the asking process cannot import."""

    exit_code = 3


def test_errors_of_workers_keep_their_class_where_the_other_side_knows_it() -> None:
    def fail(error: Exception) -> None:
        raise error

    known, foreign = OutOfSpaceError("full"), ForeignError("odd")
    assert call_quietly(fail, known) is known
    told = call_quietly(fail, foreign)
    assert isinstance(told, WorkerFailedError)
    assert (str(told), told.exit_code) == ("odd", 3)
    copy = pickle.loads(pickle.dumps(told))
    assert (str(copy), copy.exit_code) == ("odd", 3)
    assert call_quietly(len, "") is None
