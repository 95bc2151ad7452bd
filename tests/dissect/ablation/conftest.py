"""A finished audit of a small classifier, copied for each test that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from microtome.dissect import AuditConfig, run_audit

SOURCE = '''
import numpy as np
import torch
from torch import nn

from microtome.datasets.base import Concept, Entry, Sample
from microtome.storage.errors import SampleError

COUNT, SIZE = 40, 16


class Net(nn.Module):
    """Units 0, 1, 2 are the mean of red, green, blue; 3 is 0; the classes are red, green and pale blue."""

    def __init__(self):
        super().__init__()
        self.units = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 3)
        self.preprocess = {"size": SIZE, "mean": [0, 0, 0], "std": [1, 1, 1]}
        self.class_names = ["Red", "green", "pale_blue"]
        with torch.no_grad():
            self.units.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])[:, :, None, None])
            self.units.bias.copy_(torch.tensor([-0.2, -0.2, -0.2, -1.0]))
            self.head.weight.copy_(8 * torch.eye(4)[:3])
            self.head.bias.copy_(torch.tensor([0.0, 0.2, 0.1]))

    def forward(self, x):
        return self.head(torch.flatten(self.pool(self.relu(self.units(x))), 1))


class Other(Net):
    def forward(self, x):
        return self.units(x)


def model():
    return Net().eval()


def no_classifier():
    return Other().eval()


def twins():
    net = Net().eval()
    net.class_names = ["Red", "crane", "crane"]
    return net


class Images:
    spec = "colours"
    concepts = (Concept(1, "red thing", "object"), Concept(2, "green thing", "object"), Concept(3, "blue", "color"))
    plane_names = ("object",)
    image_label_slots = 0

    def __init__(self, class_names=("red", "green", "pale blue"), count=COUNT):
        self.class_names, self.count = class_names, count

    def __len__(self):
        return self.count

    def entry(self, index):
        return Entry(f"image-{index}", "", index % 3)

    def read(self, index):
        if index == 7:
            raise SampleError("image-7", "not an image")
        dice = np.random.default_rng(index)
        image = dice.integers(0, 90, (SIZE, SIZE, 3), dtype=np.uint8)
        top, left = dice.integers(0, 8, 2)
        image[top : top + 7, left : left + 7, index % 3] = 160 + dice.integers(0, 90)
        planes = np.zeros((1, SIZE, SIZE), np.uint16)
        planes[0, top : top + 7, left : left + 7] = index % 3 + 1
        return Sample(image, planes, np.zeros(0, np.uint16))

    def fingerprint(self):
        return f"colours-{self.class_names}-{self.count}"

    def sample_fingerprint(self, index):
        return index


def images():
    return Images()


def others():
    return Images(("red", "green", "yellow"))


def cranes():
    return Images(("red", "crane", "Red"))


def more():
    return Images(count=COUNT + 8)
'''


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file `colours.py`: `:model` tells the colours of `:images` apart; `:others` has a class it does not know."""
    path = tmp_path_factory.mktemp("colours") / "colours.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="session")
def finished(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, only to be read."""
    out = tmp_path_factory.mktemp("finished") / "run"
    run_audit(
        AuditConfig(
            model=f"{colours}:model",
            dataset=f"{colours}:images",
            layers=("relu", "head"),
            out=out,
            tau=(0.1,),
            top=2,
            batch=4,
        )
    )
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")
