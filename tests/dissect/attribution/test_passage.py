"""What stands beside rectifiers: what may be one written otherwise is refused, what is surely none passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers.rectifying import Form, by_hand, gradient
from torch import Tensor, nn

from microtome.dissect.attribution.rectifiers import deconvnet, guided_backprop
from microtome.storage.errors import DoesNotApplyError

METHODS: dict[str, Callable[..., Tensor]] = {"deconvnet": deconvnet, "guided": guided_backprop}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 12, 10, generator=torch.Generator().manual_seed(1))


def _assigned(x: Tensor) -> Tensor:
    x[x < 0] = 0
    return x


def _gated_in_part(x: Tensor) -> Tensor:
    x[:, :4] *= torch.sigmoid(x[:, :4])
    return x


UNKNOWN: dict[str, tuple[Form, str]] = {
    "product with a mask": (lambda x: x * (x > 0), "1 mul"),
    "mask of numbers": (lambda x: (x > 0).float() * x, "1 mul"),
    "leaky mask": (lambda x: x * torch.where(x > 0, 1.0, 0.1), "1 mul"),
    "assigned": (_assigned, "1 masked_fill"),
    "absolute": (lambda x: (x + x.abs()) / 2, "1 abs"),
    "minimum": (lambda x: -torch.min(-x, torch.zeros(())), "1 minimum"),
    "fmax": (lambda x: torch.fmax(x, torch.zeros(())), "1 fmax"),
    "maximum of a stack": (lambda x: torch.stack([x, torch.zeros_like(x)]).amax(0), "1 amax"),
    "clamped from above": (lambda x: -(-x).clamp(max=0), "1 clamp"),
    "root of a square": (lambda x: x + x.pow(2).sqrt(), "1 sqrt, 1 pow|1 pow, 1 sqrt"),
    "SiLU": (lambda x: x * torch.sigmoid(x), "1 mul"),
    "SiLU of slices": (lambda x: x[:, :8] * torch.sigmoid(1.7 * x[:, :8]), "1 mul"),
    "SiLU of a part": (_gated_in_part, "1 mul"),
    "GELU": (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), "1 mul, 1 erf|1 erf, 1 mul"),
    "Softplus": (lambda x: torch.log1p(torch.exp(x)), "1 log1p, 1 exp|1 exp, 1 log1p"),
}


def beside_a_relu(act: Form) -> nn.Module:
    """`act` once, then a ReLU."""
    generator = torch.Generator().manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
    for parameter in (*first.parameters(), *second.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=generator)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.second(act(self.first(x)))).mean((2, 3))

    return Two()


@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize("form", UNKNOWN)
def test_what_may_be_a_rectifier_written_otherwise_is_refused(
    images: Tensor, form: str, method: Callable[..., Tensor]
) -> None:
    act, named = UNKNOWN[form]
    with pytest.raises(DoesNotApplyError, match=rf"beside 1 ReLU Two has operations that may be .* \(({named})\)"):
        method(beside_a_relu(act), images, 1)


HARMLESS: dict[str, Form] = {
    "linear unit gated by hand": lambda x: x[:, :4].repeat(1, 2, 1, 1) * torch.sigmoid(x[:, 4:].repeat(1, 2, 1, 1)),
    "squeezed and excited": lambda x: x * F.hardsigmoid(x.mean((2, 3), keepdim=True)),
    "softmax": lambda x: (x.flatten(2) @ x.flatten(2).mT.softmax(-1) @ x.flatten(2)).unflatten(2, x.shape[2:]),
    "local response": lambda x: F.local_response_norm(x, 2),
    "normalised": lambda x: F.normalize(x, dim=1),
    "by its own statistics": lambda x: (x - x.mean(1, True)) / ((x - x.mean(1, True)).pow(2).mean(1, True) + 1).sqrt(),
    "root mean square": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1),
    "pooled, enlarged, padded": lambda x: F.pad(F.interpolate(F.max_pool2d(x, 2), size=(9, 8)), (1, 0, 2, 0)),
    "shuffled": lambda x: F.pixel_shuffle(x, 2).repeat(1, 4, 1, 1).roll(1, 2).flip(3)[:, [3, 1, 2, 0, 4, 5, 7, 6]],
    "scaled by channel": lambda x: x * torch.arange(8.0).view(8, 1, 1) / 3 - 1,
}


@pytest.mark.parametrize("form", HARMLESS)
def test_what_is_surely_no_activation_function_may_be_there(images: Tensor, form: str) -> None:
    net = beside_a_relu(HARMLESS[form])
    found = guided_backprop(net, images, 1)

    def values(x: Tensor) -> Tensor:
        above = net.get_submodule("second")(HARMLESS[form](net.get_submodule("first")(x)))
        return by_hand("guided")(above).mean((2, 3))[:, 1]

    torch.testing.assert_close(found, gradient(values, images), atol=1e-5, rtol=1e-5)
