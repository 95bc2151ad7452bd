"""Layouts: maps out of raw tensors, and values spread over exactly the elements of a unit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.models import as_model
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from microtome.dissect.models import ActivationCapture, TokenHints, describe_layers, resolve_layers
from microtome.dissect.models.following import Follow
from microtome.dissect.models.layouts import Layout, UnresolvedError, find_layout, hinted_layout
from microtome.dissect.models.positions import LOST, MIXED, Grids, constant
from microtome.storage.errors import UsageError

B, C, H, W = 2, 6, 4, 8


def lay(maps: Tensor, form: str) -> Tensor:
    """Maps (B, C, h, w) in one of FORMS."""
    batch, units, height, width = maps.shape
    last = maps.permute(0, 2, 3, 1)
    tokens = maps.flatten(2).transpose(1, 2)
    if form == "maps":
        return maps
    if form == "channels last":
        return last.contiguous()
    if form in ("tokens", "prefix", "both ends"):
        before = {"tokens": 0, "prefix": 3, "both ends": 1}[form]
        extra = torch.full((batch, 2, units), 9.0)
        behind = [extra] if form == "both ends" else []
        return torch.cat([torch.full((batch, before, units), 9.0), tokens, *behind], 1)
    if form == "tokens first":
        return maps.flatten(2)
    if form in ("windows", "shifted windows"):
        last = last.roll((-1, -2), (1, 2)) if form == "shifted windows" else last
        return last.reshape(batch, height // 2, 2, width // 4, 4, units).transpose(2, 3).reshape(-1, 8, units)
    if form == "heads":
        return tokens.unflatten(2, (2, units // 2)).transpose(1, 2).contiguous()
    if form == "heads in the batch":
        return tokens.unflatten(2, (2, units // 2)).transpose(1, 2).flatten(0, 1)
    if form == "transposed heads":
        return tokens.unflatten(2, (2, units // 2)).permute(0, 2, 3, 1).contiguous()
    raise ValueError(form)


FORMS = {
    "maps": "4x8",
    "channels last": "4x8, channels last",
    "tokens": "4x8 tokens",
    "prefix": "4x8 tokens after 3 prefix tokens",
    "both ends": "4x8 tokens after 1 prefix token and 2 behind",
    "tokens first": "4x8 tokens",
    "windows": "4x8 in 4 windows",
    "shifted windows": "4x8 in 4 windows",
    "heads": "4x8 tokens",
    "heads in the batch": "4x8 tokens",
    "transposed heads": "4x8 tokens",
}


def found(form: str, batch: int = B) -> Layout:
    """The layout of images (batch, C, H, W) laid out in a form."""
    images, mode = torch.randn(batch, C, H, W), Follow(batch)
    with torch.no_grad(), mode:
        mode.begin(images)
        raw = lay(images, form)
    return find_layout(mode.ids_of(raw), raw.shape, mode.grids)


@pytest.mark.parametrize("form", FORMS)
def test_maps_come_out_as_they_went_in(form: str) -> None:
    layout = found(form)
    assert (layout.units, layout.grid, layout.words) == (C, (H, W), FORMS[form])
    for batch in (1, 2, 5):  # the layout is that of any batch
        maps = torch.randn(batch, C, H, W)
        raw = lay(maps, form)
        assert layout.fits(raw, batch)
        assert not layout.fits(raw, batch + 1)
        assert torch.equal(layout.maps(raw, batch), maps)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_values_spread_over_their_units_alone(form: str, data: st.DataObject) -> None:
    layout, batch = found(form), data.draw(st.integers(1, 3))
    image, unit = data.draw(st.integers(0, batch - 1)), data.draw(st.integers(0, C - 1))
    values = torch.zeros(batch, C)
    values[image, unit] = 1
    raw = lay(torch.zeros(batch, C, H, W), form)
    hit = torch.zeros_like(raw) + layout.spread(values)
    assert hit.shape == raw.shape
    expected = torch.zeros(batch, C, H, W)
    expected[image, unit] = 1
    assert torch.equal(layout.maps(hit, batch), expected)
    assert int(hit.sum()) == hit.numel() // (batch * C)  # with what has no position, no more and no less


def test_plain_maps_are_no_copy_and_may_be_of_any_size() -> None:
    layout = found("maps")
    other = torch.randn(3, C, 9, 5)
    assert layout.fits(other, 3)
    assert layout.maps(other, 3) is other
    tokens = lay(torch.randn(2, C, H, W), "prefix")
    assert found("prefix").maps(tokens, 2)._base is not None  # a view


def test_one_window_of_heads_is_no_plain_map() -> None:
    grids = Grids(2)
    ids = grids.fresh((2, 4)).view(2, 1, 1, 8).expand(-1, 3, -1, -1)
    layout = find_layout(ids, (2, 3, 1, 8), grids)
    assert layout.grid == (2, 4)
    assert layout.maps(torch.randn(5, 3, 1, 8), 5).shape == (5, 3, 2, 4)


def test_vectors_have_one_position() -> None:
    grids = Grids(2)
    for ids in (None, constant((2, 7), MIXED), constant((2, 7), LOST)):
        layout = find_layout(ids, (2, 7), grids)
        assert (layout.units, layout.grid) == (7, (1, 1))
        assert layout.maps(torch.randn(4, 7), 4).shape == (4, 7, 1, 1)
    assert find_layout(constant((2, 7, 1, 1), MIXED), (2, 7, 1, 1), grids).units == 7
    assert find_layout(constant((2, 1), MIXED), (2, 1), grids).units == 1


@pytest.mark.parametrize(
    ("shape", "ids", "words"),
    [
        ((3, 4), None, r"\(3, 4\) for a batch of 2: its first dimension is not the batch"),
        ((), None, r"gives \(\) for a batch of 2"),
        ((2, 0), None, "its first dimension is not the batch"),
        ((2, 5, 6), None, "which does not depend on the image"),
        ((2, 5, 6), constant((2, 5, 6), MIXED), "in which positions of the image are mixed"),
        ((2, 5, 6), constant((2, 5, 6), LOST), "whose image positions could not be followed"),
    ],
)
def test_refusals(shape: tuple[int, ...], ids: Tensor | None, words: str) -> None:
    with pytest.raises(UnresolvedError, match=words):
        find_layout(ids, shape, Grids(2))


def test_grids_that_are_not_whole() -> None:
    grids = Grids(2)
    cells = grids.fresh((4, 4)).flatten(2).mT.expand(-1, -1, 3)
    with pytest.raises(UnresolvedError, match="holds 12 of the 16 positions of a grid of 4x4"):
        find_layout(cells[:, :12], (2, 12, 3), grids)
    with pytest.raises(UnresolvedError, match="17 in all"):
        find_layout(torch.cat([cells, cells[:, :1]], 1), (2, 17, 3), grids)
    both = torch.cat([cells, grids.fresh((2, 2)).flatten(2).mT.expand(-1, -1, 3)], 1)
    with pytest.raises(UnresolvedError, match="several grids at once"):
        find_layout(both, (2, 20, 3), grids)
    with pytest.raises(UnresolvedError, match="images of a batch are not one after the other"):
        find_layout(cells.flip(0), (2, 16, 3), grids)


# What the user says


class Lost(nn.Module):
    """Tokens whose positions nobody can follow: sorted by a table, in the frequency domain."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)
        self.tokens = nn.Linear(6, 6)
        self.maps = nn.Identity()
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.fft.fft2(self.conv(x)).real
        tokens = maps.flatten(2).mT
        tokens = self.tokens(torch.cat([tokens.mean(1, keepdim=True), tokens], 1))
        self.maps(maps)
        out: Tensor = self.head(tokens[:, 0])
        return out


def test_hints_are_asked_for_by_name_and_used() -> None:
    model = as_model(Lost(), (16, 24))  # 4x6 patches
    with pytest.raises(UsageError, match=r"'tokens' gives \(2, 25, 6\).*lost at .*fft.*--grid HxW and --prefix P"):
        resolve_layers(model, ["tokens"])
    assert [info.name for info in describe_layers(model)] == ["conv", "head"]
    said = replace(model, tokens=TokenHints((4, 6), 1))
    assert resolve_layers(said, ["tokens", "maps"]) == ["tokens", "maps"]
    info = {each.name: each for each in describe_layers(said, ["tokens", "conv"])}
    assert (info["tokens"].shape, info["tokens"].layout) == ((6, 4, 6), "tokens as you said")
    assert info["conv"].layout == "4x6"
    images = said.noise(2)
    with ActivationCapture(said, ["tokens"]) as capture:
        maps = capture(images)["tokens"]
    assert isinstance(said.module, Lost)
    with torch.no_grad():
        transformed = torch.fft.fft2(said.module.conv(images)).real
        torch.testing.assert_close(maps, said.module.tokens(transformed.movedim(1, -1)).movedim(-1, 1))
    for wrong, words in (
        (TokenHints((5, 5), 1), "25 tokens are not 5x5 behind 1 prefix tokens"),
        (TokenHints((4, 6), 2), "25 tokens are not 4x6 behind 2 prefix tokens"),
        (TokenHints((4, 6)), "25 tokens are not 4x6; if 1 prefix tokens stand before them, say --prefix 1"),
    ):
        with pytest.raises(UsageError, match=words):
            resolve_layers(replace(model, tokens=wrong), ["tokens"])


def test_the_prefix_that_the_model_states() -> None:
    net = Lost()
    net.num_prefix_tokens = 2  # type: ignore[assignment]
    model = replace(as_model(net, (16, 24)), tokens=TokenHints((4, 6)))
    with pytest.raises(UsageError, match="--prefix"):
        resolve_layers(model, ["tokens"])
    net.num_prefix_tokens = 1  # type: ignore[assignment]
    assert resolve_layers(replace(model), ["tokens"]) == ["tokens"]
    net.num_prefix_tokens = 7  # type: ignore[assignment]
    assert resolve_layers(replace(model, tokens=TokenHints((4, 6), 1)), ["tokens"]) == ["tokens"]  # the user wins


@pytest.mark.parametrize(
    ("shape", "hints", "features"),
    [
        ((2, 25, 6), TokenHints((4, 6), 1), (2,)),
        ((2, 24, 6), TokenHints((4, 6)), (2,)),
        ((2, 24, 6), TokenHints((4, 6), 0), (2,)),
        ((2, 6, 4, 6), TokenHints((4, 6)), (1,)),
        ((2, 4, 6, 7), TokenHints((4, 6)), (3,)),
        ((2, 24, 6), TokenHints(), None),
        ((3, 24, 6), TokenHints((4, 6)), None),
        ((2, 24), TokenHints((4, 6)), None),
    ],
)
def test_hinted_layouts(shape: tuple[int, ...], hints: TokenHints, features: tuple[int, ...] | None) -> None:
    layout = hinted_layout(shape, 2, hints)
    assert (layout.features if layout else None) == features
    if layout:
        assert layout.maps(torch.randn(shape), 2).shape == (2, layout.units, 4, 6)


@pytest.mark.parametrize("shape", [(2, 23, 6), (2, 25, 6), (2, 5, 5, 5)])
def test_hints_that_do_not_fit_make_nothing_up(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnresolvedError, match="4x6"):
        hinted_layout(shape, 2, TokenHints((4, 6)))
