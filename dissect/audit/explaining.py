"""Pictures that explain units and classes of one model: what its pages show beside the dissection."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from microtome.dissect.attribution.methods import attribute
from microtome.dissect.attribution.subject import at_rest
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.models import Model
from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.model import normalise
from microtome.reports.explanations import overlay, picture_of
from microtome.reports.thumbnails import thumb_shape
from microtome.storage.errors import DoesNotApplyError, MicrotomeError

SYNTHESIS_SIDE, CLASS_SIDE = 192, 160
"""Pixels of the longer side of what is stored at most."""

PATCH_METHODS = ("guided-backprop", "smoothgrad")
"""What shows the part of a patch that a unit responds to: the first of them that applies."""

MAP_METHOD = "grad-cam"

_QUALITY = 82

Picture = NDArray[np.uint8]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class PatchPlace:
    """A patch of a unit: the crop (H, W, 3) uint8 that the model sees, the peak on the grid, the box in the crop."""

    crop: Picture
    at: tuple[int, int]
    box: Box


@dataclass(frozen=True)
class Choice:
    """The method that explains patches of a layer, "" where none does, and why those before it do not."""

    method: str
    why: str


@contextmanager
def explaining(model: Model, device: torch.device, threads: int) -> Iterator[Explainer]:
    """An Explainer of `model` on `device`; torch computes in float32 with so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with arithmetic("float32", device):
            model.module.to(device).to(memory_format=torch.contiguous_format)
            yield Explainer(model, device)
    finally:
        torch.set_num_threads(before)


class Explainer:
    """Explains units and classes of one model; made by `explaining`."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model = model
        self._device = device
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (model.preprocess.mean, model.preprocess.std)
        )

    def images(self, crops: Sequence[Picture]) -> Tensor:
        """Crops (H, W, 3) uint8 as the model takes them, (B, 3, H, W)."""
        pixels = torch.from_numpy(np.stack(crops)).to(self._device)
        return normalise(pixels, self._mean, self._std, torch.contiguous_format).to(self.model.placeholder().dtype)

    def logits(self, crops: Sequence[Picture]) -> NDArray[np.float32]:
        """(B, K) float32. Raises UsageError for a model that is no classifier."""
        with at_rest(self.model.module), torch.no_grad():
            answer = self.model.module(self.images(crops))
            found: NDArray[np.float32] = logits_of(answer, self.model.class_names).float().cpu().numpy()
        return found

    def choose(self, layer: str, unit: int, patch: PatchPlace) -> Choice:
        """Which method explains patches of units of `layer`, tried on one of them."""
        why = []
        for method in PATCH_METHODS:
            try:
                self._of_unit(method, layer, unit, [patch])
            except MicrotomeError as error:
                why.append(str(error))
                continue
            return Choice(method, "; ".join(why))
        return Choice("", "; ".join(why))

    def patches(self, method: str, layer: str, unit: int, patches: Sequence[PatchPlace]) -> list[Picture] | None:
        """What the unit responds to in the box of each patch, signed around grey; None where the method has nothing."""
        try:
            found = self._of_unit(method, layer, unit, patches)
        except DoesNotApplyError:
            return None
        pictures = []
        for signed, patch in zip(found, patches, strict=True):
            top, left, bottom, right = patch.box
            picture = picture_of(signed[:, top:bottom, left:right])
            pictures.append(fitted(picture, *thumb_shape(bottom - top, right - left)))
        return pictures

    def heat(self, crop: Picture, target: int) -> Picture:
        """Grad-CAM of a class over a crop. Raises DoesNotApplyError where there is none."""
        values = attribute(MAP_METHOD, self.model, self.images([crop]), target)
        return overlay(crop, values[0].cpu().numpy())

    def _of_unit(self, method: str, layer: str, unit: int, patches: Sequence[PatchPlace]) -> NDArray[np.float32]:
        """(n, 3, H, W) float32, each at the peak of its patch."""
        images, at = self.images([patch.crop for patch in patches]), [patch.at for patch in patches]
        found: NDArray[np.float32] = attribute(method, self.model, images, None, layer, unit=unit, at=at).cpu().numpy()
        return found


def fitted(picture: Picture, rows: int, columns: int) -> Picture:
    """`picture` at rows x columns pixels: each the mean of what it covers, or between its neighbours where it grows."""
    shrinks = rows <= picture.shape[0] and columns <= picture.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (columns, rows), interpolation=method), np.uint8)


def at_most(picture: Picture, side: int) -> Picture:
    """`picture` with a longer side of `side` pixels, or as it is where that is shorter."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    if longer <= side:
        return picture
    return fitted(picture, max(1, round(height * side / longer)), max(1, round(width * side / longer)))


def beside(pictures: Sequence[Picture]) -> Picture:
    """Pictures in a row, each in a square cell as long as the longest side of all; the rest is grey."""
    side = max(max(picture.shape[:2]) for picture in pictures)
    row = np.full((side, side * len(pictures), 3), 128, np.uint8)
    for place, picture in enumerate(pictures):
        row[: picture.shape[0], place * side : place * side + picture.shape[1]] = picture
    return row


def webp(picture: Picture) -> bytes:
    """`picture` (H, W, 3) uint8 RGB as WebP; the same pixels give the same bytes."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "WEBP", quality=_QUALITY, method=4)
    return encoded.getvalue()
