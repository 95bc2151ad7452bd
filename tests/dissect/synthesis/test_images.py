"""Pictures of units and classes: what was planted is seen in them, and each is made as if it were alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.models import as_model
from torch import Tensor, nn

from microtome.dissect.models import Model, load_model
from microtome.dissect.synthesis import (
    TEXTBOOK,
    Settings,
    StoppedError,
    synthesise_units,
    visualise_classes,
    visualise_units,
)
from microtome.storage.errors import UnknownNameError, UsageError

QUICK = Settings(steps=24, batch=4)


class Planted(nn.Module):
    """Units that answer to red, to green, to upright stripes, to level stripes, and to nothing at all."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 5, 5, padding=2)
        self.act = nn.ReLU()
        self.head = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.look(x)).mean((2, 3)))


def planted() -> Model:
    model = as_model(Planted(), 32)
    module = model.module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.look.weight[0, :, 2, 2] = torch.tensor([1.0, -1.0, -1.0])
        module.look.weight[1, :, 2, 2] = torch.tensor([-1.0, 1.0, -1.0])
        wave = torch.tensor([0.5, 0.0, -1.0, 0.0, 0.5])
        module.look.weight[2] = wave.expand(3, 5, 5) / 5
        module.look.weight[3] = wave[:, None].expand(3, 5, 5) / 5
        module.look.bias[4] = -1.0
        module.head.weight.copy_(torch.eye(5))
    return Model(model.spec, module, model.preprocess, ("red", "green", "upright", "level", "none, at all"))


@pytest.fixture(scope="module")
def made() -> np.ndarray:
    return visualise_units(planted(), "act", [0, 1, 2, 3], settings=QUICK)


def test_the_shape_is_that_of_the_model(made: np.ndarray) -> None:
    assert made.shape == (4, 32, 32, 3)
    assert made.dtype == np.uint8


def test_units_of_colours_give_their_colours(made: np.ndarray) -> None:
    means = made.reshape(4, -1, 3).mean(1)
    assert means[0].argmax() == 0
    assert means[1].argmax() == 1


def test_units_of_stripes_give_stripes_that_way() -> None:
    made = visualise_units(planted(), "act", [2, 3], settings=Settings(steps=60)).mean(-1)
    upright, level = (np.abs(np.fft.fft2(each - each.mean())) ** 2 for each in made)
    wave = slice(6, 11)  # a wave of four pixels has 8 crests in 32
    assert upright[0, wave].sum() > 4 * upright[wave, 0].sum()
    assert level[wave, 0].sum() > 4 * level[0, wave].sum()


@pytest.mark.parametrize("settings", [QUICK, Settings(steps=24, batch=3), Settings(steps=24, batch=1)])
def test_alone_and_in_any_batch_they_are_the_same(made: np.ndarray, settings: Settings) -> None:
    again = visualise_units(planted(), "act", [3, 1, 0, 2], settings=settings)
    assert np.array_equal(again[[2, 1, 3, 0]], made)
    (alone,) = visualise_units(planted(), "act", [1], settings=settings)
    assert np.array_equal(alone, made[1])


@pytest.mark.parametrize(("layer", "size"), [("block5", 40), ("block3", 48)])
def test_of_a_trained_network_alone_and_in_a_batch_are_the_same(layer: str, size: int) -> None:
    model = load_model("builtin:scenes-cnn")
    settings = Settings(steps=8, size=size, batch=4)
    together = visualise_units(model, layer, [3, 17, 40, 41, 50], settings=settings)
    for place in (0, 4):
        (alone,) = visualise_units(model, layer, [[3, 17, 40, 41, 50][place]], settings=settings)
        assert np.abs(alone.astype(int) - together[place]).max() <= 255 * 1e-4


def test_a_seed_gives_the_same_picture_and_another_another() -> None:
    one, other, same = visualise_units(planted(), "act", [2, 2, 2], seeds=[5, 6, 5], settings=QUICK)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_dead_unit_gets_no_picture_and_says_so() -> None:
    dead, alive = synthesise_units(planted(), "act", [4, 0], settings=QUICK)
    assert not dead.driven
    assert alive.driven
    assert alive.after > max(alive.before, 0)
    assert len(np.unique(dead.image.reshape(-1, 3), axis=0)) == 2  # a cross on grey


def test_a_unit_that_answers_to_strong_contrast_alone_is_reached() -> None:
    model = planted()
    with torch.no_grad():
        model.module.look.bias[2] = -0.9  # silent on faint noise
    (made,) = synthesise_units(model, "act", [2], settings=QUICK)
    assert made.driven
    assert made.after > 0


def test_classes_by_name_and_by_number() -> None:
    model = planted()
    pictures = visualise_classes(model, ["green", 0], settings=QUICK)
    assert pictures[0].mean((0, 1)).argmax() == 1
    assert pictures[1].mean((0, 1)).argmax() == 0
    with pytest.raises(UnknownNameError, match="did you mean green"):
        visualise_classes(model, ["gren"], settings=QUICK)
    with pytest.raises(UsageError, match="no class 9"):
        visualise_classes(model, [9], settings=QUICK)


def test_the_plain_form_has_more_high_frequencies() -> None:
    model = load_model("builtin:scenes-cnn")
    small = {"steps": 16, "size": 48}
    ours = visualise_classes(model, [3], settings=Settings(**small))[0].astype(float)
    plain = visualise_classes(model, [3], settings=replace(TEXTBOOK, **small))[0].astype(float)
    assert roughness(plain) > 2 * roughness(ours)


def roughness(picture: np.ndarray) -> float:
    """How much of a picture's variance lies between neighbours."""
    grey = picture.mean(-1)
    return float(np.diff(grey, axis=1).var() / grey.var())


def test_from_an_image_the_picture_begins_there() -> None:
    start = np.zeros((20, 30, 3), np.uint8)
    start[:, 15:] = (200, 40, 90)
    (made,) = synthesise_units(planted(), "act", [2], settings=Settings(steps=1, rate=1e-6), start=start)
    assert np.abs(made.image[:, 20:].astype(int) - (200, 40, 90)).mean() < 4


def test_float64_models_and_other_sizes() -> None:
    model = planted()
    model.module.double()
    pictures = visualise_units(model, "look", [0], settings=Settings(steps=3, size=24))
    assert pictures.shape == (1, 24, 24, 3)


class Fixed(nn.Module):
    """Takes 16 x 16 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 256, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


def test_a_size_that_the_model_does_not_take_is_refused() -> None:
    with pytest.raises(UsageError, match="leave the size at its own, 16x16"):
        visualise_units(as_model(Fixed(), 16), "conv", [0], settings=Settings(size=24))


def test_what_does_not_fit_is_refused() -> None:
    model = planted()
    with pytest.raises(UsageError, match="no unit 5"):
        visualise_units(model, "act", [5])
    with pytest.raises(UnknownNameError):
        visualise_units(model, "akt", [0])
    with pytest.raises(UsageError, match="2 seeds for 1"):
        visualise_units(model, "act", [0], seeds=[1, 2])
    with pytest.raises(UsageError, match="at least one"):
        visualise_units(model, "act", [])
    with pytest.raises(UsageError, match="steps"):
        Settings(steps=0)
    with pytest.raises(UsageError, match="rate"):
        Settings(rate=float("nan"))


def test_a_stop_is_heard_and_the_model_is_left_as_it_was() -> None:
    model = planted()
    model.module.train()
    with pytest.raises(StoppedError):
        visualise_units(model, "act", [0, 1], settings=QUICK, stop=lambda: True)
    assert model.module.training
    assert all(parameter.requires_grad for parameter in model.module.parameters())
    assert not model.module.act._forward_hooks


def test_steps_are_told() -> None:
    told: list[int] = []
    visualise_units(planted(), "act", [0, 1, 2], settings=Settings(steps=5, batch=2), told=told.append)
    assert sum(told) == 15
