"""What pages show of units and classes that have pictures, with names that no page should obey."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from helpers.browser import needs_browser
from helpers.importance import plant_importance
from helpers.page_data import read_page_data
from helpers.pictures import plant_pictures
from helpers.runs import HOSTILE, LayerShape, read_image, write_run
from playwright.sync_api import Page

from microtome.reports import build_report

LAYER = "layer4.0:conv/2"
CLASSES = ["beach", HOSTILE, "beach", "../up & down"]
WHY = f"guided-backprop does not apply: the network {HOSTILE} has no ReLU"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with pictures, whose importance was not measured."""
    run = write_run(tmp_path_factory.mktemp("alone") / "run", layers={LAYER: LayerShape(16, 7, 60)})
    plant_pictures(run, LAYER, [3, 12], CLASSES, WHY)
    return Path(build_report(run, read_image)).parent


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with both."""
    run = write_run(tmp_path_factory.mktemp("measured") / "run", layers={LAYER: LayerShape(16, 7, 60)})
    plant_pictures(run, LAYER, range(16), CLASSES)
    plant_importance(run, LAYER, CLASSES[1:], {(3, 0): (0.1, 0.1)})
    cast("dict[str, object]", run.info["importance"][LAYER])["class_indices"] = [1, 2, 3]
    run.save()
    return Path(build_report(run, read_image)).parent


def test_a_run_without_pictures_has_no_folder_of_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={LAYER: LayerShape(16, 7, 60)})
    report = Path(build_report(run, read_image)).parent
    assert not (report / "explanations").exists()
    assert not (report / "classes.html").exists()


def test_a_stage_that_is_not_done_shows_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={LAYER: LayerShape(16, 7, 60)})
    plant_pictures(run, LAYER, [3], CLASSES)
    run.info["stages"]["explain"]["state"] = "pending"
    assert not (Path(build_report(run, read_image)).parent / "explanations").exists()


def test_the_layer_says_what_it_shows(alone: Path, measured: Path) -> None:
    page = next((alone / "layers").iterdir()).read_text()
    assert "An image is synthesised for 2 of 16 units, those of highest IoU" in page
    assert "Guided-backprop does not apply: the network &lt;script&gt;" in page
    assert "SmoothGrad shows" in page
    assert HOSTILE not in page
    page = next((measured / "layers").iterdir()).read_text()
    assert "An image is synthesised for all 16 units" in page
    shown = read_page_data(alone, f"layers/{next((alone / 'data' / 'layers').iterdir()).stem}")
    assert [unit for unit, known in enumerate(shown["explained"]["units"]) if known] == [3, 12]
    assert len(shown["patches"]["samples"]) == len(shown["patches"]["keys"])


def test_classes_of_one_name_have_pages_of_their_own(alone: Path) -> None:
    assert sorted(file.name for file in (alone / "classes").iterdir()) == [
        "%2E.%2Fup %26 down.html",
        "%3Cscript%3Ealert%281%29%3C%2Fscript%3E.html",
        "beach.html",
        "beach~2.html",
    ]
    for file in [*(alone / "classes").iterdir(), alone / "classes.html"]:
        assert HOSTILE not in file.read_text()


def test_class_pages_find_their_pictures_by_the_models_numbers(measured: Path) -> None:
    page = (measured / "classes" / "beach.html").read_text()
    assert "explanations/classes/2-best-0.webp" in page
    assert 'data-class="2"' in page
    assert "taken for ../up &amp; down" in page
    assert "No map: it is 0." in page


@needs_browser
def test_pictures_are_there_and_nothing_is_asked_for(page: Page, alone: Path, measured: Path) -> None:
    for report in (alone, measured):
        (layer,) = (report / "layers").iterdir()
        page.goto(f"{layer.as_uri()}#unit-12")
        page.wait_for_selector("#unit-12 .explained img")
        loaded = "document.querySelectorAll('#unit-12 .explained img').length && [...document.querySelectorAll("
        loaded += "'#unit-12 .explained img')].every(image => image.complete && image.naturalWidth > 0)"
        page.wait_for_function(loaded)
        assert page.locator(".live").count() == 0
        page.goto((report / "classes.html").as_uri())
        page.click("a >> text=alert(1)")
        assert page.inner_text("h1") == HOSTILE
        page.wait_for_selector(".portrait img")
        images = (
            "[...document.querySelectorAll('.portrait img')].map(image => (image.loading = 'eager', image.decode()))"
        )
        page.evaluate(f"Promise.all({images})")
        assert page.locator("section.live").is_hidden()
