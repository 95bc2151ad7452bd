"""Segmenters that libraries know, wrapped to the contract of `segmenters`: images in [0, 1] to ids and confidences."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.dissect.models.image_processors import image_processor
from microtome.dissect.models.transformers_zoo import import_transformers
from microtome.dissect.models.zoo import DEFAULT, NONE, hub_as_reachable
from microtome.storage.errors import UnknownNameError, UsageError

BACKGROUND = "__background__"
"""torchvision's name for pixels of none of its classes: they are unlabelled."""
_SIDE = 520
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


Prepare = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [0, 1] to what a network takes."""


class ByScores(nn.Module):
    """A network of class scores as a segmenter: the likeliest class of each pixel, and its probability.

    settings: what `prepare` does, in words that differ where it does; unlabelled: indices that mean no class.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: Sequence[str],
        prepare: Prepare,
        settings: str,
        *,
        unlabelled: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.labels = list(labels)
        self.category = "object"
        self.settings = settings
        self._prepare = prepare
        self._unlabelled = list(unlabelled)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and probabilities (B, H, W) of images (B, 3, H, W) in [0, 1]."""
        sure, ids = self.scores(self._prepare(images), (images.shape[-2], images.shape[-1])).max(1)
        for index in self._unlabelled:
            ids = torch.where(ids == index, -1, ids)
        return ids, sure

    def scores(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Probabilities (B, K, H, W) of the classes at `size`."""
        found: Any = self.network(pixels)
        if hasattr(found, "class_queries_logits"):  # masks with a class each (Cheng et al. 2022, section 3.2)
            classes = found.class_queries_logits.softmax(-1)[..., :-1]
            masks = F.interpolate(found.masks_queries_logits.sigmoid(), size, mode="bilinear")
            together = torch.einsum("bqc,bqhw->bchw", classes, masks)
            return together / together.sum(1, keepdim=True).clamp_min(1e-6)
        logits: Tensor = found["out"] if isinstance(found, dict) and "out" in found else found.logits
        return F.interpolate(logits, size, mode="bilinear").softmax(1)


def normalised(side: int) -> Prepare:
    """Resize the shorter side to `side` pixels, and normalise by ImageNet's mean and deviation."""

    def prepare(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        size = (max(1, round(height * side / min(height, width))), max(1, round(width * side / min(height, width))))
        mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        return (F.interpolate(images, size, mode="bilinear", antialias=True) - mean) / std

    return prepare


def processed(processor: Any) -> Prepare:
    """What an image processor of transformers does to images of 8 bits, but for cutting out their middle."""

    def prepare(images: Tensor) -> Tensor:
        pixels = (images * 255).round().to(torch.uint8).cpu()
        whole = {"do_center_crop": False} if getattr(processor, "do_center_crop", None) else {}
        found: Tensor = processor(images=list(pixels), return_tensors="pt", **whole)["pixel_values"]
        return found.to(images.device)

    return prepare


def build_torchvision(name: str) -> nn.Module:
    """`NAME[?weights=none]` of torchvision.models.segmentation. Raises UsageError, UnknownNameError."""
    from torchvision import models

    name, _, query = name.partition("?")
    known = models.list_models(module=models.segmentation)
    if name not in known:
        raise UnknownNameError("torchvision segmenter", name, known)
    options = dict(parse_qsl(query, keep_blank_values=True))
    if set(options) - {"weights"}:
        raise UnknownNameError(f"option of torchvision:{name}", next(iter(set(options) - {"weights"})), ["weights"])
    wanted = options.get("weights", DEFAULT)
    if wanted.lower() not in (NONE, DEFAULT.lower()):
        raise UnknownNameError(f"weights of torchvision:{name}", wanted, [DEFAULT, NONE])
    entry = models.get_model_weights(name).DEFAULT
    labels = [str(category) for category in entry.meta["categories"]]
    if wanted.lower() == NONE:
        network = models.get_model(name, weights=None, weights_backbone=None)
    else:
        try:
            network = models.get_model(name, weights=entry, progress=False)
        except Exception as error:
            raise UsageError(
                f"no weights for torchvision:{name} ({type(error).__name__}: {error}); put them into torch's cache, or "
                f"take random ones with 'torchvision:{name}?weights=none'"
            ) from error
    transforms = entry.transforms()
    side = (getattr(transforms, "resize_size", None) or [_SIDE])[0]
    none = [index for index, label in enumerate(labels) if label == BACKGROUND]
    return ByScores(network, labels, normalised(side), f"shorter side {side}", unlabelled=none)


def build_transformers(name: str) -> nn.Module:
    """A model for semantic (or universal) segmentation by folder or hub name, from safetensors. Raises UsageError."""
    transformers = import_transformers(f"transformers:{name}")
    folder = Path(name).expanduser()
    where = str(folder) if folder.is_dir() else name
    try:
        with hub_as_reachable(not folder.is_dir()):
            config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=False)
            known = transformers.AutoModelForSemanticSegmentation._model_mapping
            kind = "Semantic" if type(config) in known else "Universal"
            network = getattr(transformers, f"AutoModelFor{kind}Segmentation").from_pretrained(
                where, use_safetensors=True
            )
            processor = image_processor(transformers, where)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"transformers:{name} cannot be loaded ({type(error).__name__}: {reason})") from error
    numbers = sorted(config.id2label)
    if numbers != list(range(len(numbers))):
        raise UsageError(
            f"transformers:{name}: id2label in its config.json names the ids {', '.join(map(str, numbers[:8]))}; "
            f"expected 0 to {len(numbers) - 1}"
        )
    labels = [str(config.id2label[number]) for number in numbers]
    if processor is None:
        return ByScores(network, labels, normalised(_SIDE), f"shorter side {_SIDE}")
    return ByScores(network, labels, processed(processor), json.dumps(processor.to_dict(), sort_keys=True, default=str))
