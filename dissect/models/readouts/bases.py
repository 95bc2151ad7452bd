"""Bases of a layer's space: a random rotation, and principal components from merged moments.

The rotation is the baseline of Bau, Zhou, Khosla, Oliva, Torralba 2017 (Network dissection, section 3.2): a layer and
its rotation hold the same and are equally discriminative, so what the axes explain beyond the rotation lies in the
axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROTATION_SEED = 2017
BYTES_AT_ONCE = 2**27
"""Of feature vectors in float64 that are summed before they are merged."""

Doubles = NDArray[np.float64]


def random_rotation(units: int, seed: int = ROTATION_SEED) -> Doubles:
    """An orthogonal (C, C) float64 matrix, Haar-distributed over O(C).

    QR of a matrix of normal draws, the signs of R's diagonal moved into Q (Mezzadri 2007, section 5), without which the
    distribution would be that of the QR routine.
    """
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((units, units)))
    rotation: Doubles = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return rotation


@dataclass(frozen=True)
class Components:
    """Principal components: weight (C, U) with orthonormal columns of falling variance, variance (U,), mean (C,)."""

    weight: Doubles
    variance: Doubles
    mean: Doubles

    def first(self, count: int | None) -> Components:
        """The first `count` of them, None = all."""
        return Components(self.weight[:, :count], self.variance[:count], self.mean)

    @property
    def bias(self) -> Doubles:
        """(U,) what the mean reads: to be taken away, so that each unit is 0 on average."""
        bias: Doubles = -(self.mean @ self.weight)
        return bias


class FeatureMoments:
    """Mean and scatter of feature vectors (C,), merged part by part about their own means (Chan, Golub, LeVeque 1979).

    In float64, and as large as C * C whatever the number of images. Positions with a value that is not finite are left
    out.
    """

    def __init__(self, units: int) -> None:
        self.count = 0
        self.mean = np.zeros(units)
        self.scatter = np.zeros((units, units))

    def update(self, maps: Tensor) -> None:
        """Add every position of maps (B, C, h, w), on any device."""
        at_once = max(1, BYTES_AT_ONCE // (8 * maps[0].numel()))
        for images in torch.split(maps.detach(), at_once):
            rows = images.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).to(torch.float64)
            finite = torch.isfinite(rows).all(dim=1)
            rows = rows if bool(finite.all()) else rows[finite]
            if len(rows):
                mean = rows.mean(dim=0)
                centred = rows - mean
                self._merge(len(rows), mean.cpu().numpy(), (centred.T @ centred).cpu().numpy())

    def _merge(self, count: int, mean: Doubles, scatter: Doubles) -> None:
        total = self.count + count
        shift = mean - self.mean
        self.scatter += scatter + np.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total

    def components(self) -> Components:
        """All C principal components; the largest entry of each is positive."""
        variance, vectors = np.linalg.eigh(self.scatter / max(self.count, 1))
        weight = vectors[:, ::-1]
        largest = weight[np.abs(weight).argmax(axis=0), np.arange(weight.shape[1])]
        signed = np.ascontiguousarray(weight * np.where(largest < 0, -1.0, 1.0))
        return Components(signed, np.maximum(variance[::-1], 0.0), self.mean.copy())
