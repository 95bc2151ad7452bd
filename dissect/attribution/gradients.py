"""Gradients of a score by the pixels, and what is made of them.

Simonyan, Vedaldi and Zisserman, 2014 (section 3); Shrikumar et al., 2016; Smilkov et al., 2017; Sundararajan, Taly and
Yan, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from microtome.dissect.attribution.baselines import BLACK, baseline_of
from microtome.dissect.attribution.passage import reaches, refuse_reentrant
from microtome.dissect.attribution.subject import PEAK, At, Score, Target, scoring
from microtome.dissect.models import Model
from microtome.storage.errors import DoesNotApplyError, UsageError

ABSOLUTE, SQUARED = "absolute", "squared"


def saliency(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    power: str = ABSOLUTE,
) -> Tensor:
    """(B, H, W) float32: the maximum over channels of the score's gradient, |g| or, with power="squared", g^2
    (Simonyan et al., 2014, section 3.1). Raises UsageError, DoesNotApplyError where no gradient reaches the images.
    """
    if power not in (ABSOLUTE, SQUARED):
        raise UsageError(f'the power of a saliency is "{ABSOLUTE}" or "{SQUARED}", not {power!r}')
    with scoring(model, images, target, layer, unit=unit, at=at) as score:
        gradient = gradient_of(score, score.images, "saliency")
    return (gradient.abs() if power == ABSOLUTE else gradient.square()).amax(1).float()


def gradient_x_input(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
) -> Tensor:
    """(B, 3, H, W) float32, signed: gradient times normalised image (Shrikumar et al., 2016).

    Raises UsageError, DoesNotApplyError where no gradient reaches the images.
    """
    with scoring(model, images, target, layer, unit=unit, at=at) as score:
        return (gradient_of(score, score.images, "gradient-x-input") * score.images).float()


def smoothgrad(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> Tensor:
    """(B, 3, H, W) float32, signed: the mean gradient over `samples` noisy copies (Smilkov et al., 2017).

    noise: the standard deviation of the normal noise, as a share of each image's range, its maximum less its minimum.
    All images have the same draws of `seed`, each scaled by its range: what an image gives does not depend on its
    batch. With target None the class is that of the image without noise. Raises UsageError, DoesNotApplyError where
    no gradient reaches the images.
    """
    if samples < 1 or not noise >= 0:
        raise UsageError(f"{samples} samples with noise {noise}: expected at least one, and noise of 0 or more")
    generator = torch.Generator().manual_seed(seed)
    with scoring(model, images, target, layer, unit=unit, at=at) as score:
        spread = noise * (score.images.amax((1, 2, 3), keepdim=True) - score.images.amin((1, 2, 3), keepdim=True))
        total = torch.zeros_like(score.images)
        for _ in range(samples):
            draws = torch.randn(score.images.shape[1:], generator=generator).to(score.images)
            total += gradient_of(score, score.images + spread * draws, "smoothgrad")
    return (total / samples).float()


def integrated_gradients(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    steps: int = 50,
    baseline: str | Tensor = BLACK,
    batch: int = 32,
) -> Tensor:
    """(B, 3, H, W) float32, signed: what each value adds to the score on the straight way from the baseline to the
    image (Sundararajan et al., 2017, eq. 1). `integrate` says as well how exact the sum is, and what the options are.
    """
    return integrate(
        model, images, target, layer, unit=unit, at=at, steps=steps, baseline=baseline, batch=batch
    ).attribution


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients: attribution (B, 3, H, W) float32; change (B,) float32, by how much the image's score is
    above the baseline's; error (B,) float32, the attribution's sum less that change: 0 were the sum over steps the
    integral (completeness; Sundararajan et al., 2017, proposition 1). More steps make it smaller."""

    attribution: Tensor
    change: Tensor
    error: Tensor


def integrate(
    model: Model | nn.Module,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    *,
    unit: int | None = None,
    at: At = PEAK,
    steps: int = 50,
    baseline: str | Tensor = BLACK,
    batch: int = 32,
) -> Integrated:
    """Integrated gradients by Gauss-Legendre quadrature, with its completeness error.

    steps: points of the quadrature; baseline: "black" (the black pixel as the model takes it, (0 - mean) / std; for a
    bare module, which states no preprocessing, zeros), "grey", "mean", "blur" (see `baseline_of`), or a tensor that
    broadcasts to the images; batch: images in a pass, at least as many as there are images. With target None the class
    is that of the image. Raises UsageError, DoesNotApplyError where no gradient reaches the images.
    """
    from captum.attr import IntegratedGradients  # heavy: loads matplotlib

    if steps < 1 or batch < 1:
        raise UsageError(f"{steps} steps in batches of {batch}: expected at least 1 of each")
    with scoring(model, images, target, layer, unit=unit, at=at) as score:
        start = _start(model, score.images, baseline)

        def forward(points: Tensor, rows: Tensor) -> Tensor:
            return followed(score, points, "integrated-gradients", rows)

        rows = torch.arange(len(score.images), device=score.images.device)
        attribution = IntegratedGradients(forward).attribute(
            score.images,
            start,
            additional_forward_args=rows,
            n_steps=steps,
            internal_batch_size=max(batch, len(score.images)),
        )
        with torch.no_grad():
            change = score(score.images) - score(start)
        return Integrated(
            attribution.detach().float(), change.detach(), (attribution.sum((1, 2, 3)) - change).detach().float()
        )


def gradient_of(score: Score, images: Tensor, method: str) -> Tensor:
    """(n, 3, H, W), detached: the gradient of each image's score by that image; images: as many as the score's.

    Raises DoesNotApplyError where no gradient reaches the images; `method` is named there.
    """
    leaf = images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(followed(score, leaf, method).sum(), leaf)
    return gradient


def followed(score: Score, images: Tensor, method: str, rows: Tensor | None = None) -> Tensor:
    """(n,), the score of images that ask for gradients.

    Raises DoesNotApplyError where no gradient reaches the images, or none can be taken since parts are checkpointed in
    the reentrant form; `method` is named there.
    """
    values = score(images, rows)
    refuse_reentrant(values, method, score.model.spec)
    if not reaches(values, images):
        raise DoesNotApplyError(
            method,
            f"no gradient of {score.model.spec} reaches the images: it is cut off on the way (detach, no_grad, round)",
            "take occlusion",
        )
    return values


def _start(model: Model | nn.Module, images: Tensor, baseline: str | Tensor) -> Tensor:
    if isinstance(baseline, str):
        return baseline_of(model, images, baseline).contiguous()
    try:
        return baseline.detach().to(images).expand_as(images).contiguous()
    except RuntimeError:
        shapes = f"{tuple(baseline.shape)} for images {tuple(images.shape)}"
        raise UsageError(f"a baseline {shapes}: expected a shape that broadcasts to theirs") from None
