"""Rankings by cause against a planted truth: one unit draws a square."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from helpers.painter import GRASS, SKY, SQUARE, write_painter

from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.audit.measured import CAUSAL, drop_measured
from microtome.dissect.audit.verify import verify_run
from microtome.dissect.cli.app import app
from microtome.dissect.generators import measuring
from microtome.dissect.generators.alpha import AlphaSettings, Target, optimise_alpha
from microtome.dissect.generators.causal import unit_effects
from microtome.dissect.generators.choosing import choose
from microtome.dissect.generators.comparing import _more_than_iou, units_for
from microtome.dissect.generators.edits import Edit, ablation
from microtome.dissect.generators.effects import DRAWS, label_ids, paired, resampled
from microtome.dissect.generators.generator import Generator, open_generator
from microtome.dissect.generators.layers import own_layers
from microtome.dissect.generators.ranking import order_of, rankings
from microtome.dissect.generators.student import StudentSettings
from microtome.dissect.generators.trying import strongest
from microtome.dissect.models.segmenters import Segmenter, load_segmenter
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run
from microtome.storage.schema import ReadoutInfo

SEEDS = range(20, 30)
HIGH = np.ones(8)
ALONE = np.zeros(1, np.int64)
BEGIN = 0.45  # the painter draws its square only where grass is above 0.5


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def painter(file: Path) -> tuple[Generator, Segmenter]:
    return open_generator(f"{file}:painter"), load_segmenter(f"{file}:colours")


@pytest.fixture(scope="module")
def run(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    config = AuditConfig(
        model=f"{file}:painter",
        dataset="generated:48",
        segmenter=f"{file}:colours",
        layers=("mix",),
        tau=(0.05,),
        out=out,
        map=False,
    )
    run_audit(config)
    return out


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small pupil, and few steps."""
    student = StudentSettings(images=64, held=16, steps=60, batch=8)
    monkeypatch.setattr(measuring, "StudentSettings", lambda: student)
    monkeypatch.setattr(measuring, "AlphaSettings", partial(AlphaSettings, steps=20, batch=4, rate=0.05))


def test_effects_are_those_of_edits_one_by_one(painter: tuple[Generator, Segmenter]) -> None:
    generator, segmenter = painter
    found = unit_effects(generator, segmenter, "mix", SEEDS, HIGH, batch=4)
    edits = [[ablation("mix", [unit])] for unit in range(8)] + [[Edit("mix", (unit,), (1.0,))] for unit in range(8)]
    slow = paired(generator, segmenter, SEEDS, edits)
    np.testing.assert_array_equal(found.before, slow.before)
    np.testing.assert_array_equal(np.concatenate([found.ablated, found.inserted]), slow.after)
    np.testing.assert_allclose(found.ace(), (slow.after[8:] - slow.after[:8]).mean(axis=1))
    each = (slow.after[8:] - slow.after[:8])[SQUARE, :, 0]
    assert found.error()[SQUARE, 0] == pytest.approx(each.std(ddof=1) / np.sqrt(len(each)))


def test_the_unit_that_draws_has_the_largest_effect_and_idle_units_have_none(
    painter: tuple[Generator, Segmenter],
) -> None:
    generator, segmenter = painter
    ace = unit_effects(generator, segmenter, "mix", SEEDS, HIGH).ace()
    for unit, concept in ((SQUARE, "square"), (GRASS, "grass"), (SKY, "sky")):
        assert order_of(ace[:, label_ids(segmenter, concept)[0]])[0] == unit
    assert not ace[4:].any()


def test_alpha_keeps_the_unit_that_draws_and_lets_go_of_the_others(painter: tuple[Generator, Segmenter]) -> None:
    generator, _ = painter

    def redness(images: torch.Tensor) -> torch.Tensor:
        return (images[:, :1] - images[:, 1:2]).clamp_min(0)

    settings = AlphaSettings(steps=60, batch=4, rate=0.05)
    found = optimise_alpha(
        generator, "mix", Target(redness, ALONE, ALONE[:0]), np.full(8, BEGIN), HIGH, range(32), settings
    )
    assert order_of(found.values)[0] == SQUARE
    assert found.values[SQUARE] > 0.5
    assert (found.values[4:] < 0.1).all()
    assert found.ablated < 0.2


def test_the_inserted_half_moves_units_towards_their_high_values(painter: tuple[Generator, Segmenter]) -> None:
    generator, _ = painter

    def redness(images: torch.Tensor) -> torch.Tensor:
        return (images[:, :1] - images[:, 1:2]).clamp_min(0)

    settings = AlphaSettings(steps=40, batch=4, rate=0.05, insertion=1.0)
    found = optimise_alpha(
        generator, "mix", Target(redness, ALONE, ALONE[:0]), np.full(8, BEGIN), HIGH, range(32), settings
    )
    assert order_of(found.values)[0] == SQUARE


@pytest.mark.usefixtures("quick")
def test_ranked_by_command_kept_and_compared(run: Path) -> None:
    result = CliRunner().invoke(
        app, ["rank", str(run), "--layer", "mix", "--concept", "square", "--effects", "8", "--samples", "12", "--json"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["concepts"]["square"]
    assert {name: units[0] for name, units in found["units"].items()} == dict.fromkeys(("iou", "ace", "alpha"), SQUARE)
    compared = found["compared"]
    assert compared["curves"]["ace"][0] == {"units": 1, "removed": 1.0, "interval": [1.0, 1.0]}
    assert compared["half"]["alpha"] == 1
    assert compared["more_than_iou"]["ace"][0] == {"units": 1, "removed": 0.0, "interval": [0.0, 0.0]}
    opened = Run.open(run)
    assert json.loads(opened.place.read(found["key"])) == compared
    assert opened.place.read(found["plot"]).startswith(b"<svg")
    table = opened.layer_table("mix", CAUSAL)
    assert list(table.columns) == [
        "unit",
        "concept",
        "area",
        "ablated",
        "inserted",
        "ace",
        "ace_error",
        "alpha",
        "alpha_gain",
    ]
    assert len(table) == 8 * 3
    info = opened.info["causal"]["mix"]
    assert info["gradients"] == "a pupil of the segmenter"
    assert info["pupil"] is not None
    assert 0 <= info["pupil"]["grass"]["untouched"] <= 1
    for by in ("iou", "ace", "alpha"):
        assert rankings(opened, "mix", "square", by)[0] == SQUARE
    assert strongest(opened, "square").layer == "mix"
    assert "remove 100 % of square" in strongest(opened, "square").why
    with pytest.raises(UsageError, match="no ranking by alpha of layer mix for grass"):
        rankings(opened, "mix", "grass", "alpha")


@pytest.mark.usefixtures("quick")
def test_what_was_measured_is_vouched_for_and_dropped_with_its_run(run: Path, tmp_path: Path) -> None:
    opened = Run.open(run)
    measuring.measure_causes(opened, "mix", ["square"], by=("ace",), samples=2)
    assert verify_run(run).fine
    file = opened.path / "layers" / "mix" / f"{CAUSAL}.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    verdict = verify_run(run)
    assert [(damage.key, damage.is_dropped) for damage in verdict.damages] == [("layers/mix/causal.parquet", True)]
    file.write_bytes(content)
    drop_measured(opened, "is that of the smaller run")
    assert not file.exists()
    assert Run.open(run).info["causal"] == {}
    assert verify_run(run).fine
    again = measuring.measure_causes(Run.open(run), "mix", ["square"], by=("ace",), samples=2)
    pd.testing.assert_frame_equal(Run.open(run).layer_table("mix", CAUSAL), again)


def test_what_is_not_there_is_refused_by_name(run: Path) -> None:
    opened = Run.open(run)
    with pytest.raises(UnknownNameError, match="squares"):
        rankings(opened, "mix", "squares")
    with pytest.raises(UnknownNameError, match="aces"):
        rankings(opened, "mix", "square", "aces")
    with pytest.raises(UnknownNameError, match="mixer"):
        rankings(opened, "mixer", "square")


def test_directions_in_a_layer_are_no_units_to_edit(run: Path) -> None:
    opened = Run.open(run)
    opened.info["layers"][0]["readout"] = ReadoutInfo(
        base="mix", kind="pca", source="pca", fingerprint="", inputs=8, images=48
    )
    for edit in (
        lambda: choose(opened, layer="mix", units=["3"]),
        lambda: choose(opened, layer="mix", concept="square", rank="iou"),
        lambda: strongest(opened, "square", layer="mix"),
        lambda: measuring.measure_causes(opened, "mix", ["square"]),
    ):
        with pytest.raises(UsageError, match="layer mix holds directions in mix, which are no units"):
            edit()
    with pytest.raises(UsageError, match="all of its layers hold directions in others"):
        own_layers(opened)


def test_half_is_the_first_dose_that_removes_it() -> None:
    points = [{"units": 1, "removed": None}, {"units": 2, "removed": 0.4}, {"units": 4, "removed": 0.6}]
    assert units_for(points, 0.5) == 4
    assert units_for(points, 0.7) is None


def test_what_a_ranking_removes_more_than_iou_goes_by_the_same_draws_of_latents() -> None:
    dice = np.random.default_rng(0)
    before, label = dice.random((20, 3)), np.array([0, 2])
    ranked = {name: before * dice.random((2, 20, 1)) for name in ("iou", "ace")}
    found = _more_than_iou(before, ranked, label, [1, 2])
    assert list(found) == ["ace"]
    area = before[:, label].sum(axis=1)
    for dose, point in enumerate(found["ace"]):
        gone = {name: area - rows[dose][:, label].sum(axis=1) for name, rows in ranked.items()}
        drawn = []
        for counts in resampled(20, DRAWS, 0).astype(int):
            rows = np.repeat(np.arange(20), counts)
            drawn.append((gone["ace"][rows].sum() - gone["iou"][rows].sum()) / area[rows].sum())
        assert point["units"] == dose + 1
        assert point["removed"] == pytest.approx((gone["ace"].sum() - gone["iou"].sum()) / area.sum())
        assert point["interval"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())
