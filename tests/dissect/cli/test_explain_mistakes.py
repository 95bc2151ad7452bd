"""`microtome explain` on models and options that are not as they should be: one sentence, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.explaining import write_nets, write_photos

from microtome.dissect.attribution.explaining import command
from microtome.dissect.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_nets(tmp_path)
    write_photos(tmp_path / "photos", 2)
    return tmp_path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    return int(end.value.code or 0)


def explain(*arguments: object, model: str = "nets.py:classifier", images: str = "photos") -> int:
    return run("explain", model, images, "--out", "out", *arguments)


@pytest.mark.parametrize("size", ["0", "-5"])
def test_a_size_without_pixels_is_refused(here: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    assert explain("--method", "saliency", "--size", size) == 2
    assert f"size is {size}; expected a whole number of pixels above 0" in capsys.readouterr().err
    assert run("inspect", "nets.py:classifier", "--size", size) == 2
    assert f"size is {size}" in capsys.readouterr().err


def test_three_means_are_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("--method", "saliency", "--mean", "a,b,c") == 2
    assert "as in --mean 0.485,0.456,0.406" in capsys.readouterr().err


def test_interrupted_it_does_not_promise_to_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "find_sources", interrupted)
    assert explain("--method", "saliency") == 130
    assert "interrupted; what is finished is kept" in capsys.readouterr().err
