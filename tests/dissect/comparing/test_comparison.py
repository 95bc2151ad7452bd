"""Two runs compared: planted permutations are found, planted changes are told, and what differs is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.compared import ORDERS, SAMPLES, SHAPES, answers_of, rename_concepts, set_iou, write_compared
from helpers.runs import LayerShape

from microtome.dissect import compare_runs
from microtome.dissect.comparing.pairing import layer_pairs
from microtome.dissect.query import Dissection
from microtome.storage.arrays import PEAKS
from microtome.storage.errors import RunMismatchError, UnknownNameError, UsageError
from microtome.storage.run import Run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dissection, Dissection]:
    folder = tmp_path_factory.mktemp("pair")
    return Dissection(write_compared(folder / "a")), Dissection(write_compared(folder / "b", permuted=True))


@pytest.mark.parametrize("by", ["means", "peaks"])
def test_a_run_with_its_units_permuted_is_found_again(pair: tuple[Dissection, Dissection], by: str) -> None:
    found = compare_runs(*pair, by=by)
    json.dumps(found, allow_nan=False)
    assert found["samples"]["common"] == SAMPLES - 2
    for layer in found["layers"]:
        order = ORDERS[layer["a"]]
        expected = {int(unit): place for place, unit in enumerate(order)}
        still = {row["unit"] for row in layer["units_a"] if row["no_correlation"]}
        assert still >= {len(order) - 3, len(order) - 2}  # dead and constant
        assert len(layer["matches"]) == layer["matched"] == layer["comparable_a"] == len(order) - len(still)
        for match in layer["matches"]:
            assert match["b"] == expected[match["a"]]
            assert match["correlation"] == pytest.approx(1.0, abs=1e-4)
            assert match["mutual"]
            assert match["concept_a"] == match["concept_b"]
            assert match["label"] in ("same", "none")
        assert layer["chance"]["high"] < 0.9
        assert layer["detectors_a"] == layer["detectors_b"]
        assert {row["no_correlation"] for row in layer["units_a"] if row["unit"] in still} == {"constant"}
    assert {change["outcome"] for change in found["concepts"]} <= {"both", "neither"}
    assert {change["change"] for change in found["concepts"]} == {0.0}


def test_correlations_are_those_of_numpy(pair: tuple[Dissection, Dissection], tmp_path: Path) -> None:
    noisy = write_compared(tmp_path / "other", layers={"layer1": LayerShape(31, 7, 60)})
    found = compare_runs(pair[0], Dissection(noisy), ["layer1"], by="peaks")
    (layer,) = found["layers"]
    rows = slice(0, SAMPLES - 2)
    one, other = answers_of(pair[0].run, "layer1", PEAKS)[rows], answers_of(noisy, "layer1", PEAKS)[rows]
    usable = [unit for unit in range(24) if one[:, unit].std() > 0]
    living = [unit for unit in range(31) if other[:, unit].std() > 0]
    for unit in usable:
        expected = [np.corrcoef(one[:, unit], other[:, partner])[0, 1] for partner in living]
        row = layer["units_a"][unit]
        assert row["best"] == living[int(np.argmax(expected))]
        assert row["correlation"] == pytest.approx(max(expected), abs=1e-6)
    assert (len(layer["units_a"]), len(layer["units_b"])) == (24, 31)
    assert {match["a"] for match in layer["matches"]} == set(usable)


def test_samples_in_another_order_change_nothing(tmp_path: Path) -> None:
    order = np.random.default_rng(3).permutation(SAMPLES).tolist()
    straight = Dissection(write_compared(tmp_path / "a", order=range(SAMPLES)))
    shuffled = Dissection(write_compared(tmp_path / "b", order=order))
    expected = compare_runs(straight, straight)
    found = compare_runs(straight, shuffled)
    for one, other in zip(expected["layers"], found["layers"], strict=True):
        assert [match["b"] for match in one["matches"]] == [match["b"] for match in other["matches"]]
        assert other["median_correlation"] == pytest.approx(1.0)
        assert one["chance"] == other["chance"]


def test_concepts_are_gained_and_lost_clearly_or_near_the_bar(tmp_path: Path) -> None:
    a, b = write_compared(tmp_path / "a"), write_compared(tmp_path / "b")
    planted = {
        "car": (0.20, 0.01, "lost", True),
        "tree": (0.01, 0.20, "gained", True),
        "wheel": (0.045, 0.035, "lost", False),
        "roof": (0.039, 0.041, "gained", False),
        "wood": (0.20, 0.10, "both", True),
        "striped": (0.20, 0.21, "both", False),
        "red": (0.03, 0.02, "neither", False),
    }
    for name, (one, other, _, _) in planted.items():
        set_iou(a, name, one)
        set_iou(b, name, other)
    rename_concepts(b, {"blue": "navy"})
    found = compare_runs(Dissection(a), Dissection(b))
    changes = {change["concept"]: change for change in found["concepts"]}
    for name, (one, other, outcome, clear) in planted.items():
        change = changes[name]
        assert (change["outcome"], change["clear"]) == (outcome, clear), name
        assert change["a"]["iou"] == pytest.approx(one)
        assert change["b"]["iou"] == pytest.approx(other)
        assert change["change"] == pytest.approx(other - one)
        scores = a.layer_table(change["a"]["layer"], "iou")
        number = int(a.table("concepts").set_index("name").loc[name, "id"])
        mine = scores[(scores["concept"] == number) & (scores["unit"] == change["a"]["unit"])]
        assert mine["iou"].tolist() == [pytest.approx(one)]
    assert found["only"] == {"a": ["blue"], "b": ["navy"]}
    assert "blue" not in changes
    sizes = [abs(change["change"]) for change in found["concepts"]]
    assert sizes == sorted(sizes, reverse=True)
    words = {match["label"] for layer in found["layers"] for match in layer["matches"]}
    assert words >= {"lost", "gained"}


def test_a_unit_with_noise_in_place_of_answers_has_no_counterpart(
    pair: tuple[Dissection, Dissection], tmp_path: Path
) -> None:
    other = write_compared(tmp_path / "b")
    folder = other.layer("layer1")["folder"]
    means = answers_of(other, "layer1")
    means[:, 4] = np.random.default_rng(9).normal(size=SAMPLES)
    means[7, 5] = np.nan
    for shard in range(other.plan.count):
        rows = other.plan.samples_of(shard)
        other.arrays.write_shard(f"layers/{folder}/means", shard, means[rows.start : rows.stop])
    (layer,) = compare_runs(pair[0], Dissection(other), ["layer1"])["layers"]
    by_unit = {match["b"]: match for match in layer["matches"]}
    assert not by_unit[4]["above_chance"]
    assert all(match["above_chance"] for unit, match in by_unit.items() if unit != 4 and match["a"] not in (4, 5))
    assert layer["units_b"][5]["no_correlation"] == "not finite in 1 sample"
    assert layer["units_b"][5]["best"] is None


def test_which_layers_are_compared() -> None:
    in_a, in_b = ["conv=1", "block1", "block2", "only"], ["block2", "block1", "conv=1", "b:x=y"]
    assert layer_pairs(in_a, in_b, []) == [("conv=1", "conv=1"), ("block1", "block1"), ("block2", "block2")]
    assert layer_pairs(in_a, in_b, ["block?"]) == [("block1", "block1"), ("block2", "block2")]
    assert layer_pairs(in_a, in_b, ["conv=1"]) == [("conv=1", "conv=1")]
    assert layer_pairs(in_a, in_b, ["conv=1=b:x=y", "block1 = block2"]) == [("conv=1", "b:x=y"), ("block1", "block2")]
    assert layer_pairs(in_a, in_b, ["block1", "block*"]) == [("block1", "block1"), ("block2", "block2")]
    for text, words in {"block9=block1": "first run", "block1=blok2": "second run", "only": "both runs have"}.items():
        with pytest.raises(UnknownNameError, match=words):
            layer_pairs(in_a, in_b, [text])
    with pytest.raises(UsageError, match="--layer NAME_IN_A=NAME_IN_B"):
        layer_pairs(["a"], ["b"], [])


def edited(run: Run, **config: object) -> Dissection:
    run.info["config"].update(config)
    run.save()
    return Dissection(run)


def test_scores_that_cannot_be_compared_are_refused(pair: tuple[Dissection, Dissection], tmp_path: Path) -> None:
    other = write_compared(tmp_path / "b")
    with pytest.raises(RunMismatchError, match="--iou image and mask"):
        compare_runs(pair[0], edited(other, iou="mask"))
    with pytest.raises(RunMismatchError, match="no tau in common"):
        compare_runs(pair[0], edited(other, iou="image", tau=[0.05]))
    found = compare_runs(pair[0], edited(other, tau=[0.05, 0.005], min_iou=0.1), ["layer1"])
    assert found["settings"]["bar"] == 0.1
    assert found["settings"]["margin"] == pytest.approx(0.05)
    assert len(found["warnings"]) == 3
    with pytest.raises(UnknownNameError, match="statistic"):
        compare_runs(*pair, by="medians")


def test_data_that_differ_are_refused_with_what_is_common(pair: tuple[Dissection, Dissection], tmp_path: Path) -> None:
    other = write_compared(tmp_path / "b")
    samples = other.table("samples")
    renamed = samples.copy()
    renamed.loc[30:, "key"] = [f"other/{index}.png" for index in range(30, SAMPLES)]
    other.write_table("samples", renamed)
    with pytest.raises(RunMismatchError, match=r"30 samples in common, 31% of the smaller run"):
        compare_runs(pair[0], Dissection(other))
    renamed.loc[30:79, "key"] = samples.loc[30:79, "key"]
    other.write_table("samples", renamed)
    found = compare_runs(pair[0], Dissection(other))
    assert found["samples"]["common"] == 80
    assert "80 samples that both runs have (82% of A, 82% of B)" in found["warnings"][0]
    resized = samples.copy()
    resized.loc[:9, "height"] += 1
    resized.loc[20, "key"] = resized.loc[21, "key"]
    other.write_table("samples", resized)
    found = compare_runs(pair[0], Dissection(other))
    assert found["samples"] == {
        "common": SAMPLES - 14,
        "a": SAMPLES - 2,
        "b": SAMPLES - 2,
        "same_data": True,
        "ambiguous_keys": 2,
        "other_sizes": 10,
    }


def test_other_images_under_the_same_keys_are_refused(pair: tuple[Dissection, Dissection], tmp_path: Path) -> None:
    other = write_compared(tmp_path / "b")
    other.info["data"]["fingerprint"] = "another"
    assert not compare_runs(pair[0], Dissection(other), ["layer1"])["samples"]["same_data"]
    rng = np.random.default_rng(2)
    for shard in range(other.plan.count):
        size = (len(other.plan.samples_of(shard)), 32, 32, 3)
        other.arrays.write_shard("thumbnails", shard, rng.integers(0, 256, size, dtype=np.uint8))
    with pytest.raises(RunMismatchError, match="other images under them"):
        compare_runs(pair[0], Dissection(other))


def test_progress_counts_every_sample_of_every_layer(pair: tuple[Dissection, Dissection]) -> None:
    told: list[tuple[int, int]] = []
    compare_runs(*pair, progress=lambda more, total: told.append((more, total)))
    assert sum(more for more, _ in told) == len(SHAPES) * (SAMPLES - 2)
    assert {total for _, total in told} == {SAMPLES - 2}
