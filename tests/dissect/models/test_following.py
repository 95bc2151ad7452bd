"""Positions followed through operations: what each leaves of a small image's grid, named cell by cell."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microtome.dissect.models.following import Follow
from microtome.dissect.models.positions import LOST, MIXED, NONE, cell_of, grid_of, image_of

B, C, H, W = 2, 4, 6, 8


def follow(function: Callable[[Tensor], Tensor], size: tuple[int, int] = (H, W)) -> tuple[Tensor, Follow]:
    """Ids of what `function` makes of images (B, C, *size)."""
    images, mode = torch.randn(B, C, *size), Follow(B)
    with torch.no_grad(), mode:
        mode.begin(images)
        out = function(images)
    ids = mode.ids_of(out)
    return torch.full(out.shape, NONE) if ids is None else ids, mode


def moved(function: Callable[[Tensor], Tensor], size: tuple[int, int] = (H, W)) -> Tensor:
    """What `function`, which only moves elements, does to cell numbers (B, C, *size), image * 1000 + cell."""
    cells = torch.arange(size[0] * size[1]).view(1, 1, *size) + 1000 * torch.arange(B).view(-1, 1, 1, 1)
    return function(cells.expand(-1, C, -1, -1).float()).long()


def numbered(ids: Tensor) -> Tensor:
    return torch.where(ids >= 0, image_of(ids) * 1000 + cell_of(ids), ids)


def windows(x: Tensor) -> Tensor:
    x = x.permute(0, 2, 3, 1)
    return x.view(B, H // 2, 2, W // 4, 4, -1).permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, x.shape[-1])


def back(x: Tensor) -> Tensor:
    x = x.view(B, H // 2, W // 4, 2, 4, -1).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(B, H, W, -1).permute(0, 3, 1, 2)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "channels last": lambda x: x.permute(0, 2, 3, 1).contiguous(),
    "roll": lambda x: x.roll((-1, -2), (2, 3)),
    "roll channels last": lambda x: x.permute(0, 2, 3, 1).roll((1, 3), (1, 2)),
    "roll all": lambda x: x.roll(5),
    "flip": lambda x: x.flip(-1, 1),
    "windows": windows,
    "windows and back": lambda x: back(windows(x)),
    "shifted windows": lambda x: windows(x.roll((-1, -2), (2, 3))),
    "shifted windows and back": lambda x: back(windows(x.roll((-1, -2), (2, 3)))).roll((1, 2), (2, 3)),
    "gather": lambda x: x.flatten(2).gather(2, torch.tensor([5, 3, 3, 40]).expand(B, C, 4)),
    "index": lambda x: x.flatten(2)[:, :, torch.tensor([7, 1, 2])],
    "index select": lambda x: x.index_select(3, torch.tensor([7, 1, 2])),
    "index channels": lambda x: x.transpose(1, 3)[..., torch.tensor([3, 0])],
    "repeat": lambda x: x.repeat(1, 1, 2, 1),
    "repeat interleave": lambda x: x.repeat_interleave(2, 3),
    "chunk": lambda x: x.chunk(2, 3)[1],
    "split": lambda x: x.split([2, 4], 2)[1],
    "unbind": lambda x: x.unbind(2)[3],
    "stack": lambda x: torch.stack([x, x.flip(3)], 1),
    "cat channels": lambda x: torch.cat([x, x], 1),
    "cat rows": lambda x: torch.cat([x, x[:, :, :2]], 2),
    "narrow": lambda x: x.narrow(3, 2, 4),
    "heads": lambda x: x.flatten(2).transpose(1, 2).unflatten(2, (2, 2)).transpose(1, 2),
    "heads in the batch": lambda x: x.unflatten(1, (2, 2)).flatten(0, 1),
    "unfold": lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 2),
    "mirrored": lambda x: F.pad(x, (2, 1, 1, 2), mode="reflect"),
    "replicated": lambda x: F.pad(x, (2, 1, 1, 2), mode="replicate"),
    "circular": lambda x: F.pad(x, (2, 1, 1, 2), mode="circular"),
    "cropped": lambda x: F.pad(x, (-2, -1, -1, -2)),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_only_moves_elements(name: str) -> None:
    ids, mode = follow(MOVES[name])
    assert torch.equal(numbered(ids), moved(MOVES[name]))
    assert not mode.lost


KEEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "relu in place": lambda x: x.clone().relu_(),
    "hardswish": F.hardswish,
    "clamp": lambda x: x.clamp(0, 1),
    "arithmetic": lambda x: (2 * x + 1) / x.square().add(1),
    "where": lambda x: torch.where(x > 0, x, -x),
    "batch norm": nn.BatchNorm2d(C).eval(),
    "group norm": nn.GroupNorm(2, C),
    "layer norm": lambda x: nn.LayerNorm(C)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "linear": lambda x: nn.Linear(C, C)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "linear of tokens": lambda x: nn.Linear(C, C)(x.flatten(2).mT).mT.unflatten(2, (H, W)),
    "einsum": lambda x: torch.einsum("bchw,dc->bdhw", x, torch.randn(C, C)),
    "convolution": nn.Conv2d(C, C, 3, padding=1),
    "depthwise": nn.Conv2d(C, C, 5, padding=2, groups=C),
    "convolution, padded around": nn.Conv2d(C, C, 3, padding=1, padding_mode="circular"),
    "convolution, mirrored": nn.Conv2d(C, C, 3, padding=1, padding_mode="reflect"),
    "convolution, padded before": lambda x: nn.Conv2d(C, C, 3)(F.pad(x, (1, 1, 1, 1))),
    "pool of one step": nn.AvgPool2d(3, 1, 1),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "gate by a convolution": lambda x: x * nn.Conv2d(C, C, 1)(x.mean((2, 3), keepdim=True)).sigmoid(),
    "gate by linear layers": lambda x: x * nn.Linear(C, C)(F.adaptive_avg_pool2d(x, 1).flatten(1))[:, :, None, None],
    "gate by softmax": lambda x: x * x.flatten(2).softmax(-1).unflatten(2, (H, W)),
    "normalised": lambda x: F.normalize(x, dim=1),
    "by its largest": lambda x: x / x.amax((1, 2, 3), keepdim=True),
    "channels mixed by a gate": lambda x: x * nn.Conv1d(1, 1, 3, padding=1)(x.mean((2, 3)).unsqueeze(1)).mT[..., None],
    "dropout": nn.Dropout(0.5).eval(),
    "half": lambda x: x.half().float(),
    "table": lambda x: x + torch.randn(1, C, H, W),
    "resampled table": lambda x: x + F.interpolate(torch.randn(1, C, 3, 3), (H, W), mode="bicubic"),
    "lost, then found": lambda x: x + torch.fft.fft2(x).real,
    "attention": lambda x: attend(x.flatten(2).mT).mT.unflatten(2, (H, W)),
    "written in place": lambda x: torch.zeros(B, C, H, W).copy_(x),
}


def attend(x: Tensor) -> Tensor:
    weights = (nn.Linear(C, 8)(x) @ nn.Linear(C, 8)(x).transpose(1, 2)).softmax(-1)
    return weights @ nn.Linear(C, C)(x)


@pytest.mark.parametrize("name", KEEPS)
def test_what_keeps_every_place(name: str) -> None:
    ids, mode = follow(KEEPS[name])
    assert torch.equal(ids, mode.grids.fresh((H, W)).expand(-1, C, -1, -1))


GRIDS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, int]]] = {
    "strided convolution": (nn.Conv2d(C, 5, 3, stride=2, padding=1), (3, 4)),
    "patches": (nn.Conv2d(C, 5, 2, stride=2), (3, 4)),
    "max pool": (nn.MaxPool2d(2), (3, 4)),
    "adaptive pool": (nn.AdaptiveAvgPool2d((2, 3)), (2, 3)),
    "upsampled": (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), (12, 16)),
    "transposed convolution": (nn.ConvTranspose2d(C, 5, 2, stride=2), (12, 16)),
    "strided slice": (lambda x: x[:, :, ::2, 1::2], (3, 4)),
    "unfolded and back": (lambda x: F.unfold(x, 2, stride=2).unflatten(2, (3, 4)), (3, 4)),
    "patches merged": (
        lambda x: nn.Linear(4 * C, 5)(
            torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1).permute(0, 2, 3, 1)
        ).permute(0, 3, 1, 2),
        (3, 4),
    ),
    "patches by a linear layer": (
        lambda x: nn.Linear(4 * C, 5)(
            x.view(B, C, 3, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(B, 12, 4 * C)
        ).mT.unflatten(2, (3, 4)),
        (3, 4),
    ),
    "patches by a convolution over several images": (
        lambda x: (
            nn.Conv2d(C, 5, 2)(x.view(B, C, 3, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, C, 2, 2))
            .view(B, 3, 4, 5)
            .permute(0, 3, 1, 2)
        ),
        (3, 4),
    ),
    "mean of blocks": (lambda x: x.view(B, C, 3, 2, 4, 2).mean((3, 5)), (3, 4)),
    "cut at the edge": (lambda x: nn.Conv2d(C, 5, 3)(F.pad(x, (-1, -1, -1, -1))), (2, 4)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_what_makes_a_grid_of_its_own(name: str) -> None:
    function, grid = GRIDS[name]
    ids, mode = follow(function)
    assert torch.equal(ids, mode.grids.fresh(grid).expand(-1, ids.shape[1], -1, -1))


def test_tokens_beside_the_patches() -> None:
    def prepend(x: Tensor) -> Tensor:
        return torch.cat([torch.randn(1, 3, C).expand(B, -1, -1), x.flatten(2).mT, torch.zeros(B, 1, C)], 1)

    ids, _ = follow(prepend)
    assert ids[:, [0, 1, 2, -1]].eq(NONE).all()
    assert torch.equal(cell_of(ids[:, 3:-1, 0]), torch.arange(H * W).expand(B, -1))
    after, _ = follow(lambda x: attend(prepend(x)))  # class tokens see everything
    assert after[:, [0, 1, 2, -1]].eq(MIXED).all()
    assert torch.equal(after[:, 3:-1], ids[:, 3:-1])


def test_padded_windows() -> None:
    def partition(x: Tensor) -> Tensor:  # 6x8 padded to 8x8, shifted by one, in windows of 4x4
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 0, 0, 2)).roll((-1, -1), (1, 2))
        return x.view(B, 2, 4, 2, 4, C).transpose(2, 3).reshape(B * 4, 16, C)

    def reverse(x: Tensor) -> Tensor:
        x = x.view(B, 2, 2, 4, 4, C).transpose(2, 3).reshape(B, 8, 8, C)
        return x.roll((1, 1), (1, 2))[:, :6].permute(0, 3, 1, 2)

    inside, _ = follow(lambda x: attend(partition(x)))
    assert int((inside[..., 0] >= 0).sum()) == B * H * W
    whole, mode = follow(lambda x: reverse(attend(partition(x))))
    assert torch.equal(whole, mode.grids.fresh((H, W)).expand(-1, C, -1, -1))


def test_parts_written_in_place() -> None:
    def inside(x: Tensor) -> Tensor:
        out = torch.zeros(B, C, H + 2, W + 2)
        out[:, :, 1:-1, 1:-1] = x
        return out

    def added(x: Tensor) -> Tensor:
        out = torch.zeros(B, H * W + 1, C)
        out[:, 1:] += x.flatten(2).mT
        return out

    ids, mode = follow(inside)
    assert torch.equal(ids[:, :, 1:-1, 1:-1], mode.grids.fresh((H, W)).expand(-1, C, -1, -1))
    assert ids[:, :, 0].eq(NONE).all()
    tokens, _ = follow(added)
    assert tokens[:, 0].eq(NONE).all()
    assert torch.equal(cell_of(tokens[:, 1:, 0]), torch.arange(H * W).expand(B, -1))


MIXES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear over positions": lambda x: nn.Linear(H * W, 10)(x.flatten(2)),
    "linear over rows": lambda x: nn.Linear(H, 5)(x.transpose(2, 3)),
    "mean": lambda x: x.mean((2, 3)),
    "global pool": nn.AdaptiveAvgPool2d(1),
    "channel attention": lambda x: x.flatten(2) @ x.flatten(2).mT,
    "flattened": lambda x: nn.Linear(C * H * W, 10)(x.flatten(1)),
    "over images": lambda x: x.mean(0, keepdim=True),
}


@pytest.mark.parametrize("name", MIXES)
def test_what_mixes_positions_has_none(name: str) -> None:
    ids, _ = follow(MIXES[name])
    if name == "linear over rows":  # a row of columns is left, of which nobody can say more
        assert not torch.equal(cell_of(ids), torch.arange(5).expand_as(ids))
        return
    assert bool((ids < 0).all())


LOSES: dict[str, Callable[[Tensor], Tensor]] = {
    "Fourier": lambda x: torch.fft.fft2(x).real,
    "sorted": lambda x: x.flatten(2).sort(-1).values,
    "looked up": lambda x: torch.randn(50, 3)[x[:, 0].abs().mul(10).clamp(0, 49).long()],
    "added to its shift": lambda x: x + x.roll(1, 3),
}


@pytest.mark.parametrize("name", LOSES)
def test_what_nobody_follows_is_lost(name: str) -> None:
    ids, _ = follow(LOSES[name])
    assert bool((ids == LOST).all())


def test_lost_operations_have_names_and_convolutions_end_them() -> None:
    def through(x: Tensor) -> Tensor:
        return nn.Conv2d(C, 5, 3, padding=1)(torch.fft.fft2(x).real)

    _, mode = follow(through)
    assert mode.lost
    assert any("fft" in name for name in mode.lost)


def test_one_and_three_dimensional_convolutions() -> None:
    line, mode = follow(lambda x: nn.Conv1d(C, C, 3, padding=1)(x.flatten(2)))
    assert torch.equal(line, mode.grids.fresh((H, W)).flatten(2).expand(-1, C, -1))
    volume, mode = follow(lambda x: nn.Conv3d(C, C, 3, padding=1)(x[:, :, None]))
    assert torch.equal(volume, mode.grids.fresh((H, W))[:, :, None].expand(-1, C, -1, -1, -1))
    shorter, _ = follow(lambda x: nn.Conv1d(C, C, 3, stride=2)(x.flatten(2)))
    assert bool((shorter < 0).all())  # every second position of a line is no grid


def test_what_depends_on_no_image_has_no_ids() -> None:
    mode = Follow(B)
    with torch.no_grad(), mode:
        mode.begin(torch.randn(B, C, H, W))
        table = F.interpolate(torch.randn(1, C, 3, 3), (H, W))
    assert mode.ids_of(table) is None


def test_grids_are_told_apart() -> None:
    both, _ = follow(lambda x: torch.cat([x.flatten(2), F.avg_pool2d(x, 2).flatten(2)], 2))
    assert len(torch.unique(grid_of(both))) == 2


def test_pointwise_convolutions_over_tokens_mix_positions_and_make_no_grid() -> None:
    def mixer(x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(-1)  # (B, L, C, 1): tokens stand where channels would
        return nn.Conv2d(7, H * W, 1)(nn.Conv2d(H * W, 7, 1)(tokens).relu())

    mixed, _ = follow(mixer)
    assert bool((mixed == MIXED).all())
    kept, _ = follow(lambda x: x.flatten(2).transpose(1, 2) + mixer(x).squeeze(-1))
    assert bool((kept >= 0).all())
    wide, _ = follow(lambda x: nn.Conv2d(H * W, 7, 3, padding=1)(x.flatten(2).transpose(1, 2).unsqueeze(-1)))
    assert bool((wide == MIXED).all())


def test_pointwise_convolutions_over_channels_keep_places() -> None:
    kept, mode = follow(nn.Conv2d(C, 9, 1))
    assert torch.equal(kept, mode.grids.fresh((H, W)).expand(-1, 9, -1, -1))
