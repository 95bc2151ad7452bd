"""Recipes: the same after a round trip, the same images wherever they are applied, a sentence for what is none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.painter import SQUARE, write_painter
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from microtome.dissect.cli import main
from microtome.dissect.generators.data import LARGEST_SEED
from microtome.dissect.generators.edits import MOST, Edit, Region, ablation
from microtome.dissect.generators.generator import Generator, open_generator
from microtome.dissect.generators.recipes import Recipe, edits_from_json, read_recipe, write_recipe
from microtome.storage.errors import RunMismatchError, UsageError

finite = st.floats(-MOST, MOST)
side = st.integers(0, 256).map(lambda number: number / 256)


@st.composite
def boxes(draw: st.DrawFn) -> Region:
    top, bottom = sorted(draw(st.lists(side, min_size=2, max_size=2, unique=True)))
    left, right = sorted(draw(st.lists(side, min_size=2, max_size=2, unique=True)))
    return Region.box(top, left, bottom, right)


grids = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)).map(Region)


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    units = draw(st.lists(st.integers(0, 5000), min_size=1, max_size=6, unique=True))
    values = draw(st.lists(finite, min_size=len(units), max_size=len(units)))
    region = draw(st.none() | boxes() | grids)
    return Edit(draw(st.text(min_size=1)), tuple(units), tuple(values), region, draw(finite))


@given(
    st.text(min_size=1),
    st.text(min_size=1),
    st.lists(edits(), max_size=3),
    st.lists(st.integers(0, LARGEST_SEED), max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_a_recipe_survives_its_file(spec: str, mark: str, made: list[Edit], seeds: list[int]) -> None:
    recipe = Recipe(spec, mark, tuple(made), tuple(seeds))
    text = recipe.to_json()
    assert Recipe.from_json(text) == recipe
    assert Recipe.from_json(text).to_json() == text
    assert edits_from_json(json.loads(text)["edits"]) == recipe.edits


GOOD: dict[str, Any] = {
    "schema_version": 1,
    "generator": {"spec": "x", "fingerprint": "y"},
    "edits": [{"layer": "mix", "units": [1], "values": [0.5]}],
}


def changed(**parts: object) -> str:
    return json.dumps({**GOOD, **parts})


def one(**parts: object) -> str:
    return changed(edits=[{**GOOD["edits"][0], **parts}])


def test_what_may_be_left_out() -> None:
    recipe = Recipe.from_json(json.dumps(GOOD))
    assert recipe == Recipe("x", "y", (Edit("mix", (1,), (0.5,)),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "expected an object"),
        ("{}", "has no 'schema_version'"),
        (changed(schema_version=2), "schema_version is 2; expected 1"),
        (changed(schema_version=True), "schema_version is true"),
        (changed(generator="x"), "generator is x; expected an object"),
        (changed(generator={"spec": "x"}), "generator has no 'fingerprint'"),
        (changed(generator={"spec": "", "fingerprint": "y"}), "generator.spec"),
        (changed(edits={}), "edits is {}; expected a list"),
        (changed(edits=[7]), r"edits\[0\] is 7"),
        (changed(sedes=[]), "has 'sedes', which is none of"),
        (changed(seeds=[-1]), r"seeds\[0\] is -1"),
        (changed(seeds=[True]), r"seeds\[0\] is true"),
        (changed(seeds=[2**63]), r"seeds\[0\]"),
        (one(layer=3), r"edits\[0\].layer is 3; expected text"),
        (one(units=[]), "give its units"),
        (one(units=[1.5]), r"edits\[0\].units\[0\] is 1.5"),
        (one(units=[1, 1], values=[0, 0]), "each once"),
        (one(values=[1, 2]), "2 values for 1 units"),
        (one(values=["0"]), r"edits\[0\].values\[0\] is 0; expected a finite number"),
        (one(values=[float("nan")]), "NaN; expected a finite number"),
        (one(values=[None]), "null; expected a finite number"),
        (one(strength=float("inf")), "expected a finite number"),
        (one(values=[10**400]), "expected a finite number"),
        (one(strenght=1), "has 'strenght'"),
        (one(region=[]), r"edits\[0\].region is \[\]"),
        (one(region={"box": [0, 0, 1]}), "expected top, left, bottom, right"),
        (one(region={"box": [0, 0, 2, 1]}), r"edits\[0\]: box 0,0,2,1"),
        (one(region={"grid": [2, 2], "runs": [1, 1]}), "2 cells; expected 4"),
        (one(region={"grid": [0, 2], "runs": []}), "its height and width"),
        (one(region={"grid": [10**9, 10**9], "runs": []}), "expected a whole number"),
        (one(region={"grid": [2, 2], "runs": [-1, 5]}), r"runs\[0\] is -1"),
    ],
)
def test_what_is_no_recipe_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        Recipe.from_json(text, "recipe e.json")
    assert "\n" not in str(refused.value)
    assert "recipe e.json" in str(refused.value)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_painter(tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="module")
def painter(file: Path) -> Generator:
    return open_generator(f"{file}:painter")


def test_images_are_the_same_alone_and_with_others(painter: Generator) -> None:
    recipe = Recipe.of(painter, [ablation("mix", [SQUARE], 0.3, Region.box(0, 0, 1, 0.4))], range(21))
    together = recipe.pictures(painter)
    assert together.shape == (21, *painter.size, 3)
    for seed in (0, 7, 20):
        assert (recipe.pictures(painter, [seed])[0] == together[seed]).all()
    assert (together != painter.pictures(range(21))).any()


def test_a_recipe_of_another_generator_is_refused(painter: Generator, tmp_path: Path) -> None:
    made = Recipe.of(painter, [ablation("mix", [SQUARE])], (1, 2))
    other = Recipe(made.generator, "0" * 64, made.edits, made.seeds)
    with pytest.raises(RunMismatchError, match=r"was made for .*painter.*--force"):
        other.pictures(painter)
    with pytest.raises(RunMismatchError, match="something else; open a run of that generator"):
        other.check(painter, advice="open a run of that generator")
    assert (other.pictures(painter, force=True) == made.pictures(painter)).all()


def test_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot be written"):
        write_recipe(tmp_path, Recipe("x", "y", ()))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    found = capsys.readouterr()
    return int(done.value.code or 0), found.out, found.err


def test_the_command_replays_a_recipe(
    file: Path, painter: Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe.of(painter, [ablation("mix", [SQUARE])], (3, 100))
    write_recipe(tmp_path / "edit.json", recipe)
    spec, out = f"{file}:painter", tmp_path / "out"
    code, printed, _ = run(
        capsys, "generate", spec, "--recipe", str(tmp_path / "edit.json"), "--out", str(out), "--json"
    )
    assert code == 0
    told = json.loads(printed)
    assert told["seeds"] == [3, 100]
    assert told["edits"] == 1
    assert sorted(path.name for path in out.iterdir()) == ["seed-000003.png", "seed-000100.png", "sheet.png"]
    for number, seed in enumerate(recipe.seeds):
        with Image.open(out / f"seed-{seed:06d}.png") as image:
            assert (np.asarray(image) == recipe.pictures(painter)[number]).all()
    code, _, _ = run(capsys, "generate", spec, "--seeds", "2-4,9", "--out", str(tmp_path / "plain"))
    assert code == 0
    assert len(list((tmp_path / "plain").glob("seed-*.png"))) == 4
    with Image.open(tmp_path / "plain" / "seed-000009.png") as image:
        assert (np.asarray(image) == painter.pictures([9])[0]).all()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--seeds", "5-2"], 2, "give whole numbers and ranges"),
        (["--seeds", "x"], 2, "give whole numbers and ranges"),
        (["--seeds", "0-99999999"], 2, "a million in a range"),
        (["--seeds", "1", "--count", "3"], 2, "either --seeds or --count"),
        (["--recipe", "wrong.json"], 4, "was made for nobody"),
        (["--recipe", "layer.json"], 2, "no layer named 'mxi'"),
        (["--recipe", "unit.json"], 2, "there is no unit 77"),
        (["--inputs", "."], 2, "leave out --inputs"),
    ],
)
def test_mistakes_end_in_one_line(
    file: Path,
    painter: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe("wrong.json", Recipe("nobody", "0" * 64, ()))
    write_recipe("layer.json", Recipe.of(painter, [ablation("mxi", [1])]))
    write_recipe("unit.json", Recipe.of(painter, [ablation("mix", [77])]))
    Image.new("RGB", (8, 8)).save("photo.png")
    found, _, error = run(capsys, "generate", f"{file}:painter", "--out", "out", *arguments)
    assert found == code
    assert said in error
    assert not re.search("Traceback|images/s|generate:", error)
