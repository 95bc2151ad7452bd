"""The page of two runs compared: opens from disk, shows patches of both, escapes what it shows."""

from __future__ import annotations

import csv
import re
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.browser import axe_violations, needs_axe, needs_browser
from helpers.compared import SHAPES, rename_concepts, set_iou, write_compared
from playwright.sync_api import Page

from microtome.dissect.comparing.comparison import compare_runs
from microtome.dissect.query import Dissection
from microtome.reports.comparison import ALONE, CHANGED_PAIRS, LIKE_PAIRS, build_comparison_page, comparison_folder
from microtome.storage.errors import UsageError
from microtome.storage.run import Run

HOSTILE = "<script>document.title='broken'</script>\"'&\u202eevil\u2066\u0000"
LONG = "n" * 10_000


def write_strips(run: Run) -> None:
    """A strip for every unit, as a report has them: five thumbnails in the unit's own grey."""
    for layer in run.info["layers"]:
        folder = run.path / "report" / "patches" / layer["folder"]
        folder.mkdir(parents=True)
        for unit in range(layer["units"]):
            strip = np.full((96, 5 * 96, 3), 5 * unit % 256, np.uint8)
            cv2.imwrite(str(folder / f"{unit}.jpg"), strip)
    (run.path / "report" / "index.html").write_text("<!doctype html>")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("pair")
    a, b = write_compared(folder / "a"), write_compared(folder / "b", permuted=True)
    for run in (a, b):
        write_strips(run)
        rename_concepts(run, {"car": f"car {HOSTILE}", "tree": LONG})
    for name, (one, other) in {"wheel": (0.2, 0.01), LONG: (0.01, 0.2), f"car {HOSTILE}": (0.2, 0.02)}.items():
        set_iou(a, name, one)
        set_iou(b, name, other)
    set_iou(a, "roof", 0.039)
    set_iou(b, "roof", 0.041)
    return a, b


def page_of(runs: tuple[Run, Run], folder: Path, **changes: Any) -> str:
    found = {**compare_runs(Dissection(runs[0]), Dissection(runs[1])), **changes}
    page = build_comparison_page(found, *runs, folder)
    assert page == folder / "index.html"
    return page.read_text(encoding="utf-8")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_that_the_page_names_is_there(runs: tuple[Run, Run], tmp_path: Path) -> None:
    folder = tmp_path / "page"
    text = page_of(runs, folder)
    named = {unescape(address) for address in re.findall(r'(?:src|href)="([^"#]+)', text)} - {"data:,"}
    beside = {name for name in named if not name.startswith("..")}
    assert beside == set(files_of(folder))
    outside = named - beside
    assert any(name.endswith("/report/index.html") for name in outside)
    assert any(name.endswith("/report/layers/layer4.0%253Aconv%252F2.html") for name in outside)
    assert {name.partition("/")[0] for name in beside} == {"index.html", "strips", "tables", "figures", "static"}


def test_pairs_stand_beside_each_other_with_their_own_patches(runs: tuple[Run, Run], tmp_path: Path) -> None:
    page_of(runs, tmp_path / "page")
    strips = [path.name for path in (tmp_path / "page" / "strips").iterdir()]
    assert len(strips) > 20
    for name in strips:
        key, number, unit = name.removesuffix(".jpg").split("-")
        run = runs["ab".index(key)]
        layer = run.info["layers"][int(number)]["folder"]
        original = run.path / "report" / "patches" / layer / f"{unit}.jpg"
        assert (tmp_path / "page" / "strips" / name).read_bytes() == original.read_bytes()
    most = 2 * len(SHAPES) * (CHANGED_PAIRS + LIKE_PAIRS + ALONE) + 2 * 4
    assert len(strips) <= most


def test_tables_hold_all_that_was_found(runs: tuple[Run, Run], tmp_path: Path) -> None:
    found = compare_runs(Dissection(runs[0]), Dissection(runs[1]))
    page_of(runs, tmp_path / "page")
    for number, layer in enumerate(found["layers"]):
        with (tmp_path / "page" / "tables" / f"matches-{number}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(int(row["a"]), int(row["b"])) for row in rows] == [(one["a"], one["b"]) for one in layer["matches"]]
        assert [float(row["correlation"]) for row in rows] == [one["correlation"] for one in layer["matches"]]
    with (tmp_path / "page" / "tables" / "concepts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["outcome"] for row in rows] == [change["outcome"] for change in found["concepts"]]


def test_the_same_runs_give_the_same_bytes_and_replace_an_older_page(runs: tuple[Run, Run], tmp_path: Path) -> None:
    folder = tmp_path / "page"
    page_of(runs, folder)
    first = files_of(folder)
    (folder / "strips" / "a-9-9.jpg").write_bytes(b"older")
    page_of(runs, folder)
    assert files_of(folder) == first
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other things \(notes.txt"):
        comparison_folder(folder)


def test_runs_without_a_report_have_a_page_without_patches(tmp_path: Path) -> None:
    a, b = write_compared(tmp_path / "a"), write_compared(tmp_path / "b", permuted=True)
    text = page_of((a, b), tmp_path / "page")
    assert "no patches in the run" in text
    assert not (tmp_path / "page" / "strips").exists()
    assert "its report" not in text


def test_a_comparison_of_nothing_is_a_page(runs: tuple[Run, Run], tmp_path: Path) -> None:
    """No pair, no concept: every part says so."""
    found = compare_runs(Dissection(runs[0]), Dissection(runs[1]), ["layer1"])
    (layer,) = found["layers"]
    nothing = {"high": None, "median": None, "samples": 12, "draws": 5}
    still = [{**row, "best": None, "correlation": None, "no_correlation": "constant"} for row in layer["units_a"]]
    empty = {**layer, "matches": [], "units_a": still, "matched": 0, "mutual": 0, "median_correlation": None}
    text = page_of(runs, tmp_path / "page", layers=[{**empty, "chance": nothing, "comparable_a": 0}], concepts=[])
    assert "No concept is detected in B alone." in text
    assert "No pair of detectors is above chance." in text
    assert "constant" in text


def test_names_are_text(runs: tuple[Run, Run], tmp_path: Path) -> None:
    text = page_of(runs, tmp_path / "page")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    for name, content in files_of(tmp_path / "page").items():
        if not name.endswith((".jpg", ".png")):
            found = content.decode("utf-8")
            assert not any(mark in found for mark in ("\u202e", "\u2066", "\x00")), name


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (380, "light")])
def test_it_opens_from_disk_at_any_width(
    runs: tuple[Run, Run], tmp_path: Path, page: Page, width: int, scheme: Any
) -> None:
    page_of(runs, tmp_path / "page")
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto((tmp_path / "page" / "index.html").as_uri())
    assert page.title() == "Two runs compared · Microtome"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("article.couple").count() > 5
    assert page.evaluate("[...document.images].every(image => image.alt)")
    page.locator("article.couple img").first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('article.couple img').naturalWidth === 480")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(channel) for channel in re.findall(r"\d+", ground)]
    assert (max(channels) < 80) == (scheme == "dark")
    page.locator("summary").click()
    assert page.locator("details tbody tr").count() == len(runs[0].table("concepts"))


@needs_browser
@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_in_the_way_of_a_reader(runs: tuple[Run, Run], tmp_path: Path, page: Page, scheme: Any) -> None:
    page_of(runs, tmp_path / "page")
    page.emulate_media(color_scheme=scheme)
    page.goto((tmp_path / "page" / "index.html").as_uri())
    page.locator("summary").click()
    assert axe_violations(page) == []
