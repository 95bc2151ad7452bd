"""What a notebook shows of a run: numbers as in the tables, pictures within the text, nothing that breaks out."""

from __future__ import annotations

import base64
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.browser import needs_browser
from helpers.informed import add_information
from helpers.runs import HOSTILE, LayerShape, read_image, write_run
from playwright.sync_api import Page

from microtome.dissect.query import Dissection, open_run
from microtome.reports import build_report
from microtome.reports.patch_sheets import sheet
from microtome.storage.arrays import THUMBNAILS
from microtome.storage.errors import UnknownNameError
from microtome.storage.run import Run

LONG = "x" * 10_000
LAYERS = {"layer1": LayerShape(24, 14, 60), HOSTILE: LayerShape(16, 7, 60), LONG[:90]: LayerShape(8, 7, 60)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("notebook") / "run", layers=LAYERS, taus=(0.005, 0.05))
    concepts = run.table("concepts")
    concepts.loc[3, "name"] = LONG
    concepts.loc[4, "name"] = "a\u202eb"
    run.write_table("concepts", concepts)
    for layer in LAYERS:
        units = run.layer_table(layer, "units").assign(infinite=0)
        names = concepts.set_index("id")["name"]
        units["concept"] = units["concept_id"].map(names)
        run.write_layer_table(layer, "units", units.fillna({"iou": 0.0, "ceiling": 0.0}))
    add_information(run)
    build_report(run, read_image)
    return run


@pytest.fixture(scope="module")
def asked(run: Run) -> Dissection:
    return open_run(run.path)


class Elements(HTMLParser):
    """Every element of some HTML: (tag, attributes); and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("img", "rect", "line", "circle", "polyline", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line", "circle", "polyline", "polygon"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def answers(asked: Dissection) -> dict[str, str]:
    """The HTML of each kind of answer, hostile names among them."""
    return {
        "run": asked._repr_html_(),
        **{f"layer {n}": asked.layer(name)._repr_html_() for n, name in enumerate(asked.layers)},
        **{f"unit {n}": asked.unit(HOSTILE, n)._repr_html_() for n in range(16)},
        "concept": asked.concept(HOSTILE)._repr_html_(),
        "long concept": asked.concept(LONG)._repr_html_(),
        "turned concept": asked.concept("a\u202eb")._repr_html_(),
        "query": asked.query(f'concept!="{HOSTILE}"')._repr_html_(),
        "nothing": asked.query("iou>0.99")._repr_html_(),
        "informed": asked.unit("layer1", 0, "information")._repr_html_(),
        "informed layer": asked.layer("layer1", "information")._repr_html_(),
    }


def pictures(html: str) -> list[np.ndarray]:
    found = []
    for tag, attributes in Elements(html).found:
        if tag == "img":
            assert attributes["alt"]
            kind, data = attributes["src"].split(",")
            assert kind == "data:image/jpeg;base64"
            image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            found.append(np.asarray(image))
    return found


def test_html_is_whole_and_holds_no_script(asked: Dissection) -> None:
    allowed = {"div", "b", "span", "svg", "rect", "line", "circle", "polyline", "polygon", "text", "img", "table"}
    allowed |= {"thead", "tbody", "tr", "th", "td", "title", "desc"}
    for name, html in answers(asked).items():
        elements = Elements(html)
        assert elements.open == [], name
        assert {tag for tag, _ in elements.found} <= allowed, name
        for _, attributes in elements.found:
            assert not [key for key in attributes if key.startswith("on")], name
            assert "//" not in attributes.get("src", "") or attributes["src"].startswith("data:"), name
        assert "\u202e" not in html
        assert len(html) < 150_000, name


def test_a_unit_shows_its_numbers(run: Run, asked: Dissection) -> None:
    units = run.layer_table("layer1", "units").set_index("unit")
    scores = run.layer_table("layer1", "iou")
    for unit in (0, 5, 22):
        text = Elements(asked.unit("layer1", unit)._repr_html_()).text
        row = units.loc[unit]
        assert f"layer1, unit {unit}" in text
        assert str(row["state"]) in text
        if row["iou"] > 0:
            assert f"{row['iou']:.3f}" in text
            assert f"of at most {row['ceiling']:.3f}; {'a' if row['is_detector'] else 'no'} detector" in text
        else:
            assert "overlaps no concept" in text
        mine = scores[(scores["unit"] == unit) & (scores["tau"] == 0.005)].sort_values("iou", ascending=False)
        for score in mine["iou"].head(6):
            assert f"{score:.3f}" in text
        assert f"threshold {row['threshold']:.4g}" in text


def test_a_layer_and_the_run_show_their_detectors(run: Run, asked: Dissection) -> None:
    summary = asked.summary()
    html = asked._repr_html_()
    for layer in ("layer1", HOSTILE):
        row = summary[(summary["layer"] == layer) & (summary["category"] == "all")].iloc[0]
        text = Elements(asked.layer(layer)._repr_html_()).text
        assert f"{row['detectors']} of {row['units']} units are detectors" in text
        assert f"of {row['unique_detectors']} distinct concepts" in text
        cells = [row["units"], row["detectors"], row["unique_detectors"]]
        name = "layer1" if layer == "layer1" else "&lt;script&gt;alert(1)&lt;/script&gt;"
        found = re.search(re.escape(f"<b>{name}</b>") + r"</td>" + r"<td [^>]*>(\d+)</td>" * 3, html)
        assert found is not None
        assert [int(value) for value in found.groups()] == cells
        parts = summary[(summary["layer"] == layer) & (summary["category"] != "all")]
        for category, count in zip(parts["category"], parts["unique_detectors"], strict=True):
            assert (f"{category} {count}" in re.sub(r"\s+", " ", text)) == (count > 0)


def test_a_concept_shows_where_it_appears(run: Run, asked: Dissection) -> None:
    text = re.sub(r"\s+", " ", Elements(asked.concept("tree")._repr_html_()).text)
    table = run.table("concepts").set_index("name").loc["tree"]
    assert f"in {table['images']} images" in text
    for layer in ("layer1",):
        scores = run.layer_table(layer, "iou")
        units = run.layer_table(layer, "units")
        best = scores["iou"][(scores["concept"] == 2) & (scores["tau"] == 0.005)].max()
        count = (units["is_detector"] & (units["concept_id"] == 2)).sum()
        assert f"{layer} best IoU {best:.3f}, {count} detecting" in text
    with pytest.raises(UnknownNameError, match="tre"):
        asked.concept("tre")


def test_pictures_are_the_patches_of_the_report(run: Run, asked: Dissection) -> None:
    (drawn,) = pictures(asked.unit("layer1", 3)._repr_html_())
    strip = cv2.imread(str(run.path / "report" / "patches" / "layer1" / "3.jpg"))
    assert strip is not None
    assert drawn.shape == (2 * 96 + 2, 6 * 96 + 5 * 2, 3)  # nine patches in rows of six
    for number in range(9):
        down, right = (98 * place for place in divmod(number, 6))
        here = drawn[down : down + 96, right : right + 96].astype(int)
        assert np.abs(here - strip[:, 96 * number : 96 * number + 96]).mean() < 6


def test_without_a_report_images_are_shown_small_or_words_say_how(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(8, 7, 60)})
    units = run.layer_table("a", "units").assign(infinite=0).fillna({"iou": 0.0, "ceiling": 0.0})
    run.write_layer_table("a", "units", units)
    html = open_run(run.path).unit("a", 0)._repr_html_()
    assert "microtome report RUN draws the patches of every unit" in html
    assert pictures(html) == []
    run.arrays.create(THUMBNAILS, (32, 32, 3), "uint8")
    stored = np.zeros((24, 32, 32, 3), np.uint8)
    stored[..., 0] = np.arange(24)[:, None, None] * 10
    run.arrays.write_shard(THUMBNAILS, 0, stored)
    html = open_run(run.path).unit("a", 0)._repr_html_()
    (drawn,) = pictures(html)
    patches = run.layer_table("a", "patches")
    samples = patches[patches["unit"] == 0].sort_values("rank")["sample"].tolist()
    assert abs(int(drawn[16, 16, 2]) - 10 * samples[0]) < 8
    assert abs(int(drawn[16, 34 + 16, 2]) - 10 * samples[1]) < 8
    assert "The whole images, small" in html


def test_patches_are_laid_out_in_rows() -> None:
    patches = [np.full((4, 4, 3), number, np.uint8) for number in range(5)]
    made = sheet(patches, 3)
    assert made.shape == (10, 16, 3)
    for number in range(5):
        down, right = (6 * place for place in divmod(number, 3))
        assert (made[down : down + 4, right : right + 4] == number).all()
    assert sheet(patches[:2], 6).shape == (4, 10, 3)


def test_the_same_answer_gives_the_same_html(asked: Dissection) -> None:
    assert answers(asked) == answers(asked)


def test_an_answer_is_a_table(run: Run, asked: Dissection) -> None:
    unit = asked.unit("layer1", 0)
    row = run.layer_table("layer1", "units").loc[0]
    said = f"layer1, unit 0 (ok): {row['concept']} ({row['category']}), IoU {row['iou']:.3f}, detector"
    assert repr(unit).splitlines()[0] == said
    assert repr(asked.layer("layer1")).splitlines()[0].startswith("layer1: 24 units, ")
    assert repr(asked.concept("tree")).splitlines()[0].startswith("tree: ")
    assert repr(asked.query("concept=tree")).splitlines()[0] == "48 units for 'concept=tree'"
    assert repr(asked) == "<Dissection of builtin:scenes-cnn over scenes:24: 3 layers, 48 units>"
    assert "<" not in repr(unit)
    assert type(unit[unit["iou"] > 0]) is pd.DataFrame
    assert type(unit.copy()) is pd.DataFrame
    assert type(pickle.loads(pickle.dumps(unit))) is pd.DataFrame
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(unit)), pd.DataFrame(unit))
    pd.testing.assert_frame_equal(pd.DataFrame(asked.layer("layer1")), asked.units("layer1"))
    pd.testing.assert_frame_equal(pd.DataFrame(asked.concept("tree")), pd.DataFrame(asked.query("concept=tree")))


def test_an_answer_that_was_changed_is_shown_as_it_is_now(asked: Dissection) -> None:
    units = asked.query("layer=layer1")
    units["mine"] = 7
    html = units._repr_html_()
    assert "<th>mine</th>" in html
    assert "<script" not in html


@needs_browser
def test_it_looks_right_in_a_browser(page: Page, asked: Dissection, tmp_path: Path) -> None:
    """No element is wider than a phone, no script runs, and every picture can be seen."""
    body = "<hr>".join(answers(asked).values())
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset='utf-8'><body>{body}</body>", encoding="utf-8")
    page.set_viewport_size({"width": 380, "height": 800})
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 100)")
    ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
