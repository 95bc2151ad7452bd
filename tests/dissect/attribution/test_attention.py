"""Attention of single images, whatever computes it: against attention written out plainly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers
from helpers.attentions import FORMS, HEADS, PATCH, SIZE, attention_name, tiny
from helpers.models import as_model
from helpers.real import real_kit
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from microtome.dissect.attribution.attention import attention, attention_heads, grad_attention, rollout
from microtome.dissect.attribution.grids import ZeroMapError
from microtome.dissect.attribution.subject import model_of
from microtome.dissect.models import Model, load_model
from microtome.storage.errors import DoesNotApplyError, UnknownNameError, UsageError

SIDE = SIZE // PATCH


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Within 1e-5 of the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max()) and bool(theirs.any())


def chefer(weights: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """R of each image (Chefer et al., 2021, eq. 5 and 6): (B, L, L)."""
    images, heads, tokens = weights[0].shape[:3]
    every = []
    for image in range(images):
        relevance = torch.eye(tokens)
        for weight, gradient in zip(weights, gradients, strict=True):
            mean = sum((weight[image, head] * gradient[image, head]).clamp(min=0) for head in range(heads)) / heads
            relevance = relevance + mean @ relevance
        every.append(relevance)
    return torch.stack(every)


def rolled(weights: list[Tensor]) -> Tensor:
    """Rollout (B, L, L)."""
    out = torch.eye(weights[0].shape[-1])
    for weight in weights:
        out = (0.5 * weight.mean(1) + 0.5 * torch.eye(out.shape[-1])) @ out
    return out


def in_the_open(model: nn.Module, images: Tensor, target: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Weights, gradients and logits of a network whose attention is fused, with softmax(q k^T) v in its place."""
    kept: list[Tensor] = []

    def plain(
        query: Tensor, key: Tensor, value: Tensor, *_: object, scale: float | None = None, **__: object
    ) -> Tensor:
        weights = (query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)).softmax(-1)
        kept.append(weights)
        return weights @ value

    fused, fast = F.scaled_dot_product_attention, torch.backends.mha.get_fastpath_enabled()
    try:
        F.scaled_dot_product_attention = plain
        torch.backends.mha.set_fastpath_enabled(False)
        output = model(images.clone().requires_grad_())
    finally:
        F.scaled_dot_product_attention = fused
        torch.backends.mha.set_fastpath_enabled(fast)
    logits = output if isinstance(output, Tensor) else output.logits
    gradients = torch.autograd.grad(logits[:, target].sum(), kept)
    return [each.detach() for each in kept], list(gradients), logits.detach()


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_compute_attention(form: str) -> None:
    model, net = tiny(form)
    images = model.noise(2)
    name = attention_name(form, 1)
    maps = net.maps(images)
    shown = attention_heads(model, images, layer=name, upsample=False)
    assert shown.shape == (2, HEADS, SIDE, SIDE)
    torch.testing.assert_close(shown.flatten(2), maps[1][:, :, 0, net.places], rtol=1e-4, atol=1e-6)
    assert torch.equal(attention(model, images, None, f"{name}:heads", upsample=False), shown.mean(1))
    assert torch.equal(attention(model, images, 3, name, head=2, upsample=False), shown[:, 2])
    found = rollout(model, images, upsample=False)
    torch.testing.assert_close(found.flatten(1), rolled(maps)[:, 0, net.places], rtol=1e-4, atol=1e-6)
    assert not _get_current_function_mode_stack()


@pytest.mark.parametrize("form", FORMS)
def test_weighted_by_gradients_every_way(form: str) -> None:
    """As the same network gives them with its attention written out by hand."""
    model, net = tiny(form)
    images = model.noise(2)
    if form == "causal":  # the class token, the first, sees itself alone
        with pytest.raises(DoesNotApplyError, match="map is zero everywhere"):
            grad_attention(model, images, 3)
        return
    ours = grad_attention(model, images, 3, upsample=False)
    expected = chefer(*written_out(net, images, 3))[:, 0, net.places].unflatten(1, (SIDE, SIDE))
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    assert not _get_current_function_mode_stack()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def written_out(net: nn.Module, images: Tensor, target: int) -> tuple[list[Tensor], list[Tensor]]:
    """Each block's weights written out as leaves of a graph of their own, and the logit's gradients by them."""
    x, weights = net.tokens(images), []
    for block in net.blocks:
        inner, given = block.attn, block.norm(x)
        shown = with_grad(inner, given)
        weights.append(shown)
        if hasattr(inner, "inner"):
            module = inner.inner
            value = F.linear(given, *(part.chunk(3)[2] for part in (module.in_proj_weight, module.in_proj_bias)))
            value, proj = value.unflatten(-1, (HEADS, -1)).transpose(1, 2), module.out_proj
        else:
            value, proj = inner.heads(given)[2], inner.proj
        value = value.repeat_interleave(HEADS // value.shape[1], 1)
        mixing = shown
        if getattr(inner, "form", "") == "talking":
            mixing = inner.after(shown.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x + proj((mixing @ value).transpose(1, 2).flatten(2))
        x = x + block.mlp(x)
    gradients = torch.autograd.grad(net.head(x[:, 0])[:, target].sum(), weights)
    return [each.detach() for each in weights], list(gradients)


def with_grad(inner: nn.Module, given: Tensor) -> Tensor:
    """The attention maps of the test's network, in a graph that leads back to its input."""
    if hasattr(inner, "inner"):
        module = inner.inner
        projected = F.linear(given, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
        query, key = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in projected[:2])
        return (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
    query, key, _ = inner.heads(given)
    key = key.repeat_interleave(HEADS // key.shape[1], 1)
    logits = query @ key.transpose(-2, -1) * inner.scale
    if inner.form in ("biased", "fused bias", "baddbmm"):
        logits = logits + inner.bias
    if inner.form == "talking":
        logits = inner.before(logits.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    if inner.form in ("masked", "causal"):
        logits = logits.masked_fill(~inner.mask(given.shape[1]), -torch.inf)
    return logits.softmax(-1)


def small_torchvision() -> nn.Module:
    vit = torchvision.models.VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=7)
    nn.init.normal_(vit.heads.head.weight)
    return vit


def small_hf() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=7)
    )


def small_timm(name: str) -> nn.Module:
    made: nn.Module = timm.create_model(
        name, img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=7
    )
    return made


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "torchvision": (small_torchvision, 1),
    "timm vit": (lambda: small_timm("vit_tiny_patch16_224"), 1),
    "timm deit, distilled": (lambda: small_timm("deit_tiny_distilled_patch16_224"), 2),
    "transformers": (small_hf, 1),
}


@pytest.mark.parametrize("name", NETS)
def test_networks_of_libraries(name: str) -> None:
    build, prefix = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build().eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = model_of(module, images)
    weights, gradients, logits = in_the_open(module, images, 3)
    assert len(weights) == 3
    output = module(images)
    torch.testing.assert_close(logits, output if isinstance(output, Tensor) else output.logits, rtol=1e-4, atol=1e-5)
    assert close(attention_heads(model, images, upsample=False).flatten(2), weights[-1][:, :, 0, prefix:])
    assert close(rollout(model, images, upsample=False).flatten(1), rolled(weights)[:, 0, prefix:])
    expected = chefer(weights, gradients)[:, 0, prefix:]
    assert close(grad_attention(model, images, 3, upsample=False).flatten(1), expected)
    large = F.interpolate(expected.view(2, 1, 4, 4), (32, 32), mode="bilinear", align_corners=False)[:, 0]
    assert close(grad_attention(model, images, 3), large)


def test_the_network_answers_as_before() -> None:
    from microtome.dissect.attribution.attention import _call_of, _steps
    from microtome.dissect.attribution.weights import keeping_weights

    for form in FORMS:
        model, net = tiny(form)
        images = model.noise(2)
        before = net(images).detach()
        place = _call_of("rollout", model, "rollout", None).place
        assert place is not None
        with keeping_weights(model, _steps(place)):
            assert float((net(images).detach() - before).abs().max()) <= 1e-5 * max(1.0, float(before.abs().max()))
        assert torch.equal(net(images), before)


def test_layers_by_name() -> None:
    model, _ = tiny("fused")
    images = model.noise(2)
    first = attention(model, images, layer="blocks.0.attn")
    assert torch.equal(attention(model, images, layer="blocks.0"), first)
    assert torch.equal(attention(model, images), attention(model, images, layer="blocks.2.attn:heads"))
    assert not torch.equal(attention(model, images), first)
    assert torch.equal(rollout(model, images), rollout(model, images, layer="blocks.2.attn:rollout"))
    torch.testing.assert_close(
        rollout(model, images, layer="blocks.0") * 2, first, rtol=1e-5, atol=1e-7
    )  # what stays is at the class token itself
    assert grad_attention(model, images, 1, "blocks.1").shape == (2, SIZE, SIZE)
    means = attention(model, images, layer="blocks.1.attn:heads-mean", upsample=False)
    assert means.shape == (2, SIDE, SIDE)
    with pytest.raises(UsageError, match="holds 3 attentions; choose among"):
        attention(model, images, layer="blocks")
    with pytest.raises(DoesNotApplyError, match=r"layer head holds no attention; take blocks.2.attn:heads"):
        attention(model, images, layer="head")
    with pytest.raises(UnknownNameError, match="did you mean"):
        attention(model, images, layer="blocks.0.atn")
    with pytest.raises(UsageError, match="there is no head 4"):
        attention(model, images, head=4)


class MeanOfTokens(nn.Module):
    """A transformer without a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 24, 8, 8), nn.Linear(24, 5)
        self.attn = nn.MultiheadAttention(24, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        out: Tensor = self.head((tokens + self.attn(tokens, tokens, tokens)[0]).mean(1))
        return out


def test_what_does_not_apply() -> None:
    model = as_model(MeanOfTokens())
    images = model.noise(2)
    with pytest.raises(DoesNotApplyError, match=r"attn has no class token.*or layer attn:heads-mean"):
        attention(model, images)
    assert attention(model, images, layer="attn:heads-mean", upsample=False).shape == (2, 4, 4)
    for method in (rollout, grad_attention):
        with pytest.raises(DoesNotApplyError, match=r"attn has no class token among its queries; take grad-cam"):
            method(model, images)
    convolutions = load_model("builtin:scenes-cnn")
    vit, _ = tiny()
    for each in (attention, attention_heads, rollout, grad_attention):
        with pytest.raises(DoesNotApplyError, match="this network has no attention"):
            each(convolutions, convolutions.noise(1))
        with pytest.raises(DoesNotApplyError, match="unit"):
            each(vit, vit.noise(1), None, "blocks.1", unit=2)


def test_a_class_that_no_attention_speaks_for() -> None:
    model, net = tiny()
    with torch.no_grad():
        net.head.weight[2] = 0
    with pytest.raises(ZeroMapError, match=r"the map is zero everywhere.*; take occlusion") as caught:
        grad_attention(model, model.noise(2), 2)
    assert caught.value.images == (0, 1)
    assert not grad_attention(model, model.noise(2), 2, allow_zero=True).any()


def test_the_batch_changes_nothing() -> None:
    model, _ = tiny("fused")
    images = model.noise(3)
    together = grad_attention(model, images, [0, 4, 2])
    for image, target in enumerate((0, 4, 2)):
        torch.testing.assert_close(
            grad_attention(model, images[image : image + 1], target)[0], together[image], rtol=1e-4, atol=1e-6
        )
    assert (together >= 0).all()
    assert not together.requires_grad


def test_the_transformer_that_comes_along() -> None:
    model = load_model("builtin:scenes-vit")
    images = model.noise(2)
    weights, gradients, _ = in_the_open(model.module, images, 3)
    assert close(attention(model, images, upsample=False).flatten(1), weights[-1][:, :, 0, 1:].mean(1))
    assert close(rollout(model, images, upsample=False).flatten(1), rolled(weights)[:, 0, 1:])
    assert close(grad_attention(model, images, 3, upsample=False).flatten(1), chefer(weights, gradients)[:, 0, 1:])


class Headed(nn.Module):
    """A linear layer on the class token of a backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(384, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x)[:, 0])
        return out


@pytest.mark.slow
def test_a_real_transformer_fused_and_not() -> None:
    kit = real_kit()
    found = []
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    for name in ("vit_s14", "vit_s14_fused"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = Headed(load_model(f"{kit / 'vit.py'}:{name}").module).eval()
        model: Model = model_of(module, images)
        found.append([attention_heads(model, images), rollout(model, images), grad_attention(model, images, 3)])
    for explicit, fused in zip(*found, strict=True):
        assert close(explicit, fused)
