"""Class activation maps of torchvision's networks: against torchcam and captum where these are right."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers.cams import close, hooked, plus_plus
from torch import Tensor, nn

from microtome.dissect.attribution.cams import (
    cam,
    grad_cam,
    grad_cam_plus_plus,
)
from microtome.dissect.attribution.choosing import default_layer
from microtome.dissect.attribution.subject import model_of, scoring
from microtome.dissect.models import Model
from microtome.storage.errors import DoesNotApplyError

SIZE = 96
TARGETS = {"resnet18": 7, "densenet121": 7, "googlenet": 3, "convnext_tiny": 7}  # whose maps are not all zero

NETS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "resnet18": (torchvision.models.resnet18, "layer4"),
    "densenet121": (torchvision.models.densenet121, "features"),
    "googlenet": (lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False), "inception5b"),
    "convnext_tiny": (torchvision.models.convnext_tiny, "features"),
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=list(NETS))
def net(request: pytest.FixtureRequest, images: Tensor) -> Iterator[tuple[str, Model]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield request.param, model_of(NETS[request.param][0]().eval(), images)


def test_grad_cam_is_that_of_captum(net: tuple[str, Model], images: Tensor) -> None:
    from captum.attr import LayerGradCam

    name, model = net
    target = TARGETS[name]
    layer = NETS[name][1]
    theirs = LayerGradCam(model.module, model.module.get_submodule(layer)).attribute(
        images, target, relu_attributions=True
    )
    ours = grad_cam(model, images, target, layer, upsample=False, allow_zero=True)
    assert close(ours, theirs[:, 0].detach())
    large = F.interpolate(theirs, (SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0].detach()
    assert close(grad_cam(model, images, target, layer, allow_zero=True), large)


def test_grad_cam_is_that_of_torchcam(net: tuple[str, Model], images: Tensor) -> None:
    from torchcam.methods import GradCAM

    name, model = net
    target = TARGETS[name]
    layer = "features.7" if name == "convnext_tiny" else NETS[name][1]
    if name == "densenet121":
        layer = "features.denseblock4"  # what follows `features` works in place, on what torchcam has kept
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with GradCAM(model.module, layer, images.shape[1:]) as extractor:
            theirs = extractor(target, model.module(images.clone().requires_grad_()), normalized=False)[0].detach()
    assert close(grad_cam(model, images, target, layer, upsample=False, allow_zero=True), theirs)


def test_grad_cam_plus_plus_by_hand(net: tuple[str, Model], images: Tensor) -> None:
    """torchcam 0.5.0 leaves the denominator of alpha out: it divides a copy."""
    name, model = net
    target = TARGETS[name]
    layer = NETS[name][1]
    expected = plus_plus(*hooked(model.module, model.module.get_submodule(layer), images, target))
    assert close(grad_cam_plus_plus(model, images, target, layer, upsample=False, allow_zero=True), expected)


def test_cam_or_why_not(net: tuple[str, Model], images: Tensor) -> None:
    name, model = net
    target = TARGETS[name]
    if name == "convnext_tiny":
        with pytest.raises(DoesNotApplyError, match=r"cam does not apply: .*classifier.2.*; take grad-cam"):
            cam(model, images, target)
        return
    maps = hooked(model.module, model.module.get_submodule(NETS[name][1]), images, target)[0]
    maps = maps.relu() if name == "densenet121" else maps
    head = model.module.fc if name != "densenet121" else model.module.classifier
    expected = torch.stack([(head.weight[target][:, None, None] * each).sum(0) for each in maps]).detach()
    ours = cam(model, images, target, upsample=False)
    assert close(ours, expected)
    logits = model.module(images)[:, target].detach()
    assert close(ours.mean((1, 2)) + head.bias[target].detach(), logits)


def test_cam_is_that_of_torchcam(images: Tensor) -> None:
    from torchcam.methods import CAM

    target = TARGETS["resnet18"]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torchvision.models.resnet18().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with CAM(module, "layer4", fc_layer="fc", input_shape=images.shape[1:]) as extractor:
            theirs = extractor(target, module(images), normalized=False)[0].detach()
    assert close(cam(module, images, target, upsample=False).relu(), theirs.relu())


def test_default_layers(net: tuple[str, Model], images: Tensor) -> None:
    name, model = net
    target = TARGETS[name]
    with scoring(model, images, target) as score:
        assert default_layer(score) == NETS[name][1]
    assert torch.equal(
        grad_cam(model, images, target, allow_zero=True),
        grad_cam(model, images, target, NETS[name][1], allow_zero=True),
    )
