"""Stage report: what it says beside the pages."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.maps import plant_maps
from helpers.runs import LayerShape, read_image, write_run

from microtome.dissect.audit.stages.report import write_report
from microtome.reports.bundles import MAP, words_instead

DATASET: Any = SimpleNamespace(read=lambda index: SimpleNamespace(image=read_image(index)))


@pytest.mark.parametrize("built", [True, False])
def test_a_script_that_is_missing_is_told_of(
    built: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    plant_maps(run)
    missing = [] if built else [MAP]
    monkeypatch.setattr("microtome.dissect.audit.stages.report.missing_bundles", lambda **_: missing)
    write_report(run, DATASET)
    told = capsys.readouterr().err
    assert (words_instead(MAP) in told) != built
    assert "map page: " in told


def test_a_run_without_maps_writes_no_page_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    write_report(run, DATASET)
    assert "map" not in capsys.readouterr().err
