"""What the right answer of each sample is: its class label, or what the untouched network says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset

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
        return np.array([-1 if label is None else self.of_label[label] for label in labels], np.int64)

    def name(self, number: int) -> str:
        """The name of one of the model's classes."""
        return self.names[number] if number < len(self.names) else str(number)


def find_truth(dataset: ImageDataset, samples: int, class_names: Sequence[str]) -> Truth:
    """The truth of the first `samples` samples of `dataset` for a model with these classes.

    Labels serve only where every class that occurs has a class of the model of the same name, without regard to case,
    with _ as a blank; nothing is guessed from numbers.
    """
    found = {dataset.entry(index).label for index in range(samples)}
    unlabelled = None in found
    labels = sorted(label for label in found if label is not None)
    places = {folded(name): number for number, name in reversed(list(enumerate(class_names)))}

    def instead(reason: str) -> Truth:
        why = f"{reason}: the untouched model's own answers are the truth, and a fall is a share of changed answers"
        return Truth(PREDICTIONS, why, {}, tuple(class_names))

    if not labels:
        return instead("the images have no class labels")
    if not class_names:
        return instead("the model does not name its classes")
    names = {label: dataset.class_names[label] for label in labels}
    strangers = [name for name in names.values() if folded(name) not in places]
    if strangers:
        return instead(f"the model has no class called {strangers[0]!r}, which the images have")
    why = f"{len(labels)} classes of the images are classes of the model"
    if unlabelled:
        why += "; images without a class are left out"
    return Truth(LABELS, why, {label: places[folded(name)] for label, name in names.items()}, tuple(class_names))


def folded(name: str) -> str:
    """A class's name as names are compared."""
    return " ".join(name.replace("_", " ").split()).casefold()
