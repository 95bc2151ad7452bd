"""Names that try to break out of a page: nothing of them runs, in any page of a report or in its single file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from helpers.browser import needs_browser
from helpers.importance import plant_importance
from helpers.maps import plant_maps
from helpers.runs import LayerShape, read_image, write_run
from playwright.sync_api import Page

from microtome.reports import build_report
from microtome.reports.text import without_controls

pytestmark = needs_browser

SCRIPT = "<script>alert(1)</script>"
NAMES = (
    SCRIPT,
    "\"'><img src=x onerror=alert(2)>",
    "../../etc/passwd",
    "a\\b/c:d*?|",
    "\u202eenod\u202c\u2066x",
    "x" * 10_000,
    "</script><!--",
    "javascript:alert(3)",
    "${alert(4)}{{ 7*7 }}",
    "#unit-1&q=<b>",
    "%3Cscript%3E",
    "]]>&amp;\u2028\u2029",
    "=1+1",
)
"""One for each concept of the made-up run."""

LAYERS = {name: LayerShape(10, 7, 60) for name in (SCRIPT, "\"'><img src=x onerror=alert(5)>", "../..", "\u202er#&%")}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("hostile") / "run", layers=LAYERS)
    concepts = run.table("concepts")
    run.write_table("concepts", concepts.assign(name=list(NAMES)))
    samples = run.table("samples")
    keys = [f"{NAMES[number % len(NAMES)]}{number}" for number in range(len(samples))]
    run.write_table("samples", samples.assign(key=pd.Series(keys, dtype=object)))
    for layer in LAYERS:
        units = run.layer_table(layer, "units")
        named = [NAMES[number % len(NAMES)] for number in range(len(units))]
        run.write_layer_table(layer, "units", units.assign(concept=named))
    plant_maps(run)
    plant_importance(run, SCRIPT, list(NAMES[:6]), {(1, 0): (0.2, 0.3), (2, 1): (0.1, 0.2)})
    return Path(build_report(run, read_image, single_file=True)).parent


def drawn(page: Page) -> None:
    """The page has no element that a name made, and has drawn something."""
    page.wait_for_timeout(250)
    assert page.locator("img[src=x], b b, body > script:has-text('alert(1)')").count() == 0
    assert page.evaluate("document.querySelector('main').innerText.length") > 20


def test_no_page_runs_a_name(page: Page, report: Path) -> None:
    files = sorted(path for path in report.rglob("*.html") if path.name not in ("single-file.html", "ask.html"))
    assert len(files) > len(LAYERS) + 6
    for path in files:
        page.goto("about:blank")
        page.goto(path.as_uri())
        drawn(page)


def test_units_and_concepts_of_such_names(page: Page, report: Path) -> None:
    page.goto((report / "index.html").as_uri())
    for link in page.locator("nav[aria-label=Layers] a").all():
        address = link.evaluate("node => node.href")
        assert Path(address.split("/")[-2]).name == "layers"
    for name in map(without_controls, LAYERS):
        page.goto("about:blank")
        page.goto((report / "unit.html").as_uri())
        page.evaluate("name => { location.hash = 'layer=' + encodeURIComponent(name) + '&unit=2' }", name)
        page.wait_for_function("document.querySelector('h1').textContent.endsWith('unit 2')")
        drawn(page)
    for concept in range(1, len(NAMES) + 1):
        page.goto("about:blank")
        page.goto((report / "concept.html").as_uri() + f"#concept={concept}")
        page.wait_for_timeout(100)
        drawn(page)


def test_search_shows_names_as_text(page: Page, report: Path) -> None:
    page.goto((report / "index.html").as_uri())
    page.keyboard.press("/")
    for typed in ("<script", "onerror", "xxxx", "passwd", "alert"):
        page.fill("#search", typed)
        page.locator("#search-hits li b").first.wait_for()
        drawn(page)
    page.keyboard.press("Enter")
    drawn(page)


def test_the_single_file_runs_no_name(page: Page, report: Path) -> None:
    page.goto((report / "single-file.html").as_uri())
    drawn(page)
    for link in range(page.locator("header nav a").count()):
        page.locator("header nav a").nth(link).click()
        drawn(page)
