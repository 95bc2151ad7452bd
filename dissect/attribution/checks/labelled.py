"""Images of a dataset as a model takes them, and where on them what is labelled lies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.datasets.base import Concept, ImageDataset
from microtome.dissect.attribution.checks.mapping import Classes
from microtome.dissect.attribution.subject import at_rest
from microtome.dissect.audit.images import read_item
from microtome.dissect.models.feeding import batch_of
from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.model import Model
from microtome.storage.errors import UnknownNameError, UsageError

OBJECT = "object"


@dataclass(frozen=True)
class Labelled:
    """Images (n, 3, H, W) on the CPU, in the model's dtype, normalised as the model takes them, with their labels.

    keys: of the samples; planes: (n, P, H, W) uint16 ids of `concepts`, 0 = unlabelled; counted: ids of the concepts
    that a map may point at; unread: how many samples could not be read.
    """

    keys: tuple[str, ...]
    images: Tensor
    planes: NDArray[np.uint16]
    concepts: tuple[Concept, ...]
    counted: tuple[int, ...]
    unread: int = 0

    def masks(self, class_names: Sequence[str], classes: Tensor) -> NDArray[np.bool_]:
        """(n, H, W): where a map of `classes` (n,) should point.

        The concept of the same name as the class (or as one of its synonyms, which commas part), where the image has
        it; else everything in `counted`.
        """
        named = {_plain(concept.name): concept.id for concept in self.concepts}
        masks: NDArray[np.bool_] = np.asarray(np.isin(self.planes, self.counted).any(axis=1))
        for i, label in enumerate(classes.tolist()):
            words = re.split(r",", class_names[label]) if label < len(class_names) else []
            ids = [named[_plain(word)] for word in words if _plain(word) in named]
            own = np.isin(self.planes[i], ids).any(axis=0)
            if own.any():
                masks[i] = own
        return masks

    def trials(self, model: Model, stand_for: Classes, batch: int = 16) -> Trials:
        """Each concept of `stand_for` that an image has, with the class among its own of the highest logit there.

        That is the published game: an image with a dog and a car is explained twice, for the dog and for the car.
        Raises UsageError where no image has any, or for a class that the model has not.
        """
        rows, classes, masks = [], [], []
        logits = _logits(model, self.images, batch)
        for numbers in stand_for.values():
            if max(numbers) >= logits.shape[1]:
                raise UsageError(f"there is no class {max(numbers)}: the model has {logits.shape[1]}, numbered from 0")
        for i, planes in enumerate(self.planes):
            for concept, numbers in stand_for.items():
                mask = (planes == concept).any(axis=0)
                if mask.any():
                    rows.append(i)
                    classes.append(numbers[int(logits[i, list(numbers)].argmax())])
                    masks.append(mask)
        if not rows:
            names = ", ".join(each.name for each in self.concepts if each.id in stand_for)
            raise UsageError(f"none of the {len(self.keys)} images has any of {names}; give more images or concepts")
        return Trials(self.images[rows], torch.tensor(classes), np.stack(masks))


@dataclass(frozen=True)
class Trials:
    """What is explained: images (n, 3, H, W), one class of each (n,) int64, where its map should point (n, H, W)."""

    images: Tensor
    classes: Tensor
    masks: NDArray[np.bool_]


def read_labelled(
    dataset: ImageDataset, model: Model, count: int | None = None, concepts: Iterable[str] = ()
) -> Labelled:
    """The first `count` samples of a dataset (all, where None) that can be read.

    concepts: names of those that a map may point at; without them those of category "object", and where there are
    none, all. Raises UnknownNameError for a concept that the dataset has not, UsageError where nothing can be read.
    """
    if count is not None and count < 1:
        raise UsageError(f"{count} images to check on; give 1 or more")
    keys, images, planes, unread = [], [], [], 0
    counted = _counted(dataset, tuple(concepts))
    for index in range(len(dataset) if count is None else min(count, len(dataset))):
        item = read_item(dataset, index, model.preprocess, model.preprocess.size)
        if not item.ok:
            unread += 1
            continue
        keys.append(dataset.entry(index).key)
        images.append(item.image)
        planes.append(item.planes)
    if not images:
        raise UsageError(f"no image of {dataset.spec} could be read; there is nothing to check on")
    taken = batch_of(images, model.preprocess).to(model.placeholder().dtype)
    return Labelled(tuple(keys), taken, np.stack(planes), tuple(dataset.concepts), counted, unread)


def _logits(model: Model, images: Tensor, batch: int) -> Tensor:
    """(n, K) float32 on the CPU."""
    like = model.placeholder()
    with at_rest(model.module), torch.no_grad():
        starts = range(0, len(images), batch)
        answers = (model.module(images[i : i + batch].to(like)) for i in starts)
        return torch.cat([logits_of(answer, model.class_names).float().cpu() for answer in answers])


def _counted(dataset: ImageDataset, names: tuple[str, ...]) -> tuple[int, ...]:
    known = {concept.name for concept in dataset.concepts}
    for name in names:
        if name not in known:
            raise UnknownNameError("concept", name, known)
    if names:
        return tuple(concept.id for concept in dataset.concepts if concept.name in names)
    objects = tuple(concept.id for concept in dataset.concepts if concept.category == OBJECT)
    return objects or tuple(concept.id for concept in dataset.concepts)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
