"""Pages of classes: what was planted is said, hostile names are text, sizes are bounded."""

from __future__ import annotations

import re
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from helpers.importance import plant_importance
from helpers.runs import HOSTILE, LayerShape, read_image, write_run

from microtome.reports import build_report
from microtome.reports.importance import class_files
from microtome.storage.run import Run

LAYER = "layer4.0:conv/2"
CLASSES = ["beach", HOSTILE, "crane", "crane", "../../etc", "empty"]
FALLS = {
    (30, 0): (0.40, 0.30),
    (17, 0): (0.20, 0.10),
    (0, 0): (0.20, 0.15),
    (9, 0): (-0.10, -0.05),
    (30, 1): (0.05, 0.02),
    (5, 2): (0.15, 0.2),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("classes") / "run")
    plant_importance(run, LAYER, CLASSES, FALLS, images=[20, 20, 20, 20, 20, 0])
    build_report(run, read_image)
    return run


def page(run: Run, name: str) -> str:
    return (run.path / "report" / name).read_text(encoding="utf-8")


def words(html: str) -> str:
    """The text of a page as it is read: inline markup gone, each run of white space one blank."""
    inline = re.sub(r"</?(?:a|b|i|abbr)\b[^>]*>", "", html)
    return " ".join(re.sub(r"<[^>]+>", " ", inline).split())


def test_a_class_says_which_units_it_needs_and_what_drives_it(run: Run) -> None:
    units = run.layer_table(LAYER, "units").set_index("unit")
    assert units.loc[[30, 17, 0], "is_detector"].all()
    assert units.loc[30, "concept"] == units.loc[17, "concept"] == "roof"
    assert units.loc[0, "concept"] == "car"
    html = page(run, "classes/beach.html")
    text = words(html)
    assert "beach is driven by roof (units 30, 17: 40.0 points) and car (unit 0: 15.0 points)." in text
    assert re.findall(r">unit (\d+)</a>", html) == ["30", "0", "17"]
    assert 'href="../layers/layer4.0%253Aconv%252F2.html#unit-30"' in html
    needed = text[text.index("Units it needs most") :]
    assert "accuracy falls 40.0 probability 30.0 other classes 1.2 most: 5.0 &lt;script&gt;" in needed
    assert "accuracy falls 20.0 probability 15.0 other classes 0.0" in needed
    assert "20 images · accuracy 90.0%" in text
    assert "One image is 5.0 points" in text
    told = text[text.index("Units it does better without") :]
    assert re.search(r"points 9 .* 10\.0 5\.0", told)


def test_drives_add_up_over_the_detectors_of_a_concept(run: Run) -> None:
    table = page(run, "classes/beach.html").split("<tbody>")[1]
    rows = re.findall(r"<tr([^>]*)><th>([^<]+)</th>.*?<span>([\d.]+)</span>", table, re.DOTALL)
    assert rows[:2] == [("", "roof", "40.0"), ("", "car", "15.0")]


def test_a_concept_far_behind_the_first_is_listed_but_not_said_to_drive(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={LAYER: LayerShape(40, 7, 60)}, seed=1)
    plant_importance(run, LAYER, ["x"], {(30, 0): (0.1, 0.4), (0, 0): (0.1, 0.09)})
    html = (Path(build_report(run, read_image)).parent / "classes" / "x.html").read_text(encoding="utf-8")
    units = run.layer_table(LAYER, "units")
    assert units["is_detector"][[0, 30]].all()
    weak = re.findall(r'<tr class="weak"><th>([^<]+)</th>', html)
    assert weak == [units["concept"][0]]
    assert f"is driven by {units['concept'][30]} (unit 30: 40.0 points)." in words(html)


def test_concepts_of_several_classes_are_told_from_those_of_one(run: Run) -> None:
    beach = page(run, "classes/beach.html")
    rows = {m[0]: words(m[1]) for m in re.findall(r"<tr><th>(roof|car)</th>(.*?)</tr>", beach, re.DOTALL)}
    assert "alert(1)" in rows["roof"]
    assert "this class only" in rows["car"]
    shared = page(run, "classes.html")
    assert re.search(r'<th>roof</th>.*?<td class="n">2</td>', shared, re.DOTALL)


def test_a_class_that_needs_nothing_says_so(run: Run) -> None:
    text = words(page(run, f"classes/{class_files(CLASSES)[4]}.html"))
    assert "No concept drives ../../etc" in text
    assert "No unit that is removed alone lowers the accuracy of this class." in text


def test_a_class_without_images_says_so(run: Run) -> None:
    assert "no image of this class" in page(run, "classes/empty.html")
    assert "No concept drives" not in page(run, "classes/empty.html")


def test_names_of_files_are_safe_and_distinct() -> None:
    names = ["a", "A", "a~2", "", " ", "../x", ".hidden", "x" * 400, "x" * 400 + "y", "é/\\:*?", "a\ud800"]
    files = class_files([name.encode("utf-8", "replace").decode() for name in names])
    assert len({file.casefold() for file in files}) == len(names)
    assert all(re.fullmatch(r"[\w%~ .-]{1,110}", file) and not file.startswith(".") for file in files)


def test_every_address_leads_to_a_file_and_every_name_is_text(run: Run) -> None:
    report = run.path / "report"
    pages = [*report.glob("*.html"), *report.glob("classes/*.html"), *report.glob("layers/*.html")]
    assert len(pages) == 2 + len(CLASSES) + 2
    for path in pages:
        html = path.read_text(encoding="utf-8")
        assert HOSTILE not in html, path
        assert not re.search(r"\son\w+=", html), path
        for address in re.findall(r'(?:href|src)="([^"#:]+)["#]', html) + re.findall(r"url\(([^)]+)\)", html):
            assert (path.parent / unquote(address)).is_file(), address


def test_index_and_layer_lead_to_the_classes(run: Run) -> None:
    index = page(run, "index.html")
    assert 'href="classes/beach.html"' in index
    assert 'href="classes.html"' in index
    html = page(run, "layers/layer4.0%3Aconv%2F2.html")
    rows = re.findall(r'<th scope="row"><a href="#unit-(\d+)">', html)
    assert rows == ["30", "0", "17", "5"]
    assert "<td class=d6>40</td><td class=d3>5</td>" in html
    data = page(run, "data/layer4.0%3Aconv%2F2.js")
    assert '"classes":{"names":["beach","\\u003cscript\\u003ealert(1)' in data
    other = page(run, "layers/layer1.html")
    assert "Units × classes" not in other
    assert '"names"' not in page(run, "data/layer1.js")


def test_the_same_run_gives_the_same_bytes(run: Run) -> None:
    report = run.path / "report"
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    build_report(run, read_image, workers=1)
    assert {path: path.read_bytes() for path in report.rglob("*") if path.is_file()} == before


def test_a_run_without_importance_has_no_classes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    index = Path(build_report(run, read_image))
    files = {path.relative_to(index.parent).as_posix() for path in index.parent.rglob("*")}
    assert not any(name.startswith("classes") or name == "ablations.html" for name in files)
    for name in ("index.html", "layers/a.html"):
        text = (index.parent / name).read_text(encoding="utf-8")
        assert "lasses.html" not in text
        assert "classes.css" not in text
        assert "Axis alignment" not in text


def test_units_that_were_not_measured_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(16, 7, 60)})
    plant_importance(run, "a", ["x", "y"], {(1, 0): (0.1, 0.1)})
    table = run.layer_table("a", "importance")
    run.write_layer_table("a", "importance", table[table["unit"] < 4])
    index = Path(build_report(run, read_image))
    for name in ("classes.html", "classes/x.html"):
        assert "Only 4 of 16 units were measured." in (index.parent / name).read_text(encoding="utf-8")


def test_predictions_as_truth_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(16, 7, 60)})
    plant_importance(run, "a", ["x", "y"], {(1, 0): (0.1, 0.1)}, accuracy=1.0, truth="predictions")
    index = Path(build_report(run, read_image))
    for name in ("classes.html", "classes/x.html"):
        assert "a fall is the share of answers that change" in (index.parent / name).read_text(encoding="utf-8")


def test_the_list_shows_the_last_layer_with_its_own_axes(tmp_path: Path) -> None:
    shape = LayerShape(16, 7, 60)
    run = write_run(tmp_path / "run", layers={"a": shape, "b": shape, "b:rotated": shape})
    run.info["layers"][2]["readout"] = {
        "base": "b",
        "kind": "rotated",
        "source": "rotated",
        "fingerprint": "0",
        "inputs": 16,
        "images": 0,
    }
    for layer in ("a", "b", "b:rotated"):
        plant_importance(run, layer, ["x"], {(3, 0): (0.1, 0.1)})
    index = Path(build_report(run, read_image))
    assert "what each class needs, in b ·" in (index.parent / "classes.html").read_text(encoding="utf-8")
    text = words((index.parent / "classes" / "x.html").read_text(encoding="utf-8"))
    assert "In b." in text
    assert "b:rotated b in randomly rotated directions" in text


def test_a_thousand_classes_stay_small_and_quick(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(64, 7, 60)}, samples=12)
    names = [f"{number} with a name as long as some lists of classes have them, and longer" for number in range(1000)]
    falls = {(u, number): (0.01 * (u % 7 + 1), 0.005 * (u % 5)) for u in range(60) for number in range(1000)}
    plant_importance(run, "a", names, falls)
    begun = time.perf_counter()
    index = Path(build_report(run, read_image))
    assert time.perf_counter() - begun < 15
    pages = [path.stat().st_size for path in (index.parent / "classes").iterdir()]
    assert len(pages) == 1000
    assert max(pages) < 25_000
    assert index.stat().st_size < 150_000
    assert (index.parent / "classes.html").stat().st_size < 2_500_000
    assert (index.parent / "layers" / "a.html").stat().st_size < 120_000
    matrix = (index.parent / "layers" / "a.html").read_text(encoding="utf-8")
    assert matrix.count('<th scope="row">') == 60
    assert "60 of 64 units and 40 of 1\u202f000 classes" in matrix
