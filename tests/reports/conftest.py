"""A browser that opens pages from disk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.browser import CHROMIUM
from helpers.map_browser import watched
from playwright.sync_api import Browser, Page, sync_playwright


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test when anything is printed, thrown or asked of the network, or a dialog opens."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    trouble: list[str] = []
    yield watched(context, trouble)
    context.close()
    assert not trouble
