"""Segmenters that libraries know, wrapped to the contract of `segmenters`: images in [0, 1] to ids and confidences."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome.dissect.models.zoo import hub_as_reachable
from microtome.storage.errors import UnknownNameError, UsageError

BACKGROUND = "__background__"
"""torchvision's name for pixels of none of its classes: they are unlabelled."""
_SIDE = 520
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ByScores(nn.Module):
    """A network of class scores as a segmenter: the likeliest class of each pixel, and its probability.

    side: pixels of the shorter side as the network sees the image; unlabelled: indices that mean no class.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: Sequence[str],
        *,
        side: int | tuple[int, int],
        mean: Sequence[float] = _MEAN,
        std: Sequence[float] = _STD,
        unlabelled: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.network = network
        self.labels = list(labels)
        self.category = "object"
        self._side = side
        self._unlabelled = list(unlabelled)
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(tuple(std)).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and probabilities (B, H, W) of images (B, 3, H, W) in [0, 1]."""
        size = (images.shape[-2], images.shape[-1])
        seen = F.interpolate(images, _seen_size(size, self._side), mode="bilinear", antialias=True)
        scores = self.scores((seen - self.mean) / self.std, size)
        sure, ids = scores.max(1)
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


def _seen_size(size: tuple[int, int], side: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(side, tuple):
        return side
    short = min(size)
    return max(1, round(size[0] * side / short)), max(1, round(size[1] * side / short))


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
    entry = models.get_model_weights(name).DEFAULT
    labels = [str(category) for category in entry.meta["categories"]]
    if options.get("weights", "").lower() == "none":
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
    return ByScores(network, labels, side=side, unlabelled=none)


def build_transformers(name: str) -> nn.Module:
    """A model for semantic (or universal) segmentation by folder or hub name, from safetensors. Raises UsageError."""
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError(
            f"transformers:{name} needs transformers, which is not installed: pip install 'microtome[transformers]'"
        ) from error
    folder = Path(name).expanduser()
    where = str(folder) if folder.is_dir() else name
    try:
        with hub_as_reachable(not folder.is_dir()):
            config = transformers.AutoConfig.from_pretrained(where)
            known = transformers.AutoModelForSemanticSegmentation._model_mapping
            kind = "Semantic" if type(config) in known else "Universal"
            network = getattr(transformers, f"AutoModelFor{kind}Segmentation").from_pretrained(
                where, use_safetensors=True
            )
            processor = _processor(transformers, where)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"transformers:{name} cannot be loaded ({type(error).__name__}: {reason})") from error
    labels = [str(config.id2label[index]) for index in range(len(config.id2label))]
    return ByScores(
        network,
        labels,
        side=_processor_side(processor),
        mean=getattr(processor, "image_mean", None) or _MEAN,
        std=getattr(processor, "image_std", None) or _STD,
    )


def _processor(transformers: Any, where: str) -> Any:
    """The image processor saved beside a model; None where there is none: then the usual settings are taken."""
    try:
        return transformers.AutoImageProcessor.from_pretrained(where)
    except (OSError, ValueError):
        return None


def _processor_side(processor: Any) -> int | tuple[int, int]:
    stated = getattr(processor, "size", None)
    size = dict(stated) if stated is not None else {}
    if "height" in size and "width" in size:
        return int(size["height"]), int(size["width"])
    return int(size.get("shortest_edge") or _SIDE)
