"""Dreams: the layer answers more, the image keeps its shape, and tiles leave no seams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.models import as_model
from torch import Tensor, nn

from microtome.dissect.models import ActivationCapture, Model, load_model
from microtome.dissect.synthesis import DreamSettings, StoppedError, dream
from microtome.dissect.synthesis.dreaming import octave_sizes, tiles_in, tiles_of
from microtome.storage.errors import UsageError


def photo(height: int, width: int) -> np.ndarray:
    """Soft spots of colour."""
    draw = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(draw, (height, width), mode="bicubic").clamp(0, 1)
    return (image[0].permute(1, 2, 0) * 255).byte().numpy()


def answer(model: Model, image: np.ndarray, layer: str) -> float:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
    seen = (pixels - torch.tensor(model.preprocess.mean).reshape(1, 3, 1, 1)) / torch.tensor(
        model.preprocess.std
    ).reshape(1, 3, 1, 1)
    with ActivationCapture(model, [layer]) as capture:
        return float(capture(seen)[layer].square().mean())


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("builtin:scenes-cnn")


def test_a_dream_raises_the_layer_and_keeps_the_shape(model: Model) -> None:
    image = photo(80, 112)
    settings = DreamSettings(steps=4, octaves=2, tile=64)
    told: list[int] = []
    dreamt = dream(model, image, "block3", settings=settings, told=told.append)
    assert dreamt.shape == image.shape
    assert dreamt.dtype == np.uint8
    assert answer(model, dreamt, "block3") > 1.15 * answer(model, image, "block3")
    assert sum(told) == tiles_in(settings, (80, 112), (64, 64))
    assert np.array_equal(dreamt, dream(model, image, "block3", settings=settings))
    assert not np.array_equal(dreamt, dream(model, image, "block3", settings=settings, seed=1))


def test_chosen_units_alone(model: Model) -> None:
    image = photo(64, 64)
    settings = DreamSettings(steps=3, octaves=1, tile=64)
    whole = dream(model, image, "block3", settings=settings)
    few = dream(model, image, "block3", [5, 9], settings=settings)
    assert not np.array_equal(whole, few)


def test_tiles_leave_no_seams(model: Model) -> None:
    image = np.full((96, 96, 3), 128, np.uint8)
    dreamt = dream(model, image, "stem", settings=DreamSettings(steps=12, octaves=1, tile=32)).astype(float)
    steps = np.abs(np.diff(dreamt, axis=1)).mean((0, 2))
    borders = [31, 63]
    assert max(steps[borders]) < 1.5 * steps.mean()


@pytest.mark.parametrize(("length", "tile"), [(100, 32), (32, 32), (20, 32), (224, 224), (225, 224)])
def test_tiles_cover_an_axis(length: int, tile: int) -> None:
    covered = {(start + step) % length for start in tiles_of(length, tile) for step in range(tile)}
    assert covered == set(range(length))


def test_octaves_grow_to_the_image() -> None:
    assert octave_sizes(200, 100, DreamSettings(octaves=3, octave_scale=2.0)) == [(100, 50), (200, 100)]
    assert octave_sizes(20, 10, DreamSettings()) == [(20, 10)]


class Tokens(nn.Module):
    """Patches as tokens with positions of their own: takes 16 x 16 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.places = nn.Parameter(torch.zeros(1, 16, 6))
        self.mix = nn.Sequential(nn.Linear(6, 8), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        out: Tensor = self.mix(tokens).mean(1)
        return out


def test_a_network_of_one_size_dreams_in_tiles_of_it() -> None:
    image = photo(30, 41)
    dreamt = dream(as_model(Tokens(), 16), image, "mix", settings=DreamSettings(steps=2, octaves=1))
    assert dreamt.shape == image.shape
    assert not np.array_equal(dreamt, image)


def test_what_cannot_be_dreamt_is_refused(model: Model) -> None:
    silent = as_model(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU()), 16)
    with torch.no_grad():
        silent.module[0].bias.fill_(-1e6)
    with pytest.raises(UsageError, match="does not move"):
        dream(silent, photo(16, 16), "1")
    with pytest.raises(UsageError, match="no unit 999"):
        dream(model, photo(40, 40), "block3", [999])
    with pytest.raises(UsageError, match="uint8"):
        dream(model, np.zeros((8, 8), np.uint8), "block3")
    with pytest.raises(UsageError, match="octave_scale"):
        DreamSettings(octave_scale=1.0)
    with pytest.raises(StoppedError):
        dream(model, photo(40, 40), "block3", stop=lambda: True)
