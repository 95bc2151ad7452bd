"""Deconvnet and guided backpropagation against networks whose rectifiers are written with the rule in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import Deconvolution, GuidedBackprop
from helpers.rectifying import Form, by_hand, gradient
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from microtome.dissect.attribution.rectifiers import deconvnet, guided_backprop, sees_the_image
from microtome.storage.errors import DoesNotApplyError

METHODS: dict[str, Callable[..., Tensor]] = {"deconvnet": deconvnet, "guided": guided_backprop}

FORMS: dict[str, Form] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": partial(F.relu, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu by keyword": lambda x: torch.relu(input=x),
    "torch.relu_": torch.relu_,
    "Tensor.relu": Tensor.relu,
    "Tensor.relu_": Tensor.relu_,
    "result left alone": lambda x: (x.relu_(), x)[1],
    "threshold": lambda x: F.threshold(x, 0, 0),
    "threshold in place": nn.Threshold(0, 0, inplace=True),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(0),
    "clamp_min": lambda x: torch.clamp_min(x, 0.0),
    "clamp_min of a tensor": lambda x: x.clamp_min(torch.zeros(())),
    "clip": lambda x: torch.clip(x, min=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "max with 0": lambda x: torch.max(torch.tensor(0.0), x),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "Tensor.where": lambda x: x.where(x >= 0, torch.zeros_like(x)),
    "where not": lambda x: torch.where(x < 0, 0, x),
    "where neither": lambda x: torch.where(x <= 0, torch.zeros_like(x), x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0),
    "masked_fill_": lambda x: x.masked_fill_(x <= 0, 0.0),
}
FORMS_6: dict[str, Form] = {
    "module 6": nn.ReLU6(),
    "module 6 in place": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, 0, 6),
    "hardtanh_": lambda x: F.hardtanh_(x, 0, 6),
    "clamp to 6": lambda x: x.clamp(0, 6),
    "clamp by keywords": lambda x: torch.clamp(input=x, min=0, max=6),
}


class Net(nn.Module):
    """One rectifier used three times, a max-pooling, a sum of two ways."""

    def __init__(self, act: Form) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.act = act
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def until_second(self, x: Tensor) -> tuple[Tensor, Tensor]:
        below = F.max_pool2d(self.act(self.first(x)), 2)
        return below, self.second(below)

    def forward(self, x: Tensor) -> Tensor:
        below, above = self.until_second(x)
        out: Tensor = self.head(self.act(self.act(above) - below * 2).mean((2, 3)))
        return out


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 12, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", [*FORMS, *FORMS_6])
def test_every_form_of_a_rectifier(images: Tensor, form: str, method: str) -> None:
    ceiling = math.inf if form in FORMS else 6.0
    net = Net({**FORMS, **FORMS_6}[form])
    found = METHODS[method](net, images, 2)
    expected = gradient(lambda x: Net(by_hand(method, ceiling))(x)[:, 2], images)
    assert found.shape == (3, 3, 12, 10)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert float((found - gradient(lambda x: net(x)[:, 2], images)).abs().max()) > 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("at", ["peak", "mean", (1, 2)])
def test_a_unit_in_the_middle(images: Tensor, method: str, at: str | tuple[int, int]) -> None:
    found = METHODS[method](Net(F.relu_), images, None, "second", unit=5, at=at)

    def unit(x: Tensor) -> Tensor:
        maps = Net(by_hand(method)).until_second(x)[1][:, 5]
        return maps.amax((1, 2)) if at == "peak" else maps.mean((1, 2)) if at == "mean" else maps[:, 1, 2]

    torch.testing.assert_close(found, gradient(unit, images), atol=1e-5, rtol=1e-5)
    assert bool(found.any())


@pytest.mark.parametrize("method", METHODS)
def test_a_unit_of_a_module_used_twice(images: Tensor, method: str) -> None:
    found = METHODS[method](Net(nn.ReLU(inplace=True)), images, None, "act@2", unit=1)

    def unit(x: Tensor) -> Tensor:
        act = by_hand(method)
        return act(Net(act).until_second(x)[1])[:, 1].amax((1, 2))

    torch.testing.assert_close(found, gradient(unit, images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_records_no_gradients(
    images: Tensor, context: Callable[[], AbstractContextManager[None]]
) -> None:
    net = Net(F.relu)
    expected = guided_backprop(net, images, 1)
    with context():
        found = guided_backprop(net, images.clone(), 1)
    assert not found.requires_grad
    assert torch.equal(found, expected)


def test_double_precision_and_wrapped_answers(images: Tensor) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(F.relu).double()

        def forward(self, x: Tensor) -> object:
            return {"auxiliary": None, "logits": self.net(x)}

    found = guided_backprop(Wrapped(), images, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, guided_backprop(Net(F.relu), images, 1), atol=1e-4, rtol=1e-4)


def test_the_model_is_left_as_it_was(images: Tensor) -> None:
    net = Net(nn.ReLU()).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    answer = net(images)
    guided_backprop(net, images, 1)
    deconvnet(net, images, None, "second", unit=1)
    assert net.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())
    assert torch.equal(net(images), answer)


def test_an_error_in_the_model_leaves_nothing_behind(images: Tensor) -> None:
    calls = []

    def act(x: Tensor) -> Tensor:
        calls.append(x)
        if len(calls) == 5:  # the class is found in the first pass, of three calls
            raise ValueError("in the middle")
        return F.relu(x)

    net = Net(act).train()
    with pytest.raises(ValueError, match="in the middle"):
        guided_backprop(net, images)
    assert net.training
    assert not _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    assert F.relu(images.clone().requires_grad_()).grad_fn.name() == "ReluBackward0"  # type: ignore[union-attr]


@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize(
    ("act", "named"),
    [
        (F.gelu, "GELU"),
        (nn.SiLU(), "SiLU"),
        (F.leaky_relu, "leaky ReLU"),
        (torch.tanh, "tanh"),
        (lambda x: F.hardtanh(x, -1, 1), "hard tanh"),
        (lambda x: F.threshold(x, 0.5, 0), "threshold"),
    ],
)
def test_a_network_without_rectifiers_is_refused(
    images: Tensor, method: Callable[..., Tensor], act: Form, named: str
) -> None:
    message = rf"does not apply: Net has no ReLU \(its nonlinearities: 3 {named}\); take smoothgrad or integrated-grad"
    with pytest.raises(DoesNotApplyError, match=message):
        method(Net(act), images, 1)


def test_a_deconvnet_without_max_pooling_is_the_same_for_every_image(images: Tensor) -> None:
    strided = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    by_rule = [
        gradient(lambda x: _with(strided, by_hand("deconvnet"))(x)[:, 2], image[None])
        for image in (images[0], images[1])
    ]
    torch.testing.assert_close(*by_rule)
    torch.testing.assert_close(deconvnet(strided, images[:1], 2), by_rule[0])
    assert not sees_the_image(strided, images, 2)
    assert sees_the_image(nn.Sequential(nn.MaxPool2d(2, 1), strided), images, 2)
    assert bool(guided_backprop(strided, images, 2).any())
    assert bool(deconvnet(strided, images, None, "2", unit=1).any())
    assert sees_the_image(strided, images, None, "2", unit=1)  # its peak lies elsewhere in other images


def _with(net: nn.Sequential, act: Form) -> Form:
    def run(x: Tensor) -> Tensor:
        for module in net:
            x = act(x) if isinstance(module, nn.ReLU | nn.ReLU6) else module(x)
        return x

    return run


def test_a_unit_before_the_first_rectifier_is_refused(images: Tensor) -> None:
    with pytest.raises(DoesNotApplyError, match="Net up to first has no ReLU"):
        guided_backprop(Net(F.relu), images, None, "first", unit=1)


def test_rectifiers_beside_other_activation_functions_are_refused(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(DoesNotApplyError, match=r"beside 1 ReLU .* negative gradients pass \(1 SiLU\)"):
        guided_backprop(net, images, 1)
    assert bool(guided_backprop(net, images, None, "2", unit=1).any())


def test_gates_may_be_there(images: Tensor) -> None:
    def gated(act: Form) -> nn.Module:
        return Net(lambda x: act(x) * torch.sigmoid(x.mean((2, 3), keepdim=True)))

    expected = gradient(lambda x: gated(by_hand("guided"))(x)[:, 1], images)
    torch.testing.assert_close(guided_backprop(gated(F.relu), images, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_checkpointed_parts_are_computed_again_by_the_rule(images: Tensor, method: str) -> None:
    class Checkpointed(Net):
        def until_second(self, x: Tensor) -> tuple[Tensor, Tensor]:
            found: tuple[Tensor, Tensor] = checkpoint(super().until_second, x, use_reentrant=False)
            return found

    found = METHODS[method](Checkpointed(F.relu_), images, 2)
    expected = gradient(lambda x: Net(by_hand(method))(x)[:, 2], images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not _get_current_function_mode_stack()  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_rectifiers_in_scripted_code_are_not_missed(images: Tensor) -> None:
    scripted = torch.jit.script(nn.ReLU())
    for _ in range(3):  # the graph looks different once the script has been optimised
        with pytest.raises(DoesNotApplyError, match=r"scripted|TorchScript"):
            guided_backprop(Net(scripted), images, 1)


def test_rectifiers_behind_the_back_of_the_mode_are_not_missed(images: Tensor) -> None:
    def hidden(x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return F.relu(x)

    net = nn.Sequential(Net(F.relu), nn.Linear(5, 5))
    with pytest.raises(DoesNotApplyError, match="3 of the 3 ReLU"):
        guided_backprop(Net(hidden), images, 1)
    calls = iter([F.relu, hidden, F.relu] * 2)
    with pytest.raises(DoesNotApplyError, match="1 of the 3 ReLU of Net run where they cannot be replaced"):
        guided_backprop(Net(lambda x: next(calls)(x)), images)
    assert bool(guided_backprop(net, images, 1).any())


def test_functions_with_a_gradient_of_their_own_are_refused(images: Tensor) -> None:
    class Own(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return gradients[0]

    net = Net(lambda x: Own.apply(F.relu(x)))  # type: ignore[no-untyped-call]
    with pytest.raises(DoesNotApplyError, match=r"insides cannot be seen \(Own\)"):
        guided_backprop(net, images, 1)


def calibrated(net: nn.Module) -> nn.Module:
    """With batch norms that keep the values' size, as they do in a trained network; in train mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64))
    return net


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "resnet18": calibrated(torchvision.models.resnet18(weights=None)),
        "densenet121": calibrated(torchvision.models.densenet121(weights=None)),
        "googlenet": calibrated(torchvision.models.googlenet(weights=None, init_weights=False)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet"])
def test_torchvisions_networks(
    networks: dict[str, nn.Module], name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randn(1, 3, 64, 64)
    net = networks[name].train()
    found = METHODS[method](net, images, 1)
    assert net.training
    net.eval()
    plain = gradient(lambda x: net(x)[:, 1], images)
    with monkeypatch.context() as patched:
        patched.setattr(F, "relu", lambda x, inplace=False: by_hand(method)(x))
        expected = gradient(lambda x: net(x)[:, 1], images)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=0)
    assert float((found - plain).abs().max()) > 0.1 * float(plain.abs().max())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations")
@pytest.mark.parametrize(("method", "captums"), [("deconvnet", Deconvolution), ("guided", GuidedBackprop)])
def test_captum_agrees_where_every_rectifier_is_a_module(
    networks: dict[str, nn.Module], method: str, captums: type[Any]
) -> None:
    net, images = networks["resnet18"].eval(), torch.randn(2, 3, 64, 64)
    found = METHODS[method](net, images, 5)
    expected = captums(net).attribute(images.clone().requires_grad_(), 5)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_tiny", "vit_b_16", "efficientnet_b0", "mobilenet_v3_small"])
def test_torchvisions_networks_of_other_kinds_are_refused(name: str) -> None:
    options = {"image_size": 64} if name == "vit_b_16" else {}
    net = getattr(torchvision.models, name)(weights=None, **options)
    with pytest.raises(DoesNotApplyError, match=r"has no ReLU|beside \d+ ReLU"):
        guided_backprop(net, torch.randn(1, 3, 64, 64), 1)
