"""What edits change, against obvious references and a planted truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.painter import GRASS, SQUARE, write_painter
from numpy.typing import NDArray

from microtome.dissect.generators.edits import Region, ablation, applied
from microtome.dissect.generators.effects import (
    areas_of,
    label_ids,
    mask_of,
    paired,
    removed,
    removed_on_average,
)
from microtome.dissect.generators.generator import Generator, open_generator
from microtome.dissect.generators.perceptual import Eye
from microtome.dissect.models.segmenters import Segmenter, load_segmenter
from microtome.storage.errors import UnknownNameError

SEEDS = range(50, 75)


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Generator, Segmenter]:
    file = write_painter(tmp_path_factory.mktemp("painter"))
    return open_generator(f"{file}:painter"), load_segmenter(f"{file}:colours")


def test_areas_count_a_label_once_at_a_pixel() -> None:
    ids = torch.randint(-1, 4, (3, 3, 5, 7), generator=torch.Generator().manual_seed(0))
    expected = [[(ids[image] == label).any(0).float().mean().item() for label in range(4)] for image in range(3)]
    np.testing.assert_allclose(areas_of(ids, 4), expected, rtol=1e-6)


def test_areas_before_and_after_are_those_of_single_images(painter: tuple[Generator, Segmenter]) -> None:
    generator, segmenter = painter
    sets = [[ablation("mix", [SQUARE])], [ablation("mix", [4, 5])]]
    told: list[int] = []
    found = paired(generator, segmenter, SEEDS, sets, batch=7, advance=told.append)
    assert sum(told) == len(SEEDS) * 3
    for row, seed in enumerate(SEEDS):
        for number, edits in enumerate([[], *sets]):
            with applied(generator.model, edits):
                picture = torch.from_numpy(generator.pictures([seed])).permute(0, 3, 1, 2) / 255
            expected = areas_of(segmenter(picture), len(segmenter.labels))[0]
            mine = found.before[row] if not number else found.after[number - 1, row]
            np.testing.assert_allclose(mine, expected)


def test_the_unit_of_the_square_removes_it_wholly_and_others_nothing(painter: tuple[Generator, Segmenter]) -> None:
    generator, segmenter = painter
    found = paired(generator, segmenter, SEEDS, [[ablation("mix", [SQUARE])], [ablation("mix", [4, 5, 6])]])
    square, grass = (label_ids(segmenter, name)[0] for name in ("square", "grass"))
    mine, random = (removed(found.before, after) for after in found.after)
    assert (mine.value[square], mine.low[square], mine.high[square]) == (1, 1, 1)
    assert mine.value[grass] <= 0, "there is grass where the square was"
    assert (random.value[[square, grass]] == 0).all()


def test_a_region_removes_what_is_within(painter: tuple[Generator, Segmenter]) -> None:
    generator, segmenter = painter
    square = label_ids(segmenter, "square")
    left = Region.box(0, 0, 1, 0.5)
    with torch.no_grad():
        latents = generator.latents(SEEDS)
        before = mask_of(segmenter(generator.images(latents)), square, 0)
        with applied(generator.model, [ablation("mix", [SQUARE], region=left)]):
            after = mask_of(segmenter(generator.images(latents)), square, 0)
    assert before[:, :, :16].any()
    assert not after[:, :, :16].any()
    np.testing.assert_array_equal(after[:, :, 16:], before[:, :, 16:])


def test_the_mask_of_a_concept_limits_edits_to_it(painter: tuple[Generator, Segmenter]) -> None:
    """Grass goes only near the square when grass is ablated within the square's mask."""
    generator, segmenter = painter
    square, grass = label_ids(segmenter, "square"), label_ids(segmenter, "grass")[0]
    edits = [[ablation("mix", [GRASS])]]
    everywhere = paired(generator, segmenter, SEEDS, edits)
    within = paired(generator, segmenter, SEEDS, edits, where=lambda ids: mask_of(ids, square))
    shares = [removed(one.before, one.after[0]).value[grass] for one in (everywhere, within)]
    assert shares[0] > 0.9
    assert 0 <= shares[1] < 0.3


def grown_slowly(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    found = np.zeros_like(mask)
    for row, column in zip(*np.nonzero(mask), strict=True):
        found[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = True
    return found


def test_a_mask_is_grown_by_a_share_of_the_side() -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(-1, 9, (2, 2, 32, 40)))
    mask = np.isin(ids.numpy(), [3]).any(axis=1)
    for share, reach in ((0.0, 0), (1 / 32, 1), (0.1, 3)):
        grown = mask_of(ids, np.array([3]), share)
        for image in range(2):
            np.testing.assert_array_equal(grown[image] == 1, grown_slowly(mask[image], reach))


def test_the_interval_is_the_bootstrap_over_latents() -> None:
    dice = np.random.default_rng(1)
    before = dice.random((40, 2))
    after = before * dice.random((40, 2))
    found = removed(before, after, draws=4000)
    np.testing.assert_allclose(found.value, 1 - after.sum(0) / before.sum(0))
    slow = []
    for _ in range(4000):
        rows = dice.integers(0, 40, 40)
        slow.append(1 - after[rows].sum(0) / before[rows].sum(0))
    low, high = np.percentile(slow, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(found.low, low, atol=0.01)
    np.testing.assert_allclose(found.high, high, atol=0.01)
    again = removed(before, after, draws=4000)
    np.testing.assert_array_equal(again.low, found.low)


def test_a_concept_that_was_not_there_has_no_share() -> None:
    before = np.zeros((5, 2))
    before[0, 1] = 0.5
    found = removed(before, np.ones((5, 2)))
    assert np.isnan([found.value[0], found.low[0], found.high[0]]).all()
    assert found.value[1] == -9
    assert np.isfinite([found.low[1], found.high[1]]).all(), "draws without it are left out"


def test_the_mean_over_sets_spreads_over_latents_and_sets() -> None:
    dice = np.random.default_rng(2)
    before = dice.random((30, 1))
    after = np.stack([before * share for share in (0.2, 0.5, 0.8)])
    found = removed_on_average(before, after)
    assert found.value[0] == pytest.approx(0.5)
    assert found.low[0] < 0.35
    assert found.high[0] > 0.65
    same = removed_on_average(before, np.stack([before * 0.5] * 3))
    np.testing.assert_allclose([same.low[0], same.high[0]], 0.5)


def test_labels_by_name(painter: tuple[Generator, Segmenter]) -> None:
    segmenter = painter[1]
    twice = replace(segmenter, labels=("a", "b", "a"), categories=("x", "x", "y"))
    assert label_ids(twice, "a").tolist() == [0, 2]
    with pytest.raises(UnknownNameError, match="did you mean square"):
        label_ids(segmenter, "sqare")


def test_what_changes_within_the_mask_is_not_seen_outside() -> None:
    dice = torch.Generator().manual_seed(0)
    before = torch.rand(2, 3, 64, 64, generator=dice)
    after = before.clone()
    after[:, :, 16:48, 16:48] = 0
    outside = np.ones((2, 64, 64))
    outside[:, 16:48, 16:48] = 0
    eye = Eye(torch.device("cpu"))
    found = eye.change(before, after, outside)
    assert (found.pixels == 0).all()
    np.testing.assert_allclose(found.features, 0, atol=1e-6)
    everywhere = eye.change(before, after, np.ones((2, 64, 64)))
    expected = (after - before).abs().mean((1, 2, 3)).double().numpy()
    np.testing.assert_allclose(everywhere.pixels, expected, rtol=1e-5)
    assert (everywhere.features > 0.01).all()
    assert np.isnan(eye.change(before, after, np.zeros((2, 64, 64))).pixels).all()
