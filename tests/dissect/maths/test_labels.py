from __future__ import annotations

import numpy as np
import pytest
from helpers import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.dissect.maths.labels import LabelCounts, count_labels
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
