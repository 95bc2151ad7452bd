"""Every reader keeps the contract of `ImageDataset`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.images import photo, save, street
from helpers.readers import check_reader
from helpers.real import real_kit

from microtome.datasets.formats.folder import FolderDataset
from microtome.datasets.specs import open_dataset


def test_folder(tmp_path: Path) -> None:
    path = street(tmp_path)
    check_reader(FolderDataset(path), same=FolderDataset(path))


def test_folder_with_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = street(tmp_path)
    save(path / "images/train/000.jpg", b"")
    save(path / "images/train/notes.txt", b"not an image")
    save(path / "masks/parts/val/002.png", b"\x89PNG broken")
    check_reader(FolderDataset(path), samples=20)


def test_folder_of_images_alone(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", photo())
    check_reader(FolderDataset(tmp_path))


def test_scenes() -> None:
    check_reader(open_dataset("scenes:40?size=64&seed=3"), same=open_dataset("scenes:40?size=64&seed=3"))


def test_camvid() -> None:
    photos = real_kit() / "camvid"
    dataset = FolderDataset(photos)
    check_reader(dataset, samples=4, same=FolderDataset(photos))
    assert len(dataset) == 468
    assert dataset.plane_names == ("labels",)
    assert [concept.name for concept in dataset.concepts][:4] == ["sky", "building", "pole", "road"]
    assert {dataset.entry(index).split for index in range(len(dataset))} == {"train", "val"}
    shares = np.zeros(12)
    for index in range(0, 468, 13):
        shares += np.bincount(dataset.read(index).planes.ravel(), minlength=12)
    shares /= shares.sum()
    assert shares[1] > 0.05  # sky: the number 0, which is listed
    assert 0 < shares[0] < 0.1  # void: the number 11, which is not
    assert set(dataset.unknown_ids()) == {"labels"}
    assert set(dataset.unknown_ids()["labels"]) == {11}
