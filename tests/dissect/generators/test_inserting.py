"""`microtome insert` and `microtome defects` on a finished run, against planted truths; what they keep."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.painter import CHECKS, SQUARE, write_painter
from PIL import Image

from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.cli import main
from microtome.dissect.generators.generator import open_generator
from microtome.dissect.generators.inserting import Places, insert_units, spread_pairs
from microtome.dissect.generators.judging import Question
from microtome.dissect.generators.quantiles import high_values
from microtome.dissect.generators.recipes import read_recipe
from microtome.dissect.generators.repairing import find_defects
from microtome.dissect.generators.scores import load_scorer
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

COUNT = 120


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_painter(tmp_path_factory.mktemp("painting"))


@pytest.fixture(scope="module")
def audited(painting: Path) -> Path:
    out = painting.parent / "run"
    run_audit(
        AuditConfig(
            model=f"{painting}:painter",
            dataset=f"generated:{COUNT}",
            segmenter=f"{painting}:colours",
            layers=("mix",),
            tau=(0.05, 0.005),
            out=out,
            workers=1,
            shard_samples=60,
            map=False,
        )
    )
    return out


@pytest.fixture
def run(audited: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(audited, tmp_path / "run"))


def command(*arguments: object) -> object:
    """The exit code of `microtome ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_high_values_are_those_of_the_stored_activations(audited: Path) -> None:
    run = Run.open(audited)
    stored = run.activation_range("mix", 0, COUNT).transpose(1, 0, 2, 3).reshape(8, -1)
    for quantile in (0.9, 0.97, 0.95, 0.995):  # the last two are 1 - tau
        expected = np.quantile(stored[[SQUARE, 5]], quantile, axis=1, method="inverted_cdf")
        assert high_values(run, "mix", [SQUARE, 5], quantile) == pytest.approx(expected)
    with pytest.raises(UsageError, match="--quantile"):
        high_values(run, "mix", [0], 1.0)


def test_insertion_draws_the_square_on_grass_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--layer", "mix", "--rank", "iou", "--top", 1, "--quantile", 0.95, "--samples", 16, "--grid", "4x4")
    assert command("insert", run, "--concept", "square", *options, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["units"] == [SQUARE]
    rows = {row["context"]: row for row in result["contexts"]}
    assert (rows["grass"]["verdict"], rows["sky"]["verdict"]) == ("takes", "refuses")
    assert rows["square"]["verdict"] == "was there"
    assert rows["grass"]["random"]["mean"] < 0.01
    assert result["all"]["places"] == 16 * 16
    kept = Run.open(run).experiments("insertions")
    assert [one["name"] for one in kept] == [result["name"]]
    for suffix in (".png", "-pairs.png"):
        picture = Run.open(run).place.read(f"insertions/{kept[0]['file'].removesuffix('.json')}{suffix}")
        assert min(Image.open(io.BytesIO(picture)).size) > 200
    assert command("insert", run, "--concept", "square", *options) == 0
    said = capsys.readouterr().out
    assert "square takes on grass" in said
    assert "it does not appear on sky" in said
    assert said.strip().endswith("it refuses.")


def test_the_edit_at_one_place_is_a_recipe(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "edit.json"
    found = insert_units(
        run,
        concept="square",
        layer="mix",
        units=[str(SQUARE)],
        quantile=0.95,
        place="0.75,0.25,1,0.5",
        samples=6,
        draws=1,
        export_recipe=file,
    )
    (edit,) = read_recipe(file).edits
    assert (edit.layer, edit.units) == ("mix", (SQUARE,))
    assert edit.values == pytest.approx(found.result["values"])
    assert edit.region is not None
    assert edit.region.share == pytest.approx(1 / 16)
    assert found.result["all"]["new"]["mean"] + found.result["all"]["held"]["mean"] > 0.9
    assert len(found.result["places"]) == len(found.result["edits"]) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concept": "squares"}, "did you mean square"),
        ({"place": "middle"}, "--place middle"),
        ({"place": "0.5,0.5,0.2,0.9"}, "box"),
        ({"concept": None, "units": ["1"], "layer": "mix"}, "--concept tree"),
        ({"export_recipe": Path("x.json")}, "--place"),
        ({"samples": 0}, "--samples 0"),
        ({"quantile": 2.0, "concept": "squares", "place": "middle"}, "--quantile 2"),
        ({"quantile": math.nan}, "--quantile nan"),
        ({"size": (2.0, 2.0)}, "places"),
        ({"layer": "mixed"}, "mix"),
    ],
)
def test_mistakes_are_sentences(run: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        insert_units(run, **{"concept": "square", "layer": "mix", "rank": "iou", "top": 1, **options})


def test_pairs_go_from_the_most_to_the_least() -> None:
    new = np.array([[0.1, 0.9, 0.5], [0.3, 0.7, 0.0]])
    assert spread_pairs(new, np.ones((2, 3), bool)) == [(0, 1), (0, 2), (1, 0), (1, 2)]
    assert spread_pairs(new, new == 0.5) == [(0, 2)]
    assert Places.of("grid").words == ""
    assert Places.of("0,0,0.5,0.25").size == (0.5, 0.25)


def test_the_unit_behind_the_checks_is_found_and_removed(
    painting: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "repair.json"
    options = ("--worst", 0.15, "--top", 1, "--samples", 48, "--draws", 3, "--export-recipe", file)
    assert command("defects", run, "--scorer", f"{painting}:roughness", *options, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["unit"] for row in result["units"]] == [CHECKS]
    assert result["units"][0]["auc"] > 0.9
    assert result["units"][0]["patches_in_worst"] > 0.7
    assert result["repair"]["drawn_from"] == "other units"
    score = result["repair"]["score"]
    assert score["all"]["verdict"] == score["worst"]["verdict"] == "better"
    assert score["worst"]["after"] < 0.1 * score["worst"]["before"]
    assert abs(score["all"]["random"]["change"]) < 0.1 * abs(score["all"]["change"])
    assert read_recipe(file).edits[0].units == (CHECKS,)
    (kept,) = Run.open(run).experiments("defects")
    assert kept["name"] == result["name"]
    assert Image.open(io.BytesIO(Run.open(run).place.read(f"defects/{kept['file'].removesuffix('.json')}.png")))
    assert command("defects", run, "--scorer", f"{painting}:roughness", *options) == 0
    assert "without these units the score improves" in capsys.readouterr().out.lower()


@pytest.mark.slow
def test_a_list_of_scores_has_a_stand_in_and_real_images_a_frechet_distance(
    painting: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What real images are is the painter's pictures without checks; lower is worse in the list."""
    monkeypatch.setattr("microtome.dissect.generators.repair_figures.FRECHET_DRAWS", 5)
    generator = open_generator(f"{painting}:painter")
    pictures = generator.pictures(range(COUNT))
    rough = load_scorer(f"{painting}:roughness", generator.device)(pictures)
    lines = [f"seed-{seed:06d},{-value}" for seed, value in enumerate(rough.tolist())]
    scores = painting.parent / "scores.csv"
    scores.write_text("\n".join(["key,score", *lines]))
    folder = painting.parent / "real"
    folder.mkdir(exist_ok=True)
    for seed in np.flatnonzero(rough < np.median(rough) + 1e-3).tolist()[:40]:
        Image.fromarray(pictures[seed]).save(folder / f"{seed}.png")
    question = Question(scores=scores, real=f"images:{folder}", worse="lower", worst=0.15, top=1, samples=32, draws=1)
    result = find_defects(run, question).result
    assert [row["unit"] for row in result["units"]] == [CHECKS]
    assert "stands in for the list" in result["note"]
    assert result["repair"]["score"]["all"]["verdict"] == "better"
    frechet = result["repair"]["frechet"]
    assert frechet["after"] < frechet["before"]
    assert frechet["verdict"] == "better"
    assert frechet["few"]


def test_where_no_unit_stands_out_nothing_is_repaired(run: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "noise.csv"
    chances = np.random.default_rng(0).random(COUNT)
    file.write_text("seed,score\n" + "".join(f"{seed},{value}\n" for seed, value in enumerate(chances.tolist())))
    assert command("defects", run, "--scores", file) == 0
    assert "No unit stands out" in capsys.readouterr().out
    file.write_text("seed,score\n" + "".join(f"{seed},1\n" for seed in range(COUNT)))
    with pytest.raises(UsageError, match="no two different scores"):
        find_defects(run, Question(scores=file))


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question(), "say what is bad"),
        (Question(scores=Path("a.csv"), scorer="a.py:b"), "give one"),
        (Question(real="scenes:4", worse="lower"), "--worse lower"),
        (Question(real="scenes:4", samples=1), "--samples 1"),
        (Question(real="scenes:4", worst=math.nan), "--worst nan"),
        (Question(real="scenes:4", worst=1.5), "--worst 1.5"),
        (Question(real="scenes:4", features="torchvision:resnet18"), "--features-layer"),
    ],
)
def test_questions_that_cannot_be_answered(run: Path, question: Question, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_defects(run, question)


def test_a_layer_that_the_run_does_not_have(run: Path) -> None:
    with pytest.raises(UnknownNameError, match="mix"):
        find_defects(run, Question(real="scenes:4", layer="mixed"))
