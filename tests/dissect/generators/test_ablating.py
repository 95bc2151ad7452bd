"""`microtome ablate` on runs of generators, against a planted truth: one unit draws the square."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.painter import GRASS, SQUARE, write_painter
from helpers.typed import typed
from PIL import Image

from microtome.dissect.audit import AuditConfig, run_audit
from microtome.dissect.generators.ablating import GeneratorAblation, ablate_generator, within_of
from microtome.dissect.generators.figures import mean_of_known
from microtome.dissect.generators.generator import generator_of_run
from microtome.dissect.generators.recipes import read_recipe
from microtome.dissect.generators.seeds import FRESH
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

COUNT = 40
FEW = {"samples": 20, "draws": 3}
NAMED: dict[str, Any] = {"layer": "mix", "rank": "iou", "concept": "square", "top": 1}


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the painter; nobody writes into it."""
    folder = tmp_path_factory.mktemp("painted")
    file = write_painter(folder)
    config = AuditConfig(
        model=f"{file}:painter",
        dataset=f"generated:{COUNT}",
        layers=("mix",),
        out=folder / "run",
        segmenter=f"{file}:colours",
        tau=(0.05,),
        workers=1,
        shard_samples=20,
        map=False,
    )
    run_audit(config)
    return folder / "run"


@pytest.fixture
def run(painted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(painted, tmp_path / "run")


@pytest.fixture(scope="module")
def ablation(painted: Path, tmp_path_factory: pytest.TempPathFactory) -> GeneratorAblation:
    run = shutil.copytree(painted, tmp_path_factory.mktemp("ablated") / "run")
    return ablate_generator(run, **NAMED, **FEW)


def test_the_unit_of_the_square_removes_all_of_it(ablation: GeneratorAblation) -> None:
    result = ablation.result
    assert result["units"] == [SQUARE]
    assert (result["layer"], result["rank"], result["concept"]) == ("mix", "iou", "square")
    square = result["concepts"]["square"]
    assert (square["removed"], square["interval"]) == (1, [1, 1])
    assert abs(square["removed_random"]) < 0.5
    assert square["area_after"] == 0 < square["area"]
    assert result["concepts"]["grass"]["removed"] <= 0, "there is grass where the square was"
    assert result["concepts"]["sky"]["removed"] == 0
    assert result["side_effects"]["pixels"]["mean"] == 0, "nothing changes outside of the square"
    assert result["side_effects"]["features"]["mean"] == pytest.approx(0, abs=1e-6)
    assert result["side_effects"]["others_lose"] == 0


def test_latents_are_fresh_unless_others_are_named(ablation: GeneratorAblation, run: Path) -> None:
    assert (ablation.result["data"], ablation.result["fresh"]) == (f"generated:20?seed={FRESH}", True)
    own = ablate_generator(run, **NAMED, dataset="generated:12?seed=30", draws=0).result
    assert (own["data"], own["fresh"], own["samples"]) == ("generated:12?seed=30", False, 12)
    assert own["concepts"]["square"]["removed"] == 1
    assert own["concepts"]["square"]["removed_random"] is None
    assert own["dose"][0]["removed_random"] is None
    assert own["side_effects"]["pixels"]["mean_random"] is None


def test_the_dose_goes_from_one_unit_to_half_of_the_layer(ablation: GeneratorAblation) -> None:
    dose = ablation.result["dose"]
    assert [point["units"] for point in dose] == [1, 2, 4]
    assert [point["removed"] for point in dose] == [1, 1, 1]
    assert all(point["interval"] == [1, 1] and point["removed_random"] < 1 for point in dose)


def test_what_is_kept_is_what_was_found(ablation: GeneratorAblation) -> None:
    (kept,) = Run.open(ablation.run.url).ablations()
    assert {**ablation.result, "file": kept["file"]} == kept
    json.dumps(ablation.result, allow_nan=False)
    with Image.open(ablation.run.path / ablation.sheet) as sheet:
        assert sheet.mode == "RGB"
        assert sheet.width > 1000
        assert (np.asarray(sheet) == (255, 212, 0)).all(axis=-1).sum() > 100, "squares are outlined"


def test_a_region_limits_what_goes(run: Path) -> None:
    none = ablate_generator(run, **NAMED, **FEW, region="0,0,0.05,0.05").result
    assert none["concepts"]["square"]["removed"] == 0
    assert "within the box" in none["removal"]
    part = ablate_generator(run, **NAMED, **FEW, region="0,0,1,0.5").result
    assert 0.1 < part["concepts"]["square"]["removed"] < 0.9
    grass = {"layer": "mix", "units": [str(GRASS)], "concept": "square", **FEW}
    within = ablate_generator(run, **grass, region="mask").result
    everywhere = ablate_generator(run, **grass).result
    assert 0 <= within["concepts"]["grass"]["removed"] < 0.3 < 0.9 < everywhere["concepts"]["grass"]["removed"]
    assert within["edits"] == []
    assert within["dose"] == []
    assert within["units"] == [GRASS]


def test_a_recipe_of_what_was_ablated_replays_it(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "edit.json"
    result = ablate_generator(run, **NAMED, **FEW, value="0.4", export_recipe=file).result
    recipe = read_recipe(file)
    assert recipe.seeds == tuple(range(FRESH, FRESH + 20))
    (edit,) = recipe.edits
    assert (edit.layer, edit.units, edit.values) == ("mix", (SQUARE,), (0.4,))
    assert [edit.units[0]] == result["units"]
    generator = generator_of_run(Run.open(run))
    assert (recipe.pictures(generator, [FRESH]) != generator.pictures([FRESH])).any()


def test_units_are_set_to_their_mean(run: Path) -> None:
    mean = Run.open(run).layer_table("mix", "units")["mean"]
    result = ablate_generator(run, layer="mix", units=["0-1"], value="mean", **FEW).result
    (edit,) = result["edits"]
    assert edit["values"] == pytest.approx([mean[0], mean[1]])
    assert result["concept"] is None
    assert result["side_effects"]["outside"] == "everywhere"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concept": "sqare"}, "did you mean square?"),
        ({"layer": "mxi"}, "did you mean mix?"),
        ({"rank": "iuo"}, "did you mean iou?"),
        ({"top": 9}, "layer mix has 8 units"),
        ({"concept": None}, "say which units to remove"),
        ({"units": ["3"], "layer": None, "rank": None}, "name their layer"),
        ({"units": ["3"]}, "units that are named need none"),
        ({"units": ["8"], "rank": None}, "has units 0 to 7"),
        ({"region": "mask", "units": ["3"], "concept": None, "rank": None}, "say whose"),
        ({"region": "1,2,3"}, "give mask, or a box"),
        ({"region": "0,0,nan,1"}, "give top,left,bottom,right"),
        ({"value": "zreo"}, "give zero, mean or a number"),
        ({"value": "nan"}, "give zero, mean or a number"),
        ({"dataset": "scenes:20"}, "give latents of the generator"),
        ({"dataset": "generated:1"}, "at least 2 latents"),
        ({"samples": 1}, "at least 2 latents"),
        ({"region": "mask", "export_recipe": Path("x.json")}, "take a box"),
    ],
)
def test_what_makes_no_sense_is_refused(painted: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises((UsageError, UnknownNameError)) as refused:
        ablate_generator(painted, **{**NAMED, **options})
    assert said in str(refused.value)
    assert not (painted / "ablations").exists()


def test_a_box_is_read_in_fractions() -> None:
    within = within_of("0.25, 0.5,0.75,1", None)
    assert within.region is not None
    assert within.region.sides == (0.25, 0.5, 0.75, 1)


def test_the_command_shows_what_came_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ("--layer", "mix", "--rank", "iou", "--concept", "square", "--top", 1, "--samples", 12, "--draws", 2)
    code, out, err = typed(capsys, "ablate", run, *named)
    assert code == 0
    assert "mix: the unit of highest IoU for square, each set to 0; 2 random sets of 1 (other units)" in out
    assert out.splitlines()[-1].startswith(
        "1 unit removes 100.0 % [100.0, 100.0] of the area of square; as many random"
    )
    assert "pairs of images in ablations/" in err
    code, out, _ = typed(capsys, "ablate", run, *named, "--json")
    answer = json.loads(out)
    assert answer["schema_version"] == 1
    assert answer["concepts"]["square"]["removed"] == 1
    code, _, _ = typed(capsys, "report", run)
    assert code == 0
    html = (run / "report" / "ablations.html").read_text()
    assert "sets of other units" in html
    assert "100.0% of the area of <b>square</b> is gone" in html
    assert (run / "report" / "ablations" / "1.png").is_file()
    assert 'src="ablations/1.png"' in html
    assert 'href="ablations.html#generated-1"' in (run / "report" / "index.html").read_text()
    assert typed(capsys, "verify", run)[0] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--class", "a"), "--class means nothing for the run of a generator"),
        (("--limit", 3), "--limit means nothing for the run of a generator"),
    ],
)
def test_options_of_classifiers_are_refused(
    painted: Path, capsys: pytest.CaptureFixture[str], flags: tuple[object, ...], said: str
) -> None:
    code, _, err = typed(capsys, "ablate", painted, *flags)
    assert code == 2
    assert said in err


def test_means_over_sets_leave_out_what_is_not_known() -> None:
    values = np.array([[np.nan, 1.0, 2.0], [np.nan, 3.0, np.nan]])
    np.testing.assert_array_equal(mean_of_known(values), [np.nan, 2.0, 2.0])
