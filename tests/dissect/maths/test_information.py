"""Thresholds of most information against dense maps and loops, and against the tally."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.dissect.maths.information import (
    CHOOSING,
    JUDGING,
    MIN_INFORMATION,
    Columns,
    InformationCounts,
    Population,
    candidates,
    count_information,
    halves_of,
    information_ratio,
    most_informative,
)
from microtome.dissect.maths.scoring import MIN_IOU
from microtome.dissect.maths.tally import CONVENTIONS, Convention, tally
from microtome.dissect.maths.thresholds import CoarseHistogram, FineHistogram, exact_thresholds, plan_fine
from microtome.storage.errors import UsageError


def random_case(seed: int) -> dict[str, Any]:
    """A small case drawn from a seed: grids finer and coarser than the labels, holes, plateaus, edges that tie."""
    rng = np.random.default_rng(seed)
    n, units, planes, slots = (int(rng.integers(low, high)) for low, high in ((1, 5), (1, 4), (0, 3), (0, 2)))
    h, w, height, width = (int(size) for size in rng.integers(1, 13, 4))
    concepts, categories, levels = (int(rng.integers(1, high)) for high in (7, 4, 3))
    acts = rng.standard_normal((n, units, h, w))
    if rng.random() < 0.5:
        acts = np.maximum(acts, 0)
    if rng.random() < 0.4:
        acts = np.round(acts * 2) / 2
    if rng.random() < 0.2:
        acts[:, 0] = rng.choice([0.0, 1.5])
    acts = acts.astype(np.float16)
    for value in (np.nan, np.inf, -np.inf, -0.0):
        if rng.random() < 0.3:
            acts[rng.random(acts.shape) < 0.1] = value
    labels = rng.integers(0, concepts + 1, (n, planes, height, width)).astype(np.uint16)
    labels[rng.random(n) < 0.3] = 0
    for plane in range(1, planes):  # a concept counts once at a pixel: readers see to that
        labels[:, plane][(labels[:, plane, None] == labels[:, :plane]).any(axis=1)] = 0
    image_labels = rng.integers(0, concepts + 1, (n, slots)).astype(np.uint16)
    for sample in range(n):
        for slot in range(slots):
            labels[sample][labels[sample] == image_labels[sample, slot]] = 0
    category_of = np.concatenate([[-1], rng.integers(0, categories, concepts)]).astype(np.int64)
    return {
        "acts": acts,
        "edges": candidates(histogram(acts), levels),
        "labels": labels,
        "image_labels": image_labels,
        "category_of": category_of,
        "annotated": reference.annotated(labels, image_labels, category_of, categories),
        "halves": rng.integers(0, 2, n),
    }


def histogram(acts: NDArray[np.float16]) -> CoarseHistogram:
    coarse = CoarseHistogram.empty(acts.shape[1])
    coarse.update(acts)
    return coarse


def population_of(case: dict[str, Any], convention: Convention) -> Population:
    found = Population.empty(len(case["category_of"]) - 1, case["annotated"].shape[1])
    arrays = (case[name] for name in ("labels", "image_labels", "category_of", "annotated", "halves"))
    found.update(*arrays, convention=convention)
    return found


def table_of(case: dict[str, Any], convention: Convention) -> Columns:
    counts = count_information(**case, convention=convention)
    return most_informative(counts, population_of(case, convention), case["edges"], case["category_of"])


def dense_table(case: dict[str, Any], convention: Convention) -> list[dict[str, float]]:
    """The same table pair by pair and candidate by candidate, from full masks."""
    acts, labels, categories = case["acts"], case["labels"], case["category_of"]
    area = labels.shape[2] * labels.shape[3]
    rows = []
    for unit in range(acts.shape[1]):
        edges = [float(edge) for edge in case["edges"][unit] if math.isfinite(edge)]
        maps = [reference.upsampled(acts[sample, unit], *labels.shape[2:]) for sample in range(len(acts))]
        for concept in range(1, len(categories)):
            found = []
            for edge in edges:
                tables = np.zeros((2, 4), np.int64)  # both, mask, concept, pixels
                for sample, values in enumerate(maps):
                    with np.errstate(invalid="ignore"):
                        inside = values > np.float32(edge)
                    there = np.zeros(inside.shape, bool)
                    for plane in labels[sample]:
                        there |= plane == concept
                    there |= bool(np.any(case["image_labels"][sample] == concept))
                    admitted = convention == "all" or case["annotated"][sample, categories[concept]]
                    touches = any(
                        np.any(inside & np.isin(plane, np.flatnonzero(categories == categories[concept])))
                        for plane in labels[sample]
                    ) or any(c and categories[c] == categories[concept] for c in case["image_labels"][sample])
                    counts = admitted and (convention != "mask" or touches)
                    tables[case["halves"][sample]] += [
                        int((inside & there).sum()),
                        int(inside.sum()) * counts,
                        int(there.sum()),
                        area * admitted,
                    ]
                found.append(tables)
            ratios = [slow_ratio(*tables[CHOOSING]) for tables in found]
            if not ratios or max(ratios) < MIN_INFORMATION:
                continue
            best = next(i for i, ratio in enumerate(ratios) if ratio >= max(ratios) - 1e-12)
            if found[best][:, 0].sum() == 0:
                continue
            iou = [one[0] / (one[1] + one[2] - one[0]) if one[1] + one[2] > 0 else 0.0 for one in found[best]]
            with np.errstate(invalid="ignore"):
                share = np.mean([values > np.float32(edges[best]) for values in maps])
            rows.append(
                {
                    "unit": unit,
                    "concept": concept,
                    "threshold": edges[best],
                    "information": ratios[best],
                    "share": float(share),
                    "iou_half": iou[CHOOSING],
                    "iou": iou[JUDGING],
                    "intersection": found[best][JUDGING][0],
                    "unit_pixels": found[best][JUDGING][1],
                    "concept_pixels": found[best][JUDGING][2],
                }
            )
    return rows


def slow_ratio(both: int, mask: int, concept: int, pixels: int) -> float:
    """I / H term by term: sum of p(x, y) log(p(x, y) / (p(x) p(y))) by that of -p(x, y) log p(x, y)."""
    cells = {(1, 1): both, (1, 0): mask - both, (0, 1): concept - both, (0, 0): pixels - mask - concept + both}
    px = {1: mask, 0: pixels - mask}
    py = {1: concept, 0: pixels - concept}
    terms = [(c / pixels, math.log(c * pixels / (px[x] * py[y]))) for (x, y), c in cells.items() if c]
    joint = -sum(p * math.log(p) for p, _ in terms)
    return sum(p * log for p, log in terms) / joint if joint > 0 else 0.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(CONVENTIONS))
def test_the_table_is_that_of_full_masks(seed: int, convention: Convention) -> None:
    case = random_case(seed)
    found, expected = table_of(case, convention), dense_table(case, convention)
    assert list(zip(found["unit"].tolist(), found["concept"].tolist(), strict=True)) == [
        (row["unit"], row["concept"]) for row in expected
    ]
    for name in expected[0] if expected else []:
        assert found[name].tolist() == pytest.approx([row[name] for row in expected], rel=1e-9, abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(CONVENTIONS))
def test_counts_at_a_threshold_are_those_of_the_tally(seed: int, convention: Convention) -> None:
    case = random_case(seed)
    counts = count_information(**case, convention=convention)
    edges = case["edges"]
    arrays = [case[name] for name in ("labels", "image_labels", "category_of", "annotated")]
    for level in range(edges.shape[1]):
        at = np.where(np.isfinite(edges[:, level]), edges[:, level], np.nan).astype(np.float16)[:, None]
        expected = tally(case["acts"], at, np.zeros(at.shape, bool), *arrays, convention=convention)
        both = counts.intersection[:, :, :, level:].sum(axis=(1, 3))
        assert np.array_equal(both[:, 1:], expected.intersection[0][:, 1:])
        assert np.array_equal(counts.unit_pixels[:, :, :-1, level:].sum(axis=(1, 3)), expected.unit_pixels[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(CONVENTIONS))
def test_counts_merge_in_any_order(seed: int, convention: Convention) -> None:
    case = random_case(seed)
    whole = count_information(**case, convention=convention)
    merged = InformationCounts.empty(
        len(whole.intersection), len(case["category_of"]) - 1, case["annotated"].shape[1], whole.intersection.shape[3],
        convention,
    )  # fmt: skip
    population = Population.empty(len(case["category_of"]) - 1, case["annotated"].shape[1])
    for sample in reversed(range(len(case["acts"]))):
        shared = {name: case[name] for name in ("edges", "category_of")}
        one = {name: value[sample : sample + 1] for name, value in case.items() if name not in shared} | shared
        merged.merge(count_information(**one, convention=convention))
        population.merge(population_of(one, convention))
    assert np.array_equal(whole.intersection, merged.intersection)
    assert np.array_equal(whole.unit_pixels, merged.unit_pixels)
    assert np.array_equal(population.pixels, population_of(case, convention).pixels)
    assert np.array_equal(population.concepts, population_of(case, convention).concepts)


def test_counts_of_other_conventions_do_not_merge() -> None:
    with pytest.raises(UsageError, match="cannot merge"):
        InformationCounts.empty(1, 1, 1, 1, "image").merge(InformationCounts.empty(1, 1, 1, 1, "all"))
    with pytest.raises(ValueError, match="at most 255"):
        InformationCounts.empty(1, 1, 1, 256)


@given(st.integers(0, 10**6), st.integers(1, 10))
@settings(max_examples=60, deadline=None)
def test_candidates_ascend_below_the_maximum(seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    acts = (rng.standard_normal((2, 3, 5, 5)) * 10.0 ** rng.integers(-8, 5)).astype(np.float16)
    acts[:, 1] = np.maximum(acts[:, 1], 0)
    acts[:, 2] = rng.choice([0.0, -3.0])
    if rng.random() < 0.3:
        acts[0, 0, 0, 0] = np.inf
    also = np.array([[acts[0, 0, 1, 1]], [np.nan], [np.nan]], np.float16)
    edges = candidates(histogram(acts), steps, also)
    assert edges.shape == (3, 12 * steps + 31 + 1)
    assert np.isinf(edges[2]).all()
    for unit in range(2):
        finite = edges[unit][np.isfinite(edges[unit])]
        assert np.all(np.diff(finite) > 0)
        assert np.isinf(edges[unit][len(finite) :]).all()
        assert np.all(finite < np.nanmax(acts[:, unit].astype(np.float32)))
        assert np.array_equal(finite.astype(np.float16).astype(np.float32), finite)
    if np.isfinite(also[0, 0]) and also[0, 0] < acts[:, 0].max():
        assert np.float32(also[0, 0]) in edges[0]


def test_candidates_lie_where_only_upsampled_values_do() -> None:
    acts = np.zeros((8, 1, 8, 8), np.float16)
    acts[:, 0, 2:4, 2:4] = 1 + np.linspace(-0.1, 0.1, 32).reshape(8, 2, 2)
    edges = candidates(histogram(acts))[0]
    assert np.diff(edges[np.isfinite(edges)]).max() < 1.1 / 31
    assert np.abs(edges - 0.5).min() < 0.02


def test_candidates_are_near_the_quantiles() -> None:
    acts = np.random.default_rng(0).standard_normal((64, 1, 32, 32)).astype(np.float16)
    edges = candidates(histogram(acts))[0]
    above = np.array([(acts > edge).mean() for edge in edges])
    assert len(above) == 96 + 31
    assert above[0] == pytest.approx(0.5, rel=0.01)
    many = above[above > 0.001]
    assert len(many) > 66
    assert (many[1:] / many[:-1]).min() > 0.8


def test_dead_and_constant_units_have_no_rows_and_absent_concepts_neither() -> None:
    rng = np.random.default_rng(3)
    acts = rng.random((6, 3, 4, 4)).astype(np.float16)
    acts[:, 0] = 0
    acts[:, 1] = 2.5
    labels = (rng.random((6, 1, 8, 8)) < 0.3).astype(np.uint16)
    labels[:, 0, :4] += np.uint16(2)  # ids 2 and 3 above, 0 and 1 below; 4 is nowhere
    case = {
        "acts": acts,
        "edges": candidates(histogram(acts), 2),
        "labels": labels,
        "image_labels": np.zeros((6, 0), np.uint16),
        "category_of": np.array([-1, 0, 0, 0, 0]),
        "annotated": np.ones((6, 1), bool),
        "halves": halves_of(np.arange(6)),
    }
    found = table_of(case, "image")
    assert set(found["unit"].tolist()) <= {2}
    assert 4 not in found["concept"]


def test_of_equal_information_the_lowest_threshold_counts() -> None:
    """The unit has three values, so every candidate between two of them gives the same mask."""
    acts = np.zeros((4, 1, 8, 8), np.float16)
    acts[:, :, :, 4:] = 8.0
    labels = (acts > 0).astype(np.uint16)
    acts[0, 0, 0, 0] = 9.0
    edges = np.array([[1.0, 2.0, 4.0, 8.5]], np.float32)
    case = {
        "acts": acts,
        "edges": edges,
        "labels": labels,
        "image_labels": np.zeros((4, 0), np.uint16),
        "category_of": np.array([-1, 0]),
        "annotated": np.ones((4, 1), bool),
        "halves": np.array([1, 0, 0, 1]),
    }
    found = table_of(case, "image")
    assert found["threshold"].tolist() == [1.0]
    assert found["information"].tolist() == pytest.approx([1.0])
    assert found["iou_half"].tolist() == [1.0]
    assert found["iou"].tolist() == pytest.approx([64 / 65])


def test_a_concept_that_covers_a_fifth_is_found_where_a_fixed_tau_cannot() -> None:
    """At tau 0.005 a mask of 0.5% reaches an IoU of at most 0.025 with a concept of 20%."""
    rng = np.random.default_rng(8)
    labels = np.zeros((40, 1, 20, 20), np.uint16)
    for sample in range(40):
        top, left = rng.integers(0, 12, 2)
        labels[sample, 0, top : top + 9, left : left + 9] = 1
    noise = rng.standard_normal((40, 2, 20, 20))
    acts = noise.astype(np.float16)
    acts[:, 0] = (noise[:, 0] * 0.3 + 4 * labels[:, 0]).astype(np.float16)
    coarse = histogram(acts)
    fine = FineHistogram.empty(plan_fine(coarse, [0.005]))
    fine.update(acts)
    fixed = exact_thresholds(coarse, fine, [0.005])
    case = {
        "acts": acts,
        "labels": labels,
        "image_labels": np.zeros((40, 0), np.uint16),
        "category_of": np.array([-1, 0]),
        "annotated": np.ones((40, 1), bool),
    }
    at_tau = tally(thresholds=fixed.for_masks, saturated=fixed.saturated, **case)
    pixels = int((labels == 1).sum())
    assert at_tau.intersection[0, 0, 1] / pixels < MIN_IOU
    case |= {"edges": candidates(coarse, also=fixed.for_masks), "halves": halves_of(np.arange(40))}
    found = table_of(case, "image")
    assert found["unit"].tolist() == [0]
    assert found["iou"][0] > 0.95
    assert found["iou_half"][0] > 0.95
    assert found["share"][0] == pytest.approx(pixels / labels.size, rel=0.05)


def test_halves_are_equal_and_follow_from_the_number_alone() -> None:
    found = halves_of(np.arange(1000))
    assert found.sum() == 500
    assert (found[::2] + found[1::2] == 1).all()
    assert 0.4 < found[::2].mean() < 0.6
    assert np.array_equal(halves_of(np.arange(300, 700)), found[300:700])
    assert found[:16].tolist() == [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0]


def test_information_is_one_for_the_same_and_nought_for_the_independent() -> None:
    same = information_ratio(np.array(30), np.array(30), np.array(30), np.array(100))
    independent = information_ratio(np.array(6), np.array(20), np.array(30), np.array(100))
    nothing = information_ratio(np.array(0), np.array(0), np.array(0), np.array(0))
    assert float(same) == pytest.approx(1.0)
    assert float(independent) == pytest.approx(0.0, abs=1e-12)
    assert float(nothing) == 0.0
