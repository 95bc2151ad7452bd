"""`microtome map`: what it prints, draws and refuses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from helpers.squares import audit_squares
from PIL import Image

from microtome.dissect.audit.logsummary import summarise
from microtome.dissect.cli import main
from microtome.dissect.embedding import umap_map
from microtome.storage.places import LocalPlace
from microtome.storage.run import Run

ANEW = ("--layer", "units", "--seed", 11)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audit_squares(tmp_path_factory.mktemp("squares"))


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["map", *map(str, arguments)])
    return int(end.value.code or 0)


def test_a_table_says_how_good_the_maps_are(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(run) == 0
    assert capsys.readouterr().out
    assert call(run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "images", "trustworthiness", "recall@10", "purity"]
    names = Run.open(run).layer_names
    assert [line.split()[0] for line in lines[1 : 1 + len(names)]] == names
    assert lines[1].endswith("was there")
    assert any("too few for a map" in line for line in lines[1 + len(names) :])


def test_a_map_made_anew_as_json_and_as_a_picture(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = Run.open(run).layer_names[0]
    before = summarise(LocalPlace(run)).sessions
    png = tmp_path / "map.png"
    assert call(run, "--layer", layer, "--perplexity", 4, "--seed", 7, "--no-report", "--json", "--png", png) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema_version"], answer["made"]) == (1, [layer])
    assert answer["maps"][layer]["settings"]["perplexity"] == 4
    assert answer["maps"][layer]["quality"]["k"] == 10
    with Image.open(png) as picture:
        assert picture.format == "PNG"
    log = summarise(LocalPlace(run))
    assert log.sessions == before + 1
    assert log.finished
    assert not (run / "lock.json").exists()
    assert call(run, "--layer", layer, "--png", png, "--colour", "cluster", "--json") == 0
    assert json.loads(capsys.readouterr().out)["made"] == []


def test_layers_after_one_that_is_made_anew_are_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("microtome.dissect.audit.maps.begun_elsewhere", lambda run: ["block3", "head"])
    assert call(run, "--json", "--no-report") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["begun_elsewhere"] == ["block3", "head"]
    assert "note: block3, head: begun from maps of earlier layers that are no longer there" in said.err
    assert f"to make them anew: microtome map {run}" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--layer", "nowhere"), "layer of this run"),
        (("--png", "map.png"), "name it with --layer"),
        (("--perplexity", 5, "--neighbors", 5), "give one of them"),
        (("--perplexity", 0.5), "perplexity"),
        (("--max-memory", "1MB", "--seed", 99), "--max-memory is 1.0 MB; allow more, or take fewer neighbours"),
        (("--seed", 2**31 - 1), f"--seed {2**31 - 1}: give a whole number from 0 to {2**31 - 2}"),
        (("--seed", 2**32), "--seed"),
        (("--seed", -1), "--seed"),
        (("--colour", "class"), "--colour says how --png is drawn"),
        (("--view", "pca"), "--view says how --png is drawn"),
        ((*ANEW, "--png", "map.jpg"), "ends in .png"),
        ((*ANEW, "--png", "nowhere/map.png"), "there is no folder nowhere"),
        ((*ANEW, "--png", "map.png", "--colour", "shape"), "unit:NUMBER"),
        ((*ANEW, "--png", "map.png", "--colour", "cluster:1"), "unit:NUMBER"),
        ((*ANEW, "--png", "map.png", "--colour", "concept:grue"), "concept"),
        ((*ANEW, "--png", "map.png", "--colour", "unit:4"), "0 to 3"),
        ((*ANEW, "--png", "map.png", "--view", "umap"), "ask for one with --umap"),
        ((*ANEW, "--png", "map.png", "--view", "umap", "--no-umap"), "ask for one with --umap"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = Run.open(run).info.get("map")
    assert call(run, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert Run.open(run).info.get("map") == before
    assert list(tmp_path.iterdir()) == []


def test_an_umap_of_too_many_is_refused_before_the_map_is_made(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Run.open(run).info.get("map")
    monkeypatch.setattr(umap_map, "MOST_POINTS", 40)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert call(run, "--umap", "--seed", 12) == 2
    assert "UMAP of 44 points" in capsys.readouterr().err
    assert Run.open(run).info.get("map") == before
