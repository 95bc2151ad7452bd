"""Occlusion against captum, and on a network that looks at one corner."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torchvision
from captum.attr import Occlusion
from helpers.models import as_model
from torch import Tensor, nn

from microtome.dissect.attribution.baselines import baseline_of
from microtome.dissect.attribution.occlusion import occlusion, spans
from microtome.storage.errors import UnknownNameError, UsageError


def small() -> nn.Module:
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.SiLU(), *head).eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return small()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 21, 17, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("size", "stride", "batch"), [(4, 4, 32), (5, 3, 7), (6, 1, 1000), (7, 5, 1), (1, 1, 64), (17, 2, 3), (17, 17, 2)]
)
def test_it_is_captums(net: nn.Module, images: Tensor, size: int, stride: int, batch: int) -> None:
    classes = torch.tensor([4, 0, 2])
    with torch.no_grad():
        expected = Occlusion(net).attribute(
            images, sliding_window_shapes=(3, size, size), strides=(3, stride, stride), target=classes, baselines=0.3
        )
    found = occlusion(net, images, classes, size=size, stride=stride, fill=0.3, batch=batch)
    assert found.shape == (3, 21, 17)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected[:, 0].float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fill", ["grey", "mean", "blur", "black"])
def test_what_covers_it(images: Tensor, fill: str) -> None:
    model = as_model(small(), (21, 17))
    hidden = baseline_of(model, images, fill)
    with torch.no_grad():
        expected = Occlusion(model.module).attribute(
            images, sliding_window_shapes=(3, 2, 2), strides=(3, 1, 1), target=1, baselines=hidden
        )
    torch.testing.assert_close(occlusion(model, images, 1, fill=fill), expected[:, 0].float(), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny"])
def test_torchvisions_networks(name: str) -> None:
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = Occlusion(net).attribute(
            images, sliding_window_shapes=(3, 24, 24), strides=(3, 16, 16), target=3, baselines=0.0
        )
    found = occlusion(net, images, 3, size=24, stride=16)
    torch.testing.assert_close(found, expected[:, 0].float(), atol=1e-5, rtol=0)


class Corner(nn.Module):
    """Logit 0 is the brightness of the lower right 8x8 pixels, logit 1 that of nothing."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, :, -8:, -8:].mean((1, 2, 3))
        return torch.stack([bright, torch.zeros_like(bright)], 1)


def test_a_network_that_looks_at_one_corner() -> None:
    images = torch.ones(2, 3, 32, 48)
    found = occlusion(Corner(), images, 0, size=8, stride=8)
    expected = torch.zeros(2, 32, 48)
    expected[:, -8:, -8:] = 1
    torch.testing.assert_close(found, expected)
    assert not occlusion(Corner(), images, 1).any()
    fine = occlusion(Corner(), images, 0, size=4, stride=1)
    assert [int(axis) for axis in torch.nonzero(fine[0] > 0).amin(0)] == [32 - 8 - 3, 48 - 8 - 3]
    assert int(fine[1].argmax()) % 48 >= 40


def test_a_unit_in_the_middle(net: nn.Module, images: Tensor) -> None:
    found = occlusion(net, images, None, "0", unit=2, at="mean", size=5, stride=2)

    def mean(x: Tensor) -> Tensor:
        values: Tensor = net[0](x)[:, 2].mean((1, 2))  # type: ignore[index]
        return values

    with torch.no_grad():
        expected = Occlusion(mean).attribute(images, sliding_window_shapes=(3, 5, 5), strides=(3, 2, 2))
    torch.testing.assert_close(found, expected[:, 0].float(), atol=1e-5, rtol=0)


def test_an_image_alone_is_as_in_its_batch(net: nn.Module, images: Tensor) -> None:
    alone = torch.cat([occlusion(net, image[None], 1) for image in images])
    torch.testing.assert_close(alone, occlusion(net, images, 1), atol=1e-6, rtol=0)


def test_no_pass_is_larger_than_the_batch(images: Tensor) -> None:
    sizes = []

    class Counting(Corner):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().forward(x)

    occlusion(Counting(), images, 0, batch=4)
    assert max(sizes) == 4


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_records_no_gradients(
    net: nn.Module, images: Tensor, context: Callable[[], AbstractContextManager[None]]
) -> None:
    expected = occlusion(net, images, 1)
    with context():
        assert torch.equal(occlusion(net, images.clone(), 1), expected)


def test_windows_reach_the_border() -> None:
    assert spans(10, 4, 3) == [(0, 4), (3, 7), (6, 10)]
    assert spans(11, 4, 3) == [(0, 4), (3, 7), (6, 10), (9, 11)]
    assert spans(4, 4, 2) == [(0, 4)]


def test_options_that_make_no_sense(net: nn.Module, images: Tensor) -> None:
    with pytest.raises(UsageError, match="expected 1 to 17"):
        occlusion(net, images, size=18)
    with pytest.raises(UsageError, match="leaves gaps: expected 1 to 3"):
        occlusion(net, images, size=3, stride=4)
    with pytest.raises(UsageError, match="at least 1"):
        occlusion(net, images, batch=0)
    with pytest.raises(UsageError, match="finite"):
        occlusion(net, images, fill=float("nan"))
    with pytest.raises(UnknownNameError, match="'gray'; did you mean grey"):
        occlusion(net, images, fill="gray")
