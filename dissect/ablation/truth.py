"""What the right answer of each sample is: its class label, or what the untouched network says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.dissect.query.importance import matching

LABELS, PREDICTIONS = "labels", "predictions"


@dataclass(frozen=True)
class Truth:
    """kind: "labels" or "predictions"; why: in words; of_label: the model's class of each of the dataset's classes.

    names: of the model's classes, where it has names.
    """

    kind: str
    why: str
    of_label: dict[int, int]
    names: tuple[str, ...]

    def of(self, labels: Sequence[int | None], logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """(n,) the right class of samples with these labels and untouched logits (n, K); -1 where there is none."""
        if self.kind == PREDICTIONS:
            answers: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
            return answers
        return np.array([-1 if label is None else self.of_label.get(label, -1) for label in labels], np.int64)

    def has(self, label: int | None) -> bool:
        """Whether a sample with this label has a right class."""
        return self.kind == PREDICTIONS or label in self.of_label

    def name(self, number: int) -> str:
        """The name of one of the model's classes, with its number where others have the same name."""
        if number >= len(self.names):
            return str(number)
        name = self.names[number]
        return f"{name} ({number})" if self.names.count(name) > 1 else name


def find_truth(dataset: ImageDataset, samples: int, class_names: Sequence[str]) -> Truth:
    """The truth of the first `samples` samples of `dataset` for a model with these classes.

    Labels serve only where every class that occurs has a class of the model of the same name (see `matching`); nothing
    is guessed from numbers. Where several classes of the model have that name, its images have no right class.
    """
    found = {dataset.entry(index).label for index in range(samples)}
    unlabelled = None in found
    labels = sorted(label for label in found if label is not None)

    def instead(reason: str) -> Truth:
        why = f"{reason}: the untouched model's own answers are the truth, and a fall is a share of changed answers"
        return Truth(PREDICTIONS, why, {}, tuple(class_names))

    if not labels:
        return instead("the images have no class labels")
    if not class_names:
        return instead("the model does not name its classes")
    names = {label: dataset.class_names[label] for label in labels}
    places = {label: matching(name, class_names) for label, name in names.items()}
    strangers = [names[label] for label, there in places.items() if not there]
    if strangers:
        return instead(f"the model has no class called {strangers[0]!r}, which the images have")
    of_label = {label: there[0] for label, there in places.items() if len(there) == 1}
    shared = [names[label] for label in labels if label not in of_label]
    if not of_label:
        return instead(f"several classes of the model are called {' or '.join(map(repr, shared))}")
    why = f"{len(of_label)} classes of the images are classes of the model"
    if shared:
        why += f"; images of {', '.join(shared)} are left out, because several classes of the model are called so"
    if unlabelled:
        why += "; images without a class are left out"
    return Truth(LABELS, why, of_label, tuple(class_names))
