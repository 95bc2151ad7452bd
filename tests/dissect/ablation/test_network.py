"""A classifier without some of its units: the rest of the network alone against whole passes with a plain hook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.models import as_model
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.dissect.ablation.network import QuickNetwork, WholeNetwork, open_network
from microtome.dissect.ablation.trace import UntraceableError, trace_pass
from microtome.dissect.audit.job import Division
from microtome.dissect.models import Model, load_model
from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.sites import site_of
from microtome.storage.errors import UnknownNameError, UsageError

ONE_CORE = Division(device=torch.device("cpu"), workers=1, lanes=1, passes=1, torch_threads=1, channels_last=False)
BATCH = 4
Set = Callable[[Tensor, int, float], None]


def channel(raw: Tensor, unit: int, value: float) -> None:
    raw[:, unit] = value


def feature(raw: Tensor, unit: int, value: float) -> None:
    raw[..., unit] = value


class Plain(nn.Module):
    """In-place ReLUs, max and average pooling, batch norms with and without a convolution before them, two linears."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool1 = nn.MaxPool2d(3, 2, 1)
        self.norm0 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=2, dilation=2, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.gelu = nn.GELU()
        self.pool2 = nn.AdaptiveAvgPool2d(2)
        self.fc1 = nn.Linear(32, 7)
        self.act = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.pool1(self.relu1(self.conv1(x))))
        x = self.pool2(self.gelu(self.norm2(self.conv2(x))))
        out: Tensor = self.fc2(self.act(self.fc1(torch.flatten(x, 1))))
        return out


class Residual(nn.Module):
    """Branches that pass the layers by: an identity, a gate from the whole image, values put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.conv1 = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 1)
        self.gate = nn.Conv2d(6, 6, 1)
        self.narrow = nn.Conv2d(12, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        inner = F.hardswish(self.norm1(self.conv1(x)))
        out = self.conv2(inner)
        out *= torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        out += x
        wide = torch.cat([x, F.relu(out) * 0.5 + 1], dim=1)
        pooled = F.avg_pool2d(F.silu(self.grouped(F.relu(self.narrow(wide)))), 2).mean((2, 3))
        logits: Tensor = self.head(pooled)
        return logits


class ChannelsLast(nn.Module):
    """A ConvNeXt block: depthwise, then linear layers over the last axis, scaled and added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.LayerNorm(6)
        self.wide = nn.Linear(6, 10)
        self.act = nn.GELU()
        self.back = nn.Linear(10, 6)
        self.scale = nn.Parameter(torch.ones(6))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = self.stem(x)
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inner = self.scale * self.back(self.act(self.wide(inner)))
        x = x + inner.permute(0, 3, 1, 2)
        return {"hidden": x, "pooled": x.mean((2, 3)), "logits": self.head(x.mean((2, 3)))}


class AsTuple(Plain):
    """Answers a tuple, the logits behind things that are none."""

    def forward(self, x: Tensor) -> Any:
        return None, [x], super().forward(x)


class Branching(Plain):
    """Goes one way or another by what it sees."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.mean()) > 100:
            x = x * 0
        return super().forward(x)


def lively(model: Model) -> Model:
    """Batch norms that do something."""
    generator = torch.Generator().manual_seed(3)
    for module in model.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model


@contextmanager
def hooked(module: nn.Module, units: NDArray[np.int64], fill: NDArray[np.float32], set_unit: Set) -> Iterator[None]:
    """A module's output with some units at their fill value: the obvious way."""

    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        raw = output.clone()
        for unit in units.tolist():
            set_unit(raw, unit, float(fill[unit]))
        return raw

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def images_of(model: Model, count: int = BATCH) -> list[NDArray[np.uint8]]:
    dice = np.random.default_rng(7)
    return [dice.integers(0, 255, (*model.preprocess.size, 3), dtype=np.uint8) for _ in range(count)]


def prepared(model: Model, images: list[NDArray[np.uint8]]) -> Tensor:
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.preprocess.mean, model.preprocess.std))
    return (pixels - mean) / std


def assert_parity(model: Model, layer: str, set_unit: Set, module: str | None = None, *, quick: bool = True) -> None:
    """Every unit alone, at 0 and at other values, and some sets, against hooks on whole passes."""
    images = images_of(model)
    batch = prepared(model, images)
    units = site_of(model, layer).units
    hooked_module = model.module.get_submodule(module or layer)
    for fill in (np.zeros(units, np.float32), np.linspace(-0.5, 1.0, units, dtype=np.float32)):
        network = open_network(model, layer, ONE_CORE, fill, BATCH)
        assert isinstance(network, QuickNetwork) == quick
        held = network.hold(images)
        with torch.no_grad():
            plain = logits_of(model.module(batch)).numpy()
        scale = np.abs(plain).max()
        np.testing.assert_allclose(held.logits, plain, atol=1e-5 * scale)
        rows = np.repeat(np.arange(BATCH), units)
        found = network.without_units(held, rows, np.tile(np.arange(units), BATCH)).reshape(BATCH, units, -1)
        for unit in range(units):
            with torch.no_grad(), hooked(hooked_module, np.array([unit]), fill, set_unit):
                expected = logits_of(model.module(batch)).numpy()
            np.testing.assert_allclose(found[:, unit], expected, atol=1e-5 * scale)
            assert (expected == plain)[held.silent[:, unit]].all()
        dice = np.random.default_rng(0)
        sets = dice.random((3, units)) < 0.4
        rows = np.repeat(np.arange(BATCH), 3)
        found = network.without_sets(held, rows, np.tile(sets, (BATCH, 1))).reshape(BATCH, 3, -1)
        for number, chosen in enumerate(sets):
            with torch.no_grad(), hooked(hooked_module, np.flatnonzero(chosen), fill, set_unit):
                expected = logits_of(model.module(batch)).numpy()
            np.testing.assert_allclose(found[:, number], expected, atol=1e-5 * scale)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "pool1", "norm0", "conv2", "norm2", "pool2", "fc1", "act"])
def test_a_plain_network(layer: str) -> None:
    assert_parity(lively(as_model(Plain())), layer, channel)


@pytest.mark.parametrize("layer", ["stem", "conv1", "norm1", "conv2", "gate", "narrow", "grouped"])
def test_branches_pass_the_layer_by(layer: str) -> None:
    assert_parity(lively(as_model(Residual())), layer, channel)


@pytest.mark.parametrize("layer", ["stem", "depthwise", "norm", "wide", "act", "back"])
def test_channels_last_and_a_dict_with_logits(layer: str) -> None:
    set_unit = channel if layer in ("stem", "depthwise") else feature
    assert_parity(as_model(ChannelsLast()), layer, set_unit)


def test_a_tuple_of_outputs() -> None:
    assert_parity(as_model(AsTuple()), "conv2", channel)


def test_a_network_that_cannot_be_traced_has_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert_parity(as_model(Branching()), "conv2", channel, quick=False)
    said = capsys.readouterr().err
    assert "conv2: the rest of the network cannot be run alone (" in said
    assert "whole forward passes instead" in said


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["layer3.0.conv1", "layer4.0.relu@1", "layer4"])
def test_resnet18(layer: str) -> None:
    model = load_model("torchvision:resnet18?weights=none")
    module = layer.partition("@")[0]
    network = open_network(model, layer, ONE_CORE, np.zeros(site_of(model, layer).units, np.float32), 2)
    assert isinstance(network, QuickNetwork)
    held = network.hold(images_of(model, 2))
    units = np.array([3, 100])
    found = network.without_units(held, np.array([0, 1]), units)
    if "@" in layer:
        whole = WholeNetwork(network.passes)
        expected = whole.without_units(whole.hold(images_of(model, 2)), np.array([0, 1]), units)
    else:
        batch, expected = prepared(model, images_of(model, 2)), np.empty_like(found)
        for row, unit in enumerate(units):
            fill = np.zeros(512, np.float32)
            with torch.no_grad(), hooked(model.module.get_submodule(module), np.array([unit]), fill, channel):
                expected[row] = model.module(batch)[row]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("layer", "module"), [("blocks.3", "blocks.3"), ("blocks.4.mlp.act", "blocks.4.mlp.act")])
def test_tokens_of_the_builtin_transformer(layer: str, module: str) -> None:
    """A unit of a stream of tokens is removed from all of them, the class token included."""
    model = load_model("builtin:scenes-vit")
    images = images_of(model, 2)
    network = open_network(model, layer, ONE_CORE, np.full(site_of(model, layer).units, 0.1, np.float32), 2)
    assert isinstance(network, QuickNetwork)
    held = network.hold(images)
    fill = np.full(network.units, 0.1, np.float32)
    for unit in (0, 77):
        with torch.no_grad(), hooked(model.module.get_submodule(module), np.array([unit]), fill, feature):
            expected = model.module(prepared(model, images)).numpy()
        found = network.without_units(held, np.arange(2), np.full(2, unit))
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("layer", ["blocks.4.attn:heads", "blocks.4.attn:q"])
def test_heads_and_queries(layer: str) -> None:
    """Against whole passes; what a head's removal means is the site's to say."""
    model = load_model("builtin:scenes-vit")
    fill = np.zeros(site_of(model, layer).units, np.float32)
    network = open_network(model, layer, ONE_CORE, fill, 2)
    assert isinstance(network, QuickNetwork)
    slow = WholeNetwork(network.passes)
    held, whole = network.hold(images_of(model, 2)), slow.hold(images_of(model, 2))
    rows, units = np.array([0, 1, 1]), np.array([1, 0, 3])
    expected = slow.without_units(whole, rows, units)
    assert np.abs(expected - held.logits[rows]).max() > 2e-4
    np.testing.assert_allclose(network.without_units(held, rows, units), expected, atol=2e-5)


@pytest.mark.parametrize("layer", ["conv1", "norm0", "conv2", "fc1"])
def test_arithmetic_in_bfloat16(layer: str) -> None:
    model = lively(as_model(Plain()))
    division = replace(ONE_CORE, precision="bfloat16")
    network = open_network(model, layer, division, np.zeros(site_of(model, layer).units, np.float32), BATCH)
    assert isinstance(network, QuickNetwork)
    slow = WholeNetwork(network.passes)
    held, whole = network.hold(images_of(model)), slow.hold(images_of(model))
    rows, units = np.arange(BATCH), np.array([0, 1, 2, 5])
    expected = slow.without_units(whole, rows, units)
    np.testing.assert_allclose(network.without_units(held, rows, units), expected, atol=0.03 * np.abs(expected).max())


def test_a_silent_unit_is_known() -> None:
    model = as_model(Plain())
    with torch.no_grad():
        assert isinstance(model.module, Plain)
        model.module.conv1.bias[2] = -1e3
    network = open_network(model, "relu1", ONE_CORE, np.zeros(6, np.float32), BATCH)
    held = network.hold(images_of(model, 3))
    assert held.silent.shape == (3, 6)
    assert held.silent[:, 2].all()
    assert not held.silent[:, [0, 1]].all()


def test_rows_need_not_fill_a_batch() -> None:
    model = as_model(Plain())
    network = open_network(model, "conv2", ONE_CORE, np.zeros(8, np.float32), BATCH)
    images = images_of(model, 3)
    held = network.hold(images)
    assert held.logits.shape == (3, 5)
    rows, units = np.array([2, 0, 2, 1, 1]), np.array([0, 1, 2, 3, 7])
    together = network.without_units(held, rows, units)
    alone = [network.without_units(held, rows[i : i + 1], units[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert network.without_units(held, rows[:0], units[:0]).shape == (0, 5)


def test_what_is_no_classifier_is_refused() -> None:
    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(x)
            return out

    with pytest.raises(UsageError, match="no classifier"):
        open_network(as_model(Maps()), "conv", ONE_CORE, np.zeros(4, np.float32), 2)


def test_an_unknown_layer_is_refused_with_near_names() -> None:
    with pytest.raises(UnknownNameError, match="conv1"):
        open_network(as_model(Plain()), "conv11", ONE_CORE, np.zeros(4, np.float32), 2)


def test_a_layer_that_does_not_reach_the_answer_is_not_cut() -> None:
    class Aside(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.aside = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return super().forward(x)

    model = as_model(Aside())
    with pytest.raises(UntraceableError, match="does not reach"), torch.no_grad():
        trace_pass(site_of(model, "aside"), model.noise(2))
    network = open_network(model, "aside", ONE_CORE, np.zeros(4, np.float32), 2)
    held = network.hold(images_of(model, 2))
    np.testing.assert_allclose(network.without_units(held, np.array([0]), np.array([1])), held.logits[:1], atol=1e-6)


def test_logits_are_found_by_name_then_by_shape() -> None:
    logits = torch.zeros(2, 3)
    assert logits_of(logits) is logits
    assert logits_of({"pooled": torch.ones(2, 8), "logits": logits}) is logits
    assert logits_of((torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, dtype=torch.long), [logits])) is logits
