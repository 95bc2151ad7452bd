"""Capturing: what comes out is what the layer gave, whatever happens later; and nothing is left behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.models import InPlace, Odd, Reused, as_model
from torch import Tensor, nn

from microtome.dissect.models import ActivationCapture, load_model, resolve_layers
from microtome.storage.errors import UnknownNameError, UsageError


def hooks(module: nn.Module) -> int:
    return sum(len(each._forward_hooks) for each in module.modules())


def test_later_operations_in_place_change_nothing() -> None:
    model = as_model(InPlace())
    x = model.noise(2)
    with ActivationCapture(model, ["conv", "relu"], early_stop=False) as capture:
        maps = capture(x)
    assert isinstance(model.module, InPlace)
    expected = model.module.conv(x)
    assert torch.equal(maps["conv"], expected)
    assert torch.equal(maps["relu"], expected.relu())
    assert maps["conv"].is_contiguous()
    assert not maps["conv"].requires_grad


def test_each_call_of_a_module_is_its_own_layer() -> None:
    net = Reused()
    model = as_model(net)
    x = model.noise(2)
    names = resolve_layers(model, ["act", "head"])
    for early_stop in (False, True):
        with ActivationCapture(model, names, early_stop=early_stop) as capture:
            capture(x)
            maps = capture(x)
        first = net.first(x).relu()
        second = net.second(first).relu()
        third = net.parts[0](second).relu()
        assert list(maps) == ["act@1", "act@2", "act@3", "head"]
        assert torch.equal(maps["act@1"], first)
        assert torch.equal(maps["act@2"], second)
        assert torch.equal(maps["act@3"], third)
        assert torch.equal(maps["head"], net.head(third.mean((2, 3)))[:, :, None, None])


def test_a_plain_name_of_several_calls_is_refused() -> None:
    with pytest.raises(UsageError, match=r"called 3 times .* act@1 to act@3"):
        ActivationCapture(as_model(Reused()), ["act"])


def test_early_stop_saves_the_rest_and_changes_nothing() -> None:
    model = as_model(Reused())
    seen: list[int] = []
    assert isinstance(model.module, Reused)
    model.module.head.register_forward_hook(lambda *args: seen.append(1))
    x = model.noise(2)
    with ActivationCapture(model, ["act@2", "first"]) as capture:
        full, short = capture(x), capture(x)
    assert len(seen) == 1
    assert all(torch.equal(full[name], short[name]) for name in full)
    with ActivationCapture(model, ["act@2", "first"]) as capture:
        assert torch.equal(capture(x)["first"], full["first"])
    assert len(seen) == 1


def test_dicts_tuples_and_dataclasses() -> None:
    model = as_model(Odd(), 8)
    x = model.noise(3)
    with ActivationCapture(model, ["conv", "as_dict", "as_tuple", "as_dataclass"]) as capture:
        maps = capture(x)
    assert torch.equal(maps["as_dict"], maps["conv"] * 2)
    assert torch.equal(maps["as_tuple"], maps["conv"])  # of tokens, the first of its tensors
    assert torch.equal(maps["as_dataclass"], maps["conv"] * 4)


def test_tokens_channels_last_and_vectors_are_maps() -> None:
    model = as_model(Odd(), 8)
    x = model.noise(3)
    with ActivationCapture(model, ["conv", "tokens", "last", "last_norm", "last_act"]) as capture:
        maps = capture(x)
    assert isinstance(model.module, Odd)
    last = maps["conv"].permute(0, 2, 3, 1)
    assert torch.allclose(maps["tokens"], model.module.tokens(last).permute(0, 3, 1, 2), atol=1e-6)
    assert torch.allclose(maps["last"], model.module.last(last).permute(0, 3, 1, 2), atol=1e-6)
    assert torch.equal(maps["last_act"], torch.nn.functional.gelu(maps["last_norm"]))


def test_a_transform_takes_the_place_of_the_copy() -> None:
    model = as_model(InPlace())

    def halve(name: str, maps: Tensor) -> tuple[str, Tensor]:
        return name, maps.to(torch.float16)

    with ActivationCapture(model, ["conv"], transform=halve) as capture:
        name, maps = capture(model.noise(2))["conv"]
    with ActivationCapture(model, ["conv"]) as plain:
        assert torch.equal(maps, plain(model.noise(2))["conv"].half())
    assert name == "conv"


def test_threads_share_a_capture() -> None:
    model = as_model(Reused())
    names = resolve_layers(model, ["*"])
    batches = [model.noise(2, seed=seed) for seed in range(24)]
    with ActivationCapture(model, names) as capture:
        with ThreadPoolExecutor(1) as pool:  # a thread of its own, too: this one's number of OpenMP threads may differ
            alone = list(pool.map(capture, batches))
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(capture, batches))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in names)


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.broken = False

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.conv(x)
        except Exception:  # a model that hides errors must not stop the early stop
            return x
        if self.broken:
            raise ZeroDivisionError
        return x


def test_hooks_are_always_detached() -> None:
    net = Fails()
    model = as_model(net)
    capture = ActivationCapture(model, ["conv"], early_stop=False)
    net.broken = True
    with capture:
        assert hooks(net) == 1
        with pytest.raises(ZeroDivisionError):
            capture(model.noise(1))
    assert hooks(net) == 0
    with pytest.raises(UsageError, match="the capture is closed"):
        capture(model.noise(1))
    with ActivationCapture(model, ["conv"]) as capture:
        assert list(capture(model.noise(1))) == ["conv"]
    with pytest.raises(ZeroDivisionError):
        net(model.noise(1))


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("unused", UsageError, "'unused' was not called"),
        ("act@9", UnknownNameError, "did you mean act@3"),
        ("frst", UnknownNameError, "did you mean first"),
    ],
)
def test_names_that_are_no_layers(name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ActivationCapture(as_model(Reused()), ["first", name])


class Moody(nn.Module):
    """Leaves a part out, or gives it another size, once it has been told to."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.tokens = nn.Linear(4, 5)
        self.mood = ""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.mood == "absent":
            return x
        if self.mood == "narrow":
            x = x[:, :, 1:]
        out: Tensor = self.tokens(x.flatten(2).transpose(1, 2))
        return out


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("absent", "'tokens' was not called in the forward pass"),
        ("narrow", r"'tokens' gives \(2, 56, 5\), another shape than in the pass that found its units"),
    ],
)
def test_a_pass_unlike_the_traced_one(mood: str, words: str) -> None:
    net = Moody()
    model = as_model(net, 8)
    with ActivationCapture(model, ["tokens"]) as capture:
        assert capture(model.noise(2))["tokens"].shape == (2, 5, 8, 8)
        net.mood = mood
        with pytest.raises(UsageError, match=words):
            capture(model.noise(2))


@pytest.mark.parametrize(
    ("name", "glob"), [("squeezenet1_1", "*activation"), ("mobilenet_v3_small", "*.2"), ("resnet18", "*relu")]
)
def test_real_architectures_give_the_same_with_and_without_early_stop(name: str, glob: str) -> None:
    model = load_model(f"torchvision:{name}", for_inspection=True)
    names = resolve_layers(model, [glob])
    assert len(names) > 4
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with ActivationCapture(model, names, early_stop=False) as capture:
        full = capture(x)
    with ActivationCapture(model, names) as capture:
        short = capture(x)
    assert list(full) == list(short) == names
    assert all(torch.equal(full[each], short[each]) for each in names)
    assert hooks(model.module) == 0
