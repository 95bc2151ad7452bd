"""What is really changed when an image is made: a spectrum with decorrelated colours, or the pixels themselves.

Ascent on pixels gives images of high frequencies. In a spectrum whose coefficients count the less the higher their
frequency (1/f, as in photographs), with colours along the axes in which those of photographs do not correlate, the same
ascent finds other images (Olah, Mordvintsev and Schubert, 2017; Mordvintsev, Pezzotti, Schubert and Olah, 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

COLOURS: Final = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""A square root of the covariance of red, green and blue over ImageNet, as published by Olah et al. (2017)."""

CONTRAST: Final = 0.08
"""Standard deviation of a start's coefficients: faint, so that little of the noise is left at the end."""

FALL: Final = 1.2
"""How fast coefficients fall with frequency: photographs have about 1 / f; a little more keeps fine patterns back."""

EDGE: Final = 0.01
"""How far an image to start from is kept from black and white, where the sigmoid has no slope."""


class Painting(Protocol):
    """Images (B, 3, H, W) in [0, 1] as functions of `coefficients`, whatever their shape (B, ...)."""

    coefficients: Tensor

    def image(self, coefficients: Tensor) -> Tensor:
        """The images, differentiable."""


class FourierPainting:
    """Images by their spectra.

    start: (B, 3, H, W) in [0, 1], or None for noise out of the generators, one an image; contrast: of that noise.
    """

    def __init__(
        self,
        size: tuple[int, int],
        generators: Sequence[torch.Generator],
        like: Tensor,
        *,
        start: Tensor | None = None,
        contrast: float = 1.0,
    ) -> None:
        self._size = size
        self._scale = spectrum_scale(size).to(like)
        axes = torch.tensor(COLOURS, dtype=torch.float64)
        axes = axes / axes.square().sum(0).sqrt().max()
        self._colours = axes.to(like)
        if start is not None:
            logits = torch.logit(start.double().cpu(), EDGE)
            plain = torch.einsum("bchw,dc->bdhw", logits, axes.inverse())
            spectrum = torch.fft.rfft2(plain, norm="ortho") / spectrum_scale(size)
            self.coefficients = torch.view_as_real(spectrum).to(like)
            return
        shape = (3, *self._scale.shape, 2)
        drawn = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        self.coefficients = (drawn * (CONTRAST * contrast)).to(like)

    def image(self, coefficients: Tensor) -> Tensor:
        """(B, 3, H, W) in (0, 1) of coefficients (B, 3, H, W // 2 + 1, 2): real and imaginary parts."""
        spectrum = torch.view_as_complex(coefficients) * self._scale
        plain = torch.fft.irfft2(spectrum, s=self._size, norm="ortho")
        return torch.sigmoid(torch.einsum("bchw,dc->bdhw", plain, self._colours))


class PixelPainting:
    """Images by their pixels: the difference from a middle value, cut off at black and white when shown."""

    def __init__(
        self,
        size: tuple[int, int],
        generators: Sequence[torch.Generator],
        like: Tensor,
        *,
        middle: Tensor,
        start: Tensor | None = None,
        contrast: float = 1.0,
    ) -> None:
        self._middle = middle
        if start is not None:
            self.coefficients = start.to(like) - middle
            return
        drawn = torch.stack([torch.randn((3, *size), generator=generator) for generator in generators])
        self.coefficients = (drawn * (0.01 * contrast)).to(like)

    def image(self, coefficients: Tensor) -> Tensor:
        """(B, 3, H, W), beyond [0, 1] where ascent went there: the plain form knows no bounds."""
        return self._middle + coefficients


def spectrum_scale(size: tuple[int, int]) -> Tensor:
    """(H, W // 2 + 1) float64: what a coefficient counts, by its frequency f: 1 / f^FALL, at 0 as at the lowest,
    such that coefficients of variance 1 give an image of variance 1."""
    height, width = size
    down = torch.fft.fftfreq(height, dtype=torch.float64).unsqueeze(1)
    across = torch.fft.rfftfreq(width, dtype=torch.float64)
    scale = 1 / torch.sqrt(down.square() + across.square()).clamp_min(1 / max(size)) ** FALL
    return scale / torch.sqrt((scale.square() * _weights(size)).sum() / (height * width))


def _weights(size: tuple[int, int]) -> Tensor:
    """How much variance a coefficient of the half spectrum brings to the image: 4 for the half that stands for both."""
    height, width = size
    weights = torch.full((height, width // 2 + 1), 4.0, dtype=torch.float64)
    weights[:, 0] = 1.0
    if width % 2 == 0:
        weights[:, -1] = 1.0
    return weights
