"""What every test starts from: fixed seeds, few threads, no network, no colours."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
from helpers.s3 import faulty_s3, s3, s3_server
from hypothesis import settings

__all__ = ["faulty_s3", "s3", "s3_server"]  # fixtures

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("microtome", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("microtome")


@pytest.fixture(autouse=True)
def fixed_start(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Seed the global generators, fix what the environment may change in output, and keep out of the user's caches."""
    random.seed(0)
    np.random.seed(0)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("MICROTOME_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("COLUMNS", "110")
