"""A small audit of directions: a model whose features are mixed, images of boxes, an encoder and matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.dissect import AuditConfig
from microtome.dissect.audit.config import config_from_mapping

UNITS, SIDE = 8, 16
SOURCE = """
import numpy as np
import torch
from torch import nn

from microtome.datasets.base import Concept, Entry, Sample

UNITS = 8


def rotation():
    return np.linalg.qr(np.random.default_rng(1).normal(size=(UNITS, UNITS)))[0].astype(np.float32)


class Mixed(nn.Module):
    '''Feature 0 is the car and 1 the tree, 2 to 7 are noise; no unit is any of them, for all are rotated.'''

    def __init__(self):
        super().__init__()
        self.register_buffer("rotation", torch.from_numpy(rotation()))

    def forward(self, x):
        pooled = nn.functional.avg_pool2d(x, 2)
        red, green, blue = pooled[:, 0], pooled[:, 1], pooled[:, 2]
        noise = [torch.sin(blue * (900.0 * k + 500.0) + k) for k in range(UNITS - 2)]
        features = torch.stack([(red - blue).clamp(min=0), (green - blue).clamp(min=0), *noise], dim=1)
        return torch.einsum("bfhw,fc->bchw", features, self.rotation)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mixed = Mixed()
        self.head = nn.Linear(UNITS, 2)
        self.preprocess = {"size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}

    def forward(self, x):
        return self.head(self.mixed(x).mean((2, 3)))


def model():
    return Net().eval()


class Images:
    '''A car and a tree of 8 x 8 pixels, 1/16 of each image, on noise.'''

    spec = "boxes"
    concepts = (Concept(1, "car", "object"), Concept(2, "tree", "object"))
    plane_names = ("object",)
    image_label_slots = 0
    class_names = ()

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def entry(self, index):
        return Entry(f"image-{index}", "", None)

    def read(self, index):
        dice = np.random.default_rng(index)
        grey = dice.integers(0, 100, (32, 32, 1), dtype=np.uint8)
        image, planes = np.repeat(grey, 3, 2), np.zeros((1, 32, 32), np.uint16)
        places = dice.permutation(16)[:2]
        for concept, place in enumerate(places.tolist()):
            box = (slice(place // 4 * 8, place // 4 * 8 + 8), slice(place % 4 * 8, place % 4 * 8 + 8))
            image[box][..., concept] += np.uint8(150)
            planes[0][box] = concept + 1
        return Sample(image, planes, np.zeros(0, np.uint16))

    def fingerprint(self):
        return f"boxes-{self.count}"

    def sample_fingerprints(self, count):
        return np.arange(count, dtype=np.uint64)


def images():
    return Images(40)


def more():
    return Images(50)
"""
SAE = """
import torch
from torch import nn


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 12)

    def forward(self, rows):
        return torch.relu(self.linear(rows))


def encoder():
    return Sparse()
"""
ORDER = [3, 1, 0, 2, 7, 6, 5, 4]
FILES = ("identity.npy", "permuted.npy", "unmixed.npy", "sae.py:encoder")
BUILT_IN = ("axes", "pca", "pca3", "rotated")


def rotation() -> NDArray[np.float32]:
    """As SOURCE has it."""
    mixing: NDArray[np.float32] = np.linalg.qr(np.random.default_rng(1).normal(size=(UNITS, UNITS)))[0].astype("f4")
    return mixing


def write_source(folder: Path) -> Path:
    """The model, the images, an encoder and matrices, in `folder`; returns the file of model and images."""
    (folder / "sae.py").write_text(SAE)
    np.save(folder / "identity.npy", np.eye(UNITS))
    np.save(folder / "permuted.npy", np.eye(UNITS)[:, ORDER])
    np.save(folder / "unmixed.npy", rotation().T[:, :3])
    (folder / "boxes.py").write_text(SOURCE)
    return folder / "boxes.py"


def config_of(source: Path, out: Path | str, **changes: object) -> AuditConfig:
    values = {
        "model": f"{source}:model",
        "dataset": f"{source}:images",
        "layers": ["mixed"],
        "units": [*BUILT_IN, *(str(source.parent / file) for file in FILES)],
        "out": str(out),
        "tau": [1 / 16],
        "batch": 4,
        "shard_samples": 16,
        "top": 3,
        "torch_threads": 1,
        "map": False,
    }
    return config_from_mapping({**values, **changes}, source="test")
