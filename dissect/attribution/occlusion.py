"""Occlusion: by how much the score falls when a part of the image is covered (Zeiler and Fergus, 2014, section 4.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from microtome.dissect.attribution.baselines import GREY, baseline_of
from microtome.dissect.attribution.subject import PEAK, At, Score, Target, scoring
from microtome.dissect.models import Model
from microtome.storage.errors import UsageError

Spans = list[tuple[int, int]]


def occlusion(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    size: int | None = None,
    stride: int | None = None,
    fill: str | float = GREY,
    batch: int = 32,
) -> Tensor:
    """(B, H, W) float32, signed: at each pixel the fall in score, averaged over the square windows that cover it.

    size: the window's side in pixels, by default 1/8 of the shorter side; stride: from one window to the next, by
    default half of it, at most `size`; the last windows of a row and a column are cut off at the border. fill: "grey"
    (the pixel of 0.5 as the model takes it, (0.5 - mean) / std; for a bare module, which states no preprocessing, 0),
    "mean" (each image's own mean colour), "blur" (the image under a Gaussian of 1/16 of its shorter side), "black", or
    a value of the normalised image. batch: covered images in a pass. Raises UsageError.
    """
    with scoring(model, images, target, layer, unit=unit, at=at) as score, torch.no_grad():
        height, width = score.images.shape[2:]
        size, stride = _window(height, width, size, stride)
        if batch < 1:
            raise UsageError(f"a batch of {batch} covered images: expected at least 1")
        rows, columns = spans(height, size, stride), spans(width, size, stride)
        falls = _falls(score, _hidden(model, score.images, fill), rows, columns, batch)
        down, across = _covering(rows, height).to(falls), _covering(columns, width).to(falls)
        total = torch.einsum("brc,rh,cw->bhw", falls, down, across)
        return (total / torch.outer(down.sum(0), across.sum(0))).float()


def spans(length: int, size: int, stride: int) -> Spans:
    """(start, stop) of the windows along an axis of `length` pixels: every `stride`, until the end is covered."""
    starts = range(0, stride * math.ceil((length - size) / stride) + 1, stride)
    return [(start, min(start + size, length)) for start in starts]


def _window(height: int, width: int, size: int | None, stride: int | None) -> tuple[int, int]:
    """The size and stride in pixels."""
    size = max(1, min(height, width) // 8) if size is None else size
    if not 1 <= size <= min(height, width):
        raise UsageError(f"a window of {size} pixels on images of {height}x{width}: expected 1 to {min(height, width)}")
    stride = max(1, size // 2) if stride is None else stride
    if not 1 <= stride <= size:
        raise UsageError(f"a stride of {stride} for a window of {size} pixels leaves gaps: expected 1 to {size}")
    return size, stride


def _hidden(model: Model | nn.Module, images: Tensor, fill: str | float) -> Tensor:
    if isinstance(fill, str):
        return baseline_of(model, images, fill)
    if not math.isfinite(fill):
        raise UsageError(f"windows are filled with {fill}: expected a finite number")
    return torch.full_like(images, fill)


def _falls(score: Score, hidden: Tensor, rows: Spans, columns: Spans, batch: int) -> Tensor:
    """(B, rows, columns) float64: the score of each image less that of its covered versions."""
    numbers = torch.arange(len(score.images), device=score.images.device)
    parts = [numbers[start : start + batch] for start in range(0, len(numbers), batch)]
    whole = torch.cat([score(score.images[part], part) for part in parts]).double()
    falls = torch.empty(len(score.images), len(rows) * len(columns), dtype=torch.float64, device=whole.device)
    windows = [(row, column) for row in rows for column in columns]
    jobs = [(image, window) for image in range(len(score.images)) for window in range(len(windows))]
    for start in range(0, len(jobs), batch):
        chosen = jobs[start : start + batch]
        images = torch.tensor([image for image, _ in chosen], device=whole.device)
        covered = score.images[images]
        for version, (image, window) in zip(covered, chosen, strict=True):
            (top, bottom), (left, right) = windows[window]
            version[:, top:bottom, left:right] = hidden[image, :, top:bottom, left:right]
        places = torch.tensor([window for _, window in chosen], device=whole.device)
        falls[images, places] = whole[images] - score(covered, images).double()
    return falls.reshape(len(score.images), len(rows), len(columns))


def _covering(windows: Spans, length: int) -> Tensor:
    """(windows, length): 1 where a window covers a pixel."""
    out = torch.zeros(len(windows), length)
    for number, (start, stop) in enumerate(windows):
        out[number, start:stop] = 1
    return out
