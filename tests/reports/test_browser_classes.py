"""The pages of classes, ablations and attention in a browser, opened from disk."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from helpers.browser import needs_browser
from helpers.importance import ablation, keep_ablation, plant_importance
from helpers.runs import HOSTILE, LayerShape, read_image, write_run
from playwright.sync_api import Page

from microtome.reports import build_report

LAYER = "layer4.0:conv/2"

pytestmark = needs_browser


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = {LAYER: LayerShape(64, 7, 60), "blocks.1.attn:heads": LayerShape(8, 14, 448)}
    run = write_run(tmp_path_factory.mktemp("browser") / "run", layers=layers)
    run.info["layers"][1]["kind"] = "heads"
    classes = [f"kind {number} of something with a long name" for number in range(30)] + [HOSTILE, "beach"]
    falls = {(unit, number): (0.02 * (unit % 5 + 1), 0.03) for unit in range(20) for number in range(28, 32)}
    plant_importance(run, LAYER, classes, {**falls, (30, 31): (0.5, 0.4)})
    keep_ablation(run, ablation("five", LAYER, [3, 12], {"all": 0.1, "beach": 0.5, HOSTILE: -0.05}))
    return Path(build_report(run, read_image))


def test_from_the_index_to_a_class_to_a_unit_and_back(page: Page, index: Path) -> None:
    page.goto(index.as_uri())
    page.click("#classes >> text=beach")
    assert page.inner_text("h1") == "beach"
    assert page.inner_text(".said").startswith("beach is driven by")
    page.click(".needs a >> nth=0")
    page.wait_for_selector("#unit-30.target .needing")
    assert page.inner_text("#unit-30 .needing") == "needed by beach (−50.0)"
    page.click("#unit-30 .needing a")
    page.wait_for_selector(".said")
    assert page.inner_text("h1") == "beach"


def test_patches_of_a_class_page_show_their_part_of_the_strip(page: Page, index: Path) -> None:
    page.goto((index.parent / "classes" / "beach.html").as_uri())
    found = page.eval_on_selector_all(
        ".needs li:first-child .strip i",
        "nodes => nodes.map(n => { const s = getComputedStyle(n), b = n.getBoundingClientRect();"
        " return [s.backgroundImage, b.width, b.height, s.backgroundSize, s.backgroundPosition] })",
    )
    assert len(found) == 6
    assert {image.endswith('layer4.0%253Aconv%252F2/30.jpg")') for image, *_ in found} == {True}
    assert all(width > 20 and height > 20 for _, width, height, _, _ in found)
    places = [float(position.split("%")[0]) for *_, position in found]
    assert places[0] == 0
    assert all(12 <= later - former <= 14 for former, later in pairwise(places))


def test_units_by_classes_lead_to_units(page: Page, index: Path) -> None:
    page.goto((index.parent / "layers" / "layer4.0%3Aconv%2F2.html").as_uri())
    page.click(".matrix summary")
    page.click(".heat tbody th a >> text=30")
    page.wait_for_selector("#unit-30.target .score")
    assert page.evaluate("location.hash") == "#unit-30"


def test_classes_are_found_by_name_and_concept(page: Page, index: Path) -> None:
    page.goto((index.parent / "classes.html").as_uri())
    rows = page.locator("table.classes tbody tr")
    assert rows.count() == 32
    page.fill("#find input", "BEACH")
    assert page.locator("table.classes tbody tr:visible").count() == 1
    assert page.inner_text("#find output") == "1 of 32 classes"
    page.fill("#find input", "")
    assert page.locator("table.classes tbody tr:visible").count() == 32


def test_hostile_names_are_read_not_run(page: Page, index: Path) -> None:
    page.goto((index.parent / "classes.html").as_uri())
    page.click("table.classes >> text=alert(1)")
    assert page.inner_text("h1") == HOSTILE
    page.goto((index.parent / "ablations.html").as_uri())
    assert HOSTILE in page.inner_text("main")


def test_names_written_from_the_right_stay_left_of_their_figures(page: Page, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={LAYER: LayerShape(40, 7, 60)}, seed=1)
    plant_importance(run, LAYER, ["חתול", "ca\u202et"], {(30, 0): (0.2, 0.3), (30, 1): (0.1, 0.2)})
    page.goto((Path(build_report(run, read_image)).parent / "classes.html").as_uri())
    named = page.locator("#concepts td.long >> nth=0")
    assert named.inner_text() == "חתול (30.0), ca\ufffdt (20.0)"
    places = named.evaluate("cell => [...cell.children].map(node => node.getBoundingClientRect().left)")
    assert places == sorted(places)


def test_units_without_a_concept_are_named_where_they_drive(page: Page, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={LAYER: LayerShape(40, 7, 60)}, seed=1)
    units = run.layer_table(LAYER, "units")
    units.loc[12, "is_detector"] = False
    run.write_layer_table(LAYER, "units", units)
    plant_importance(run, LAYER, ["x"], {(12, 0): (0.5, 0.7), (30, 0): (0.02, 0.04)})
    index = Path(build_report(run, read_image))
    page.goto((index.parent / "classes" / "x.html").as_uri())
    assert page.inner_text(".said").startswith(
        "Most of what x loses (70.0 of 74.0 points of probability) lies in units"
    )
    heads = page.locator(".drives tbody th")
    assert heads.all_inner_texts() == ["no concept", "roof"]
    weights = heads.evaluate_all("nodes => nodes.map(node => getComputedStyle(node).fontWeight)")
    assert weights == ["400", "400"]
    page.goto(index.as_uri())
    assert page.inner_text("#classes tbody td:nth-child(4)") == "units without a concept"


@pytest.mark.parametrize("name", ["index", "classes", "classes/beach", "ablations", "layers/blocks.1.attn%3Aheads"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_scroll_one_way_only(page: Page, index: Path, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((index.parent / f"{name}.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_pages_have_what_a_reader_of_the_screen_needs(page: Page, index: Path) -> None:
    for name in ("classes", "classes/beach", "ablations"):
        page.goto((index.parent / f"{name}.html").as_uri())
        assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.querySelector('thead th'))")
        named = "n => n.getAttribute('aria-label') || n.getAttribute('aria-hidden') === 'true'"
        assert page.evaluate(f"[...document.querySelectorAll('svg, [role=img]')].every({named})")
        assert page.locator("h1").count() == 1
