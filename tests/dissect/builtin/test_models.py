"""The built-in models: they load, have the layers they promise, and know scenes they have never seen."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from microtome.datasets.scenes import ScenesDataset
from microtome.dissect.builtin import scenes_cnn, scenes_vit
from microtome.dissect.builtin.storing import load_weights, save_weights
from microtome.dissect.builtin.train import accuracy

FACTORIES = [scenes_cnn, scenes_vit]


def shapes(model: nn.Module, names: list[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = tuple(output.shape)

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.inference_mode():
        model(torch.zeros(2, 3, 112, 112))
    for handle in handles:
        handle.remove()
    return found


def test_the_layers_of_the_cnn() -> None:
    names = ["stem", "block1", "block2", "block3", "block4", "block5", "fc"]
    assert shapes(scenes_cnn(), names) == {
        "stem": (2, 32, 56, 56),
        "block1": (2, 48, 28, 28),
        "block2": (2, 64, 28, 28),
        "block3": (2, 128, 14, 14),
        "block4": (2, 160, 14, 14),
        "block5": (2, 256, 14, 14),
        "fc": (2, 12),
    }


def test_the_layers_of_the_vit() -> None:
    names = ["patch_embed", "blocks.0.attn.qkv", "blocks.5.attn", "blocks.5.mlp.fc1", "blocks.5", "head"]
    assert shapes(scenes_vit(), names) == {
        "patch_embed": (2, 196, 128),
        "blocks.0.attn.qkv": (2, 197, 384),
        "blocks.5.attn": (2, 197, 128),
        "blocks.5.mlp.fc1": (2, 197, 384),
        "blocks.5": (2, 197, 128),
        "head": (2, 12),
    }
    assert scenes_vit().num_prefix_tokens == 1


@pytest.mark.parametrize("factory", FACTORIES)
def test_what_a_factory_promises(factory: Callable[[], nn.Module]) -> None:
    model = factory()
    assert not model.training
    assert {value.dtype for value in model.state_dict().values()} <= {torch.float32, torch.int64}
    assert model.preprocess["size"] == 112  # type: ignore[index]
    assert model.preprocess["interpolation"] == "bilinear"  # type: ignore[index]
    assert model.class_names == ScenesDataset(1).class_names


@pytest.mark.parametrize(("factory", "least"), [(scenes_cnn, 0.93), (scenes_vit, 0.86)])
def test_held_out_scenes_are_recognised(factory: Callable[[], nn.Module], least: float) -> None:
    dataset = ScenesDataset(200, seed=7)
    images = np.stack([dataset.read(index).image for index in range(200)])
    classes = np.array([dataset.entry(index).label for index in range(200)], np.int64)
    assert accuracy(factory(), images, classes) > least


def test_the_weights_stay_small() -> None:
    folder = files("microtome.dissect.builtin") / "weights"
    sizes = {path.name: len(path.read_bytes()) for path in folder.iterdir() if path.name.endswith(".safetensors")}
    assert {"scenes-cnn.safetensors", "scenes-vit.safetensors"} <= set(sizes)
    assert sum(sizes[f"scenes-{name}.safetensors"] for name in ("cnn", "vit")) < 5_000_000


def test_saved_weights_come_back_in_half_precision(tmp_path_factory: pytest.TempPathFactory) -> None:
    from safetensors.torch import load_file

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(model, path)
    stored = load_file(path)
    for key, value in model.state_dict().items():
        expected = value.half() if value.is_floating_point() else value
        assert torch.equal(stored[key], expected)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_loading_gives_single_precision() -> None:
    state = load_weights("scenes-cnn")
    assert state["fc.weight"].dtype == torch.float32
    assert state["stem.1.num_batches_tracked"].dtype == torch.int64
