"""Class activation maps: against gradients written out, on networks of every habit."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers.attentions import tiny
from helpers.cams import Plain, by_hand, close, hooked, plus_plus
from helpers.models import as_model
from helpers.real import real_kit
from torch import Tensor, nn

from microtome.dissect.attribution.activations import activations
from microtome.dissect.attribution.cams import (
    ZeroMapError,
    cam,
    grad_cam,
    grad_cam_plus_plus,
    guided_grad_cam,
    zero_maps,
)
from microtome.dissect.attribution.choosing import default_layer
from microtome.dissect.attribution.methods import attribute
from microtome.dissect.attribution.subject import model_of, scoring
from microtome.dissect.models import ActivationCapture, Model, load_model
from microtome.storage.errors import DoesNotApplyError, UnknownNameError, UsageError

SIZE = 64
ZEROS = {"allow_zero": True}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


# --- small networks


@pytest.fixture
def small() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("layer", ["first", "second", "relu@1", "relu@2"])
def test_what_works_in_place_changes_nothing(small: Tensor, layer: str) -> None:
    plain, in_place = as_model(Plain(False)), as_model(Plain(True))
    for method in ("grad-cam", "grad-cam++"):
        ours = attribute(method, in_place, small, 2, layer, allow_zero=True)
        assert torch.equal(ours, attribute(method, plain, small, 2, layer, allow_zero=True))


@pytest.mark.parametrize("call", [1, 2])
def test_a_module_used_twice(small: Tensor, call: int) -> None:
    model = as_model(Plain(False))
    net = model.module
    x = small.clone().requires_grad_()
    first = net.relu(net.first(x))
    second = net.relu(net.second(first))
    kept = (first, second)[call - 1]
    (gradient,) = torch.autograd.grad(net.head(second.mean((2, 3)))[:, 2].sum(), kept)
    expected = by_hand(kept.detach(), gradient)
    assert close(grad_cam(model, small, 2, f"relu@{call}", upsample=False, allow_zero=True), expected)
    with pytest.raises(UsageError, match="relu@1 to relu@2"):
        grad_cam(model, small, 2, "relu")


class AsDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"count": torch.arange(len(x)), "maps": self.conv(x)}


class Dicts(nn.Module):
    """A part whose output is a dict, and a dict as its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.head = AsDict(), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.part(x)["maps"].sigmoid().mean((2, 3)))}


def test_outputs_that_are_dicts(small: Tensor) -> None:
    model = as_model(Dicts())
    assert torch.equal(grad_cam(model, small, 1, "part"), grad_cam(model, small, 1, "part.conv"))
    with scoring(model, small, 1) as score:
        assert default_layer(score) == "part"
    maps = model.module.part(small)["maps"].sigmoid()
    expected = torch.einsum("k,bkhw->bhw", model.module.head.weight[1], maps).detach()
    assert close(cam(model, small, 1, upsample=False), expected)


def test_the_class_and_the_batch(small: Tensor) -> None:
    model = as_model(Plain(False))
    together = grad_cam(model, small, [0, 3, 1], allow_zero=True)
    for image, target in enumerate([0, 3, 1]):
        alone = grad_cam(model, small[image : image + 1], target, allow_zero=True)
        torch.testing.assert_close(together[image], alone[0], rtol=1e-5, atol=1e-7)
    top = model.module(small).argmax(1)
    assert torch.equal(grad_cam(model, small, None, allow_zero=True), grad_cam(model, small, top, allow_zero=True))
    assert together.dtype == torch.float32
    assert together.shape == (3, 32, 32)
    assert not together.requires_grad


# --- tokens


def test_tokens_leave_the_prefix_out() -> None:
    model, net = tiny("fused", prefix=2)
    images = model.noise(2)
    tokens = net.tokens(images.clone().requires_grad_())
    x = net.blocks[0](tokens)
    kept = x
    for block in net.blocks[1:]:
        x = block(x)
    (gradient,) = torch.autograd.grad(net.head(x[:, 0])[:, 3].sum(), kept)
    maps, gradients = (each[:, net.places].transpose(1, 2).unflatten(2, (5, 5)).detach() for each in (kept, gradient))
    ours = grad_cam(model, images, 3, "blocks.0", upsample=False, allow_zero=True)
    assert close(ours, by_hand(maps, gradients))
    ours = grad_cam_plus_plus(model, images, 3, "blocks.0", upsample=False, allow_zero=True)
    assert close(ours, plus_plus(maps, gradients))


def test_the_last_block_of_a_transformer_is_refused_and_another_named() -> None:
    model, _ = tiny("explicit")
    images = model.noise(2)
    with scoring(model, images, 3) as score:
        assert default_layer(score) == "blocks.1"
    assert grad_cam(model, images, 3, allow_zero=True).any()
    with pytest.raises(ZeroMapError, match=r"gradients at layer blocks.2 are zero everywhere.*; take layer ") as caught:
        grad_cam(model, images, 3, "blocks.2", allow_zero=True)
    assert caught.value.images == (0, 1)
    assert caught.value.works is not None
    grad_cam(model, images, 3, caught.value.works)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.images, again.works) == (str(caught.value), (0, 1), caught.value.works)


def test_windows_and_channels_last() -> None:
    """In Swin the output of a block's attention lies as the image does; so the maps of both are the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        swin = torchvision.models.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    model = model_of(swin, images)
    maps, gradients = hooked(swin, swin.features[1][1].norm2, images, 2)
    expected = by_hand(maps.permute(0, 3, 1, 2), gradients.permute(0, 3, 1, 2))
    assert close(grad_cam(model, images, 2, "features.1.1.norm2", upsample=False, allow_zero=True), expected)
    with scoring(model, images, 2) as score:
        assert default_layer(score) == "norm"
    logits = swin(images)[:, 2].detach()
    assert close(cam(model, images, 2, upsample=False).mean((1, 2)) + swin.head.bias[2].detach(), logits)


# --- units


def test_a_unit(small: Tensor) -> None:
    model = as_model(Plain(False))
    net = model.module
    x = small.clone().requires_grad_()
    first = net.relu(net.first(x))
    second = net.relu(net.second(first))
    places = {"peak": second[:, 4].amax((1, 2)), "mean": second[:, 4].mean((1, 2)), (2, 3): second[:, 4, 2, 3]}
    for at, value in places.items():
        (gradient,) = torch.autograd.grad(value.sum(), first, retain_graph=True)
        ours = grad_cam(model, small, None, "relu@2", unit=4, at=at, maps_layer="relu@1", upsample=False, **ZEROS)
        assert close(ours, by_hand(first.detach(), gradient))
    with scoring(model, small, None, "relu@2", unit=4) as score:
        assert default_layer(score) == "second"
    with scoring(model, small, None, "second", unit=4) as score:
        assert default_layer(score) == "relu@1"
    with pytest.raises(DoesNotApplyError, match="no layer before first"):
        grad_cam(model, small, layer="first", unit=1)
    with pytest.raises(UsageError, match="not reached before first"):
        grad_cam(model, small, layer="first", unit=1, maps_layer="second")
    with pytest.raises(UsageError, match="goes with a unit"):
        grad_cam(model, small, 1, maps_layer="second")


def test_the_maps_of_a_unit_in_a_block_are_from_before_the_block(images: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_of(torchvision.models.resnet18().eval(), images)
    for layer, expected in (
        ("layer4", "layer3"),
        ("layer4.1.bn1", "layer4.1.conv1"),
        ("layer1", "relu"),
        ("fc", "layer4"),
    ):
        with scoring(model, images, None, layer, unit=3) as score:
            assert default_layer(score) == expected


# --- maps of zeros


class Dark(nn.Module):
    """Class 0 counts what is bright, class 1 what is dark, class 2 nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Linear(2, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.relu(self.conv(x)).mean((2, 3)))
        return out


@pytest.fixture
def dark() -> Model:
    model = as_model(Dark())
    with torch.no_grad():
        model.module.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])[..., None, None])
        model.module.conv.bias.zero_()
        model.module.head.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]))
    return model


def test_images_without_a_map_are_named(dark: Model) -> None:
    images = torch.ones(3, 3, 32, 32)
    images[1] = -1
    with pytest.raises(ZeroMapError, match="for image 1 of the batch: its weighted sum is nowhere positive") as caught:
        grad_cam(dark, images, 0, "relu")
    assert (caught.value.images, caught.value.layer, caught.value.works) == ((1,), "relu", None)
    maps = grad_cam(dark, images, 0, "relu", allow_zero=True)
    assert zero_maps(maps) == (1,)
    for image in (0, 2):
        assert torch.equal(grad_cam(dark, images[image : image + 1], 0, "relu")[0], maps[image])
    with pytest.raises(ZeroMapError) as alone:
        grad_cam(dark, images[1:2], 0, "relu")
    assert alone.value.images == (0,)
    for allow_zero in (False, True):
        with pytest.raises(ZeroMapError, match=r"gradients .* zero everywhere.*no layer of this model"):
            grad_cam(dark, images, 2, "relu", allow_zero=allow_zero)


# --- refusals


def test_what_does_not_apply(small: Tensor) -> None:
    model = as_model(Plain(False))
    with pytest.raises(DoesNotApplyError, match="cam does not apply: it explains the classes"):
        cam(model, small, layer="first", unit=1)
    with pytest.raises(DoesNotApplyError, match=r"layer head has one position.*; take layer relu@2"):
        grad_cam(model, small, 1, "head")
    with pytest.raises(DoesNotApplyError, match=r"layer first .*or leave the layer out"):
        cam(model, small, 1, "first")
    assert torch.equal(cam(model, small, 1, "relu@2"), cam(model, small, 1))
    with pytest.raises(UnknownNameError, match="did you mean"):
        grad_cam(model, small, 1, "secnd")


@pytest.mark.parametrize("build", [torchvision.models.vgg11, torchvision.models.squeezenet1_1])
def test_cam_needs_one_linear_layer_on_means(build: Callable[[], nn.Module]) -> None:
    module = build().eval()
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(DoesNotApplyError, match="take grad-cam"):
        cam(module, images, 1)


def test_cam_of_tokens_and_of_a_classifier_that_is_a_convolution() -> None:
    model, _ = tiny("fused", prefix=1)
    with pytest.raises(DoesNotApplyError, match="head is not fed by the mean"):
        cam(model, model.noise(2), 1)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 6, 8, 8), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.patches(x).flatten(2).transpose(1, 2).mean(1))
            return out

    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 6, 8, 8), nn.Conv2d(6, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.avg_pool2d(self.patches(x), (4, 5))).flatten(1)

    for module in (Tokens(), Convolution()):
        small = as_model(module, (32, 40))
        images = small.noise(2)
        expected = torch.einsum("k,bkhw->bhw", module.head.weight.flatten(1)[1], module.patches(images)).detach()
        assert close(cam(small, images, 1, upsample=False), expected)


def test_guided_grad_cam_is_the_product(small: Tensor) -> None:
    model = as_model(Plain(True))
    fine = attribute("guided-backprop", model, small, 1)
    coarse = grad_cam(model, small, 1, "relu@1", allow_zero=True)
    assert torch.equal(guided_grad_cam(model, small, 1, "relu@1", allow_zero=True), fine * coarse[:, None])
    of_unit = guided_grad_cam(model, small, None, "relu@2", unit=3, allow_zero=True)
    fine = attribute("guided-backprop", model, small, None, "relu@2", unit=3)
    assert torch.equal(of_unit, fine * grad_cam(model, small, None, "relu@2", unit=3, allow_zero=True)[:, None])


def test_activations_are_the_layers_maps(small: Tensor) -> None:
    model = as_model(Plain(True))
    maps = activations(model, small, layer="second")
    assert torch.equal(maps, model.module.second(model.module.first(small).relu()).detach())
    assert torch.equal(activations(model, small, layer="second", units=[5, 0]), maps[:, [5, 0]])
    assert torch.equal(activations(model, small, layer="second", unit=5), maps[:, [5]])
    assert torch.equal(activations(model, small), activations(model, small, layer="relu@2"))
    assert activations(model, small, layer="second", upsample=True).shape == (3, 8, 32, 32)
    with pytest.raises(UsageError, match="has no unit 8"):
        activations(model, small, layer="second", units=[8])


def test_nothing_is_left_behind(small: Tensor) -> None:
    model = as_model(Plain(True)).module.train()
    for method in ("cam", "grad-cam", "grad-cam++", "guided-grad-cam", "activations"):
        attribute(method, model, small, 1, **({"allow_zero": True} if "grad" in method else {}))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


# --- networks as they are


@pytest.mark.parametrize(("spec", "layer"), [("builtin:scenes-cnn", "block5"), ("builtin:scenes-vit", "blocks.4")])
def test_default_layers_of_the_networks_that_come_along(spec: str, layer: str) -> None:
    model = load_model(spec)
    with scoring(model, model.noise(1), 3) as score:
        assert default_layer(score) == layer


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer"), [("efficientnet_lite0", "_swish@2"), ("mobilenet_v1", "pointwise.12")])
def test_default_layers_of_real_networks(name: str, layer: str) -> None:
    model = load_model(f"{real_kit() / 'classifiers.py'}:{name}")
    images = model.noise(1)
    with scoring(model, images, 3) as score:
        assert default_layer(score) == layer
    assert cam(model, images, 3).shape == images[:, 0].shape


@pytest.mark.slow
def test_a_whole_vision_transformer() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = torchvision.models.vit_b_16().eval()
        nn.init.normal_(vit.heads.head.weight)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    model = model_of(vit, images)
    with scoring(model, images, 3) as score:
        layer = default_layer(score)
    assert layer == "encoder.layers.encoder_layer_10"
    tokens, gradients = hooked(vit, vit.get_submodule(layer), images, 3)
    maps, gradients = (each[:, 1:].transpose(1, 2).unflatten(2, (14, 14)) for each in (tokens, gradients))
    assert close(grad_cam(model, images, 3, upsample=False, allow_zero=True), by_hand(maps, gradients))
    with ActivationCapture(model, [layer]) as capture:
        assert torch.equal(activations(model, images), capture(images)[layer])
