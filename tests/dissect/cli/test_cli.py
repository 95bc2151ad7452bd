"""The command line, in process: what it prints, where, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.planted import write_planted

from microtome.dissect.cli import main
from microtome.reports.sizes import report_sizes, size_lines


class Shell:
    """Runs commands and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        assert "Traceback" not in err
        return exit_.value.code, out, err


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_audit_then_query_then_report(shell: Shell, tmp_path: Path) -> None:
    source = write_planted(tmp_path)
    run = tmp_path / "run"
    command = ("audit", f"{source}:model", f"{source}:images", "--layers", "units", "--tau", "0.02,0.1", "--out", run)
    code, out, err = shell(*command)
    assert code == 0, err
    assert out.splitlines()[-1] == str(run / "report" / "index.html")
    assert "units" in out
    assert "capture" in err
    assert "capture" not in out
    code, out, _ = shell("query", run, "concept=car", "iou>0.1", "--json")
    assert code == 0
    answer = json.loads(out)
    assert answer["schema_version"] == 1
    assert {"layer", "unit", "concept", "category", "iou"} <= answer["units"][0].keys()
    assert all(unit["iou"] > 0.1 for unit in answer["units"])
    code, out, _ = shell("query", run, "label=car", "--csv")
    assert out.splitlines()[0].startswith("layer,unit,concept,category,iou")
    (run / "report" / "index.html").unlink()
    code, out, err = shell("report", run)
    assert code == 0
    assert Path(out.strip()).exists()
    assert err.splitlines()[-1] == size_lines(report_sizes(run / "report"))[-1]
    code, _, err = shell(*command, "--top", 5)
    assert code == 4
    assert "top" in err


def test_unreadable_samples_give_exit_code_3(shell: Shell, tmp_path: Path) -> None:
    source = write_planted(tmp_path)
    code, out, _ = shell(
        *("audit", f"{source}:model", f"{source}:half_broken", "--layers", "units", "--out", tmp_path / "run", "--json")
    )
    assert code == 3
    assert json.loads(out)["unreadable"] == 5


def test_a_toml_file_and_flags_over_it(shell: Shell, tmp_path: Path) -> None:
    source = write_planted(tmp_path)
    file = tmp_path / "night.toml"
    file.write_text(
        f'model = "{source}:model"\ndataset = "{source}:images"\nlayers = ["units"]\nout = "{tmp_path / "run"}"\n'
        "tau = [0.02]\nlimit = 9\nlabel-size = 8\n"
    )
    code, out, err = shell("audit", file, "--json", "--limit", 7)
    assert code == 0, err
    assert json.loads(out)["samples"] == 7
    code, _, err = shell("audit", "--resume", tmp_path / "run")
    assert code == 0, err


def test_inspect_lists_layers_and_cost(shell: Shell, tmp_path: Path) -> None:
    source = write_planted(tmp_path)
    code, out, _ = shell("inspect", f"{source}:model", "--json", "--samples", 1000)
    answer = json.loads(out)
    assert code == 0
    by_name = {layer["name"]: layer for layer in answer["layers"]}
    assert by_name["units"]["shape"] == [7, 8, 8]
    assert by_name["units"]["units"] == 7
    assert by_name["units"]["bytes_per_image"] == 7 * 8 * 8 * 2
    assert by_name["head"]["grid"] == [1, 1]
    assert answer["cost"]["seconds"] > 0
    code, out, _ = shell("inspect", f"{source}:model")
    assert "units" in out
    assert "disk" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("query", "nowhere"), 2, "does not exist"),
        (("audit", "builtin:nothing", "scenes:4", "--layers", "x"), 2, "nothing"),
        (("audit", "builtin:scenes-cnn", "scenery:4", "--layers", "x"), 2, "scenery"),
        (("audit", "builtin:scenes-cnn"), 2, "MODEL and DATASET"),
        (("audit", "builtin:scenes-cnn", "scenes:4"), 2, "--layers"),
        (("audit", "missing.toml"), 2, "missing.toml"),
        (("audit", "m", "d", "--layers", "x", "--tau", "lots"), 2, "lots"),
        (("audit", "--resume", "nowhere"), 2, "does not exist"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(shell: Shell, arguments: tuple[str, ...], code: int, message: str) -> None:
    found, _, err = shell(*arguments)
    assert found == code
    assert message in err


@pytest.mark.parametrize("command", ["audit", "inspect", "query", "report"])
def test_every_help_has_an_example(shell: Shell, command: str) -> None:
    code, out, _ = shell(command, "--help")
    assert code == 0
    assert f"microtome {command}" in out.split("Example")[1]


def test_tables_of_a_run(shell: Shell, planted_run: Path) -> None:
    code, out, _ = shell("query", planted_run)
    assert code == 0
    assert "unique detectors" in out
    code, out, _ = shell("query", planted_run, "units:5")
    assert out.splitlines()[1].startswith("tree")
    code, _, err = shell("query", planted_run, "concept=tre")
    assert code == 2
    assert "did you mean tree" in err
