"""Real models and photos, for the tests that use them: a kit that may lie beside the project and is no part of it.

Where it is absent such a test skips and says so; with MICROTOME_REQUIRE_REAL set (as .ci/run does where it finds
the kit) it fails instead, so that nothing is left out in silence.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[3] / "shared" / "real"


def real_kit(*packages: str) -> Path:
    """The kit's folder; `packages` are the importable names that the test needs of those the kit installs."""
    if not (KIT / "README.md").is_file():
        _leave_out(f"the real inputs are not here ({KIT})")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        _leave_out(f"the real inputs' packages are not installed ({', '.join(missing)}): bash {KIT}/install.sh")
    return KIT


def _leave_out(reason: str) -> None:
    if os.environ.get("MICROTOME_REQUIRE_REAL"):
        pytest.fail(reason)
    pytest.skip(reason)
