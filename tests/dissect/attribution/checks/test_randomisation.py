"""Randomising parameters from the logits down: order, depth, determinism, and that the user's model stays as it is."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers.models import as_model
from torch import Tensor, nn

from microtome.dissect.attribution.checks.candidates import Candidate, candidate_of
from microtome.dissect.attribution.checks.randomisation import cascade, from_the_logits, randomisation, randomise
from microtome.dissect.models.model import Model
from microtome.storage.errors import DoesNotApplyError, UsageError


class Net(nn.Module):
    """Registered in another order than called; a parameter of its own; attention whose projection is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.BatchNorm2d(8)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.place = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu() + self.place
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        out: Tensor = self.head(tokens.mean(1))
        return out


@pytest.fixture
def model() -> Model:
    return as_model(Net(), 16)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def edges(_model: Model, images: Tensor, _classes: Tensor) -> Tensor:
    """What looks like an explanation, and asks no model."""
    grey = images.mean(1)
    return (grey - grey.roll(1, 2)).abs() + (grey - grey.roll(1, 1)).abs()


def test_order_is_that_of_the_calls_from_the_logits(model: Model, images: Tensor) -> None:
    order = from_the_logits(model.module, images[:1])
    assert order == ["head", "attention.out_proj", "attention", "norm", "stem", ""]


def test_the_cascade_goes_down_and_keeps_what_it_has_randomised(model: Model, images: Tensor) -> None:
    before = state(model.module)
    changed, states = [], []
    for depth, other in cascade(model, images[:1], (0.0, 0.5, 1.0), seed=5):
        states.append(state(other.module))
        changed.append({name for name, value in states[-1].items() if not value.equal(before[name])})
        assert not other.trained
        assert depth.of == 6
    assert changed[0] == {"head.weight", "head.bias"}
    assert {name.partition(".")[0] for name in changed[1]} == {"head", "attention"}
    assert {name.partition(".")[0] for name in changed[2]} == {"head", "attention", "norm", "stem", "place"}
    assert all(states[2][name].equal(states[0][name]) for name in changed[0])


def test_the_users_model_is_untouched_to_the_bit(model: Model, images: Tensor) -> None:
    model.module.train()
    model.module.norm.eval()
    before, drawn = state(model.module), torch.random.get_rng_state()
    for _ in cascade(model, images[:1]):
        pass
    assert all(value.equal(before[name]) for name, value in model.module.state_dict().items())
    assert torch.random.get_rng_state().equal(drawn)
    assert model.module.training
    assert not model.module.norm.training
    assert not any(module._forward_pre_hooks for module in model.module.modules())


def test_a_seed_gives_the_same_network_and_another_seed_another(model: Model, images: Tensor) -> None:
    def whole(seed: int) -> dict[str, Tensor]:
        return next(state(other.module) for _, other in cascade(model, images[:1], (1.0,), seed))

    first, again, other = whole(0), whole(0), whole(1)
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["stem.weight"].equal(other["stem.weight"])


def test_without_reset_parameters_the_scale_stays() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((4000,), 3.0))

    module = Scaled()
    randomise(module, 0)
    assert float(module.weight.detach().mean()) == pytest.approx(0, abs=0.2)
    assert float(module.weight.detach().pow(2).mean().sqrt()) == pytest.approx(3, rel=0.1)


def test_a_model_without_parameters_is_refused(images: Tensor) -> None:
    with pytest.raises(UsageError, match="with parameters"):
        next(cascade(as_model(nn.Flatten(), 16), images[:1]))


def test_an_edge_detector_is_insensitive_and_the_gradient_is_not(model: Model, images: Tensor) -> None:
    classes = torch.zeros(3, dtype=torch.long)
    found = randomisation(Candidate("edges", edges), model, images, classes)
    assert found.correlation == pytest.approx(1)
    assert found.structure == pytest.approx(1)
    assert found.upper == pytest.approx(1)
    assert abs(found.elsewhere).max() < 0.3
    gradient = randomisation(candidate_of("saliency", model, images), model, images, classes)
    assert gradient.correlation.shape == (len(gradient.depths), 3)
    assert gradient.correlation[-1].mean() < 0.5


def test_what_is_refused_for_a_random_network_is_no_map(model: Model, images: Tensor) -> None:
    def picky(asked: Model, pixels: Tensor, _classes: Tensor) -> Tensor:
        if not asked.trained:
            raise DoesNotApplyError("picky", "the map is zero")
        return pixels.abs()

    found = randomisation(Candidate("picky", picky), model, images, torch.zeros(3, dtype=torch.long))
    assert not found.correlation.any()


def test_images_that_are_refused_among_others_have_maps_of_zeros(model: Model, images: Tensor) -> None:
    pixels = images.clone()
    pixels[1] = 0

    def picky(_asked: Model, each: Tensor, _classes: Tensor) -> Tensor:
        if bool((each == 0).flatten(1).all(1).any()):
            raise DoesNotApplyError("picky", "the map is zero")
        return each

    maps = Candidate("picky", picky).maps(model, pixels, torch.zeros(3, dtype=torch.long))
    np.testing.assert_allclose(maps.magnitudes, copy.copy(pixels).abs().sum(1).numpy(), rtol=1e-6)
    with pytest.raises(DoesNotApplyError):
        Candidate("picky", picky).maps(model, torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.long))


def test_evidence_of_additive_methods_keeps_the_sign(model: Model, images: Tensor) -> None:
    classes = torch.zeros(3, dtype=torch.long)
    found = candidate_of("gradient-x-input", model, images).maps(model, images, classes)
    assert (found.evidence < 0).any()
    assert (found.magnitudes >= np.abs(found.evidence) - 1e-6).all()
    with pytest.raises(DoesNotApplyError, match="no weight to each pixel"):
        candidate_of("filters", model, images)
