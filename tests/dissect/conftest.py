"""What tests of any room share: a finished audit of planted units, only to be read, and commands as processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import Commands
from helpers.planted import write_planted

from microtome.dissect import AuditConfig, run_audit


@pytest.fixture(scope="session")
def planted_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `planted.py:model` over `planted.py:half_broken` at two taus; `planted.py` lies beside it."""
    folder = tmp_path_factory.mktemp("planted-run")
    source = write_planted(folder)
    run_audit(
        AuditConfig(
            model=f"{source}:model",
            dataset=f"{source}:half_broken",
            layers=("units", "head"),
            out=folder / "run",
            tau=(0.02, 0.1),
            top=3,
        )
    )
    return folder / "run"


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """`microtome ...` as processes that may be killed, all forked from one that has imported everything."""
    with Commands(tmp_path_factory.mktemp("said")) as commands:
        yield commands
