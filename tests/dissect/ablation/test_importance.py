"""Importance of every unit: the table against whole passes, resuming, truth, and its place among a run's files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from microtome.datasets.specs import open_dataset
from microtome.dissect import extend_run, importance
from microtome.dissect.ablation import units as units_module
from microtome.dissect.ablation.subject import fill_of
from microtome.dissect.ablation.truth import LABELS, PREDICTIONS, find_truth
from microtome.dissect.audit import repair_run, verify_run
from microtome.dissect.models import load_model
from microtome.dissect.query.importance import class_number, needed_units, read_importance
from microtome.storage.commits import StageCommits
from microtome.storage.errors import RunMismatchError, UnknownNameError, UsageError
from microtome.storage.run import Run

CLASSES = ["Red", "green", "pale_blue"]


def expected(colours: Path, layer: str, fill: NDArray[np.float64], limit: int = 40) -> pd.DataFrame:
    """The table as the network itself gives it: a hook and a whole pass for every unit."""
    model, dataset = load_model(f"{colours}:model"), open_dataset(f"{colours}:images")
    indices = [index for index in range(limit) if index != 7]
    pixels = np.stack([dataset.read(index).image for index in indices])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    truth = np.array([index % 3 for index in indices])

    def answers(unit: int | None) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        def hook(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
            changed = output.clone()
            if unit is not None:
                changed[:, unit] = float(fill[unit])
            return changed

        handle = model.module.get_submodule(layer).register_forward_hook(hook)
        with torch.no_grad():
            probabilities = model.module(batch).double().softmax(1).numpy()
        handle.remove()
        return probabilities.argmax(1) == truth, probabilities[np.arange(len(truth)), truth]

    right, probability = answers(None)
    rows = []
    for unit in range(len(fill)):
        right_without, probability_without = answers(unit)
        for number in range(-1, 3):
            mine = np.ones(len(truth), bool) if number < 0 else truth == number
            values = [values[mine].mean() for values in (right, right_without, probability, probability_without)]
            rows.append(
                {
                    "unit": unit,
                    "class": number,
                    "images": int(mine.sum()),
                    "accuracy": values[0],
                    "accuracy_without": values[1],
                    "fall": values[0] - values[1],
                    "probability": values[2],
                    "probability_without": values[3],
                    "probability_fall": values[2] - values[3],
                }
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("layer", ["relu", "head"])
@pytest.mark.parametrize("value", ["zero", "mean"])
def test_the_table_is_that_of_whole_passes(run: Path, colours: Path, layer: str, value: str) -> None:
    found = importance(run, layer, value=value, report=False)
    units = Run.open(run).layer_table(layer, "units")
    fill = np.zeros(len(units)) if value == "zero" else units["mean"].to_numpy()
    pd.testing.assert_frame_equal(found.table, expected(colours, layer, fill), atol=1e-6)
    stored = Run.open(run)
    pd.testing.assert_frame_equal(stored.layer_table(layer, "importance"), found.table)
    info = stored.info["importance"][layer]
    assert (info["classes"], info["truth"], info["value"], info["images"]) == (CLASSES, "labels", value, 39)
    assert info["accuracy"] == found.table["accuracy"][0]
    assert verify_run(run).fine


def test_the_units_that_a_class_needs(run: Path) -> None:
    with pytest.raises(UsageError, match=r"microtome importance .* --layer relu"):
        read_importance(Run.open(run), "relu")
    importance(run, "relu", report=False)
    table, info = read_importance(Run.open(run), "relu")
    for name, unit in (("red", 0), ("Green", 1), ("PALE blue", 2)):
        needed = needed_units(table, class_number(info, name))
        assert needed["unit"][0] == unit
        assert needed["fall"][0] > 0.5
        assert needed["fall"].is_monotonic_decreasing
    with pytest.raises(UnknownNameError, match="pale_blue"):
        class_number(info, "pale blu")


def test_a_session_that_stopped_goes_on_and_ends_with_the_same_bytes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shutil.copytree(run, tmp_path / "whole")
    importance(whole, "relu", report=False)
    monkeypatch.setattr("microtome.dissect.ablation.subject.SHARD_SAMPLES", 4)
    commit, seen = StageCommits.commit, []

    def failing(self: StageCommits, shard: int, *rest: object, **named: object) -> None:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(shard)
        commit(self, shard, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(StageCommits, "commit", failing)
    with pytest.raises(KeyboardInterrupt):
        importance(run, "relu", report=False, workers=1)
    assert not Run.open(run).has_layer_table("relu", "importance")
    again: list[int] = []
    monkeypatch.setattr(
        StageCommits, "commit", lambda self, shard, *rest: (again.append(shard), commit(self, shard, *rest))
    )
    importance(run, "relu", report=False, workers=1)
    assert sorted([*seen, *again]) == list(range(10))
    name = "layers/relu/importance.parquet"
    first, second = (pd.read_parquet(folder / name) for folder in (whole, run))
    pd.testing.assert_frame_equal(first, second, rtol=1e-12)
    bytes_of_run = (run / name).read_bytes()
    again.clear()
    importance(run, "relu", report=False, workers=2)
    assert (again, (run / name).read_bytes()) == ([], bytes_of_run)


def test_other_settings_are_measured_anew(run: Path) -> None:
    importance(run, "relu", report=False)
    fewer = importance(run, "relu", limit=10, units=["1", "2-3"], report=False)
    assert fewer.info["images"] == 9
    assert fewer.table["unit"].unique().tolist() == [1, 2, 3]


def test_truth_needs_names_that_fit(colours: Path) -> None:
    dataset = open_dataset(f"{colours}:images")
    truth = find_truth(dataset, 40, ["x", "PALE_BLUE", "Green", "red"])
    assert (truth.kind, truth.of_label) == (LABELS, {0: 3, 1: 2, 2: 1})
    assert find_truth(dataset, 2, ["red", "green"]).kind == LABELS  # the third class does not occur
    for stranger in (["red", "green"], [], ["red", "green", "blue"]):
        truth = find_truth(dataset, 40, stranger)
        assert truth.kind == PREDICTIONS
        assert "own answers are the truth" in truth.why


def test_names_that_classes_share_are_not_decided_in_silence(colours: Path) -> None:
    dataset = open_dataset(f"{colours}:images")
    truth = find_truth(dataset, 40, ["Green", "green", "red", "pale blue"])  # an exact match comes first
    assert (truth.kind, truth.of_label) == (LABELS, {0: 2, 1: 1, 2: 3})
    for names in (["green", "green", "red", "pale blue"], ["Green", "GREEN", "red", "pale blue"]):
        truth = find_truth(dataset, 40, names)
        assert (truth.kind, truth.of_label) == (LABELS, {0: 2, 2: 3})
        assert "images of green are left out" in truth.why
        assert (truth.has(0), truth.has(1), truth.has(None)) == (True, False, False)
    truth = find_truth(dataset, 1, ["red", "red"])
    assert truth.kind == PREDICTIONS
    assert "several classes of the model are called 'red'" in truth.why
    assert [truth.name(number) for number in (0, 1, 2)] == ["red (0)", "red (1)", "2"]


def test_importance_of_an_earlier_version_is_to_be_measured_again(run: Path) -> None:
    importance(run, "relu", report=False)
    stored = Run.open(run)
    del stored.info["importance"]["relu"]["class_indices"]  # type: ignore[misc]
    stored.save()
    with pytest.raises(UsageError, match=r"earlier version; measure it again: microtome importance .* --layer relu"):
        read_importance(Run.open(run), "relu")


def test_without_fitting_labels_the_predictions_are_the_truth(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(
        text.replace("colours.py:images", "colours.py:others").replace(
            "colours-('red', 'green', 'pale blue')-40", "colours-('red', 'green', 'yellow')-40"
        )
    )
    found = importance(run, "relu", report=False)
    assert (found.info["truth"], found.info["accuracy"]) == ("predictions", 1.0)
    assert "no class called 'yellow'" in capsys.readouterr().err
    assert (found.table["accuracy"] == 1).all()


def test_scores_of_answers_that_are_no_numbers() -> None:
    logits = np.array([[1, 3, 2], [np.nan, 0, 0], [0, 0, 0]], np.float32)
    correct, probability = units_module.scores(logits, np.array([1, 0, 0]))
    assert correct.tolist() == [1, 0, 1]
    np.testing.assert_allclose(probability, [np.exp(3) / np.exp([1, 3, 2]).sum(), 0, 1 / 3])


def test_verify_finds_a_damaged_table_and_repair_drops_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    importance(run, "relu", report=False)
    path = run / "layers/relu/importance.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    verdict = verify_run(run)
    assert [(damage.key, damage.stages) for damage in verdict.damages] == [
        ("layers/relu/importance.parquet", ("importance",))
    ]
    assert repair_run(run).fine
    assert f"microtome importance {run} --layer relu" in capsys.readouterr().err
    assert Run.open(run).info["importance"] == {}
    importance(run, "relu", report=False)
    (run / "commits/importance/relu/tables.json").write_text("{")
    assert not verify_run(run).fine
    assert repair_run(run).fine


def test_a_run_that_grows_drops_its_importance(run: Path, colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    importance(run, "relu", report=False)
    extend_run(run, f"{colours}:more")
    assert "the importance of layer relu is that of the smaller run" in capsys.readouterr().err
    assert "importance" not in Run.open(run).info
    assert verify_run(run).fine
    assert importance(run, "relu", report=False).info["images"] == 47


def test_what_cannot_be_measured_is_refused(run: Path) -> None:
    with pytest.raises(UnknownNameError, match="relu"):
        importance(run, "rely")
    with pytest.raises(UnknownNameError, match="zero"):
        importance(run, "relu", value="zeros")
    with pytest.raises(UsageError, match="units 0 to 3"):
        importance(run, "relu", units=["2-4"])
    with pytest.raises(UsageError, match="numbers and ranges"):
        importance(run, "relu", units=["two"])
    text = (run / "run.json").read_text()
    readout = '"readout": {"base": "units", "kind": "encoder"}, "folder": "relu"'
    (run / "run.json").write_text(text.replace('"folder": "relu"', readout))
    with pytest.raises(UsageError, match=r"features of an encoder.*ablate units"):
        importance(run, "relu")
    (run / "run.json").write_text(text.replace("colours.py:model", "colours.py:no_classifier"))
    with pytest.raises(RunMismatchError, match="another model"):
        importance(run, "relu")
    (run / "run.json").write_text(text.replace('"state": "done"', '"state": "pending"'))
    with pytest.raises(UsageError, match="not finished"):
        importance(run, "relu")


def test_heads_have_no_mean_to_be_set_to(run: Path) -> None:
    opened = Run.open(run)
    entry = opened.info["layers"][0]
    for kind in ("heads", "heads-mean"):
        with pytest.raises(UsageError, match=r"no value of what a head .* adds .*--value zero"):
            fill_of(opened, {**entry, "kind": kind}, "mean")
    assert not fill_of(opened, {**entry, "kind": "heads"}, "zero").any()
