"""The map page's files decode to what the run's tables and arrays hold, in page order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.map_files import decode_bits, decode_order, decode_top, decode_view, read_data, read_manifest
from helpers.maps import WARNING, map_info, plant_maps, present, thumbnails
from helpers.maps_flat import plant_flat
from helpers.runs import HOSTILE, HOSTILE_KEY, LAYERS, NAMES, LayerShape, write_run
from numpy.typing import NDArray

from microtome.dissect.embedding import maps
from microtome.reports.maps import points
from microtome.reports.maps.build import MapData, write_map
from microtome.reports.maps.columns import UnitFiles
from microtome.reports.maps.points import columns_of
from microtome.reports.maps.quality import FLAT, shown_quality
from microtome.reports.summaries import Concepts, summarise_layer
from microtome.storage.arrays import PEAKS, PRESENCE, layer_array
from microtome.storage.errors import RunDamagedError
from microtome.storage.run import Run

SAMPLES, UNREADABLE = 90, 2
SECOND = "layer4.0:conv/2"


def map_of(run: Run, root: Path, workers: int = 2) -> MapData | None:
    """Write the map's data of `run` below `root`."""
    root.mkdir(exist_ok=True)
    concepts = Concepts.of(run.table("concepts"))
    layers = [summarise_layer(run, entry, concepts) for entry in run.info["layers"]]
    return write_map(run, root, layers, concepts, run.table("samples"), workers=workers)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("map") / "run", samples=SAMPLES, unreadable=UNREADABLE, splits=True)
    plant_maps(run, umap=True)
    return run


@pytest.fixture(scope="module")
def root(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("map") / "out"
    assert map_of(run, root) is not None
    return root


@pytest.fixture(scope="module")
def manifest(root: Path) -> dict[str, Any]:
    return read_manifest(root)


@pytest.fixture(scope="module")
def order(root: Path, manifest: dict[str, Any]) -> NDArray[np.int64]:
    return decode_order(read_data(root, manifest["order_file"]))


def slow_code(x: int, y: int) -> int:
    """The Morton code of a place, bit by bit."""
    return sum((x >> bit & 1) << 2 * bit | (y >> bit & 1) << (2 * bit + 1) for bit in range(16))


def test_points_are_the_readable_samples_along_the_curve_of_the_last_layer(
    run: Run, manifest: dict[str, Any], order: NDArray[np.int64]
) -> None:
    assert (manifest["schema"], manifest["samples"], manifest["total"]) == (1, SAMPLES - UNREADABLE, SAMPLES)
    assert sorted(order.tolist()) == list(range(SAMPLES - UNREADABLE))
    table = run.layer_table(SECOND, "map").dropna()
    low, high = table[["x", "y"]].min().to_numpy(float), table[["x", "y"]].max().to_numpy(float)
    steps = np.rint((table[["x", "y"]].to_numpy(float) - low) / (high - low) * 65535).astype(int)
    codes = [slow_code(int(x), int(y)) for x, y in steps]
    assert order.tolist() == sorted(table["sample"], key=lambda sample: (codes[sample], sample))


@pytest.mark.parametrize("number", [0, 1])
def test_every_view_has_the_positions_of_the_table(
    run: Run, root: Path, manifest: dict[str, Any], order: NDArray[np.int64], number: int
) -> None:
    layer = manifest["layers"][number]
    assert layer["name"] == list(LAYERS)[number]
    assert layer["views"] == ["tsne", "pca", "umap"]
    table = run.layer_table(layer["name"], "map").set_index("sample").loc[order]
    for view, columns in {"tsne": ["x", "y"], "pca": ["pca_x", "pca_y"], "umap": ["umap_x", "umap_y"]}.items():
        box = layer["boxes"][view]
        found = decode_view(read_data(root, layer["files"][view]), box)
        step = max(box[2] - box[0], box[3] - box[1]) / 65535
        assert np.abs(found - table[columns].to_numpy(float)).max() <= 0.51 * step


def test_classes_clusters_and_keys(run: Run, root: Path, manifest: dict[str, Any], order: NDArray[np.int64]) -> None:
    samples = run.table("samples").set_index("index").loc[order]
    classes = np.frombuffer(read_data(root, manifest["class_file"]), "<u2")
    assert manifest["classes"] == ["street", "harbour"]
    assert classes.tolist() == samples["label"].tolist()
    for layer in manifest["layers"]:
        table = run.layer_table(layer["name"], "map").set_index("sample").loc[order]
        assert np.frombuffer(read_data(root, layer["cluster_file"]), "<i2").tolist() == table["cluster"].tolist()
    assert manifest["keys"]["per"] == 8192
    rows = json.loads(read_data(root, manifest["keys"]["file"].replace("{chunk}", "0")))
    expected = [
        [key.replace("\u2028", "\ufffd"), ["street", "harbour"][label], split]
        for key, label, split in zip(samples["key"], samples["label"], samples["split"], strict=True)
    ]
    assert rows == expected
    assert not (root / "map" / "keys" / "1.js").exists()


def test_keys_come_in_chunks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microtome.reports.maps.build.KEYS_PER_FILE", 40)
    monkeypatch.setattr("microtome.reports.maps.sprites.PER_SHEET", 64)
    map_of(run, tmp_path)
    manifest = read_manifest(tmp_path)
    order = decode_order(read_data(tmp_path, manifest["order_file"]))
    files = [manifest["keys"]["file"].replace("{chunk}", str(chunk)) for chunk in range(3)]
    keys = [row[0] for file in files for row in json.loads(read_data(tmp_path, file))]
    expected = run.table("samples")["key"].to_numpy(object)[order]
    assert keys == [key.replace("\u2028", "\ufffd") for key in expected]
    assert sorted(path.name for path in (tmp_path / "map" / "sprites").iterdir()) == ["0.webp", "1.webp"]


def test_concepts_are_those_that_occur_at_their_points(
    root: Path, manifest: dict[str, Any], order: NDArray[np.int64]
) -> None:
    bad = np.arange(SAMPLES) >= SAMPLES - UNREADABLE
    truth = present(SAMPLES, bad)[order]
    found = {concept["id"]: concept for concept in manifest["concepts"]}
    assert sorted(found) == np.flatnonzero(truth.any(axis=0)).tolist()
    assert 5 not in found
    for number, concept in found.items():
        assert (concept["name"], concept["category"]) == NAMES[number - 1]
        assert concept["images"] == truth[:, number].sum()
        assert decode_bits(read_data(root, concept["file"]), len(order)).tolist() == truth[:, number].tolist()
    categories = [concept["category"] for concept in manifest["concepts"]]
    usual = ["object", "part", "material", "texture", "color", "scene", "lighting"]
    assert categories == sorted(categories, key=usual.index)
    ranked = [(usual.index(concept["category"]), -concept["images"]) for concept in manifest["concepts"]]
    assert ranked == sorted(ranked)


@pytest.mark.parametrize("number", [0, 1])
def test_units_have_the_peaks_of_the_run(
    run: Run, root: Path, manifest: dict[str, Any], order: NDArray[np.int64], number: int
) -> None:
    layer = manifest["layers"][number]
    units, entry = layer["units"], run.info["layers"][number]
    peaks = run.arrays.read(layer_array(entry["folder"], PEAKS), 0, SAMPLES).astype(np.float64)[order] * entry["scale"]
    assert (units["count"], units["mode"], units["top"]) == (entry["units"], "all", None)
    labels = run.layer_table(layer["name"], "units")["concept"]
    assert units["names"] == [label if isinstance(label, str) else "" for label in labels]
    for unit in range(entry["units"]):
        assert units["maxima"][unit] == pytest.approx(max(peaks[:, unit].max(), 0), rel=1e-4)
        levels = np.frombuffer(read_data(root, units["file"].replace("{unit}", str(unit))), np.uint8)
        expected = peaks[:, unit] / (peaks[:, unit].max() or 1) * 255
        assert np.abs(levels - np.clip(expected, 0, 255)).max() <= 0.51


def test_too_many_peaks_leave_the_highest(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microtome.reports.maps.build.UnitFiles", SmallUnits)
    map_of(run, tmp_path)
    manifest = read_manifest(tmp_path)
    order = decode_order(read_data(tmp_path, manifest["order_file"]))
    units, entry = manifest["layers"][0]["units"], run.info["layers"][0]
    assert (units["mode"], units["top"]) == ("top", 10)
    peaks = run.arrays.read(layer_array(entry["folder"], PEAKS), 0, SAMPLES).astype(np.float64)[order]
    for unit in range(entry["units"]):
        levels = decode_top(read_data(tmp_path, units["file"].replace("{unit}", str(unit))), len(order))
        ranked = sorted(range(len(order)), key=lambda at: (-peaks[at, unit], at))[:10]
        fires = [at for at in ranked if round(peaks[at, unit] / (peaks[:, unit].max() or 1) * 255) > 0]
        assert np.flatnonzero(levels).tolist() == sorted(fires)


class SmallUnits:
    """UnitFiles of a page that may hold next to nothing."""

    @staticmethod
    def of(units: int, count: int) -> UnitFiles:
        return UnitFiles.of(units, count, 5 * units * 10)


def test_what_is_kept_of_units_fits() -> None:
    assert UnitFiles.of(512, 187_500) == UnitFiles(512, None)
    assert UnitFiles.of(512, 187_501) == UnitFiles(512, 37_500)
    assert UnitFiles.of(100_000_000, 10) == UnitFiles(100_000_000, 1)


def test_sprites_show_the_thumbnail_of_each_point(
    root: Path, manifest: dict[str, Any], order: NDArray[np.int64]
) -> None:
    assert manifest["sprites"] == {"tile": 32, "columns": 32, "per": 1024, "file": "map/sprites/{sheet}.webp"}
    sheet = cv2.imread(str(root / "map" / "sprites" / "0.webp"))
    assert sheet is not None
    assert sheet.shape == (96, 1024, 3)
    tiles = thumbnails(SAMPLES, np.arange(SAMPLES) >= SAMPLES - UNREADABLE).astype(float)
    for place, sample in enumerate(order.tolist()):
        top, left = 32 * (place // 32), 32 * (place % 32)
        shown = sheet[top : top + 32, left : left + 32, ::-1].astype(float)
        apart = np.abs(tiles[: SAMPLES - UNREADABLE].mean(axis=(1, 2)) - shown.mean(axis=(0, 1))).sum(axis=1)
        assert np.abs(shown - tiles[sample]).mean() < 12
        assert apart[sample] <= apart.min() + 4


def test_clusters_disagreements_and_quality(run: Run, manifest: dict[str, Any], order: NDArray[np.int64]) -> None:
    layer = manifest["layers"][1]
    assert layer["clusters"][0] == {"id": 0, "name": "street, car", "x": -20.0, "y": -15.0, "samples": 9}
    assert layer["clusters"][1]["name"] == HOSTILE
    table = run.layer_table(SECOND, "disagreements")
    assert [order[one["i"]] for one in layer["disagreements"]] == table["sample"].tolist()
    assert layer["disagreements"][0]["neighbors_class"] == HOSTILE
    assert layer["quality"]["warnings"] == [WARNING]
    assert layer["info"]["kl"] == 1.25
    assert "quality" not in layer["info"]
    assert layer["page"] == "layers/layer4.0%253Aconv%252F2.html"
    assert layer["picture"] == "maps/layer4.0%253Aconv%252F2.png"


def test_no_name_leaves_its_file(root: Path) -> None:
    for path in (root / "map").rglob("*.js"):
        text = path.read_bytes()
        assert text.isascii(), path
        assert b"<" not in text, path
    assert HOSTILE_KEY.encode() not in (root / "map" / "manifest.js").read_bytes()


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_bytes_whoever_writes_them(run: Run, root: Path, tmp_path: Path) -> None:
    map_of(run, tmp_path / "one", workers=1)
    assert contents(tmp_path / "one") == contents(root)


def test_a_run_without_a_map_gets_no_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    assert map_of(run, tmp_path / "out") is None
    assert contents(tmp_path / "out") == {}


def test_runs_without_thumbnails_presence_or_classes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60), "b": LayerShape(4, 7, 60)})
    plant_maps(run, ["a"], arrays=False, classes=False)
    map_of(run, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert [layer["name"] for layer in manifest["layers"]] == ["a"]
    assert (manifest["classes"], manifest["class_file"]) == ([], None)
    assert (manifest["concepts"], manifest["sprites"]) == ([], None)
    assert manifest["layers"][0]["disagreements"] == []
    assert manifest["layers"][0]["quality"]["purity"] is None
    rows = json.loads(read_data(tmp_path / "out", "map/keys/0.js"))
    assert {row[1] for row in rows} == {""}


def test_one_sample(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=1, unreadable=0, layers={"a": LayerShape(4, 7, 60)})
    plant_maps(run)
    map_of(run, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    box = manifest["layers"][0]["boxes"]["tsne"]
    assert box[2] - box[0] == pytest.approx(1)
    place = run.layer_table("a", "map")[["x", "y"]].to_numpy(float)
    assert decode_view(read_data(tmp_path / "out", "map/a/tsne.js"), box) == pytest.approx(place, abs=1e-4)


def test_principal_components_are_called_so_and_shown_once(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run", samples=3, unreadable=0, layers={"a": LayerShape(4, 7, 60), "b": LayerShape(4, 7, 60)}
    )
    plant_flat(run, "a")
    map_of(run, tmp_path / "out")
    flat, usual = read_manifest(tmp_path / "out")["layers"]
    assert (flat["drawn"], flat["views"]) == (FLAT, ["tsne"])
    assert [flat["quality"][name] for name in ("trustworthiness", "recall", "purity", "purity_features")] == [None] * 4
    assert flat["quality"]["warnings"] == [WARNING]
    assert (usual["drawn"], usual["views"]) == ("t-SNE", ["tsne", "pca"])
    assert usual["quality"]["trustworthiness"] == 0.9731


def test_figures_of_no_neighbour_are_left_out() -> None:
    info = map_info(9)
    assert shown_quality(info) == info["quality"]
    info["quality"]["k"] = 0
    assert shown_quality(info)["recall"] is None
    assert info["quality"]["recall"] == 0.42
    assert FLAT == maps.FLAT


def test_nothing_readable_is_no_map(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=4, layers={"a": LayerShape(4, 7, 60)})
    plant_maps(run)
    table = run.layer_table("a", "map")
    run.write_layer_table("a", "map", table.assign(x=np.float32(np.nan), y=np.float32(np.nan)))
    assert map_of(run, tmp_path / "out") is None


def test_a_table_that_lacks_a_sample_is_damaged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    plant_maps(run)
    run.write_layer_table("a", "map", run.layer_table("a", "map").iloc[1:])
    with pytest.raises(RunDamagedError, match="one row for each of the run's 24 samples"):
        map_of(run, tmp_path / "out")


def test_of_too_many_points_some_are_drawn_by_lot(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = points.read_maps(run, most=30) or pytest.fail("there is a map")
    assert len(found.samples) == len(set(found.samples.tolist())) == 30
    assert len(points.read_places(run, "layer1", found).views["tsne"]) == 30
    again, _ = points.read_maps(run, most=30) or pytest.fail("there is a map")
    assert again.samples.tolist() == found.samples.tolist()
    assert np.array_equal(found.place[found.samples], np.arange(30))
    assert np.count_nonzero(found.place >= 0) == 30


def test_a_view_without_a_place_for_every_point_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    plant_maps(run, umap=True)
    table = run.layer_table("a", "map")
    table.loc[3, "umap_y"] = np.nan
    run.write_layer_table("a", "map", table)
    map_of(run, tmp_path / "out")
    assert read_manifest(tmp_path / "out")["layers"][0]["views"] == ["tsne", "pca"]


def test_numbers_of_classes_without_a_name() -> None:
    labels = pd.Series([0, 2, None, -1], dtype="Int64")
    found = points.Classes.of(labels, ["a"])
    assert found.names == ["a", "class 1", "class 2"]
    assert found.shown(slice(None)) == ["a", "class 2", "", ""]
    assert points.Classes.of(pd.Series([None, None], dtype="Int64"), ["a"]).names == []


@pytest.mark.parametrize("most_bytes", [1, 2 * SAMPLES * 5, 1 << 20])
def test_columns_come_in_blocks_of_any_size_in_page_order(run: Run, most_bytes: int) -> None:
    array = layer_array("layer1", PEAKS)
    shown = np.random.default_rng(0).permutation(SAMPLES)[: SAMPLES - 3]
    whole = run.arrays.read(array, 0, SAMPLES)[shown]
    some = points.Points.of(shown, SAMPLES)
    blocks = [(first, block.copy()) for first, block in columns_of(run, array, whole.shape[1], some, most_bytes)]
    assert np.array_equal(np.concatenate([block for _, block in blocks]), whole.T, equal_nan=True)
    assert [first for first, _ in blocks] == np.cumsum([0, *(len(block) for _, block in blocks[:-1])]).tolist()
    assert max(len(block) for _, block in blocks) <= max(1, most_bytes // (2 * len(shown)))


def test_presence_is_read_by_its_own_width(run: Run) -> None:
    everything = points.Points.of(np.arange(SAMPLES), SAMPLES)
    ((first, block),) = columns_of(run, PRESENCE, 2, everything)
    assert first == 0
    assert block.shape == (2, SAMPLES)
