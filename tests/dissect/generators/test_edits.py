"""Edits of a generator: exact where they apply, absent elsewhere, in layers of any layout and size."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.generators import KINDS, write_generators
from helpers.painter import SQUARE, write_painter
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from microtome.dissect.generators.edits import BOX_CELLS, Edit, Region, ablation, applied, at_grid, edited
from microtome.dissect.generators.generator import Generator, open_generator
from microtome.dissect.generators.recipes import edited_pictures
from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.layouts import Layout
from microtome.dissect.models.places import Place
from microtome.dissect.models.sites import Site
from microtome.storage.errors import UnknownNameError, UsageError

SEEDS = range(3, 9)
LAYERS = {"plain": "mid", "styled": "second", "conditional": "up", "decoder": "layers.3"}


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return open_generator(f"{write_painter(tmp_path_factory.mktemp('painter'))}:painter")


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_generators(tmp_path_factory.mktemp("nets"))


def held(generator: Generator, layer: str, edits: list[Edit], where: NDArray[np.float64] | None = None) -> torch.Tensor:
    """What a layer gives as the rest of the network sees it."""
    got: list[torch.Tensor] = []

    def keep(module: nn.Module, given: object, made: torch.Tensor) -> None:
        got.append(made.clone())

    with torch.no_grad(), applied(generator.model, edits, where):
        handle = generator.model.module.get_submodule(layer).register_forward_hook(keep)
        generator.images(generator.latents(SEEDS))
        handle.remove()
    return got[0]


def overlap_slowly(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float64]:
    """The share of each cell's area that a mask covers, by fractions."""

    def shares(size: int, cells: int) -> list[list[Fraction]]:
        rows = []
        for cell in range(cells):
            low, high = Fraction(cell, cells), Fraction(cell + 1, cells)
            part = [min(high, Fraction(j + 1, size)) - max(low, Fraction(j, size)) for j in range(size)]
            rows.append([max(length, Fraction(0)) * cells for length in part])
        return rows

    rows, columns = (shares(size, cells) for size, cells in zip(mask.shape, grid, strict=True))
    found = np.zeros(grid)
    for i, j in np.ndindex(grid):
        found[i, j] = float(
            sum(rows[i][a] * columns[j][b] for a, b in np.ndindex(mask.shape) if mask[a, b]) or Fraction(0)
        )
    return found


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_a_region_covers_cells_by_area(size: tuple[int, int], grid: tuple[int, int], seed: int) -> None:
    mask = np.random.default_rng(seed).random(size) < 0.5
    np.testing.assert_allclose(at_grid(mask[None], grid)[0], overlap_slowly(mask, grid), atol=1e-12)
    assert (at_grid(np.ones((1, *size)), grid) == 1).all()


def test_a_box_is_a_grid_of_its_sides() -> None:
    region = Region.box(0.25, 0.5, 0.75, 1)
    assert region.share == pytest.approx(0.25)
    assert region.sides == (0.25, 0.5, 0.75, 1.0)
    assert region == Region.box(*region.sides)
    assert hash(region) == hash(Region.box(*region.sides))
    assert region != Region.box(0.25, 0.5, 0.75, 0.9)
    assert Region.box(0.5, 0.5, 0.5001, 0.5001).share == 1 / BOX_CELLS**2, "at least one cell"
    assert Region.box(0.9999, 0, 1, 1).share == 1 / BOX_CELLS
    assert Region(np.eye(4, dtype=bool)).sides is None
    with pytest.raises(ValueError, match="read-only"):
        region.grid[0, 0] = True


@pytest.mark.parametrize(
    "sides", [(0, 0, 0, 1), (0.5, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, math.nan, 1, 1)]
)
def test_what_is_no_box_is_refused(sides: tuple[float, float, float, float]) -> None:
    with pytest.raises(UsageError, match=r"give top,left,bottom,right as fractions"):
        Region.box(*sides)


@pytest.mark.parametrize("grid", [np.zeros((0, 3), bool), np.zeros(3, bool), np.zeros((2, 2), int)])
def test_what_is_no_grid_is_refused(grid: NDArray[np.generic]) -> None:
    with pytest.raises(UsageError, match=r"grid \(h, w\) of true and false"):
        Region(grid)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("units", "values", "strength"),
    [
        ((), (), 1.0),
        ((1, 1), (0.0, 0.0), 1.0),
        ((-1,), (0.0,), 1.0),
        ((1,), (0.0, 1.0), 1.0),
        ((1,), (math.nan,), 1.0),
        ((1,), (1e39,), 1.0),
        ((1,), (0.0,), math.inf),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(
    units: tuple[int, ...], values: tuple[float, ...], strength: float
) -> None:
    with pytest.raises(UsageError, match="edit of mix"):
        Edit("mix", units, values, strength=strength)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "translator"])
def test_units_hold_their_values_and_others_what_they_held(nets: Path, kind: str) -> None:
    generator = open_generator(f"{nets}:{kind}")
    layer = LAYERS[kind]
    before, after = held(generator, layer, []), held(generator, layer, [Edit(layer, (5, 1), (2.5, -1.0))])
    assert (after[:, 5] == 2.5).all()
    assert (after[:, 1] == -1).all()
    rest = [unit for unit in range(before.shape[1]) if unit not in (1, 5)]
    assert torch.equal(after[:, rest], before[:, rest])


def test_nothing_is_left_behind(painter: Generator) -> None:
    before = painter.pictures(SEEDS)
    with applied(painter.model, [ablation("mix", [SQUARE])]):
        assert (painter.pictures(SEEDS) != before).any()
    with contextlib.suppress(RuntimeError), applied(painter.model, [ablation("mix", [SQUARE])]):
        raise RuntimeError
    assert (painter.pictures(SEEDS) == before).all()


def test_strength_goes_from_untouched_to_the_value(painter: Generator) -> None:
    before = held(painter, "mix", [])
    for strength in (0.0, 0.25, 0.75, 1.0, -1.0):
        found = held(painter, "mix", [Edit("mix", (1,), (3.0,), strength=strength)])[:, 1]
        expected = before[:, 1] + strength * (3.0 - before[:, 1])
        torch.testing.assert_close(found, expected)
    assert torch.equal(held(painter, "mix", [Edit("mix", (1,), (3.0,), strength=0.0)]), before)


def test_an_edit_that_leaves_no_finite_image_is_named(tmp_path: Path) -> None:
    file = write_generators(tmp_path)
    text = "\n\nclass Unbounded(Plain):\n    def forward(self, z):\n"
    text += "        images = 1000 * self.end(self.mid(self.start(z[..., None, None])))\n"
    text += "        return torch.where(z[:, :1, None, None] < -1, images / 0, images)\n"
    file.write_text(file.read_text() + text)
    generator = open_generator(f"{file}:Unbounded")
    with pytest.raises(UsageError, match=r"edit of mid: with unit 2 set to 3e\+38 the images of .* are not finite"):
        edited_pictures(generator, [ablation("mid", [3]), Edit("mid", (1, 2), (1.0, 3e38))], [0])
    spoilt = next(seed for seed in range(100) if generator.latents([seed])[0][0, 0] < -1)
    with pytest.raises(UsageError, match=f"Unbounded gives values that are not finite for seed {spoilt};"):
        edited_pictures(generator, [ablation("mid", [3])], [0, spoilt])


def test_a_region_limits_an_edit(painter: Generator) -> None:
    before = held(painter, "mix", [])
    after = held(painter, "mix", [Edit("mix", (1,), (7.0,), Region.box(0.25, 0, 0.75, 0.5))])[:, 1]
    assert (after[:, 2:6, :4] == 7).all()
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[2:6, :4] = False
    assert torch.equal(after[:, outside], before[:, 1][:, outside])
    half = held(painter, "mix", [Edit("mix", (1,), (7.0,), Region.box(0, 0, 1 / 16, 1))])[:, 1]
    torch.testing.assert_close(half[:, 0], before[:, 1, 0] + 0.5 * (7 - before[:, 1, 0]))


def test_each_image_may_have_a_region_of_its_own(painter: Generator) -> None:
    before = held(painter, "mix", [])
    where = np.zeros((len(SEEDS), 16, 16))
    for row in range(len(SEEDS)):
        where[row, 2 * row : 2 * row + 2] = 1
    after = held(painter, "mix", [ablation("mix", [1], 7.0)], where)[:, 1]
    for row in range(len(SEEDS)):
        assert (after[row, row] == 7).all()
        rest = [other for other in range(8) if other != row]
        assert torch.equal(after[row, rest], before[row, 1, rest])
    with pytest.raises(UsageError, match="regions of 2 images for a batch of 6"):
        held(painter, "mix", [ablation("mix", [1])], where[:2])


def test_edits_of_a_layer_follow_each_other(painter: Generator) -> None:
    left, top = Region.box(0, 0, 1, 0.5), Region.box(0, 0, 0.5, 1)
    found = held(painter, "mix", [Edit("mix", (1,), (1.0,), left), Edit("mix", (1,), (2.0,), top)])[:, 1]
    assert (found[:, :4] == 2).all()
    assert (found[:, 4:, :4] == 1).all()


def test_gradients_pass_through_an_edit(painter: Generator) -> None:
    latents = tuple(part.clone().requires_grad_() for part in painter.latents(SEEDS))
    with applied(painter.model, [ablation("mix", [SQUARE], 0.0, Region.box(0, 0, 0.5, 1))]):
        painter.images(latents).sum().backward()
    assert latents[0].grad is not None


def test_values_are_seen_by_the_next_layers_in_place(nets: Path) -> None:
    """`mid` is followed by a ReLU that works in place on what an edit made."""
    generator = open_generator(f"{nets}:plain")
    with applied(generator.model, [ablation("mid", range(12))]):
        pictures = generator.pictures(range(4))
    assert (pictures == pictures[:1]).all(), "nothing of the latent is left"


def test_tokens_behind_a_prefix() -> None:
    layout = Layout(1, (5, 3), (2,), (2, 2), (1, 2, 3, 4))
    raw = torch.arange(30.0).view(2, 5, 3)
    site = Site(None, "tokens", Place("tokens", 1, layout))  # type: ignore[arg-type]
    everywhere = edited(raw, site, ablation("tokens", [1], -1.0))
    assert (everywhere[..., 1] == -1).all()
    assert torch.equal(everywhere[..., [0, 2]], raw[..., [0, 2]])
    right = edited(raw, site, ablation("tokens", [1], -1.0, Region.box(0, 0.5, 1, 1)))
    assert (right[:, [2, 4], 1] == -1).all()
    assert torch.equal(right[:, [0, 1, 3]], raw[:, [0, 1, 3]])


def test_unknown_layers_and_units_are_refused_by_name(painter: Generator) -> None:
    with pytest.raises(UnknownNameError, match="mxi"), applied(painter.model, [ablation("mxi", [1])]):
        pass
    with (
        pytest.raises(UsageError, match="layer mix has units 0 to 7; there is no unit 9"),
        applied(painter.model, [ablation("mix", [2, 9])]),
    ):
        pass


def test_what_capture_sees_beside_an_edit(painter: Generator) -> None:
    """A capture that is opened within an edit sees what goes on."""
    with applied(painter.model, [ablation("mix", [SQUARE], 4.0)]), ActivationCapture(painter.model, ["mix"]) as capture:
        found = capture(painter.latents(SEEDS))["mix"]
    assert (found[:, SQUARE] == 4).all()
