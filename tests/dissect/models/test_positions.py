"""The arithmetic of positions, against what it means, element by element."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microtome.dissect.models.positions import (
    LOST,
    MIXED,
    NONE,
    Grids,
    cell_of,
    condensed,
    constant,
    grid_of,
    image_of,
    joined,
    on_own_grid,
    thinned,
    united,
)

CODES = (NONE, MIXED, LOST)


def test_an_id_names_image_grid_and_cell() -> None:
    grids = Grids(3)
    small, large = grids.fresh((2, 3)), grids.fresh((40, 50))
    assert grids.fresh((2, 3)) is small
    assert small.shape == (3, 1, 2, 3)
    for image, row, column in itertools.product(range(3), range(2), range(3)):
        one = small[image, 0, row, column]
        assert (int(image_of(one)), grids.size(int(grid_of(one))), int(cell_of(one))) == (
            image,
            (2, 3),
            row * 3 + column,
        )
    assert int(cell_of(large[2, 0, 39, 49])) == 1999
    assert len(torch.unique(torch.cat([small.flatten(), large.flatten()]))) == 3 * 6 + 3 * 2000
    assert torch.equal(grids.fresh((1, 1)), torch.full((3, 1, 1, 1), MIXED))  # one cell is no place


@given(st.data())
def test_what_is_joined_has_the_place_that_it_all_has(data: st.DataObject) -> None:
    """Against the obvious: one place and nothing else keeps it, nothing placed gives the worst code."""
    grids = Grids(2)
    known = [*grids.fresh((3, 4)).flatten().tolist()]
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    choice = st.sampled_from([*known[:3], *CODES])
    ids = torch.tensor([[data.draw(choice) for _ in range(columns)] for _ in range(rows)])
    several = False
    expected = []
    for row in ids.tolist():
        places = {one for one in row if one >= 0}
        several = several or len(places) > 1
        expected.append(places.pop() if len(places) == 1 else MIXED if places else min(row))
    out = joined(ids, [1], grids)
    assert out.shape == (rows,)
    for one, wanted, row in zip(out.tolist(), expected, ids.tolist(), strict=True):
        if all(x < 0 for x in row) or not several:
            assert one == wanted


def test_what_sees_everything_is_mixed_and_the_others_keep_their_places() -> None:
    """A class token beside patches, as the rows of a product of attention weights and values."""
    for size in ((4, 4), (7, 7)):  # of the odd one the centre is a cell
        grids = Grids(2)
        cells = grids.fresh(size).flatten(1)  # (2, n)
        count = cells.shape[1]
        rows = cells[:, :, None].expand(-1, -1, count)
        whole = torch.cat([cells[:, None], rows], 1)
        out = joined(whole, [-1], grids)
        assert out[:, 0].tolist() == [MIXED, MIXED]
        assert torch.equal(out[:, 1:], cells)


@pytest.mark.parametrize(("size", "patch"), [((4, 6), (2, 2)), ((6, 6), (3, 2)), ((2, 9), (2, 3))])
def test_patches_that_are_merged_make_up_a_grid(size: tuple[int, int], patch: tuple[int, int]) -> None:
    grids = Grids(2)
    ids = grids.fresh(size).expand(-1, 5, -1, -1)
    h, w = size[0] // patch[0], size[1] // patch[1]
    patches = ids.reshape(2, 5, h, patch[0], w, patch[1]).permute(0, 2, 4, 1, 3, 5).flatten(3)
    assert torch.equal(joined(patches, [3], grids), grids.fresh((h, w))[:, 0])


def test_places_of_several_images_are_no_place() -> None:
    grids = Grids(2)
    ids = grids.fresh((2, 2)).flatten(1)
    assert joined(ids, [0], grids).tolist() == [MIXED] * 4


def test_virtual_axes_stay_virtual() -> None:
    grids = Grids(2)
    ids = grids.fresh((3, 3)).expand(-1, 1000, -1, -1)
    assert condensed(ids).shape == (2, 1, 3, 3)
    assert joined(ids, [1], grids).shape == (2, 3, 3)
    assert united([ids, constant((2, 1000, 3, 3), NONE)], ids.shape, grids).stride(1) == 0
    assert joined(ids, [0, 1, 2, 3], grids).shape == ()
    assert torch.equal(joined(ids[:, :0], [1], grids), torch.full((2, 3, 3), NONE))


def slow_united(tensors: list[Tensor], shape: tuple[int, ...], grids: Grids) -> Tensor:
    """One element at a time, with the rules as the docstring has them."""
    wide = [tensor.expand(shape) for tensor in tensors]
    full = [tuple(tensor.shape) == shape for tensor in tensors]
    out = torch.empty(shape, dtype=torch.int64)
    for at in itertools.product(*map(range, shape)):
        values = sorted(zip(full, (int(tensor[at]) for tensor in wide), strict=True), key=lambda pair: not pair[0])
        best = values[0][1]
        for _, other in values[1:]:
            if best >= 0 and other >= 0 and best != other:
                if sum(full) == 1:
                    continue
                one, two = (_cells(grids, value) for value in (best, other))
                best = best if one > two else other if two > one else LOST
            elif best < 0:
                best = other if other >= 0 else min(best, other)
        out[at] = best
    return out


def _cells(grids: Grids, value: int) -> int:
    height, width = grids.size(int(grid_of(torch.tensor(value))))
    return height * width


@settings(max_examples=40)
@given(st.data())
def test_united_like_the_slow_one(data: st.DataObject) -> None:
    grids = Grids(2)
    fine, coarse = grids.fresh((2, 4)), grids.fresh((1, 2))
    pool = [*fine.flatten().tolist()[:3], *coarse.flatten().tolist()[:2], *CODES]
    shape = (2, 3, 2)
    tensors = []
    for _ in range(data.draw(st.integers(1, 3))):
        sizes = [data.draw(st.sampled_from([1, size])) for size in shape]
        count = sizes[0] * sizes[1] * sizes[2]
        drawn = data.draw(st.lists(st.sampled_from(pool), min_size=count, max_size=count))
        tensors.append(torch.tensor(drawn).view(sizes))
    assert torch.equal(united(tensors, shape, grids), slow_united(tensors, shape, grids))


def test_a_gate_does_not_move_its_stream() -> None:
    grids = Grids(2)
    stream, coarse = grids.fresh((4, 4)).expand(-1, 3, -1, -1), grids.fresh((2, 2))
    gate = torch.full((2, 3, 1, 1), MIXED)
    assert torch.equal(united([gate, stream], stream.shape, grids), stream)
    repeated = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).expand_as(stream)
    assert torch.equal(united([repeated, stream], stream.shape, grids), stream)  # the finer grid
    moved = stream.roll(1, 3)
    assert bool((united([moved, stream], stream.shape, grids) == LOST).all())


@pytest.mark.parametrize(("rows", "columns"), [((0, 2), (0, 2)), ((1, 2), (0, 1)), ((1, 3), (2, 3))])
def test_thinned_slices_are_a_smaller_grid(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    grids = Grids(2)
    ids = grids.fresh((6, 9)).expand(-1, 7, -1, -1)
    left = ids[:, :, rows[0] :: rows[1], columns[0] :: columns[1]]
    out = thinned(left, grids)
    assert torch.equal(out, grids.fresh((left.shape[2], left.shape[3])).expand(-1, 7, -1, -1))


def test_thinned_leaves_what_is_no_grid() -> None:
    grids = Grids(1)
    ids = grids.fresh((3, 3)).flatten()
    for left in (ids[::2], torch.full((4,), MIXED), torch.cat([ids, grids.fresh((2, 2)).flatten()])):
        assert torch.equal(thinned(left, grids), left)


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0.5, 9), st.floats(0, 3), st.randoms(use_true_random=False))
def test_points_on_their_own_grid(height: int, width: int, step: float, start: float, random: object) -> None:
    points = [(row, column) for row in range(height) for column in range(width)]
    random.shuffle(points)  # type: ignore[attr-defined]
    rows, columns = (torch.tensor([start + step * point[i] for point in points], dtype=torch.float64) for i in (0, 1))
    found = on_own_grid(rows, columns)
    if len(points) == 1:
        assert found is None
        return
    assert found is not None
    assert found[0] == (height, width)
    assert found[1].tolist() == [row * width + column for row, column in points]
    if min(height, width) > 1:
        assert on_own_grid(rows[1:], columns[1:]) is None
