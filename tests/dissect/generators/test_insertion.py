"""Insertion against a planted truth: a unit whose square the network draws on grass, and refuses in the sky."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.painter import GRASS, SQUARE, write_painter

from microtome.dissect.generators.edits import Edit, Region
from microtome.dissect.generators.effects import label_ids
from microtome.dissect.generators.generator import Generator, open_generator
from microtome.dissect.generators.insertion import (
    TOOK,
    UNLABELLED,
    Inserted,
    by_context,
    contexts,
    grid_of_places,
    insert,
    overall,
    pixels_of,
)
from microtome.dissect.generators.recipes import edited_pictures
from microtome.dissect.models.segmenters import Segmenter, load_segmenter
from microtome.storage.errors import UsageError

SEEDS = range(100, 124)
SETS = [Edit("mix", (SQUARE,), (1.0,)), Edit("mix", (5,), (1.0,)), Edit("mix", (GRASS + 5,), (1.0,))]
PLACES = grid_of_places(4, 4, (0.25, 0.25))


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Generator, Segmenter]:
    file = write_painter(tmp_path_factory.mktemp("painter"))
    return open_generator(f"{file}:painter"), load_segmenter(f"{file}:colours")


@pytest.fixture(scope="module")
def found(painter: tuple[Generator, Segmenter]) -> Inserted:
    generator, segmenter = painter
    return insert(generator, segmenter, SEEDS, SETS, PLACES, label_ids(segmenter, "square"), batch=10)


def test_places_go_from_corner_to_corner() -> None:
    places = grid_of_places(3, 2, (0.5, 0.25))
    assert places[0] == (0, 0, 0.5, 0.25)
    assert places[-1] == (0.5, 0.75, 1, 1)
    assert places[2] == (0.25, 0, 0.75, 0.25)
    assert grid_of_places(1, 1, (0.5, 0.5)) == [(0.25, 0.25, 0.75, 0.75)]
    tiles = sum(pixels_of(place, (32, 32)).astype(int) for place in grid_of_places(4, 4, (0.25, 0.25)))
    assert (tiles == 1).all()
    for wrong in ((0, 2, (0.5, 0.5)), (2, 2, (0.0, 0.5)), (2, 2, (0.5, 1.5))):
        with pytest.raises(UsageError, match="places"):
            grid_of_places(*wrong)


def test_a_place_smaller_than_a_pixel_is_the_pixel_there() -> None:
    inside = pixels_of((0.5, 0.26, 0.51, 0.27), (4, 4))
    assert inside.sum() == 1
    assert inside[2, 1]


def test_measures_are_those_of_one_image_at_a_time(painter: tuple[Generator, Segmenter], found: Inserted) -> None:
    """The slow way: a recipe's picture of one seed and one place, segmented by itself."""
    generator, segmenter = painter
    for latent, place in ((0, 0), (3, 13), (11, 14), (23, 15)):
        seed, inside = SEEDS[latent], pixels_of(PLACES[place], generator.size)
        edit = Edit("mix", (SQUARE,), (1.0,), Region.box(*PLACES[place]))
        pictures = generator.pictures([seed]), edited_pictures(generator, [edit], [seed])
        ids = [segmenter(torch.from_numpy(one).permute(0, 3, 1, 2) / 255)[0, 0].numpy() for one in pictures]
        came = (ids[1] == 0) & (ids[0] != 0)
        assert found.new[0, latent, place] == came[inside].mean()
        assert found.anywhere[0, latent, place] == came.mean()
        difference = np.abs(pictures[1][0] / 255 - pictures[0][0] / 255).mean(-1)[inside].mean()
        assert found.changed[0, latent, place] == pytest.approx(difference, abs=1e-5)
        assert found.held[latent, place] == (ids[0] == 0)[inside].mean()
        labels, counts = np.unique(ids[0][inside], return_counts=True)
        assert counts[labels == found.context[latent, place]] == counts.max()


def test_the_square_takes_on_grass_and_the_sky_refuses_it(found: Inserted) -> None:
    rows = {row.label: row for row in by_context(found)}
    grass, sky = rows[1], rows[2]
    assert grass.new.mean > 0.7
    assert grass.new.interval is not None
    assert grass.new.interval[0] <= grass.new.mean <= grass.new.interval[1]
    assert grass.verdict == "takes"
    assert sky.new.mean < 0.05
    assert sky.verdict == "refuses"
    assert sky.changed.mean < 0.05 < grass.changed.mean
    assert grass.random is not None
    assert grass.random.mean == 0
    assert grass.gain == grass.new
    assert sum(row.places for row in rows.values()) == overall(found).places == len(SEEDS) * len(PLACES)


def test_intervals_keep_the_places_of_a_latent_together(found: Inserted) -> None:
    """Against drawing latents one by one, as the bootstrap is told in books."""
    row = next(row for row in by_context(found, draws=400) if row.label == 1)
    inside = found.context == 1
    chances, means = np.random.default_rng(1), []
    for _ in range(400):
        drawn = chances.integers(0, len(inside), len(inside))
        means.append(found.new[0][drawn][inside[drawn]].mean())
    assert row.new.mean == pytest.approx(found.new[0][inside].mean())
    assert row.new.interval == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.02)


def test_few_latents_have_no_interval() -> None:
    context = np.zeros((6, 1), np.int64)
    context[:2] = UNLABELLED
    new = np.full((1, 6, 1), 0.5)
    rows = by_context(Inserted(context, np.zeros((6, 1)), new, new, new))
    assert {row.label: row.latents for row in rows} == {0: 4, UNLABELLED: 2}
    assert all(row.new.interval is None and row.verdict == "too few" for row in rows)
    assert all(row.random is None and row.gain is None for row in rows)


def test_what_random_units_draw_as_well_is_no_insertion() -> None:
    context = np.zeros((20, 2), np.int64)
    new = np.random.default_rng(0).uniform(0.4, 0.6, (2, 20, 2))
    (row,) = by_context(Inserted(context, np.zeros((20, 2)), new, new, new))
    assert row.new.mean > TOOK
    assert row.verdict == "unclear"


def test_the_context_counts_all_planes_and_pixels_without_any() -> None:
    ids = torch.full((2, 2, 2, 2), -1)
    ids[0, 0] = torch.tensor([[3, 3], [1, 2]])
    ids[0, 1] = torch.tensor([[-1, 1], [1, -1]])
    ids[1, 0, 0, 0] = 2
    places = torch.ones(1, 2, 2, dtype=torch.bool)
    assert contexts(ids, places, 4).tolist() == [[1], [UNLABELLED]]
