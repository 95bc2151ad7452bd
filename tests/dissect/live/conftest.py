"""A small finished run, and what a server has its model do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import write_tiny

from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.live.on_demand import OnDemand
from microtome.storage.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    net = write_tiny(folder)
    common: dict[str, Any] = {"tau": (0.05,), "map": False, "device": "cpu"}
    run_audit(AuditConfig(model=f"{net}:relu", dataset="scenes:24", layers=("second",), out=folder / "run", **common))
    return folder / "run"


@pytest.fixture(scope="module")
def actions(run: Path) -> OnDemand:
    return OnDemand(Run.open(run))
