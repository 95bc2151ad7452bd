"""Sites: a layer's raw tensor replaced on its way, unit by unit, wherever the units lie."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.attentions import FORMS, HEADS, WIDTH, attention_name, tiny
from helpers.halves import enliven, spread
from helpers.models import Odd, Reused, as_model
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import _get_current_function_mode_stack

from microtome.dissect.models import ActivationCapture, Model, describe_layers, load_model
from microtome.dissect.models.sites import Site, site_of
from microtome.storage.errors import UnknownNameError, UsageError


def answer(model: Model, images: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model.module(images)
    return out


def without(site: Site, unit: int, images: int) -> Tensor:
    """(B, C) of ones, zero at the unit."""
    keep = torch.ones(images, site.units)
    keep[:, unit] = 0
    return keep


def maps_without(model: Model, site: Site, unit: int, images: Tensor, names: list[str]) -> dict[str, Tensor]:
    """The maps of layers while a unit of the site is zero."""
    with ActivationCapture(model, names, early_stop=False) as capture:
        keep = without(site, unit, len(images))
        with site.replacing(lambda raw: raw * site.spread(keep).to(raw)):
            return capture(images)


def undisturbed(model: Model) -> bool:
    hooks = [h for m in model.module.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]
    return not hooks and not _get_current_function_mode_stack()


@pytest.mark.parametrize("spec", ["builtin:scenes-cnn", "builtin:scenes-vit", "torchvision:swin_t"])
def test_the_same_in_place_of_itself_changes_nothing(spec: str) -> None:
    model = load_model(spec, for_inspection=True)
    model = replace(model, preprocess=replace(model.preprocess, size=(112, 112)))
    enliven(model.module)
    images = model.noise(2)
    before = answer(model, images)
    infos = [info for info in describe_layers(model) if info.kind != "rollout"]
    for name in spread(infos, 24):
        site = site_of(model, name)
        seen: list[Tensor] = []
        if spec.startswith("builtin"):
            assert site.layout.units == site.units
        with site.replacing(lambda raw, seen=seen: seen.append(raw) or raw.clone()):  # type: ignore[misc]
            after = answer(model, images)
        assert len(seen) == 1, name
        assert float((after - before).abs().max()) <= 1e-5, name
    assert torch.equal(answer(model, images), before)
    assert undisturbed(model)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("as_dict", 4), ("as_tuple", 5), ("as_dataclass", 0), ("tokens", 6), ("last_act", 3), ("windows", 2), ("conv", 1)],
)
def test_a_unit_without_activation_in_any_output(name: str, unit: int) -> None:
    model = as_model(Odd(), 8)
    images = model.noise(3)
    site = site_of(model, name)
    with ActivationCapture(model, [name]) as capture:
        before = capture(images)[name]
    seen = after_of(model, site, unit, images)
    expected = before.clone()
    expected[:, unit] = 0
    assert torch.equal(site.place.layout.maps(seen, 3), expected)


def after_of(model: Model, site: Site, unit: int, images: Tensor) -> Tensor:
    """The raw tensor as it goes on."""
    seen: list[Tensor] = []
    keep = without(site, unit, len(images))

    def change(raw: Tensor) -> Tensor:
        seen.append(raw * site.spread(keep))
        return seen[-1]

    with site.replacing(change):
        answer(model, images)
    return seen[0]


def test_nested_outputs_go_on_changed() -> None:
    net = Odd()
    model = as_model(net, 8)
    outputs: dict[str, object] = {}
    for name in ("as_dict", "as_tuple", "as_dataclass"):
        site = site_of(model, name)
        with site.replacing(lambda raw, site=site: raw * site.spread(without(site, 2, 2))):  # type: ignore[misc]
            handle = net.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: outputs.update({name: output})  # type: ignore[misc]
            )
            answer(model, model.noise(2))
            handle.remove()
    assert isinstance(outputs["as_dict"], dict)
    assert not outputs["as_dict"]["maps"][:, 2].any()
    assert outputs["as_dict"]["maps"][:, 1].any()
    assert outputs["as_dict"]["pooled"][:, 2].any()  # another tensor
    assert isinstance(outputs["as_tuple"], tuple)
    assert not outputs["as_tuple"][1][0][:, :, 2].any()
    assert outputs["as_tuple"][2][:, 2].any()
    assert not outputs["as_dataclass"].maps[:, 2].any()  # type: ignore[attr-defined]


def test_one_of_several_calls() -> None:
    net = Reused()
    model = as_model(net)
    images = model.noise(2)
    site = site_of(model, "act@2")
    found = maps_without(model, site, 3, images, ["act@1", "act@2", "parts.0.0"])
    with torch.no_grad():
        first = net.act(net.first(images))
        second = net.act(net.second(first))
        second[:, 3] = 0
        assert torch.equal(found["act@1"], first)
        torch.testing.assert_close(found["parts.0.0"], net.parts[0][0](second))
    assert undisturbed(model)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["heads", "heads-mean"])
def test_a_head_without_effect(form: str, kind: str) -> None:
    model, net = tiny(form)
    images, head, width = model.noise(2), 2, WIDTH // HEADS
    name = attention_name(form, 1)
    proj = net.blocks[1].attn.inner.out_proj if form == "multihead" else net.blocks[1].attn.proj
    site = site_of(model, f"{name}:{kind}")
    assert site.units == HEADS
    found = maps_without(model, site, head, images, ["blocks.0", name, "blocks.1"])
    with torch.no_grad():  # the same with the columns of the projection that read this head taken away
        kept = proj.weight.clone()
        proj.weight[:, head * width : (head + 1) * width] = 0
    with ActivationCapture(model, ["blocks.0", name, "blocks.1"]) as capture:
        expected = capture(images)
    with torch.no_grad():
        proj.weight.copy_(kept)
    for layer, maps in expected.items():
        torch.testing.assert_close(found[layer], maps, rtol=1e-4, atol=1e-5)
    assert undisturbed(model)


@pytest.mark.parametrize("block", ["features.1.0", "features.1.1"])  # the second is shifted
def test_a_head_of_windows_without_effect(block: str) -> None:
    model = load_model("torchvision:swin_t", for_inspection=True)
    model = replace(model, preprocess=replace(model.preprocess, size=(96, 96)))  # 24x24, padded to 28x28
    images, head = model.noise(2), 1
    site = site_of(model, f"{block}.attn:heads-mean")
    assert site.units == 3
    found = maps_without(model, site, head, images, [block])[block]
    proj = model.module.get_submodule(f"{block}.attn").proj
    with torch.no_grad():
        proj.weight[:, head * 32 : (head + 1) * 32] = 0
    with ActivationCapture(model, [block]) as capture:
        torch.testing.assert_close(found, capture(images)[block], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "multihead"])
@pytest.mark.parametrize("kind", ["q", "k", "v"])
def test_a_query_key_or_value_feature_without_effect(form: str, kind: str) -> None:
    model, net = tiny(form)
    images, unit = model.noise(2), 5
    linear = getattr(net.blocks[1].attn, kind)
    site = site_of(model, f"blocks.1.attn:{kind}")
    assert site.units == linear.out_features
    found = maps_without(model, site, unit, images, ["blocks.1"])
    with torch.no_grad():
        linear.weight[unit] = 0
        linear.bias[unit] = 0
    with ActivationCapture(model, ["blocks.1"]) as capture:
        torch.testing.assert_close(found["blocks.1"], capture(images)["blocks.1"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["blocks.1", "blocks.1.mlp.2", "blocks.1.attn:heads", "blocks.1.attn:k"])
@pytest.mark.parametrize("form", ["explicit", "fused"])
def test_a_traced_network_holds_the_change(form: str, name: str) -> None:
    model, net = tiny(form)
    images = model.noise(2)
    site = site_of(model, name)
    keep = without(site, 1, 2)
    with site.replacing(lambda raw: raw * site.spread(keep)):
        expected = answer(model, images)
        with torch.no_grad():
            graph = make_fx(net)(images)
    torch.testing.assert_close(graph(images), expected)
    assert float((expected - answer(model, images)).abs().max()) > 1e-4


def test_an_error_inside_leaves_nothing() -> None:
    model, _ = tiny("fused")
    site = site_of(model, "blocks.1.attn:heads")

    def fail(raw: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), site.replacing(fail):
        answer(model, model.noise(2))
    assert undisturbed(model)
    images = model.noise(2)
    with site.replacing(lambda raw: raw):
        assert torch.equal(answer(model, images), answer(model, images))
    assert undisturbed(model)


def test_layers_without_a_site() -> None:
    model, _ = tiny()
    with pytest.raises(UsageError, match="computed from several attentions: there is nothing to take away"):
        site_of(model, "blocks.1.attn:rollout")
    with pytest.raises(UnknownNameError, match=r"did you mean blocks\.1"):
        site_of(model, "blocks.11")
