"""Sets of units removed at once: figures against whole passes, random sets, choices, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, ablate, importance, run_audit
from microtome.dissect.ablation.choice import ranges
from microtome.dissect.ablation.sets import file_name, random_sets
from microtome.dissect.audit import verify_run
from microtome.dissect.cli.ablate import conclusion
from microtome.dissect.models import load_model
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run


def test_the_figures_are_those_of_whole_passes(run: Path, colours: Path) -> None:
    found = ablate(run, "relu", units=["0", "3"], draws=3, seed=5)
    model, dataset = load_model(f"{colours}:model"), open_dataset(f"{colours}:images")
    indices = [index for index in range(40) if index != 7]
    pixels = np.stack([dataset.read(index).image for index in indices])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    truth = np.array([index % 3 for index in indices])

    def right(units: list[int]) -> np.ndarray:
        def hook(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
            changed = output.clone()
            changed[:, units] = 0
            return changed

        handle = model.module.get_submodule("relu").register_forward_hook(hook)
        with torch.no_grad():
            answers = model.module(batch).argmax(1).numpy()
        handle.remove()
        return answers == truth

    sets = random_sets(np.array([0, 3]), 4, 3, 5)
    untouched, without = right([]), right([0, 3])
    random = [right(np.flatnonzero(chosen).tolist()) for chosen in sets]
    for row, number in zip(found.rows, range(-1, 3), strict=True):
        mine = np.ones(39, bool) if number < 0 else truth == number
        falls = [untouched[mine].mean() - answers[mine].mean() for answers in random]
        assert row["class"] == ("all" if number < 0 else ["Red", "green", "pale_blue"][number])
        assert row["images"] == mine.sum()
        assert row["accuracy"] == untouched[mine].mean()
        assert row["accuracy_without"] == without[mine].mean()
        assert row["fall"] == pytest.approx(untouched[mine].mean() - without[mine].mean())
        assert row["random"]["mean"] == pytest.approx(np.mean(falls))
        assert (row["random"]["min"], row["random"]["max"]) == pytest.approx((min(falls), max(falls)))
        assert row["random"]["low"] <= row["random"]["mean"] <= row["random"]["high"]


def test_what_is_kept(run: Path) -> None:
    found = ablate(run, "relu", units=["1"], draws=2, value="mean")
    assert found.key == "ablations/relu-units-1-mean-draws-2.json"
    content = (run / found.key).read_bytes()
    assert json.loads(content) == found.result
    assert found.result["schema_version"] == 1
    assert [one["name"] for one in Run.open(run).ablations()] == ["relu-units-1-mean-draws-2"]
    ablate(run, "relu", units=["1"], draws=2, value="mean", workers=1)
    assert (run / found.key).read_bytes() == content
    assert verify_run(run).fine


def test_units_of_a_concept_and_of_a_class(run: Path) -> None:
    found = ablate(run, "relu", concept="RED thing", top=1, draws=0)
    assert found.result["units"] == [0]
    assert "highest IoU for RED thing" in found.result["chosen_by"]
    assert found.rows[0]["random"] is None
    with pytest.raises(UsageError, match="microtome importance"):
        ablate(run, "relu", class_name="red")
    importance(run, "relu", report=False)
    found = ablate(run, "relu", class_name="red", top=1, draws=4)
    assert (found.result["units"], found.class_name) == ([0], "Red")
    classes = {row["class"]: row for row in found.rows}
    assert classes["Red"]["fall"] > 0.5
    assert classes["green"]["fall"] <= 0


def test_other_images_than_those_of_the_run(run: Path, colours: Path) -> None:
    found = ablate(run, "relu", units=["0"], draws=0, dataset=f"{colours}:others")
    assert (found.result["truth"], found.rows[0]["accuracy"]) == ("predictions", 1.0)
    assert found.result["data"].endswith("colours.py:others")
    assert found.key.startswith("ablations/relu-units-0-on-")
    assert (run / found.key).exists()
    assert ablate(run, "relu", units=["0"], draws=0, limit=6).result["images"] == 6


def test_random_sets_are_of_other_units_where_enough_remain() -> None:
    chosen = np.array([0, 1, 2])
    sets = random_sets(chosen, 10, 50, 1)
    assert (sets.sum(axis=1) == 3).all()
    assert not sets[:, chosen].any()
    assert len(np.unique(sets, axis=0)) > 10
    assert np.array_equal(random_sets(chosen, 10, 20, 1), sets[:20])
    assert random_sets(chosen, 5, 50, 1)[:, chosen].any()


def test_long_names_stay_apart_and_fit_a_file_system() -> None:
    names = [file_name("relu-units-1-on-" + "/very/long" * 40 + end) for end in ("a", "b")]
    assert len({*names, "relu-units-1"}) == 3
    assert max(map(len, names)) == 200
    assert file_name("layer4.0:conv/1-units-3") == "layer4.0%3Aconv%2F1-units-3"


def test_other_settings_are_kept_beside(run: Path) -> None:
    settings: list[dict[str, int]] = [{}, {"seed": 3}, {"draws": 2}, {"limit": 6}, {"draws": 2, "limit": 6}]
    keys = [ablate(run, "relu", units=["1"], **one).key for one in settings]
    assert keys[0] == "ablations/relu-units-1.json"
    assert keys[-1] == "ablations/relu-units-1-limit-6-draws-2.json"
    assert len({*keys}) == len(Run.open(run).ablations()) == len(settings)


def test_of_few_draws_the_range_is_given(run: Path) -> None:
    few, more = (ablate(run, "relu", units=["0"], draws=draws, seed=1) for draws in (4, 5))
    for row in few.rows:
        assert (row["random"]["low"], row["random"]["high"]) == (row["random"]["min"], row["random"]["max"])
    assert "(their range)" in conclusion(few)
    assert "(their range)" not in conclusion(more)


def test_a_class_without_images_is_said_to_be_unknown(run: Path) -> None:
    importance(run, "relu", report=False)
    found = ablate(run, "relu", class_name="green", top=1, draws=0, limit=1)
    assert [row["class"] for row in found.rows] == ["all", "Red"]
    assert conclusion(found) == "none of the 1 images measured is of class green: what it loses is not known."


def test_two_classes_of_one_name_stay_apart(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    values = {"model": f"{colours}:twins", "dataset": f"{colours}:images", "layers": ("relu",)}
    run_audit(AuditConfig(**values, out=run, tau=(0.1,), top=2, batch=4))
    info = importance(run, "relu", report=False).info
    assert info["truth"] == "predictions"
    assert (info["classes"], info["class_indices"]) == (["Red", "crane (1)", "crane (2)"], [0, 1, 2])
    with pytest.raises(UsageError, match=r"--class 1, or by both: 'crane \(1\)' or 'crane \(2\)'"):
        ablate(run, "relu", class_name="crane", top=1)
    for asked, number in {"1": 1, "2": 2, "Crane (2)": 2, "red": 0, "0": 0}.items():
        one = ablate(run, "relu", class_name=asked, top=1, draws=0)
        assert (one.class_index, one.result["units"]) == (number, [number])
        row = next(row for row in one.rows if row["index"] == number)
        assert row["fall"] > 0.5
        assert conclusion(one).startswith(f"{row['class']} falls from 100.0 % to {100 * row['accuracy_without']:.1f} %")
    capsys.readouterr()
    found = ablate(run, "relu", units=["0"], draws=0, dataset=f"{colours}:cranes")
    assert "images of crane are left out, because several classes of the model" in capsys.readouterr().err
    assert [(row["index"], row["images"]) for row in found.rows] == [(None, 27), (0, 27)]


def test_ranges_of_units() -> None:
    assert ranges(np.array([3, 17, 40, 41, 42])) == "3, 17, 40-42"


def test_what_cannot_be_asked_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="in one way"):
        ablate(run, "relu")
    with pytest.raises(UsageError, match="in one way"):
        ablate(run, "relu", units=["1"], concept="blue")
    with pytest.raises(UnknownNameError, match="red thing"):
        ablate(run, "relu", concept="red thin")
    with pytest.raises(UsageError, match="has 4 units"):
        ablate(run, "relu", concept="red thing", top=5)
    with pytest.raises(UnknownNameError, match="relu"):
        ablate(run, "relus", units=["1"])
    importance(run, "relu", report=False)
    with pytest.raises(UnknownNameError, match="green"):
        ablate(run, "relu", class_name="gren", top=1)
