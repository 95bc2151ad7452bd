"""Segmenters of torchvision and transformers, wrapped to one contract, against what the libraries give themselves."""

from __future__ import annotations

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


@pytest.mark.parametrize("kind", ["scores", "masks"])
@pytest.mark.filterwarnings("ignore")
def test_transformers(tmp_path: Path, images: Tensor, kind: str) -> None:
    network, processor = saved(tmp_path, kind)
    segmenter = load_segmenter(f"transformers:{tmp_path}")
    assert segmenter.labels == tuple(f"thing {index}" for index in range(5))
    ids = segmenter(images)[:, 0]
    seen = torch.nn.functional.interpolate(images, (96, 160), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = network(pixel_values=(seen - mean) / std)
        theirs = processor.post_process_semantic_segmentation(output, target_sizes=[(64, 96)] * 2)
    assert (ids == torch.stack(list(theirs))).float().mean() > 0.97  # they resize masks in two steps
    assert len(ids.unique()) > 1
    assert (segmenter(images, 1.0) == -1).all()


@pytest.mark.filterwarnings("ignore")
def test_transformers_that_cannot_be_had(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UsageError, match=r"transformers:.* cannot be loaded"):
        load_segmenter(f"transformers:{tmp_path}")
