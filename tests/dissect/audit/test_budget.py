"""Budgets: what they mean, what is expected before the start, and that a limit stops an audit without loss."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from helpers.compare import differences

from microtome.dissect.audit import AuditConfig, resume_audit, run_audit
from microtome.dissect.audit.budget import Budget, Watch, parse_bytes, parse_deadline, size_text
from microtome.dissect.audit.stopping import AuditStoppedError, StopSignal
from microtome.dissect.cli import main
from microtome.storage.errors import UsageError
from microtome.storage.places import open_place
from microtome.storage.run import Run
from microtome.storage.runlog import read_log

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("200GB", 200e9), ("1.5 TiB", 1.5 * 2**40), ("64gib", 64 * 2**30), ("1000", 1000), ("3k", 3000), ("7 MB", 7e6)],
)
def test_sizes(text: str, expected: float) -> None:
    assert parse_bytes(text, "--max-disk") == int(expected)


@pytest.mark.parametrize("text", ["", "much", "-3GB", "0", "GB", "3 PB", "1e9"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--max-disk"):
        parse_bytes(text, "--max-disk")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8h", NOON + timedelta(hours=8)),
        ("90min", NOON + timedelta(minutes=90)),
        ("2h30m", NOON + timedelta(hours=2, minutes=30)),
        ("1.5 h", NOON + timedelta(minutes=90)),
        ("45s", NOON + timedelta(seconds=45)),
        ("13:05", NOON.replace(hour=13, minute=5)),
        ("07:00", NOON.replace(hour=7) + timedelta(days=1)),
        ("12:00", NOON + timedelta(days=1)),
    ],
)
def test_deadlines(text: str, expected: datetime) -> None:
    assert parse_deadline(text, NOON) == expected


@pytest.mark.parametrize("text", ["", "soon", "25:00", "12:60", "8 days", "h"])
def test_deadlines_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--time-limit"):
        parse_deadline(text, NOON)


def test_sizes_in_words() -> None:
    assert [size_text(n) for n in (0, 999, 1500, 2.5e7, 1.234e12)] == ["0 B", "999 B", "1.5 kB", "25.0 MB", "1.23 TB"]


def config(out: Path, samples: int = 96) -> AuditConfig:
    """The pages and maps, which no budget is about, are made small or not at all."""
    return AuditConfig(
        model="builtin:scenes-cnn",
        dataset=f"scenes:{samples}",
        layers=("block4", "block5"),
        out=out,
        shard_samples=8,
        top=1,
        map=False,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(config(tmp_path_factory.mktemp("runs") / "whole")).run.path


def test_the_estimate_is_near_what_the_run_takes(undisturbed: Path) -> None:
    estimate = Run.open(undisturbed).info["estimate"]
    folders = ("arrays.zarr", "commits")
    taken = sum(file.stat().st_size for name in folders for file in (undisturbed / name).rglob("*") if file.is_file())
    assert 0.5 * taken < 96 * estimate["bytes_per_sample"] < 2 * taken
    assert 0 < estimate["bytes_per_sample_streamed"] < estimate["bytes_per_sample"]
    assert estimate["seconds_per_sample"] > 0


def test_too_little_disk_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"96 images need about .* of disk, --max-disk allows .*--keep-activations no"):
        run_audit(config(tmp_path / "run"), budget=Budget(disk=100_000))
    assert not (tmp_path / "run").exists()


def test_disk_that_runs_out_stops_at_a_shard(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Budget, "refuse_disk", lambda *arguments, **others: None)  # as if the estimate had been wrong
    limit = 2_500_000
    with pytest.raises(
        AuditStoppedError, match=r"--max-disk 2.5 MB.*capture is at \d+ of 12 shards.*--resume"
    ) as stopped:
        run_audit(config(tmp_path / "run"), budget=Budget(disk=limit))
    assert stopped.value.exit_code == 130
    used = sum(file.stat().st_size for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert used < 2 * limit  # shards that were at work when the limit was seen are finished
    resume_audit(tmp_path / "run")
    assert differences(tmp_path / "run", undisturbed) == []
    kinds = [event["kind"] for event in read_log(open_place(tmp_path / "run"))]
    assert kinds.count("start") == 2
    assert kinds.count("stop") == 1
    assert [kind for kind in kinds if kind != "memory"][-1] == "end"


def test_the_time_limit_stops_at_a_shard(tmp_path: Path, undisturbed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = ["audit", "builtin:scenes-cnn", "scenes:96", "--layers", "block4,block5", "--shard-samples", "8"]
    command += ["--top", "1", "--no-map"]
    with pytest.raises(SystemExit) as left:
        main([*command, "--out", str(out), "--time-limit", "0.05s"])
    assert left.value.code == 130
    said = capfd.readouterr().err
    assert "the time limit" in said
    assert f"microtome audit --resume {out}" in said
    with pytest.raises(SystemExit) as left:
        main(["audit", "--resume", str(out), "--time-limit", "2h"])
    assert left.value.code == 0
    assert differences(out, undisturbed) == []


def test_memory_in_use_stops_it(tmp_path: Path) -> None:
    stop = StopSignal()
    with Watch(Budget(memory=1_000_000), stop, open_place(tmp_path)):
        assert stop.wait(5)
    assert "--max-memory is 1.0 MB" in stop.reason


def test_shards_are_cut_to_memory(tmp_path: Path) -> None:
    budget = Budget(memory=2_000_000_000)
    assert budget.samples_a_shard(10_000_000, lanes=2, resident=1_000_000_000) == 20
    with pytest.raises(UsageError, match="too little"):
        budget.samples_a_shard(300_000_000, lanes=2, resident=1_000_000_000)
    assert Budget().samples_a_shard(10**12, lanes=8, resident=10**12) is None


def test_a_stop_with_a_reason_lasts() -> None:
    stop = StopSignal()
    stop.set()
    stop.clear()
    assert not stop.is_set()
    stop.set("the first reason")
    stop.set("another")
    stop.clear()
    assert stop.is_set()
    assert stop.reason == "the first reason"
