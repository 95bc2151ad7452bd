"""Runs that were killed, interrupted, changed or asked for again."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import Commands
from helpers.compare import differences
from helpers.planted import write_planted

from microtome.dissect import AuditConfig, resume_audit, run_audit
from microtome.dissect.audit import config as settings
from microtome.dissect.audit.stages import capture
from microtome.storage.errors import MicrotomeError, RunDamagedError, RunMismatchError, UsageError
from microtome.storage.run import Run


def config_of(source: Path, out: Path, **changes: object) -> AuditConfig:
    values = {
        "model": f"{source}:model",
        "dataset": f"{source}:images",
        "layers": ("units", "head"),
        "out": out,
        "tau": (0.05,),
        "batch": 2,
        "shard_samples": 4,
        "top": 3,
        "map": False,  # maps are for test_map.py
    }
    return settings.config_from_mapping({**values, **changes}, source="test")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    out = source.parent / "undisturbed"
    run_audit(config_of(source, out))
    return out


def test_workers_and_lanes_do_not_change_a_byte(source: Path, undisturbed: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", workers=3))
    assert differences(undisturbed, tmp_path / "run") == []


class Crash(BaseException):
    """Stands for a kill that python still gets to see."""


@pytest.mark.parametrize("after", [0, 1, 5, 11])
def test_a_crash_in_capture_is_resumed_to_the_same_bytes(
    source: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    original = capture.CaptureShard._commit
    commits = []

    def crash_later(self: capture.CaptureShard, *arguments: object) -> None:
        commits.append(arguments)
        if len(commits) > after:
            raise Crash
        original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(capture.CaptureShard, "_commit", crash_later)
    with pytest.raises(Crash):
        run_audit(config_of(source, tmp_path / "run"))
    monkeypatch.undo()
    assert not (tmp_path / "run" / "layers").exists()
    (tmp_path / "run" / "arrays.zarr" / ".c.0.partial").write_bytes(b"left by a killed writer")
    resume_audit(tmp_path / "run")
    assert differences(undisturbed, tmp_path / "run") == []


@pytest.mark.slow
def test_kill_9_is_resumed_to_the_same_bytes(
    source: Path, undisturbed: Path, tmp_path: Path, commands: Commands
) -> None:
    """The process is killed as soon as a stage has committed its first shards; each start goes a stage further."""
    run = tmp_path / "run"
    command = ["audit", f"{source}:model", f"{source}:images", "--layers", "units,head", "--tau", "0.05"]
    command += ["--batch", "2", "--shard-samples", "4", "--top", "3", "--no-map", "--out", str(run)]
    for stage in ("capture", "thresholds", "tally"):
        audit, folder = commands.start(command), run / "commits" / stage
        audit.wait(lambda folder=folder: len(list(folder.glob("*.json"))) >= 2)  # type: ignore[misc]
        assert audit.kill().code == -signal.SIGKILL
    finished = commands.run(command)
    assert finished.code == 0, finished.said
    assert differences(undisturbed, run) == []


@pytest.mark.parametrize("lost", ["tally/000001", "capture.merge1/000000", "tally.merge1/000000"])
def test_a_lost_commit_of_a_finished_run_is_made_again(
    source: Path, undisturbed: Path, tmp_path: Path, lost: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "commits" / f"{lost}.safetensors.zst").unlink()
    run_audit(config_of(source, run))
    assert differences(undisturbed, run) == []
    assert (run / "commits" / f"{lost}.safetensors.zst").is_file()


def test_a_finished_run_is_left_as_it_is(source: Path, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.parquet")}
    run_audit(config_of(source, undisturbed))
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.parquet")} == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "other_weights"}, "model or weights"),
        ({"dataset": "fewer"}, "data"),
        ({"dataset": "half_broken"}, "data"),
        ({"limit": 20}, "number of samples"),
        ({"tau": (0.1,)}, "tau"),
        ({"iou": "all"}, "iou"),
        ({"layers": ("units",)}, "layers"),
        ({"batch": 4}, "batch"),
        ({"size": 40}, "size"),
        ({"top": 4}, "top"),
        ({"label_size": (8, 8)}, "label_size"),
        ({"torch_threads": 7}, "torch_threads"),
    ],
)
def test_a_change_is_refused_by_name(source: Path, undisturbed: Path, changes: dict[str, object], named: str) -> None:
    changes = {k: f"{source}:{v}" if k in ("model", "dataset") else v for k, v in changes.items()}
    with pytest.raises(RunMismatchError, match=f"another.*{named}") as caught:
        run_audit(config_of(source, undisturbed, **changes))
    assert caught.value.exit_code == 4


def test_a_truncated_shard_is_done_again(source: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_audit(config_of(source, run))
    shard = run / "arrays.zarr/layers/units/activations/c/3/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-7])
    resume_audit(run)
    assert differences(undisturbed, run) == []


def test_a_flipped_bit_is_noticed_and_mended_as_the_error_says(source: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_audit(config_of(source, run))
    shard = run / "arrays.zarr/layers/units/activations/c/3/0/0/0"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 3] ^= 16
    shard.write_bytes(damaged)
    with pytest.raises(RunDamagedError, match="find and mend the damage with: microtome verify"):
        Run.open(run).activation_range("units", 12, 16)
    shard.unlink()
    (run / "commits/capture/000003.json").unlink()
    resume_audit(run)
    assert differences(undisturbed, run) == []


def test_an_overflow_begins_again_with_a_larger_scale(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pilot saw nothing large: the capture notices, multiplies the scale, and no value becomes infinite."""
    monkeypatch.setattr("microtome.dissect.audit.pilot.scale_for", lambda magnitude: 1.0)
    outcome = run_audit(config_of(source, tmp_path / "run", layers=("units",)))
    assert outcome.run.layer("units")["scale"] == 16.0
    assert not np.isinf(outcome.run.activation_range("units", 0, 48)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ("unit",)}, "did you mean units"),
        ({"tau": (1.5,)}, "fraction between 0 and 1"),
        ({"tau": (0.1, 0.1)}, "each fraction once"),
        ({"iou": "images"}, "did you mean image"),
        ({"device": "cuda:9"}, "cuda"),
        ({"device": "tpu"}, "auto, cpu or cuda"),
        ({"batch": 0}, "at least 1"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"nonsense": 1}, "no setting"),
    ],
)
def test_mistakes_are_told_plainly(source: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_audit(config_of(source, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(MicrotomeError, match="not empty"):
        run_audit(config_of(source, tmp_path))
    assert os.listdir(tmp_path) == ["precious.txt"]
