"""LAYER:cls is the class token: what a plain hook sees, in models that have one; the others are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.attentions import tiny
from helpers.real import real_kit
from torch import Tensor, nn

from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.models import ActivationCapture, Model, describe_layers, load_model, resolve_layers
from microtome.dissect.models.sites import site_of
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run


def hooked(model: Model, name: str, images: Tensor) -> Tensor:
    """What module `name` gives, by a plain hook."""
    seen: list[Tensor] = []
    handle = model.module.get_submodule(name).register_forward_hook(
        lambda module, inputs, out: seen.append(out.clone())
    )
    with torch.no_grad():
        model.module(images)
    handle.remove()
    return seen[0]


def check(model: Model, name: str, row: int = 0) -> None:
    """`name`:cls is token `row` of `name`."""
    images = model.noise(3)
    with ActivationCapture(model, [f"{name}:cls"]) as capture:
        found = capture(images)[f"{name}:cls"]
    expected = hooked(model, name, images)[:, row]
    assert found.shape == (*expected.shape, 1, 1)
    torch.testing.assert_close(found[:, :, 0, 0], expected)


def refusal(model: Model, name: str) -> str:
    with pytest.raises(UsageError) as chosen:
        resolve_layers(model, [name])
    with pytest.raises(UsageError) as opened:
        ActivationCapture(model, [name])
    assert str(chosen.value) == str(opened.value)
    return str(chosen.value)


@pytest.mark.parametrize("layer", ["blocks.5", "blocks.0.mlp.act", "norm"])
def test_the_class_token_of_the_built_in_transformer(layer: str) -> None:
    check(load_model("builtin:scenes-vit", for_inspection=True), layer)


@pytest.mark.parametrize(("prefix", "behind", "row"), [(1, False, 0), (5, False, 0), (1, True, 25)])
def test_registers_and_a_class_token_behind_the_patches(prefix: int, behind: bool, row: int) -> None:
    model, net = tiny("fused", prefix=prefix, behind=behind)
    if prefix > 1:
        assert "does not say that the first is a class token" in refusal(model, "blocks.1:cls")
        net.register_parameter("cls_token", nn.Parameter(torch.zeros(1)))
    check(model, "blocks.1", row)


def test_a_register_is_no_class_token() -> None:
    model, net = tiny("fused", prefix=1)
    net.register_parameter("reg_token", nn.Parameter(torch.zeros(1)))
    assert "has a register beside the patches, and no class token" in refusal(model, "blocks.1:cls")


def test_the_real_transformer() -> None:
    check(load_model(f"{real_kit()}/vit.py:vit_s14", for_inspection=True), "blocks.11")


def test_torchvision() -> None:
    check(load_model("torchvision:vit_b_16?weights=none", for_inspection=True), "encoder.layers.encoder_layer_11")


@pytest.mark.parametrize(
    ("spec", "layer", "reason"),
    [
        (
            "torchvision:resnet18",
            "layer4",
            "has no class token: it gives 7x7 positions of the image and nothing beside",
        ),
        ("torchvision:swin_t", "features.5.1", "has no class token: it gives 14x14 positions"),
        ("builtin:scenes-vit", "head", "gives one vector an image and no tokens; take the layer itself"),
        ("builtin:scenes-vit", "blocks.1.attn:q", "is inside an attention"),
    ],
)
def test_layers_without_one_are_refused(spec: str, layer: str, reason: str) -> None:
    message = refusal(load_model(spec, for_inspection=True), f"{layer}:cls")
    assert message.startswith(f"layer '{layer}:cls' {reason}")


def test_globs_pick_the_layers_that_have_one() -> None:
    model = load_model("builtin:scenes-vit", for_inspection=True)
    every = resolve_layers(model, ["blocks.?:cls"])
    assert every == [f"blocks.{number}:cls" for number in range(6)]
    assert "patch_embed:cls" not in resolve_layers(model, ["*:cls"])
    assert resolve_layers(model, ["blocks.1:cls", "blocks.0", "blocks.1"]) == ["blocks.0", "blocks.1", "blocks.1:cls"]
    info = describe_layers(model, ["blocks.5:cls"])[0]
    assert (info.kind, info.shape, info.layout) == ("cls", (128, 1, 1), "the class token")
    assert not any(info.name.endswith(":cls") for info in describe_layers(model))
    with pytest.raises(UnknownNameError, match="blokcs"):
        resolve_layers(model, ["blokcs:cls"])


def test_its_units_are_not_taken_away() -> None:
    model = load_model("builtin:scenes-vit", for_inspection=True)
    with pytest.raises(UsageError, match=r"one token of a layer.*take blocks\.5$"):
        site_of(model, "blocks.5:cls")


def test_an_audit_keeps_its_embedding(tmp_path: Path) -> None:
    layers = ("blocks.5:cls", "blocks.5:cls:pca4", "blocks.5")
    run_audit(AuditConfig(model="builtin:scenes-vit", dataset="scenes:12", layers=layers, out=tmp_path / "run"))
    run = Run.open(tmp_path / "run")
    token, components, patches = (run.layer(name) for name in layers)
    assert (token["kind"], token["grid"], token["units"]) == ("cls", [1, 1], 128)
    assert components["units"] == 4
    maps = run.arrays.read_shard(f"layers/{token['folder']}/activations", 0)
    means = run.arrays.read_shard(f"layers/{token['folder']}/means", 0)
    assert maps.shape[1:] == (128, 1, 1)
    np.testing.assert_allclose(means, maps[:, :, 0, 0], rtol=1e-3)
    assert not np.allclose(means, run.arrays.read_shard(f"layers/{patches['folder']}/means", 0))
