"""Queries on a finished run, checked against the tables themselves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from microtome.dissect import Dissection, open_run
from microtome.storage.errors import UnknownNameError, UsageError


@pytest.fixture
def dissection(planted_run: Path) -> Dissection:
    return open_run(planted_run)


def test_one_row_a_unit_sorted_by_iou(dissection: Dissection) -> None:
    frame = dissection.query("")
    assert len(frame) == 7 + 2
    assert not frame.duplicated(["layer", "unit"]).any()
    assert frame["iou"].is_monotonic_decreasing
    assert frame.columns[:8].tolist() == [
        "layer",
        "unit",
        "concept",
        "category",
        "iou",
        "ceiling",
        "is_detector",
        "state",
    ]


def test_a_concept_is_scored_for_every_unit(dissection: Dissection) -> None:
    frame = dissection.query("concept=TREE layer=units").set_index("unit")
    assert len(frame) == 7
    assert set(frame["concept"]) == {"tree"}
    iou = dissection.run.layer_table("units", "iou")
    tree = iou[(iou["concept"] == 2) & (iou["tau"] == dissection.taus[0])].set_index("unit")["iou"]
    expected = tree.reindex(range(7)).fillna(0.0)
    pd.testing.assert_series_equal(frame["iou"].sort_index(), expected, check_names=False)
    assert frame.index[0] == 5
    assert dissection.query("concept=tree iou>0.05")["unit"].tolist() == frame[frame["iou"] > 0.05].index.tolist()


def test_filters(dissection: Dissection) -> None:
    everything = dissection.query("layer=units")
    assert dissection.query("layer=units state=dead")["unit"].tolist() == [1]
    assert set(dissection.query("layer=units category=object")["unit"]) == set(
        everything[everything["category"] == "object"]["unit"]
    )
    assert dissection.query("layer=units unit=5")["concept"].tolist() == ["tree"]
    assert set(dissection.query("label=tree")["concept"]) == {"tree"}
    assert "tree" not in set(dissection.query("label!=tree")["concept"])
    assert dissection.query("detector=yes")["is_detector"].all()
    assert set(dissection.query("layer!=units")["layer"]) == {"head"}
    assert set(dissection.query("layer=u*")["layer"]) == {"units"}


def test_another_tau_has_other_labels_and_thresholds(dissection: Dissection) -> None:
    first, second = dissection.taus
    narrow = dissection.query(f"layer=units tau={first} unit=0").iloc[0]
    wide = dissection.query(f"layer=units tau={second} unit=0").iloc[0]
    assert wide["threshold"] < narrow["threshold"]
    assert wide["tau"] == second
    table = dissection.unit("units", 0, second)
    assert table["iou"].max() == wide["iou"]


def test_what_does_this_unit_detect(dissection: Dissection) -> None:
    frame = dissection.query("units:5")
    assert frame["concept"].iloc[0] == "tree"
    assert frame["iou"].is_monotonic_decreasing
    union = frame["unit_pixels"] + frame["concept_pixels"] - frame["intersection"]
    assert (frame["iou"] == frame["intersection"] / union).all()


def test_summary_counts_detectors_in_both_meanings(dissection: Dissection) -> None:
    units = dissection.query("layer=units")
    summary = dissection.summary()
    mine = summary[summary["layer"] == "units"].set_index("category")
    detectors = units[units["is_detector"]]
    assert mine.loc["all", "detectors"] == len(detectors)
    assert mine.loc["all", "unique_detectors"] == detectors["concept"].nunique()
    assert mine.loc["all", "unique_by_category"] == mine.drop("all")["unique_by_category"].sum()


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("concept=tre", "did you mean tree"),
        ("category=objekt", "did you mean object"),
        ("layer=unitz", "did you mean units"),
        ("state=ded", "did you mean dead"),
        ("tau=0.3", "no tau in this run"),
        ("iou_test>0.1", "no column of this run"),
    ],
)
def test_near_names_on_a_miss(dissection: Dissection, expression: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        dissection.query(expression)


def test_a_unit_out_of_range_is_refused(dissection: Dissection) -> None:
    with pytest.raises(UsageError, match="units 0 to 6"):
        dissection.query("units:7")


def test_no_run_is_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_run(tmp_path / "nothing")


def test_a_category_narrows_the_concept_where_two_share_a_name(dissection: Dissection) -> None:
    """`car` the object and a color of the same name: each is scored for every unit by itself."""
    dissection.concepts.loc[dissection.concepts["name"] == "red", "name"] = "car"
    iou = dissection.run.layer_table("units", "iou")
    for category, concept in (("object", 1), ("color", 5)):
        frame = dissection.query(f"concept=car category={category} layer=units").set_index("unit").sort_index()
        own = iou[(iou["concept"] == concept) & (iou["tau"] == dissection.taus[0])].set_index("unit")["iou"]
        assert frame["iou"].tolist() == own.reindex(range(7)).fillna(0.0).tolist()
        assert set(frame["category"]) == {category}
    with pytest.raises(UsageError, match="no concept is all of"):
        dissection.query("concept=car category=scene")


def test_the_inverse_and_the_summary_at_another_tau(dissection: Dissection) -> None:
    second = dissection.taus[1]
    pd.testing.assert_frame_equal(dissection.query(f"units:0 tau={second}"), dissection.unit("units", 0, second))
    with pytest.raises(UnknownNameError, match="no tau in this run"):
        dissection.summary(0.3)
