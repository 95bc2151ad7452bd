"""tau=information: labels by thresholds of most information, from their table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers.informed import add_information
from helpers.runs import NAMES, write_run

from microtome.dissect import Dissection, open_run
from microtome.dissect.cli.app import app
from microtome.storage.errors import UnknownNameError, UsageError


@pytest.fixture(scope="module")
def dissection(tmp_path_factory: pytest.TempPathFactory) -> Dissection:
    run = write_run(tmp_path_factory.mktemp("informed") / "run", splits=True)
    add_information(run)
    return open_run(run.path)


def slow_labels(table: pd.DataFrame) -> dict[int, tuple[int, float, float]]:
    """Concept, IoU and threshold of each unit: the highest IoU on the half that chose, ties to the lowest id."""
    best: dict[int, tuple[float, int, float, float]] = {}
    for row in table.itertuples():
        here = (-row.iou_half, row.concept, row.iou, row.threshold)
        if row.iou_half > 0:
            best[row.unit] = min(best.get(row.unit, here), here)
    return {unit: found[1:] for unit, found in best.items()}


def test_labels_are_chosen_on_one_half_and_scored_on_the_other(dissection: Dissection) -> None:
    for layer in dissection.layers:
        expected = slow_labels(dissection.run.layer_table(layer, "information"))
        frame = dissection.query(f"tau=information layer={layer}").set_index("unit")
        assert len(frame) == dissection.run.layer(layer)["units"]
        assert set(frame["tau"]) == {"information"}
        assert not {"iou_train", "iou_val"} & set(frame.columns)
        for unit, row in frame.iterrows():
            concept, iou, threshold = expected.get(unit, (0, 0.0, None))
            assert row["concept"] == (NAMES[concept - 1][0] if concept and iou > 0 else None)
            assert row["iou"] == pytest.approx(iou)
            assert row["is_detector"] == (iou > 0.04)
            if threshold is not None:
                assert row["threshold"] == pytest.approx(threshold)
                assert row["information"] == pytest.approx(row["iou_half"] / 2)
            else:
                assert pd.isna(row["threshold"])


def test_a_concept_is_scored_for_every_unit(dissection: Dissection) -> None:
    name, layer = NAMES[2][0], dissection.layers[0]
    frame = dissection.query(f'tau=information concept="{name}" layer={layer}').set_index("unit")
    table = dissection.run.layer_table(layer, "information")
    rows = table[table["concept"] == 3].set_index("unit")
    assert frame["iou"].to_dict() == pytest.approx(rows["iou"].reindex(frame.index).fillna(0.0).to_dict())
    known = rows.index
    assert frame["threshold"][known].to_dict() == pytest.approx(rows["threshold"].to_dict())
    assert frame["threshold"].drop(known).isna().all()
    strong = dissection.query(f'tau=information concept="{name}" layer={layer} information>0.2')
    assert sorted(strong["unit"]) == sorted(rows[rows["information"] > 0.2].index)


def test_a_unit_and_the_summary(dissection: Dissection) -> None:
    layer = dissection.layers[0]
    table = dissection.run.layer_table(layer, "information")
    ranked = dissection.query(f"{layer}:0 tau=information")
    mine = table[table["unit"] == 0].sort_values(["iou", "concept"], ascending=[False, True])
    assert ranked["concept"].tolist() == [NAMES[concept - 1][0] for concept in mine["concept"]]
    assert {"threshold", "information", "share", "iou_half"} <= set(ranked.columns)
    summary = dissection.summary("information").set_index(["layer", "category"])
    for name in dissection.layers:
        frame = dissection.query(f"tau=information layer={name} detector=yes")
        assert summary.loc[(name, "all"), "detectors"] == len(frame)
        assert summary.loc[(name, "all"), "unique_detectors"] == frame["concept"].nunique()


def test_the_fixed_fraction_is_what_it_was(dissection: Dissection) -> None:
    frame = dissection.query("")
    assert set(frame["tau"]) == {0.005}
    assert "information" not in frame
    with pytest.raises(UnknownNameError, match="column of this run"):
        dissection.query("information>0.2")
    with pytest.raises(UsageError, match="takes a number"):
        dissection.query("tau=entropy")


def test_on_the_command_line(dissection: Dissection) -> None:
    path = str(dissection.run.path)

    def asked(*words: str) -> object:
        result = CliRunner().invoke(app, ["query", path, *words, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert asked("--tau", "information", "layer=*")["units"] == asked("tau=information layer=*")["units"]  # type: ignore[index]
    assert asked("--summary", "--tau", "information")["summary"]  # type: ignore[index]
    result = CliRunner().invoke(app, ["query", path, "--summary", "--tau", "most"])
    assert isinstance(result.exception, UsageError)


def test_a_run_without_it_says_how_to_get_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=4, unreadable=0)
    with pytest.raises(UsageError, match="--information into another --out"):
        open_run(run.path).query("tau=information")
    run.info["stages"]["information"] = {"state": "pending", "seconds": 0.0}
    run.save()
    with pytest.raises(UsageError, match="audit --resume"):
        open_run(run.path).summary("information")
