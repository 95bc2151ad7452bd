"""The page of methods: every parameter is there, with what it decides, and the page fits the run."""

from __future__ import annotations

import dataclasses
import re
from html import unescape
from pathlib import Path

import pytest
from helpers.browser import needs_browser
from helpers.informed import add_information
from helpers.runs import HOSTILE, LayerShape, read_image, write_run
from playwright.sync_api import Page

from microtome.dissect.audit.config import ADDED, EXECUTION, AuditConfig
from microtome.reports import build_report
from microtome.reports.methods import SETTINGS, setting_words
from microtome.storage.run import Run

LAYERS = {"a": LayerShape(4, 7, 60), HOSTILE: LayerShape(4, 7, 60)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("methods") / "run", layers=LAYERS, taus=(0.005, 0.05), splits=True)
    run.info["config"]["free"] = [HOSTILE]
    run.info["config"]["told later"] = True
    add_information(run)
    build_report(run, read_image)
    return run


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    return (run.path / "report" / "methods.html").read_text(encoding="utf-8")


def test_every_setting_of_an_audit_is_explained() -> None:
    decides = {field.name for field in dataclasses.fields(AuditConfig)} - {*EXECUTION, *ADDED}
    assert decides == SETTINGS.keys()


def test_every_parameter_of_the_run_is_on_the_page(run: Run, text: str) -> None:
    part = text[text.index('id="parameters"') : text.index('id="versions"')]
    rows = re.findall(r'<code>([^<]*)</code></th><td class="long">([^<]*)</td><td class="long">([^<]*)</td>', part)
    found = {unescape(name): (unescape(value), unescape(meaning)) for name, value, meaning in rows}
    assert {name: value for name, (value, _) in found.items()} == {
        name: setting_words(value) for name, value in run.info["config"].items()
    }
    assert found["tau"] == ("0.005, 0.05", SETTINGS["tau"])
    assert found["told later"] == ("yes", "")


def test_versions_and_hashes_are_on_the_page(run: Run, text: str) -> None:
    for name, value in run.info["versions"].items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    for known in (run.info["model"]["fingerprint"], run.info["data"]["fingerprint"]):
        assert known in text


def test_hostile_names_stay_names(text: str) -> None:
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_links_to_its_parts_lead_there(run: Run, text: str) -> None:
    anchors = set(re.findall(r' id="([\w-]+)"', text))
    assert set(re.findall(r'href="#([\w-]+)"', text)) <= anchors
    for page in (run.path / "report").rglob("*.html"):
        assert set(re.findall(r'methods\.html#([\w-]+)"', page.read_text(encoding="utf-8"))) <= anchors, page


def test_addresses_of_the_index_still_lead_somewhere(run: Run) -> None:
    index = (run.path / "report" / "index.html").read_text(encoding="utf-8")
    for anchor in ("layers", "information", "figures", "concepts", "run", "unreadable", "methods"):
        assert index.count(f' id="{anchor}"') == 1, anchor
    assert 'href="methods.html"' in index
    assert 'href="data.html"' in index


def test_the_page_says_nothing_of_what_the_run_lacks(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    build_report(run, read_image)
    text = (run.path / "report" / "methods.html").read_text(encoding="utf-8")
    for anchor in ("information", "readouts", "maps", "removal", "explanations"):
        assert f'id="{anchor}"' not in text
    assert "t-SNE" not in text


@needs_browser
def test_formulas_are_drawn_and_a_phone_scrolls_one_way(page: Page, run: Run) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    for name in ("methods.html", "data.html", "index.html"):
        page.goto((run.path / "report" / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 380, name
    page.goto((run.path / "report" / "methods.html").as_uri())
    heights = page.eval_on_selector_all("mfrac", "all => all.map(one => one.getBoundingClientRect().height)")
    assert len(heights) >= 2
    assert min(heights) > 25  # a numerator stands above a denominator
