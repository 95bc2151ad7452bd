"""Images as a model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import Interpolation, resize_crop
from microtome.dissect.models.model import normalise
from microtome.dissect.models.preprocess import Preprocess

Pixels = NDArray[np.uint8]


def prepare(image: Pixels, preprocess: Preprocess) -> Pixels:
    """What a model sees of an upright (height, width, 3) uint8 image: resized, cropped, (H, W, 3) uint8."""
    geometry = CropGeometry.of(*image.shape[:2], size=preprocess.size, resize=preprocess.resize)
    return resize_crop(image, geometry, cast("Interpolation", preprocess.interpolation))


def batch_of(pixels: Sequence[Pixels], preprocess: Preprocess) -> Tensor:
    """Prepared images, each (H, W, 3) uint8, normalised: (B, 3, H, W) float32, on the CPU."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return normalise(torch.from_numpy(np.stack(pixels)), mean, std, torch.contiguous_format)
