"""Receptive fields: against the arithmetic of convolutions, and against what really changes an activation."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from helpers.models import Detached, Reused, SqueezeExcite, as_model
from helpers.real import real_kit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from microtome.dissect.models import ActivationCapture, Model, load_model, resolve_layers
from microtome.dissect.models.receptive_field import Axis, ReceptiveField, fit_law, measure
from microtome.storage.errors import UsageError

Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """A layer that slides a window, along one axis."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    def positions(self, length: int) -> int:
        return (length + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def sees(self, position: int, length: int) -> set[int]:
        first = position * self.stride - self.padding
        taps = range(first, first + self.dilation * self.kernel, self.dilation)
        return {tap for tap in taps if 0 <= tap < length}


def spans_by_sets(windows: list[Window], length: int) -> Spans:
    """The slow reference: the set of pixels that each position depends on, layer by layer."""
    seen = [{pixel} for pixel in range(length)]
    for window in windows:
        count = window.positions(len(seen))
        seen = [set().union(*(seen[tap] for tap in window.sees(position, len(seen)))) for position in range(count)]
    return [(min(pixels), max(pixels) + 1) for pixels in seen]


@st.composite
def windows(draw: st.DrawFn) -> Window:
    kernel = draw(st.integers(1, 4))
    dilation = draw(st.integers(1, 2))
    padding = draw(st.integers(0, dilation * (kernel - 1) // 2))
    return Window(kernel, draw(st.integers(1, 3)), padding, dilation)


def stack(layers: list[tuple[str, Window, Window]]) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Conv2d(3, 12, 1)]
    for kind, rows, columns in layers:
        pairs = [(getattr(rows, n), getattr(columns, n)) for n in ("kernel", "stride", "padding", "dilation")]
        kernel, stride, padding, dilation = pairs
        if kind == "max":
            modules.append(nn.MaxPool2d(kernel, stride, padding, dilation))
        elif kind == "avg":
            modules.append(nn.AvgPool2d(kernel, stride, padding))
        else:
            modules += [nn.Conv2d(12, 12, kernel, stride, padding, dilation), nn.ReLU(inplace=True)]
    return nn.Sequential(*modules)


def field_spans(axis: Axis, count: int) -> Spans:
    return [axis.span(i) for i in range(count)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["conv", "max", "avg"]), windows(), windows()), min_size=1, max_size=4))
def test_stacks_follow_the_arithmetic_of_convolutions(layers: list[tuple[str, Window, Window]]) -> None:
    height, width = 40, 56
    planned, grid = [], (height, width)
    for kind, rows, columns in layers:
        if kind != "conv":
            rows, columns = (Window(w.kernel, w.stride, min(w.padding, w.kernel // 2), 1) for w in (rows, columns))
        following = (rows.positions(grid[0]), columns.positions(grid[1]))
        if min(following) < 1:
            break
        grid = following
        planned.append((kind, rows, columns))
    model = as_model(stack(planned), (height, width))
    field = measure(model, [""])[""]
    assert_follows(field.rows, [rows for _, rows, _ in planned], height)
    assert_follows(field.columns, [columns for _, _, columns in planned], width)


def assert_follows(axis: Axis, windows: list[Window], length: int) -> None:
    """Equal to the reference; at the borders of dilated kernels it may hold the pixels that they skip."""
    expected = spans_by_sets(windows, length)
    measured = field_spans(axis, len(expected))
    if all(window.dilation == 1 for window in windows):
        assert measured == expected
    for i, ((start, stop), (first, last)) in enumerate(zip(measured, expected, strict=True)):
        assert start <= first < last <= stop
        if axis.stride:
            offset = axis.offset + axis.stride * i
            assert start == first or offset < axis.low
            assert stop == last or offset + axis.size > axis.high


def test_known_networks() -> None:
    """Stride, offset and size as they follow by hand from the kernels, strides and paddings."""
    alexnet = load_model("torchvision:alexnet", for_inspection=True)
    fields = measure(alexnet, ["features.0", "features.5", "features.12", "classifier.1"])
    laws = {name: (f.rows.stride, f.rows.offset, f.rows.size) for name, f in fields.items()}
    assert laws["features.0"] == (4, -2, 11)
    assert laws["features.5"] == (16, -18, 67)
    assert laws["features.12"] == (32, -66, 195)
    assert fields["classifier.1"].box(0, 0) == (0, 0, 224, 224)
    assert all(f.rows == f.columns and not f.note for f in fields.values())
    resnet = load_model("torchvision:resnet18", for_inspection=True)
    fields = measure(resnet, ["layer1", "layer3"])
    assert {(f.rows.stride, f.rows.size) for f in fields.values()} == {(4, 43), (16, 211)}


def assert_box_is_exact(model: Model, name: str, field: ReceptiveField, row: int, column: int) -> None:
    """Nothing outside the box changes the position's activations; each of the box's four edges does."""
    top, left, bottom, right = field.box(row, column)
    image = model.noise(1, seed=5)
    height, width = model.preprocess.size
    outside = torch.ones(height, width, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    changed = [outside]
    for rows, columns in (
        (slice(top, top + 1), slice(left, right)),
        (slice(bottom - 1, bottom), slice(left, right)),
        (slice(top, bottom), slice(left, left + 1)),
        (slice(top, bottom), slice(right - 1, right)),
    ):
        edge = torch.zeros(height, width, dtype=torch.bool)
        edge[rows, columns] = True
        changed.append(edge)
    with ActivationCapture(model, [name]) as capture:

        def at(x: Tensor) -> Tensor:
            return capture(x)[name][0, :, row, column].double()

        before = at(image)
        after = [
            [at(torch.where(mask, image + 30 * model.noise(1, seed=seed), image)) for seed in range(20, 24)]
            for mask in changed
        ]
    assert all(torch.equal(before, each) for each in after[0])
    for edge_values in after[1:]:
        assert any(not torch.equal(before, each) for each in edge_values)


@pytest.mark.parametrize(
    ("spec", "glob"),
    [
        ("torchvision:resnet18", "layer1"),
        ("torchvision:squeezenet1_1", "features.[46]"),
        ("torchvision:shufflenet_v2_x0_5", "stage2"),
    ],
)
def test_boxes_are_exact_in_real_architectures(spec: str, glob: str) -> None:
    model = as_model(load_model(spec, for_inspection=True).module, (96, 80))
    for name, field in measure(model, resolve_layers(model, [glob])).items():
        with ActivationCapture(model, [name]) as capture:
            h, w = capture(model.noise(1))[name].shape[2:]
        for row, column in ((0, 0), (h // 2, w // 2), (h - 1, w - 1), (1, w - 2)):
            assert_box_is_exact(model, name, field, row, column)


def test_boxes_are_exact_in_a_trained_network() -> None:
    model = load_model(f"{real_kit('efficientnet_lite_pytorch')}/classifiers.py:efficientnet_lite0")
    name = "_blocks.4"
    field = measure(model, [name])[name]
    assert (field.rows.stride, field.note) == (8, "")
    for row, column in ((0, 27), (13, 14)):
        assert_box_is_exact(model, name, field, row, column)


class Kinks(nn.Module):
    """Two units a layer, so that activations without slope would block whole paths; functions and methods alone."""

    def __init__(self, kink: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 2, 3, stride=2), nn.Conv2d(2, 2, 3)])
        self.kink = kink
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = self.kink(conv(x))
        out: Tensor = self.last(x)
        return out


@pytest.mark.parametrize(
    "kink",
    [
        nn.ReLU(inplace=True),
        lambda x: functional.relu6(x, inplace=True),
        lambda x: functional.hardswish(x, inplace=True),
        lambda x: functional.hardsigmoid(x - 3),
        lambda x: functional.threshold(x, 0.5, 0.0),
        torch.relu_,
        lambda x: x.clamp(0, 1),
        lambda x: x.clamp_(min=0),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
    ],
    ids=["relu", "relu6", "hardswish", "hardsigmoid", "threshold", "relu_", "clamp", "clamp_", "maximum"],
)
def test_slopes_of_nought_block_no_path(kink: Callable[[Tensor], Tensor]) -> None:
    field = measure(as_model(Kinks(kink), (21, 25)), ["last"])["last"]
    assert field.rows == Axis(2, -1, 9, 0, 21)
    assert field.columns == Axis(2, -1, 9, 0, 25)


@pytest.mark.parametrize("groups", [1, 2, 12])
def test_only_kernels_and_groups_join(groups: int) -> None:
    """Groups that see different kernels: the marks of one must not leak into another."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(3, 6, 7, padding=3), nn.Conv2d(3, 6, 1)
            self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=groups)
            self.last = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.grouped(torch.cat([self.narrow(x), self.wide(x)], dim=1))[:, :6])
            return out

    field = measure(as_model(Halves(), 20), ["last"])["last"]
    assert field.rows == (Axis(1, -4, 9, 0, 20) if groups == 1 else Axis(1, -1, 3, 0, 20))


def test_a_channels_last_module_has_the_same_fields() -> None:
    model = as_model(load_model("torchvision:resnet18", for_inspection=True).module, (96, 80))
    names = ["maxpool", "layer1", "layer3"]
    fields = measure(model, names)
    model.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert measure(model, names) == fields
    weight = model.module.get_parameter("layer1.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_max_pooling_with_ceil_mode_and_indices() -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            pooled, _ = functional.max_pool2d(self.conv(x), 3, 2, 1, ceil_mode=True, return_indices=True)
            out: Tensor = self.last(pooled)
            return out

    field = measure(as_model(Pools(), (16, 17)), ["last"])["last"]
    assert field_spans(field.rows, 9) == [(max(2 * i - 1, 0), min(2 * i + 2, 16)) for i in range(9)]
    assert field_spans(field.columns, 9) == [(max(2 * i - 1, 0), min(2 * i + 2, 17)) for i in range(9)]


@pytest.mark.parametrize(
    ("net", "length"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")), 12),
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, padding=1)), 9),
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(5)), 12),
        (nn.Sequential(nn.ConvTranspose2d(3, 8, 4, stride=2, padding=1)), 10),
        (nn.Sequential(nn.ZeroPad2d(-3), nn.Conv2d(3, 8, 2)), 14),
    ],
    ids=["circular", "upsampling", "adaptive", "transposed", "cropped"],
)
def test_fields_without_a_law_are_measured_one_by_one(net: nn.Sequential, length: int) -> None:
    model = as_model(net, length)
    last = str(len(net) - 1)
    field = measure(model, [last])[last]
    with ActivationCapture(model, [last]) as capture:
        h, w = capture(model.noise(1))[last].shape[2:]
    for row, column in itertools.product(range(h), range(0, w, 3)):
        assert_box_is_exact(model, last, field, row, column)


def test_networks_that_see_the_whole_image() -> None:
    fields = measure(as_model(SqueezeExcite(), 24), ["conv", "gate", "block"])
    assert fields["conv"].rows == Axis(2, -1, 3, 0, 24)
    assert fields["gate"].box(0, 0) == fields["block"].box(5, 7) == (0, 0, 24, 24)
    assert not fields["block"].note
    head = measure(as_model(Reused(), 16), ["act@2", "head"])
    assert head["head"].box(0, 0) == (0, 0, 16, 16)
    assert head["act@2"].box(4, 4) == (6, 6, 11, 11)


def test_where_gradients_do_not_pass_the_whole_image_is_taken_with_a_note() -> None:
    fields = measure(as_model(Detached(), 16), ["first", "second"])
    assert fields["second"].box(3, 3) == (0, 0, 16, 16)
    assert fields["second"].note == "not measured: no gradient reaches the input"
    assert fields["first"].box(3, 3) == (2, 2, 5, 5)


def test_a_layer_that_is_not_called() -> None:
    with pytest.raises(UsageError, match="'unused' was not called"):
        measure(as_model(Reused(), 16), ["unused"])


def test_the_model_is_left_as_it_was() -> None:
    model = as_model(Reused(), 16)
    for parameter in list(model.module.parameters())[:3]:
        parameter.requires_grad_(False)
    parameters = [(p.requires_grad, p.clone()) for p in model.module.parameters()]
    state = torch.get_rng_state()
    enabled = torch.backends.mkldnn.enabled  # type: ignore[attr-defined]
    measure(model, ["second", "act@3"])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mkldnn.enabled == enabled  # type: ignore[attr-defined]
    for parameter, (requires_grad, value) in zip(model.module.parameters(), parameters, strict=True):
        assert parameter.grad is None
        assert parameter.requires_grad == requires_grad
        assert torch.equal(parameter, value)
    assert not any(module._forward_hooks or module.training for module in model.module.modules())


@given(st.integers(1, 8), st.integers(-40, 5), st.integers(1, 60), st.integers(2, 30))
def test_a_law_is_found_again_from_few_positions(stride: int, offset: int, size: int, count: int) -> None:
    length = max(stride * count, 8)
    law = Axis(stride, offset, size, 0, length)
    truth = [(max(offset + stride * i, 0), min(offset + stride * i + size, length)) for i in range(count)]
    if any(start >= stop for start, stop in truth) or truth[0][0] > 0:
        return
    few = {i: truth[i] for i in {0, 1, count // 2, count - 1}}
    found = fit_law(few, (0, length), count)
    if found is not None:
        assert field_spans(found, count) == truth == field_spans(law, count)


axes = st.builds(
    Axis,
    stride=st.integers(0, 64),
    offset=st.integers(-400, 400),
    size=st.integers(1, 500),
    low=st.integers(0, 3),
    high=st.integers(4, 300),
    spans=st.lists(st.tuples(st.integers(0, 9), st.integers(10, 20)), max_size=3).map(tuple),
)


@given(st.builds(ReceptiveField, rows=axes, columns=axes, note=st.text(max_size=5)))
def test_round_trip(field: ReceptiveField) -> None:
    assert ReceptiveField.from_dict(json.loads(json.dumps(field.to_dict()))) == field


@given(axes, st.integers(0, 2))
def test_a_box_holds_at_least_one_pixel_of_the_image(axis: Axis, index: int) -> None:
    if axis.spans and index >= len(axis.spans):
        return
    start, stop = axis.span(index)
    assert 0 <= start < stop
    if not axis.spans:
        assert axis.low <= start < stop <= axis.high
