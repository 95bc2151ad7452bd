"""UMAP as an option: what it gives, and what is said where it is not installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from microtome.dissect.embedding import umap_map as module
from microtome.dissect.embedding.umap_map import check_umap, umap_map
from microtome.storage.errors import UsageError


@pytest.mark.slow
def test_digits_separate_and_the_seed_fixes_the_map() -> None:
    digits = load_digits()
    vectors = digits.data[:400].astype(np.float32)
    one = umap_map(vectors)
    assert one.shape == (400, 2)
    assert one.dtype == np.float32
    assert np.array_equal(one, umap_map(vectors))
    distances, near = NearestNeighbors(n_neighbors=16).fit(vectors).kneighbors(vectors)
    given = umap_map(vectors, graph=(near[:, 1:], distances[:, 1:]), initial=vectors[:, 20:22])
    for found in (one, given):
        assert cross_val_score(KNeighborsClassifier(10), found, digits.target[:400]).mean() > 0.9
    for few in (0, 3, 5):
        assert umap_map(vectors[:few]).shape == (few, 2)


def test_where_it_is_not_installed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "microtome\[umap\]"'):
        check_umap()
    with pytest.raises(UsageError, match="not installed"):
        umap_map(np.zeros((10, 3), np.float32))


def test_more_points_than_it_can_do_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_POINTS", 9)
    with pytest.raises(UsageError, match="UMAP of 10 points"):
        umap_map(np.zeros((10, 3), np.float32))
    with pytest.raises(UsageError, match="--no-umap"):
        check_umap(10)
    check_umap(9)
