"""A dataset in another order, and what tells its samples apart."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.images import street
from helpers.readers import check_reader

from microtome.datasets.formats.folder import FolderDataset
from microtome.datasets.scenes import ScenesDataset
from microtome.datasets.views.ordered import OrderedDataset
from microtome.datasets.views.view import sample_fingerprints, underlying
from microtome.storage.errors import UsageError


def test_the_named_come_first_and_the_others_follow(tmp_path: Path) -> None:
    folder = FolderDataset(street(tmp_path))
    view = OrderedDataset(folder, np.array([4, 1]))
    check_reader(view, same=OrderedDataset(FolderDataset(tmp_path), np.array([4, 1])))
    keys = [folder.entry(index).key for index in (4, 1, 0, 2, 3, 5)]
    assert [view.entry(index).key for index in range(len(view))] == keys
    assert view.fingerprint() not in (folder.fingerprint(), OrderedDataset(folder, np.array([1, 4])).fingerprint())
    assert underlying(view) is folder
    assert underlying(folder) is folder


@pytest.mark.parametrize("order", [[0, 6], [-1], [2, 2]])
def test_orders_that_are_none(tmp_path: Path, order: list[int]) -> None:
    with pytest.raises(UsageError, match="the order names"):
        OrderedDataset(FolderDataset(street(tmp_path)), np.array(order))


def test_fingerprints_of_samples_follow_the_order(tmp_path: Path) -> None:
    folder = FolderDataset(street(tmp_path))
    plain = sample_fingerprints(folder, 6)
    ordered = sample_fingerprints(OrderedDataset(folder, np.array([4, 1])), 3)
    assert plain is not None
    assert ordered is not None
    assert ordered.tolist() == plain[[4, 1, 0]].tolist()
    assert len(set(plain.tolist())) == 6


@pytest.mark.parametrize("file", ["images/train/001.png", "masks/object/train/001.png"])
def test_a_touched_file_changes_its_sample_alone(tmp_path: Path, file: str) -> None:
    root = street(tmp_path)
    before = sample_fingerprints(FolderDataset(root), 6)
    os.utime(root / file, ns=(1, 1))
    after = sample_fingerprints(FolderDataset(root), 6)
    assert before is not None
    assert after is not None
    assert np.flatnonzero(before != after).tolist() == [1]


def test_a_changed_table_of_classes_changes_every_sample(tmp_path: Path) -> None:
    root = street(tmp_path)
    before = sample_fingerprints(FolderDataset(root), 6)
    (root / "classes.csv").write_text((root / "classes.csv").read_text() + "\n")
    after = sample_fingerprints(FolderDataset(root), 6)
    assert before is not None
    assert after is not None
    assert (before != after).all()


def test_more_scenes_change_no_scene() -> None:
    few, many = sample_fingerprints(ScenesDataset(5), 5), sample_fingerprints(ScenesDataset(9), 5)
    others = [sample_fingerprints(dataset, 5) for dataset in (ScenesDataset(5, size=64), ScenesDataset(5, seed=1))]
    assert few is not None
    assert many is not None
    assert few.tolist() == many.tolist()
    assert all(other is not None and not (other == few).any() for other in others)
