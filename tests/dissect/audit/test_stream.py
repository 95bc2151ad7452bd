"""Runs that keep no activations: the same results, from a second pass through the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.compare import results
from helpers.planted import write_planted

from microtome.datasets.base import ImageDataset
from microtome.dissect import AuditConfig, extend_run, resume_audit, run_audit
from microtome.dissect.audit import config as settings
from microtome.dissect.audit import pipeline
from microtome.dissect.audit.images import Item
from microtome.dissect.audit.stages import guess, passes, tally, thresholds
from microtome.dissect.audit.stages.capture import CaptureShard
from microtome.dissect.audit.verify import verify_run
from microtome.dissect.cli.app import app
from microtome.storage.errors import MicrotomeError, RunDamagedError, RunMismatchError, UsageError
from microtome.storage.run import Run

MODELS = """
import torch
from torch import nn


class Noisy(nn.Module):
    preprocess = {"size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}

    def __init__(self):
        super().__init__()
        self.units = nn.Conv2d(3, 5, 4, stride=4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5, 2)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))

    def forward(self, x):
        x = self.units(x)
        self.drop.train()
        return self.head(self.drop(x).mean((2, 3)))


def noisy():
    return Noisy().eval()
"""

UNEVEN = """

class Uneven(Images):
    def read(self, index):
        sample = super().read(index)
        return Sample(sample.image // 16, sample.planes, sample.image_labels) if index < 4 else sample

    def fingerprint(self):
        return "uneven"


def uneven():
    return Uneven()
"""


class Crash(BaseException):
    """Stands for a kill that python still gets to see."""


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


def both(config: AuditConfig, folder: Path) -> tuple[Path, Path]:
    """The same audit with activations and without."""
    for name, keep in (("kept", True), ("streamed", False)):
        run_audit(settings.with_changes(config, out=folder / name, keep_activations=keep))
    return folder / "kept", folder / "streamed"


def assert_equal(kept: Path, streamed: Path) -> None:
    """Every table, array and picture to the byte; activations are absent."""
    expected = {name: data for name, data in results(kept).items() if "/activations/" not in name}
    assert len(expected) < len(results(kept))
    found = results(streamed)
    assert found.keys() == expected.keys()
    assert [name for name, data in expected.items() if found[name] != data] == []
    pictures = {path.relative_to(kept): path.read_bytes() for path in kept.glob("report/patches/**/*.jpg")}
    assert pictures
    assert pictures == {
        path.relative_to(streamed): path.read_bytes() for path in streamed.glob("report/patches/**/*") if path.is_file()
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_planted(tmp_path_factory.mktemp("source"))
    path.write_text(path.read_text() + UNEVEN)
    return path


@pytest.fixture(scope="module")
def pair(source: Path) -> tuple[Path, Path]:
    return both(config_of(source, source.parent / "unused"), source.parent)


def test_the_results_are_those_of_a_run_that_keeps_activations(pair: tuple[Path, Path]) -> None:
    assert_equal(*pair)


@pytest.mark.parametrize(
    "changes",
    [
        {"tau": (0.005, 0.05, 0.4), "iou": "mask"},
        {"dataset": "half_broken", "tau": (0.1, 0.01), "iou": "all"},
        {"top": 60, "batch": 5, "shard_samples": 7},
    ],
)
def test_taus_unreadable_images_and_odd_shards(source: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    changes = {name: f"{source}:{value}" if name == "dataset" else value for name, value in changes.items()}
    assert_equal(*both(config_of(source, tmp_path / "unused", **changes), tmp_path))


def test_the_built_in_classifier(tmp_path: Path) -> None:
    """With maps, too, which the other tests leave out."""
    config = AuditConfig(
        model="builtin:scenes-cnn", dataset="scenes:40", layers=("block2", "block4"), out=tmp_path, tau=(0.02, 0.005)
    )
    assert_equal(*both(config, tmp_path))


def test_workers_do_not_change_a_byte(source: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", keep_activations="no", workers=3))
    assert_equal(pair[0], tmp_path / "run")


def test_worker_processes_do_not_change_a_byte(source: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    config = config_of(source, tmp_path / "run", keep_activations=False, cluster="processes", workers=1)
    threads = Run.open(pair[0]).info["config"]["torch_threads"]
    run_audit(settings.with_changes(config, torch_threads=threads))
    assert_equal(pair[0], tmp_path / "run")


# Guesses


@pytest.mark.parametrize("cluster", ["threads", "processes"])
def test_a_wrong_guess_costs_a_pass_and_changes_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cluster: str
) -> None:
    """The guess looks at the first shard alone, which is nearly black."""
    monkeypatch.setattr(guess, "sampled", lambda samples: [0, 1, 2, 3])
    config = config_of(source, tmp_path / "unused", dataset=f"{source}:uneven", torch_threads=1, tau=(0.05, 0.01))
    kept, streamed = tmp_path / "kept", tmp_path / "streamed"
    run_audit(settings.with_changes(config, out=kept))
    if cluster == "threads":
        run_audit(settings.with_changes(config, out=streamed, keep_activations=False))
    else:
        crash_before("thresholds", settings.with_changes(config, out=streamed, keep_activations=False))
        resume_audit(streamed, cluster="processes", workers=1)
    assert "one more pass through the model for units (" in capsys.readouterr().err
    assert_equal(kept, streamed)


def crash_before(stage: str, config: AuditConfig) -> None:
    """Run the audit until `stage` begins."""

    def crash(job: object) -> None:
        raise Crash

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(pipeline.STAGES, stage, crash)
        with pytest.raises(Crash):
            run_audit(config)


def test_a_fair_guess_costs_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("thresholds asked for the activations")

    monkeypatch.setattr(thresholds, "second_pass", refuse)
    monkeypatch.setattr(thresholds, "stored_activations", refuse)
    run_audit(config_of(source, tmp_path / "run", keep_activations=False))
    assert "one more pass" not in capsys.readouterr().err


@pytest.mark.parametrize("samples", [1, 48, 128, 129, 5_000, 1_000_000])
def test_images_for_the_guess_are_spread_over_the_data(samples: int) -> None:
    chosen = guess.sampled(samples)
    assert chosen == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < samples
    assert len(chosen) >= 0.8 * min(samples, 128)
    assert len(chosen) <= 1024
    if samples > 1000:
        assert max(np.diff([0, *chosen, samples])) < 4 * samples / len(chosen)
        assert len(np.unique(np.array(chosen) % 7)) == 7, "no rhythm of the data is missed"


# Misfortunes


@pytest.mark.parametrize("where", ["guess", "capture", "thresholds", "tally", "tally state"])
def test_a_crash_anywhere_is_resumed_to_the_same_bytes(
    source: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def crash(*arguments: object) -> None:
        raise Crash

    calls = []

    def crash_later(*arguments: object, original: object, after: int = 5) -> object:
        calls.append(arguments)
        return crash() if len(calls) > after else original(*arguments)  # type: ignore[operator]

    if where == "guess":
        monkeypatch.setattr(guess, "guess_fine", crash)
    if where == "capture":
        commit = CaptureShard._commit
        monkeypatch.setattr(CaptureShard, "_commit", lambda *given: crash_later(*given, original=commit))
    if where == "thresholds":
        counted = thresholds._count
        monkeypatch.setattr(thresholds, "_count", lambda *given: crash_later(*given, original=counted))
    if where == "tally":
        tallied = tally._count
        monkeypatch.setattr(tally, "_count", lambda *given: crash_later(*given, original=tallied))
    if where == "tally state":
        written = tally.write_top_maps
        monkeypatch.setattr(tally, "write_top_maps", lambda *given: crash_later(*given, original=written))
    with pytest.raises(Crash):
        run_audit(config_of(source, tmp_path / "run", keep_activations=False))
    monkeypatch.undo()
    resume_audit(tmp_path / "run")
    assert_equal(pair[0], tmp_path / "run")
    assert verify_run(tmp_path / "run").fine


def test_an_overflow_begins_again_with_a_larger_scale(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microtome.dissect.audit.pilot.scale_for", lambda magnitude: 1.0)
    kept, streamed = both(config_of(source, tmp_path / "unused", layers=("units",)), tmp_path)
    assert Run.open(streamed).layer("units")["scale"] == 16.0
    assert_equal(kept, streamed)


def test_a_model_that_draws_random_numbers_is_refused(tmp_path: Path, source: Path) -> None:
    (tmp_path / "noisy.py").write_text(MODELS)
    config = config_of(
        source, tmp_path / "run", model=f"{tmp_path / 'noisy.py'}:noisy", layers="drop", keep_activations=False
    )
    with pytest.raises(MicrotomeError, match=r"layer drop: the second pass .* --keep-activations yes") as caught:
        run_audit(config)
    assert caught.value.exit_code == 1


def test_an_image_that_is_gone_at_the_second_pass_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_before("tally", config_of(source, tmp_path / "run", keep_activations=False))
    original = passes.read_item

    def gone(dataset: ImageDataset, index: int, *arguments: object) -> Item:
        whole = original(dataset, index, *arguments)  # type: ignore[arg-type]
        return replace(whole, error="not an image") if index == 9 else whole

    monkeypatch.setattr(passes, "read_item", gone)
    with pytest.raises(RunMismatchError, match=r"image-9 could be read at the first pass, .*not an image"):
        resume_audit(tmp_path / "run")


@pytest.mark.parametrize("guessed_anew", [False, True])
def test_a_run_that_grows_is_what_it_would_have_been(
    source: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guessed_anew: bool
) -> None:
    run_audit(config_of(source, tmp_path / "run", keep_activations=False, limit=30))
    if guessed_anew:
        (tmp_path / "run/commits/guess/000000.json").unlink()
        monkeypatch.setattr(guess, "sampled", lambda samples: [0])
    extend_run(tmp_path / "run", limit=48)
    assert_equal(pair[0], tmp_path / "run")
    assert verify_run(tmp_path / "run").fine


# What such a run has and has not


def test_maps_of_top_patches_are_there_and_others_are_refused(pair: tuple[Path, Path]) -> None:
    kept, streamed = (Run.open(path) for path in pair)
    patches = kept.layer_table("units", "patches")
    samples, units = patches["sample"].to_numpy(), patches["unit"].to_numpy()
    maps = streamed.activation_maps("units", samples, units)
    np.testing.assert_array_equal(maps, kept.activation_maps("units", samples, units))
    assert len(maps) > 12
    assert streamed.activation_maps("units", samples[:0], units[:0]).shape == (0, 8, 8)
    others = [sample for sample in range(48) if sample not in samples[units == 0]]
    for ask in (
        lambda: streamed.activation_maps("units", np.array(others[:1]), np.array([0])),
        lambda: streamed.activations("units", 3),
        lambda: streamed.activation_range("head", 0, 4),
    ):
        with pytest.raises(UsageError, match="--keep-activations yes"):
            ask()


def test_a_damaged_map_is_noticed(source: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", keep_activations=False))
    run = Run.open(tmp_path / "run")
    files = sorted((tmp_path / "run/layers/units/patch_maps").iterdir())
    shard = int(files[0].name[:6])
    damaged = bytearray(files[0].read_bytes())
    damaged[len(damaged) // 2] ^= 16
    files[0].write_bytes(damaged)
    patches = run.layer_table("units", "patches")
    patches = patches[patches["sample"] // 4 == shard]
    with pytest.raises(RunDamagedError, match="--repair"):
        run.activation_maps("units", patches["sample"].to_numpy(), patches["unit"].to_numpy())
    assert [damage.key for damage in verify_run(tmp_path / "run").damages] == [
        f"layers/units/patch_maps/{files[0].name}"
    ]


def test_the_setting_belongs_to_the_run(source: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunMismatchError, match="another keep_activations"):
        run_audit(config_of(source, pair[0], keep_activations="no"))
    with pytest.raises(UsageError, match="no value of keep_activations named 'maybe'"):
        config_of(source, tmp_path, keep_activations="maybe")


def test_the_command_line_and_toml_know_the_setting(source: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = results(pair[1])
    options = "--layers units,head --tau 0.05 --batch 2 --shard-samples 4 --top 3 --no-map --keep-activations no"
    asked = ["audit", f"{source}:model", f"{source}:images", *options.split(), "--out", str(pair[1])]
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert results(pair[1]) == before
    file = tmp_path / "night.toml"
    file.write_text('model = "a"\ndataset = "b"\nlayers = ["c"]\nout = "d"\nkeep_activations = false\n')
    assert not settings.config_from_toml(file).keep_activations
