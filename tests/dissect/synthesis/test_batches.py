"""Batches in which an image has the bits that it has alone."""

from __future__ import annotations

import time
from threading import Event

import pytest
import torch
from torch import Tensor

from microtome.dissect.synthesis.batches import Batches, beside_each_other, filled, find_batches, starts_of


def network(values: dict[int, float]):  # type: ignore[no-untyped-def]
    """Gradients by the size of the batch."""

    def gradient(copies: int) -> Tensor:
        return torch.full((copies, 2), values[copies])

    return gradient


def test_all_sizes_serve_where_all_give_the_same() -> None:
    found = find_batches(network({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}), 8, 100)
    assert found == Batches((8, 4, 2, 1), 1, True)


def test_a_size_that_differs_is_left_out() -> None:
    found = find_batches(network({1: 1.0, 2: 1.0, 4: 1.5, 6: 1.0}), 6, 100)
    assert found == Batches((6, 2, 1), 1, True)


def test_one_alone_is_filled_where_only_the_others_agree() -> None:
    found = find_batches(network({1: 1.0, 2: 2.0, 4: 2.0, 8: 1.5}), 8, 100)
    assert found == Batches((4, 2, 1), 2, True)


@pytest.mark.parametrize(
    ("values", "fill"),
    [
        ({1: 1.0, 2: 2.0, 3: 2.0, 4: 2.0, 5: 3.0, 8: 1.0, 16: 1.0}, 2),
        ({1: 1.0, 2: 2.0, 3: 2.0, 4: 3.0, 5: 1.0, 8: 4.0, 16: 1.0}, 1),
        ({1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0, 5: 2.0, 8: 2.0, 16: 2.0}, 1),
    ],
)
def test_neither_the_largest_batch_nor_the_number_of_images_changes_an_image(
    values: dict[int, float], fill: int
) -> None:
    for most in (1, 2, 3, 4, 5, 8, 16):
        for images in (1, 2, 3, 100):
            found = find_batches(network(values), most, images)
            assert found.fill == fill
            assert {values[max(size, fill if size == 1 else 1)] for size in found.sizes} == {values[fill]}


def test_where_none_agree_it_is_said() -> None:
    found = find_batches(network({1: 1.0, 2: 2.0, 4: 3.0, 8: 4.0, 16: 5.0}), 4, 100)
    assert found == Batches((4, 2, 1), 1, False)


def test_one_image_takes_little_looking() -> None:
    assert find_batches(network({1: 1.0, 2: 1.0}), 16, 1) == Batches((1,), 1, True)


@pytest.mark.parametrize(("images", "workers", "expected"), [(7, 1, [4, 2, 1]), (8, 2, [4, 4]), (3, 2, [2, 1])])
def test_a_plan_takes_every_image_once(images: int, workers: int, expected: list[int]) -> None:
    plan = Batches((4, 2, 1), 1, True).plan(images, workers)
    assert plan == expected
    covered = [number for part in starts_of(plan) for number in range(images)[part]]
    assert covered == list(range(images))


def test_one_is_filled_up_and_more_are_not() -> None:
    assert filled(torch.ones(1, 3), 2).shape == (2, 3)
    assert filled(torch.ones(3, 3), 2).shape == (3, 3)


def test_results_come_in_order_and_leaving_is_told() -> None:
    told: list[Event] = []

    def work(number: int, gone: Event) -> int:
        told.append(gone)
        time.sleep(0.02 * (number == 0))
        return number

    assert list(beside_each_other(work, 5, 2)) == [0, 1, 2, 3, 4]
    results = beside_each_other(work, 50, 2)
    next(results)
    results.close()
    assert told[-1].is_set()
    assert len(told) < 50
