"""Where the browser is that tests of pages open, and what it says of a page's accessibility."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).parents[2] / "reports/frontend/node_modules/axe-core/axe.min.js"
"""Fetched with what the scripts of pages are built from."""

needs_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not installed")
needs_axe = pytest.mark.skipif(
    not AXE.exists() and "MICROTOME_REQUIRE_REAL" not in os.environ,
    reason="axe-core is not installed: run npm ci in reports/frontend",
)


def axe_violations(page: Page) -> list[str]:
    """What axe-core finds on the page that is shown, serious or critical: a line each."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations'], preload: false}).then(r => r.violations)"
    )
    return [
        f"{one['impact']} {one['id']}: {one['nodes'][0]['target']} and {len(one['nodes']) - 1} more"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
