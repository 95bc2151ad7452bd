"""Counts between candidates against one increment for every plane of every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.maths.information import CodedSamples, InformationCounts, count_information
from microtome.dissect.maths.levels import STEPS, edge_steps
from microtome.dissect.maths.tally import CONVENTIONS, Convention
from microtome.storage.errors import UsageError


def random_case(seed: int) -> dict[str, Any]:
    """Maps and labels of random sizes; edges that are values of the maps, or lie between them, of either sign or 0."""
    rng = np.random.default_rng(seed)
    n, units, planes, slots = (int(rng.integers(low, high)) for low, high in ((1, 5), (1, 4), (0, 4), (0, 3)))
    h, w = (int(size) for size in rng.integers(1, 9, 2))
    height, width = (int(size) for size in rng.integers(1, 50, 2))
    concepts, categories = int(rng.integers(1, rng.choice([4, 200]))), int(rng.integers(1, 4))
    acts = rng.standard_normal((n, units, h, w)) * 10.0 ** rng.choice([-7, -4, 0, 4])
    acts = np.maximum(acts, 0) if rng.random() < 0.5 else acts
    acts = np.round(acts * 2) / 2 if rng.random() < 0.4 else acts
    acts = np.clip(acts, -65504, 65504).astype(np.float16)
    for value in (np.nan, np.inf, -np.inf, -0.0):
        if rng.random() < 0.2:
            acts[rng.random(acts.shape) < 0.1] = value
    labels = rng.integers(0, concepts + 1, (n, planes, height, width))
    block = int(rng.choice([1, 5, 25]))
    labels = np.repeat(np.repeat(labels, block, axis=2), block, axis=3)[:, :, :height, :width].astype(np.uint16)
    labels[rng.random((n, planes)) < 0.3] = 0
    image_labels = rng.integers(0, concepts + 1, (n, slots)).astype(np.uint16)
    category_of = np.concatenate([[-1], rng.integers(0, categories, concepts)]).astype(np.int64)
    return {
        "acts": acts,
        "edges": random_edges(acts, rng),
        "labels": labels,
        "image_labels": image_labels,
        "category_of": category_of,
        "annotated": reference.annotated(labels, image_labels, category_of, categories),
        "halves": rng.integers(0, 2, n),
    }


def random_edges(acts: NDArray[np.float16], rng: np.random.Generator) -> NDArray[np.float32]:
    """(C, B), ascending, filled up with +inf: none at all for some units."""
    bins = int(rng.integers(1, 30))
    edges = np.full((acts.shape[1], bins), np.inf, np.float32)
    for unit in range(acts.shape[1]):
        values = acts[:, unit][np.isfinite(acts[:, unit])].astype(np.float64)
        own = rng.choice(values, 10) if values.size else np.zeros(0)
        own = np.concatenate([own, own * rng.random(own.size), [0.0, -0.0, 65504.0, -65504.0, 6e-8, -6e-8]])
        own = np.unique(own.astype(np.float16)[rng.random(own.size) < rng.choice([0.1, 0.9])])[:bins]
        edges[unit, : own.size] = own
    return edges


def slow_counts(case: dict[str, Any], convention: Convention) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One increment for every plane of every pixel, with `np.searchsorted` for its bin."""
    acts, edges, labels, category_of = (case[name] for name in ("acts", "edges", "labels", "category_of"))
    annotated, bins = case["annotated"], edges.shape[1]
    intersection = np.zeros((acts.shape[1], 2, len(category_of), bins + 1), np.int64)
    unit_pixels = np.zeros((acts.shape[1], 2, annotated.shape[1] + 1, bins + 1), np.int64)
    for sample, unit in np.ndindex(*acts.shape[:2]):
        half = case["halves"][sample]
        values = reference.upsampled(acts[sample, unit], *labels.shape[2:])
        found = np.searchsorted(edges[unit], np.where(np.isnan(values), -np.inf, values), side="left")
        found = np.minimum(found, np.isfinite(edges[unit]).sum())
        area = np.bincount(found.ravel(), minlength=bins + 1)
        highest = np.full(annotated.shape[1], -1)
        for plane in labels[sample]:
            np.add.at(intersection[unit, half], (plane, found), 1)
            for category in range(annotated.shape[1]):
                there = found[category_of[plane] == category]
                highest[category] = max(highest[category], there.max(initial=-1))
        for concept in case["image_labels"][sample]:
            if concept:
                intersection[unit, half, concept] += area
                highest[category_of[concept]] = bins
        unit_pixels[unit, half, -1] += area
        for category in range(annotated.shape[1]):
            if convention == "all" or (convention == "image" and annotated[sample, category]):
                unit_pixels[unit, half, category] += area
            elif convention == "mask" and highest[category] > 0:
                np.add.at(unit_pixels[unit, half, category], np.minimum(np.arange(bins + 1), highest[category]), area)
    intersection[:, :, 0] = 0
    nowhere = ~np.isfinite(edges).any(axis=1)
    intersection[nowhere] = unit_pixels[nowhere] = 0
    return intersection[..., 1:], unit_pixels[..., 1:]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(CONVENTIONS))
def test_counts_are_those_of_one_increment_a_plane_and_pixel(seed: int, convention: Convention) -> None:
    case = random_case(seed)
    found = count_information(**case, convention=convention)
    intersection, unit_pixels = slow_counts(case, convention)
    assert np.array_equal(found.intersection, intersection)
    assert np.array_equal(found.unit_pixels, unit_pixels)


@given(st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_steps_part_what_the_edges_part(values: list[float]) -> None:
    edges = np.unique(np.array(values, np.float32) + np.float32(0))[None]
    _, used, _, steps = edge_steps(edges)
    assert used.tolist() == [edges.size]
    assert np.all(np.diff(steps[0]) > 0)
    assert steps[0, -1] - steps[0, 0] + 2 <= STEPS
    assert np.array_equal(np.sign(steps[0]), np.sign(edges[0]))


def test_one_coding_serves_all_layers_and_blocks_of_units() -> None:
    case = random_case(7)
    arrays = [case[name] for name in ("labels", "image_labels", "category_of", "annotated", "halves")]
    samples = CodedSamples.of(*arrays)
    whole = count_information(**case)
    for unit in range(case["acts"].shape[1]):
        one = slice(unit, unit + 1)
        shape = (1, len(case["category_of"]) - 1, case["annotated"].shape[1], case["edges"].shape[1])
        counts = InformationCounts.empty(*shape)
        counts.update(case["acts"][:, one], case["edges"][one], samples)
        assert np.array_equal(counts.intersection, whole.intersection[one])


def test_no_samples_are_no_counts() -> None:
    case = random_case(3)
    none = {name: case[name] for name in ("edges", "category_of")}
    found = count_information(**{name: value[:0] for name, value in case.items() if name not in none}, **none)
    assert not found.intersection.any()
    assert not found.unit_pixels.any()


def test_what_does_not_fit_is_refused() -> None:
    case = random_case(7)
    with pytest.raises(ValueError, match="float16 numbers"):
        edge_steps(np.array([[0.1]], np.float32))
    with pytest.raises(ValueError, match="edges must be"):
        count_information(**{**case, "acts": case["acts"][:, :0]})
    with pytest.raises(ValueError, match="label maps"):
        count_information(**{**case, "halves": case["halves"][:0]})
    with pytest.raises(UsageError, match="no IoU convention"):
        count_information(**case, convention="none")  # type: ignore[arg-type]
    arrays = [case[name] for name in ("labels", "image_labels", "category_of", "annotated", "halves")]
    shape = (case["acts"].shape[1], len(case["category_of"]) - 1, case["annotated"].shape[1], case["edges"].shape[1])
    with pytest.raises(UsageError, match="convention 'mask'"):
        InformationCounts.empty(*shape).update(case["acts"], case["edges"], CodedSamples.of(*arrays, "mask"))
