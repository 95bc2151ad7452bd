"""Runs that grow: whatever was there before, the result is that of an audit of all images, to the byte."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.commands import Commands
from helpers.compare import differences, results
from helpers.growing import write_growing
from helpers.images import photo, save
from helpers.s3 import S3
from safetensors.numpy import save_file

from microtome.dissect import AuditConfig, extend_run, open_run, rebuild_report, resume_audit, run_audit
from microtome.dissect.audit import verify_run
from microtome.dissect.audit.config import config_from_mapping
from microtome.dissect.cli.app import app
from microtome.storage.errors import RunDamagedError, RunMismatchError, UsageError
from microtome.storage.places import LocalPlace
from microtome.storage.run import Run

Out = TypeVar("Out", Path, str)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_growing(tmp_path_factory.mktemp("source"))


def audit(source: Path, dataset: str, out: Out, **changes: object) -> Out:
    values = {
        "model": f"{source}:model",
        "dataset": dataset if ":" in dataset else f"{source}:{dataset}",
        "layers": ("units", "head"),
        "out": out,
        "tau": (0.05, 0.2),
        "batch": 3,
        "shard_samples": 4,
        "top": 3,
        "map": False,  # also with maps: more scenes, and photos that sort in between
    }
    config: AuditConfig = config_from_mapping({**values, **changes}, source="test")
    run_audit(config)
    return out


@pytest.fixture(scope="module")
def small(source: Path) -> Path:
    return audit(source, "n18", source.parent / "small")


@pytest.fixture(scope="module")
def whole(source: Path) -> Path:
    return audit(source, "n31", source.parent / "whole")


def copy_of(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def is_finished(run: Path) -> bool:
    return all(stage["state"] == "done" for stage in Run.open(run).info["stages"].values())


def shard_times(run: Path) -> dict[int, int]:
    """When the activations of each shard were written."""
    folder = run / "arrays.zarr/layers/units/activations/c"
    return {int(path.name): next(path.rglob("0/0/0")).stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("before", "samples", "after", "kept"),
    [("n20", 20, "n31", 5), ("n18", 18, "n31", 4), ("untracked20", 20, "untracked31", 5)],
)
def test_only_new_shards_are_captured_and_all_is_as_in_a_new_audit(
    source: Path, whole: Path, tmp_path: Path, before: str, samples: int, after: str, kept: int
) -> None:
    run = audit(source, before, tmp_path / "run")
    old = shard_times(run)
    assert extend_run(run, f"{source}:{after}").added == 31 - samples
    assert {shard for shard, time in shard_times(run).items() if old.get(shard) == time} == set(range(kept))
    assert differences(whole, run) == []
    assert verify_run(run).fine
    assert "growth" not in Run.open(run).info["data"]
    assert not open_run(run).summary().empty


@pytest.mark.slow
@pytest.mark.parametrize("shard", [8, 20])
def test_more_scenes(tmp_path: Path, shard: int) -> None:
    what = {"model": "builtin:scenes-cnn", "layers": ("block[45]",), "shard_samples": shard, "batch": 32, "map": True}
    run = audit(tmp_path, "scenes:60?size=64", tmp_path / "run", **what)
    assert extend_run(run, "scenes:90?size=64").added == 30
    assert differences(audit(tmp_path, "scenes:90?size=64", tmp_path / "new", **what), run) == []


def test_a_run_grows_twice(source: Path, whole: Path, small: Path, tmp_path: Path) -> None:
    run = copy_of(small, tmp_path / "run")
    assert extend_run(run, f"{source}:n25").added == 7
    assert extend_run(run, f"{source}:n31", workers=3).added == 6
    assert differences(whole, run) == []


def test_a_limited_run_grows_within_its_dataset(source: Path, whole: Path, tmp_path: Path) -> None:
    run = audit(source, "n31", tmp_path / "run", limit=9)
    assert extend_run(run, limit=20).added == 11
    assert Run.open(run).info["config"]["limit"] == 20
    assert extend_run(run).added == 11
    assert differences(whole, run) == []
    with pytest.raises(UsageError, match=r"--limit 12: .* has 31 samples; extend only adds"):
        extend_run(run, limit=12)


def test_a_run_in_a_bucket_grows(source: Path, whole: Path, s3: S3) -> None:
    run = f"{s3.url}/runs/growing"
    audit(source, "n18", run)
    assert extend_run(run, f"{source}:n31").added == 13
    assert differences(whole, run) == []
    assert verify_run(run).fine


def test_nothing_new(source: Path, small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*") if path.is_file()}
    extension = extend_run(small)
    assert (extension.added, extension.outcome.run.plan.samples) == (0, 18)
    result = CliRunner().invoke(app, ["extend", str(small), "--limit", "18"], standalone_mode=False)
    assert (result.return_value, result.stdout) == (0, f"nothing new: {small} has all 18 images\n")
    after = {path: path.stat().st_mtime_ns for path in small.rglob("*") if path.is_file()}
    assert {path for path in before if before[path] != after.get(path)} == set()


def test_new_images_that_cannot_be_read(source: Path, small: Path, tmp_path: Path) -> None:
    run = copy_of(small, tmp_path / "run")
    result = CliRunner().invoke(app, ["extend", str(run), f"{source}:broken"], standalone_mode=False)
    assert result.return_value == 3
    assert "13 images more, 31 in all" in result.stdout
    assert "2 samples could not be read" in result.stdout
    assert differences(audit(source, "broken", tmp_path / "new"), run) == []


def test_a_split_that_was_not_there_before(source: Path, small: Path, tmp_path: Path) -> None:
    run = copy_of(small, tmp_path / "run")
    extend_run(run, f"{source}:late")
    assert Run.open(run).info["data"]["splits"] == ["val", "train", "late"]
    assert differences(audit(source, "late", tmp_path / "new"), run) == []


def test_new_images_that_overflow_float16(source: Path, tmp_path: Path) -> None:
    """The scale is that of a new audit: everything is captured again, as there."""
    run = audit(source, "n18", tmp_path / "run", model=f"{source}:hot_model")
    scales = [layer["scale"] for layer in Run.open(run).info["layers"]]
    extend_run(run, f"{source}:hot")
    new = audit(source, "hot", tmp_path / "new", model=f"{source}:hot_model")
    assert [layer["scale"] for layer in Run.open(run).info["layers"]] != scales
    assert Run.open(run).info["layers"] == Run.open(new).info["layers"]
    assert differences(new, run) == []


def test_a_run_so_small_that_its_scale_was_a_guess(source: Path, tmp_path: Path) -> None:
    run = audit(source, "n2", tmp_path / "run", model=f"{source}:hot_model", shard_samples=1)
    extend_run(run, f"{source}:hot_early")
    new = audit(source, "hot_early", tmp_path / "new", model=f"{source}:hot_model", shard_samples=1)
    assert Run.open(run).info["layers"] == Run.open(new).info["layers"]
    assert differences(new, run) == []


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("changed", r"not what they were \(image-7\)"),
        ("untracked_changed", r"not what they were \(image-0, image-1, image-2 and \d+ more\)"),
        ("n2", r"has no more \(image-2, image-3, image-4 and 13 more\)"),
        ("moved", r"not what they were \(image-5, image-6, image-7 and 10 more\)"),
        ("other_concepts", "other classes and concepts"),
    ],
)
def test_what_is_no_continuation_is_refused(
    source: Path, small: Path, tmp_path: Path, dataset: str, message: str
) -> None:
    run = copy_of(small, tmp_path / "run")
    with pytest.raises(RunMismatchError, match=message):
        extend_run(run, f"{source}:{dataset}")
    assert is_finished(run)
    assert differences(small, run) == []


def test_another_model_is_refused_before_anything_is_touched(source: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    state = {
        "units.factor": np.float32(1),
        "head.weight": np.ones((2, 7), np.float32),
        "head.bias": np.ones(2, np.float32),
    }
    save_file({name: np.asarray(value) for name, value in state.items()}, weights)
    run = audit(source, "n18", tmp_path / "run", weights=weights)
    save_file({name: np.asarray(value * 3) for name, value in state.items()}, weights)
    with pytest.raises(RunMismatchError, match="another model"):
        extend_run(run, f"{source}:n31")
    assert is_finished(run)


class TestFolder:
    @staticmethod
    def photos(root: Path, names: list[str]) -> Path:
        for name in names:
            seed = int(Path(name).stem, 36)
            save(root / "images" / name, photo(24, 32, seed))
            save(root / "masks" / name, np.full((24, 32), seed % 3, np.uint8))
        (root / "classes.csv").write_text("index,name,category\n1,car,object\n2,tree,object\n")
        return root

    def test_photos_that_sort_in_between_come_last(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = [f"{split}/b{number}.png" for split in ("train", "val") for number in range(5)]
        second = ["train/a1.png", "train/b3a.png", "val/b0a.png", "val/c.png"]
        third = ["train/a0.png", "val/d.png"]
        root = self.photos(tmp_path / "photos", first)
        spec = f"folder:{root}"
        run = audit(source, spec, tmp_path / "run", map=True)
        self.photos(root, second)
        with pytest.raises(RunMismatchError, match="microtome extend"):
            resume_audit(run)
        assert extend_run(run).added == 4
        assert Run.open(run).table("samples")["key"].tolist() == first + second
        rebuild_report(run)
        before = results(run)
        audit(source, spec, run, map=True)  # the command that made it still accepts it
        assert results(run) == before
        self.photos(root, third)
        assert extend_run(run).added == 2
        assert len(list((run / "order").iterdir())) == 1
        (root / "order.txt").write_text("\n".join(first + second + third))
        monkeypatch.setenv("PHOTOS", str(root))
        new = audit(source, "in_order", tmp_path / "new", map=True)
        assert differences(new, run) == []
        assert verify_run(run).fine

    def test_changed_and_missing_photos_are_named(self, source: Path, tmp_path: Path) -> None:
        root = self.photos(tmp_path / "photos", [f"b{number}.png" for number in range(6)])
        run = audit(source, f"folder:{root}", tmp_path / "run")
        self.photos(root, ["a.png"])
        mask = root / "masks/b2.png"
        was = mask.stat()
        os.utime(mask, ns=(was.st_atime_ns, was.st_mtime_ns + 10**9))
        with pytest.raises(RunMismatchError, match=r"not what they were \(b2.png\)"):
            extend_run(run)
        os.utime(mask, ns=(was.st_atime_ns, was.st_mtime_ns))
        (root / "images/b4.png").rename(tmp_path / "b4.png")
        with pytest.raises(RunMismatchError, match=r"has no more \(b4.png\)"):
            extend_run(run)
        (tmp_path / "b4.png").rename(root / "images/b4.png")
        assert extend_run(run).added == 1

    @pytest.mark.slow
    def test_workers_of_other_processes_see_the_order(self, source: Path, tmp_path: Path) -> None:
        root = self.photos(tmp_path / "photos", [f"b{number}.png" for number in range(6)])
        run = audit(source, f"folder:{root}", tmp_path / "run")
        again = copy_of(run, tmp_path / "again")
        self.photos(root, ["a.png", "b3a.png"])
        extend_run(run, cluster="processes", workers=1)
        extend_run(again)
        assert differences(run, again) == []
        assert Run.open(run).table("samples")["key"].tolist()[-2:] == ["a.png", "b3a.png"]

    def test_a_crash_between_the_order_and_run_json(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = self.photos(tmp_path / "photos", ["b.png", "c.png", "d.png"])
        run = audit(source, f"folder:{root}", tmp_path / "run", shard_samples=1)
        before = results(run)
        self.photos(root, ["a.png"])
        with monkeypatch.context() as crashing:
            crash_after(crashing, 1)
            with pytest.raises(Crash):
                extend_run(run)
        assert is_finished(run)
        assert results(run) == before
        self.photos(root, ["c1.png"])
        assert extend_run(run).added == 2
        assert Run.open(run).table("samples")["key"].tolist() == [f"{name}.png" for name in ("b", "c", "d", "a", "c1")]
        assert len(list((run / "order").iterdir())) == 1

    def test_a_lost_order_is_named(self, source: Path, tmp_path: Path) -> None:
        root = self.photos(tmp_path / "photos", ["b.png", "c.png"])
        run = audit(source, f"folder:{root}", tmp_path / "run", shard_samples=1)
        self.photos(root, ["a.png"])
        extend_run(run)
        (order,) = (run / "order").iterdir()
        order.write_bytes(b"altered")
        assert [damage.key for damage in verify_run(run).damages] == [order.relative_to(run).as_posix()]
        with pytest.raises(RunDamagedError, match="order"):
            resume_audit(run)


class Crash(BaseException):
    """Stands for a kill: nothing is written from then on."""


def crash_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    original, done = LocalPlace.write, [0]

    def write(self: LocalPlace, key: str, data: bytes) -> None:
        if not key.startswith(("log/", "lock")):
            done[0] += 1
            if done[0] > writes:
                raise Crash
        original(self, key, data)

    monkeypatch.setattr(LocalPlace, "write", write)


@pytest.mark.parametrize(
    ("writes", "goes_on"),
    [
        *[(0, "extend"), (1, "resume"), (2, "extend further"), (3, "resume"), (5, "extend further")],
        *[(7, "extend"), (8, "resume"), (11, "extend further"), (20, "resume"), (40, "extend")],
    ],
)
def test_a_crash_leaves_the_small_run_or_one_that_is_finished_rightly(
    source: Path, small: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, goes_on: str
) -> None:
    run = copy_of(small, tmp_path / "run")
    old = shard_times(run)
    target = "n25" if goes_on == "extend further" else "n31"
    with monkeypatch.context() as crashing:
        crash_after(crashing, writes)
        with pytest.raises(Crash):
            extend_run(run, f"{source}:{target}", workers=1)
    assert verify_run(run).fine
    if writes == 0:
        assert is_finished(run)
        assert differences(small, run) == []
    if writes > 0 and goes_on == "resume":
        resume_audit(run)
    else:
        extend_run(run, f"{source}:n31")
    assert differences(whole, run) == []
    assert verify_run(run).fine
    assert {shard for shard, time in shard_times(run).items() if old.get(shard) == time} == set(range(4))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["index", "capture", "thresholds", "tally"])
def test_kill_9_in_the_middle_of_an_extension(
    source: Path, small: Path, whole: Path, tmp_path: Path, commands: Commands, stage: str
) -> None:
    run = copy_of(small, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (run / "commits" / stage).glob("*.json")}
    command = ["extend", str(run), f"{source}:n31", "--workers", "1"]
    folder = run / "commits" / stage

    def touched() -> bool:
        return any(before.get(path.name) != content(path) for path in folder.glob("*.json"))

    process = commands.start(command)
    process.wait(touched)
    assert process.kill().code == -signal.SIGKILL
    finished = commands.run(command)
    assert finished.code == 0, finished.said
    assert differences(whole, run) == []


def content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
