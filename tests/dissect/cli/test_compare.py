"""`microtome compare`: what it prints, where its page goes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.compared import set_iou, write_compared

from microtome.dissect.cli import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    for name, iou in (("first", 0.2), ("second", 0.01)):
        run = write_compared(folder / name, permuted=name == "second")
        set_iou(run, "wheel", iou)
    return folder / "first", folder / "second"


def compare(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["compare", *map(str, arguments)])
    return int(end.value.code or 0)


def test_a_table_and_a_page(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare(*runs) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(Path("runs/compare/first-second/index.html"))
    assert Path(lines[-1]).exists()
    text = "\n".join(lines)
    assert "98 samples in common" in text
    assert "layer4.0:conv/2" in text
    assert "1 concept lost in B, 1 clearly" in text
    row = next(line for line in lines if line.startswith("  wheel"))
    assert row.split()[-1] == "-0.190"
    assert compare(*runs) == 0


def test_json_alone_writes_no_page(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare(*runs, "--layer", "layer1", "--by", "peaks", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema_version"], answer["page"]) == (1, None)
    assert [layer["a"] for layer in answer["layers"]] == ["layer1"]
    assert answer["settings"]["by"] == "peaks"
    assert not any(tmp_path.iterdir())
    assert compare(*runs, "--layer", "layer1=layer4.0:conv/2", "--json", "--out", tmp_path / "page") == 0
    answer = json.loads(capsys.readouterr().out)
    assert Path(answer["page"]).exists()
    assert (len(answer["layers"][0]["units_a"]), len(answer["layers"][0]["units_b"])) == (24, 40)


def test_what_is_refused(
    runs: tuple[Path, Path], planted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(runs[0], tmp_path / "nowhere", "--json") == 2
    assert compare(*runs, "--layer", "layer2", "--json") == 2
    assert "did you mean layer1" in capsys.readouterr().err
    assert compare(runs[0], planted_run, "--json") == 2
    assert "no layer of the same name" in capsys.readouterr().err
    assert compare(runs[0], planted_run, "--layer", "layer1=units", "--json") == 4
    assert "no tau in common" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert compare(*runs, "--out", tmp_path / "mine") == 2
    assert "holds other things" in capsys.readouterr().err


def test_a_real_run_beside_itself(planted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(planted_run, planted_run, "--layer", "units", "--json", "--out", tmp_path / "page") == 0
    answer = json.loads(capsys.readouterr().out)
    (layer,) = answer["layers"]
    assert layer["matched"] == layer["comparable_a"] > 0
    assert {match["a"] - match["b"] for match in layer["matches"]} == {0}
    assert any((tmp_path / "page" / "strips").iterdir())


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--help") == 0
    assert "microtome compare runs/epoch-10" in capsys.readouterr().out
