"""`microtome data`: what it prints, where, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.images import save, street

from microtome.dissect.cli import main
from microtome.dissect.cli.data import slug


class Shell:
    """Runs `microtome data` and keeps what it prints."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["data", *(str(argument) for argument in arguments)])
        out, err = self._capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        assert "Traceback" not in err
        return exit_.value.code, out, err


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


def test_a_table_the_findings_and_the_page(data: Shell, tmp_path: Path) -> None:
    street(tmp_path / "street")
    code, out, err = data("folder:street", "--workers", 2)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "folder:street: 6 samples, 0 of them unusable"
    assert "  splits      train 4, val 2" in lines
    assert ["concept", "images", "pixels"] in [line.split() for line in lines]
    assert [line.split()[0] for line in lines if line.startswith("  wheel ")] == ["wheel"]
    assert "3 images without a mask in plane parts" in out
    assert lines[-1] == "runs/data/folder-street/index.html"
    assert (tmp_path / lines[-1]).is_file()
    assert "6/6 images" in err


def test_json_is_one_object_and_writes_nothing(data: Shell, tmp_path: Path) -> None:
    street(tmp_path / "street")
    code, out, _ = data("folder:street", "--json", "--no-duplicates")
    assert code == 0
    answer = json.loads(out)
    assert (answer["schema_version"], answer["samples"], answer["page"]) == (1, 6, None)
    assert answer["concepts"][0].keys() == {"id", "name", "category", "images", "pixels"}
    assert [split["name"] for split in answer["splits"]] == ["train", "val"]
    assert {"kind", "text", "count", "examples"} <= answer["findings"][0].keys()
    assert [path.name for path in tmp_path.iterdir()] == ["street"]


def test_json_with_a_page(data: Shell, tmp_path: Path) -> None:
    street(tmp_path / "street")
    code, out, _ = data("folder:street", "--json", "--out", tmp_path / "page", "--examples", 2)
    assert code == 0
    assert json.loads(out)["page"] == str(tmp_path / "page/index.html")
    assert len(list((tmp_path / "page/pictures").glob("?.jpg"))) == 2


def test_samples_that_cannot_be_read_are_exit_code_3(data: Shell, tmp_path: Path) -> None:
    root = street(tmp_path / "street")
    save(root / "masks/object/train/000.png", np.zeros((9, 99), np.uint8))
    code, out, _ = data("folder:street", "--json")
    assert code == 3
    answer = json.loads(out)
    assert answer["unreadable"] == 1
    assert answer["findings"][0]["examples"] == ["train/000.png"]
    code, out, _ = data("folder:street", "--limit", 6)
    assert code == 3
    assert "not the same aspect ratio" in out


def test_the_first_samples_of_the_builtin_scenes(data: Shell) -> None:
    code, out, _ = data("scenes:50?size=64", "--limit", 5)
    assert code == 0
    assert out.startswith("scenes:50?size=64: 5 samples (the first of 50), 0 of them unusable")
    assert "and 7 more; the page and --json have them all" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["folder:nowhere"], "nowhere does not exist"),
        (["sceens:5"], "did you mean scenes"),
        (["folder:street", "--out", "street"], "holds other things"),
        (["folder:street", "--limit", "0"], "--limit"),
        ([], "Missing argument"),
    ],
)
def test_mistakes_are_exit_code_2(data: Shell, tmp_path: Path, arguments: list[str], words: str) -> None:
    street(tmp_path / "street")
    code, out, err = data(*arguments)
    assert code == 2
    assert words in err
    assert out == ""


def test_folders_are_named_after_what_they_show() -> None:
    assert slug("folder:/data/My Street/") == "folder-data-My-Street"
    assert slug("..") == "data"
    assert slug("ä:ö") == "data"
    long = [slug("folder:" + "x" * 200 + end) for end in "ab"]
    assert len(set(long)) == 2
    assert {len(name) for name in long} == {80}
