"""The page "Ask" of a served run in a browser, and what it says without a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from helpers.browser import CHROMIUM, axe_violations, needs_axe, needs_browser
from helpers.serving import served
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from microtome.dissect.live.on_demand import ExplorerOnDemand, OnDemand
from microtome.reports.server.actions import AbandonedError, Stop
from microtome.reports.server.exploring import Removal
from microtome.reports.server.streams import Told
from microtome.storage.run import Run

PATIENCE = 60_000
HOSTILE = "<b>& co"
"""One of the classes of the model of these tests (helpers/tiny.py)."""

pytestmark = needs_browser


@contextmanager
def opened(run: Path, explorer: ExplorerOnDemand, actions: OnDemand, width: int = 1200) -> Iterator[tuple[Page, str]]:
    """A page in a browser, and the address of the server; fails on any error of a script and any request elsewhere."""
    with served(Run.open(run).place, actions, explorer=explorer) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": width, "height": 900})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        trouble: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss())[1])
        page.on(
            "request", lambda asked: None if asked.url.startswith((address, "data:")) else trouble.append(asked.url)
        )
        yield page, address
        assert trouble == []
        browser.close()


@pytest.fixture(scope="module")
def explorer(actions: OnDemand) -> ExplorerOnDemand:
    return ExplorerOnDemand(actions)


def test_a_query_is_answered_kept_in_the_address_and_copied(
    run: Path, explorer: ExplorerOnDemand, actions: OnDemand
) -> None:
    with opened(run, explorer, actions) as (page, address):
        page.goto(address)
        page.get_by_role("link", name="Ask", exact=True).click()
        page.fill("#expression", "concept=sky iou>=0")
        page.keyboard.press("Enter")
        page.locator("#query tbody tr >> nth=5").wait_for()
        assert "6 units" in page.locator("#query .answer").inner_text()
        page.locator("#query").get_by_role("button", name="copy JSON").click()
        page.locator("#query .said", has_text="6 rows copied").wait_for()
        rows = json.loads(page.evaluate("navigator.clipboard.readText()"))
        assert [row["concept"] for row in rows] == ["sky"] * 6
        again = page.context.new_page()
        again.goto(page.url)
        again.locator("#query tbody tr >> nth=5").wait_for()
        assert again.input_value("#expression") == "concept=sky iou>=0"
        again.close()
        unit = page.locator("#query tbody tr").first.get_by_role("link").nth(1)
        number = unit.inner_text()
        unit.click()
        page.get_by_role("heading", name=f"second · unit {number}").wait_for()
        page.go_back()
        page.locator("#query tbody tr >> nth=5").wait_for()
        page.fill("#expression", "concept=skyy")
        page.keyboard.press("Enter")
        page.get_by_role("alert").filter(has_text="did you mean sky").wait_for()
        page.fill("#expression", "iou>2")
        page.keyboard.press("Enter")
        page.get_by_text("No unit meets all of that").wait_for()
        assert page.locator("#query .trouble").is_hidden()


def test_nearest_images_of_a_sample_and_of_an_image_of_ones_own(
    run: Path, explorer: ExplorerOnDemand, actions: OnDemand, tmp_path: Path
) -> None:
    mine, bad = tmp_path / "mine.png", tmp_path / "bad.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)).save(mine)
    bad.write_bytes(b"no image")
    with opened(run, explorer, actions) as (page, address):
        page.goto(f"{address}/ask.html")
        page.fill("#near-sample", "5")
        page.fill("#near-count", "3")
        page.locator("#near").get_by_role("button", name="Find").click()
        page.locator("#near li >> nth=3").wait_for()
        assert "sample=5&layer=second" in page.url
        assert page.locator("#near li").count() == 4
        assert page.evaluate("[...document.querySelectorAll('#near img')].every(i => i.decode && i.src)")
        following = page.locator("#near li >> nth=1").get_by_role("button")
        number = following.inner_text().removeprefix("image ")
        following.click()
        page.locator("#near .asked", has_text=f"image {number}").wait_for()
        assert f"sample={number}" in page.url
        page.set_input_files("#near-file", bad)
        page.locator("#near .trouble", has_text="no image that is understood here").wait_for()
        page.set_input_files("#near-file", mine)
        page.locator("#near .asked", has_text="your image").wait_for()
        assert "sample=" not in page.url
        page.fill("#near-sample", "24")
        page.evaluate("document.getElementById('near-form').noValidate = true")
        page.locator("#near").get_by_role("button", name="Find").click()
        page.locator("#near .trouble", has_text="The run has images 0 to 23").wait_for()


@needs_axe
def test_units_are_ablated_from_their_page_on(run: Path, explorer: ExplorerOnDemand, actions: OnDemand) -> None:
    with opened(run, explorer, actions) as (page, address):
        page.goto(f"{address}/unit.html#layer=second&unit=4")
        page.get_by_role("link", name="Ablate this unit").click()
        page.locator("#ablate-go:focus").wait_for()
        assert page.input_value("#ablate-units") == "4"
        assert page.locator("#ablate tbody").count() == 0  # nothing is measured before the button is pressed
        page.fill("#ablate-units", "4-2")
        page.click("#ablate-go")
        page.locator("#ablate .trouble", has_text="“4-2” is no unit").wait_for()
        page.fill("#ablate-units", "4, 0-6")
        page.click("#ablate-go")
        page.locator("#ablate .trouble", has_text="units 0 to 5, not 6").wait_for()
        page.fill("#ablate-units", "4, 0-1")
        page.click("#ablate-go")
        page.locator("#ablate tbody tr").first.wait_for()
        text = page.locator("#ablate .answer").inner_text()
        assert "agreement with the untouched model" in text
        assert "without units 0-1, 4" in text
        assert "all 24 images" in text
        assert unquote(page.url).endswith("#ablate=second&units=4,0-1")
        names = page.locator("#ablate tbody th").all_inner_texts()
        assert names[0] == "all classes"
        assert set(names[1:]) <= {"street", "beach", "farm", HOSTILE}
        assert page.locator("#ablate tbody b").count() == 0
        page.check("#by-concept")
        page.fill("#ablate-concept", "sky")
        page.fill("#ablate-top", "2")
        page.fill("#ablate-draws", "0")
        page.click("#ablate-go")
        page.locator("#ablate .answer", has_text="the 2 units of highest IoU for sky").wait_for()
        assert unquote(page.url).endswith("#ablate=second&of=sky&top=2")
        assert axe_violations(page) == []


def test_an_ablation_is_stopped_and_a_page_that_is_left_lets_the_model_go(run: Path, actions: OnDemand) -> None:
    class Endless(ExplorerOnDemand):
        """Ablations that end when nobody waits any more."""

        stopped = threading.Event()

        def ablate(self, removal: Removal, stop: Stop, told: Told) -> dict[str, Any]:
            told(3, 9)
            while not stop():
                pass
            self.stopped.set()
            raise AbandonedError

    with opened(run, Endless(actions), actions, width=360) as (page, address):
        page.goto(f"{address}/ask.html#ablate=second&units=1")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.click("#ablate-go")
        page.locator("#ablate .busy", has_text="3 of 9 images").wait_for()
        assert page.locator("#ablate progress").get_attribute("value") == str(1 / 3)
        page.locator("#ablate").get_by_role("button", name="Stop").click()
        assert page.locator("#ablate .busy").is_hidden()
        assert Endless.stopped.wait(60)
        Endless.stopped.clear()
        page.click("#ablate-go")
        page.locator("#ablate .busy", has_text="3 of 9 images").wait_for()
        page.goto("about:blank")
        assert Endless.stopped.wait(60)


def test_what_cannot_be_asked_says_why(run: Path, actions: OnDemand) -> None:
    class Without(ExplorerOnDemand):
        """A run whose model has no classes and takes no images."""

        def about(self) -> dict[str, Any]:
            found = super().about()
            found["ablate"] = {"why": "The model has no classes.", "layers": []}
            found["neighbors"]["uploads"] = "The model takes no images."
            return found

    with opened(run, Without(actions), actions) as (page, address):
        page.goto(f"{address}/ask.html")
        page.locator("#ablate .answer", has_text="The model has no classes.").wait_for()
        assert page.locator("#ablate-form").is_hidden()
        assert page.locator("#near-file").is_disabled()
        assert page.locator("#near-own").inner_text() == "The model takes no images."
        page.goto(f"{address}/unit.html#layer=second&unit=0")
        page.get_by_role("link", name="Images like its first patch").wait_for()
        assert page.get_by_role("link", name="Ablate this unit").count() == 0


def test_from_disk_it_says_how_to_serve(run: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto((run / "report" / "ask.html").as_uri())
        page.locator("#command", has_text=f"microtome serve {run}").wait_for()
        assert page.locator("#asking").is_hidden()
        page.goto((run / "report" / "unit.html").as_uri() + "#layer=second&unit=0")
        page.get_by_role("heading", name="second · unit 0").wait_for()
        assert page.locator("#live").is_hidden()
        browser.close()
