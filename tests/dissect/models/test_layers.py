"""Layer names, globs and descriptions."""

from __future__ import annotations

import pytest
import torch
from helpers.models import InPlace, MixesTokens, Odd, Reused, as_model
from helpers.real import real_kit
from torch import nn

from microtome.dissect.models import describe_layers, load_model, resolve_layers
from microtome.storage.errors import UnknownNameError, UsageError


@pytest.fixture(scope="module")
def reused() -> Reused:
    return Reused()


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (["second", "first"], ["first", "second"]),
        (["alias", "second"], ["second"]),
        (["act"], ["act@1", "act@2", "act@3"]),
        (["act@2"], ["act@2"]),
        (["act@[13]", "fir*"], ["first", "act@1", "act@3"]),
        (["?c?", "head"], ["act@1", "act@2", "act@3", "head"]),
        (["parts.0"], ["parts.0"]),
        (["parts*"], ["parts.0.0", "parts.0.1"]),
        (["parts.?"], ["parts.0"]),
        (["skip", "drop"], ["drop", "skip"]),
        (
            ["*"],
            ["first", "act@1", "second", "act@2", "parts.0.0", "parts.0.1", "act@3", "head"],
        ),
    ],
)
def test_names_and_globs(reused: Reused, globs: list[str], expected: list[str]) -> None:
    assert resolve_layers(as_model(reused), globs) == expected


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("secnd", r"did you mean second\? `microtome inspect tests:model` lists"),
        ("act@4", "no layer named 'act@4'"),
        ("zzz*", "no layer named 'zzz"),
        ("unused", "never called"),
        ("unus*", "never called"),
        ("parts", r"never called .* inside it there are parts.0.0, parts.0.1"),
        ("[ds][kr][io]p", "only Identity and Dropout"),
    ],
)
def test_names_that_pick_nothing(reused: Reused, glob: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_layers(as_model(reused), ["first", glob])


def test_no_names(reused: Reused) -> None:
    with pytest.raises(UsageError, match="no layers were named"):
        resolve_layers(as_model(reused), [])


def test_an_exact_name_wins_over_a_glob() -> None:
    net = nn.Sequential()
    net.add_module("a[1]", nn.Conv2d(3, 4, 1))
    net.add_module("a1", nn.Conv2d(4, 5, 1))
    assert resolve_layers(as_model(net), ["a[1]"]) == ["a[1]"]
    assert resolve_layers(as_model(net), ["a[[]1]", "a?"]) == ["a[1]", "a1"]


def test_descriptions(reused: Reused) -> None:
    model = as_model(reused, (32, 48))
    infos = {info.name: info for info in describe_layers(model)}
    assert list(infos) == ["first", "act@1", "second", "act@2", "parts.0.0", "parts.0.1", "parts.0", "act@3", "head"]
    second = infos["second"]
    assert (second.kind, second.shape, second.grid, second.units) == ("conv", (12, 16, 24), (16, 24), 12)
    assert second.bytes_per_image == 12 * 16 * 24 * 2
    assert [infos[name].kind for name in ("act@2", "parts.0", "head")] == ["activation", "container", "linear"]
    assert infos["head"].shape == (5, 1, 1)
    assert [info.name for info in describe_layers(model, ["head", "drop"])] == ["head", "drop"]
    silent = {i.name: i.note for i in describe_layers(model, include_unusable=True) if not i.usable}
    assert silent == {"parts": "is never called in a forward pass", "unused": "is never called in a forward pass"}
    with pytest.raises(UnknownNameError, match="act@1"):
        describe_layers(model, ["act"])


def test_outputs_of_many_shapes_have_a_layout_in_words() -> None:
    model = as_model(Odd(), 8)
    assert resolve_layers(model, ["as_*"]) == ["as_dict", "as_tuple", "as_dataclass"]
    notes = {info.name: info.note for info in describe_layers(model, include_unusable=True) if not info.usable}
    assert notes == {}
    layouts = {info.name: info.layout for info in describe_layers(model)}
    assert layouts["tokens"] == "8x8 tokens"
    assert layouts["last"] == layouts["last_norm"] == layouts["last_act"] == "8x8, channels last"
    assert layouts["windows"] == "8x8 tokens"  # the channels are part of the batch there


def test_layers_that_mix_positions_ask_for_the_grid() -> None:
    model = as_model(MixesTokens(), 8)
    notes = {info.name: info.note for info in describe_layers(model, include_unusable=True) if not info.usable}
    assert list(notes) == ["mix", "narrow"]
    assert notes["mix"].startswith("gives (2, 6, 64), in which positions of the image are mixed")
    with pytest.raises(UsageError, match=r"'mix' gives .* --grid HxW and --prefix P; near it .*: conv, head"):
        resolve_layers(model, ["mix"])
    with pytest.raises(UsageError, match=r"'narr[*]' gives \(2, 6, 5\)"):
        resolve_layers(model, ["narr*"])


def test_a_model_that_does_not_run() -> None:
    with pytest.raises(UsageError, match=r"does not run on images \(B, 3, 8, 8\): RuntimeError"):
        resolve_layers(as_model(nn.Conv2d(4, 2, 3), 8), ["*"])


def test_tracing_leaves_nothing_behind() -> None:
    model = as_model(InPlace())
    state = torch.get_rng_state()
    describe_layers(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.module.modules())


def test_resnet() -> None:
    model = load_model("torchvision:resnet18", for_inspection=True)
    assert resolve_layers(model, ["layer[34]"]) == ["layer3", "layer4"]
    assert resolve_layers(model, ["layer4.1.*"])[-1] == "layer4.1.relu@2"
    assert describe_layers(model, ["layer3"])[0].shape == (256, 14, 14)


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny"])
def test_torchvision_models_with_channels_last_inside(name: str) -> None:
    infos = {i.name: i for i in describe_layers(load_model(f"torchvision:{name}", for_inspection=True))}
    norm = infos["features.1.0.norm1" if name == "swin_t" else "features.1.0.block.2"]
    assert norm.shape == (96, 56, 56)
    assert norm.layout == "56x56, channels last"
    assert infos["head" if name == "swin_t" else "classifier.2"].grid == (1, 1)


def test_timm_swin() -> None:
    pytest.importorskip("timm", reason="the extra microtome[timm] is not installed")
    model = load_model("timm:swin_tiny_patch4_window7_224", for_inspection=True)
    blocks = resolve_layers(model, ["layers.?.blocks.?"])
    assert [i.grid for i in describe_layers(model, blocks)] == [(56, 56)] * 2 + [(28, 28)] * 2 + [(14, 14)] * 6 + [
        (7, 7)
    ] * 2
    assert resolve_layers(model, ["layers.0.*.attn:heads-mean"]) == [
        f"layers.0.blocks.{i}.attn:heads-mean" for i in (0, 1)
    ]
    with pytest.raises(UsageError, match="has no class token among its queries; take heads-mean"):
        resolve_layers(model, ["layers.0.*.attn:heads"])


def test_a_real_network_that_reuses_a_module() -> None:
    model = load_model(f"{real_kit('efficientnet_lite_pytorch')}/classifiers.py:efficientnet_lite0")
    assert resolve_layers(model, ["_swish", "_blocks.10"]) == ["_swish@1", "_blocks.10", "_swish@2"]
    shapes = [info.shape for info in describe_layers(model, ["_swish@1", "_swish@2"])]
    assert shapes == [(32, 112, 112), (1280, 7, 7)]
    mobile = load_model(f"{real_kit('nudity')}/classifiers.py:mobilenet_v1")
    assert resolve_layers(mobile, ["pointwise.1[02]"]) == ["pointwise.10", "pointwise.12"]


def test_the_model_runs_once_for_names_and_descriptions() -> None:
    model = as_model(Reused())
    runs = []
    model.module.register_forward_hook(lambda *_: runs.append(1))
    names = resolve_layers(model, ["*"])
    assert [info.name for info in describe_layers(model, names)] == names
    assert len(runs) == 1
    describe_layers(model, batch=1)
    assert len(runs) == 2
    model.module.extra = nn.Identity()
    assert resolve_layers(model, ["*"]) == names
    assert len(runs) == 3
