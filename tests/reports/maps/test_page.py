"""Reports of runs with maps: sections of layer pages and of the index, links, installations without the script."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import cv2
import pandas as pd
import pytest
from helpers.maps import WARNING, plant_maps
from helpers.maps_flat import plant_flat
from helpers.page_data import read_page_data
from helpers.runs import HOSTILE, LAYERS, LayerShape, read_image, write_run

from microtome.reports import build_report
from microtome.reports.bundles import MAP, words_instead
from microtome.reports.maps.candidates import SHOWN
from microtome.reports.maps.page import map_hash
from microtome.reports.thumbnails import SIZE
from microtome.storage.errors import SampleError
from microtome.storage.run import Run

SECOND = "layer4.0%3Aconv%2F2"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("pages") / "run", splits=True)
    plant_maps(run)
    build_report(run, read_image)
    return run


def page(run: Run, name: str) -> str:
    return (run.path / "report" / name).read_text(encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_page_leads_to_the_map(run: Run) -> None:
    assert (run.path / "report" / "map.html").is_file()
    for name in ("index.html", "map.html", "layers/layer1.html", f"layers/{SECOND}.html"):
        assert re.search(r'<a href="(\.\./)?map\.html"[^>]*>Map</a>', page(run, name)), name
    assert 'href="map.html#layer=layer4.0%3Aconv%2F2"' in page(run, "index.html")
    assert 'href="../map.html#layer=layer1"' in page(run, "layers/layer1.html")


def test_every_address_in_a_page_leads_to_a_file(run: Run) -> None:
    report = run.path / "report"
    for file in [report / "index.html", report / "map.html", *(report / "layers").iterdir()]:
        text = file.read_text(encoding="utf-8")
        for address in re.findall(r'(?:href|src)="([^"#:]+)["#]', text) + re.findall(r"url\(([^)]+)\)", text):
            assert (file.parent / unquote(address)).is_file(), address


def test_a_layer_page_says_how_far_to_believe_its_map(run: Run) -> None:
    text = page(run, "layers/layer1.html")
    assert "0.973" in text
    assert "0.420" in text
    assert "0.810 of the neighbours on the map, 0.860 in the layer" in text
    assert WARNING.replace("<", "&lt;").replace(">", "&gt;") in text
    assert "22 of 24 images" in text


def test_pages_show_the_picture_and_what_components_explain(run: Run) -> None:
    text = page(run, "layers/layer1.html")
    image = cv2.imread(str(run.path / "report" / "maps" / "layer1.png"))
    assert image is not None
    assert f'src="../maps/layer1.png" width="{image.shape[1]}" height="{image.shape[0]}"' in text
    assert 'src="maps/layer4.0%253Aconv%252F2.png"' in page(run, "index.html")
    assert "of the variance lies in" in text
    assert '<svg xmlns="http://www.w3.org/2000/svg" class="variance"' in text


def test_clusters_and_candidates_link_into_the_map(run: Run) -> None:
    text = page(run, "layers/layer1.html")
    assert 'href="../map.html#layer=layer1&amp;cluster=2">tree</a>' in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;</a>" in text
    assert text.count('<span class="patch"') == 5
    assert len(re.findall(r"map\.html#layer=layer1&amp;point=\d+", text)) == 5
    strip = cv2.imread(str(run.path / "report" / "map" / "layer1" / "candidates.jpg"))
    assert strip is not None
    assert strip.shape == (SIZE, 5 * SIZE, 3)


def test_cards_are_told_where_units_light_up(run: Run) -> None:
    for number, folder in enumerate(["layer1", SECOND]):
        payload = read_page_data(run.path / "report", f"layers/{folder}")
        assert payload["map"] == f"map.html{map_hash(list(LAYERS)[number])}&unit="


def test_nothing_hostile_reaches_the_markup(run: Run) -> None:
    for name, text in contents(run.path / "report").items():
        if name.endswith(".html") or (name.endswith(".js") and not name.startswith("static/")):
            assert HOSTILE.encode() not in text, name
            assert b"onerror=alert(2)>" not in text, name


def test_the_same_run_gives_the_same_bytes(run: Run) -> None:
    before = contents(run.path / "report")
    build_report(run, read_image, workers=1)
    assert contents(run.path / "report") == before


def test_a_layer_without_a_map_says_nothing_of_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60), "b": LayerShape(4, 7, 60)})
    plant_maps(run, ["a"], classes=False)
    build_report(run, read_image)
    assert "layer-map" not in page(run, "layers/b.html")
    assert '"map":' not in page(run, "data/layers/b.js")
    assert "layer-map" in page(run, "layers/a.html")
    assert "Candidates for wrong labels" not in page(run, "layers/a.html")
    assert "map.html#layer=a" in page(run, "index.html")


def test_a_run_without_maps_has_no_trace_of_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    build_report(run, read_image)
    files = contents(run.path / "report")
    assert not [name for name in files if "map" in name]
    assert b"map.html" not in b"".join(files[name] for name in ("index.html", "layers/a.html", "data/layers/a.js"))


def test_a_candidate_whose_image_went_missing_is_grey(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    plant_maps(run)

    def read(sample: int) -> object:
        raise SampleError(str(sample), "gone")

    build_report(run, read)  # type: ignore[arg-type]
    strip = cv2.imread(str(run.path / "report" / "map" / "a" / "candidates.jpg"))
    assert strip is not None
    assert int(strip.min()) == int(strip.max()) == 128


def test_one_image_has_no_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=1, unreadable=0, layers={"a": LayerShape(4, 7, 60)})
    plant_flat(run, "a")
    build_report(run, read_image)
    text = page(run, "layers/a.html") + page(run, "index.html")
    assert "1 image, a point; what a takes for similar" in text
    assert "(the first two principal components of its units’ means over each image)" in text
    assert 'alt="Map of a: 1 image"' in text
    assert "t-SNE" not in text
    assert "trustworthiness" not in text
    assert "measured on" not in text


def test_so_many_candidates_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=60, layers={"a": LayerShape(4, 7, 60), "b": LayerShape(4, 7, 60)})
    plant_maps(run)
    for layer in ("a", "b"):
        row = run.layer_table(layer, "disagreements").iloc[:1]
        frames = [row.assign(sample=sample) for sample in range(59, -1, -1)]
        run.write_layer_table(layer, "disagreements", pd.concat(frames))
    build_report(run, read_image)
    text = page(run, "layers/a.html")
    assert text.count('<span class="patch"') == SHOWN
    assert "Candidates for wrong labels: 60" in text
    assert "images/000058.png" not in text  # unreadable, so no point
    assert "images/000057.png" in text


def test_an_installation_without_the_script_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    plant_maps(run)
    monkeypatch.setattr("microtome.reports.site.missing_bundles", lambda **_: [MAP])
    build_report(run, read_image)
    assert words_instead(MAP) in page(run, "static/map.js")


@pytest.mark.parametrize("layer", ["plain", "a&unit=3", "ünïcode #1", "</script>\u2028"])
def test_any_layer_has_an_address(layer: str) -> None:
    text = map_hash(layer, unit=4)
    found = re.fullmatch(r"#layer=([A-Za-z0-9%._~-]+)&unit=4", text)
    assert found is not None
    assert unquote(found[1]) == layer
