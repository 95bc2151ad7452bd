"""The contract of a dataset reader, checked on any reader: `check_reader(dataset)`."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from microtome.datasets.base import Entry, ImageDataset, Labels, ReadsLabels, Sample
from microtome.storage.errors import SampleError


def check_reader(dataset: ImageDataset, *, samples: int = 8, same: ImageDataset | None = None) -> None:
    """Fail where `dataset` breaks the interface; reads the first `samples`.

    same: the same data opened once more; it has to give the same everything.
    """
    assert isinstance(dataset, ImageDataset)
    _check_description(dataset)
    indices = list(range(min(samples, len(dataset))))
    alone = [_outcome(dataset, index) for index in indices]
    for index, outcome in zip(indices, alone, strict=True):
        _check_entry(dataset, dataset.entry(index))
        if isinstance(outcome, Sample):
            _check_sample(dataset, outcome)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda index: _outcome(dataset, index), indices * 3))
    for index, outcome in zip(indices * 3, together, strict=True):
        _check_equal(alone[index], outcome)
    for outside in (len(dataset), len(dataset) + 7, -1):
        with pytest.raises(IndexError):
            dataset.entry(outside)
        with pytest.raises(IndexError):
            dataset.read(outside)
        if isinstance(dataset, ReadsLabels):
            with pytest.raises(IndexError):
                dataset.read_labels(outside)
    if isinstance(dataset, ReadsLabels):
        for index in indices:
            _check_labels(dataset, index, alone[index])
    for other in (pickle.loads(pickle.dumps(dataset)), *([same] if same is not None else [])):
        assert other.fingerprint() == dataset.fingerprint()
        assert list(other.concepts) == list(dataset.concepts)
        for index in indices:
            assert other.entry(index) == dataset.entry(index)
            _check_equal(alone[index], _outcome(other, index))


def _check_description(dataset: ImageDataset) -> None:
    assert dataset.spec
    assert len(dataset) > 0
    assert [concept.id for concept in dataset.concepts] == list(range(1, len(dataset.concepts) + 1))
    named = [(concept.name, concept.category) for concept in dataset.concepts]
    assert len(set(named)) == len(named)
    assert all(name and category and category == category.lower() for name, category in named)
    assert len(set(dataset.plane_names)) == len(dataset.plane_names)
    assert dataset.image_label_slots >= 0
    assert len(dataset.fingerprint()) >= 8
    assert dataset.fingerprint() == dataset.fingerprint()


def _check_entry(dataset: ImageDataset, entry: Entry) -> None:
    assert entry.key
    entry.key.encode()
    assert entry.label is None or 0 <= entry.label < len(dataset.class_names)


def _check_sample(dataset: ImageDataset, sample: Sample) -> None:
    image, planes, image_labels = sample.image, sample.planes, sample.image_labels
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.writeable
    assert planes.dtype == np.uint16
    assert planes.ndim == 3
    assert len(planes) == len(dataset.plane_names)
    assert min(planes.shape[1:]) > 0
    if planes.any():
        assert abs(planes.shape[1] / planes.shape[2] - image.shape[0] / image.shape[1]) < 0.2
    assert image_labels.dtype == np.uint16
    assert image_labels.shape == (dataset.image_label_slots,)
    assert planes.max(initial=0) <= len(dataset.concepts)
    assert image_labels.max(initial=0) <= len(dataset.concepts)
    _check_once_a_pixel(planes)
    of_image = image_labels[image_labels > 0]
    assert len(set(of_image.tolist())) == len(of_image)
    assert not np.isin(planes, of_image).any()


def _check_once_a_pixel(planes: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> None:
    for second in range(len(planes)):
        for first in range(second):
            assert not ((planes[first] == planes[second]) & (planes[first] > 0)).any()


def _check_labels(dataset: ReadsLabels, index: int, outcome: Sample | tuple[str, str]) -> None:
    """Labels read by themselves are those of the sample; what is wrong with the image alone is not noticed."""
    labels: Labels | tuple[str, str]
    try:
        labels = dataset.read_labels(index)
    except SampleError as error:
        labels = error.key, error.reason
    if not isinstance(labels, Labels):
        assert labels == outcome
    elif isinstance(outcome, Sample):
        np.testing.assert_array_equal(labels.planes, outcome.planes)
        np.testing.assert_array_equal(labels.image_labels, outcome.image_labels)


def _outcome(dataset: ImageDataset, index: int) -> Sample | tuple[str, str]:
    try:
        return dataset.read(index)
    except SampleError as error:
        return error.key, error.reason


def _check_equal(first: Sample | tuple[str, str], second: Sample | tuple[str, str]) -> None:
    if not isinstance(first, Sample) or not isinstance(second, Sample):
        assert first == second
        return
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.planes, second.planes)
    np.testing.assert_array_equal(first.image_labels, second.image_labels)
