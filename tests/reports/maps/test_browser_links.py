"""In a browser: what a layer's page shows of its map, and the way from a unit's card to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.browser import needs_browser
from helpers.maps import plant_maps
from helpers.runs import read_image, write_run
from playwright.sync_api import Page

from microtome.reports import build_report
from microtome.reports.bundles import MAP, words_instead

pytestmark = needs_browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an installation that lacks the script of the map."""
    run = write_run(tmp_path_factory.mktemp("links") / "run")
    plant_maps(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("microtome.reports.site.missing_bundles", lambda **_: [MAP])
        return Path(build_report(run, read_image)).parent


def test_a_card_leads_to_its_unit_on_the_map(page: Page, report: Path) -> None:
    page.goto((report / "layers" / "layer4.0%3Aconv%2F2.html").as_uri() + "#unit-17")
    page.locator("#unit-17 .details a").click()
    page.wait_for_url("**/map.html*")
    assert page.url == (report / "map.html").as_uri() + "#layer=layer4.0%3Aconv%2F2&unit=17"


def test_a_page_without_its_script_says_so(page: Page, report: Path) -> None:
    page.goto((report / "map.html").as_uri())
    assert page.get_by_text(words_instead(MAP), exact=True).count() == 1


def test_candidates_and_clusters_unfold(page: Page, report: Path) -> None:
    page.goto((report / "layers" / "layer1.html").as_uri())
    page.get_by_text("Candidates for wrong labels: 5").click()
    assert page.locator(".candidates li").count() == 5
    box = page.locator(".candidates .patch").first.bounding_box()
    assert box is not None
    assert box["width"] == pytest.approx(box["height"], abs=1)
    page.get_by_text("Clusters: 4").click()
    assert page.locator(".clusters tbody tr").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_nothing_is_too_wide_for_a_phone(page: Page, report: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for name in ("layers/layer1.html", "index.html"):
        page.goto((report / name).as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
