"""Networks with odd habits: what changes its input, computes parts again, takes other than three channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers.cams import Plain
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from microtome.dissect.attribution.activations import activations
from microtome.dissect.attribution.cams import cam
from microtome.dissect.attribution.methods import attribute
from microtome.storage.errors import DoesNotApplyError, UsageError


@pytest.fixture
def small() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


class InPlace(Plain):
    """Changes what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.1).div_(2.0))


EVERY = ("cam", "grad-cam", "grad-cam++", "guided-grad-cam", "activations", "saliency")


def options_of(method: str) -> dict[str, bool]:
    return {"allow_zero": True} if "grad-cam" in method else {}


def seeded(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


@pytest.mark.parametrize("method", EVERY)
def test_a_model_that_changes_its_input_in_place(small: Tensor, method: str) -> None:
    given = small.clone()
    found = attribute(method, seeded(lambda: InPlace(True)), given, 1, **options_of(method))
    assert torch.equal(given, small)
    expected = attribute(method, seeded(lambda: Plain(True)), (small - 0.1) / 2, 1, **options_of(method))
    torch.testing.assert_close(found, expected / 2 if method == "saliency" else expected)


def checkpointed(reentrant: bool) -> nn.Module:
    class Checkpointed(Plain):
        def trunk(self, x: Tensor) -> Tensor:
            out: Tensor = self.relu(self.second(self.relu(self.first(x))))
            return out

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(checkpoint(self.trunk, x, use_reentrant=reentrant).mean((2, 3)))
            return out

    return seeded(lambda: Checkpointed(True))


@pytest.mark.parametrize("method", [*EVERY, "integrated-gradients"])
def test_activation_checkpointing(small: Tensor, method: str) -> None:
    found = attribute(method, checkpointed(False), small, 1, **options_of(method))
    expected = attribute(method, seeded(lambda: Plain(True)), small, 1, **options_of(method))
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("method", [*EVERY[1:], "integrated-gradients", "guided-backprop"])
def test_reentrant_checkpointing_is_refused_by_name(small: Tensor, method: str) -> None:
    with pytest.raises(DoesNotApplyError, match=r"reentrant activation checkpointing.*use_reentrant=False"):
        attribute(method, checkpointed(True), small, 1)
    if method.startswith("grad-cam"):
        with pytest.raises(DoesNotApplyError, match="reentrant activation checkpointing"):
            attribute(method, checkpointed(True), small, 1, "second")


def test_cam_of_a_linear_layer_that_is_called_as_a_function(small: Tensor) -> None:
    class Functional(Plain):
        def forward(self, x: Tensor) -> Tensor:
            means = self.relu(self.second(self.relu(self.first(x)))).mean((2, 3))
            return F.linear(means, self.head.weight, self.head.bias)

    class Logarithms(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return F.log_softmax(super().forward(x), 1)

    expected = cam(seeded(lambda: Plain(False)), small, 1)
    assert torch.equal(cam(seeded(lambda: Functional(False)), small, 1), expected)
    with pytest.raises(DoesNotApplyError, match="other operations follow the last one, head; take grad-cam"):
        cam(seeded(lambda: Logarithms(False)), small, 1)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_any_number_of_channels(channels: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    images = torch.randn(2, channels, 12, 10)
    shapes = {"cam": (2, 12, 10), "grad-cam": (2, 12, 10), "activations": (2, 8, 8, 6), "guided-grad-cam": images.shape}
    for method, shape in shapes.items():
        assert attribute(method, module, images, 1, **options_of(method)).shape == shape
    with pytest.raises(UsageError, match=r"does not run on images \(B, 3, 12, 10\)"):
        activations(module, torch.randn(2, 3, 12, 10), layer="0")
    with pytest.raises(DoesNotApplyError, match=rf"grabcut .* have {channels} channels"):
        attribute("grabcut", module, images, 1)
