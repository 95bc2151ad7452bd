"""Codes of label planes against the planes themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.maths import codes
from microtome.dissect.maths.codes import Codes, code_labels


def decoded(coded: Codes, planes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Concepts of every pixel (n, H, W, P), descending, with 0 for none; class of each sample (n,)."""
    pixels, layers, begins, ends, class_of, members, first = coded
    n, _, height, width = pixels.shape
    found, classes = np.zeros((n, height, width, planes), np.int64), np.full(n, -1)
    for group, (begin, end) in enumerate(itertools.pairwise(begins.tolist())):
        for sample in range(begin, end):
            every = []
            for layer in range(layers[sample]):
                number = pixels[sample, layer].astype(np.int64) + ends[group]
                assert number.max() < ends[group + 1]
                assert (first[number] == (layer == 0)).all()
                every.append(members[number].astype(np.int64))
                (classes[sample],) = set(class_of[number].ravel().tolist())
            found[sample] = -np.sort(-np.concatenate(every, axis=-1), axis=-1)[..., :planes]
    return found, classes


def expected(labels: NDArray[np.uint16]) -> NDArray[np.int64]:
    return -np.sort(-labels.astype(np.int64).transpose(0, 2, 3, 1), axis=-1)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([3, 1024]), st.sampled_from([1, 4, 32]))
def test_every_pixel_keeps_its_labels_and_its_class(seed: int, concepts: int, block: int) -> None:
    """Few concepts and many, in noise and in blocks: groups that end and that do not, planes together and apart."""
    rng = np.random.default_rng(seed)
    n, planes, height, width = (int(rng.integers(low, high)) for low, high in ((1, 7), (0, 5), (1, 40), (1, 40)))
    labels = rng.integers(0, concepts + 1, (n, planes, height, width))
    labels = np.repeat(np.repeat(labels, block, axis=2), block, axis=3)[:, :, :height, :width]
    labels = labels.astype(np.uint16)
    labels[rng.random((n, planes)) < 0.2] = 0
    class_of = rng.integers(0, 3, n)
    found, classes = decoded(code_labels(labels, class_of), planes)
    assert np.array_equal(found, expected(labels))
    assert np.array_equal(classes, class_of)


def test_few_combinations_are_one_layer_and_noise_is_several() -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 9, (2, 3, 2, 2)), np.ones((32, 32), np.int64)).astype(np.uint16)
    noise = rng.integers(0, 700, (2, 3, 64, 64)).astype(np.uint16)
    class_of = np.zeros(2, np.int64)
    assert code_labels(blocks, class_of)[1].tolist() == [1, 1]
    assert code_labels(noise, class_of)[1].tolist() == [3, 3]


def test_a_group_ends_where_codes_become_too_many() -> None:
    labels = np.arange(4 * 60 * 10, dtype=np.uint16).reshape(4, 1, 60, 10)  # 600 codes a sample, none in common
    _, _, begins, ends, _, _, _ = code_labels(labels, np.zeros(4, np.int64))
    assert begins.tolist() == [0, 1, 2, 3, 4]
    assert np.diff(ends).tolist() == [600] * 4
    assert codes.CODES_AT_ONCE < 1200
    same = np.repeat(labels[:1], 4, axis=0)
    assert code_labels(same, np.zeros(4, np.int64))[2].tolist() == [0, 4]


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4)])
def test_nothing_to_code(shape: tuple[int, int, int, int]) -> None:
    coded = code_labels(np.zeros(shape, np.uint16), np.zeros(shape[0], np.int64))
    assert coded[2].tolist() == ([0, 2] if shape[0] else [0])
    assert coded[1].tolist() == [1] * shape[0]
