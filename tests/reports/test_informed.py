"""Pages of runs with thresholds of most information: both labels, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.browser import needs_browser
from helpers.informed import add_information
from helpers.page_data import read_page_data
from helpers.runs import LayerShape, read_image, write_run
from playwright.sync_api import Page

from microtome.reports import build_report
from microtome.reports.summaries import Concepts, summarise_layer
from microtome.storage.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = write_run(tmp_path_factory.mktemp("informed") / "run", layers={"layer1": LayerShape(12, 7, 60)})
    add_information(made)
    build_report(made, read_image)
    return made


def payload(run: Run) -> dict[str, object]:
    found: dict[str, object] = read_page_data(run.path / "report", "layers/layer1")
    return found


def test_both_labels_are_in_the_data(run: Run) -> None:
    summary = summarise_layer(run, run.info["layers"][0], Concepts.of(run.table("concepts")))
    assert summary.informed is not None
    assert len(summary.labels) == 1
    taus = payload(run)["taus"]
    assert isinstance(taus, list)
    assert [at["tau"] for at in taus] == [0.005, None]
    assert sum(taus[1]["detector"]) == summary.informed.labels.detectors
    assert taus[1]["label"][4] == -1  # a unit without rows
    assert taus[1]["information"][4] is None
    assert [bool(value) for value in taus[1]["detector"]] == [(value or 0) > 0.04 for value in taus[1]["iou"]]


def test_the_index_counts_under_both_and_says_why(run: Run) -> None:
    text = (run.path / "report/index.html").read_text()
    methods = (run.path / "report/methods.html").read_text()
    summary = summarise_layer(run, run.info["layers"][0], Concepts.of(run.table("concepts")))
    assert summary.informed is not None
    assert "most information: detectors" in text
    assert "judged on the other" in text
    assert f'<td class="n">{summary.informed.labels.detectors}</td>' in text
    assert "GAN Dissection" in text
    assert "<math" in methods[methods.index('id="information"') :]


def test_pages_of_other_runs_say_nothing_of_it(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", samples=4, unreadable=0, layers={"layer1": LayerShape(8, 7, 60)})
    build_report(made, read_image)
    for page in ("index.html", "layers/layer1.html", "methods.html"):
        assert "most information" not in (made.path / "report" / page).read_text()


@needs_browser
def test_a_card_shows_the_other_label_beside_its_own(page: Page, run: Run) -> None:
    data = payload(run)
    taus, concepts = data["taus"], data["concepts"]
    assert isinstance(taus, list)
    assert isinstance(concepts, list)
    page.goto((run.path / "report/layers/layer1.html").as_uri() + "#unit-0")
    page.wait_for_selector("#unit-0 .score")
    informed = concepts[taus[1]["label"][0]][0]
    assert f"most information: {informed} " in page.inner_text("#unit-0 .beside")
    page.select_option("select[name=tau]", label="most information")
    page.wait_for_selector("#unit-0 .beside >> text=τ 0.5%")
    assert page.inner_text("#unit-0 h2 .name") == informed
    assert "information " in page.inner_text("#unit-0 .details:last-of-type")
    assert "tau=1" in page.url
