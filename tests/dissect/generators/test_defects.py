"""Evidence against units, scores, distances to real images: each against the obvious slow way, or a closed form."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import sqrtm

from microtome.dissect.generators.defects import Evidence, evidence_of, suspects_of, worst_of
from microtome.dissect.generators.features import Eyes, Frechet, Reals, open_eyes
from microtome.dissect.generators.repair_figures import scored, verdict
from microtome.dissect.generators.scores import LEAST_AGREEMENT, fit_stand_in, load_scorer, read_scores
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run


def test_auc_is_the_share_of_pairs_that_are_in_order() -> None:
    dice = np.random.default_rng(0)
    values = dice.integers(0, 6, (60, 3)).astype(np.float32)
    worst = dice.random(60) < 0.3
    values[worst, 0] += 2
    found = evidence_of(values, worst, np.zeros(3))
    for unit in range(3):
        bad, good = values[worst, unit], values[~worst, unit]
        ordered = (bad[:, None] > good[None]) + 0.5 * (bad[:, None] == good[None])
        assert found.auc[unit] == pytest.approx(ordered.mean())
        spread = np.sqrt(ordered.mean(1).var(ddof=1) / len(bad) + ordered.mean(0).var(ddof=1) / len(good))
        assert found.high[unit] == pytest.approx(min(1, ordered.mean() + 1.959964 * spread), abs=1e-6)
        assert found.low[unit] == pytest.approx(ordered.mean() - 1.959964 * spread, abs=1e-6)
    assert found.p[0] < 0.01 < found.p[1]


def test_the_interval_holds_what_the_bootstrap_holds() -> None:
    dice = np.random.default_rng(1)
    values = dice.normal(size=(300, 1))
    worst = np.arange(300) < 60
    values[worst] += 0.7
    found = evidence_of(values, worst, np.zeros(1))
    drawn = []
    for _ in range(400):
        rows = np.concatenate([dice.integers(0, 60, 60), dice.integers(60, 300, 240)])
        drawn.append(evidence_of(values[rows], worst, np.zeros(1)).auc[0])
    assert (found.low[0], found.high[0]) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)


def test_a_unit_that_never_changes_is_no_suspect() -> None:
    found = evidence_of(np.zeros((40, 2)), np.arange(40) < 10, np.zeros(2))
    assert found.p.tolist() == [1, 1]
    assert found.auc.tolist() == [0.5, 0.5]
    assert suspects_of({"layer": found}, 5) is None


def test_chance_is_allowed_for_over_all_units() -> None:
    dice = np.random.default_rng(2)
    worst = np.arange(200) < 20
    noise = evidence_of(dice.normal(size=(200, 400)), worst, np.zeros(400))
    assert (noise.p < 0.05).sum() > 5
    assert suspects_of({"noise": noise}, 20) is None
    values = dice.normal(size=(200, 8))
    values[worst, 3] += 2
    values[worst, 6] += 3
    found = suspects_of({"noise": noise, "layer": evidence_of(values, worst, np.zeros(8))}, 20)
    assert found is not None
    assert (found.layer, found.units.tolist(), found.tested) == ("layer", [6, 3], 408)
    only = suspects_of({"layer": evidence_of(values, worst, np.zeros(8))}, 1)
    assert only is not None
    assert only.units.tolist() == [6]


def test_the_layer_that_tells_best_is_taken() -> None:
    def plain(auc: list[float]) -> Evidence:
        array = np.array(auc)
        return Evidence(array, array, array, np.full(len(auc), 1e-6), array)

    found = suspects_of({"a": plain([0.9, 0.6]), "b": plain([0.85, 0.8])}, 2)
    assert found is not None
    assert found.layer == "b"


def test_the_worst_are_the_highest_and_of_equals_the_first() -> None:
    assert worst_of(np.array([0.0, 3, 3, 1, 3, 0, 0, 0, 0, 9, 3, 3]), 0.45).nonzero()[0].tolist() == [1, 2, 4, 9, 10]
    with pytest.raises(UsageError, match="--worst"):
        worst_of(np.zeros(20), 0.1)


def test_distances_are_those_to_every_real_image() -> None:
    dice = np.random.default_rng(3)
    real, other = dice.normal(size=(50, 4)) * [1, 2, 3, 0.5], dice.normal(size=(9, 4))
    scaled = (real - real.mean(0)) / real.std(0)
    rows = (other - real.mean(0)) / real.std(0)
    slow = [np.sort(np.linalg.norm(scaled - row, axis=1))[:3].mean() for row in rows]
    assert Reals(real, "nearest", 3).far(other) == pytest.approx(slow)
    covariance = 0.99 * np.cov(real.T) + 0.01 * np.trace(np.cov(real.T)) / 4 * np.eye(4)
    centred = other - real.mean(0)
    slow = [np.sqrt(row @ np.linalg.inv(covariance) @ row) for row in centred]
    assert Reals(real, "mahalanobis").far(other) == pytest.approx(slow)
    with pytest.raises(UnknownNameError, match="nearest"):
        Reals(real, "near")
    with pytest.raises(UsageError, match="readable"):
        Reals(real[:3], "nearest", 5)


def test_the_frechet_distance_of_normal_features_is_the_closed_form() -> None:
    dice = np.random.default_rng(4)
    real, made = dice.normal(size=(400, 6)), dice.normal(size=(300, 6)) * 1.5 + 1
    one, other = np.cov(real.T), np.cov(made.T)
    expected = np.square(real.mean(0) - made.mean(0)).sum() + np.trace(one + other - 2 * sqrtm(one @ other).real)
    distance = Frechet(real)
    assert distance(made) == pytest.approx(expected, rel=1e-6)
    assert distance(real) == pytest.approx(0, abs=1e-6)
    assert distance(made) == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    return open_eyes(None, None, torch.device("cpu"))


def test_features_are_means_of_what_the_network_sees(eyes: Eyes) -> None:
    pictures = np.random.default_rng(5).integers(0, 256, (3, 20, 30, 3), np.uint8)
    together = eyes.features(pictures)
    assert together.shape == (3, eyes.width) == (3, 256)
    assert eyes.features(pictures[1:2])[0] == pytest.approx(together[1], rel=1e-4, abs=1e-5)
    with pytest.raises(UsageError, match="--features-layer"):
        open_eyes("builtin:scenes-cnn", None, torch.device("cpu"))


def run_of(keys: list[str], first: int) -> Run:
    info = {"data": {"spec": f"generated:{len(keys)}?seed={first}"}}
    table = pd.DataFrame({"index": range(len(keys)), "key": keys})
    plan = SimpleNamespace(samples=len(keys))
    return cast("Run", SimpleNamespace(info=info, plan=plan, table=lambda name: table))


def test_a_list_of_scores_names_keys_or_seeds(tmp_path: Path) -> None:
    run = run_of(["seed-000100", "seed-000101", "seed-000102"], 100)
    file = tmp_path / "scores.csv"
    file.write_text("\ufeffkey,score\nseed-000102, 0.5\nseed-000100,1\n")
    samples, scores = read_scores(file, run)
    assert (samples.tolist(), scores.tolist()) == ([0, 2], [1, 0.5])
    file.write_text("Seed,Score,who\n101,-2,me\n")
    samples, scores = read_scores(file, run)
    assert (samples.tolist(), scores.tolist()) == ([1], [-2])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "none; give a header"),
        ("name,score\na,1\n", "name, score; give a header"),
        ("seed,score\n7,1\n", "line 2: the run has no sample of seed '7'"),
        ("seed,score\n100,1\n100,2\n", "line 3: seed 100 has a score already"),
        ("seed,score\n100,good\n", "line 2: 'good' is no score"),
        ("seed,score\n100,nan\n", "line 2: 'nan' is no score"),
        ("seed,score\n100\n", "line 2: None is no score"),
    ],
)
def test_lists_that_cannot_be_used_are_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_scores(file, run_of(["a", "b"], 100))


def test_a_missing_list_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(No such file or directory\)"):
        read_scores(tmp_path / "none.csv", run_of(["a"], 0))


def test_a_stand_in_knows_how_far_it_is_to_be_trusted() -> None:
    dice = np.random.default_rng(6)
    features = dice.normal(size=(200, 30))
    scores = 2 * features[:, 3] - features[:, 7] + 5 + 0.1 * dice.normal(size=200)
    good = fit_stand_in(features, scores)
    assert good.agreement > 0.95
    fresh = dice.normal(size=(50, 30))
    assert good(fresh) == pytest.approx(2 * fresh[:, 3] - fresh[:, 7] + 5, abs=0.3)
    assert fit_stand_in(features, dice.normal(size=200)).agreement < LEAST_AGREEMENT


def test_a_scorer_keeps_to_its_contract_or_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "checks.py"
    file.write_text(
        "def dark():\n    return lambda images: -images.mean((1, 2, 3))\n"
        "def wrong():\n    return lambda images: images\n"
        "def number():\n    return 3\n"
    )
    pictures = np.random.default_rng(7).integers(0, 256, (40, 4, 4, 3), np.uint8)
    cpu = torch.device("cpu")
    assert load_scorer(f"{file}:dark", cpu)(pictures) == pytest.approx(-pictures.mean((1, 2, 3)) / 255, abs=1e-6)
    with pytest.raises(UsageError, match="finite scores"):
        load_scorer(f"{file}:wrong", cpu)(pictures)
    with pytest.raises(UsageError, match="callable"):
        load_scorer(f"{file}:number", cpu)
    with pytest.raises(UsageError, match="--scorer"):
        load_scorer("dark", cpu)


def test_verdicts_follow_the_sign_of_the_score() -> None:
    dice = np.random.default_rng(8)
    before = dice.normal(size=100)
    less, more, same = before - 1 + 0.1 * dice.normal(size=100), before + 1, before + 0.01 * dice.normal(size=100)
    assert scored(np.stack([before, less, same]), 1, 0.1)["all"]["verdict"] == "better"
    assert scored(np.stack([before, less, same]), -1, 0.1)["all"]["verdict"] == "worse"
    assert scored(np.stack([before, more, same]), -1, 0.1)["all"]["verdict"] == "better"
    assert scored(np.stack([before, less, less]), 1, 0.1)["all"]["verdict"] == "no better than random"
    assert verdict((-1, 1), None) == "unclear"
    worst = scored(np.stack([before, less, same]), 1, 0.1)["worst"]
    assert (worst["images"], worst["before"]) == (10, pytest.approx(np.sort(before)[-10:].mean()))
