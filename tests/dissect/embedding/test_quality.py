"""Quality of maps, against scikit-learn's trustworthiness, brute force, and maps that are known to be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from microtome.dissect.embedding import quality
from microtome.dissect.embedding.quality import Quality, map_neighbors, map_quality, purity_of, warnings
from microtome.dissect.embedding.ranks import rank_among_all
from microtome.dissect.embedding.vectors import ArrayVectors
from microtome.storage.errors import UsageError

Floats = NDArray[np.float32]


def cloud(n: int, dims: int, seed: int = 0, shift: float = 0.0) -> Floats:
    return (np.random.default_rng(seed).standard_normal((n, dims)) + shift).astype(np.float32)


def by_hand(features: Floats, positions: Floats, k: int) -> tuple[float, float]:
    """Trustworthiness and recall of all points, by sorting every row of the distances."""
    far, near = (cdist(x.astype(np.float64), x.astype(np.float64)) for x in (features, positions))
    np.fill_diagonal(far, -1)
    np.fill_diagonal(near, -1)
    rank = np.argsort(np.argsort(far, axis=1), axis=1)  # the point itself has rank 0
    neighbors = np.argsort(near, axis=1)[:, 1 : k + 1]
    ranks = np.take_along_axis(rank, neighbors, axis=1)
    n = len(features)
    excess = np.maximum(0, ranks - k).sum()
    return 1 - 2 * excess / (n * k * (2 * n - 3 * k - 1)), float((ranks <= k).mean())


@pytest.mark.parametrize(("n", "dims", "shift"), [(300, 5, 0.0), (5000, 40, 30.0)])
def test_all_points_give_the_published_figures(n: int, dims: int, shift: float) -> None:
    features = cloud(n, dims, shift=shift)
    positions = features[:, :2] + 0.3 * cloud(n, 2, seed=1)
    found = map_quality(ArrayVectors(features), positions, sample=n, threads=2)
    expected, recall = by_hand(features, positions, 10)
    assert found.trustworthiness == pytest.approx(expected, abs=1e-5)
    assert found.recall == pytest.approx(recall, abs=1e-4)
    assert found.sample == n
    if n < 1000:
        assert found.trustworthiness == pytest.approx(trustworthiness(features, positions, n_neighbors=10), abs=1e-5)


def test_digits_equal_scikit_learn_and_a_sample_estimates_them() -> None:
    digits = load_digits()
    positions = PCA(2, random_state=0).fit_transform(digits.data).astype(np.float32)
    vectors, labels = ArrayVectors(digits.data), digits.target.astype(np.int64)
    whole = map_quality(vectors, positions, labels, sample=len(labels))
    expected = trustworthiness(digits.data, positions, n_neighbors=10)
    assert whole.trustworthiness == pytest.approx(expected, abs=3e-4)  # equal distances have an order there
    drawn = map_quality(vectors, positions, labels, sample=500)
    assert drawn.sample == 500
    assert drawn.trustworthiness == pytest.approx(expected, abs=0.02)
    assert drawn.recall == pytest.approx(whole.recall, abs=0.02)
    assert whole.purity_features == pytest.approx(0.97, abs=0.02)
    assert whole.purity is not None
    assert whole.purity < 0.7
    text = " ".join(warnings(whole))
    assert "Trustworthiness" in text
    assert "Classes mix more on the map" in text


def test_neighbours_and_ranks_equal_brute_force_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microtome.dissect.embedding.ranks.ROWS", 97)
    features = cloud(700, 12, shift=5.0)
    points = np.sort(np.random.default_rng(0).choice(700, 60, replace=False)).astype(np.int64)
    given = np.stack(
        [np.random.default_rng(i).permutation(np.delete(np.arange(700), p))[:7] for i, p in enumerate(points)]
    )
    far = cdist(features[points].astype(np.float64), features.astype(np.float64))
    far[np.arange(60), points] = np.inf
    for threads in (1, 2, 3):
        found = rank_among_all(ArrayVectors(features), points, given, threads=threads)
        assert np.array_equal(found.nearest, np.argsort(far, axis=1)[:, :7])
        limits = np.take_along_axis(far, given, axis=1)
        assert np.array_equal(found.closer, (far[:, None, :] < limits[:, :, None]).sum(axis=2))
        assert np.allclose(np.sqrt(found.gaps), np.sort(far, axis=1)[:, :7], rtol=1e-12)


def test_a_true_map_is_perfect_and_a_shuffled_one_is_chance() -> None:
    flat = cloud(2000, 2)
    turned = flat @ np.linalg.qr(cloud(6, 6))[0][:2].astype(np.float32)  # the plane, in six dimensions
    true = map_quality(ArrayVectors(turned), flat)
    assert true.trustworthiness == pytest.approx(1, abs=1e-5)
    assert true.recall > 0.995
    assert warnings(true) == []
    wrong = map_quality(ArrayVectors(turned), np.random.default_rng(3).permutation(flat))
    assert wrong.trustworthiness == pytest.approx(0.5, abs=0.03)
    assert wrong.recall < 0.02
    assert len(warnings(wrong)) == 2


def test_twins_are_said_and_cost_nothing() -> None:
    flat = np.repeat(cloud(200, 2), 12, axis=0)
    found = map_quality(ArrayVectors(np.hstack([flat, flat + 50])), flat, sample=500)
    assert found.twins == 1
    assert found.recall == 1
    assert found.trustworthiness == pytest.approx(1)
    assert "100% of the points have a twin" in " ".join(warnings(found))


def reference(features: Floats, positions: Floats, points: NDArray[np.int64], k: int) -> tuple[float, float, float]:
    """Trustworthiness, recall and share of twins of some points: every pair is measured from float64 differences."""
    near = map_neighbors(positions, points, k)
    exact, n = features.astype(np.float64), len(features)
    excess, kept, twins = 0, 0, 0
    for point, others in zip(points, near, strict=True):
        squares = ((exact - exact[point]) ** 2).sum(axis=1)
        squares[point] = np.inf
        rank = 1 + (squares[None, :] < squares[others][:, None]).sum(axis=1)
        excess += int(np.maximum(0, rank - k).sum())
        kept += int((rank <= k).sum())
        twins += bool((features == features[point]).all(axis=1).sum() > 1)
    asked = len(points)
    return 1 - 2 * excess / (asked * k * (2 * n - 3 * k - 1)), kept / (asked * k), twins / asked


def with_far(n: int, far: float, count: int = 1) -> Floats:
    features = cloud(n, 64, seed=1)
    features[17 : 17 + count] = far * (1 + cloud(count, 64, seed=2) / 10)
    return features


def clusters_far_apart() -> Floats:
    middles = 1e4 * cloud(5, 24, seed=3)
    return (np.repeat(middles, 300, axis=0) + 0.05 * cloud(1500, 24, seed=4)).astype(np.float32)


def with_twins() -> Floats:
    features = cloud(1500, 16, seed=5) + np.float32(1000)
    features[100:130] = features[0]
    features[700:710, 0] = np.nextafter(features[300:310, 0], np.float32(np.inf))
    features[700:710, 1:] = features[300:310, 1:]  # all but twins: one number differs in its last digit
    return features


HARD = {
    "one dimension": cloud(2000, 1, shift=3.0),
    "one dimension, skewed": np.exp(3 * cloud(2000, 1)),
    "one at 3e5": with_far(1500, 3e5),
    "one at 1e6": with_far(1500, 1e6),
    "one at 1e18": with_far(1500, 1e18),
    "ten at 1e6": with_far(1500, 1e6, 10),
    "all small": 1e-25 * cloud(1500, 5),
    "all large": 1e30 * cloud(1500, 5),
    "clusters far apart": clusters_far_apart(),
    "twins": with_twins(),
    "two vectors": np.repeat(cloud(2, 7), 600, axis=0),
    "one vector": np.ones((1200, 7), np.float32),
    "few values": np.round(cloud(1500, 2)),
}


@pytest.mark.parametrize("kind", ["random", "drawn"])
@pytest.mark.parametrize("name", HARD)
def test_hard_vectors_give_the_figures_of_measuring_every_pair(name: str, kind: str) -> None:
    features = HARD[name].astype(np.float32)
    n = len(features)
    positions = cloud(n, 2, seed=9)
    if kind == "drawn":
        rank = np.argsort(np.argsort(features[:, 0])) / n
        positions = (np.stack([rank, 0 * rank], axis=1) + 1e-4 * positions).astype(np.float32)
    found = map_quality(ArrayVectors(features), positions, sample=300, threads=2)
    points = np.sort(np.random.default_rng(0).choice(n, 300, replace=False)).astype(np.int64)
    trust, recall, twins = reference(features, positions, points, 10)
    assert found.trustworthiness == pytest.approx(trust, abs=1e-6)
    assert found.recall == pytest.approx(recall, abs=1e-3)
    assert found.twins == twins
    assert found == map_quality(ArrayVectors(features), positions, sample=300, threads=1)


def test_one_vector_far_away_does_not_make_a_random_map_true() -> None:
    found = map_quality(ArrayVectors(with_far(3000, 1e6)), cloud(3000, 2, seed=9))
    assert found.trustworthiness == pytest.approx(0.5, abs=0.02)
    assert found.recall < 0.01
    assert found.twins == 0


def test_only_the_same_vector_is_a_twin() -> None:
    found = map_quality(ArrayVectors(with_twins()), cloud(1500, 2), sample=1500)
    assert found.twins == 31 / 1500
    few_units = map_quality(ArrayVectors(cloud(10_000, 1, shift=3.0).astype(np.float64)), cloud(10_000, 2))
    assert few_units.twins < 0.05
    assert not any("twin" in warning for warning in warnings(few_units))


def test_islands_that_are_not_there_are_said() -> None:
    features = cloud(3000, 20)
    side = (np.random.default_rng(0).random(3000) < 0.5).astype(np.int64)
    positions = features[:, :2] + 100 * side[:, None]
    found = map_quality(ArrayVectors(features), positions, clusters=side)
    assert found.islands == pytest.approx(0.5, abs=0.05)
    assert any("gaps between clusters" in warning for warning in warnings(found))


def test_purer_than_feature_space_is_said() -> None:
    features, labels = cloud(1000, 8), np.arange(1000) % 2
    found = map_quality(ArrayVectors(features), features[:, :2] + 50 * labels[:, None], labels)
    assert found.purity == 1
    assert any("look purer on the map" in warning for warning in warnings(found))


def test_purity_leaves_out_what_has_no_label() -> None:
    labels = np.array([0, 0, 1, -1, -1])
    points, near = np.array([0, 3, 2]), np.array([[1, 2], [0, 1], [3, 4]])
    assert purity_of(labels, points, near) == 0.5
    assert purity_of(np.full(5, -1), points, near) is None


def test_one_place_for_all() -> None:
    near = map_neighbors(np.zeros((50, 2), np.float32), np.arange(50), 5)
    assert near.shape == (50, 5)
    assert not (near == np.arange(50)[:, None]).any()
    found = map_quality(ArrayVectors(cloud(50, 3)), np.zeros((50, 2), np.float32))
    assert found.recall < 0.5


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 20])
def test_few_points_are_no_error(n: int) -> None:
    found = map_quality(ArrayVectors(cloud(n, 3)), cloud(n, 2), np.zeros(n, np.int64))
    assert found.k == min(10, max(0, (n - 1) // 2))
    info = found.info()
    assert json.loads(json.dumps(info, allow_nan=False)) == info
    assert f"Only {n} point{'' if n == 1 else 's'}: too few" in info["warnings"][0]


def test_same_seed_same_figures() -> None:
    features, positions = cloud(3000, 9), cloud(3000, 2, seed=1)
    one = map_quality(ArrayVectors(features), positions, sample=200, seed=4)
    assert one == map_quality(ArrayVectors(features), positions, sample=200, seed=4, threads=2)
    assert one != map_quality(ArrayVectors(features), positions, sample=200, seed=5)


def test_what_does_not_fit_is_refused() -> None:
    vectors = ArrayVectors(cloud(30, 3))
    with pytest.raises(UsageError, match=r"shape \(30, 2\), not \(29, 2\)"):
        map_quality(vectors, cloud(29, 2))
    with pytest.raises(UsageError, match="finite"):
        map_quality(vectors, np.full((30, 2), np.nan, np.float32))
    with pytest.raises(UsageError, match="classes and clusters"):
        map_quality(vectors, cloud(30, 2), np.zeros(3, np.int64))


def test_thresholds_decide() -> None:
    fine = Quality(10_000, 1000, 10, quality.LOW_TRUSTWORTHINESS, quality.LOW_RECALL, 0.5, 0.6, quality.MANY_TWINS, 0.7)
    assert warnings(fine) == []
