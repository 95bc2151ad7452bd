"""Labels at every tau and both meanings of unique detectors, against slow counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.runs import NAMES, write_run

from microtome.reports.summaries import BEST, Concepts, concepts_found, summarise_layer
from microtome.storage.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("summaries") / "run", taus=(0.005, 0.05))


def test_categories_in_their_usual_order() -> None:
    names = ["z", "y", "x", "w"]
    table = pd.DataFrame(
        {"id": [1, 2, 3, 4], "name": names, "category": ["mood", "scene", "object", "air"], "images": 1, "pixels": 2}
    )
    concepts = Concepts.of(table)
    assert concepts.categories == ["object", "scene", "air", "mood"]
    assert concepts.names == ["", *names]
    assert concepts.category.tolist() == [-1, 3, 1, 0, 2]


@pytest.mark.parametrize("number", [0, 1])
def test_labels_and_counts_equal_slow_counting(run: Run, number: int) -> None:
    concepts = Concepts.of(run.table("concepts"))
    entry = run.info["layers"][1]
    labels = summarise_layer(run, entry, concepts).labels[number]
    scores = run.layer_table(entry["name"], "iou")
    scores = scores[scores["tau"] == labels.tau]
    category_of = {concept + 1: category for concept, (_, category) in enumerate(NAMES)}
    tops: dict[str, set[int]] = {}
    uniques = set()
    for unit in range(entry["units"]):
        mine = [(-row.iou, row.concept) for row in scores[scores["unit"] == unit].itertuples()]
        ranked = [concept for _, concept in sorted(mine)]
        assert [c for c in labels.best[unit].tolist() if c] == ranked[:BEST]
        if not ranked:
            assert labels.concept[unit] == 0
            assert not labels.detector[unit]
            continue
        iou = {concept: -negative for negative, concept in mine}
        assert labels.concept[unit] == ranked[0]
        assert labels.iou[unit] == iou[ranked[0]]
        assert labels.detector[unit] == (iou[ranked[0]] > 0.04)
        if labels.detector[unit]:
            uniques.add(ranked[0])
        for category in set(category_of.values()):
            best = next((c for c in ranked if category_of[c] == category), None)
            if best is not None and iou[best] > 0.04:
                tops.setdefault(category, set()).add(best)
    assert set(labels.unique.tolist()) == uniques
    assert labels.by_category == [len(tops.get(category, ())) for category in concepts.categories]
    assert labels.unique_by_category_sum == sum(len(found) for found in tops.values())


def test_ties_go_to_the_lowest_id(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", taus=(0.005, 0.05))
    entry = run.info["layers"][0]
    scores = run.layer_table(entry["name"], "iou")
    scores["iou"] = 0.5
    run.write_layer_table(entry["name"], "iou", scores.iloc[::-1])
    labels = summarise_layer(run, entry, Concepts.of(run.table("concepts"))).labels[1]
    lowest = scores[scores["tau"] == 0.05].groupby("unit")["concept"].min()
    np.testing.assert_array_equal(labels.concept[lowest.index.to_numpy()], lowest.to_numpy())


def test_with_splits_the_train_split_decides(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", taus=(0.005, 0.05), splits=True)
    entry = run.info["layers"][0]
    scores = run.layer_table(entry["name"], "iou")
    scores["iou_train"] = scores["concept"] / 100.0
    run.write_layer_table(entry["name"], "iou", scores)
    labels = summarise_layer(run, entry, Concepts.of(run.table("concepts"))).labels[1]
    highest = scores[scores["tau"] == 0.05].groupby("unit")["concept"].max()
    units = highest.index.to_numpy()
    np.testing.assert_array_equal(labels.concept[units], highest.to_numpy())
    own = scores[scores["tau"] == 0.05].set_index(["unit", "concept"])
    keys = list(zip(units, highest, strict=True))
    np.testing.assert_array_equal(labels.detector[units], own.loc[keys, "iou"].to_numpy() > 0.04)
    np.testing.assert_array_equal(labels.iou_val[units], own.loc[keys, "iou_val"].to_numpy())


def test_states_and_what_was_found(run: Run) -> None:
    concepts = Concepts.of(run.table("concepts"))
    layers = [summarise_layer(run, entry, concepts) for entry in run.info["layers"]]
    assert layers[0].states == {"ok": 21, "dead": 1, "constant": 1, "saturated": 1}
    found = concepts_found(layers)
    assert [f.iou for f in found] == sorted((f.iou for f in found), reverse=True)
    assert sum(sum(f.counts) for f in found) == sum(layer.first.detectors for layer in layers)
    for item in found:
        labels = layers[item.layer].first
        assert labels.concept[item.unit] == item.concept
        assert labels.iou[item.unit] == item.iou
    sky = [name for name, _ in NAMES].index("sky") + 1
    assert 0 < layers[0].first.reach[sky] < 0.04
