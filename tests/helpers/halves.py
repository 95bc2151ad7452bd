"""Whether the grid of a layer is the image's: change a part of the image, and see which positions change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from microtome.dissect.models import ActivationCapture, LayerInfo, Model, ReceptiveField

Box = tuple[float, float, float, float]  # top, left, bottom, right, as shares of the image

LEFT, RIGHT, TOP, BOTTOM = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
HALVES: tuple[Box, ...] = (LEFT, RIGHT, TOP, BOTTOM)
SPOTS: tuple[Box, ...] = ((0.125, 0.625, 0.25, 0.75), (0.625, 0.25, 0.75, 0.375), (0.5, 0.75, 0.625, 0.875))
TOLERANCE = 1e-6  # of the largest value of a layer: what rounding may change


def changes(model: Model, names: Sequence[str], boxes: Sequence[Box], *, rounds: int = 1) -> dict[str, Tensor]:
    """How much each position of layers changes when one box of a noise image is replaced by other noise.

    (boxes, h, w) by layer: the root of the mean square over units and over `rounds` pairs of images, as a share of the
    layer's largest value.
    """
    every = [_changes(model, names, boxes, seed) for seed in range(rounds)]
    return {name: torch.stack([each[name] for each in every]).mean(0).sqrt() for name in names}


def _changes(model: Model, names: Sequence[str], boxes: Sequence[Box], seed: int) -> dict[str, Tensor]:
    image, other = model.noise(2, seed=seed)
    height, width = image.shape[1:]
    batch = image.repeat(1 + len(boxes), 1, 1, 1)
    for changed, box in zip(batch[1:], boxes, strict=True):
        top, left, bottom, right = (round(b * n) for b, n in zip(box, (height, width) * 2, strict=True))
        changed[:, top:bottom, left:right] = other[:, top:bottom, left:right]

    def change(name: str, maps: Tensor) -> Tensor:
        maps = maps.detach().double()
        return (maps[1:] - maps[:1]).square().mean(1) / maps.square().max().clamp(min=1e-60)

    with ActivationCapture(model, names, transform=change) as capture:
        return capture(batch)


def enliven(module: nn.Module) -> None:
    """Draw anew, small, what is about zero at the start and would silence a whole branch."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.abs().max() < 1e-3:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def misplaced_halves(change: Tensor, field: ReceptiveField | None = None, size: tuple[int, int] = (0, 0)) -> str:
    """What is wrong with the `changes` (4, h, w) for HALVES; "" if nothing.

    A position whose place is inside the half that was replaced must change. One whose receptive `field` in an image of
    `size` has no pixel in it must not.
    """
    for index, half in enumerate(HALVES):
        grid = (change.shape[1], change.shape[2])
        inside, stay = _inside(half, grid), change[index] == 0
        if bool((stay & inside).any()):
            return f"of {int(inside.sum())} positions in the half {half}, {int((stay & inside).sum())} stay"
        if field is not None:
            apart, changed = _apart(half, field, grid, size), change[index] > TOLERANCE
            if bool((changed & apart).any()):
                return f"of {int(apart.sum())} positions apart from {half}, {int((changed & apart).sum())} change"
    return ""


def misplaced_spots(change: Tensor) -> str:
    """What is wrong with the `changes` (spots, h, w) for SPOTS: none may be far from where its layer changes most."""
    grid = (change.shape[1], change.shape[2])
    for box, each in zip(SPOTS, change, strict=True):
        near = each
        for axis, count in enumerate(grid):
            margin = (1 + 0.05 * count) / count
            first, last = (round(share * count) for share in (box[axis] - margin, box[axis + 2] + margin))
            near = near.narrow(axis, max(0, first), min(count, last) - max(0, first))
        if not float(near.max()) > 0.6 * float(each.max()):
            at = divmod(int(each.argmax()), grid[1])
            return (
                f"{box} changes position {at} of {grid} by {float(each.max()):.1e}, its own by {float(near.max()):.1e}"
            )
    return ""


def spread(infos: Sequence[LayerInfo], most: int) -> list[str]:
    """The names of about `most` layers, spread over the network, with the middle one of every kind among them."""
    picked = set(range(0, len(infos), max(1, -(-len(infos) // most))))
    for kind in {info.kind for info in infos}:
        of_kind = [at for at, info in enumerate(infos) if info.kind == kind]
        picked.add(of_kind[len(of_kind) // 2])
    return [info.name for at, info in enumerate(infos) if at in picked]


def failures(complaints: Mapping[str, str]) -> str:
    """One line for each layer that has a complaint."""
    return "\n".join(f"{name}: {words}" for name, words in complaints.items() if words)


def _inside(box: Box, grid: tuple[int, int]) -> Tensor:
    """The positions (h, w) whose cells of the image are inside the box."""
    top, left, bottom, right = box
    rows, columns = (torch.arange(count) for count in grid)
    in_rows = (rows >= top * grid[0]) & (rows + 1 <= bottom * grid[0])
    in_columns = (columns >= left * grid[1]) & (columns + 1 <= right * grid[1])
    return in_rows[:, None] & in_columns


def _apart(box: Box, field: ReceptiveField, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The positions (h, w) whose fields share no pixel with the box."""
    top, left, bottom, right = (share * length for share, length in zip(box, size * 2, strict=True))
    apart = torch.zeros(grid, dtype=torch.bool)
    for row in range(grid[0]):
        for column in range(grid[1]):
            first, start, last, stop = field.box(row, column)
            apart[row, column] = first >= bottom or last <= top or start >= right or stop <= left
    return apart
