"""What tests do to a page of maps: open it at an address, wait until it has drawn, draw a lasso around a group."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers.map_pages import Planted
from playwright.sync_api import BrowserContext, Page

LEFT = "net::ERR_ABORTED"
"""Why a request fails whose page was left before it was answered."""


def watched(context: BrowserContext, trouble: list[str]) -> Page:
    """A page that notes what is printed, thrown or asked of the network; what software rendering mutters may pass."""
    page = context.new_page()
    page.on("console", lambda said: None if "GL Driver Message" in said.text else trouble.append(said.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss())[1])
    local = ("file:", "data:", "blob:")
    page.on("request", lambda asked: None if asked.url.startswith(local) else trouble.append(asked.url))
    page.on("requestfailed", lambda asked: None if asked.failure == LEFT else trouble.append(f"failed: {asked.url}"))
    return page


def state(page: Page, name: str) -> Any:
    """A member of what the page tells of itself."""
    return page.evaluate(f"MICROTOME_MAP_STATE.{name}")


def settled(page: Page, timeout: float = 30_000) -> None:
    """Wait until the page has drawn what it was asked to."""
    page.wait_for_function("window.MICROTOME_MAP_STATE && MICROTOME_MAP_STATE.idle", timeout=timeout)


def opened(page: Page, planted: Planted, fragment: str = "", *, anew: bool = False) -> Page:
    """The page at an address: loaded, or where it is there already, told of the address alone."""
    if anew or page.url.partition("#")[0] != planted.address:
        page.goto("about:blank")
        page.goto(planted.address + fragment)
    else:
        page.evaluate(
            "hash => location.hash === hash ? null : new Promise(done => {"
            " addEventListener('hashchange', done, {once: true}); location.hash = hash })",
            fragment,
        )
    settled(page)
    return page


def screen(page: Page, point: int) -> tuple[float, float]:
    """Where a point is on the screen."""
    page.locator("#map-canvas").scroll_into_view_if_needed()
    box = page.locator("#map-canvas").bounding_box()
    assert box is not None
    across, down = page.evaluate(f"MICROTOME_MAP_STATE.screen({point})")
    return box["x"] + across, box["y"] + down


def lasso(page: Page, planted: Planted, group: int, margin: float = 12) -> None:
    """Draw around the points of a group, a margin of pixels away from them."""
    places = np.array([screen(page, int(i)) for i in _edges(planted, group)])
    (left, top), (right, bottom) = places.min(axis=0) - margin, places.max(axis=0) + margin
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 4)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=6)
        page.wait_for_timeout(30)
    page.mouse.up()


def _edges(planted: Planted, group: int) -> list[int]:
    mine = np.flatnonzero(planted.group == group)
    x, y = planted.positions[mine].T
    return mine[[x.argmin(), x.argmax(), y.argmin(), y.argmax()]].tolist()
