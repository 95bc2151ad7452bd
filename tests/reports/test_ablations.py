"""The page of ablations: figures and pictures of what was kept, and files that cannot be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.importance import ablation, keep_ablation, plant_importance
from helpers.runs import HOSTILE, LayerShape, read_image, write_run

from microtome.reports import build_report
from microtome.reports.ablations import ablations_context
from microtome.storage.run import Run

FALLS = {"all": 0.1, "beach": 0.5, HOSTILE: -0.05}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "run", layers={"a": LayerShape(16, 7, 60)})


def page(run: Run) -> str:
    return (Path(build_report(run, read_image)).parent / "ablations.html").read_text(encoding="utf-8")


def test_an_ablation_is_said_drawn_and_listed(run: Run) -> None:
    plant_importance(run, "a", ["beach"], {})
    keep_ablation(run, ablation("five", "a", [3, 12], FALLS))
    html = page(run)
    assert "Without 2 units of a the accuracy goes from 90.0% to 80.0%, a fall of 10.0 points" in html
    assert "20 random sets of as many it falls by 1.0 points on average, in 95% of the draws by −0.5 to 3.0" in html
    assert "Most falls <b>beach</b>, by 50.0 points (random sets: −0.5 to 3.0)." in html
    assert "Units 3, 12: the units that beach needs most" in html
    assert html.count('<circle class="without" cx=') == 3 + 1
    assert 'aria-label="beach: accuracy 90.0% untouched, 40.0% without' in html
    assert '<a href="classes/beach.html">beach</a>' in html
    assert HOSTILE not in html
    body = html.split("<tbody>")[1]
    assert [("yes" in row) for row in body.split("</tr>")[:3]] == [True, True, False]
    index = (run.path / "report" / "index.html").read_text(encoding="utf-8")
    assert 'href="ablations.html#ablation-1"' in index


def test_the_interval_stands_on_an_axis_that_holds_every_point(run: Run) -> None:
    context = ablations_context([{**ablation("x", "a", [1], FALLS), "file": "x.json"}], {})
    (one,) = context["ablations"]
    assert [tick["value"] for tick in one["ticks"]] == [40, 60, 80, 100]
    beach = one["pictured"][1]
    assert beach["class"] == "beach"
    assert beach["at"]["untouched"] == pytest.approx(100 * 50 / 60)
    assert beach["at"]["without"] == pytest.approx(0)
    assert beach["at"]["low"] > beach["at"]["untouched"] > beach["at"]["high"] > beach["at"]["max"]


def test_few_draws_have_a_range_and_no_interval(run: Run) -> None:
    keep_ablation(run, {**ablation("five", "a", [3, 12], FALLS), "draws": 3})
    html = page(run)
    assert "between the draws by −0.5 to 3.0" in html
    assert "95%" not in html


def test_without_random_sets_there_is_no_interval(run: Run) -> None:
    one = ablation("plain", "a", [1], FALLS, draws=0)
    for row in one["rows"]:
        del row["random"]
    keep_ablation(run, one)
    html = page(run)
    assert "random" not in html.split("<section")[1]
    assert 'class="interval"' not in html


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        [1, 2],
        {},
        {**ablation("x", "a", [1], FALLS), "rows": []},
        {**ablation("x", "a", [1], FALLS), "rows": [{"class": "all"}]},
        {**ablation("x", "a", [1], FALLS), "rows": 7},
        {**ablation("x", "a", [1], {"all": float("inf")})},
        {**ablation("x", "a", [1], FALLS), "units": ["three"]},
    ],
    ids=["cut", "bytes", "list", "empty", "no rows", "bare row", "number", "infinite", "words"],
)
def test_what_cannot_be_used_is_named_and_the_rest_is_shown(run: Run, content: object) -> None:
    keep_ablation(run, ablation("good", "a", [3], FALLS), "good")
    keep_ablation(run, content, "odd")
    html = page(run)
    assert "Without 1 unit of a" in html
    assert "<code>odd.json</code>" in html


def test_random_sets_of_components_are_no_match_for_chosen_ones(tmp_path: Path) -> None:
    shape = LayerShape(16, 7, 60)
    run = write_run(tmp_path / "run", layers={"a": shape, "a:pca": shape})
    run.info["layers"][1]["readout"] = {
        "base": "a",
        "kind": "pca",
        "source": "pca",
        "fingerprint": "0",
        "inputs": 16,
        "images": 60,
    }
    keep_ablation(run, ablation("axes", "a", [3], FALLS), "a")
    keep_ablation(run, ablation("components", "a:pca", [3], FALLS), "b")
    axes, components = page(run).split("<section")[1:]
    words = "random sets of them are mostly of little variance, so that the comparison flatters the chosen ones."
    assert words in components
    assert words not in axes


def test_many_classes_and_units_are_bounded(run: Run) -> None:
    falls = {"all": 0.1} | {f"class {number} of many with a long name": 0.0001 * number for number in range(1000)}
    keep_ablation(run, ablation("many", "a", list(range(900)), falls))
    html = page(run)
    assert len(html) < 300_000
    assert html.count('<circle class="without" cx=') == 41 + 1
    assert "The 40 of 1\u202f000 classes that fall most." in html
    assert "and 860 more: the units" in html
    assert re.search(r"class 999 .*class 998 ", html, re.DOTALL)
