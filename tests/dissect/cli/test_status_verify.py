"""`microtome status` and `microtome verify` as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.typed import typed

from microtome.storage.lock import RunLock
from microtome.storage.places import open_place


@pytest.fixture
def run(planted_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(planted_run, tmp_path / "run")


def test_status_of_a_finished_run(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, _ = typed(capsys, "status", run)
    assert code == 0
    assert f"{run}: finished, 48 images" in out
    assert "48/48" in out
    assert "skipped: 5 samples" in out
    code, out, _ = typed(capsys, "status", run, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["schema_version"] == 1
    assert answer["state"] == "finished"
    assert [stage["shards_done"] for stage in answer["stages"] if stage["name"] == "tally"] == [48]


def test_status_of_a_run_at_work_and_a_stopped_one(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    with RunLock(open_place(run)):
        code, out, _ = typed(capsys, "status", run)
    assert code == 0
    assert ": running" in out
    assert "held by audit, process" in out
    info = json.loads((run / "run.json").read_text())
    info["stages"]["report"]["state"] = "pending"
    (run / "run.json").write_text(json.dumps(info))
    _, out, _ = typed(capsys, "status", run)
    assert f"microtome audit --resume {run}" in out


def test_verify_finds_repairs_and_says_so_by_its_code(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, _ = typed(capsys, "verify", run)
    assert code == 0
    assert "as it was written" in out
    shard = run / "arrays.zarr/layers/units/activations/c/3/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-5])
    code, out, err = typed(capsys, "verify", run)
    assert code == 4
    assert "damaged: arrays.zarr/layers/units/activations/c/3/0/0/0 has" in out
    assert f"microtome verify {run} --repair" in out
    assert "verify: " not in out
    assert "verify: " in err
    code, out, _ = typed(capsys, "verify", run, "--json")
    answer = json.loads(out)
    assert code == 4
    assert (answer["schema_version"], answer["fine"]) == (1, False)
    assert [(damage["stage"], damage["shard"]) for damage in answer["damages"]] == [("capture", 3)]
    code, out, _ = typed(capsys, "verify", run, "--repair")
    assert code == 0, out
    assert "was damaged and is made again: arrays.zarr/layers/units/activations/c/3/0/0/0" in out
    code, _, _ = typed(capsys, "verify", run)
    assert code == 0


@pytest.mark.parametrize("command", [("status",), ("verify",), ("verify", "--repair")])
def test_no_run_and_a_damaged_one(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: tuple[str, ...]) -> None:
    code, _, err = typed(capsys, *command, tmp_path / "nowhere")
    assert (code, "does not exist" in err) == (2, True)
    (tmp_path / "run.json").write_text("{")
    code, _, err = typed(capsys, *command, tmp_path)
    assert (code, "run.json cannot be read" in err) == (4, True)
    assert err.count("\n") == 1


def test_verify_of_a_run_at_work(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    with RunLock(open_place(run)):
        code, _, err = typed(capsys, "verify", run)
    assert code == 4
    assert "in use: audit, process" in err


@pytest.mark.parametrize("command", ["status", "verify"])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = typed(capsys, command, "--help")
    assert code == 0
    assert f"microtome {command}" in out.split("Example")[1]


def test_help_of_extend_says_what_stays_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = typed(capsys, "extend", "--help")
    assert "Directions fitted at the start" in out
