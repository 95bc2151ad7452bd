"""`hf:` specs: folders, types and towers of transformers, what their processors say, and what is said when it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import resize_crop
from microtome.dissect.models import Preprocess, PreprocessOverrides, load_model, zoo
from microtome.dissect.models.image_processors import preprocess_of, resized, reverses_channels
from microtome.dissect.models.trace import trace
from microtome.storage.errors import UnknownNameError, UsageError

transformers: Any = pytest.importorskip("transformers", reason="the extra microtome[transformers] is not installed")

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
HALF = (0.5, 0.5, 0.5)
LABELS = {0: "tree", 1: "car", 2: "sky"}


def save(folder: Path, network: Any, processor: Any = None) -> str:
    """Save a network (and its processor); give the spec of the folder."""
    network.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return f"hf:{folder}"


def tiny_vit(**settings: Any) -> Any:
    config = transformers.ViTConfig(**TINY, **settings)
    torch.manual_seed(3)
    return transformers.ViTForImageClassification(config)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spec of a folder with a classifier of three named classes, its weights and its processor."""
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3])
    network = tiny_vit(id2label=LABELS, label2id={name: index for index, name in LABELS.items()})
    return save(tmp_path_factory.mktemp("vit"), network, processor)


def test_a_folder(vit: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_model(vit)
    assert not model.module.training
    assert (model.trained, model.weights) == (True, f"transformers {vit.removeprefix('hf:')}")
    assert model.class_names == ("tree", "car", "sky")
    assert model.preprocess == Preprocess((32, 32), 32, (0.1, 0.2, 0.3), HALF, "bilinear")
    assert load_model(vit).fingerprint == model.fingerprint
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")

    images = model.noise(2)
    theirs = transformers.ViTForImageClassification.from_pretrained(vit.removeprefix("hf:")).eval()
    seen: list[tuple[int, ...]] = []
    with torch.no_grad(), _watching(model.module.vit.layers[0].mlp.fc1, seen):
        assert torch.equal(model.module(images).logits, theirs(pixel_values=images).logits)
    assert seen == [(2, 17, 48)]
    assert [call.shape for call in trace(model) if call.module_name == "classifier"] == [(3, 1, 1)]


def _watching(module: nn.Module, seen: list[tuple[int, ...]]) -> Any:
    return module.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape)))


def test_a_folder_without_its_weights(vit: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (load_model(f"{vit}?weights=none") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.fingerprint == second.fingerprint != load_model(vit).fingerprint
    assert (first.trained, first.weights, first.class_names) == (False, "random, seed 0", ())
    inspected = load_model(vit, for_inspection=True)
    assert (inspected.trained, inspected.fingerprint) == (False, "")


def test_own_weights(vit: str, tmp_path: Path) -> None:
    trained = load_model(vit)
    torch.save(trained.module.state_dict(), tmp_path / "w.pt")
    model = load_model(f"{vit}?weights=none", weights=tmp_path / "w.pt")
    assert model.trained
    assert model.fingerprint == trained.fingerprint


@pytest.mark.parametrize(
    ("kind", "class_name", "size"),
    [
        ("resnet", "ResNetForImageClassification", (384, 384)),
        ("mobilenet_v2", "MobileNetV2ForImageClassification", (224, 224)),
    ],
)
def test_a_type(kind: str, class_name: str, size: tuple[int, int]) -> None:
    model = load_model(f"hf:{kind}?weights=none")
    assert type(model.module).__name__ == class_name
    assert model.preprocess.size == size
    assert (model.trained, model.class_names) == (False, ())
    with pytest.raises(UsageError, match=rf"no weights for hf:{kind} \(a model type has none\).*weights=none"):
        load_model(f"hf:{kind}")


def test_a_folder_comes_before_a_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet").mkdir()
    assert load_model("hf:resnet?weights=none", for_inspection=True).parameters > 20_000_000
    save(tmp_path / "resnet", tiny_vit())
    assert load_model("hf:resnet").class_names == ()


def test_names_that_are_numbers_or_do_not_fit(tmp_path: Path) -> None:
    spec = save(tmp_path, tiny_vit(num_labels=3))
    assert load_model(spec).class_names == ()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"1": "a", "2": "b", "3": "c"}}))
    assert load_model(spec).class_names == ()


def clip_config() -> Any:
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 100}
    return transformers.CLIPConfig(text_config=text, vision_config=TINY, projection_dim=16)


@pytest.mark.parametrize("options", ["", "?weights=none"])
def test_the_image_tower_of_two(tmp_path: Path, options: str) -> None:
    network = transformers.CLIPModel(clip_config()).eval()
    spec = save(tmp_path, network)
    model = load_model(spec + options)
    assert type(model.module).__name__ == "CLIPVisionModel"
    assert model.preprocess.size == (32, 32)
    assert model.preprocess.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    images = model.noise(2)
    with torch.no_grad():
        pooled = model.module(images).pooler_output
        same = torch.allclose(pooled, network.vision_model(images).pooler_output, atol=1e-6)
    assert same == (not options)


def test_a_backbone_has_no_invented_head_or_pooler(tmp_path: Path) -> None:
    config = transformers.ViTConfig(**TINY)
    for network, parts in (
        (transformers.ViTModel(config), {"embeddings", "layers", "layernorm", "pooler"}),
        (transformers.ViTModel(config, add_pooling_layer=False), {"embeddings", "layers", "layernorm"}),
    ):
        spec = save(tmp_path, network)
        module = load_model(spec).module
        assert type(module).__name__ == "ViTModel"
        assert {name.partition(".")[0] for name, _ in module.named_parameters()} == parts


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    spec = save(tmp_path, tiny_vit().half())
    assert {p.dtype for p in load_model(spec).module.parameters()} == {torch.float32}


def test_channels_in_reverse(tmp_path: Path) -> None:
    config = transformers.MobileViTConfig(image_size=64)
    spec = save(tmp_path, transformers.MobileViTForImageClassification(config))
    model = load_model(spec)
    theirs = transformers.MobileViTForImageClassification.from_pretrained(tmp_path).eval()
    images = model.noise(1)
    with torch.no_grad():
        assert torch.equal(model.module(images).logits, theirs(images.flip(1)).logits)


PROCESSORS: list[tuple[str, dict[str, Any], tuple[int, int], int | None]] = [
    ("ViT", {}, (224, 224), 224),
    ("ViT", {"size": {"height": 48, "width": 64}}, (48, 64), None),
    ("ViT", {"do_normalize": False}, (224, 224), 224),
    ("ViT", {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0] * 3}, (224, 224), 224),
    ("ViT", {"do_rescale": False, "do_normalize": False}, (224, 224), 224),
    ("ViT", {"rescale_factor": 1 / 127.5}, (224, 224), 224),
    ("DeiT", {}, (224, 224), 256),
    ("CLIP", {"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 48}}, (64, 48), 80),
    ("Bit", {"size": {"shortest_edge": 256}}, (224, 224), 256),
    ("ConvNext", {"size": {"shortest_edge": 224}}, (224, 224), 256),
    ("ConvNext", {"size": {"shortest_edge": 384}}, (384, 384), 384),
    ("PoolFormer", {}, (224, 224), 248),
    ("Levit", {}, (224, 224), 256),
    ("EfficientNet", {}, (346, 346), 346),
    ("EfficientNet", {"rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False}, (346, 346), 346),
    ("MobileViT", {"size": {"shortest_edge": 288}}, (256, 256), 288),
    ("PPLCNet", {}, (224, 224), 256),
]


@pytest.mark.parametrize(("kind", "settings", "size", "resize"), PROCESSORS)
def test_processors(kind: str, settings: dict[str, Any], size: tuple[int, int], resize: int | None) -> None:
    """An image that needs no resizing comes out of Microtome's preparation as out of theirs."""
    if not hasattr(transformers, f"{kind}ImageProcessor"):
        pytest.skip(f"this version of transformers has no {kind}ImageProcessor")
    processor = getattr(transformers, f"{kind}ImageProcessor")(**settings)
    stated = preprocess_of(processor.to_dict())
    assert stated is not None
    assert (stated.size, stated.resize) == (size, resize)
    shape = (resize, resize) if resize else size
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    geometry = CropGeometry.of(*shape, size=size, resize=resize)
    pixels = resize_crop(image, geometry, "bilinear").astype(np.float32) / 255
    found = ((pixels - np.float32(stated.mean)) / np.float32(stated.std)).transpose(2, 0, 1)
    expected = np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0])
    np.testing.assert_allclose(found[::-1] if reverses_channels(processor.to_dict()) else found, expected, atol=2e-4)


def test_settings_that_leave_something_open() -> None:
    normal = {"do_normalize": True, "image_mean": HALF, "image_std": HALF}
    longest = {"size": {"shortest_edge": 800, "longest_edge": 1333}, **normal}
    assert preprocess_of(longest) is None
    assert preprocess_of(longest, 64) == Preprocess((64, 64), None, HALF, HALF, "bicubic")
    assert preprocess_of({"size": {"shortest_edge": 80}, **normal}, [64, 48]) == Preprocess((64, 48), 80, HALF, HALF)
    assert preprocess_of({"do_resize": False, "size": 32, **normal}) is None
    old = preprocess_of({"size": 32, "resample": 2, **normal})  # before sizes were dicts
    assert old == Preprocess((32, 32), 32, HALF, HALF, "bilinear")
    assert resized(Preprocess((224, 224), 256, HALF, HALF), 112) == Preprocess((112, 112), 128, HALF, HALF)
    with pytest.raises(UsageError, match="image_std is 'wide'; expected three numbers"):
        preprocess_of({"size": 32, **normal, "image_std": "wide"})


def test_without_a_processor(tmp_path: Path) -> None:
    spec = save(tmp_path, tiny_vit())
    assert load_model(spec).preprocess == Preprocess((32, 32), 32, HALF, HALF, "bilinear")
    flags = PreprocessOverrides(mean=0.1, std=0.2)
    assert load_model(spec, preprocess=flags).preprocess.mean == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("content", ["{", '{"image_processor_type": "OfTheirOwn", "size": 64}'])
def test_a_processor_that_cannot_be_read_is_not_guessed(tmp_path: Path, content: str) -> None:
    spec = save(tmp_path, tiny_vit())
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(UsageError, match="give --size --mean --std"):
        load_model(spec)
    flags = PreprocessOverrides(size=32, mean=0.5, std=0.5)
    assert load_model(spec, preprocess=flags).preprocess.size == (32, 32)


def test_a_type_without_a_processor() -> None:
    with pytest.raises(UsageError, match="does not say how its images are prepared; give --size --mean --std"):
        load_model("hf:dinov2_with_registers?weights=none", for_inspection=True)


def test_weights_that_are_missing(vit: str, tmp_path: Path) -> None:
    config = json.loads((Path(vit.removeprefix("hf:")) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"no weights for hf:.*model\.safetensors.*--weights FILE.*\?weights=none"):
        load_model(f"hf:{tmp_path}")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin is a pickle, which can run code and is not loaded"):
        load_model(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match=r"no weights for hf:.*\(\w*Safetensor\w*: "):
        load_model(f"hf:{tmp_path}")
    assert not load_model(f"hf:{tmp_path}?weights=none").trained


def test_weights_that_lack_a_head_are_not_completed_at_random(tmp_path: Path) -> None:
    network = transformers.ViTModel(transformers.ViTConfig(**TINY), add_pooling_layer=False)
    spec = save(tmp_path, network)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["ViTForImageClassification"]}))
    with pytest.raises(
        UsageError, match=r"2 tensors of ViTForImageClassification are not among them: classifier\.bias"
    ):
        load_model(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("hf:vti?weights=none", "no transformers model type named 'vti'; did you mean vit"),
        ("hf:vit?weight=none", "did you mean weights"),
        ("hf:vit?weights=IMAGENET", "no weights of hf:vit named 'IMAGENET'; did you mean|known: none"),
        ("hf:bert?weights=none", "hf:bert is no image model: its BertModel takes input_ids first"),
        ("hf:./no/such/folder", "there is no such folder; expected a folder with config.json, OWNER/NAME"),
        ("hf:", "is no model"),
    ],
)
def test_specs_that_name_nothing(spec: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_model(spec)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"this folder holds no config\.json"):
        load_model(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "no_such_type"}')
    with pytest.raises(UsageError, match=r"hf:.* cannot be read \(ValueError: .*no_such_type"):
        load_model(f"hf:{tmp_path}")
    code = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": code}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UsageError, match="cannot be read"):
        load_model(f"hf:{tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(zoo, "answers", lambda address: False)
    monkeypatch.setattr(zoo, "getproxies", dict)
    with pytest.raises(UsageError, match=r"hf:nobody/nothing cannot be read .*does not answer.*expected a folder with"):
        load_model("hf:nobody/nothing?weights=none")
    assert constants.HF_HUB_OFFLINE is False


def test_the_cache_without_a_network(vit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    commit = "0" * 40
    home = tmp_path / "models--nobody--vit"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text(commit)
    (home / "snapshots").mkdir()
    (home / "snapshots" / commit).symlink_to(vit.removeprefix("hf:"), target_is_directory=True)
    for place in (constants, transformers.utils.hub):
        for name in ("HF_HUB_CACHE", "TRANSFORMERS_CACHE"):
            if hasattr(place, name):
                monkeypatch.setattr(place, name, str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(zoo, "answers", lambda address: False)
    monkeypatch.setattr(zoo, "getproxies", dict)
    model = load_model("hf:nobody/vit")
    assert (model.trained, model.weights) == (True, "transformers nobody/vit")
    assert model.fingerprint == load_model(vit).fingerprint


def test_a_model_of_timm_s_in_the_form_of_transformers(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra microtome[timm] is not installed")
    module = timm.create_model("test_resnet", num_classes=3)
    settings = {
        "architecture": "test_resnet",
        "num_classes": 3,
        "label_names": ["tree", "car", "sky"],
        "pretrained_cfg": {"input_size": [3, 64, 64], "mean": HALF, "std": HALF, "crop_pct": 0.5, "num_classes": 3},
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    model = load_model(f"hf:{tmp_path}")
    assert model.trained
    assert model.class_names == ("tree", "car", "sky")
    assert (model.preprocess.size, model.preprocess.resize, model.preprocess.mean) == ((64, 64), 128, HALF)


def test_transformers_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install microtome\[transformers\]"):
        load_model("hf:vit?weights=none")


def test_unknown_types_are_unknown_names() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_model("hf:convnxt?weights=none")
    assert "convnext" in caught.value.near
