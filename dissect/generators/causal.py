"""What each unit of a generator's layer causes: the average causal effect on every concept, as the segmenter sees it.

Bau et al., "GAN dissection: visualizing and understanding generative adversarial networks" (ICLR 2019, section 3.2,
equations 5 and 6): the mean over latents of the concept's area with the unit inserted (forced to a high value of its
own, everywhere) minus its area with the unit ablated (set to 0). One segmentation of an image serves all concepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.audit.stopping import Stopped, StopSignal
from microtome.dissect.generators.edits import ablation, applied
from microtome.dissect.generators.effects import areas_of, images_of, tell
from microtome.dissect.generators.generator import Generator, of_seeds
from microtome.dissect.models.segmenters import Segmenter
from microtome.dissect.models.sites import site_of

BATCH = 16


@dataclass(frozen=True, eq=False)
class UnitEffects:
    """Areas, as shares of the image, on n latents, for K labels and m units. before: (n, K); ablated, inserted:
    (m, n, K), all float64."""

    before: NDArray[np.float64]
    ablated: NDArray[np.float64]
    inserted: NDArray[np.float64]

    def ace(self) -> NDArray[np.float64]:
        """(m, K): mean area inserted minus mean area ablated (equation 6), in shares of the image."""
        effect: NDArray[np.float64] = (self.inserted - self.ablated).mean(axis=1)
        return effect

    def error(self) -> NDArray[np.float64]:
        """(m, K): the standard error of `ace` over latents; NaN of one latent."""
        each = self.inserted - self.ablated
        if each.shape[1] < 2:
            return np.full(each.shape[::2], np.nan)
        spread: NDArray[np.float64] = each.std(axis=1, ddof=1) / np.sqrt(each.shape[1])
        return spread


def unit_effects(
    generator: Generator,
    segmenter: Segmenter,
    layer: str,
    seeds: Sequence[int],
    values: NDArray[np.float64],
    *,
    units: Sequence[int] | None = None,
    batch: int = BATCH,
    advance: Callable[[int], None] | None = None,
    stop: StopSignal | None = None,
) -> UnitEffects:
    """Ablate and insert the units of `layer` (by default all), one at a time, in the images of `seeds`.

    values: (C,) what each unit is inserted at, in the layer's own numbers; advance: told how many images are done, of
    len(seeds) * (1 + 2 * units). Where an edit leaves an image as it was, it is not segmented again. Raises Stopped
    once `stop` is set, UsageError where an image is not finite, untouched or with a unit inserted.
    """
    chosen = range(site_of(generator.model, layer).units) if units is None else units
    labels = len(segmenter.labels)
    before = np.empty((len(seeds), labels))
    after = np.empty((2, len(chosen), len(seeds), labels))
    for start in range(0, len(seeds), batch):
        part = seeds[start : start + batch]
        latents = generator.latents(part)
        rows = slice(start, start + len(part))
        with of_seeds(part):
            untouched = images_of(generator, latents)
        before[rows] = areas_of(segmenter(untouched), labels)
        tell(advance, len(untouched))
        for place, unit in enumerate(chosen):
            if stop is not None and stop.is_set():
                raise Stopped
            for kind, value in enumerate((0.0, float(values[unit]))):
                with applied(generator.model, [ablation(layer, [unit], value)]):
                    images = images_of(generator, latents)
                after[kind, place, rows] = _areas(segmenter, images, untouched, before[rows])
                tell(advance, len(images))
    return UnitEffects(before, after[0], after[1])


def _areas(segmenter: Segmenter, images: Tensor, untouched: Tensor, before: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, K) areas in `images`; those of `before` where an image is the untouched one."""
    areas = before.copy()
    changed = (images != untouched).flatten(1).any(1)
    if bool(changed.any()):
        areas[changed.cpu().numpy()] = areas_of(segmenter(images[changed]), before.shape[1])
    return areas
