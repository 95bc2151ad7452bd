"""A page of maps whose truth is known, and a browser's page that shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.map_browser import watched
from helpers.map_pages import Planted, write_map_page
from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return write_map_page(tmp_path_factory.mktemp("map"), 3000)


@pytest.fixture(scope="module")
def shared(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """One page for most tests, since the first drawing of each takes its time; and its trouble."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    trouble: list[str] = []
    yield watched(context, trouble), trouble
    context.close()


@pytest.fixture
def map_page(shared: tuple[Page, list[str]]) -> Iterator[Page]:
    """A page that fails the test when anything is printed, thrown or asked of the network."""
    page, trouble = shared
    page.mouse.move(1, 1)
    yield page
    assert not trouble
