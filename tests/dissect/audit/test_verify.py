"""Damage of every kind to every kind of file: it is found, named and mended to the byte, or refused with advice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.planted import write_planted
from helpers.s3 import S3

from microtome.dissect.audit import read_status, repair, repair_run, resume_audit, run_audit, verify_run
from microtome.dissect.audit.config import AuditConfig, config_from_mapping
from microtome.dissect.audit.extend import extend_run
from microtome.dissect.audit.stages import capture
from microtome.storage.errors import RunDamagedError, RunLockedError, UsageError
from microtome.storage.lock import RunLock
from microtome.storage.places import open_place
from microtome.storage.run import Run

SHARD = "arrays.zarr/layers/units/activations/c/3/0/0/0"

Harm = Callable[[Path], None]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def delete(path: Path) -> None:
    path.unlink()


DRIFT = "MICROTOME_TEST_DRIFT"
DRIFTING = f"""

class Drifting(Images):
    def read(self, index):
        import os
        sample = super().read(index)
        drift = 12 <= index < 16 and "{DRIFT}" in os.environ
        return Sample(sample.image // 2, sample.planes, sample.image_labels) if drift else sample


def drifting():
    return Drifting(broken=(0, 5, 6, 7, 40))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Planted units, over images that four samples show differently where the environment says so."""
    path = write_planted(tmp_path_factory.mktemp("source"))
    path.write_text(path.read_text() + DRIFTING)
    return path


def config_of(source: Path, out: Path | str, **changes: object) -> AuditConfig:
    values = {"model": f"{source}:model", "dataset": f"{source}:drifting", "layers": ("units", "head"), "out": out}
    settings = {"tau": (0.05,), "batch": 2, "shard_samples": 4, "top": 3, "map": False}  # maps: test_map.py
    return config_from_mapping({**values, **settings, **changes}, source="test")


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    out = source.parent / "undisturbed"
    run_audit(config_of(source, out))
    return out


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(undisturbed, tmp_path / "run")


def everything(run: Path) -> dict[str, bytes]:
    """All files whose bytes must be the same after a repair."""
    left_out = ("run.json", "lock.json", ".swap.lock", "repair.json")
    files = [path for path in run.rglob("*") if path.is_file()]
    found = {path.relative_to(run).as_posix(): path.read_bytes() for path in files if path.name not in left_out}
    return {name: content for name, content in found.items() if not name.startswith(("log/", "report/"))}


def differences(one: Path, other: Path) -> list[str]:
    left, right = everything(one), everything(other)
    assert len(left) > 100
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def test_an_undisturbed_run_is_fine(undisturbed: Path) -> None:
    before = everything(undisturbed)
    verdict = verify_run(undisturbed)
    assert verdict.fine
    assert verdict.unfinished == ()
    assert verdict.leftovers == ()
    vouched = {name for name in before if not name.endswith(".json") or name.endswith("zarr.json")}
    records = {name for name in before if name.startswith("commits/") and name.split("/")[-1][0].isdigit()}
    assert verdict.files == len(vouched) + len([name for name in records if name.endswith(".json")])
    assert everything(undisturbed) == before


@pytest.mark.parametrize("harm", [flip, truncate, delete])
@pytest.mark.parametrize(
    "file",
    [
        SHARD,
        "arrays.zarr/labels/c/11/0/0/0",
        "arrays.zarr/layers/units/peaks/c/0/0",
        "commits/capture/000003.json",
        "commits/capture/000003.safetensors.zst",
        "commits/thresholds/000005.safetensors.zst",
        "commits/tally/000000.json",
        "commits/capture.merge1/000000.safetensors.zst",
        "samples.parquet",
        "concepts.parquet",
        "layers/units/units.parquet",
        "arrays.zarr/layers/units/activations/zarr.json",
    ],
)
def test_damage_is_found_and_mended_to_the_byte(undisturbed: Path, run: Path, file: str, harm: Harm) -> None:
    harm(run / file)
    verdict = verify_run(run)
    assert not verdict.fine
    named = {damage.node.record_key if damage.node else damage.key for damage in verdict.damages}
    assert file in named | {damage.key for damage in verdict.damages}  # an altered record accuses what it vouches for
    assert len(named) == 1
    again = repair_run(run)
    assert again.fine, again.damages
    assert again.repaired == verdict.damages
    assert differences(undisturbed, run) == []
    assert verify_run(run).fine


@pytest.mark.parametrize(
    "file",
    [
        "arrays.zarr/zarr.json",
        "arrays.zarr/image_labels/c/2/0",
        "arrays.zarr/layers/head/peak_at/c/7/0",
        "arrays.zarr/layers/head/means/c/7/0",
        "arrays.zarr/layers/head/means/zarr.json",
        "commits/thresholds/000011.json",
        "commits/tally.merge1/000000.json",
        "commits/index/000000.json",
        "commits/index/000000.safetensors.zst",
        "commits/index/tables.json",
        "commits/thresholds/tables.json",
        "commits/tally/tables.json",
        "commits/patches/tables.json",
        "layers/head/iou.parquet",
        "layers/head/thresholds.parquet",
        "layers/head/histogram.parquet",
        "layers/head/patches.parquet",
        "report/index.html",
    ],
)
def test_whatever_is_missing_is_made_again(undisturbed: Path, run: Path, file: str) -> None:
    delete(run / file)
    assert [damage.key for damage in verify_run(run).damages] == [file]
    assert repair_run(run).fine
    assert (run / file).exists()
    assert differences(undisturbed, run) == []


def test_much_damage_at_once(undisturbed: Path, run: Path) -> None:
    files = [*sorted(run.glob("commits/*/0*.json"))[::3], *sorted(run.glob("arrays.zarr/**/c/**/0"))[::5]]
    files += [*run.glob("**/*.parquet"), *run.glob("**/zarr.json"), *run.glob("commits/*/tables.json")]
    for number, file in enumerate(file for file in files if file.is_file()):
        (flip, truncate, delete)[number % 3](file)
    assert len(verify_run(run).damages) > 30
    assert repair_run(run).fine
    assert differences(undisturbed, run) == []


def test_only_the_damaged_shard_is_captured_again(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "commits").glob("*/0*.json")}
    flip(run / SHARD)
    assert repair_run(run).fine
    changed = {
        path.relative_to(run / "commits").as_posix() for path, at in before.items() if path.stat().st_mtime_ns != at
    }
    assert changed == {"capture/000003.json", "capture.merge1/000000.json"}


def test_a_shard_that_comes_out_otherwise_has_the_later_stages_done_again(
    undisturbed: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another processor: the results then are those of what lies there now, all of one piece."""
    delete(run / SHARD)
    with monkeypatch.context() as patched:
        patched.setenv(DRIFT, "1")
        assert repair_run(run).fine
    changed = differences(undisturbed, run)
    assert SHARD in changed
    assert "commits/thresholds/000003.safetensors.zst" in changed
    assert "layers/units/iou.parquet" in changed
    assert {stage["state"] for stage in Run.open(run).info["stages"].values()} == {"done"}
    before = everything(run)
    for stage in ("thresholds", "thresholds.merge1", "tally", "tally.merge1", "capture.merge1"):
        for record in (run / "commits" / stage).glob("0*.json"):
            delete(record)
    assert repair_run(run).fine  # and whoever computes it all from the same capture gets the same
    assert everything(run) == before


def test_temporary_files_are_told_and_removed(run: Path) -> None:
    left = run / "arrays.zarr/layers/units/means/c/.0.abc.partial"
    left.write_bytes(b"half")
    verdict = verify_run(run)
    assert verdict.fine
    assert verdict.leftovers == ("arrays.zarr/layers/units/means/c/.0.abc.partial",)
    assert repair_run(run).leftovers == ()
    assert not left.exists()


@pytest.mark.parametrize("harm", [truncate, delete])
def test_a_run_json_that_cannot_be_read_is_refused_with_advice(run: Path, harm: Harm) -> None:
    harm(run / "run.json")
    before = everything(run)
    expected = UsageError if harm is delete else RunDamagedError
    for look in (verify_run, repair_run):
        with pytest.raises(expected, match=r"run\.json") as caught:
            look(run)
        if harm is truncate:
            assert "bring it back from a copy, or audit again" in str(caught.value)
    assert everything(run) == before


def test_a_run_json_that_was_altered_is_refused_with_advice(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    info["layers"][0]["scale"] *= 2
    (run / "run.json").write_text(json.dumps(info))
    before = everything(run)
    for look in (verify_run, repair_run):
        with pytest.raises(RunDamagedError, match=r"does not belong.*bring it back from a copy") as caught:
            look(run)
        assert caught.value.exit_code == 4
    assert everything(run) == before


def test_a_run_that_keeps_no_activations(source: Path, tmp_path: Path) -> None:
    """Its shards are computed again where a later stage needs them; the maps of its top patches are vouched for."""
    whole = tmp_path / "whole"
    run_audit(config_of(source, whole, keep_activations=False))
    assert verify_run(whole).fine
    maps = min((whole / "layers" / "units" / "patch_maps").iterdir())
    for number, path in enumerate(["commits/guess/000000.json", "commits/capture/000002.safetensors.zst", maps]):
        run = shutil.copytree(whole, tmp_path / f"run{number}")
        name = Path(path).relative_to(whole) if isinstance(path, Path) else Path(path)
        (flip, truncate, delete)[number](run / name)
        damages = verify_run(run).damages
        assert len({damage.node for damage in damages}) == 1
        assert repair_run(run).fine
        assert differences(whole, run) == []


def test_a_run_that_has_grown_and_one_that_is_about_to(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_audit(config_of(source, run, limit=18))
    small = (run / "run.json").read_text()
    extend_run(run, limit=30)
    assert verify_run(run).fine
    flip(run / SHARD)
    assert [damage.key for damage in verify_run(run).damages] == [SHARD]
    assert repair_run(run).fine
    again = tmp_path / "again"
    run_audit(config_of(source, again, limit=18))
    assert json.loads((again / "run.json").read_text())["layers"] == json.loads(small)["layers"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("microtome.dissect.audit.extend.finish", crash)
        with pytest.raises(Crash):
            extend_run(again, limit=30)
    verdict = verify_run(again)  # its records are still those of the small run
    assert verdict.fine
    assert "index" in verdict.unfinished
    flip(again / SHARD)
    assert [damage.key for damage in verify_run(again).damages] == [SHARD]
    assert repair_run(again).fine
    assert differences(run, again) == []


def test_an_order_that_is_lost_is_told_and_not_mended(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    info["data"]["order"] = "0123456789abcdef"
    (run / "run.json").write_text(json.dumps(info))
    (damage,) = verify_run(run).damages
    assert damage.key == "order/0123456789abcdef.safetensors.zst"
    assert damage.to_dict()["stage"] is None
    with pytest.raises(RunDamagedError, match="nothing makes it again: bring it back from a copy"):
        repair_run(run)


class Crash(BaseException):
    """Stands for a kill that python still gets to see."""


def crash(*_: object, **__: object) -> None:
    raise Crash


def test_an_unfinished_run_is_judged_by_what_it_has(
    source: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    info = json.loads((run / "run.json").read_text())
    for stage in ("capture", "thresholds", "tally", "patches", "report"):
        info["stages"][stage]["state"] = "pending"
    (run / "run.json").write_text(json.dumps(info))
    for file in ("commits/capture/000007.json", "commits/thresholds/tables.json", "concepts.parquet"):
        delete(run / file)
    verdict = verify_run(run)
    assert verdict.fine
    assert verdict.unfinished == ("capture", "thresholds", "tally", "patches", "report")
    flip(run / SHARD)
    assert [damage.key for damage in verify_run(run).damages] == [SHARD]
    assert repair_run(run).fine
    assert differences(undisturbed, run) == []


def test_a_run_at_work_is_left_alone(run: Path) -> None:
    flip(run / SHARD)
    with RunLock(open_place(run)):
        for look in (verify_run, repair_run):
            with pytest.raises(RunLockedError, match="in use"):
                look(run)
    assert [damage.key for damage in verify_run(run).damages] == [SHARD]


def test_a_repair_that_breaks_off_is_finished_by_the_next(
    undisturbed: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(run / SHARD)

    with monkeypatch.context() as patched:
        patched.setattr(capture.CaptureShard, "__call__", crash)
        with pytest.raises(Crash):
            repair_run(run)
    verdict = verify_run(run)
    assert "capture" in verdict.unfinished
    resume_audit(run)
    assert verify_run(run).fine
    assert differences(undisturbed, run) == []


def test_a_run_in_a_bucket(source: Path, s3: S3) -> None:
    """Status, verify and repair need nothing but the place."""
    url = f"{s3.url}/runs/night"
    run_audit(config_of(source, url, shard_samples=16))
    place = open_place(url)
    before = {key: place.read(key) for key, _ in place.list("") if key.startswith(("arrays", "commits", "layers"))}
    assert verify_run(url).fine
    status = read_status(url)
    assert (status.state, status.url, status.skipped) == ("finished", url, 5)
    assert status.summary.finished
    harms = {
        "arrays.zarr/layers/units/activations/c/1/0/0/0": b"",
        "commits/tally/000002.safetensors.zst": b"altered",
        "layers/head/iou.parquet": bytes(len(before["layers/head/iou.parquet"])),
    }
    for key, content in harms.items():
        place.write(key, content)
    place.delete(["commits/capture/000000.json"])
    found = [damage.key for damage in verify_run(url).damages]
    assert found == sorted([*harms, "commits/capture/000000.json"])
    assert repair_run(url).fine
    assert {key: place.read(key) for key in before} == before


class BrokenOff(BaseException):
    """Stands for a kill that python still gets to see."""


@pytest.mark.parametrize("drift", [False, True])
@pytest.mark.parametrize("at", ["_resume", "_begin_again"])
def test_a_repair_that_was_broken_off_is_taken_up_again(
    undisturbed: Path, run: Path, monkeypatch: pytest.MonkeyPatch, at: str, drift: bool
) -> None:
    """Even where what it had already made came out differently, and the first attempt alone could know it."""

    def break_off(*arguments: object) -> None:
        raise BrokenOff

    delete(run / SHARD)
    flip(run / "commits/tally/000002.safetensors.zst")
    if drift:
        monkeypatch.setenv(DRIFT, "1")
    with monkeypatch.context() as patched:
        patched.setattr(repair, at, break_off)
        if at == "_resume" or drift:
            with pytest.raises(BrokenOff):
                repair_run(run)
        else:
            assert repair_run(run).fine
    again = repair_run(run)
    assert again.fine
    assert again.unfinished == ()
    assert not (run / repair.NOTE_KEY).exists()
    changed = differences(undisturbed, run)
    assert ("commits/thresholds/000003.safetensors.zst" in changed) == drift
    assert bool(changed) == drift
