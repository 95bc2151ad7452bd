"""`microtome neighbors`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.squares import audit_squares
from PIL import Image

from microtome.datasets.specs import open_dataset
from microtome.dissect.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audit_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["neighbors", *map(str, arguments)])
    return int(end.value.code or 0)


def test_a_table_and_a_sheet(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(run, "--sample", 20, "-k", 3) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "units: nearest to image-20 (euclidean, exact)"
    assert lines[1].split() == ["rank", "sample", "distance", "class", "concept", "split", "key"]
    assert lines[2].split()[:3] == ["1", "40", "0"]
    assert len(lines) == 5
    assert "contact sheet: neighbors.png" in said.err
    with Image.open(here / "neighbors.png") as sheet:
        assert sheet.format == "PNG"


def test_an_image_by_pixels_too(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = open_dataset(f"{run.parent}/squares.py:images").read(3).image
    Image.fromarray(image).save(here / "mine.png")
    assert call(run, "mine.png", "--pixels", "--metric", "cosine", "--whiten", "-k", 2, "--sheet", "out.PNG") == 0
    out = capsys.readouterr().out
    assert "units: nearest to mine.png (cosine, whitened, exact)" in out
    assert "nearest by pixels" in out
    assert (here / "out.PNG").is_file()


@pytest.mark.usefixtures("here")
def test_json(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(run, "--key", "image-20", "-k", 2, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema_version"] == 1
    assert (found["layer"], found["metric"], found["method"], found["recall"]) == ("units", "euclidean", "exact", None)
    assert found["query"] == {"sample": 20, "name": "image-20"}
    assert found["neighbors"][0] == {
        "rank": 1,
        "sample": 40,
        "key": "image-40",
        "split": "val",
        "class": "green",
        "concept": "green square",
        "distance": 0.0,
    }
    assert found["pixels"] is None
    assert not list(here.glob("*.png"))
    assert call(run, "--unit", 0, "-k", 1, "--json", "--sheet", "patch.png") == 0
    patch = json.loads(capsys.readouterr().out)
    assert {"row", "column"} <= set(patch["query"])
    assert {"row", "column", "top", "left", "bottom", "right"} <= set(patch["neighbors"][0])
    assert patch["sheet"] == "patch.png"
    assert (here / "patch.png").is_file()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--sample", "7"], "sample 7 (image-7) could not be read when the run was made: not an image"),
        ([], "give one of an image file, --sample, --key and --unit"),
        (["--sample", "1", "--at", "3"], "as in --at 3,9"),
        (["--sample", "1", "--sheet", "out.jpg"], "ends in .png"),
        (["--sample", "1", "--sheet", "no/out.png"], "cannot be written (there is no folder no)"),
        (["--sample", "1", "--exact", "--approximate"], "give one of them"),
        (["--sample", "1", "--rank", "0"], "name the unit with --unit"),
        (["--sample", "1", "--layer", "unit"], "did you mean units?"),
        (["--sample", "1", "--metric", "manhattan"], "known: cosine, euclidean"),
    ],
)
def test_mistakes_are_one_line(
    run: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(run, *arguments) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
