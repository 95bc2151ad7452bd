"""The pages in a browser, opened from disk: nothing fails, nothing leaves the machine, controls and addresses work."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.browser import needs_browser
from helpers.runs import LayerShape, read_image, write_run
from playwright.sync_api import Page

from microtome.reports import build_report

pytestmark = needs_browser


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = {"layer1": LayerShape(16, 14, 60), "layer4.0:conv/2": LayerShape(160, 7, 400)}
    run = write_run(tmp_path_factory.mktemp("browser") / "run", taus=(0.005, 0.05), layers=layers)
    return Path(build_report(run, read_image))


def shown(page: Page) -> list[int]:
    units: list[int] = page.eval_on_selector_all(
        ".card:not([hidden])", "nodes => nodes.map(n => Number(n.dataset.unit))"
    )
    return units


def test_from_the_index_to_a_unit(page: Page, index: Path) -> None:
    page.goto(index.as_uri())
    assert "scenes-cnn" in page.inner_text("h1")
    teaser = page.locator(".teaser").first
    name = teaser.locator("b").inner_text()
    teaser.click()
    page.wait_for_selector(".card.target .score")
    assert page.locator(".card.target h2 .name").inner_text() == name


def test_an_address_leads_to_its_unit(page: Page, index: Path) -> None:
    address = (index.parent / "layers" / "layer4.0%3Aconv%2F2.html").as_uri() + "#unit-143"
    page.goto(address)
    page.wait_for_selector("#unit-143.target .score")
    page.wait_for_function(
        "(() => { const r = document.getElementById('unit-143').getBoundingClientRect();"
        " return r.top >= 0 && r.top < 300; })()"
    )
    image = page.eval_on_selector("#unit-143 .patch", "node => getComputedStyle(node).backgroundImage")
    assert image.endswith('layer4.0%253Aconv%252F2/143.jpg")')


def test_filters_sorting_and_the_state_in_the_address(page: Page, index: Path) -> None:
    page.goto((index.parent / "layers" / "layer4.0%3Aconv%2F2.html").as_uri())
    scores = "units => units.map(u => MICROTOME_LAYER.taus[0].iou[u])"
    every = shown(page)
    assert len(every) == 160
    found = page.evaluate(scores, every[:-3])
    assert found == sorted(found, reverse=True)

    page.select_option("[name=sort]", "unit")
    assert shown(page) == list(range(160))
    page.fill("[name=q]", "ROO")
    roofs = shown(page)
    assert 0 < len(roofs) < 160
    page.check("[name=detectors]")
    page.locator("[name=min]").fill("0.2")
    strong = shown(page)
    assert set(strong) <= set(roofs)
    assert all(score >= 0.2 for score in page.evaluate(scores, strong))
    assert page.evaluate("location.hash") == "#q=ROO&sort=unit&min=0.2&detectors=1"

    page.reload()
    assert shown(page) == strong
    page.locator("[name=state]").select_option("dead")
    assert shown(page) == []
    page.click("#clear")
    assert len(shown(page)) == 160
    page.locator("[name=state]").select_option("saturated")
    assert shown(page) == [159]


def test_categories_and_the_concepts_above(page: Page, index: Path) -> None:
    page.goto((index.parent / "layers" / "layer1.html").as_uri())
    page.locator(".chips .chip", has_text="color").click()
    assert set(page.locator(".card:not([hidden]) header .chip").all_inner_texts()) == {"color"}
    page.click("#reset")
    column = page.locator("#columns button").first
    name = column.locator(".name").inner_text()
    column.click()
    assert set(page.locator(".card:not([hidden]) h2 .name").all_inner_texts()) == {name}


def test_another_tau_changes_labels_and_thresholds(page: Page, index: Path) -> None:
    page.goto((index.parent / "layers" / "layer1.html").as_uri() + "#unit-2")
    page.wait_for_selector("#unit-2 .score")
    before = page.inner_text("#unit-2 .histogram b")
    page.select_option("[name=tau]", "1")
    page.wait_for_function(
        "text => { const b = document.querySelector('#unit-2 .histogram b'); return b && b.textContent !== text }",
        arg=before,
    )
    assert "tau=1" in page.evaluate("location.hash")


def test_keys_walk_through_the_units(page: Page, index: Path) -> None:
    page.goto((index.parent / "layers" / "layer1.html").as_uri())
    order = shown(page)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate("location.hash") == f"#unit-{order[0]}"


def test_a_phone_scrolls_one_way_only(page: Page, index: Path) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    for path in (index, index.parent / "layers" / "layer1.html"):
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
