"""The tally against full masks: equal to the last integer."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.dissect.maths.regions import Regions, find_regions
from microtome.dissect.maths.tally import CONVENTIONS, TallyCounts, tally
from microtome.storage.errors import UsageError


def random_case(seed: int, **fixed: int) -> dict[str, np.ndarray]:
    """A small case drawn from a seed: grids, labels, thresholds, holes, plateaus, missing categories."""
    rng = np.random.default_rng(seed)

    def draw(name: str, low: int, high: int) -> int:
        return fixed.get(name, int(rng.integers(low, high + 1)))

    n, units = draw("n", 1, 3), draw("units", 1, 4)
    h, w = draw("h", 1, 12), draw("w", 1, 12)
    height, width = draw("height", 1, 17), draw("width", 1, 17)
    planes, slots = draw("planes", 0, 3), draw("slots", 0, 2)
    concepts, categories, taus = draw("concepts", 1, 9), draw("categories", 1, 4), draw("taus", 1, 3)
    acts = rng.standard_normal((n, units, h, w))
    if rng.random() < 0.5:
        acts = np.maximum(acts, 0)
    if rng.random() < 0.4:
        acts = np.minimum(acts, 0.5)
    if rng.random() < 0.4:
        acts = np.round(acts * 2) / 2
    acts = acts.astype(np.float16)
    for value in (np.nan, np.inf, -np.inf, -0.0):
        if rng.random() < 0.3:
            acts[rng.random(acts.shape) < 0.1] = value
    thresholds = np.empty((units, taus), np.float16)
    for unit in range(units):
        pool = acts[:, unit][~np.isnan(acts[:, unit])]
        for tau in range(taus):
            thresholds[unit, tau] = rng.choice(pool) if pool.size and rng.random() < 0.9 else np.nan
    saturated = rng.random((units, taus)) < 0.3
    category_of = np.concatenate([[-1], rng.integers(0, categories, concepts)]).astype(np.int64)
    labels = rng.integers(0, concepts + 1, (n, planes, height, width)).astype(np.uint16)
    labels[rng.random(labels.shape) < 0.4] = 0
    labels[rng.random(n) < 0.3] = 0
    image_labels = rng.integers(0, concepts + 1, (n, slots)).astype(np.uint16)
    annotated = reference.annotated(labels, image_labels, category_of, categories)
    return {
        "acts": acts,
        "thresholds": thresholds,
        "saturated": saturated,
        "labels": labels,
        "image_labels": image_labels,
        "category_of": category_of,
        "annotated": annotated,
    }


def check(case: dict[str, np.ndarray], convention: str) -> None:
    counts = tally(**case, convention=convention)
    intersection, unit_pixels = reference.tally(*case.values(), convention)
    np.testing.assert_array_equal(counts.intersection, intersection)
    np.testing.assert_array_equal(counts.unit_pixels, unit_pixels)


@settings(deadline=None, max_examples=120)
@given(seed=st.integers(0, 2**32 - 1), convention=st.sampled_from(CONVENTIONS))
def test_equals_the_dense_reference(seed: int, convention: str) -> None:
    check(random_case(seed), convention)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), convention=st.sampled_from(CONVENTIONS))
def test_regions_that_pass_word_and_vector_ends(seed: int, convention: str) -> None:
    case = random_case(seed, n=1, units=1, height=9, width=150, w=70, h=3, slots=1)
    if seed % 2:
        case["labels"] = np.ascontiguousarray(case["labels"][:, :, :, ::30].repeat(30, axis=3)[:, :, :, :150])
        case["annotated"] = reference.annotated(
            case["labels"], case["image_labels"], case["category_of"], case["annotated"].shape[1]
        )
    check(case, convention)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("seed", range(6))
def test_fine_labels_and_large_ones_side_by_side(convention: str, seed: int) -> None:
    """Labels that change at every pixel are counted plane by plane, others by regions: both, sample by sample."""
    case = random_case(seed, n=3, units=3, h=5, w=6, height=40, width=70, planes=2, slots=1, concepts=9, categories=3)
    labels = case["labels"] = np.random.default_rng(seed).integers(0, 10, case["labels"].shape).astype(np.uint16)
    labels[1] = labels[1, :, ::20, ::35].repeat(20, axis=1).repeat(35, axis=2)
    case["annotated"] = reference.annotated(labels, case["image_labels"], case["category_of"], 3)
    named = [find_regions(sample.ravel(), 0, empty_regions(*sample.shape)) for sample in labels]
    assert named == [False, True, False]
    check(case, convention)


def empty_regions(planes: int, height: int, width: int) -> Regions:
    size = height * width
    return (
        np.empty((height, width), np.int32),
        np.empty((height, width), np.int32),
        np.empty((size, planes), np.uint16),
        np.empty(size, np.int64),
    )


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (14, 14), (7, 5), (40, 40), (20, 65), (3, 130)])
@pytest.mark.parametrize("size", [(1, 1), (20, 20), (28, 33)])
def test_grids_coarser_equal_and_finer_than_the_labels(grid: tuple[int, int], size: tuple[int, int]) -> None:
    check(random_case(7, h=grid[0], w=grid[1], height=size[0], width=size[1], n=1, units=2, planes=2), "image")


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), convention=st.sampled_from(CONVENTIONS))
def test_any_split_merges_to_the_same_counts(seed: int, convention: str) -> None:
    case = random_case(seed, n=4)
    whole = tally(**case, convention=convention)
    total = TallyCounts.from_arrays(
        {name: np.zeros_like(array) + 0 * array for name, array in whole.to_arrays().items() if array.ndim}
        | {"convention": whole.to_arrays()["convention"]}
    )
    for sample in (2, 0, 3, 1):
        part = {
            name: value[sample : sample + 1] if name in ("acts", "labels", "image_labels", "annotated") else value
            for name, value in case.items()
        }
        total.merge(TallyCounts.from_arrays(tally(**part, convention=convention).to_arrays()))
    np.testing.assert_array_equal(total.intersection, whole.intersection)
    np.testing.assert_array_equal(total.unit_pixels, whole.unit_pixels)


def test_counts_pass_32_bits_by_merging() -> None:
    case = random_case(3, n=1, units=1, h=2, w=2, height=16, width=16, planes=1, slots=0, taus=1, concepts=1)
    case["acts"][:] = [[1, 2], [3, 4]]
    case["thresholds"][:] = 0
    case["saturated"][:] = False
    case["labels"][:] = 1
    case["annotated"][:] = True
    counts = tally(**case, convention="all")
    assert counts.intersection[0, 0].tolist() == [0, 256]
    for _ in range(30):
        counts.merge(TallyCounts.from_arrays(counts.to_arrays()))
    assert counts.intersection[0, 0].tolist() == [0, 2**38]
    assert counts.unit_pixels[0, 0, 0] == 2**38


def test_the_same_arrays_in_any_memory_order() -> None:
    case = random_case(11, n=2, planes=2)
    whole = tally(**case)
    turned = {
        name: np.asfortranarray(value) if isinstance(value, np.ndarray) else value for name, value in case.items()
    }
    np.testing.assert_array_equal(tally(**turned).intersection, whole.intersection)


def test_what_does_not_fit_is_refused() -> None:
    case = random_case(5, n=2, planes=1, concepts=3)
    with pytest.raises(UsageError, match="no IoU convention 'sum'"):
        tally(**case, convention="sum")
    with pytest.raises(UsageError, match="concept id 77"):
        tally(**(case | {"labels": np.full_like(case["labels"], 77)}))
    with pytest.raises(ValueError, match="float16"):
        tally(**(case | {"acts": case["acts"].astype(np.float32)}))
    with pytest.raises(ValueError, match="saturated"):
        tally(**(case | {"saturated": case["saturated"][:, :0]}))
    with pytest.raises(ValueError, match="annotated"):
        tally(**(case | {"annotated": case["annotated"][:1]}))
    with pytest.raises(UsageError, match="conventions"):
        tally(**case, convention="all").merge(tally(**case))
