"""An object's mask from a classifier alone: saliency says where to look for colours, GrabCut finds the object's edge.

Simonyan, Vedaldi and Zisserman, 2014 (section 3.2); Rother, Kolmogorov and Blake, 2004.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.dissect.attribution.baselines import blurred
from microtome.dissect.attribution.gradients import saliency
from microtome.dissect.attribution.subject import PEAK, At, Target
from microtome.dissect.models import Model
from microtome.storage.errors import DoesNotApplyError, UsageError

COMPONENTS = 5
"""Gaussians of each of OpenCV's two colour models: there must be as many seeds of each."""

_NO_BOX = (0, 0, 1, 1)  # asked for, and used only where GrabCut starts from a box

SMOOTHED = 1 / 64
"""The standard deviation of the Gaussian over the saliency, as a share of the shorter side: 3.5 pixels of 224."""


def grabcut(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    foreground: float = 0.95,
    background: float = 0.3,
    rounds: int = 5,
    seed: int = 0,
) -> Tensor:
    """(B, H, W) float32, 1 on the object and 0 beside it.

    The pixels whose saliency (slightly smoothed) is from its quantile `foreground` up are the object's, those up to
    its quantile `background` are not; the colours of both give a first cut, `rounds` rounds of GrabCut refine it. The
    picture is the image without its normalisation or, for a bare module, stretched from its minimum to its maximum.

    Raises UsageError, DoesNotApplyError where no gradient reaches the images, or where the saliency of an image has no
    such pixels because it is the same everywhere.
    """
    if not 0 <= background <= foreground < 1 or rounds < 0:
        raise UsageError(
            f"quantiles {background} and {foreground}, {rounds} rounds: expected 0 <= background <= foreground < 1 "
            "and rounds of 0 or more"
        )
    maps = saliency(model, images, target, layer, unit=unit, at=at)
    maps = blurred(maps.unsqueeze(1), max(0.5, SMOOTHED * min(maps.shape[1:]))).squeeze(1)
    if images.shape[1] != 3:
        raise DoesNotApplyError("grabcut", f"it takes colours, and these images have {images.shape[1]} channels")
    pictures = _pictures(model, images)
    masks = [
        _cut(picture, _seeds(each, foreground, background, number), rounds, seed)
        for number, (picture, each) in enumerate(zip(pictures, maps.cpu().numpy(), strict=True))
    ]
    return torch.from_numpy(np.stack(masks)).to(maps)


def _pictures(model: Model | nn.Module, images: Tensor) -> NDArray[np.uint8]:
    """(B, H, W, 3) uint8, BGR."""
    pixels = images.detach().float().cpu()
    if isinstance(model, Model):
        mean, std = (torch.tensor(triple).view(1, 3, 1, 1) for triple in (model.preprocess.mean, model.preprocess.std))
        pixels = pixels * std + mean
    else:
        low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
        pixels = (pixels - low) / (high - low).clamp_min(1e-12)
    out: NDArray[np.uint8] = (pixels.clamp(0, 1) * 255).round().byte().flip(1).permute(0, 2, 3, 1).numpy()
    return out


def _seeds(saliency_map: NDArray[np.float32], foreground: float, background: float, number: int) -> NDArray[np.uint8]:
    """(H, W), OpenCV's labels: sure foreground, sure background, and what is to be found out."""
    low, high = np.quantile(saliency_map, (background, foreground))
    seeds = np.full(saliency_map.shape, cv2.GC_PR_BGD, np.uint8)
    seeds[saliency_map >= high] = cv2.GC_FGD
    seeds[saliency_map <= low] = cv2.GC_BGD
    counts = [int((seeds == kind).sum()) for kind in (cv2.GC_FGD, cv2.GC_BGD)]
    if min(counts) < COMPONENTS:
        raise DoesNotApplyError(
            "grabcut",
            f"the saliency of image {number} of the batch marks {counts[0]} pixels of the object and {counts[1]} "
            f"beside it, and it takes {COMPONENTS} of each (it is the same everywhere, or the image is too small)",
            "take saliency",
        )
    return seeds


def _cut(picture: NDArray[np.uint8], seeds: NDArray[np.uint8], rounds: int, seed: int) -> NDArray[np.float32]:
    """(H, W) of 0 and 1. The colours are first learnt from the seeds alone, as in the paper."""
    cv2.setRNGSeed(seed)
    of_background, of_foreground = np.zeros((1, 65)), np.zeros((1, 65))
    sure = seeds != cv2.GC_PR_BGD
    strip, labels = np.ascontiguousarray(picture[sure][None]), np.ascontiguousarray(seeds[sure][None])
    cv2.grabCut(strip, labels, _NO_BOX, of_background, of_foreground, 1, cv2.GC_INIT_WITH_MASK)
    picture, mask = np.ascontiguousarray(picture), seeds.copy()
    cv2.grabCut(picture, mask, _NO_BOX, of_background, of_foreground, 1, cv2.GC_EVAL_FREEZE_MODEL)
    if rounds:
        cv2.grabCut(picture, mask, _NO_BOX, of_background, of_foreground, rounds, cv2.GC_EVAL)
    return np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
