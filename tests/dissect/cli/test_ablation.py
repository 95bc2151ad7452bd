"""`microtome importance` and `microtome ablate` as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.typed import typed

from microtome.storage.lock import RunLock
from microtome.storage.places import open_place


@pytest.fixture
def run(planted_run: Path, tmp_path: Path) -> Path:
    """The planted model has classes a and b, which its data has, too; some of what its units give is NaN."""
    return shutil.copytree(planted_run, tmp_path / "run")


def test_importance_then_ablate(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, err = typed(capsys, "importance", run, "--layer", "units")
    assert code == 0
    assert "units: 7 units, each set to 0, over 43 images" in out
    assert "2 classes of the images are classes of the model" in err
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["a", "b"]
    code, out, _ = typed(capsys, "importance", run, "--layer", "units", "--no-report", "--json")
    answer = json.loads(out)
    assert (code, answer["schema_version"], answer["layer"], answer["classes"]) == (0, 1, "units", ["a", "b"])
    assert len(answer["importance"]) == 7 * 3
    code, out, _ = typed(capsys, "ablate", run, "--layer", "units", "--class", "a", "--top", 2, "--draws", 3)
    assert code == 0
    assert "2 random sets" not in out
    assert "3 random sets of 2 (other units)" in out
    assert out.splitlines()[-1].startswith("a falls from ")
    code, out, _ = typed(capsys, "ablate", run, "--layer", "units", "--units", "0,2-3", "--json")
    answer = json.loads(out)
    assert (answer["units"], answer["draws"], len(answer["rows"])) == ([0, 2, 3], 20, 3)
    assert typed(capsys, "verify", run)[0] == 0
    code, out, _ = typed(capsys, "status", run)
    assert "finished, 48 images" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("importance", "--layer", "unit"), "did you mean units?"),
        (("importance", "--layer", "units", "--value", "men"), "did you mean mean?"),
        (("ablate", "--layer", "units", "--units", "7"), "has units 0 to 6"),
        (("ablate", "--layer", "units"), "in one way"),
        (("ablate", "--layer", "units", "--concept", "cat"), "did you mean car?"),
        (("ablate", "--layer", "units", "--class", "a"), "do that first: microtome importance"),
    ],
)
def test_mistakes_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], planted_run: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = typed(capsys, arguments[0], planted_run, *arguments[1:])
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_run_at_work_is_left_alone(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    with RunLock(open_place(run)):
        code, _, err = typed(capsys, "importance", run, "--layer", "units")
    assert (code, "in use: audit, process" in err) == (4, True)


@pytest.mark.parametrize("command", ["importance", "ablate"])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = typed(capsys, command, "--help")
    assert code == 0
    assert f"microtome {command}" in out.split("Example")[1]
