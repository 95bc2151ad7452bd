"""What a network sees in images: their features, how far they are from real images, and the Frechet distance.

The Frechet distance is that of Heusel et al. ("GANs trained by a two time-scale update rule converge to a local Nash
equilibrium", 2017), of features of the network at hand in place of Inception's; torchmetrics computes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from microtome.datasets.base import ImageDataset
from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import resize_crop
from microtome.dissect.models import Model, load_model, resolve_layers
from microtome.dissect.models.capture import ActivationCapture
from microtome.dissect.models.feeding import Pixels, batch_of, prepare
from microtome.storage.errors import SampleError, UnknownNameError, UsageError

NETWORK, LAYER = "builtin:scenes-cnn", "block5"
DISTANCES = ("nearest", "mahalanobis")
NEIGHBOURS = 5
BATCH = 32
SHRINKAGE = 0.01
"""How much of the mean variance is mixed into the covariance of real features, so that it can be inverted."""

Features = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Eyes:
    """A layer of a network that looks at images; its units' means over positions are the features."""

    model: Model
    layer: str

    @property
    def words(self) -> str:
        """The network and its layer."""
        return f"{self.model.spec} at {self.layer}"

    def features(self, pictures: Pixels) -> Features:
        """Of pictures (n, H, W, 3) uint8: (n, d) float64."""
        return np.concatenate([np.zeros((0, self.width)), *self._parts(pictures)])

    @property
    def width(self) -> int:
        """How many features there are, d."""
        with ActivationCapture(self.model, [self.layer]) as capture:
            return int(capture(self.model.noise())[self.layer].shape[1])

    def _parts(self, pictures: Pixels) -> Iterator[Features]:
        sees, place = self.model.preprocess, self.model.placeholder()
        with ActivationCapture(self.model, [self.layer]) as capture:
            for start in range(0, len(pictures), BATCH):
                batch = batch_of([prepare(one, sees) for one in pictures[start : start + BATCH]], sees)
                yield capture(batch.to(place))[self.layer].mean((2, 3)).double().cpu().numpy()


def open_eyes(spec: str | None, layer: str | None, device: torch.device) -> Eyes:
    """The network `spec` at `layer`, None = the built-in one at its last block. Raises UsageError for a network of the
    user's without a layer, or for several layers."""
    if spec is not None and layer is None:
        raise UsageError(f"--features {spec}: say which layer's, as in --features-layer layer4")
    model = load_model(spec or NETWORK)
    model.module.to(device)
    names = resolve_layers(model, [layer or LAYER])
    if len(names) != 1:
        raise UsageError(f"--features-layer {layer}: these are {len(names)} layers, {', '.join(names[:4])}; name one")
    return Eyes(model, names[0])


def real_pictures(dataset: ImageDataset, limit: int, size: tuple[int, int]) -> Iterator[Pixels]:
    """Real images in batches (n, H, W, 3), cropped and resized to `size` as the generator's are, so that the two differ
    in nothing but what they show. What cannot be read is left out."""
    held: list[Pixels] = []
    for index in range(min(limit, len(dataset))):
        try:
            image = dataset.read(index).image
        except SampleError:
            continue
        geometry = CropGeometry.of(*image.shape[:2], size=size, resize=None)
        held.append(resize_crop(image, geometry, "bilinear"))
        if len(held) == BATCH:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


class Reals:
    """Features (m, d) of real images, and how far others are from them."""

    def __init__(self, features: Features, distance: str = DISTANCES[0], neighbours: int = NEIGHBOURS) -> None:
        """Raises UnknownNameError for another distance, UsageError where the images are too few."""
        if distance not in DISTANCES:
            raise UnknownNameError("distance", distance, DISTANCES)
        if len(features) < 2 or (distance == DISTANCES[0] and len(features) < neighbours):
            raise UsageError(
                f"--real gives {len(features)} readable images; for {distance} distances at least "
                f"{max(2, neighbours)} are needed"
            )
        self.features = features
        self._distance, self._neighbours = distance, neighbours
        self._mean, spread = features.mean(axis=0), features.std(axis=0)
        self._scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        covariance = np.cov(features, rowvar=False).reshape(len(spread), -1)
        level = np.trace(covariance) / len(spread) or 1.0
        self._root = np.linalg.cholesky((1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(len(spread)))

    @property
    def words(self) -> str:
        """The distance in words."""
        if self._distance == DISTANCES[0]:
            return f"mean distance to the {self._neighbours} nearest real images, features scaled to equal spread"
        return "Mahalanobis distance to the real images"

    def far(self, features: Features) -> Features:
        """(n,) how far features (n, d) are."""
        if self._distance != DISTANCES[0]:
            whitened = np.linalg.solve(self._root, (features - self._mean).T)
            apart: Features = np.sqrt(np.square(whitened).sum(axis=0))
            return apart
        reals = torch.from_numpy((self.features - self._mean) * self._scale)
        found = []
        for start in range(0, len(features), BATCH):
            rows = torch.from_numpy((features[start : start + BATCH] - self._mean) * self._scale)
            distances = torch.cdist(rows, reals, compute_mode="donot_use_mm_for_euclid_dist")
            found.append(distances.topk(self._neighbours, largest=False).values.mean(1).numpy())
        return np.concatenate([np.zeros(0), *found])


class Frechet:
    """The Frechet distance of sets of features to those of real images."""

    def __init__(self, real: Features) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance  # seconds to import

        as_given = nn.Identity()
        as_given.num_features = real.shape[1]
        self._metric = FrechetInceptionDistance(feature=as_given, normalize=True, reset_real_features=False)
        self._metric.update(torch.from_numpy(real), real=True)

    def __call__(self, features: Features) -> float:
        """Of features (n, d), n at least 2."""
        self._metric.reset()
        self._metric.update(torch.from_numpy(features), real=False)
        return float(self._metric.compute())
