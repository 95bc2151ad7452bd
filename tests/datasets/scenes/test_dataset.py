"""Scenes: the same picture for the same seed and index, whoever asks, at any size, with planes that fit it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from microtome.datasets.base import ImageDataset
from microtome.datasets.scenes import ScenesDataset
from microtome.storage.errors import UsageError

_DIGEST = """
import hashlib
from microtome.datasets.scenes import ScenesDataset
sample = ScenesDataset(50, size=64, seed=3).read(41)
print(hashlib.sha256(sample.image.tobytes() + sample.planes.tobytes()).hexdigest())
"""


def test_is_an_image_dataset() -> None:
    assert isinstance(ScenesDataset(3), ImageDataset)


@pytest.mark.parametrize("size", [16, 50, 128])
def test_shapes_and_types(size: int) -> None:
    dataset = ScenesDataset(2, size=size)
    sample = dataset.read(1)
    assert sample.image.shape == (size, size, 3)
    assert sample.image.dtype == np.uint8
    assert sample.planes.shape == (len(dataset.plane_names), size, size)
    assert sample.planes.dtype == np.uint16
    assert sample.image_labels.shape == (dataset.image_label_slots,)
    assert sample.image_labels.dtype == np.uint16


def test_a_scene_does_not_depend_on_the_count() -> None:
    few, many = ScenesDataset(5, size=48), ScenesDataset(10_000, size=48)
    for index in range(5):
        assert few.entry(index) == many.entry(index)
        np.testing.assert_array_equal(few.read(index).image, many.read(index).image)
        np.testing.assert_array_equal(few.read(index).planes, many.read(index).planes)


def test_seeds_and_indices_give_different_scenes() -> None:
    pictures = [ScenesDataset(3, size=48, seed=seed).read(i).image.tobytes() for seed in (0, 1) for i in range(3)]
    assert len(set(pictures)) == 6


def test_threads_and_processes_agree() -> None:
    dataset = ScenesDataset(50, size=64, seed=3)
    alone = [dataset.read(index) for index in range(30, 50)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(dataset.read, range(30, 50)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.planes, other.planes)
    answers = [
        subprocess.run([sys.executable, "-c", _DIGEST], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert answers[0] == answers[1] != ""


def test_two_sizes_show_the_same_scene() -> None:
    small, large = ScenesDataset(40, size=64), ScenesDataset(40, size=256)
    agreement = []
    for index in range(40):
        coarse, fine = small.read(index), large.read(index)
        np.testing.assert_array_equal(coarse.image_labels, fine.image_labels)
        agreement.append((coarse.planes[0] == fine.planes[0][2::4, 2::4]).mean())
    assert np.mean(agreement) > 0.93
    assert small.truth(7) == large.truth(7)


def test_ids_belong_to_the_category_of_their_plane() -> None:
    dataset = ScenesDataset(60, size=48)
    category = np.array(["", *(concept.category for concept in dataset.concepts)])
    for index in range(60):
        sample = dataset.read(index)
        for plane, name in zip(sample.planes, dataset.plane_names, strict=True):
            assert set(category[np.unique(plane)]) <= {"", name}
        assert set(category[sample.image_labels]) == {"scene"}
        assert (sample.planes[4] > 0).all(), "every pixel has a colour"


def test_all_concepts_occur() -> None:
    dataset = ScenesDataset(400, size=64)
    counts = np.zeros(len(dataset.concepts) + 1, np.int64)
    for index in range(400):
        sample = dataset.read(index)
        counts += np.bincount(sample.planes.ravel(), minlength=counts.size)
        counts[sample.image_labels] += 1
    missing = [concept.name for concept in dataset.concepts if counts[concept.id] == 0]
    assert missing == []


def test_concepts_are_numbered_from_one_and_named_once() -> None:
    concepts = ScenesDataset(1).concepts
    assert [concept.id for concept in concepts] == list(range(1, len(concepts) + 1))
    assert len({(concept.name, concept.category) for concept in concepts}) == len(concepts)
    assert {concept.category for concept in concepts} == {"object", "part", "material", "texture", "color", "scene"}


def test_entries_are_balanced_and_match_the_scene() -> None:
    dataset = ScenesDataset(6000, size=16)
    entries = [dataset.entry(index) for index in range(6000)]
    share = np.mean([entry.split == "val" for entry in entries])
    assert 0.18 < share < 0.22
    counts = np.bincount([entry.label for entry in entries if entry.label is not None])
    assert len(counts) == len(dataset.class_names)
    assert counts.min() > 400
    assert len({entry.key for entry in entries}) == 6000
    for index in range(20):
        label = entries[index].label
        assert label is not None
        assert dataset.class_names[label] == dataset.truth(index).kind
        assert dataset.concepts[int(dataset.read(index).image_labels[0]) - 1].name == dataset.truth(index).kind


def test_big_things_of_the_truth_are_in_the_object_plane() -> None:
    dataset = ScenesDataset(150, size=96)
    ids = {concept.name: concept.id for concept in dataset.concepts if concept.category == "object"}
    for index in range(150):
        last = dataset.truth(index).things[-1:]
        plane = dataset.read(index).planes[0]
        for thing in last:
            name = "person" if thing.name == "skier" else thing.name
            if 0.1 < thing.x < 0.9 and thing.height > 0.2 and thing.y - thing.height / 2 < 0.95:
                assert (plane == ids[name]).any(), f"scene {index}: {thing} is on top and not to be seen"


def test_fingerprint_covers_every_option() -> None:
    prints = {
        ScenesDataset(10).fingerprint(),
        ScenesDataset(11).fingerprint(),
        ScenesDataset(10, size=64).fingerprint(),
        ScenesDataset(10, seed=1).fingerprint(),
    }
    assert len(prints) == 4
    assert ScenesDataset(10).fingerprint() == ScenesDataset(10, 128, 0).fingerprint()


def test_spec_names_what_differs_from_the_default() -> None:
    assert ScenesDataset(10).spec == "scenes:10"
    assert ScenesDataset(10, size=64, seed=2).spec == "scenes:10?size=64&seed=2"


@pytest.mark.parametrize(("count", "size", "seed"), [(0, 128, 0), (-1, 128, 0), (1, 8, 0), (1, 9999, 0), (1, 64, -1)])
def test_bad_options_are_refused(count: int, size: int, seed: int) -> None:
    with pytest.raises(UsageError, match="scenes:"):
        ScenesDataset(count, size=size, seed=seed)


@pytest.mark.parametrize("index", [-1, 5])
def test_indices_outside_the_dataset_are_refused(index: int) -> None:
    with pytest.raises(IndexError, match="of 5"):
        ScenesDataset(5).read(index)
