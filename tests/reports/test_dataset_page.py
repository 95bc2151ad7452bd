"""The page of a dataset: opens from disk, escapes what it shows, colours what is labelled."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.images import photo, save, street
from helpers.survey import MemoryDataset, sample
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright

from microtome.datasets.base import Concept, ImageDataset
from microtome.datasets.scenes import ScenesDataset
from microtome.datasets.specs import open_dataset
from microtome.datasets.survey.overview import survey
from microtome.reports.dataset import build_dataset_page, page_folder
from microtome.reports.overlays import COLOUR_TERMS, COLOURS, LONGER, choose_colours, overlay, picture_of, regions
from microtome.storage.errors import UsageError

CHROMIUM = Path("/usr/bin/chromium")


def page_of(dataset: ImageDataset, folder: Path, **options: int) -> str:
    page = build_dataset_page(dataset, survey(dataset, **options), folder)
    assert page == folder / "index.html"
    return page.read_text(encoding="utf-8")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_that_the_page_names_lies_beside_it(tmp_path: Path) -> None:
    text = page_of(ScenesDataset(12, size=64), tmp_path / "page", examples=5)
    named = {unescape(address) for address in re.findall(r'(?:src|href)="([^"#]+)"', text)}
    files = set(files_of(tmp_path / "page"))
    assert {name for name in named if name != "data:,"} == files
    assert len([name for name in files if re.fullmatch(r"pictures/\d+\.jpg", name)]) == 5
    assert text.index('id="findings"') < text.index('id="contents"') < text.index('id="examples"')


def test_every_concept_stands_there_with_its_counts(tmp_path: Path) -> None:
    dataset = open_dataset(f"folder:{street(tmp_path / 'street')}")
    found = survey(dataset)
    text = page_of(dataset, tmp_path / "page")
    for count in found.concepts:
        row = re.search(
            rf"(?s)<tr><th>{count.concept.name}</th>\s*<td class=\"n[ bad]*\">([^<]*)<.*?<td class=\"n\">([^<]*)<", text
        )
        assert row is not None
        assert [int(cell.replace("\u202f", "")) for cell in row.groups()] == [count.images, count.pixels]


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    root = street(tmp_path / "street")
    for name, workers in (("a", 1), ("b", 3)):
        page_of(open_dataset(f"folder:{root}"), tmp_path / name, workers=workers)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


EVIL = "<script>alert(1)</script>\"'&"


def test_whatever_names_say_is_text(tmp_path: Path) -> None:
    dataset = MemoryDataset(
        [sample(photo(seed=seed), np.full((1, 24, 32), 1), [2]) for seed in (1, 1, 2)] + [f"broken {EVIL}"],
        [Concept(1, EVIL, "object"), Concept(2, f"scene {EVIL}", EVIL.lower()), Concept(3, f"never {EVIL}", "part")],
        splits=[EVIL, "b", "b", "b"],
        labels=[0, 0, 0, 0],
        class_names=[f"class {EVIL}"],
        plane_names=[f"plane {EVIL}"],
        image_label_slots=1,
        spec=f"memory:{EVIL}",
        keys=[f"{EVIL}{number}" for number in range(4)],
        unknown={EVIL: {3: 1}},
    )
    text = page_of(dataset, tmp_path / "page")
    assert "<script" not in text
    assert "alert(1)&lt;/script&gt;" in text


def test_pairs_stand_side_by_side(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(tmp_path / "data/images" / split / "one.png", photo(seed=5))
    text = page_of(open_dataset(f"folder:{tmp_path / 'data'}"), tmp_path / "page", examples=0)
    assert "equal pixels" in text
    assert text.count('<img src="pictures/') == 2
    assert {"pictures/0.jpg", "pictures/1.jpg"} <= set(files_of(tmp_path / "page"))


def test_an_image_that_has_gone_since_is_left_out(tmp_path: Path) -> None:
    root = street(tmp_path / "street")
    save(root / "images/val/copy.png", (root / "images/train/000.png").read_bytes())
    dataset = open_dataset(f"folder:{root}")
    found = survey(dataset)
    (root / "images/train/000.png").unlink()
    text = build_dataset_page(dataset, found, tmp_path / "page").read_text(encoding="utf-8")
    assert "cannot be read any more" in text
    assert "pictures/0.jpg" not in text


def test_a_dataset_without_labels_or_without_anything_readable(tmp_path: Path) -> None:
    text = page_of(MemoryDataset([sample(photo(seed=seed)) for seed in range(3)]), tmp_path / "a")
    assert "Nothing odd was found" in text
    assert "from the first to the last" in text
    text = page_of(MemoryDataset(["broken"] * 3), tmp_path / "b")
    assert "3 samples cannot be used: broken" in text
    assert 'id="examples"' not in text


def test_an_older_page_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    dataset = MemoryDataset([sample(photo(seed=seed)) for seed in range(3)])
    page_of(dataset, tmp_path / "page", examples=3)
    (tmp_path / "page/.building-killed").mkdir()
    page_of(dataset, tmp_path / "page", examples=1)
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["index.html", "pictures", "static"]
    assert len(list((tmp_path / "page/pictures").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    (tmp_path / "page/thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds other things \(thesis\.txt, \.\.\.\); name a new or empty folder"):
        page_folder(tmp_path / "page")
    with pytest.raises(UsageError, match="cannot be a folder for the page"):
        page_folder(tmp_path / "page/thesis.txt")


def test_pictures_have_one_size(tmp_path: Path) -> None:
    for shape in ((20, 40), (2000, 1000), (1, 900), (300, 300)):
        picture = picture_of(np.zeros((*shape, 3), np.uint8))
        assert max(picture.shape) == LONGER
        assert min(picture.shape[:2]) >= 24


def halves() -> NDArray[np.uint16]:
    plane = np.zeros((12, 16), np.uint16)
    plane[:, :8] = 1
    plane[6:, 8:] = 2
    return plane


def test_labelled_pixels_have_their_colour_and_others_none() -> None:
    picture = np.full((240, 320, 3), (90, 140, 60), np.uint8)
    seen = overlay(picture, halves(), {1: "#ff0000", 2: "#0000ff"}).astype(int)
    red, blue, none = seen[120, 60], seen[180, 240], seen[60, 240]
    assert red[0] > 150 > 60 > red[2]
    assert red[1] == red[2]
    assert blue[2] > 150 > 60 > blue[0]
    assert none[0] == none[1] == none[2]
    assert seen[60, 159].max() < red.max() / 2


def test_names_stand_inside_their_regions() -> None:
    picture = np.zeros((240, 320, 3), np.uint8)
    found = regions(picture, halves(), {1: "sky", 2: "a"})
    assert [(region.concept, region.share) for region in found] == [(1, 0.5), (2, 0.25)]
    for region, columns, rows in zip(found, ((0, 50), (50, 100)), ((0, 100), (50, 100)), strict=True):
        assert region.place is not None
        assert columns[0] < region.place[0] < columns[1]
        assert rows[0] < region.place[1] < rows[1]


def test_names_neither_overlap_nor_stick_out() -> None:
    rng = np.random.default_rng(0)
    plane = cv2.resize(rng.integers(1, 40, (12, 16)).astype(np.uint16), (160, 120), interpolation=cv2.INTER_NEAREST)
    found = regions(np.zeros((360, 480, 3), np.uint8), plane, dict.fromkeys(range(40), "name"))
    placed = [region.place for region in found if region.place]
    assert 5 < len(placed) <= 14
    for i, (x, y) in enumerate(placed):
        assert 0 < x < 100 > y > 0
        assert all(abs(x - u) * 4.8 >= 59.9 or abs(y - v) * 3.6 >= 26.9 for u, v in placed[:i])


def test_colours_differ_where_they_can_and_say_what_they_are() -> None:
    many = [Concept(number, f"c{number}", "object") for number in range(5, 500, 24)]
    assert len(set(choose_colours(many).values())) == len(many)
    assert choose_colours([Concept(2, "x", "object")])[2] == COLOURS[1]
    assert choose_colours([Concept(9, "blue", "color"), Concept(1, "blue", "object")]) == {
        1: COLOURS[0],
        9: COLOUR_TERMS["blue"],
    }


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not installed")
def test_in_a_browser(tmp_path: Path) -> None:
    root = street(tmp_path / "street")
    save(root / "images/val/copy.png", (root / "images/train/000.png").read_bytes())
    page_of(open_dataset(f"folder:{root}"), tmp_path / "page")
    trouble: list[str] = []
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        page = browser.new_page(viewport={"width": 380, "height": 800})
        page.on("console", lambda message: trouble.append(message.text))
        page.on("requestfailed", lambda request: trouble.append(request.url))
        page.on("request", lambda request: None if request.url.startswith("file:") else trouble.append(request.url))
        page.goto((tmp_path / "page/index.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        assert page.locator(".seen span").first.inner_text() in ("car", "tree", "house", "road", "Lane")
        broken = (
            "[...document.images].filter(i => { i.loading = 'eager'; return i.complete && !i.naturalWidth }).length"
        )
        assert page.evaluate(broken) == 0
        browser.close()
    assert [entry for entry in trouble if entry != "data:,"] == []
