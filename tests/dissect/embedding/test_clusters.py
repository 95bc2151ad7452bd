"""Clusters of a map and their names, on groups that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import hypergeom
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score

from microtome.dissect.embedding import clusters as module
from microtome.dissect.embedding.clusters import NOISE, Clusters, density_clusters
from microtome.dissect.embedding.naming import COLUMNS, Presence, cluster_table, over_represented
from microtome.storage.errors import UsageError

CENTERS = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 30.0], [25.0, 28.0]])


def groups(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """n points in four round groups, the first the largest, and which one each is of."""
    dice = np.random.default_rng(seed)
    of = dice.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    return (CENTERS[of] + dice.standard_normal((n, 2))).astype(np.float32), of


@pytest.mark.parametrize("n", [400, 5000, 200_000])
def test_round_groups_are_found_and_numbered_by_size(n: int) -> None:
    positions, of = groups(n)
    found = density_clusters(positions)
    assert found.count == 4
    inside = found.labels != NOISE
    assert inside.mean() > 0.9
    assert np.array_equal(found.labels[inside], of[inside])
    assert np.allclose(found.centers, CENTERS, atol=1.0)
    assert np.array_equal(found.samples, np.bincount(found.labels[inside]))


@pytest.mark.parametrize("n", [200, 3000, 50_000])
def test_one_cloud_is_one_cluster(n: int) -> None:
    dice = np.random.default_rng(n)
    for cloud in (dice.standard_normal((n, 2)), dice.random((n, 2)), np.ones((n, 2))):
        found = density_clusters(cloud)
        assert found.count == 1
        assert (found.labels == 0).mean() > 0.9


def test_what_lies_between_and_far_out_is_noise() -> None:
    positions, _ = groups(5000)
    extra = np.array([[10.0, 14.0], [1e6, 0.0], [0.0, -1e7]], np.float32)
    found = density_clusters(np.concatenate([positions, extra]))
    assert found.count == 4
    assert found.labels[-3:].tolist() == [NOISE] * 3


def test_digits_fall_into_their_classes() -> None:
    digits = load_digits()
    chosen = digits.target < 6
    map_of = TSNE(2, init="pca", random_state=0, max_iter=500).fit_transform(digits.data[chosen])
    found = density_clusters(map_of)
    assert 6 <= found.count <= 10
    assert adjusted_rand_score(digits.target[chosen], found.labels) > 0.85


def test_the_order_of_points_changes_nothing_but_equal_sizes() -> None:
    positions, _ = groups(3000)
    order = np.random.default_rng(1).permutation(3000)
    one, other = density_clusters(positions), density_clusters(positions[order])
    assert np.array_equal(one.labels[order], other.labels)
    assert np.array_equal(one.centers, other.centers)


def test_scale_and_place_change_nothing() -> None:
    positions, _ = groups(3000)
    moved = density_clusters(positions.astype(np.float64) * 1e-3 + 7)
    assert adjusted_rand_score(moved.labels, density_clusters(positions).labels) > 0.99


@pytest.mark.parametrize("n", [12, 700, 20_000])
def test_the_smoothing_is_that_of_the_whole_grid_to_the_bit(n: int) -> None:
    """Lines without points are left out of it."""
    cells = np.clip(np.random.default_rng(n).normal(256, 60, (2, n)).astype(np.int64), 0, module.CELLS - 1)
    counts = np.zeros((module.CELLS, module.CELLS))
    np.add.at(counts, tuple(cells), 1)
    width = module.FINEST
    while True:
        slow = np.maximum(gaussian_filter(counts, width, mode="constant"), 0)
        at_points = np.sort(slow[tuple(cells)])
        if 4 * np.pi * width**2 * at_points[(n - 1) // 2] >= module.IN_KERNEL or width > module.CELLS / 8:
            break
        width *= math.sqrt(2)
    density, found = module._smoothed(counts, module.IN_KERNEL)
    assert found == width
    assert np.array_equal(density, slow)


def test_few_points_have_no_cluster() -> None:
    for n in (0, 1, module.LEAST_SAMPLES - 1):
        found = density_clusters(np.zeros((n, 2)))
        assert found.count == 0
        assert found.labels.tolist() == [NOISE] * n
        assert len(cluster_table(found)) == 0


def test_positions_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match="finite positions"):
        density_clusters(np.full((30, 2), np.inf))
    with pytest.raises(UsageError, match=r"\(30, 3\)"):
        density_clusters(np.zeros((30, 3)))


def planted(n: int = 2000) -> tuple[Clusters, NDArray[np.bool_]]:
    """Four clusters and where ten concepts occur: concept 1 everywhere often, 2 in cluster 0, 3 and 4 in cluster 1 (the
    latter elsewhere too), the others rarely and anywhere."""
    positions, of = groups(n)
    dice = np.random.default_rng(5)
    shown = dice.random((n, 11)) < 0.03
    shown[:, 0] = False
    shown[:, 1] = dice.random(n) < 0.9
    shown[:, 2] |= (of == 0) & (dice.random(n) < 0.8)
    shown[:, 3] |= (of == 1) & (dice.random(n) < 0.9)
    shown[:, 4] |= ((of == 1) & (dice.random(n) < 0.9)) | (dice.random(n) < 0.3)
    return density_clusters(positions), shown


def presence_of(clusters: Clusters, shown: NDArray[np.bool_]) -> Presence:
    bits = np.packbits(shown, axis=1, bitorder="little")
    parts = []
    for start in range(0, len(bits), 300):
        part = Presence(clusters.count, shown.shape[1] - 1)
        part.update(clusters.labels[start : start + 300], bits[start : start + 300])
        parts.append(part)
    for part in parts[1:]:
        parts[0].merge(part)
    return parts[0]


def test_presence_counts_what_is_there() -> None:
    clusters, shown = planted()
    found = presence_of(clusters, shown)
    assert np.array_equal(found.everywhere, shown.sum(axis=0))
    expected = np.stack([shown[clusters.labels == c].sum(axis=0) for c in range(4)])
    assert np.array_equal(found.counts, expected)
    assert found.samples == len(shown)


def test_clusters_bear_the_names_of_what_was_planted() -> None:
    clusters, shown = planted()
    names = ["wall", "sea", "bed", "lamp", *"abcdef"]
    of = np.where(clusters.labels == 2, 0, 1)
    of[::7] = -1
    table = cluster_table(clusters, presence_of(clusters, shown), names, of, ["beach", "other"])
    assert tuple(table.columns) == COLUMNS
    assert table["name"].tolist() == ["sea", "bed, lamp", "beach", "cluster 3"]
    assert table["concept"].tolist() == [2, 3, -1, -1]
    assert table["class"].tolist() == ["", "", "beach", ""]  # nearly all others are of the class "other"
    assert table["purity"].tolist() == [1.0] * 4
    share = shown[clusters.labels == 0, 2].mean()
    assert table["lift"][0] == pytest.approx(share / shown[:, 2].mean())
    assert np.isnan(table["lift"][3])


def test_without_concepts_and_classes_clusters_have_numbers() -> None:
    clusters, _ = planted()
    table = cluster_table(clusters)
    assert table["name"].tolist() == [f"cluster {number}" for number in range(4)]
    assert table["purity"].isna().all()


def test_few_samples_give_no_name() -> None:
    """Three of five show a concept that a tenth of all show: likely enough among a hundred concepts."""
    everywhere = np.full(100, 100)
    counts, sizes = np.zeros((2, 100), np.int64), np.array([5, 50])
    counts[0, 7], counts[1, 8] = 3, 30
    lift, seen = over_represented(counts, sizes, everywhere, 1000)
    assert lift[0, 7] == pytest.approx(6)
    assert not seen[0].any()
    assert np.flatnonzero(seen[1]).tolist() == [8]
    assert hypergeom.sf(2, 1000, 100, 5) > 0.01 / 200


def test_samples_drawn_by_lot_give_hardly_any_name() -> None:
    dice = np.random.default_rng(0)
    shown = dice.random((5000, 200)) < dice.random(200) * 0.4
    labels = dice.integers(0, 50, 5000)
    counts = np.stack([shown[labels == c].sum(axis=0) for c in range(50)])
    _, seen = over_represented(counts, np.bincount(labels), shown.sum(axis=0), 5000)
    assert seen.sum() == 0
