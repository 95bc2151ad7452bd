"""Segmenters: models that label images, where nobody has.

    builtin:scenes-segmenter                          one that comes with Microtome, for scenes
    path/file.py:factory, package.module:factory      a callable of one's own
    torchvision:deeplabv3_resnet50                    with its default weights; ?weights=none for random ones
    transformers:FOLDER or transformers:NAME          semantic segmentation from a folder or the Hugging Face hub

A factory returns a callable with `labels` (names, index = id) and `category` (a name, or one for each label), which
takes images (B, 3, H, W), float RGB in [0, 1], and gives ids (B, H, W) or (B, P, H, W) int64, -1 = unlabelled; or a
pair of these and a confidence in [0, 1] for each id. Weights are never unpickled.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from microtome.dissect.models.factories import Product, make_from_file, make_from_module
from microtome.dissect.models.model import digest_of
from microtome.dissect.models.zoo import seeded
from microtome.storage.errors import UnknownNameError, UsageError

BUILTIN = {"scenes-segmenter": ("microtome.dissect.builtin.segmenter", "scenes_segmenter")}
_FORMS = (
    "a segmenter is builtin:NAME, path/file.py:factory, package.module:factory, torchvision:NAME or transformers:NAME"
)
_PRODUCT = Product(
    "a callable with `labels` and `category` (images in [0, 1] to label ids)",
    lambda made: callable(made) and hasattr(made, "labels"),
)


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A segmenter ready to label images.

    labels, categories: of each id; fingerprint: hexadecimal sha256 that tells it from any other, over its parameters,
    or for a plain callable over its file and what it holds.
    """

    spec: str
    call: Callable[[Tensor], object]
    labels: tuple[str, ...]
    categories: tuple[str, ...]
    fingerprint: str

    def to(self, device: torch.device) -> Segmenter:
        """Move it, in place, where it can be moved."""
        if isinstance(self.call, nn.Module):
            self.call.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor, confidence: float | None = None) -> Tensor:
        """Ids (B, P, H, W) int64, -1 = unlabelled, of images (B, 3, H, W) float in [0, 1].

        confidence: below it an id is replaced by -1. Raises UsageError where the segmenter does not keep its contract.
        """
        try:
            found = self.call(images)
        except UsageError:
            raise
        except Exception as error:
            shape = tuple(images.shape)
            raise UsageError(f"segmenter {self.spec} failed on images {shape}: {_line(error)}") from error
        sure = None
        if isinstance(found, tuple) and len(found) == 2:
            found, sure = found
        ids = self._checked(found, images)
        if confidence is None:
            return ids
        if not isinstance(sure, Tensor):
            raise UsageError(
                f"segmenter {self.spec} gives no confidence, so --segmenter-confidence cannot be used; let it return "
                "(ids, confidence)"
            )
        sure = sure if sure.ndim == 4 else sure.unsqueeze(1)
        if sure.shape != ids.shape:
            raise UsageError(
                f"segmenter {self.spec} gives confidences {tuple(sure.shape)} for ids {tuple(ids.shape)}; "
                "expected one for each"
            )
        return torch.where(sure.to(ids.device) >= confidence, ids, torch.full_like(ids, -1))

    def _checked(self, found: object, images: Tensor) -> Tensor:
        expected = (len(images), *images.shape[-2:])
        if not isinstance(found, Tensor):
            raise self._broken(type(found).__name__)
        if found.is_floating_point() or found.ndim not in (3, 4):
            raise self._broken(f"{found.dtype} {tuple(found.shape)}")
        ids = (found if found.ndim == 4 else found.unsqueeze(1)).long()
        if (ids.shape[0], *ids.shape[2:]) != expected or not ids.shape[1]:
            raise UsageError(
                f"segmenter {self.spec} gave ids {tuple(found.shape)} for images {tuple(images.shape)}; "
                "expected the images' height and width"
            )
        if ids.numel() and not -1 <= int(ids.min()) <= int(ids.max()) < len(self.labels):
            raise UsageError(
                f"segmenter {self.spec} gave ids from {int(ids.min())} to {int(ids.max())}; with {len(self.labels)} "
                f"labels they go from -1 (unlabelled) to {len(self.labels) - 1}"
            )
        return ids

    def _broken(self, what: str) -> UsageError:
        return UsageError(
            f"segmenter {self.spec} gave {what}; expected int64 ids (B, H, W) or (B, P, H, W), -1 = unlabelled"
        )


def load_segmenter(spec: str) -> Segmenter:
    """The segmenter that `spec` names. Raises UsageError where it cannot be had."""
    scheme, _, rest = spec.partition(":")
    with seeded():
        made: Any
        if scheme == "builtin":
            made = _builtin(rest)
        elif scheme == "torchvision" and rest:
            from microtome.dissect.models.segmenter_zoo import build_torchvision

            made = build_torchvision(rest)
        elif scheme == "transformers" and rest:
            from microtome.dissect.models.segmenter_zoo import build_transformers

            made = build_transformers(rest)
        else:
            made = _from_factory(spec)
    if isinstance(made, nn.Module):
        made.eval()
    labels = _labels(spec, made)
    categories = _categories(spec, made, len(labels))
    settings = json.dumps([labels, categories, getattr(made, "settings", "")])
    mark = digest_of(made, settings) if isinstance(made, nn.Module) else digest_of_callable(made, settings)
    return Segmenter(spec, made, labels, categories, mark)


def digest_of_callable(made: Any, settings: str) -> str:
    """sha256 over `settings`, the file that defines a callable, and the networks, tensors and arrays that it holds."""
    digest = hashlib.sha256(settings.encode())
    module = sys.modules.get(getattr(made, "__module__", ""))
    source = Path(getattr(module, "__file__", None) or "")
    if source.is_file():
        digest.update(source.read_bytes())
    for name, value in sorted(getattr(made, "__dict__", {}).items()):
        parts = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else [value]
        for part in parts:
            if isinstance(part, nn.Module):
                digest.update(digest_of(part, name).encode())
            elif isinstance(part, Tensor | np.ndarray):
                values = part.detach().cpu().numpy() if isinstance(part, Tensor) else part
                digest.update(f"{name} {values.shape} {values.dtype}".encode() + values.tobytes())
            elif isinstance(part, str | int | float | None):
                digest.update(f"{name} {part!r}".encode())
    return digest.hexdigest()


def _builtin(name: str) -> object:
    if name not in BUILTIN:
        raise UnknownNameError("built-in segmenter", name, BUILTIN)
    module, factory = BUILTIN[name]
    return getattr(importlib.import_module(module), factory)()


def _from_factory(spec: str) -> object:
    source, colon, attribute = spec.rpartition(":")
    if not colon or not source or not attribute:
        raise UsageError(f"{spec!r} is no segmenter; {_FORMS}")
    if source.endswith(".py") or "/" in source:
        return make_from_file(Path(source).expanduser(), attribute, _PRODUCT)
    if not all(part.isidentifier() for part in source.split(".")):
        raise UsageError(f"{spec!r} is no segmenter; {_FORMS}")
    return make_from_module(source, attribute, _PRODUCT)


def _labels(spec: str, made: Any) -> tuple[str, ...]:
    labels = made.labels
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not labels:
        raise UsageError(f"segmenter {spec}: `labels` has to be a list of names, one for each id")
    names = tuple(str(label).strip() for label in labels)
    if not all(names):
        raise UsageError(f"segmenter {spec}: the label of id {names.index('')} is empty")
    return names


def _categories(spec: str, made: Any, count: int) -> tuple[str, ...]:
    stated = getattr(made, "category", "object")
    if isinstance(stated, str):
        stated = (stated,) * count
    categories = tuple(str(name) for name in stated) if isinstance(stated, Sequence) else ()
    if len(categories) != count or not all(name.strip() for name in categories):
        raise UsageError(
            f"segmenter {spec}: `category` has to be a name, or one for each of its {count} labels; it has "
            f"{len(categories)}"
        )
    return tuple(name.strip().lower() for name in categories)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
