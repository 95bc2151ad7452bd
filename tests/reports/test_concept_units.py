"""Units by concept, against the run's tables read row by row."""

from __future__ import annotations

import pytest
from helpers.page_data import read_page_data
from helpers.runs import LayerShape, read_image, write_run

from microtome.reports import build_report
from microtome.reports.concept_units import PER_FILE, TOP, ConceptUnits
from microtome.reports.heat import is_heat
from microtome.reports.strip_shapes import FIRST, strip_shapes
from microtome.reports.summaries import Concepts, summarise_layer
from microtome.reports.thumbnails import plan_patches, thumb_shape
from microtome.storage.run import Run

LAYERS = {"layer1": LayerShape(60, 14, 60), "layer4.0:conv/2": LayerShape(20, 7, 400)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = write_run(tmp_path_factory.mktemp("concepts") / "run", taus=(0.005, 0.05), layers=LAYERS)
    build_report(made, read_image)
    return made


def units_of(run: Run, layer: str) -> ConceptUnits:
    concepts = Concepts.of(run.table("concepts"))
    entry = run.layer(layer)
    labels = summarise_layer(run, entry, concepts).first
    return ConceptUnits.of(run.layer_table(layer, "iou"), labels, concepts, 0.04)


@pytest.mark.parametrize("layer", LAYERS)
def test_units_are_those_of_highest_iou(run: Run, layer: str) -> None:
    found = units_of(run, layer)
    scores, units = run.layer_table(layer, "iou"), run.layer_table(layer, "units").set_index("unit")
    scores = scores[(scores["tau"] == 0.005) & (scores["iou"] > 0)]
    for concept in run.table("concepts")["id"]:
        rows = scores[scores["concept"] == concept].sort_values(["iou", "unit"], ascending=[False, True])
        listed = found.listed(int(concept), [str(unit) for unit in range(60)])
        assert [row[0] for row in listed] == rows["unit"].tolist()[:TOP]
        assert [row[1] for row in listed] == pytest.approx(rows["iou"].tolist()[:TOP], rel=1e-3)
        assert [row[3] for row in listed] == [int(units.loc[row[0], "concept_id"] == concept) for row in listed]
        assert all(row[4] == str(row[0]) for row in listed)
        assert found.passing[concept] == (rows["iou"] > 0.04).sum()
        mine = units[(units["concept_id"] == concept) & units["is_detector"]]
        assert found.detectors[concept] == len(mine)
        best = found.best(int(concept))
        assert (best is None) == rows.empty
        assert best is None or best == (rows.iloc[0]["unit"], rows.iloc[0]["iou"])


def test_data_files_hold_every_concept_and_layer(run: Run) -> None:
    report = run.path / "report"
    listing, depths = read_page_data(report, "index"), read_page_data(report, "depths")
    assert [layer["name"] for layer in listing["layers"]] == list(LAYERS)
    counted = {concept[0]: concept[4] for concept in listing["concepts"]}
    for concept in run.table("concepts").query("images > 0")["id"].tolist():
        layers = read_page_data(report, f"concepts/{concept // PER_FILE}")[str(concept)]
        assert [layer[0] for layer in layers] == [0, 1]
        assert sum(layer[1] for layer in layers) == counted[concept]
        for layer in depths.get(str(concept), []):
            assert layer[1] == layers[layer[0]][1]
            assert [layer[2], layer[4]] == [layers[layer[0]][3][0][0], layers[layer[0]][3][0][4]]
    best = [concept[5][2] for concept in listing["concepts"] if concept[5]]
    assert best == sorted(best, reverse=True)


def test_shapes_of_strips(run: Run) -> None:
    entry = run.layer("layer1")
    units = run.layer_table("layer1", "units").sort_values("unit")
    plan = plan_patches("layer1", units, run.layer_table("layer1", "patches"), 9, heat=is_heat(entry))
    for unit, shape in enumerate(strip_shapes(plan)):
        mine = sorted(at for at in range(len(plan.unit)) if plan.unit[at] == unit)
        assert int(shape[:2], 16) == len(mine)
        first = sorted(mine, key=lambda at: plan.rank[at])[:FIRST]
        wanted = [thumb_shape(*(plan.box[at, 2:] - plan.box[at, :2]).tolist()) for at in first]
        numbers = [int(shape[place : place + 2], 16) for place in range(2, len(shape), 2)]
        assert list(zip(numbers[1::2], numbers[::2], strict=True)) == wanted
