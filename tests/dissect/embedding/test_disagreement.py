"""Planted wrong labels come out on top."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from microtome.dissect.embedding.disagreement import COLUMNS, disagreements
from microtome.storage.errors import UsageError

NAMES = [f"digit {number}" for number in range(10)]


def neighbors_of(data: NDArray[np.float64], k: int = 15) -> NDArray[np.int64]:
    found: NDArray[np.int64] = NearestNeighbors(n_neighbors=k + 1).fit(data).kneighbors(data)[1]
    return found[:, 1:]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flipped_labels_of_digits_are_the_first_candidates(seed: int) -> None:
    digits, dice = load_digits(), np.random.default_rng(seed)
    flipped = dice.choice(len(digits.target), len(digits.target) // 20, replace=False)
    labels = digits.target.astype(np.int64)
    labels[flipped] = (labels[flipped] + dice.integers(1, 10, len(flipped))) % 10
    found = disagreements(neighbors_of(digits.data), labels, NAMES)
    right = np.isin(found["sample"], flipped)
    assert right[:50].mean() >= 0.98
    assert right[: len(flipped)].mean() > 0.9  # as many candidates as there are wrong labels
    assert right.sum() > 0.95 * len(flipped)
    first = found["sample"].to_numpy()[right][:50]
    truth = [NAMES[number] for number in digits.target[first]]
    assert np.mean(found["neighbors_class"].to_numpy()[right][:50] == truth) > 0.95


def by_hand(neighbors: NDArray[np.int64], labels: NDArray[np.int64]) -> list[tuple[int, float, float]]:
    rows = []
    for point, near in enumerate(neighbors):
        votes = [labels[j] for j in near if j >= 0 and labels[j] >= 0]
        others = [v for v in votes if v != labels[point]]
        if labels[point] < 0 or len(votes) < 5 or not others:
            continue
        most = max(others.count(v) for v in others) / len(votes)
        if most > 0.5:
            rows.append((point, 1 - len(others) / len(votes), most))
    return rows


def test_shares_are_those_of_the_votes() -> None:
    dice = np.random.default_rng(0)
    labels, neighbors = dice.integers(-1, 3, 500), dice.integers(-1, 500, (500, 9))
    samples = np.arange(500) * 2
    found = disagreements(neighbors, labels, ["a", "b", "c"], samples)
    assert tuple(found.columns) == COLUMNS
    expected = {2 * point: (own, other) for point, own, other in by_hand(neighbors, labels)}
    assert len(found) == len(expected) > 20
    for row in found.itertuples(index=False):
        assert (row.agreement, row.share) == pytest.approx(expected[row.sample])
    lead = (found["share"] - found["agreement"]).to_numpy()
    assert (np.diff(lead) <= 1e-12).all()


def test_clean_groups_have_no_candidates() -> None:
    labels = np.repeat([0, 1], 50)
    neighbors = np.stack([np.arange(i // 50 * 50, i // 50 * 50 + 10) for i in range(100)])
    assert len(disagreements(neighbors, labels, ["a", "b"])) == 0
    assert len(disagreements(np.zeros((0, 5), np.int64), np.zeros(0, np.int64), [])) == 0


def test_points_without_a_class_neither_vote_nor_are_judged() -> None:
    labels = np.array([0, 1, 1, 1, 1, 1, -1])
    neighbors = np.array([[1, 2, 3, 4, 5, 6]] * 7)
    found = disagreements(neighbors, labels, ["a", "b"])
    assert found["sample"].tolist() == [0]
    assert found["share"].tolist() == [1.0]
    labels[4:6] = -1  # three votes are too few
    assert len(disagreements(neighbors, labels, ["a", "b"])) == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="not of the same points"):
        disagreements(np.zeros((4, 3), np.int64), np.zeros(5, np.int64), ["a"])
