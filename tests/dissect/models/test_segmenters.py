"""Segmenters of torchvision and transformers, wrapped to one contract, against what the libraries give themselves."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.images import photo
from torch import Tensor

from microtome.dissect.models.segmenters import load_segmenter
from microtome.storage.errors import UnknownNameError, UsageError


@pytest.fixture
def images() -> Tensor:
    """(2, 3, 64, 96) float in [0, 1]."""
    pixels = np.stack([photo(64, 96, seed) for seed in range(2)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def test_torchvision(images: Tensor) -> None:
    spec = "torchvision:lraspp_mobilenet_v3_large?weights=none"
    segmenter = load_segmenter(spec)
    assert len(segmenter.labels) == 21
    assert {"person", "dog"} < set(segmenter.labels)
    assert set(segmenter.categories) == {"object"}
    ids = segmenter(images)
    assert ids.shape == (2, 1, 64, 96)
    assert ids.dtype == torch.int64
    network: Any = segmenter.call.network  # type: ignore[attr-defined]
    seen = torch.nn.functional.interpolate(images, (520, 780), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        scores = network((seen - mean) / std)["out"]
    expected = torch.nn.functional.interpolate(scores, (64, 96), mode="bilinear").argmax(1)
    assert torch.equal(ids[:, 0], torch.where(expected == 0, -1, expected))  # 0 is __background__
    assert load_segmenter(spec).fingerprint == segmenter.fingerprint
    assert (segmenter(images, 1.0) == -1).all()
    assert torch.equal(segmenter(images, 0.0), ids)


def test_torchvision_names_and_weights() -> None:
    with pytest.raises(UnknownNameError, match="torchvision segmenter") as caught:
        load_segmenter("torchvision:deeplabv3_resnet5")
    assert "deeplabv3_resnet50" in str(caught.value)
    with pytest.raises(UnknownNameError, match="option of torchvision:fcn_resnet50"):
        load_segmenter("torchvision:fcn_resnet50?weigths=none")
    with pytest.raises(UnknownNameError, match="weights of torchvision:fcn_resnet50"):
        load_segmenter("torchvision:fcn_resnet50?weights=coco")


def saved(folder: Path, kind: str) -> tuple[Any, Any]:
    """A small network of transformers with random weights, and its image processor, saved to `folder`."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    labels = {index: f"thing {index}" for index in range(5)}
    names = {"id2label": labels, "label2id": {name: index for index, name in labels.items()}}
    if kind == "scores":
        config = transformers.SegformerConfig(
            hidden_sizes=[8, 8, 8, 8],
            depths=[1] * 4,
            num_attention_heads=[1] * 4,
            decoder_hidden_size=8,
            **names,
        )
        network = transformers.SegformerForSemanticSegmentation(config)
        processor = transformers.SegformerImageProcessor(size={"height": 96, "width": 160})
    else:
        swin = transformers.SwinConfig(
            image_size=64,
            embed_dim=8,
            depths=[1] * 4,
            num_heads=[1] * 4,
            window_size=2,
            out_features=[f"stage{number}" for number in range(1, 5)],
        )
        config = transformers.Mask2FormerConfig(
            backbone_config=swin,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            dim_feedforward=16,
            num_queries=6,
            **names,
        )
        network = transformers.Mask2FormerForUniversalSegmentation(config)
        processor = transformers.Mask2FormerImageProcessor(size={"height": 96, "width": 160})
    network.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return network.eval(), processor


def theirs(network: Any, processor: Any, images: Tensor) -> Tensor:
    """(B, H, W) ids as transformers gives them, by the model's own processor."""
    pixels = (images * 255).round().to(torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = network(pixel_values=processor(images=list(pixels), return_tensors="pt")["pixel_values"])
        found = processor.post_process_semantic_segmentation(
            output, target_sizes=[tuple(images.shape[-2:])] * len(images)
        )
    return torch.stack(list(found))


@pytest.mark.parametrize(
    "changes", [{"do_normalize": False}, {"do_rescale": False}, {"size": {"height": 40, "width": 40}}]
)
@pytest.mark.filterwarnings("ignore")
def test_transformers_settings_of_the_processor(tmp_path: Path, images: Tensor, changes: dict[str, Any]) -> None:
    network, _ = saved(tmp_path, "scores")
    plain = load_segmenter(f"transformers:{tmp_path}")
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text()) | changes
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = pytest.importorskip("transformers").AutoImageProcessor.from_pretrained(tmp_path)
    segmenter = load_segmenter(f"transformers:{tmp_path}")
    assert (segmenter(images)[:, 0] == theirs(network, processor, images)).float().mean() > 0.999
    assert segmenter.fingerprint != plain.fingerprint


@pytest.mark.filterwarnings("ignore")
def test_transformers_with_gaps_among_its_ids(tmp_path: Path) -> None:
    saved(tmp_path, "scores")
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"1": "a", "2": "b", "3": "c", "4": "d", "5": "e"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"id2label in its config\.json names the ids 1, 2, 3, 4, 5; expected 0 to 4"):
        load_segmenter(f"transformers:{tmp_path}")


@pytest.mark.parametrize("kind", ["scores", "masks"])
@pytest.mark.filterwarnings("ignore")
def test_transformers(tmp_path: Path, images: Tensor, kind: str) -> None:
    network, processor = saved(tmp_path, kind)
    segmenter = load_segmenter(f"transformers:{tmp_path}")
    assert segmenter.labels == tuple(f"thing {index}" for index in range(5))
    ids = segmenter(images)[:, 0]
    assert (ids == theirs(network, processor, images)).float().mean() > 0.97  # they resize masks in two steps
    assert len(ids.unique()) > 1
    assert (segmenter(images, 1.0) == -1).all()


@pytest.mark.filterwarnings("ignore")
def test_transformers_that_cannot_be_had(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UsageError, match=r"transformers:.* cannot be loaded"):
        load_segmenter(f"transformers:{tmp_path}")


def test_a_callable_is_told_by_what_it_holds(tmp_path: Path) -> None:
    code = """
import pathlib, torch
class Plain:
    labels = ["a"]
    def __init__(self):
        self.net = torch.nn.Linear(2, 2)
        self.net.weight.data.fill_(float(pathlib.Path({weights!r}).read_text()))
    def __call__(self, images):
        return torch.zeros(len(images), *images.shape[-2:], dtype=torch.int64)
"""
    weights, path = tmp_path / "weights.txt", tmp_path / "mine.py"
    path.write_text(code.format(weights=str(weights)))
    found = []
    for value in ("1", "1", "2"):
        weights.write_text(value)
        found.append(load_segmenter(f"{path}:Plain").fingerprint)
    assert found[0] == found[1] != found[2]
    path.write_text(path.read_text().replace("torch.zeros", "1 * torch.zeros"))
    assert load_segmenter(f"{path}:Plain").fingerprint != found[2]


@pytest.mark.parametrize("category", ["None", "7", "['x', 'y']"])
def test_a_category_is_a_name_or_one_for_each_label(tmp_path: Path, category: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"class S:\n    labels = ['a']\n    category = {category}\n    def __call__(self, x): return x\n")
    with pytest.raises(UsageError, match="`category` has to be a name, or one for each of its 1 labels"):
        load_segmenter(f"{path}:S")


def test_a_factory_that_exits_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f():\n    raise SystemExit(3)\n")
    with pytest.raises(UsageError, match=r"mine\.py:f failed: SystemExit: 3"):
        load_segmenter(f"{tmp_path}/mine.py:f")
