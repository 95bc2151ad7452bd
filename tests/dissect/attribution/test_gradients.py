"""Gradients by the pixels against captum and against autograd by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import InputXGradient, Saliency
from helpers.models import as_model
from torch import Tensor, nn

from microtome.dissect.attribution.baselines import baseline_of, blurred
from microtome.dissect.attribution.gradients import (
    gradient_x_input,
    integrate,
    integrated_gradients,
    saliency,
    smoothgrad,
)
from microtome.storage.errors import DoesNotApplyError, UnknownNameError, UsageError

METHODS: list[Callable[..., Tensor]] = [saliency, gradient_x_input, smoothgrad, integrated_gradients]


class Smooth(nn.Module):
    """Two convolutions and no kinks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = nn.functional.gelu(self.second(x))
        out: Tensor = self.head(x.mean((2, 3)) + x.amax((2, 3)))
        return out


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Smooth().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 16, 12, generator=torch.Generator().manual_seed(1))


def test_saliency_is_captums_maximum_over_channels(net: nn.Module, images: Tensor) -> None:
    classes = torch.tensor([0, 4, 2])
    expected = Saliency(net).attribute(images.clone().requires_grad_(), classes).amax(1)
    found = saliency(net, images, classes)
    assert found.shape == (3, 16, 12)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(saliency(net, images, classes, power="squared"), expected**2, atol=1e-6, rtol=0)


def test_no_target_is_the_class_of_the_highest_logit(net: nn.Module, images: Tensor) -> None:
    torch.testing.assert_close(saliency(net, images), saliency(net, images, net(images).argmax(1)))


def test_gradient_x_input_is_captums(net: nn.Module, images: Tensor) -> None:
    expected = InputXGradient(net).attribute(images.clone().requires_grad_(), 1)
    torch.testing.assert_close(gradient_x_input(net, images, 1), expected, atol=1e-6, rtol=0)


def test_smoothgrad_is_the_mean_gradient_of_noisy_copies(net: nn.Module, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(7)
    gradients = []
    for _ in range(6):
        draws = torch.randn(3, 16, 12, generator=generator)
        noisy = torch.stack([image + 0.2 * (image.max() - image.min()) * draws for image in images])
        gradients.append(Saliency(net).attribute(noisy.requires_grad_(), 3, abs=False))
    found = smoothgrad(net, images, 3, samples=6, noise=0.2, seed=7)
    torch.testing.assert_close(found, torch.stack(gradients).mean(0), atol=1e-6, rtol=0)


def test_smoothgrad_of_an_image_does_not_depend_on_its_batch_or_the_global_seed(net: nn.Module, images: Tensor) -> None:
    whole = smoothgrad(net, images, 3, samples=4)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    alone = torch.cat([smoothgrad(net, image[None], 3, samples=4) for image in images])
    torch.testing.assert_close(alone, whole, atol=1e-6, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("batch", [3, 7, 1000])
def test_integrated_gradients_are_the_quadrature_by_hand(net: nn.Module, images: Tensor, batch: int) -> None:
    classes = [4, 0, 1]
    nodes, weights = np.polynomial.legendre.leggauss(20)
    start = torch.full_like(images, -1.5)
    total = torch.zeros_like(images)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        point = (start + node * (images - start)).requires_grad_()
        (gradient,) = torch.autograd.grad(net(point)[range(3), classes].sum(), point)
        total += weight * gradient
    expected = total * (images - start)
    found = integrated_gradients(net, images, classes, steps=20, baseline=start, batch=batch)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("baseline", ["black", "grey", "mean", "blur"])
def test_integrated_gradients_sum_to_the_change_of_the_score(net: nn.Module, images: Tensor, baseline: str) -> None:
    found = integrate(net, images, 2, steps=100, baseline=baseline)
    with torch.no_grad():
        change = (net(images) - net(baseline_of(net, images, baseline)))[:, 2]
    torch.testing.assert_close(found.change, change)
    torch.testing.assert_close(found.error, found.attribution.sum((1, 2, 3)) - change, atol=1e-5, rtol=0)
    assert float(found.error.abs().max()) < 1e-3 * max(1.0, float(change.abs().max()))


def test_the_completeness_error_shrinks_with_the_steps(net: nn.Module, images: Tensor) -> None:
    coarse, fine = (integrate(net, 5 * images, 2, steps=steps).error.abs().max() for steps in (2, 60))
    assert float(fine) < 0.1 * float(coarse)


def test_a_units_integrated_gradients_sum_to_the_change_of_its_activation(net: nn.Module, images: Tensor) -> None:
    found = integrate(net, images, None, "second", unit=3, at=(2, 1), steps=80)
    with torch.no_grad():
        maps = [net.second(torch.tanh(net.first(each))) for each in (images, torch.zeros_like(images))]  # type: ignore[operator]
    torch.testing.assert_close(found.change, (maps[0] - maps[1])[:, 3, 2, 1], atol=1e-6, rtol=0)
    assert float(found.error.abs().max()) < 1e-4


def test_black_is_the_black_pixel_of_a_model_and_zero_of_a_bare_module(net: nn.Module, images: Tensor) -> None:
    model = as_model(Smooth(), (16, 12))
    assert baseline_of(model, images, "black").unique().tolist() == [-2.0]
    assert baseline_of(model, images, "grey").unique().tolist() == [0.0]
    assert baseline_of(net, images, "black").unique().tolist() == [0.0]
    assert baseline_of(net, images, "grey").unique().tolist() == [0.0]
    black = integrated_gradients(model, images, 1)
    torch.testing.assert_close(black, integrated_gradients(model, images, 1, baseline=torch.tensor(-2.0)))
    mean = baseline_of(net, images, "mean")
    torch.testing.assert_close(mean[2, 1], torch.full((16, 12), float(images[2, 1].mean())))


def test_a_blur_keeps_what_is_flat_and_spreads_a_point() -> None:
    flat = torch.full((1, 3, 9, 40), 0.7)
    torch.testing.assert_close(blurred(flat, 5.0), flat)
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    spread = blurred(point, 3.0)[0, 0]
    rows = torch.arange(41.0) - 20
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    assert float((spread.sum(1) * rows**2).sum()) == pytest.approx(9, rel=0.05)
    torch.testing.assert_close(spread, spread.T)
    with pytest.raises(UsageError, match="above 0"):
        blurred(flat, 0)


class Answers(nn.Module):
    """A classifier whose answer is wrapped, and which changes its input in place."""

    def __init__(self, net: nn.Module, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.net, self.wrap = net, wrap

    def forward(self, x: Tensor) -> object:
        return self.wrap(self.net(x.mul_(2).sub_(1)))


@pytest.mark.parametrize("wrap", [lambda y: {"logits": y}, lambda y: (None, [y]), lambda y: ({"x": y}, y.detach())])
@pytest.mark.parametrize("method", METHODS)
def test_wrapped_answers_and_changes_in_place(
    net: nn.Module, images: Tensor, method: Callable[..., Tensor], wrap: Callable[[Tensor], object]
) -> None:
    before = images.clone()
    found = method(Answers(net, wrap), images, 1)
    assert torch.equal(images, before)
    plain = method(Answers(net, lambda y: y), images, 1)
    torch.testing.assert_close(found, plain)
    assert bool(found.any())


@pytest.mark.parametrize("method", METHODS)
def test_double_precision_models_give_float32_of_the_same_values(
    net: nn.Module, images: Tensor, method: Callable[..., Tensor]
) -> None:
    double = Smooth().double()
    double.load_state_dict(net.state_dict())
    found = method(double, images, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, method(net, images, 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", METHODS)
def test_it_works_where_the_caller_records_no_gradients(
    net: nn.Module,
    images: Tensor,
    method: Callable[..., Tensor],
    context: Callable[[], AbstractContextManager[None]],
) -> None:
    expected = method(net, images, 1)
    with context():
        found = method(net, images.clone(), 1)
    assert not found.requires_grad
    assert torch.equal(found, expected)


def test_a_model_made_in_inference_mode_is_refused(images: Tensor) -> None:
    with torch.inference_mode():
        net = Smooth()
    with pytest.raises(UsageError, match=r"made under torch.inference_mode\(\)"):
        saliency(net, images, 1)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_gradient_it_does_not_apply(net: nn.Module, images: Tensor, method: Callable[..., Tensor]) -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = net(x.detach())
            return out

    with pytest.raises(DoesNotApplyError, match=r"no gradient of Cut reaches the images.*take occlusion"):
        method(Cut(), images, 1)


def test_options_that_make_no_sense(net: nn.Module, images: Tensor) -> None:
    with pytest.raises(UsageError, match="not 'cubed'"):
        saliency(net, images, power="cubed")
    with pytest.raises(UsageError, match="at least one"):
        smoothgrad(net, images, samples=0)
    with pytest.raises(UsageError, match="noise of 0 or more"):
        smoothgrad(net, images, noise=-1)
    with pytest.raises(UsageError, match="at least 1 of each"):
        integrated_gradients(net, images, steps=0)
    with pytest.raises(UnknownNameError, match="no baseline named 'blakc'; did you mean black"):
        integrated_gradients(net, images, baseline="blakc")
    with pytest.raises(UsageError, match="broadcasts"):
        integrated_gradients(net, images, baseline=torch.zeros(5, 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "convnext_tiny", "vit_b_16"])
def test_torchvisions_networks(name: str) -> None:
    torch.manual_seed(0)
    options = {"vit_b_16": {"image_size": 64}, "googlenet": {"init_weights": False}}.get(name, {})
    net = getattr(torchvision.models, name)(weights=None, **options)
    if name == "vit_b_16":
        nn.init.normal_(net.heads.head.weight, std=0.1)
    images = torch.randn(2, 3, 64, 64)
    found = saliency(net.train(), images, [1, 7])
    assert net.training
    expected = Saliency(net.eval()).attribute(images.clone().requires_grad_(), torch.tensor([1, 7]))
    scale = float(expected.max())
    torch.testing.assert_close(found / scale, expected.amax(1) / scale, atol=1e-5, rtol=0)
    assert bool(torch.isfinite(found).all())
    assert scale > 0
