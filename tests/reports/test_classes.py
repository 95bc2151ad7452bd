"""Pages of classes: what was planted is said, hostile names are text, sizes are bounded."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from helpers.importance import ablation, keep_ablation, plant_importance
from helpers.runs import HOSTILE, LayerShape, read_image, write_run

from microtome.reports import build_report
from microtome.reports.importance import class_files, telling_labels
from microtome.reports.summaries import Concepts, summarise_layer
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
    drivers = "roof (units 30, 17: 40.0 points) and car (unit 0: 15.0 points)"
    assert f"beach is driven by {drivers}, of 55.0 points of probability in all. " in text
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
    rows = re.findall(r"<tr([^>]*)><th><a [^>]*>([^<]+)</a></th>.*?<span>([\d.]+)</span>", table, re.DOTALL)
    assert rows[:2] == [("", "roof", "40.0"), ("", "car", "15.0")]


def test_a_concept_far_behind_the_first_is_listed_but_not_said_to_drive(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={LAYER: LayerShape(40, 7, 60)}, seed=1)
    plant_importance(run, LAYER, ["x"], {(30, 0): (0.1, 0.4), (0, 0): (0.1, 0.09)})
    html = (Path(build_report(run, read_image)).parent / "classes" / "x.html").read_text(encoding="utf-8")
    units = run.layer_table(LAYER, "units")
    assert units["is_detector"][[0, 30]].all()
    weak = re.findall(r'<tr class="weak"><th><a [^>]*>([^<]+)</a></th>', html)
    assert weak == [units["concept"][0]]
    assert f"is driven by {units['concept'][30]} (unit 30: 40.0 points), of 49.0 points" in words(html)


def planted(path: Path, falls: dict[int, float]) -> tuple[Path, str]:
    """The report of a run whose class "x" loses such probability without units; 5 and 12 detect nothing, 6 and 9 do."""
    run = write_run(path / "run", layers={LAYER: LayerShape(40, 7, 60)}, seed=1)
    table = run.layer_table(LAYER, "units")
    table.loc[[5, 12], "is_detector"] = False
    table.loc[[6, 9], "is_detector"] = True
    table.loc[[6, 9], "concept_id"] = table["concept_id"][30]
    run.write_layer_table(LAYER, "units", table)
    plant_importance(run, LAYER, ["x"], {(unit, 0): (0.1, fall) for unit, fall in falls.items()})
    report = Path(build_report(run, read_image)).parent
    return report, words((report / "classes" / "x.html").read_text(encoding="utf-8"))


def test_what_lies_in_units_without_a_concept_is_weighed(tmp_path: Path) -> None:
    report, text = planted(tmp_path, {6: 0.03, 9: 0.01, 12: 0.686, 5: 0.104})
    said = "Most of what x loses (79.0 of 83.0 points of probability) lies in units that detect no concept here"
    assert f"{said} (units 12: 68.6, 5: 10.4). No concept drives it." in text
    assert "is driven by" not in text
    html = (report / "classes" / "x.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr([^>]*)><th([^>]*)>(?:<a [^>]*>)?([^<]+)(?:</a>)?</th>", html.split("<tbody>")[1])
    assert rows[:2] == [("", ' class="rest"', "no concept"), (' class="weak"', "", "roof")]
    assert "All units that are no detectors make one row. In all: 83.0 points." in text
    for name in ("classes.html", "index.html"):
        row = (
            (report / name).read_text(encoding="utf-8").split('class="numbers classes findable"')[1].split("<tbody>")[1]
        )
        row = row.split("</tr>")[0]
        assert '<span class="rest">units without a concept</span>' in row
        assert 'class="chip' not in row
    assert "Concepts by the classes they drive" not in (report / "classes.html").read_text(encoding="utf-8")


def test_a_concept_drives_beside_units_without_one(tmp_path: Path) -> None:
    report, text = planted(tmp_path, {6: 0.2, 9: 0.1, 12: 0.4})
    assert "detect no concept here (unit 12: 40.0). It is also driven by roof (units 6, 9: 30.0 points)." in text
    row = (report / "classes.html").read_text(encoding="utf-8").split("<tbody>")[1].split("</tr>")[0]
    assert row.index("units without a concept") < row.index("</i>roof")


def test_a_concept_drives_more_than_units_without_one(tmp_path: Path) -> None:
    _, text = planted(tmp_path, {6: 0.2, 9: 0.1, 12: 0.1})
    assert "x is driven by roof (units 6, 9: 30.0 points), of 40.0 points of probability in all." in text
    assert "10.0 points lie in units that detect no concept here (unit 12: 10.0)." in text


def test_a_fall_of_less_than_a_point_drives_nothing(tmp_path: Path) -> None:
    report, text = planted(tmp_path, {6: 0.004, 12: 0.009})
    assert "No concept drives x: without the detectors of any one" in text
    assert "units without a concept</span>" not in (report / "classes.html").read_text(encoding="utf-8")


def test_concepts_of_several_classes_are_told_from_those_of_one(run: Run) -> None:
    beach = page(run, "classes/beach.html")
    rows = {m[0]: words(m[1]) for m in re.findall(r"<tr><th><a [^>]*>(roof|car)</a></th>(.*?)</tr>", beach, re.DOTALL)}
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
    assert len(pages) >= 2 + len(CLASSES) + 2
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
    data = page(run, "data/layers/layer4.0%3Aconv%2F2.js")
    assert '"classes":{"names":["beach","\\u003cscript\\u003ealert(1)' in data
    other = page(run, "layers/layer1.html")
    assert "Units × classes" not in other
    assert '"names"' not in page(run, "data/layers/layer1.js")


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
    for name in ("classes.html", "classes/x.html", "index.html"):
        assert "4 of 16 units measured" in words((index.parent / name).read_text(encoding="utf-8"))
    assert "Only 4 of 16 units were measured." in (index.parent / "classes" / "x.html").read_text(encoding="utf-8")


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


def test_a_layer_that_was_measured_whole_is_shown_before_a_later_one(tmp_path: Path) -> None:
    shape = LayerShape(16, 7, 60)
    run = write_run(tmp_path / "run", layers={"a": shape, "b": shape, "c": shape})
    for layer in ("a", "b", "c"):
        plant_importance(run, layer, ["x"], {(3, 0): (0.1, 0.1)})
    table = run.layer_table("c", "importance")
    run.write_layer_table("c", "importance", table[table["unit"] < 4])
    index = Path(build_report(run, read_image))
    assert "what each class needs, in b ·" in words((index.parent / "classes.html").read_text(encoding="utf-8"))
    assert "What drives each class in b, and" in words(index.read_text(encoding="utf-8"))
    assert "In b." in words((index.parent / "classes" / "x.html").read_text(encoding="utf-8"))


def test_a_name_cannot_turn_round_what_stands_beside_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(16, 7, 60)})
    concepts = run.table("concepts")
    concepts["name"] = concepts["name"] + "\u202e\u2067\x9b"
    run.write_table("concepts", concepts)
    samples = run.table("samples")
    samples["key"] = samples["key"] + "\u202d\x1b[2J"
    run.write_table("samples", samples)
    plant_importance(run, "a", ["be\u202each\u2066", "\x07x"], {(3, 0): (0.1, 0.1)})
    keep_ablation(run, ablation("on\u202be", "a", [3], {"all": 0.1, "be\u202each\u2066": 0.5}))
    report = Path(build_report(run, read_image)).parent
    texts = {path: path.read_text(encoding="utf-8") for path in report.rglob("*") if path.suffix in (".html", ".js")}
    for path, text in texts.items():
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), path
        assert not re.search(r"\\u(202[a-e]|206[6-9]|00[01][0-9a-f])", text), path
    assert "be\ufffdach\ufffd</h1>" in "".join(texts.values())
    assert "on\ufffde</h2>" in texts[report / "ablations.html"]
    assert "\\ufffd" in texts[report / "data" / "layers" / "a.js"]


def test_a_thousand_classes_stay_small(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(64, 7, 60)}, samples=12)
    names = [f"{number} with a name as long as some lists of classes have them, and longer" for number in range(1000)]
    falls = {(u, number): (0.01 * (u % 7 + 1), 0.005 * (u % 5)) for u in range(60) for number in range(1000)}
    plant_importance(run, "a", names, falls)
    index = Path(build_report(run, read_image))
    pages = [path.stat().st_size for path in (index.parent / "classes").iterdir()]
    assert len(pages) == 1000
    assert max(pages) < 27_000
    assert index.stat().st_size < 150_000
    assert (index.parent / "classes.html").stat().st_size < 2_500_000
    assert (index.parent / "layers" / "a.html").stat().st_size < 120_000
    matrix = (index.parent / "layers" / "a.html").read_text(encoding="utf-8")
    assert matrix.count('<th scope="row">') == 60
    assert "60 of 64 units and 40 of 1\u202f000 classes" in matrix


def test_scenes_give_way_to_what_else_a_unit_detects(run: Run) -> None:
    """That what detects parks drives the class "park" says nothing: the best other concept stands there."""
    concepts = Concepts.of(run.table("concepts"))
    summary = summarise_layer(run, run.layer(LAYER), concepts)
    scene = next(c for c in range(1, len(concepts.names)) if concepts.categories[concepts.category[c]] == "scene")
    other = next(c for c in range(1, len(concepts.names)) if concepts.categories[concepts.category[c]] == "object")
    first = summary.first
    concept, best, best_iou = first.concept.copy(), first.best.copy(), first.best_iou.copy()
    detector, iou = first.detector.copy(), first.iou.copy()
    for unit, second in ((0, 0.06), (1, 0.01), (2, 0.06)):  # above the bar, below it, and of a unit that is no detector
        concept[unit], iou[unit], detector[unit] = scene, 0.3, unit != 2
        best[unit, :2], best_iou[unit, :2] = (scene, other), (0.3, second)
    changed = replace(first, concept=concept, best=best, best_iou=best_iou, detector=detector, iou=iou)
    label, shown = telling_labels(replace(summary, labels=[changed]), concepts, bar=0.04)
    assert label[:3].tolist() == [other, scene, 0]
    assert shown[:2].tolist() == [0.06, 0.3]
    plain = np.where(detector, concept, 0)
    assert (label[3:] == plain[3:])[~np.isin(plain[3:], [scene])].all()
