"""Datasets that grow, with the model and the images of `planted`: a Python file whose functions the specs can name."""

from __future__ import annotations

from pathlib import Path

from helpers.planted import write_planted

GROWING = """
import os
from pathlib import Path

import numpy as np
import torch
from planted import Images, Planted, Units, model

from microtome.datasets.base import Entry
from microtome.datasets.formats.folder import FolderDataset
from microtome.datasets.views.ordered import OrderedDataset


class Growing(Images):
    def __init__(self, count, broken=(), changed=(), hot=(), late=None):
        super().__init__(count, broken)
        self.changed, self.hot, self.late = changed, hot, late

    def entry(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        entry = super().entry(index)
        late = self.late is not None and index >= self.late
        return Entry(entry.key, "late" if late else entry.split, entry.label)

    def read(self, index):
        sample = super().read(index)
        if index in self.hot:
            sample.image[0, 0] = 255
        if index in self.changed:
            sample.planes[0] = 2
        return sample

    def fingerprint(self):
        return f"growing-{self.count}-{self.broken}-{self.changed}-{self.hot}-{self.late}"


class Tracked(Growing):
    def sample_fingerprint(self, index):
        return 1000 * index + (index in self.changed)


class Other(Tracked):
    concepts = Tracked.concepts[::-1]
    class_names = ("a", "b", "c")


class HotUnits(Units):
    def forward(self, x):
        hot = x.amax((1, 2, 3)) > 0.999
        return super().forward(x) * torch.where(hot, 1e6, 1.0)[:, None, None, None]


def hot_model():
    made = Planted()
    made.units = HotUnits(1.0)
    return made.eval()


def in_order():
    dataset = FolderDataset(os.environ["PHOTOS"])
    names = Path(os.environ["PHOTOS"], "order.txt").read_text().split()
    places = {dataset.entry(index).key: index for index in range(len(dataset))}
    return OrderedDataset(dataset, np.array([places[name] for name in names]))
"""

FACTORIES = {
    "n2": "Tracked(2)",
    "n18": "Tracked(18)",
    "n20": "Tracked(20)",
    "n25": "Tracked(25)",
    "n31": "Tracked(31)",
    "untracked20": "Growing(20)",
    "untracked31": "Growing(31)",
    "changed": "Tracked(31, changed=(7,))",
    "untracked_changed": "Growing(31, changed=range(31))",
    "broken": "Tracked(31, broken=(22, 30))",
    "late": "Tracked(31, late=18)",
    "moved": "Tracked(31, late=5)",
    "other_concepts": "Other(31)",
    "hot": "Tracked(31, hot=(27,))",
    "hot_early": "Tracked(7, hot=(2,))",
}


def write_growing(folder: Path) -> Path:
    """Write `planted.py` and `growing.py` into `folder`; specs are `growing.py:n20` and so on."""
    path = write_planted(folder).with_name("growing.py")
    factories = "".join(f"def {name}():\n    return {call}\n\n\n" for name, call in FACTORIES.items())
    path.write_text(f"{GROWING}\n\n{factories}")
    return path
