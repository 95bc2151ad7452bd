"""The page of data findings: its numbers are those of the tables."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.runs import HOSTILE, NAMES, LayerShape, read_image, write_run

from microtome.reports import build_report
from microtome.reports.findings import (
    classes,
    dropped,
    findings_context,
    image_label_counts,
    image_sizes,
    splits,
    suspicious,
)
from microtome.reports.summaries import Concepts, summarise_layer
from microtome.storage.arrays import IMAGE_LABELS
from microtome.storage.run import Run

LAYERS = {"a": LayerShape(12, 7, 60), "b": LayerShape(12, 7, 60)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "run", samples=40, layers=LAYERS, splits=True)


def context(run: Run) -> dict[str, object]:
    concepts = Concepts.of(run.table("concepts"))
    layers = [summarise_layer(run, entry, concepts) for entry in run.info["layers"]]
    return findings_context(run, concepts, run.table("samples"), layers, None)


def page(run: Run) -> str:
    build_report(run, read_image)
    return (run.path / "report" / "data.html").read_text(encoding="utf-8")


def with_disagreements(run: Run) -> None:
    """Sample 5 in both layers, 7 and 3 in one."""
    columns = ["sample", "class", "neighbors_class", "agreement", "share"]
    tables = {
        "a": [(5, "street", HOSTILE, 0.1, 0.7), (7, "street", "harbour", 0.0, 0.9)],
        "b": [(3, "harbour", "street", 0.2, 0.6), (5, "street", "harbour", 0.0, 0.8)],
    }
    for layer, rows in tables.items():
        run.write_layer_table(layer, "disagreements", pd.DataFrame(rows, columns=columns))
    run.info["map"] = {layer: {} for layer in tables}  # type: ignore[misc]


def test_concepts_are_counted_as_in_the_table(run: Run) -> None:
    table = run.table("concepts").set_index("id")
    found = context(run)
    seen = {}
    for category in found["categories_found"]:  # type: ignore[attr-defined]
        images = [row["images"] for row in category["rows"]]
        assert images == sorted(images, reverse=True)
        for row in category["rows"]:
            seen[row["id"]] = row
            assert table.at[row["id"], "category"] == category["name"]
        assert category["pixels"] == sum(row["pixels"] for row in category["rows"])
    assert len(seen) == len(table)
    for concept, row in seen.items():
        known = table.loc[concept]
        assert (row["name"], row["images"], row["pixels"]) == (known["name"], known["images"], known["pixels"])
        assert row["share"] == known["images"] / found["readable"]  # type: ignore[operator]
        assert row["area"] == pytest.approx(known["pixels"] / known["images"] / 112**2)
    labels = pd.concat([run.layer_table(layer, "units") for layer in LAYERS])
    assert {concept for concept, row in seen.items() if row["detected"]} == set(
        labels["concept_id"][labels["is_detector"]]
    )


def test_dropped_and_absent_concepts_are_apart(run: Run) -> None:
    table = run.table("concepts").assign(dropped=False)
    table.loc[0, "dropped"] = True
    table.loc[11, "dropped"] = True
    table.loc[1, ["images", "pixels"]] = 0
    run.write_table("concepts", table)
    text = page(run)
    assert HOSTILE not in text
    gone = text[text.index('id="dropped"') : text.index('id="absent"')]
    assert "car" in gone
    assert "&lt;script&gt;alert(1)" in gone
    assert "tree" in text[text.index('id="absent"') :]
    tables = re.findall(r'concept=(\d+)">', text)
    assert sorted(map(int, tables)) == [n for n in range(1, len(NAMES) + 1) if n not in (1, 2, 12)]
    assert dropped(run.table("concepts"))["count"] == 2


def test_a_table_of_an_earlier_version_drops_nothing(run: Run) -> None:
    assert dropped(run.table("concepts").drop(columns="dropped", errors="ignore")) == {"count": 0, "rows": []}


def test_splits_and_classes_count_samples(run: Run) -> None:
    samples = run.table("samples")
    ok = samples[samples["status"] == "ok"]
    assert {row["name"]: (row["samples"], row["readable"]) for row in splits(samples)} == {
        name: (int((samples["split"] == name).sum()), int((ok["split"] == name).sum())) for name in ("train", "val")
    }
    assert splits(samples.assign(split="")) == []
    named = classes(samples, ["street", "harbour"])
    assert {row["name"]: row["samples"] for row in named} == {
        name: int((ok["label"] == number).sum()) for number, name in enumerate(["street", "harbour"])
    }
    assert classes(samples.assign(label=None), []) == []
    assert [row["name"] for row in classes(samples.assign(label=7), ["street"])] == ["class 7"]


def test_sizes_are_those_of_readable_images(run: Run) -> None:
    samples = run.table("samples")
    ok = samples[samples["status"] == "ok"]
    found = image_sizes(samples)
    assert found is not None
    assert found["height"] == [ok["height"].min(), ok["height"].median(), ok["height"].max()]
    assert found["distinct"] == 3
    assert image_sizes(samples.assign(status="error")) is None


def test_labels_of_whole_images_are_counted_once_a_sample(run: Run) -> None:
    stored = np.zeros((40, 3), np.uint16)
    stored[0] = [3, 3, 1]
    stored[1] = [3, 0, 0]
    stored[39] = [12, 1, 0]
    run.arrays.create(IMAGE_LABELS, (3,), "uint16")
    for shard in range(run.plan.count):
        rows = run.plan.samples_of(shard)
        run.arrays.write_shard(IMAGE_LABELS, shard, stored[rows.start : rows.stop])
    counts = image_label_counts(run, 14)
    slow = [sum(concept in row for row in stored.tolist()) if concept else 0 for concept in range(14)]
    assert counts.tolist() == slow
    assert "3 concepts label whole images, 5 times in all" in page(run)


def test_samples_that_most_layers_disagree_with_come_first(run: Run) -> None:
    with_disagreements(run)
    found = suspicious(run, run.table("samples"))
    assert [(row["sample"], row["layers"], row["share"]) for row in found["rows"]] == [
        (5, 2, 0.8),
        (7, 1, 0.9),
        (3, 1, 0.6),
    ]
    assert found["rows"][0]["neighbors_class"] == "harbour"
    assert [(one["number"], one["count"]) for one in found["layers"]] == [(0, 2), (1, 2)]
    assert found["rows"][0]["key"] == "images/000005.png"
    assert suspicious(write_run(run.path.parent / "other"), run.table("samples"))["count"] == 0


def test_unknown_numbers_and_nothing_odd(run: Run) -> None:
    assert "Nothing was odd about the data" in page(run)
    run.info["data"]["unknown_ids"] = {HOSTILE: {"17": 3}}
    text = page(run)
    assert "Nothing was odd" not in text
    assert HOSTILE not in text
    assert '<td>17</td><td class="n">3</td>' in text


def test_a_run_in_which_nothing_could_be_read(run: Run) -> None:
    samples = run.table("samples").assign(status="error", error="gone")
    concepts = Concepts.of(run.table("concepts").assign(images=0, pixels=0))
    layers = [summarise_layer(run, entry, concepts) for entry in run.info["layers"]]
    found = findings_context(run, concepts, samples, layers, None)
    assert found["readable"] == 0
    assert found["categories_found"] == found["classes"] == []
    assert found["sizes"] is None
