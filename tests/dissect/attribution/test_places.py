"""A unit looked at in another place of each image gives what it gives there alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome.dissect.attribution.methods import attribute
from microtome.storage.errors import UsageError

PLACES = [(0, 1), (2, 2), (3, 0)]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2, padding=1))
    return nn.Sequential(body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)).eval()


@pytest.mark.parametrize("method", ["guided-backprop", "saliency", "smoothgrad", "occlusion", "integrated-gradients"])
def test_places_of_their_own(net: nn.Module, method: str) -> None:
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    together = attribute(method, net, images, None, "0", unit=2, at=PLACES)
    for row, place in enumerate(PLACES):
        alone = attribute(method, net, images[row : row + 1], None, "0", unit=2, at=place)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("at", "said"), [(PLACES[:2], "2 places for 3 images"), ([*PLACES[:2], (9, 0)], "no position 9,0")]
)
def test_places_that_do_not_fit(net: nn.Module, at: list[tuple[int, int]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        attribute("saliency", net, torch.zeros(3, 3, 16, 16), None, "0", unit=2, at=at)
