"""From page to page in a browser, opened from disk: search, keys, addresses, copies, other widths and schemes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from helpers.browser import axe_violations, needs_axe, needs_browser
from helpers.importance import plant_importance
from helpers.maps import plant_maps
from helpers.runs import LayerShape, read_image, write_run
from playwright.sync_api import Page

from microtome.reports import build_report

pytestmark = needs_browser

LAYERS = {"layer1": LayerShape(16, 14, 60), "layer4.0:conv/2": LayerShape(40, 7, 400)}
PAGES = (
    "index.html",
    "layers/layer1.html",
    "unit.html#layer=layer1&unit=3",
    "concept.html#concept=1",
    "concepts.html",
    "layers.html",
    "classes.html",
    "map.html",
    "data.html",
    "methods.html",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("pages") / "run", taus=(0.005, 0.05), layers=LAYERS, splits=True)
    plant_maps(run)
    plant_importance(run, "layer1", ["harbour", "beach"], {(3, 0): (0.2, 0.3), (4, 1): (0.1, 0.2)})
    return Path(build_report(run, read_image, single_file=True)).parent


def address(report: Path, name: str) -> str:
    path, _, state = name.partition("#")
    return (report / path).as_uri() + (f"#{state}" if state else "")


def show(page: Page, report: Path, name: str) -> None:
    """Open a page and wait until its scripts have drawn it."""
    page.goto("about:blank")
    page.goto(address(report, name))
    if name == "map.html":
        page.wait_for_function("window.MICROTOME_MAP_STATE && window.MICROTOME_MAP_STATE.idle")
        page.wait_for_load_state("networkidle")
    elif name.startswith(("unit.html", "concept.html")):
        page.locator("main div:not([hidden])").first.wait_for()


def test_from_the_index_to_a_concept_and_back(page: Page, report: Path) -> None:
    page.goto(address(report, "index.html"))
    page.click("nav[aria-label=Layers] a:has-text('layer1')")
    page.locator(".card .score").first.wait_for()
    card = page.locator(".card.detector").first
    unit, concept = card.locator("a.unit").inner_text(), card.locator("h2 a").inner_text()
    card.locator("a.unit").click()
    page.locator("#unit-body:not([hidden])").wait_for()
    assert page.inner_text("h1") == f"layer1 · {unit}"
    page.locator("#card h2 a").click()
    page.locator("#concept-body:not([hidden])").wait_for()
    assert page.inner_text("h1") == concept
    assert page.locator("#layers section").count() == 2
    page.go_back()
    page.locator("#unit-body:not([hidden])").wait_for()
    assert page.inner_text("h1") == f"layer1 · {unit}"
    page.go_back()
    page.locator(".card .score").first.wait_for()
    page.go_back()
    assert "scenes-cnn" in page.inner_text("h1")


def test_search_finds_concepts_units_layers_and_classes(page: Page, report: Path) -> None:
    page.goto(address(report, "methods.html"))
    page.keyboard.press("/")
    for typed, found, leads_to in (
        ("whe", "wheel", "concept.html#concept=4"),
        ("layer1 7", "layer1 · unit 7", "unit.html#layer=layer1&unit=7"),
        ("harb", "harbour", "classes/"),
        ("layer4", "layer4.0:conv/2", "layers/layer4"),
        ("compare", "Compare", "layers.html"),
    ):
        page.fill("#search", typed)
        first = page.locator("#search-hits li a").first
        first.wait_for()
        assert first.locator("b").inner_text() == found
        assert leads_to in str(first.get_attribute("href"))
    page.fill("#search", "nothing like it")
    assert page.inner_text("#search-hits") == "nothing of that name in this run"
    page.keyboard.press("Escape")
    assert page.locator("#search-hits").is_hidden()


def test_a_hit_is_chosen_with_the_keyboard(page: Page, report: Path) -> None:
    page.goto(address(report, "index.html"))
    page.keyboard.press("/")
    page.keyboard.type("r")
    page.locator("#search-hits li").nth(2).wait_for()
    wanted = page.locator("#search-hits li b").nth(1).inner_text()
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#search", "aria-activedescendant") == "hit-1"
    page.keyboard.press("Enter")
    page.wait_for_function("name => document.querySelector('h1').textContent.includes(name)", arg=wanted)


def test_keys_walk_through_units_layers_and_concepts(page: Page, report: Path) -> None:
    page.goto(address(report, "unit.html#layer=layer1&unit=3"))
    page.locator("#unit-body:not([hidden])").wait_for()
    page.keyboard.press("j")
    page.wait_for_function("document.querySelector('h1').textContent === 'layer1 · unit 4'")
    page.keyboard.press("]")
    page.wait_for_function("document.querySelector('h1').textContent === 'layer4.0:conv/2 · unit 4'")
    page.reload()
    page.wait_for_function("document.querySelector('h1').textContent === 'layer4.0:conv/2 · unit 4'")
    page.keyboard.press("?")
    assert "next unit" in page.locator("dialog[open]").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("dialog").count() == 0

    page.goto(address(report, "concept.html#concept=1"))
    page.locator("#concept-body:not([hidden])").wait_for()
    before = page.inner_text("h1")
    page.keyboard.press("]")
    page.wait_for_function("name => document.querySelector('h1').textContent !== name", arg=before)
    page.keyboard.press("[")
    page.wait_for_function("name => document.querySelector('h1').textContent === name", arg=before)

    page.goto(address(report, "layers/layer1.html"))
    page.locator(".card .score").first.wait_for()
    page.keyboard.press("]")
    page.wait_for_function("document.querySelector('h1').textContent === 'layer4.0:conv/2'")


def test_addresses_hold_the_state(page: Page, report: Path) -> None:
    page.goto(address(report, "layers.html#a=layer1&b=layer4.0%3Aconv%2F2&show=both"))
    page.locator("#rows tr").first.wait_for()
    rows = page.locator("#rows tr").count()
    assert page.input_value("[name=show]") == "both"
    page.select_option("[name=show]", "all")
    assert "show=all" in page.evaluate("location.hash")
    assert page.locator("#rows tr").count() > rows
    page.reload()
    page.locator("#rows tr").first.wait_for()
    assert page.input_value("[name=b]") == "layer4.0:conv/2"

    page.goto(address(report, "concepts.html"))
    page.fill("#find input", "part")
    page.reload()
    assert page.input_value("#find input") == "part"
    visible = page.locator("table.findable tbody tr:visible")
    assert set(visible.locator(".chip").all_inner_texts()) == {"part"}

    page.goto(address(report, "layers/layer1.html#max=0.3&split=holds"))
    page.locator("#shown").wait_for()
    most = page.eval_on_selector_all(
        ".card:not([hidden])", "nodes => nodes.map(n => MICROTOME_LAYER.taus[0].iou[n.dataset.unit])"
    )
    held = page.eval_on_selector_all(
        ".card:not([hidden])", "nodes => nodes.map(n => MICROTOME_LAYER.taus[0].val[n.dataset.unit])"
    )
    assert all(score <= 0.3 for score in most)
    assert all(score > 0.04 for score in held)


def test_what_is_not_there_is_said(page: Page, report: Path) -> None:
    page.goto(address(report, "unit.html#layer=layer1&unit=99"))
    page.get_by_text("layer1 has 16 units, 0 to 15; there is no unit 99.").wait_for()
    page.goto(address(report, "unit.html#layer=layer9&unit=1"))
    page.get_by_text("This run has no layer layer9.").wait_for()
    page.goto(address(report, "concept.html#concept=999"))
    page.get_by_text("This run has no concept 999.").wait_for()


def test_tables_are_copied(page: Page, report: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(address(report, "layers/layer1.html"))
    page.check("[name=detectors]")
    page.get_by_role("button", name="copy CSV").click()
    page.locator(".said", has_text="copied").wait_for()
    rows = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    shown = page.eval_on_selector_all(".card:not([hidden])", "nodes => nodes.map(n => n.dataset.unit)")
    assert [row["unit"] for row in rows] == shown
    assert all(float(row["iou"]) > 0.04 for row in rows)
    page.get_by_role("button", name="copy JSON").click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('['))")
    found = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert [str(one["unit"]) for one in found] == shown
    assert found[0]["layer"] == "layer1"


def test_the_single_file_holds_every_page(page: Page, report: Path, tmp_path: Path) -> None:
    alone = tmp_path / "sent.html"
    alone.write_bytes((report / "single-file.html").read_bytes())
    page.goto(alone.as_uri())
    assert "scenes-cnn" in page.inner_text("h1")
    assert page.locator("nav a", has_text="Methods").count() == 1
    assert page.locator("nav a", has_text="Ask").count() == 0  # a page that needs a server
    page.click("nav[aria-label=Layers] a:has-text('layer1')")
    page.locator(".card .score").first.wait_for()
    assert page.evaluate("location.hash") == "#/layers/layer1.html"
    picture = page.eval_on_selector(".card .patch", "node => getComputedStyle(node).backgroundImage")
    assert picture.startswith('url("data:image/jpeg;base64,/9j/')
    page.fill("[name=q]", "tree")
    assert page.evaluate("location.hash") == "#/layers/layer1.html#q=tree"
    page.reload()
    page.locator(".card .score").first.wait_for()
    assert page.input_value("[name=q]") == "tree"
    page.locator(".card:not([hidden]) a.unit").first.click()
    page.locator("#unit-body:not([hidden])").wait_for()
    page.locator("#card h2 a").click()
    page.locator("#concept-body:not([hidden])").wait_for()
    assert page.inner_text("h1") == "tree"
    page.go_back()
    page.locator("#unit-body:not([hidden])").wait_for()
    page.keyboard.press("/")
    page.fill("#search", "methods")
    page.keyboard.press("Enter")
    page.wait_for_function("document.title.startsWith('Methods')")
    page.click("nav[aria-label='More pages'] a:has-text('Map')")
    page.wait_for_function("window.MICROTOME_MAP_STATE && window.MICROTOME_MAP_STATE.idle")
    page.click("nav[aria-label='More pages'] a:has-text('Concepts')")
    page.locator("table.findable tr").first.wait_for()


@pytest.mark.parametrize("width", [380, 3840])
def test_pages_fit_a_phone_and_a_wall(page: Page, report: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for name in PAGES:
        show(page, report, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(page: Page, report: Path, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for name in PAGES:
        show(page, report, name)
        assert axe_violations(page) == [], name
        ink = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (sum(ink) < 200) == (scheme == "dark")


def test_a_strangers_tour(page: Page, report: Path) -> None:
    """In at most three clicks from the index: who detects wheels, what drives a class, what is nearest to an image."""
    index = address(report, "index.html")
    page.goto(index)
    page.click("nav[aria-label='More pages'] a:has-text('Concepts')")
    page.click("table.findable a:text-is('wheel')")
    page.locator("#layers .concept-units li").first.wait_for()
    assert page.inner_text("h1") == "wheel"

    page.goto(index)
    page.click("nav[aria-label='More pages'] a:has-text('Classes')")
    page.click("table.findable a:text-is('harbour')")
    assert "harbour" in page.inner_text(".said")

    page.goto(index)
    page.click("nav[aria-label='More pages'] a:has-text('Map')")
    page.wait_for_function("window.MICROTOME_MAP_STATE && window.MICROTOME_MAP_STATE.idle")
    across, down = page.evaluate("MICROTOME_MAP_STATE.screen(5)")
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + across, box["y"] + down)
    page.get_by_text("Nearest on this map").wait_for()
    assert page.locator("#map-point .map-thumb").count() >= 8
