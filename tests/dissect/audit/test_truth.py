"""The whole audit on planted units: every number is recomputed from the stored arrays by slow references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import reference
from helpers.planted import write_planted

from microtome.dissect import AuditConfig, Dissection, open_run, run_audit
from microtome.reports.summaries import Concepts, summarise_layer
from microtome.storage.arrays import ACTIVATIONS, IMAGE_LABELS, LABELS, MEANS, PEAK_AT, PEAKS, layer_array

TAUS = (0.02, 0.1)
CATEGORIES = ["object", "scene", "color"]
CATEGORY_OF = np.array([-1, 0, 0, 1, 1, 2])


@pytest.fixture(scope="module", params=["image", "mask", "all"])
def dissection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dissection:
    folder = tmp_path_factory.mktemp("planted")
    source = write_planted(folder)
    outcome = run_audit(
        AuditConfig(
            model=f"{source}:model",
            dataset=f"{source}:half_broken",
            layers=("units",),
            out=folder / "run",
            tau=TAUS,
            iou=request.param,
            batch=4,
            top=3,
            map=False,
        )
    )
    assert outcome.unreadable == 5
    assert Path(outcome.index_page).exists()
    return open_run(folder / "run")


def stored(dissection: Dissection, name: str) -> np.ndarray:
    return dissection.run.arrays.read(name, 0, dissection.run.plan.samples)


def activations(dissection: Dissection) -> np.ndarray:
    return stored(dissection, layer_array("units", ACTIVATIONS))


def test_units_are_named_for_what_they_are(dissection: Dissection) -> None:
    units = dissection.run.layer_table("units", "units").set_index("unit")
    assert units["state"].tolist() == ["ok", "dead", "saturated", "ok", "constant", "ok", "ok"]
    assert units.loc[0, "concept"] in ("car", "red")  # the same pixels in two categories; ties go to the lower id
    assert units.loc[0, "concept_id"] == 1
    assert dissection.query(f"layer=units unit=0 tau={TAUS[1]}").loc[0, "iou"] > 0.5
    assert units.loc[5, "concept"] == "tree"
    assert units.loc[3, "iou"] < 0.1
    assert units.loc[[1, 4], "iou"].tolist() == [0.0, 0.0]
    assert units.loc[[1, 4], "concept"].isna().all()
    assert units.loc[5, "nan"] == 64 * sum(index % 3 == 0 for index in range(48) if index not in (0, 5, 6, 7, 40))


def test_a_large_unit_keeps_its_values(dissection: Dissection) -> None:
    """Unit 6 exceeds float16: the layer is stored at a power-of-two scale, and nothing became infinite."""
    scale = dissection.run.layer("units")["scale"]
    assert scale > 1
    assert np.log2(scale) == int(np.log2(scale))
    maps = dissection.run.activation_range("units", 0, 48)
    assert not np.isinf(maps).any()
    units = dissection.run.layer_table("units", "units").set_index("unit")
    assert units.loc[6, "maximum"] == pytest.approx(units.loc[0, "maximum"] * 1e5, rel=2e-3)


def test_thresholds_are_the_exact_quantiles(dissection: Dissection) -> None:
    maps = activations(dissection)
    scale = dissection.run.layer("units")["scale"]
    table = dissection.run.layer_table("units", "thresholds").set_index(["unit", "tau"])
    for unit in range(7):
        for tau in TAUS:
            expected = reference.threshold(maps[:, unit], tau)
            assert table.loc[(unit, tau), "threshold"] == expected * scale
            values = maps[:, unit].ravel()
            values = values[~np.isnan(values)]
            assert table.loc[(unit, tau), "realised"] == np.mean(values > expected)


def test_iou_is_that_of_the_dense_reference(dissection: Dissection) -> None:
    config = dissection.run.info["config"]
    maps = activations(dissection)
    labels, image_labels = stored(dissection, LABELS), stored(dissection, IMAGE_LABELS)
    read = (dissection.run.table("samples")["status"] == "ok").to_numpy()
    maps, labels, image_labels = maps[read], labels[read], image_labels[read]
    thresholds = np.array([[reference.threshold(maps[:, unit], tau) for tau in TAUS] for unit in range(7)])
    thresholds[[1, 4]] = np.nan
    saturated = np.array([[reference.state(maps[:, unit], tau) == "saturated" for tau in TAUS] for unit in range(7)])
    marked = reference.annotated(labels, image_labels, CATEGORY_OF, 3)
    both, area = reference.tally(
        maps, thresholds.astype(np.float16), saturated, labels, image_labels, CATEGORY_OF, marked, config["iou"]
    )
    pixels, images = reference.label_counts(labels, image_labels, 5)
    concepts = dissection.run.table("concepts")
    assert concepts["pixels"].tolist() == pixels[1:].tolist()
    assert concepts["images"].tolist() == images[1:].tolist()
    table = dissection.run.layer_table("units", "iou")
    found = {(row.tau, row.unit, row.concept): row for row in table.itertuples()}
    expected = {(TAUS[t], u, c) for t, u, c in zip(*np.nonzero(both), strict=True)}
    assert found.keys() == expected
    for (tau, unit, concept), row in found.items():
        t = TAUS.index(tau)
        shared, mask = both[t, unit, concept], area[t, unit, CATEGORY_OF[concept]]
        assert (row.intersection, row.unit_pixels, row.concept_pixels) == (shared, mask, pixels[concept])
        assert row.iou == shared / (mask + pixels[concept] - shared)
        assert row.ceiling == min(mask, pixels[concept]) / max(mask, pixels[concept])


def test_splits_are_columns_and_train_labels(dissection: Dissection) -> None:
    table = dissection.run.layer_table("units", "iou")
    assert {"iou_train", "iou_val"} <= set(table.columns)
    assert not table.duplicated(["tau", "unit", "concept"]).any()
    best = table[table["tau"] == TAUS[0]].sort_values(["iou_train", "concept"], ascending=[False, True])
    labels = dissection.run.layer_table("units", "units").set_index("unit")
    for unit, row in best.drop_duplicates("unit").set_index("unit").iterrows():
        assert labels.loc[unit, "concept_id"] == row["concept"]
        assert labels.loc[unit, "iou_val"] == row["iou_val"]


def test_unreadable_samples_are_recorded_and_left_as_holes(dissection: Dissection) -> None:
    samples = dissection.run.table("samples").set_index("index")
    broken = samples[samples["status"] == "error"]
    assert broken.index.tolist() == [0, 5, 6, 7, 40]
    assert set(broken["error"]) == {"not an image"}
    assert np.isnan(activations(dissection)[broken.index]).all()
    assert (samples.loc[samples["status"] == "ok", "height"] == 32).all()


def test_peaks_and_patches_are_the_best_of_each_image(dissection: Dissection) -> None:
    maps = activations(dissection).astype(np.float32).reshape(48, 7, -1)
    peaks = stored(dissection, layer_array("units", PEAKS)).astype(np.float32)
    peak_at = stored(dissection, layer_array("units", PEAK_AT))
    means = stored(dissection, layer_array("units", MEANS))
    scale = dissection.run.layer("units")["scale"]
    patches = dissection.run.layer_table("units", "patches")
    for unit in (0, 2, 3, 6):
        ok = ~np.isnan(maps[:, unit, 0])
        np.testing.assert_array_equal(peaks[ok, unit], maps[ok, unit].max(axis=1))
        np.testing.assert_array_equal(peak_at[ok, unit], maps[ok, unit].argmax(axis=1))
        np.testing.assert_allclose(means[ok, unit], maps[ok, unit].mean(axis=1) * scale, rtol=1e-5, atol=1e-6)
        order = sorted(np.flatnonzero(ok), key=lambda sample, unit=unit: (-peaks[sample, unit], sample))[:3]
        mine = patches[patches["unit"] == unit]
        assert mine["sample"].tolist() == order
        assert mine["value"].tolist() == [float(peaks[sample, unit]) * scale for sample in order]
        for patch in mine.itertuples():
            assert patch.row * 8 + patch.column == peak_at[patch.sample, unit]
            box = (4 * patch.row, 4 * patch.column, 4 * patch.row + 4, 4 * patch.column + 4)
            if unit in (0, 6):
                assert (patch.top, patch.left, patch.bottom, patch.right) == box


def test_the_pages_count_as_queries_do(dissection: Dissection) -> None:
    """The pages derive their figures for every tau from the tables by themselves; both must agree."""
    concepts = Concepts.of(dissection.run.table("concepts"))
    shown = summarise_layer(dissection.run, dissection.run.layer("units"), concepts)
    for labels, tau in zip(shown.labels, dissection.taus, strict=True):
        summary = dissection.summary(tau).set_index("category")
        assert labels.detectors == summary.loc["all", "detectors"]
        assert sum(labels.by_category) == summary.loc["all", "unique_by_category"]
        units = dissection.query(f"layer=units tau={tau}").set_index("unit").sort_index()
        np.testing.assert_array_equal(labels.detector, units["is_detector"])
        np.testing.assert_array_equal(labels.iou[labels.concept > 0], units["iou"][labels.concept > 0])
