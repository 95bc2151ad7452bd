from __future__ import annotations

import numpy as np
import pytest
from helpers import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.dissect.maths.labels import LabelCounts, count_labels, presence_bits
from microtome.storage.errors import UsageError


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 2**32 - 1))
def test_equal_the_reference_whatever_the_split(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, planes, slots, concepts = rng.integers(1, 4), rng.integers(0, 4), rng.integers(0, 3), int(rng.integers(1, 9))
    labels = rng.integers(0, concepts + 1, (n, planes, *rng.integers(1, 9, 2))).astype(np.uint16)
    labels[rng.random(n) < 0.4] = 0
    image_labels = rng.integers(0, concepts + 1, (n, slots)).astype(np.uint16)
    category_of = np.concatenate([[-1], rng.integers(0, 3, concepts)])
    parts = [
        count_labels(some, few, concepts, category_of, 3)
        for some, few in zip(np.array_split(labels, n), np.array_split(image_labels, n), strict=True)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(LabelCounts.from_arrays(part.to_arrays()))
    pixels, images = reference.label_counts(labels, image_labels, concepts)
    np.testing.assert_array_equal(total.pixels, pixels)
    np.testing.assert_array_equal(total.images, images)
    np.testing.assert_array_equal(total.annotated, reference.annotated(labels, image_labels, category_of, 3))


def test_an_image_label_counts_every_pixel() -> None:
    labels = np.zeros((1, 1, 5, 7), np.uint16)
    counts = count_labels(labels, np.array([[2, 0]], np.uint16), 2, [-1, 0, 1], 2)
    assert counts.pixels.tolist() == [0, 0, 35]
    assert counts.annotated.tolist() == [[False, True]]


def test_ids_that_do_not_exist_are_refused() -> None:
    labels = np.full((1, 1, 2, 2), 9, np.uint16)
    with pytest.raises(UsageError, match="concept id 9"):
        count_labels(labels, np.zeros((1, 0), np.uint16), 3, [-1, 0, 0, 0], 1)


def test_presence_is_a_bit_for_each_concept_that_occurs() -> None:
    rng = np.random.default_rng(3)
    labels = np.where(rng.random((6, 2, 5, 4)) < 0.8, 0, rng.integers(0, 18, (6, 2, 5, 4))).astype(np.uint16)
    image_labels = rng.integers(0, 18, (6, 2)).astype(np.uint16)
    bits = presence_bits(labels, image_labels, 17)
    assert bits.shape == (6, 3)
    there = np.unpackbits(bits, axis=1, bitorder="little")
    for sample in range(6):
        occurring = {*labels[sample].ravel().tolist(), *image_labels[sample].tolist()} - {0}
        assert set(np.flatnonzero(there[sample]).tolist()) == occurring
    assert not presence_bits(np.zeros((2, 0, 3, 3), np.uint16), np.zeros((2, 0), np.uint16), 4).any()
    with pytest.raises(UsageError, match="concept id 17"):
        presence_bits(np.full((1, 1, 1, 1), 17, np.uint16), np.zeros((1, 0), np.uint16), 16)
